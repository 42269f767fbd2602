#!/usr/bin/env bash
# torchgeo 0.8.1 (torch 2.15.0, rasterio 1.4.4, shapely 2.2.0): of a chip that lies wholly within one object, instance segmentation gives a
# box and a label, and no mask.
#
# Expected: one mask for each box and label; here one that is 1 everywhere.
# Behaviour: the masks are numbered, and the lowest number found is thrown away as background. Where objects leave no background (a chip
# within a field, a lake, a hall) that is an object. Nothing is said; box, label and mask no longer belong together.
# Output seen: at the edge of a field 1 mask, 1 box, 1 label; inside it 0 masks, 1 box, 1 label.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" torchgeo==0.8.1 requests==2.34.2 torch==2.15.0 rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import os

import geopandas as gpd
from shapely.geometry import box
from torchgeo.datasets import VectorDataset

os.makedirs("fields")
gpd.GeoDataFrame({"label": [1]}, geometry=[box(691000, 5334000, 692000, 5335000)], crs=25832).to_file("fields/fields.gpkg")
fields, counts = VectorDataset("fields", task="instance_segmentation", res=1.0), {}
for name, west in (("edge", 690980), ("inside", 691300)):
    sample = fields[west:west + 64, 5334300:5334364]
    counts[name] = tuple(len(sample[key]) for key in ("mask", "bbox_xyxy", "label"))
    print(f"{name}: {counts[name][0]} masks, {counts[name][1]} boxes, {counts[name][2]} labels")
assert counts["edge"] == (1, 1, 1), "the right answers have changed"
assert counts["inside"] == (0, 1, 1), "the behaviour has changed"
PYTHON
