#!/usr/bin/env bash
# torchgeo 0.8.1 (torch 2.15.0, rasterio 1.4.4): the union of two data sets of negative values, as radar in decibel, is 0 everywhere where
# a chip crosses from one to the other.
#
# Expected: the values of whichever data set has some, as one RasterDataset over the same two files gives.
# Behaviour: each data set fills what it lacks with 0 and the two are joined by their maximum, so 0 wins against every negative value,
# in the whole chip, not only at the seam. Chips inside one of them are right.
# Output seen: two neighbouring files of -12 dB: a chip across by the union: 0 alone; by one data set over both files -12; a chip in
# the western one by the union -12.
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

import numpy as np
import rasterio
import torch
from torchgeo.datasets import RasterDataset

for name, west in (("west", 691000), ("east", 691640)):
    os.makedirs(name)
    with rasterio.open(f"{name}/vv.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="float32", crs="EPSG:25832",
                       transform=rasterio.Affine(10, 0, west, 0, -10, 5335000)) as file:
        file.write(np.full((1, 64, 64), -12, "float32"))
union, one = RasterDataset("west") | RasterDataset("east"), RasterDataset(["west/vv.tif", "east/vv.tif"])
across, inside = (slice(691320, 691960), slice(5334360, 5335000)), (slice(691000, 691630), slice(5334360, 5335000))
found = {"across, union": union[across], "across, one data set": one[across], "inside, union": union[inside]}
found = {name: torch.unique(sample["image"]).tolist() for name, sample in found.items()}
print(found)
assert found["across, one data set"] == found["inside, union"] == [-12], "the right answers have changed"
assert found["across, union"] == [0], "the behaviour has changed"
PYTHON
