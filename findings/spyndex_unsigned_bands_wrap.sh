#!/usr/bin/env bash
# spyndex 0.12.0 (numpy 2.4.6): indices of unsigned bands, as Sentinel-2 and Landsat products hold them, wrap around: an NDVI of -0.33
# is given as 21.5, without an error or a warning.
#
# Expected: a number in [-1, 1], whatever the type of the bands; or a refusal of unsigned integers.
# Behaviour: the formula is evaluated on the arrays as they come, so where red exceeds near infrared (water, roofs, roads) the difference
# is taken modulo 65536. Vegetation is right, which hides it.
# Output seen: NDVI of vegetation and of water, from floats 0.60, -0.33; from uint16 0.60, 21.51.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" spyndex==0.12.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import spyndex

bands = {"N": np.array([4000, 1000]), "R": np.array([1000, 2000])}  # of vegetation and of water, reflectance times 10,000
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    right, found = (spyndex.computeIndex("NDVI", {name: band.astype(kind) for name, band in bands.items()})
                    for kind in ("float64", "uint16"))
print(f"NDVI from floats {np.round(right, 2)}, from uint16 {np.round(found, 2)}; said: {[str(each.message) for each in said]}")
assert np.allclose(right, [0.6, -1 / 3]), "the right answers have changed"
assert np.isclose(found[0], 0.6) and found[1] > 20 and not said, "the behaviour has changed"
PYTHON
