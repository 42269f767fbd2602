#!/usr/bin/env bash
# Quantus 0.6.0 (torch 2.15.0, numpy 2.4.6): pixel flipping of a segmentation network reads a softmax over the columns of the image,
# and of a network that gives the score of one object (B,1) it reads 1 at every step, so that all maps get the same curve.
#
# Expected: softmax=True turns logits into probabilities of classes: over axis 1 of (B,K,h,w); one logit is left alone, or an error.
# Behaviour: torch.nn.Softmax(dim=-1) is put behind the network. Of a dense output that is the width, so that the values of a row sum to 1
# over the columns and the other classes play no part; of a single logit it is the constant 1. Both run without a message.
# Output seen: curves of shape (1, 4, 16, 16), sums over columns 1.000; an offset that makes class 1 certain everywhere changes them
# by 0.000; one logit: a random map and its reverse 1.0, 1.0, 1.0, 1.0. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" quantus==0.6.0 torch==2.15.0 numpy==2.4.6
"$home/venv/bin/python" -W ignore - 2>"$home/log" <<'PYTHON' || { cat "$home/log"; exit 1; }
import numpy as np
import quantus
import torch
from torch import nn

torch.manual_seed(0)
random = np.random.default_rng(0)
images, heat = random.random((1, 1, 16, 16), "float32"), random.random((1, 1, 16, 16), "float32")


class OneObject(nn.Module):
    """The mean logit of class 1 in an object: (B,1)."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def forward(self, images):
        return self.dense(images)[:, 1:2, 4:8, 4:8].mean((2, 3))


def curve(network, target, heat):
    metric = quantus.PixelFlipping(features_in_step=64, disable_warnings=True, display_progressbar=False)
    return np.array(metric(network.eval(), images, np.array([target]), heat, device="cpu", softmax=True), dtype=float)


dense = nn.Conv2d(1, 3, 3, padding=1)
before = curve(dense, 1, heat)
one = [curve(OneObject(dense), 0, ranked) for ranked in (heat, 1 - heat)]
dense.bias.data[1] += 20
after = curve(dense, 1, heat)
columns, change = before.sum(-1), abs(after - before).max()
print(f"curves {before.shape}, sums over columns {columns.min():.3f} to {columns.max():.3f}, certain class changes them by {change:.3f}")
print("one logit:", one[0].ravel(), "reversed map:", one[1].ravel())
assert before.shape == (1, 4, 16, 16) and abs(columns - 1).max() < 1e-5 and change < 1e-5, "the behaviour has changed"
assert all((values == 1).all() for values in one), "the behaviour has changed"
PYTHON
