#!/usr/bin/env bash
# torch.onnx.export (torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2): a batch that dynamic_shapes declares as free comes out fixed, without
# an error or a warning, if the network uses len(x); with x.shape[0] it stays free.
#
# Expected: the file has a free batch, as was asked for, or the export fails as torch.export.export does ("Constraints violated").
# Behaviour: len() makes a constant of the batch; the exporter's first attempt fails for that reason, and a fallback drops the request.
# Output seen: batch of the input with x.shape[0]: "b"; with len(x): 2; torch.export.export with len(x): refused.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v "torch.onnx\]"
import warnings

import onnx
import torch
from torch import nn


class Sized(nn.Module):
    """A score map with a bias for each image, by one of two ways to ask for the batch."""

    def __init__(self, by_len):
        super().__init__()
        self.by_len, self.conv = by_len, nn.Conv2d(3, 1, 1)

    def forward(self, x):
        batch = len(x) if self.by_len else x.shape[0]
        return self.conv(x).reshape(batch, 1, 8, 8)


x, free = torch.zeros(2, 3, 8, 8), ({0: torch.export.Dim("b", min=1)},)
batches, said = {}, {}
for by_len in (False, True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.onnx.export(Sized(by_len).eval(), (x,), "sized.onnx", dynamo=True, dynamic_shapes=free, verbose=False)
    size = onnx.load("sized.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    batches[by_len] = size.dim_param or size.dim_value
    said[by_len] = [str(w.message) for w in caught if "batch" in str(w.message) or "onstraint" in str(w.message)]
try:
    torch.export.export(Sized(True).eval(), (x,), dynamic_shapes=free)
    refused = False
except Exception as problem:
    refused = "Constraints violated" in str(problem)
print(f"x.shape[0]: {batches[False]!r}; len(x): {batches[True]!r}, warnings: {said[True]}; torch.export.export refuses: {refused}")
assert batches == {False: "b", True: 2} and not said[True] and refused, "the behaviour has changed"
PYTHON
