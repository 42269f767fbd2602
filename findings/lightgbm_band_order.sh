#!/usr/bin/env bash
# LightGBM 4.7.0 (scikit-learn 1.9.1, pandas 3.1.1): a pixel classifier that was fitted to the columns red, green, blue predicts from
# blue, green, red without an error or a warning, and answers something else. scikit-learn's own classifiers refuse.
#
# Expected: columns are matched by their names, which both tables have, or the call is refused.
# Behaviour: the names are stored (feature_name_) and not compared; columns are taken by their place.
# Output seen: share of pixels whose class changes by the order of the columns: 98 %, in the classifier and in its booster; a random
# forest raises ValueError ("feature names should match"). The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" lightgbm==4.7.0 scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier

rng = np.random.default_rng(0)
pixels = pd.DataFrame(rng.random((4000, 3)), columns=["red", "green", "blue"])
water = (pixels.blue > pixels.red).astype(int)
trees = LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1).fit(pixels, water)
turned = pixels[["blue", "green", "red"]]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    by_class = np.mean(trees.predict(pixels) != trees.predict(turned))
    by_booster = np.mean((trees.booster_.predict(pixels) > 0.5) != (trees.booster_.predict(turned) > 0.5))
said = [str(each.message) for each in said if "name" in str(each.message)]
try:
    RandomForestClassifier(5, random_state=0).fit(pixels, water).predict(turned)
    refused = ""
except ValueError as problem:
    refused = str(problem).splitlines()[0]
print(f"classes that change: {by_class:.0%}, booster {by_booster:.0%}, warnings {said}; scikit-learn: {refused}")
assert min(by_class, by_booster) > 0.3 and not said and "feature names should match" in refused, "the behaviour has changed"
PYTHON
