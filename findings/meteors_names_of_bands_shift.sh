#!/usr/bin/env bash
# Meteors 0.2.0 (captum 0.9.0, torch 2.14.1): where a band mask counts its groups from 1, as that of its own Lime.get_band_mask does, and no
# names are given, the attribution of each group is returned under the name of the next one.
#
# Expected: Lime.get_spectral_attributes names groups by their ids in the mask where no band_names are given, so of a mask 1, 2, 3, 4 and
# f = the mean of the third band the name "3" stands for the attribution, and "4" for 0.
# Behaviour: the names are the ids, but their numbers are counted from 0: {"1": 0, "2": 1, "3": 2, "4": 3} of a mask that has no 0.
# "1" is removed with a warning in the log, "2" to "4" stand for the groups 1 to 3, and the last group is called "not_included".
# Output seen: the attribution of the third group stands under "tensor(4)", and "tensor(3)" has none. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q meteors==0.2.0 captum==0.9.0 torch==2.14.1 numpy==1.26.4
OMP_NUM_THREADS=1 "$home/venv/bin/python" -W ignore - 2>"$home/log" <<'PYTHON' || { cat "$home/log"; exit 1; }
from importlib.metadata import version

import meteors
import torch
from meteors.attr import Lime
from meteors.models import ExplainableModel, SkLearnLasso

torch.manual_seed(0)
image = meteors.HSI(image=torch.rand(4, 16, 16), wavelengths=[490, 560, 665, 842], orientation="CHW")
third = ExplainableModel(lambda x: x[:, 2].mean((1, 2))[:, None], "regression")
found = Lime(third, SkLearnLasso(alpha=1e-6)).get_spectral_attributes(image, torch.tensor([1, 2, 3, 4]), target=0, n_samples=64)
by_band = found.attributes.mean((1, 2))
named = {str(name): round(float(found.attributes[found.mask == number].mean()), 3) for name, number in found.band_names.items()}
print("Meteors", version("meteors"), "by band:", by_band.numpy().round(3), "by name:", named)
assert by_band[2] > 0.3 and by_band[[0, 1, 3]].abs().max() < 0.01, "the behaviour has changed"
assert named["tensor(4)"] > 0.3 and abs(named["tensor(3)"]) < 0.01 and "tensor(1)" not in named, "the behaviour has changed"
PYTHON
