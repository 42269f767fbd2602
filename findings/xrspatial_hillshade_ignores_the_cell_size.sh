#!/usr/bin/env bash
# xarray-spatial 0.5.3 (numpy 2.4.6): hillshade takes every cell for one unit wide, whatever the coordinates say.
#
# Expected: the light on a slope depends on the slope. The same package's slope reads the cell size from the coordinates of the same
# array, and the documentation of hillshade does not ask for cells of one unit, nor has it an argument for their size.
# Behaviour: the differences between neighbours are not divided by the cell size. With cells of ten metres a gentle slope is lit as a
# cliff, and coarser cells of one hill look steeper; the result has the right shape and type and lies between 0 and 1.
# Output seen: a plane that falls by 0.42 to the north-west (23 degrees), in light from there, 30 degrees high: slope says 23.0 with cells
# of 1, 10 and 50 metres; hillshade says 0.90, 0.98 and 0.94, where 0.90 is right for all. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" xarray-spatial==0.5.3 xarray==2026.9.0 numba==0.68.1 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import numpy as np
import xarray as xr
from xrspatial import hillshade, slope


def hill(cell):
    """Heights in metres, north up, that rise by 0.3 per metre to the east and by 0.3 to the south."""
    north, east = np.arange(20)[::-1] * cell, np.arange(20) * cell
    heights = 0.3 * east[None, :] - 0.3 * north[:, None]
    return xr.DataArray(heights, dims=("y", "x"), coords={"y": north, "x": east}, attrs={"res": (cell, cell)})


height, angle = np.radians(30), np.arctan(np.hypot(0.3, 0.3))
light = np.sin(height) * np.cos(angle) + np.cos(height) * np.sin(angle)  # the plane faces the light
steep = [round(float(slope(hill(cell))[9, 9]), 1) for cell in (1.0, 10.0, 50.0)]
lit = [round(float(hillshade(hill(cell), azimuth=315, angle_altitude=30)[9, 9]), 2) for cell in (1.0, 10.0, 50.0)]
print(f"slope {steep}, hillshade {lit}, right {(light + 1) / 2:.2f}")
assert steep == [23.0, 23.0, 23.0] and lit[0] == round((light + 1) / 2, 2), "the right answers have changed"
assert lit[1:] == [0.98, 0.94], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
