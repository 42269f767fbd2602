#!/usr/bin/env bash
# imantics 0.1.12 (numpy 1.26.4): labels of buildings that are exported for YOLO lie half of their own size too far up and to the left.
#
# Expected: a line of the format, "class x_center y_center width height", as shares of the image (so Ultralytics and Darknet say).
# Behaviour: Annotation.yolo() and Image.export(style="yolo") write the upper left corner in the place of the centre. The sizes are right and
# every number is between 0 and 1, so a network is trained on it without a message.
# Output seen: a box from (100, 40) to (140, 60) in an image of 200 x 100 pixels gives x 0.5 and y 0.4; its centre is at 0.6 and 0.5.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" imantics==0.1.12 numpy==1.26.4 opencv-python-headless==4.10.0.84
cat > "$home/check.py" <<'PYTHON'
import numpy as np
from imantics import Annotation, BBox, Category, Image

picture = Image(np.zeros((100, 200, 3), np.uint8))
building = Annotation(image=picture, category=Category("building", id=0), bbox=BBox((100, 40, 140, 60)))
picture.add(building)
line = building.yolo()
_, x, y, width, height = (float(part) for part in line.split())
print(f"{line.strip()}; the centre is at {120 / 200} and {50 / 100}, the size {40 / 200} and {20 / 100}")
assert tuple(building.bbox) == (100, 40, 140, 60) and picture.size == (200, 100), "the right answers have changed"
assert (width, height) == (0.2, 0.2), "the right answers have changed"
assert (x, y) == (0.5, 0.4), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
