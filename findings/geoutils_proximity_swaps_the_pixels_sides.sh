#!/usr/bin/env bash
# geoutils 0.2.5 (rasterio 1.4.4): Raster.proximity takes the width of a pixel for its height and the height for its width.
#
# Expected: the distances to the target pixels in units of the map, which is the default, with each axis in its own resolution.
# Behaviour: the two resolutions are exchanged, without a word. Square pixels hide it. Wide pixels make what lies east and west too near
# and what lies north and south too far; a buffer around buildings that is cut from the result is turned by 90 degrees. The same
# happens with the distance to a vector.
# Output seen: pixels of 2 m by 1 m: four pixels east of the target, 8 m away: 4.0; four pixels south of it, 4 m away: 8.0. With square
# pixels of 2 m both say 8.0. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geoutils==0.2.5 rasterio==1.4.4 geopandas==1.2.0 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import geopandas as gpd
import geoutils as gu
import numpy as np
from rasterio.transform import from_origin
from shapely.geometry import Point


def distances(width, height, vector=None):
    """What is said of four pixels east and four pixels south of the one pixel in the middle."""
    target = np.zeros((21, 21), np.uint8)
    target[10, 10] = 1
    raster = gu.Raster.from_array(target, transform=from_origin(0, 0, width, height), crs="EPSG:32633")
    point = gu.Vector(gpd.GeoDataFrame(geometry=[Point(10.5 * width, -10.5 * height)], crs="EPSG:32633"))
    found = raster.proximity(point, geometry_type="geometry") if vector else raster.proximity(target_values=[1])
    return [round(float(found.data[place]), 1) for place in ((10, 14), (14, 10))]


square, oblong, vector = distances(2, 2), distances(2, 1), distances(2, 1, vector=True)
print(f"east and south: pixels of 2 m {square}; of 2 m by 1 m {oblong}, to a point {vector}")
assert square == [8.0, 8.0], "the right answers have changed"
assert oblong == vector == [4.0, 8.0], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
