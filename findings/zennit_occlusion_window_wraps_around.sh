#!/usr/bin/env bash
# zennit 0.5.1 (torch 2.15.0): a window of Occlusion that reaches beyond the right or lower edge goes on at the opposite one, so
# that what lies on the left of an image is attributed to its right as well.
#
# Expected: a window is a rectangle of the image; at the edge it is cut off or left out, as in captum's Occlusion.
# Behaviour: the window is moved by torch.roll, without an error or a warning. It wraps around wherever the stride is smaller than
# the window, as in the example of the documentation, or the image is no multiple of it.
# Output seen: an image of 32 x 32, window 8, stride 4, a roof of 4 columns at the left edge: a quarter of the map lies on the 4
# columns at the right edge, which the score does not depend on; none of it if the roof lies 12 columns further to the right. The
# script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" zennit==0.5.1 captum==0.9.0 torch==2.15.0 torchvision==0.29.2 \
  numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import captum.attr
import torch
from torch import nn
from zennit.attribution import Occlusion

network = nn.Conv2d(1, 1, 1, bias=False)  # a pixel's score is its own brightness
nn.init.ones_(network.weight)
image = torch.ones(1, 1, 32, 32)


def at_the_right(first):
    """Share of both libraries' maps that lies on the last 4 columns, for a roof of 4 columns."""
    roof = torch.zeros(1, 1, 32, 32)
    roof[..., first : first + 4] = 1
    with Occlusion(network, window=(8, 8), stride=(4, 4)) as attributor:
        zennit = attributor(image, lambda scores: scores * roof)[1]
    other = captum.attr.Occlusion(lambda x: (network(x) * roof).sum((1, 2, 3)))
    maps = zennit, other.attribute(image, sliding_window_shapes=(1, 8, 8), strides=(1, 4, 4))
    return [float(each[..., 28:].sum() / each.sum()) for each in maps]


left, middle = at_the_right(0), at_the_right(12)
print(f"share of the map at the right edge, zennit and captum: roof at the left edge {left}, further to the right {middle}")
assert middle == [0, 0] and left[1] == 0, "the right answers have changed"
assert left[0] == 0.25, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
