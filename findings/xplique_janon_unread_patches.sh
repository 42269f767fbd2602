#!/usr/bin/env bash
# Xplique 2.0.2 (tensorflow 2.20.0): with JanonEstimator a patch that the network never reads gets a total-order Sobol index near 1.
#
# Expected: for f = 0.9 + 0.1 x_1 of 16 patches the total-order indices are 1, 0, ..., 0, also at the usual N = 32 designs; unread patches
# leave f(A) = f(C_i) exactly, as for JansenEstimator of the same forwards.
# Behaviour: the variance is (sum f(A)^2 + f(C)^2) / (2 (N - 1)) less the squared mean, the covariance a mean over N. The mean squared
# over N - 1 is left over; it outweighs the variance if the score is large and varies little, as a mean probability in an object does.
# Output seen, index of the unread patches (all alike) at f = x_1, 0.8 + 0.2 x_1, 0.9 + 0.1 x_1: Janon 0.11, 0.89, 0.97; Jansen 0.00
# thrice. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" Xplique==2.0.2 tensorflow==2.20.0 tf-keras==2.20.1 numpy==2.4.6
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$home/venv/bin/python" -W ignore - 2>"$home/log" <<'PYTHON' || { cat "$home/log"; exit 1; }
import numpy as np
import tensorflow as tf
from xplique.attributions.global_sensitivity_analysis import JanonEstimator, JansenEstimator, TFSobolSequenceRS

N = 32
masks = tf.reshape(TFSobolSequenceRS()(16, N), (-1, 4, 4, 1))
found = {}
for estimator in (JanonEstimator(), JansenEstimator()):
    for level in (0.0, 0.8, 0.9):
        outputs = level + (1 - level) * masks[:, 0, 0, 0]
        index = np.asarray(estimator(masks, outputs, N)).ravel()
        assert abs(index[0] - 1) < 0.15, "the behaviour has changed"
        found[type(estimator).__name__, level] = index[1:]
for name in ("JanonEstimator", "JansenEstimator"):
    print(name, "index of unread patches:", *(f"{found[name, level].mean():.2f}" for level in (0.0, 0.8, 0.9)))
assert found["JanonEstimator", 0.9].min() > 0.9 and found["JanonEstimator", 0.8].min() > 0.8, "the behaviour has changed"
assert max(abs(found["JansenEstimator", level]).max() for level in (0.0, 0.8, 0.9)) < 0.001, "the behaviour has changed"
PYTHON
