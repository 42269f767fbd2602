#!/usr/bin/env bash
# deepforest 2.1.0 (torch 2.15.0, rasterio 1.4.4, geopandas 1.2.0): a footprint that is taken to image coordinates and back lies half a
# pixel further to the south-east.
#
# Expected: read_file and image_to_geo_coordinates are each other's inverse: what comes back is what went in.
# Behaviour: on the way in a corner is counted from the image's corner, on the way out as if its whole numbers were the middles of pixels.
# Predicted boxes, which come from the same frame as the labels, are shifted in the same way; no message. At 10 m pixels that is
# 7 m on the ground, and an overlap of 0.68 of a perfectly found object of 5 x 5 pixels with its label.
# Output seen: in west 691100, north 5334850; in the image x 10, y 15; back 691105 and 5334845; overlap (IoU) 0.68.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" deepforest==2.1.0 torch==2.15.0 rasterio==1.4.4 geopandas==1.2.0 \
    shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import geopandas as gpd
import numpy as np
import rasterio
from deepforest.utilities import image_to_geo_coordinates, read_file
from shapely.geometry import box

with rasterio.open("scene.tif", "w", driver="GTiff", width=100, height=100, count=3, dtype="uint8", crs="EPSG:25832",
                   transform=rasterio.Affine(10, 0, 691000, 0, -10, 5335000)) as file:
    file.write(np.zeros((3, 100, 100), "uint8"))
label = box(691100, 5334800, 691150, 5334850)
table = gpd.GeoDataFrame({"label": ["tree"], "image_path": ["scene.tif"]}, geometry=[label], crs=25832)
image = read_file(table, root_dir=".")
back = image_to_geo_coordinates(image, root_dir=".").geometry.iloc[0]
inside, lies = image.geometry.iloc[0].bounds, back.bounds
overlap = back.intersection(label).area / back.union(label).area
print(f"in the image x {inside[0]:g}, y {inside[1]:g}; back: west {lies[0]:.0f}, north {lies[3]:.0f}; overlap {overlap:.2f}")
assert inside == (10, 15, 15, 20), "the right answer has changed"
assert lies == (691105, 5334795, 691155, 5334845), "the behaviour has changed"
PYTHON
