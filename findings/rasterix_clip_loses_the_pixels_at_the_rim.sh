#!/usr/bin/env bash
# rasterix 0.2.4 (exactextract 0.3.0, rasterio 1.4.4): with clip=True, the default of geometry_clip, pixels at the rim of the
# geometries are lost, although all_touched=True asks for them and coverage measures them: a building of 784 m2 covers 400 m2.
#
# Expected: the same pixels and areas with and without clip, which is to cut off what lies outside the box around the geometries. Of
# all_touched the documentation says that any pixel that a geometry touches is included.
# Behaviour: pixels are chosen by their centres. One whose centre lies outside the box is cut off before it is looked at, even if up
# to half of it lies inside. No error, no warning.
# Output seen: a square of 28 m on pixels of 10 m: 784 m2 and 16 touched pixels without clip, 400 m2 and 4 pixels with it. The
# script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterix==0.2.4 exactextract==0.3.0 sparse==0.19.3 \
  rasterio==1.4.4 xarray==2026.9.0 geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import geopandas as gpd
import numpy as np
import xarray as xr
from rasterix.rasterize import geometry_clip, rasterize
from rasterix.rasterize.exact import coverage
from shapely.geometry import box

east, north = 500005 + 10.0 * np.arange(8), 5000075 - 10.0 * np.arange(8)
image = xr.DataArray(np.ones((8, 8)), {"y": north, "x": east}, ("y", "x"))
building = gpd.GeoDataFrame(geometry=[box(500016, 5000016, 500044, 5000044)], crs=32633)
touched = {"all_touched": True, "engine": "rasterio"}


def measures(clip):
    """Area of the building over all pixels, pixels that are kept, pixels that are burned."""
    area = coverage(image, building, clip=clip, coverage_weight="area_cartesian").sum().data
    kept = geometry_clip(image, building, clip=clip, **touched).sum()
    return round(float(area)), int(kept), int((rasterize(image, building, clip=clip, **touched) == 0).sum())


whole, clipped, default = measures(False), measures(True), int(geometry_clip(image, building, **touched).sum())
print(f"area, kept and burned pixels: {whole} without clip, {clipped} with clip; geometry_clip by default keeps {default}")
assert whole == (784, 16, 16) and building.area[0] == 784, "the right answers have changed"
assert clipped == (400, 4, 4) and default == 4, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
