#!/usr/bin/env bash
# pyresample 1.35.0 (dask 2026.8.0, numpy 2.4.6): the average that BucketResampler makes of integer pixels is wrong as soon as their
# sum does not fit the pixels' own type; the average of 25 pixels that are all 4000 is 1378.56.
#
# Expected: the average of equal values is that value, as it is of the same pixels as floats; the average itself fits the type, and
# it is returned as float64.
# Behaviour: get_average divides the result of get_sum, which adds up within the type of the pixels, without an error or a warning.
# Output seen: 25 pixels in each cell: 1378.56 of 4000 in 16 bits, as satellite images store reflectance, and 5.44 of 200 in 8 bits;
# 4000 and 200 of floats. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" pyresample==1.35.0 dask==2026.8.0 xarray==2026.9.0 \
  pyproj==3.7.2 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import dask.array as da
import numpy as np
from pyresample.bucket import BucketResampler
from pyresample.geometry import AreaDefinition

extent = (500000, 5000000, 500200, 5000200)
pixels = AreaDefinition("pixels", "10 m", "", "EPSG:32633", 20, 20, extent)
cells = AreaDefinition("cells", "50 m", "", "EPSG:32633", 4, 4, extent)
resampler = BucketResampler(cells, *(da.from_array(degrees) for degrees in pixels.get_lonlats()))
assert (resampler.get_count().compute() == 25).all(), "the cells have changed"


def average(value, kind):
    """The average of every cell of an image that has one value everywhere."""
    found = np.unique(resampler.get_average(da.full((20, 20), value, dtype=kind)).compute())
    return [round(float(each), 2) for each in found]


whole = {kind: average(value, kind) for kind, value in (("uint16", 4000), ("uint8", 200))}
floats = average(4000, "float64"), average(200, "float64")
print(f"average of 4000 and 200: integers {whole}, floats {floats}")
assert floats == ([4000], [200]) and average(2000, "uint16") == [2000], "the right answers have changed"
assert whole == {"uint16": [1378.56], "uint8": [5.44]}, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W error::RuntimeWarning "$home/check.py"
