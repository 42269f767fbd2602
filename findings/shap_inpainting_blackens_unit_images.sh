#!/usr/bin/env bash
# shap 0.51.0 (opencv-python-headless 5.0.0.93, numpy 2.4.6): with an inpainting masker an image of values in [0, 1] reaches the model
# black, also where nothing is masked.
#
# Expected: pixels that are kept keep their values, as the blurring masker of the same class has it; or an error about the range.
# Behaviour: for OpenCV the whole image is made uint8 by cutting off the fraction, and what comes back is used for masked and kept pixels
# alike. So every row of the explainer is the same black image, and all attributions are 0. Values in [0, 255] are right.
# Output seen: largest change of a kept pixel, values in [0, 1]: inpaint_telea 1.00, inpaint_ns 1.00, blur 0.00; in [0, 255]: 0.00 each.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" shap==0.51.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import numpy as np
import shap

image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(float)
kept = np.ones(image.shape, bool)
kept[:8, :8] = False
changes = {}
for scale in (1, 1 / 255):
    for how in ("inpaint_telea", "inpaint_ns", "blur(8,8)"):
        masked = np.asarray(shap.maskers.Image(how, image.shape)(kept.ravel(), image * scale)[0]).reshape(image.shape)
        changes[how, scale] = np.abs(masked - image * scale)[kept].max()
        print(f"values up to {255 * scale:g}, {how}: kept pixels change by up to {changes[how, scale]:.2f}")
assert not any(changes[how, 1] for how in ("inpaint_telea", "inpaint_ns", "blur(8,8)")), "the right answers have changed"
assert not changes["blur(8,8)", 1 / 255] and changes["inpaint_telea", 1 / 255] > 0.9 and changes["inpaint_ns", 1 / 255] > 0.9, \
    "the behaviour has changed"
PYTHON
