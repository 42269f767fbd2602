#!/usr/bin/env bash
# sahi 0.12.8 (shapely 2.2.0): the hole of a mask, as a courtyard in a building, is filled when the prediction is written as COCO
# and when it is merged with that of the next slice, without an error or a warning.
#
# Expected: the mask that was predicted, as ObjectPrediction.mask.bool_mask has it before; where polygons cannot hold it (COCO adds
# up the polygons of an object), run lengths, or a word about it.
# Behaviour: inside, the library's polygons have the hole, but of each of them only the outer ring is written. The area of the same
# record leaves the hole out, as it should.
# Output seen: a building of 1600 pixels around a courtyard of 400: the record says 1472 and has a polygon of 1911; merged with a
# part of 2000 that the next slice saw and that leaves the courtyard alone, 3200 pixels instead of 2800, the whole courtyard among
# them. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" sahi==0.12.8 shapely==2.2.0 opencv-python==5.0.0.93 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import numpy as np
from sahi.annotation import Mask
from sahi.postprocess.combine import GreedyNMMPostprocess
from sahi.prediction import ObjectPrediction
from shapely.geometry import Polygon

size = [60, 100]


def predicted(mask, score):
    """What a model wrapper of the library makes of a predicted mask."""
    polygons = Mask.from_bool_mask(mask, full_shape=size).segmentation
    return ObjectPrediction(segmentation=polygons, category_id=0, category_name="building", score=score, full_shape=size)


around, beside, courtyard = (np.zeros(size, bool) for _ in range(3))
courtyard[20:40, 20:40] = around[10:50, 10:60] = beside[10:50, 40:90] = True
around &= ~courtyard
first, second = predicted(around, 0.9), predicted(beside, 0.8)
record = first.to_coco_prediction().json
written = sum(Polygon(np.reshape(ring, (-1, 2))).area for ring in record["segmentation"])
merge = GreedyNMMPostprocess(match_threshold=0.1, match_metric="IOU")
merged = [each.mask.bool_mask for each in merge([first, second])]
print(f"COCO record: area {record['area']}, its polygons {written:.0f}; merged: {[int(m.sum()) for m in merged]} pixels instead of "
      f"{(around | beside).sum()}, {[int(m[courtyard].sum()) for m in merged]} of them in the courtyard")
assert (first.mask.bool_mask == around).all() and (second.mask.bool_mask == beside).all(), "the masks before have changed"
assert record["area"] == 1472 and written == 1911 and len(merged) == 1, "the behaviour has changed"
assert merged[0].sum() == 3200 and merged[0][courtyard].all() and not beside[courtyard].any(), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
