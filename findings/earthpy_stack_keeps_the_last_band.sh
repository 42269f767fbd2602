#!/usr/bin/env bash
# earthpy 1.0.0 (rasterio 1.4.4): stack that writes a file keeps of every multi-band file its last band alone; the bands at the end of
# the result are empty.
#
# Expected: the bands of all files in the order of the list. The result has as many bands as the files have together, so files of several
# bands are meant to be stacked, and the documentation does not ask for files of one band.
# Behaviour: the bands of a file are all written to one band of the result, whose number is the place of the file in the list; each
# overwrites the one before. The bands that nobody writes hold 0. Shape, type and count look right, but the second band is not green.
# Output seen: an image of 10, 20, 30 and heights of 40: bands 30, 40, 0, 0 rather than 10, 20, 30, 40, in the array and in the file;
# three files of one band are stacked well. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" earthpy==1.0.0 rasterio==1.4.4 geopandas==1.2.0 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import earthpy.spatial as es
import numpy as np
import rasterio
from rasterio.transform import from_origin


def write(name, *values):
    with rasterio.open(name, "w", driver="GTiff", width=30, height=20, count=len(values), dtype="uint16", crs="EPSG:32633",
                       transform=from_origin(500_000, 5_000_000, 1, 1)) as file:
        for number, value in enumerate(values, 1):
            file.write(np.full((20, 30), value, np.uint16), number)
    return name


def values(array):
    assert all(band.min() == band.max() for band in array)
    return [int(band[0, 0]) for band in array]


image, heights = write("image.tif", 10, 20, 30), write("heights.tif", 40)
single = [write(f"band{value}.tif", value) for value in (10, 20, 30)]
right = values(es.stack(single, "single.tif")[0])
stacked, profile = es.stack([image, heights], "stacked.tif")
with rasterio.open("stacked.tif") as file:
    written = values(file.read())
print(f"three files of one band: {right}; image of 10, 20, 30 and heights of 40: {profile['count']} bands, array {values(stacked)}, "
      f"file {written}")
assert right == [10, 20, 30] and profile["count"] == 4, "the right answers have changed"
assert values(stacked) == written == [30, 40, 0, 0], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
