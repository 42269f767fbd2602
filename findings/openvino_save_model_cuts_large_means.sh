#!/usr/bin/env bash
# openvino 2026.4.1 (torch 2.15.0): of a network that normalises by a mean above 65504, as counts of radar or radiance need, save_model writes
# another network, without an error or a warning.
#
# Expected: the outputs of the model that was converted, to some 1e-3, as of weights in half precision; or a word about the one that no
# half can hold.
# Behaviour: by default constants are stored as float16, and what is too large becomes 65504. The file is wrong also where it runs in
# float32. save_model(..., compress_to_fp16=False) keeps it; the model in memory is right.
# Output seen: outputs up to 2.5; largest difference from torch of the file 5.4, of the file without compression 5e-7.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" openvino==2026.4.1 torch==2.15.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import openvino
import torch


class Network(torch.nn.Module):
    """Two bands, of counts around 2,000 and around 300,000, normalised inside."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor([2e3, 3e5]).view(1, 2, 1, 1))
        self.deviation = torch.nn.Parameter(torch.tensor([1e3, 1.5e5]).view(1, 2, 1, 1))
        self.layer = torch.nn.Conv2d(2, 8, 3, padding=1)

    def forward(self, counts):
        return self.layer((counts - self.mean) / self.deviation)


torch.manual_seed(0)
network = Network().eval()
with torch.no_grad():
    counts = network.mean + network.deviation * torch.randn(1, 2, 32, 32)
    expected = network(counts).numpy()
core, differences = openvino.Core(), {}
converted = openvino.convert_model(network, example_input=counts)
for name, options in (("saved", {}), ("saved without compression", {"compress_to_fp16": False})):
    openvino.save_model(converted, "network.xml", **options)
    compiled = core.compile_model("network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    differences[name] = np.abs(compiled(counts.numpy())[0] - expected).max()
    print(f"{name}: outputs up to {np.abs(expected).max():.1f}, largest difference from torch {differences[name]:.2g}")
assert differences["saved without compression"] < 1e-4, "the right answers have changed"
assert differences["saved"] > 1, "the behaviour has changed"
PYTHON
