#!/usr/bin/env bash
# rioxarray 0.19.0 (rasterio 1.4.4): reproject of 8-bit pixels for which no nodata value was ever set fills what lies outside the source
# with 255, and marks 255 as nodata of the whole result: what was white before, such as the buildings of a label of 0 and 255, holds
# nothing from then on.
#
# Expected: 0 outside, as GDAL's warper and rasterio.warp.reproject leave it where no value is named; or a value that the pixels do not
# have, or an error that asks for one.
# Behaviour: the value is chosen by the dtype alone (255 for uint8, the largest for uint16), written into the attributes as
# _FillValue, and from there into files. No warning. Read with masked=True the result has no building; read as it is, the corners
# outside the source have 255 and count as buildings. With rio.write_nodata(0) before, it is right.
# Output seen: a label with 100 of 400 pixels at 255: nodata 255 in the file, and of 142 pixels that read as 255 after the reprojection
# none is left when the file is opened masked.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rioxarray==0.19.0 rasterio==1.4.4 xarray==2026.9.0 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import sys

import numpy as np
import rasterio
import rioxarray
import xarray
from rasterio.warp import reproject

label = np.zeros((1, 20, 20), np.uint8)
label[0, 5:15, 5:15] = 255
place = {"x": 500000.5 + np.arange(20), "y": 5300000.5 + np.arange(20)[::-1]}
source = xarray.DataArray(label, dims=("band", "y", "x"), coords=place).rio.write_crs("EPSG:32633")
assert source.rio.nodata is None
found = source.rio.reproject("EPSG:32632")
path = sys.argv[1] + "/label.tif"
found.rio.to_raster(path)
with rasterio.open(path) as file:
    marked = file.nodata
masked = rioxarray.open_rasterio(path, masked=True)
plain, _ = reproject(label, np.zeros(found.shape, np.uint8), src_transform=source.rio.transform(), src_crs="EPSG:32633",
                     dst_transform=found.rio.transform(), dst_crs="EPSG:32632")
right = source.rio.write_nodata(0).rio.reproject("EPSG:32632")
counts = [int((np.asarray(each) == 255).sum()) for each in (found, masked, plain, right)]
print(f"nodata in the file: {marked}; pixels of 255: {counts[0]}, opened masked {counts[1]}, by rasterio {counts[2]}, "
      f"after write_nodata(0) {counts[3]}")
assert counts[2] == counts[3] < counts[0], "the right answer has changed"
assert marked == 255 and counts[1] == 0, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py" "$home"
