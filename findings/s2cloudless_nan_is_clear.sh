#!/usr/bin/env bash
# s2cloudless 1.7.3 (lightgbm 4.7.0, numpy 2.4.6): a pixel of NaN, as float rasters mark what was not recorded, is clear sky with a
# probability of 0.0001, and its mask says 0.
#
# Expected: NaN comes out as NaN or masked, or the call refuses; "not recorded" is not "no cloud".
# Behaviour: LightGBM sends missing values down each tree's default branch, and nothing in s2cloudless looks for them before or after.
# Output seen: probabilities of a cloud, of dark soil and of a pixel of NaN: 0.9984, 0.0068, 0.0001; masks 1, 0, 0.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" s2cloudless==1.7.3 lightgbm==4.7.0 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from s2cloudless import S2PixelCloudDetector

# Reflectances of the ten bands that the detector takes: B01, B02, B04, B05, B08, B8A, B09, B10, B11, B12.
cloud = [0.62, 0.60, 0.58, 0.60, 0.66, 0.66, 0.35, 0.03, 0.45, 0.35]
soil = [0.12, 0.10, 0.14, 0.17, 0.24, 0.26, 0.09, 0.002, 0.30, 0.24]
scene = np.array([[cloud, soil, [np.nan] * 10]], dtype=np.float32)[None]
detector = S2PixelCloudDetector(threshold=0.4, average_over=None, dilation_size=None, all_bands=False)
found, mask = detector.get_cloud_probability_maps(scene)[0, 0], detector.get_cloud_masks(scene)[0, 0]
print("cloud, soil, not recorded: " + ", ".join(f"{p:.4f}" for p in found), mask.tolist())
assert found[0] > 0.9 and found[1] < 0.4 and found[2] < 0.01 and mask.tolist() == [1, 0, 0], "the behaviour has changed"
PYTHON
