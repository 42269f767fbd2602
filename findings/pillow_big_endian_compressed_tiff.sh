#!/usr/bin/env bash
# Pillow 13.0.0 (numpy 2.4.6) reads elevations and other numbers of big-endian TIFFs with swapped bytes, without a word, if the file is
# compressed; rasterio 1.4.4 (GDAL) and tifffile 2026.3.3 read them right.
#
# Expected: byte order and compression are independent tags of a TIFF; whoever reads a big-endian file and a compressed one reads both.
# Behaviour: float32, int32 and int16 of a deflated big-endian file come out byte-swapped, 1.0 as 4.6e-41; without compression, and for
# uint16, they are right. Elevation models and signed label rasters from big-endian workstations are such files.
# Output seen: wrong: float32 deflate, int16 deflate, int32 deflate; right: the other five, and all eight by rasterio.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q pillow==13.0.0 tifffile==2026.3.3 rasterio==1.4.4 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import rasterio
import tifffile
from PIL import Image

wrong, right, gdal = [], [], 0
for kind in ("float32", "int16", "int32", "uint16"):
    values = (np.arange(12).reshape(3, 4) * 100 + 1).astype(kind)
    for name, compression in (("deflate", "zlib"), ("plain", None)):
        tifffile.imwrite("dem.tif", values, byteorder=">", compression=compression)
        with Image.open("dem.tif") as file:
            same = np.array_equal(np.asarray(file).astype("float64"), values.astype("float64"))
        with rasterio.open("dem.tif") as file:
            gdal += bool(np.array_equal(file.read(1), values))
        (right if same else wrong).append(f"{kind} {name}")
print(f"wrong: {', '.join(wrong)}; right: {', '.join(right)}; by rasterio right: {gdal} of 8")
assert wrong == ["float32 deflate", "int16 deflate", "int32 deflate"] and gdal == 8, "the behaviour has changed"
PYTHON
