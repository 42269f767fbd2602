#!/usr/bin/env bash
# captum 0.9.0 (torch 2.15.0, numpy 2.4.6): `infidelity(normalize=True)` calls a map and its negative equally good, to the last digit.
#
# Expected: normalising takes the scale out of a map, so that maps of different methods can be compared; a map that calls the evidence
# for a class evidence against it stays the worst there is.
# Behaviour: the dot product is scaled by the least-squares factor beta, which is free to be negative. So the sign of the whole map goes
# with its scale, and the negative of the exact map beats any map that is only nearly exact.
# Output seen, for a linear score and its gradient (exact), the negative, the gradient with 30 % noise: 0.000, 4.223, 0.090 as it is;
# 0.000, 0.000, 0.089 normalised. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" captum==0.9.0 torch==2.15.0 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from captum.metrics import infidelity

torch.manual_seed(0)
image, gradient = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
gradient /= gradient.norm()


def score(inputs):
    return (inputs * gradient).sum((1, 2, 3))


def perturb(inputs):
    noise = torch.randn_like(inputs)
    return noise, inputs - noise


noise = torch.randn_like(gradient)
noisy = gradient + 0.3 * noise / noise.norm()
found = {}
for normalize in (False, True):
    for name, heat in (("exact", gradient), ("negative", -gradient), ("noisy", noisy)):
        torch.manual_seed(1)
        found[name, normalize] = infidelity(score, perturb, image, heat, n_perturb_samples=2000, normalize=normalize).item()
for normalize in (False, True):
    print("normalised:" if normalize else "as it is:", *(f"{name} {found[name, normalize]:.3f}" for name in ("exact", "negative", "noisy")))
assert found["negative", False] > 10 * found["noisy", False] > 0.5, "the behaviour has changed"
assert abs(found["negative", True] - found["exact", True]) < 1e-6, "the behaviour has changed"
assert found["negative", True] < 0.01 < found["noisy", True], "the behaviour has changed"
PYTHON
