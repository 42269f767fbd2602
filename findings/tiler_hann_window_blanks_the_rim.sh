#!/usr/bin/env bash
# tiler 0.6.0 (numpy 2.4.6): tiles that are merged under a Hann window give an image whose outermost pixels are 0, whatever was predicted
# there; with argmax=True they are class 0.
#
# Expected: the weighted mean of the tiles wherever there is a tile; at the rim, where there is one tile only, its own values.
# Behaviour: the window ends in exact zeros. At the rim of the image no other tile makes up for that, the sum of weights is 0, and 0 / 0
# is made 0. So it is with "bartlett", "bohman" and "barthann"; the other windows, whose ends are tiny, are right. Nothing is said.
# Where scenes are merged one by one, every seam of the mosaic is a line of background, two pixels wide.
# Output seen: probabilities of one class of 0.9 everywhere: largest in the outermost pixels 0.0 by hann, bartlett, bohman, barthann, 0.9
# by boxcar, triang, hamming, blackman, parzen; class there 0 and 1. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" tiler==0.6.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
from tiler import Merger, Tiler

warnings.simplefilter("error")
image = np.zeros((64, 64), np.float32)
tiler = Tiler(data_shape=image.shape, tile_shape=(16, 16), overlap=8)
rim = np.ones(image.shape, bool)
rim[1:-1, 1:-1] = False
blank = []
for window in ("boxcar", "triang", "hamming", "blackman", "parzen", "hann", "bartlett", "bohman", "barthann"):
    merger = Merger(tiler, window=window, logits=2)
    for number, tile in tiler(image):
        merger.add(number, np.stack([np.full_like(tile, 0.1), np.full_like(tile, 0.9)]))
    building, classes = merger.merge()[1], merger.merge(argmax=True)
    print(f"{window}: rim {building[rim].max():.1f}, class {classes[rim].max():g}; inside {building[~rim].min():.1f}")
    assert np.allclose(building[~rim], 0.9, atol=1e-3), "the right answer has changed"
    if not building[rim].any() and not classes[rim].any():
        blank.append(window)
assert blank == ["hann", "bartlett", "bohman", "barthann"], "the behaviour has changed"
PYTHON
