#!/usr/bin/env bash
# sentinelhub 3.12.0: utm_to_pixel gives row 0 and column 0 for points up to a pixel beside an image, left of it and above.
#
# Expected: -1 there, as for points further out, or as rasterio's rowcol gives it: the pixel in which a point lies is rounded down.
# Behaviour: the numbers are cut towards zero. Inside an image that is the same; left of it and above -0.4 becomes 0, so that points
# beside the image are sampled, counted or drawn in its first column and row, which gather two pixels' worth of them.
# Output seen: pixels of 10 m; a point 4 m left of the corner and 4 m above it: (0, 0), as one 5 m inside; 11 m out: (-1, -1); to the
# right and below it is right. rasterio's rowcol: (-1, -1), (0, 0), (-2, -2). The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" sentinelhub==3.12.0 rasterio==1.4.4 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
from rasterio.transform import from_origin, rowcol
from sentinelhub.geo_utils import utm_to_pixel

ours = (500_000, 10, 0, 5_000_000, 0, -10)
points = {"4 m out": (499_996, 5_000_004), "5 m in": (500_005, 4_999_995), "11 m out": (499_989, 5_000_011)}
found = {name: utm_to_pixel(*point, ours) for name, point in points.items()}
other = {name: tuple(int(k) for k in rowcol(from_origin(500_000, 5_000_000, 10, 10), *point)) for name, point in points.items()}
print(found, other)
assert found == {"4 m out": (0, 0), "5 m in": (0, 0), "11 m out": (-1, -1)}, found
assert other == {"4 m out": (-1, -1), "5 m in": (0, 0), "11 m out": (-2, -2)}, other
PYTHON
venv/bin/python check.py
