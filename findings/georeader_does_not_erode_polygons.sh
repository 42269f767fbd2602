#!/usr/bin/env bash
# georeader-spaceml 2.4.2 (rasterio 1.4.4, shapely 2.2.0): get_polygons ignores a negative polygon_buffer, which its documentation has for
# eroding polygons; the polygons come back as they were.
#
# Expected: "Negative: Shrink/erode polygons (useful to remove edge noise)": each side of a building moves in by that many pixels, as with
# shapely's buffer; a building that is narrower vanishes or falls below min_area.
# Behaviour: the buffer is applied where it is above 0 and left out otherwise, without a message. Areas stay too large, and noise that
# was to go stays, also in the documentation's own example (-2).
# Output seen, areas in pixels of a building of 20 x 20 and a strip of 3 x 40, min_area 25: buffer 0 400 and 120; buffer -2 400 and 120,
# by shapely 256 and 0; buffer 2, for comparison, more than both. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" georeader-spaceml==2.4.2 rasterio==1.4.4 geopandas==1.2.0 \
    shapely==2.2.0 numpy==2.4.6 typing-extensions==4.16.0 fsspec==2026.9.0
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
from georeader.vectorize import get_polygons

mask = np.zeros((60, 60), np.uint8)
mask[5:25, 5:25] = 1
mask[40:43, 10:50] = 1
found = {}
for buffer in (0, -2, 2):
    found[buffer] = sorted(polygon.area for polygon in get_polygons(mask, min_area=25, polygon_buffer=buffer, tolerance=0))[::-1]
    print(f"buffer {buffer}: areas {[round(area) for area in found[buffer]]}")
eroded = [polygon.buffer(-2).area for polygon in get_polygons(mask, min_area=25, tolerance=0)]
print(f"buffer -2 by shapely: areas {[round(area) for area in sorted(eroded)[::-1]]}")
assert sorted(eroded) == [0, 256] and found[0] == [400, 120], "the right answers have changed"
assert min(found[2]) > 120 and max(found[2]) > 400, "the right answers have changed"
assert found[-2] == found[0], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
