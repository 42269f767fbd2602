#!/usr/bin/env bash
# Grad-CAM of a change detection network whose encoder sees both dates: grad-cam 1.5.7 explains the first date only, captum 0.9.0 and
# torchcam 0.5.0 the second only (torch 2.15.0), all without a word.
#
# Expected: a layer that is called twice in one forward has two activations; its map holds both, or the library says that it cannot know.
# Behaviour: grad-cam keeps a list of activations and takes as many of its first ones as there are target layers; the hooks of the
# other two overwrite the first activation with the second. The gradient belongs to the same call, so each map looks sound.
# Output seen: for a score in which both dates count alike, share of the map on what changed at the first date: grad-cam 100%,
# captum 0%, torchcam 0%. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" \
    grad-cam==1.5.7 captum==0.9.0 torchcam==0.5.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torchcam.methods
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from torch import nn


class Siamese(nn.Module):
    """Two dates of one band through one encoder; the change map is a sum over both."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.5 if parameter.ndim > 1 else 0.0)

    def forward(self, pair):
        return self.head(torch.cat([self.encoder(pair[:, :1]), self.encoder(pair[:, 1:])], 1))


network = Siamese().eval()
pair = torch.zeros(1, 2, 16, 16)
pair[0, 0, :, 2:6] = 1  # on the left at the first date
pair[0, 1, :, 10:14] = 1  # on the right at the second
with GradCAM(network, [network.encoder]) as cam:
    first = torch.from_numpy(cam(pair, [lambda output: output[1].sum()])[0])
second = LayerGradCam(lambda x: network(x)[:, 1].sum((1, 2)), network.encoder).attribute(pair).detach()[0, 0]
with torchcam.methods.GradCAM(network, "encoder") as cam:
    third = cam(1, network(pair))[0][0]
shares = [float(heat[:, :8].sum() / heat.sum()) for heat in (first, second, third)]
print("share of the map at the first date: " + ", ".join(f"{n} {s:.0%}" for n, s in zip(("grad-cam", "captum", "torchcam"), shares)))
assert shares[0] > 0.99 and max(shares[1:]) < 0.01, "the behaviour has changed"
PYTHON
