#!/usr/bin/env bash
# grad-cam 1.5.7 (torch 2.15.0): with `aug_smooth=True` half of the map of a segmentation target explains the mirror image of the region.
#
# Expected: test-time smoothing averages maps of one and the same object; SemanticSegmentationTarget holds the object's mask.
# Behaviour: the input is flipped, the mask is not, so the target reads the logits of the mirrored place, and flipping the map back puts
# that explanation at the mirror image. Neither a message nor the shape tells.
# Output seen: a network that sees 5 x 5 pixels, a region at the left edge: share of the map in the right half 0% without smoothing
# and 60% with it. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" grad-cam==1.5.7 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from pytorch_grad_cam import HiResCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import nn

torch.manual_seed(0)
encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
network = nn.Sequential(encoder, nn.Conv2d(8, 2, 3, padding=1)).eval()
image = torch.rand(1, 3, 32, 32)
region = np.zeros((32, 32), "float32")
region[12:20, 2:8] = 1
right = {}
with HiResCAM(network, [encoder]) as cam:
    for smooth in (False, True):
        heat = cam(image, [SemanticSegmentationTarget(1, region)], aug_smooth=smooth)[0]
        right[smooth] = heat[:, 16:].sum() / heat.sum()
print(f"share of the map in the right half: {right[False]:.0%} without smoothing, {right[True]:.0%} with it")
assert right[False] == 0 and right[True] > 0.3, "the behaviour has changed"
PYTHON
