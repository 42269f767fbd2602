#!/usr/bin/env bash
# rasterix 0.2.4 (rioxarray 0.19.0, xarray 2026.9.0): assign_index moves a part that was selected from a scene to the corner of the scene;
# its x and y, which were right, are replaced.
#
# Expected: the index is made of the coordinates that the array has, or there is an error where the file's stored transform and they
# disagree.
# Behaviour: the stored transform wins, and neither `isel` nor `sel` of xarray changes that. A part that is turned upside down gets the y
# of one that is not. There is no warning; the array's shape and values are right, so nothing shows.
# Output seen: west and north of a part that begins 5 columns and 4 rows into the scene: 691050 and 5334960 by its coordinates,
# 691000 and 5335000 by rasterix, 64 m away; the value at one and the same place 552, by rasterix 797, and upside down 857.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterix==0.2.4 rioxarray==0.19.0 xarray==2026.9.0 rasterio==1.4.4 \
    numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import rasterio
import rasterix
import rioxarray

warnings.simplefilter("error")
warnings.simplefilter("ignore", PendingDeprecationWarning)
with rasterio.open("scene.tif", "w", driver="GTiff", width=60, height=40, count=1, dtype="float32", crs="EPSG:25832",
                   transform=rasterio.Affine(10, 0, 691000, 0, -10, 5335000)) as file:
    file.write(np.arange(2400, dtype="float32").reshape(1, 40, 60))
place, found = {"x": 691125, "y": 5334905}, {}
for name, rows in (("part", slice(4, 24)), ("upside down", slice(23, 3, -1))):
    part = rioxarray.open_rasterio("scene.tif").squeeze().isel(x=slice(5, 25), y=rows)
    west, north, right = float(part.x.min()) - 5, float(part.y.max()) + 5, float(part.sel(place))
    moved = rasterix.assign_index(part)
    found[name] = [float(moved.x[0]) - 5, float(moved.y[0]) + 5, float(moved.sel(place, method="nearest"))]
    print(f"{name}: west {west:.0f}, north {north:.0f}, value {right:.0f}; by rasterix west {found[name][0]:.0f}, "
          f"north {found[name][1]:.0f}, value {found[name][2]:.0f}")
    assert [west, north, right] == [691050, 5334960, 552], "the right answers have changed"
assert found == {"part": [691000, 5335000, 797], "upside down": [691000, 5335000, 857]}, "the behaviour has changed"
PYTHON
