#!/usr/bin/env bash
# eo-learn 1.5.7 (opencv-python-headless 5.0.0.93, numpy 2.4.6): ErosionTask takes its radius for a diameter. With the default of 1 nothing
# is eroded, with 2 the object loses pixels on two sides only and so moves.
#
# Expected: "radius of the erosion disk (in pixels)" 1 takes one pixel off every side, as the same disk of scikit-image 0.26.0 does.
# Behaviour: the structuring element is r pixels wide: for r = 1 the pixel itself, for r = 2 a square that has no middle. No message. Who
# erodes labels to keep mixed pixels at their edges out of the training gets them all, or those of two sides.
# Output seen: rows that are left of rows 5 to 14, by eo-learn and by scikit-image: radius 1 5 to 14 and 6 to 13; radius 2 6 to 14 and 7 to
# 12; radius 3 6 to 13 and 8 to 11. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" eo-learn==1.5.7 opencv-python-headless==5.0.0.93 scikit-image==0.26.0 \
    geopandas==0.14.4 sentinelhub==3.12.0 rasterio==1.4.4 numpy==2.4.6 setuptools==80.9.0
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from eolearn.core import EOPatch, FeatureType
from eolearn.geometry import ErosionTask
from sentinelhub import CRS, BBox
from skimage.morphology import disk, erosion

field = np.zeros((20, 20), np.uint8)
field[5:15, 5:15] = 1


def extent(mask):
    """The first and the last row and column that are left."""
    rows, columns = np.nonzero(mask)
    return [int(index) for index in (rows.min(), rows.max(), columns.min(), columns.max())]


found = {}
for radius in (1, 2, 3):
    patch = EOPatch(bbox=BBox((691000, 5335000, 691200, 5335200), CRS.UTM_32N))
    patch[FeatureType.MASK_TIMELESS, "field"] = field[..., None].copy()
    ErosionTask((FeatureType.MASK_TIMELESS, "field", "eroded"), disk_radius=radius)(patch)
    found[radius] = extent(patch[FeatureType.MASK_TIMELESS, "eroded"][..., 0])
    right = extent(erosion(field, disk(radius)))
    print(f"radius {radius}: rows {found[radius][0]} to {found[radius][1]}, by scikit-image {right[0]} to {right[1]}")
    assert right == [5 + radius, 14 - radius] * 2, "the right answer has changed"
assert found == {1: [5, 14, 5, 14], 2: [6, 14, 6, 14], 3: [6, 13, 6, 13]}, "the behaviour has changed"
PYTHON
