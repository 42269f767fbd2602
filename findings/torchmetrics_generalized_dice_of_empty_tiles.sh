#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.15.0): GeneralizedDiceScore of a perfect building map is the share of tiles that have a building.
#
# Expected: 1 for a perfect prediction, as MeanIoU of the same package and the same tiles gives; a class that is in neither prediction nor
# label is no mistake.
# Behaviour: per class, or without the background, a tile in which the class is absent from both counts as 0 in the mean. Four tiles, one
# with buildings: 0.25. With the background in one number the error is covered up.
# Output seen: label as prediction, per class: 1.00 and 0.25; without background 0.25; all in one 1.00; MeanIoU without background 1.00.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" torchmetrics==1.9.0 torch==2.15.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torchmetrics.segmentation import GeneralizedDiceScore, MeanIoU

tiles = torch.zeros(4, 8, 8, dtype=torch.long)
tiles[0, 4:] = 1
found = {name: metric(num_classes=2, input_format="index", **options)(tiles, tiles).tolist() for name, metric, options in (
    ("per class", GeneralizedDiceScore, {"per_class": True}), ("without background", GeneralizedDiceScore, {"include_background": False}),
    ("all in one", GeneralizedDiceScore, {}), ("MeanIoU without background", MeanIoU, {"include_background": False}))}
print(found)
assert found["MeanIoU without background"] == 1 and found["all in one"] == 1, "the right answers have changed"
assert found["per class"] == [1, 0.25] and found["without background"] in (0.25, [0.25]), "the behaviour has changed"
PYTHON
