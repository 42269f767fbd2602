#!/usr/bin/env bash
# geoutils 0.2.5 (rasterio 1.4.4): Raster.crop to a box whose sides fall within pixels moves the window by up to a pixel, so that a row
# or column that lies wholly in the box is missing, and one that hardly touches it is there.
#
# Expected: the documentation of the default mode says that the extent "most closely aligns with the current coordinates".
# Behaviour: the left and upper side are moved outwards to the next pixel, but the size of the box in pixels is rounded by itself. So the
# right and lower side follow the left and upper one, not the box.
# Output seen: pixels of 1 m, a box from 5 to 12.3 in the north: rows from 6 to 13, where 5 to 12 is nearest; the row from 5 to 6 is lost.
# A box from 3.6 to 10.4 in the east: columns from 3 to 10, where 4 to 10 is nearest. A box on the pixels' sides is cut as it should be.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geoutils==0.2.5 rasterio==1.4.4 geopandas==1.2.0 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import geoutils as gu
import numpy as np
from rasterio.transform import from_origin

raster = gu.Raster.from_array(np.zeros((20, 20), np.float32), transform=from_origin(0, 20, 1, 1), crs="EPSG:32633")


def cut(*box):
    """The bounds (west, south, east, north) of what is cut out."""
    return tuple(raster.crop(box).bounds)


even, north, east = cut(3, 5, 10, 12), cut(3, 5, 10, 12.3), cut(3.6, 5, 10.4, 12)
print(f"on the pixels' sides {even}; to 12.3 in the north {north}; from 3.6 to 10.4 in the east {east}")
assert even == (3, 5, 10, 12), "the right answers have changed"
assert north == (3, 6, 10, 13) and east == (3, 5, 10, 12), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
