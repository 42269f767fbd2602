#!/usr/bin/env bash
# captum 0.9.0 (torch 2.15.0, scikit-learn 1.9.1): `Lime` as it comes gives 0 for whatever moves a probability by less than 0.04.
#
# Expected: the attributions of a score that is linear in its features are their effects; a score in per cent has a hundred times them.
# Behaviour: without `interpretable_model` the fit is scikit-learn's Lasso with alpha = 0.01, whatever the score's scale. Of features that
# are there or not in half of the samples it takes about 4 alpha off every effect, towards 0: the loss of one patch among many, or of a
# mean probability over an object, is often smaller than that. Nothing is said. In per cent the same map is right to a hundredth.
# Output seen, of effects 0.00, 0.01, ..., 0.09: 0.00 0.00 0.00 0.00 0.00 0.01 0.02 0.03 0.04 0.05; in per cent 0 1 2 3 4 5 6 7 8 9.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" captum==0.9.0 torch==2.15.0 numpy==2.4.6 scikit-learn==1.9.1
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from captum.attr import Lime

effects = torch.arange(10) / 100
image = torch.ones(1, 10)


def probability(inputs):
    return 0.2 + inputs @ effects


def percent(inputs):
    return 100 * probability(inputs)


torch.manual_seed(0)
as_it_is = Lime(probability).attribute(image, n_samples=2000, perturbations_per_eval=100)[0]
hundred = Lime(percent).attribute(image, n_samples=2000, perturbations_per_eval=100)[0]
print("probability:", *(f"{value:.2f}" for value in as_it_is))
print("per cent:   ", *(f"{value:.0f}" for value in hundred))
assert (as_it_is[:4] == 0).all() and ((effects - as_it_is)[5:] > 0.03).all(), "the behaviour has changed"
assert (hundred - 100 * effects).abs().max() < 0.2, "the behaviour has changed"
PYTHON
