#!/usr/bin/env bash
# rasterio 1.4.4 (numpy 2.4.6): rasterio.merge leaves scale and offset of the bands out; scenes of different ones are put side by side as
# stored numbers, and the file that it writes has neither, not even where all sources agree.
#
# Expected: the common scale and offset in the mosaic, and an error for scenes that differ (Sentinel-2 before and after its processing
# baseline 04.00 differs by an offset of 0.1).
# Behaviour: the mosaic has scale 1 and offset 0, nothing is said, and who reads it by scale and offset gets reflectances 10,000 times too
# large, or, where they differ, two halves of different meaning.
# Output seen: reflectances 0.40 and 0.40 of two files (stored 5000 with offset -0.1, 4000 without); of the mosaic 5000 and 4000; of a
# mosaic of the first alone 5000.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterio==1.4.4 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.merge import merge


def values(name):
    """The first and the last number of a file, by its scale and offset."""
    with rasterio.open(name) as file:
        return file.read(1)[0, [0, -1]] * file.scales[0] + file.offsets[0]


for name, west, stored, offset in (("after.tif", 691000, 5000, -0.1), ("before.tif", 691080, 4000, 0.0)):
    with rasterio.open(name, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint16", crs="EPSG:25832",
                       transform=rasterio.Affine(10, 0, west, 0, -10, 5335000)) as file:
        file.write(np.full((1, 8, 8), stored, "uint16"))
        file.scales, file.offsets = (1e-4,), (offset,)
merge(["after.tif", "before.tif"], dst_path="both.tif")
merge(["after.tif"], dst_path="one.tif")
found = {name: values(f"{name}.tif").tolist() for name in ("after", "before", "both", "one")}
print(", ".join(f"{name} {np.round(value, 3).tolist()}" for name, value in found.items()))
assert np.allclose(found["after"] + found["before"], 0.4), "the right answers have changed"
assert found["both"] == [5000, 4000] and found["one"] == [5000, 5000], "the behaviour has changed"
PYTHON
