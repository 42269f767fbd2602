#!/usr/bin/env bash
# rio-tiler 9.4.12 (numpy 2.4.6, rasterio 1.4.4): the mosaic method SumMethod gives the sum modulo 256 for 8-bit images.
#
# Expected: the sum, in a type that holds it (NumPy's own sum of bytes is a 64-bit number), or an error; a sum is asked for where counts
# of several images are added, as detections, votes or heat maps.
# Behaviour: the sum is made in 64 bits and then cast to the type of the first image, since enforce_data_type is on, so that it wraps:
# where most was found the mosaic shows least. Nothing is said, and the pixels count as valid.
# Output seen: two 8-bit images of 200 and 100: SumMethod() gives 44, SumMethod(enforce_data_type=False) 300. The script fails if that
# changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rio-tiler==9.4.12 rasterio==1.4.4 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rio_tiler.io import Reader
from rio_tiler.mosaic import mosaic_reader
from rio_tiler.mosaic.methods.defaults import SumMethod

for value in (200, 100):
    with rasterio.open(f"{value}.tif", "w", driver="GTiff", width=16, height=16, count=1, dtype="uint8", crs="EPSG:3857",
                       transform=from_origin(0, 160, 10, 10)) as file:
        file.write(np.full((1, 16, 16), value, np.uint8))


def read(path, **options):
    with Reader(path) as source:
        return source.part((0, 0, 160, 160), bounds_crs="EPSG:3857", dst_crs="EPSG:3857", **options)


found = {}
for enforced in (True, False):
    image, _ = mosaic_reader(["200.tif", "100.tif"], read, pixel_selection=SumMethod(enforce_data_type=enforced), threads=0)
    found[enforced] = (np.unique(image.data).tolist(), bool(image.array.mask.any()))
print(found)
assert found == {True: ([44], False), False: ([300], False)}, found
PYTHON
venv/bin/python check.py
