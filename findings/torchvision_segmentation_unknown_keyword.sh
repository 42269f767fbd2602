#!/usr/bin/env bash
# torchvision 0.29.2 (torch 2.15.0): a segmentation builder takes a keyword that it does not know without a word, so
# lraspp_mobilenet_v3_large(classes=3) is a network of 21 classes.
#
# Expected: a TypeError for an unexpected keyword, as from any function, and as from most classification builders.
# Behaviour: fcn, deeplabv3 and lraspp end in **kwargs that nothing reads.
# Output seen: channels of the score map for num_classes=3 and for classes=3: fcn 3 and 21, deeplabv3 3 and 21, lraspp 3 and 21;
# resnet18(classes=3) raises TypeError. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torchvision.models import resnet18, segmentation

builders = {"fcn": segmentation.fcn_resnet50, "deeplabv3": segmentation.deeplabv3_mobilenet_v3_large,
            "lraspp": segmentation.lraspp_mobilenet_v3_large}
found = {}
for name, build in builders.items():
    for keyword in ("num_classes", "classes"):
        network = build(weights=None, weights_backbone=None, **{keyword: 3}).eval()
        with torch.no_grad():
            found[name, keyword] = network(torch.zeros(1, 3, 64, 64))["out"].shape[1]
try:
    resnet18(classes=3)
    raised = False
except TypeError:
    raised = True
print({f"{name}({keyword}=3)": channels for (name, keyword), channels in found.items()}, "resnet18 raises:", raised)
assert all(channels == (3 if keyword == "num_classes" else 21) for (_, keyword), channels in found.items()) and raised, (
    "the behaviour has changed")
PYTHON
