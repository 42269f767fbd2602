#!/usr/bin/env bash
# spectral 0.25 (numpy 2.4.6): a loaded reflectance image that is saved with its own metadata, as one does to keep its wavelengths, comes
# back 10,000 times too small.
#
# Expected: what was saved. The numbers are reflectances by then, of float32.
# Behaviour: `load()` divides by the "reflectance scale factor" of the header, `save_image(..., metadata=image.metadata)` writes the
# divided numbers with that factor in the new header, and the next reader divides again. Without metadata the wavelengths are lost.
# Output seen: loaded 0.5; saved with metadata and loaded 0.00005; without 0.5; GDAL (rasterio 1.4.4), which knows no such factor,
# reads 5000 from the first file and 0.5 from the second.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" spectral==0.25 rasterio==1.4.4 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import rasterio
import spectral
from spectral.io import envi

envi.save_image("scene.hdr", np.full((8, 9, 4), 5000, np.int16), metadata={"reflectance scale factor": 10000}, dtype=np.int16)
scene = spectral.open_image("scene.hdr")
loaded = scene.load()
envi.save_image("with.hdr", loaded, metadata=scene.metadata)
envi.save_image("without.hdr", loaded)
first, again, without = (float(spectral.open_image(f"{name}.hdr").load()[0, 0, 0]) for name in ("scene", "with", "without"))
gdal = []
for name in ("scene", "with"):
    with rasterio.open(f"{name}.img") as file:
        gdal.append(float(file.read(1)[0, 0] * file.scales[0] + file.offsets[0]))
print(f"loaded {first:g}; saved with metadata and loaded {again:g}; without {without:g}; by GDAL {gdal[0]:g} and {gdal[1]:g}")
assert first == 0.5 and without == 0.5, "the right answers have changed"
assert np.isclose(again, 5e-5) and gdal == [5000, 0.5], "the behaviour has changed"
PYTHON
