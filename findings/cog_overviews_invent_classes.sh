#!/usr/bin/env bash
# rasterio 1.4.4 (GDAL's COG driver): of a class map written as a Cloud Optimized GeoTIFF, a smaller view read with
# Resampling.nearest holds classes that the map does not have.
#
# Expected: the nearest of the written classes, as the reader asked; a class map of uint8 has no values in between.
# Behaviour: unless the file has a colour table, the COG driver computes overviews by cubic interpolation, and a reduced read takes
# its pixels from them. So buildings (5) beside ground (2) become 3 and 4, other classes; nothing is said, at either end. With
# overview_resampling="nearest" at writing it does not happen.
# Output seen: written 0, 2, 5; read at full size 0, 2, 5; read at a quarter with nearest 0, 1, 2, 3, 4, 5.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterio==1.4.4 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.enums import Resampling

rows, columns = np.indices((1024, 1024)) // 3
classes = np.where((rows + columns) % 2, np.uint8(2), np.where(columns < 170, np.uint8(0), np.uint8(5)))
seen = {}
for how in (None, "nearest"):
    options = {} if how is None else {"overview_resampling": how}
    with rasterio.open("classes.tif", "w", driver="COG", width=1024, height=1024, count=1, dtype="uint8", crs="EPSG:25832",
                       transform=rasterio.Affine(0.2, 0, 691000, 0, -0.2, 5335000), **options) as file:
        file.write(classes, 1)
    with rasterio.open("classes.tif") as file:
        whole, small = file.read(1), file.read(1, out_shape=(256, 256), resampling=Resampling.nearest)
    seen[how] = [np.unique(each).tolist() for each in (classes, whole, small)]
    print(f"overview_resampling={how}: written {seen[how][0]}, read {seen[how][1]}, read at a quarter {seen[how][2]}")
assert seen["nearest"] == [[0, 2, 5]] * 3, "the right answers have changed"
assert seen[None][:2] == [[0, 2, 5]] * 2 and {1, 3, 4} <= set(seen[None][2]), "the behaviour has changed"
PYTHON
