#!/usr/bin/env bash
# segment-geospatial 1.4.2 (rasterio 1.4.4): a box in degrees, on an image in degrees, is not turned into pixels: bbox_to_xy hands the
# degrees back as if they were pixels, and the prompt lies in the upper left corner.
#
# Expected: columns and rows of the box, as coords_to_xy of the same library gives for a point, and as bbox_to_xy gives when image and
# box have different coordinate systems.
# Behaviour: the conversion to columns and rows stands in the branch for different systems only. Where they are the same (EPSG:4326 is
# the default for boxes, and many scenes are in it) coordinates pass as they are. Those of places with positive longitude and latitude
# are small enough to be pixels, so nothing is said; in metres the same box is "No valid pixel coordinates found."
# Output seen: a box over columns 30 to 60 and rows 40 to 80 of an image in EPSG:4326: [8.5003, 47.3996, 8.5006, 47.3992]; a point in
# column 35 and row 44: [35, 44]; the box on an image in UTM, given in degrees: within a pixel of [30, 40, 60, 80], given in metres:
# None. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" segment-geospatial==1.4.2 torch==2.15.0 torchvision==0.29.2 \
    rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 pyproj==3.7.2 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from samgeo.common import bbox_to_xy, coords_to_xy


def image(name, crs, transform):
    with rasterio.open(name, "w", driver="GTiff", width=128, height=128, count=1, dtype="uint8", crs=crs, transform=transform) as file:
        file.write(np.zeros((1, 128, 128), np.uint8))
    return name


degrees = image("degrees.tif", "EPSG:4326", from_origin(8.5, 47.4, 1e-5, 1e-5))
metres = image("metres.tif", "EPSG:32632", from_origin(500_000, 5_000_000, 1, 1))
box = [8.5003, 47.3992, 8.5006, 47.3996]
place = [500_030.5, 4_999_919.5, 500_060.5, 4_999_959.5]
same = bbox_to_xy(degrees, [box])
point = coords_to_xy(degrees, [[8.500355, 47.399555]]).tolist()[0]
other = [int(value) for value in bbox_to_xy(metres, [list(transform_bounds("EPSG:32632", "EPSG:4326", *place))])]
same_metres = bbox_to_xy(metres, [place], coord_crs="EPSG:32632")
print(f"box on an image in degrees: {same}; point: {point}; box in degrees on an image in metres: {other}; in metres: {same_metres}")
assert point == [35, 44] and np.abs(np.subtract(other, [30, 40, 60, 80])).max() <= 1, "the right answers have changed"
assert same == [8.5003, 47.3996, 8.5006, 47.3992] and same_metres is None, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
