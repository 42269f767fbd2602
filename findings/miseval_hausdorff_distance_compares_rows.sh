#!/usr/bin/env bash
# miseval 1.3.0 (hausdorff 0.2.6, numpy 2.4.6): the Hausdorff distance ("HD") of a building and a prediction of it 90 pixels further south
# is 0, and that of any other is a number that says nothing of how far off it is.
#
# Expected: the largest distance in pixels from a pixel of the one mask to the nearest of the other, as scipy's directed_hausdorff gives it
# both ways; 0 only where the masks are the same.
# Behaviour: the masks are handed as they are to a function that takes lists of points, one a row. So each row of the image is a point with
# as many coordinates as the image has columns, and two masks that consist of the same rows, in whatever order, are at distance 0. Others
# are as far apart as the root of the pixels in which a row differs from the row most like it. No message.
# "AHD", the average one, gives the largest distance: in effect what "HD" should be.
# Output seen, a building of 10 x 20 pixels, HD, AHD and scipy: moved south by 90 pixels 0, 90, 90; east by 80 pixels 4.5, 80, 80; east by
# 15 pixels 4.5, 15, 15; one found as it is 0, 0, 0. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" miseval==1.3.0 hausdorff==0.2.6 dictances==1.5.3 numba==0.68.1 \
  scikit-image==0.26.0 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import numpy as np
from miseval import evaluate
from scipy.spatial.distance import directed_hausdorff


def mask(row, column):
    """A building of 10 x 20 pixels."""
    made = np.zeros((128, 128), int)
    made[row : row + 10, column : column + 20] = 1
    return made


def distances(label, prediction):
    """Hausdorff distance by miseval, "average" one by miseval, and Hausdorff distance by scipy."""
    ours, theirs = np.argwhere(label), np.argwhere(prediction)
    right = max(directed_hausdorff(ours, theirs)[0], directed_hausdorff(theirs, ours)[0])
    return tuple(round(float(one), 1) for one in (evaluate(label, prediction, "HD"), evaluate(label, prediction, "AHD"), right))


label = mask(10, 20)
same, south, east, near = (distances(label, mask(*at)) for at in ((10, 20), (100, 20), (10, 100), (10, 35)))
print(f"HD, AHD, scipy: as it is {same}, 90 pixels south {south}, 80 pixels east {east}, 15 pixels east {near}")
assert same == (0, 0, 0) and evaluate(label, mask(100, 20), "IoU") == 0, "the right answers have changed"
assert (south[2], east[2], near[2]) == (90, 80, 15), "the right answers have changed"
assert (south[0], east[0], near[0]) == (0, 4.5, 4.5), "the behaviour has changed"
assert (south[1], east[1], near[1]) == (90, 80, 15), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
