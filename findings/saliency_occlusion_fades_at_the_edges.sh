#!/usr/bin/env bash
# saliency 0.2.1 (PAIR; numpy 2.4.6): an occlusion map fades towards the edges of the image. Of a model that reads all pixels alike, a pixel
# in the corner gets 1/225 of what one in the middle gets.
#
# Expected: the same value everywhere for such a model, as captum's Occlusion gives, which divides by the number of windows over a pixel.
# Behaviour: the differences of all windows that cover a pixel are added up and not divided by their number, which is 225 in the middle
# with the default window and 1 in a corner. So a building at the edge of a tile looks unimportant beside a like one in the middle,
# and maps of two window sizes differ in scale. The documentation does not say that it is a sum; there is no message.
# Output seen: value in the corner, at an edge and in the middle, as shares of the last, for the mean of all pixels: 0.004, 0.067, 1
# (window of 15), 0.04, 0.2, 1 (window of 5). The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" saliency==0.2.1 scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import saliency.core as saliency

warnings.simplefilter("error")


def mean(batch, call_model_args=None, expected_keys=None):
    """The mean of all pixels, as the package asks for it."""
    return {saliency.OUTPUT_LAYER_VALUES: batch.mean((1, 2))}


found = {}
for size in (15, 5):
    shown = saliency.Occlusion().GetMask(np.ones((40, 40)), mean, size=size)
    found[size] = (shown[[0, 0, 20], [0, 20, 20]] / shown[20, 20]).round(4).tolist()
    print(f"window of {size}: corner {found[size][0]:.4f}, edge {found[size][1]:.4f}, middle {found[size][2]:g}")
for row in (0, 12):
    hidden = np.ones((1, 40, 40))
    hidden[:, row:row + 15, row:row + 15] = 0
    assert np.isclose(1 - mean(hidden)[saliency.OUTPUT_LAYER_VALUES][0], 225 / 1600), "the right answer has changed"
assert found == {15: [0.0044, 0.0667, 1.0], 5: [0.04, 0.2, 1.0]}, "the behaviour has changed"
PYTHON
