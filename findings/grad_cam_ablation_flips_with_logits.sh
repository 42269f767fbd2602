#!/usr/bin/env bash
# grad-cam 1.5.7 (torch 2.15.0): AblationCAM turns its map round if a constant is taken from all logits, which changes no prediction.
#
# Expected: softmax does not see a constant that is added to the logits of all classes, so two networks that differ by it have the same
# probabilities everywhere and deserve the same map; Grad-CAM gives it.
# Behaviour: the weights are the drop divided by the score itself. A segmentation target is a sum of logits, and in a softmax network the
# logits of the class that wins may well be negative; then every weight changes its sign, and ReLU keeps what spoke against the class.
# Output seen: the same probabilities; share of the map on the evidence for the class 100% with positive logits, 0% with negative ones
# (Grad-CAM 100% and 100%). The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" grad-cam==1.5.7 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$home/venv/bin/python" -W ignore - 2>"$home/log" <<'PYTHON' || { cat "$home/log"; exit 1; }
import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import nn


class Network(nn.Module):
    """Class 1 gains from the first channel within 15 x 15 pixels and loses by the second."""

    def __init__(self, shift):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU())
        self.head = nn.Conv2d(2, 2, 15, padding=7)
        self.encoder[0].weight.data = torch.eye(2)[:, :, None, None]
        self.head.weight.data = torch.tensor([[0.0, 0.0], [0.10, -0.02]])[:, :, None, None].expand(2, 2, 15, 15).clone()
        self.head.bias.data.fill_(shift)

    def forward(self, image):
        return self.head(self.encoder(image))


image = torch.zeros(1, 2, 32, 32)
image[0, 0, 14:20, 8:12] = 1  # for
image[0, 1, 14:20, 20:24] = 1  # against
region = np.zeros((32, 32), "float32")
region[14:18, 14:18] = 1
shares, probabilities = {}, []
for shift in (0.0, -9.0):
    network = Network(shift).eval()
    probabilities.append(network(image).softmax(1).detach())
    for method in (AblationCAM, GradCAM):
        with method(network, [network.encoder]) as cam:
            heat = cam(image, [SemanticSegmentationTarget(1, region)])[0]
        shares[method.__name__, shift] = heat[:, :16].sum() / heat.sum()
same = torch.allclose(*probabilities, atol=1e-6)
print(f"same probabilities: {same}; share of the map on the evidence for the class, logits as they are and less 9: "
      + "; ".join(f"{name} {shares[name, 0.0]:.0%} and {shares[name, -9.0]:.0%}" for name in ("AblationCAM", "GradCAM")))
assert same and min(shares["GradCAM", 0.0], shares["GradCAM", -9.0], shares["AblationCAM", 0.0]) > 0.99, "the behaviour has changed"
assert shares["AblationCAM", -9.0] < 0.01, "the behaviour has changed"
PYTHON
