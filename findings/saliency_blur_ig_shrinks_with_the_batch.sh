#!/usr/bin/env bash
# saliency 0.2.1 (PAIR; numpy 2.4.6): the map of BlurIG with sqrt=True depends on batch_size; the larger the batch, the smaller the map, and
# the sum of the attributions shrinks to a third.
#
# Expected: batch_size is "the maximum number of inputs that are passed as a batch"; it changes time and memory, not the answer. So it is in
# the IntegratedGradients of the same package, and in BlurIG with sqrt=False.
# Behaviour: all steps of a batch are weighted by the width of its last step. With sqrt=False steps are equally wide; with sqrt=True the
# late ones are narrow, so the large early ones, which carry fine detail, are weighed down. No message.
# Output seen, for f = a weighted sum of squares, 100 steps, batch sizes 1, 10 and 100: sums -30.4, -21.6, -9.4 with sqrt=True; -39.3 each
# with sqrt=False; -41.9 each by IntegratedGradients. The script fails if that changes.
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
random = np.random.default_rng(0)
image, weights = random.random((24, 24, 3)), random.normal(size=(24, 24, 3))


def gradients(batch, call_model_args=None, expected_keys=None):
    """The gradients of the sum of weights times squares, as the package asks for them."""
    return {saliency.INPUT_OUTPUT_GRADIENTS: 2 * batch * weights}


methods = {"sqrt=True": lambda size: saliency.BlurIG().GetMask(image, gradients, max_sigma=10, steps=100, sqrt=True, batch_size=size),
           "sqrt=False": lambda size: saliency.BlurIG().GetMask(image, gradients, max_sigma=10, steps=100, batch_size=size),
           "IntegratedGradients": lambda size: saliency.IntegratedGradients().GetMask(image, gradients, x_steps=50, batch_size=size)}
sums = {name: [float(method(size).sum()) for size in (1, 10, 100)] for name, method in methods.items()}
for name, values in sums.items():
    print(f"{name}: {', '.join(f'{value:.1f}' for value in values)}")
assert all(np.ptp(sums[name]) < 1e-4 for name in ("sqrt=False", "IntegratedGradients")), "the right answers have changed"
assert np.allclose(sums["sqrt=True"], [-30.4, -21.6, -9.4], atol=0.1), "the behaviour has changed"
PYTHON
