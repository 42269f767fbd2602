#!/usr/bin/env bash
# empatches 0.2.3 (numpy 2.4.6): score maps that are merged by mode="max" have no negative value: every logit below 0 comes back as 0.
#
# Expected: the largest of the values that the patches have for a pixel; where one patch covers it, that patch's value.
# Behaviour: patches are merged into an image of zeros, and the zeros take part. Background at a logit of -4 becomes 0, a probability
# of 0.5, everywhere and not only where patches overlap. mode="min" is right, and so are "avg" and "overwrite".
# Output seen: logits of -4 with one building of 3, in four patches: max -> 0 and 3; min, avg, overwrite -> -4 and 3. The script fails
# if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" empatches==0.2.3 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
from empatches import EMPatches

logits = np.full((50, 50, 1), -4.0)
logits[20:30, 5:15] = 3
merged = {}
for mode in ("max", "min", "avg", "overwrite"):
    patches, places = EMPatches().extract_patches(logits, patchsize=32, overlap=0.2)
    merged[mode] = np.asarray(EMPatches().merge_patches(patches, places, mode=mode)).reshape(50, 50)
    print(f"{mode}: {len(patches)} patches, values {np.unique(merged[mode]).tolist()}")
for mode in ("min", "avg", "overwrite"):
    assert np.allclose(merged[mode], logits[..., 0]), "the right answers have changed"
assert np.unique(merged["max"]).tolist() == [0, 3], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
