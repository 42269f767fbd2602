#!/usr/bin/env bash
# lime 0.2.0.1 (scikit-image 0.26.0, numpy 2.4.6): with its own wrapper of SLIC the last superpixel is never removed, so that a model that
# reads nothing but that superpixel gets weights of 0 everywhere.
#
# Expected: every superpixel is a feature; the one that decides has the largest weight.
# Behaviour: segments are looked for under 0 to n - 1, and scikit-image numbers those of SLIC from 1 to n. Feature 0 is no pixel, segment n
# no feature. Nothing is said. With the same segments counted from 0 the answer is right.
# Output seen: the four quarters of an image, a model that reads the last: weights 0.000, 0.000, 0.000, 0.000; counted from 0 -0.003, -0.001,
# -0.002, 0.856.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" lime==0.2.0.1 scikit-image==0.26.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from lime.lime_image import LimeImageExplainer
from lime.wrappers.scikit_image import SegmentationAlgorithm

image = np.zeros((60, 60, 3))
for rows, columns, colour in ((0, 0, (0.9, 0.1, 0.1)), (0, 30, (0.1, 0.9, 0.1)), (30, 0, (0.1, 0.1, 0.9)), (30, 30, (0.9, 0.9, 0.1))):
    image[rows:rows + 30, columns:columns + 30] = colour
slic = SegmentationAlgorithm("slic", n_segments=4, compactness=1)


def model(images):
    """Two classes, told by the last quarter alone."""
    red = images[:, 45:, 45:, 0].mean((1, 2))
    return np.stack([red, 1 - red], 1)


weights = {}
for name, segments in (("slic", slic), ("counted from 0", lambda pixels: slic(pixels) - 1)):
    found = LimeImageExplainer(random_state=0).explain_instance(image, model, labels=(0,), top_labels=None, hide_color=0,
                                                                num_samples=200, segmentation_fn=segments)
    weights[name] = np.array([weight for _, weight in sorted(found.local_exp[0])])
    print(f"{name}: segments {np.unique(segments(image)).tolist()}, weights {np.round(weights[name], 3).tolist()}")
assert weights["counted from 0"].argmax() == 3 and weights["counted from 0"].max() > 0.8, "the right answers have changed"
assert len(weights["slic"]) == 4 and np.abs(weights["slic"]).max() < 1e-6, "the behaviour has changed"
PYTHON
