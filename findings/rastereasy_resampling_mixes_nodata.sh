#!/usr/bin/env bash
# rastereasy 0.3.7 (rasterio 1.4.4): resample mixes the value of pixels that hold nothing with what lies beside them; the results are
# neither, and count as measured.
#
# Expected: the file's nodata value is left out of the interpolation, as rasterio's reproject does where it is told of it: a result is
# made of measured values or is nodata.
# Behaviour: the nodata value is kept in the metadata and not handed to the interpolation. With the default method, cubic_spline, a gap
# is surrounded by a rim of wrong values, on a plain of 100 from -9972.7 to 99.9, while the gap shrinks to its middle.
# Output seen: a plain of 100 at 2 m with a gap of 4 x 4 pixels (-9999), resampled to 1 m: 4 pixels of -9999, 192 pixels that are
# neither; by rasterio, told of the nodata value: none. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rastereasy==0.3.7 rasterio==1.4.4 geopandas==1.2.0 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
import rastereasy
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

plain = np.full((1, 40, 60), 100, np.float32)
plain[0, 10:14, 20:24] = -9999
coarse, fine = from_origin(500_000, 5_000_000, 2, 2), from_origin(500_000, 5_000_000, 1, 1)
with rasterio.open("plain.tif", "w", driver="GTiff", width=60, height=40, count=1, dtype="float32", crs="EPSG:32633",
                   transform=coarse, nodata=-9999) as file:
    file.write(plain)
resampled = rastereasy.open("plain.tif").resample(1.0)
told, _ = reproject(plain, np.empty((1, 80, 120), np.float32), src_transform=coarse, dst_transform=fine, src_crs="EPSG:32633",
                    dst_crs="EPSG:32633", src_nodata=-9999, resampling=Resampling.cubic_spline)


def neither(image):
    return image[(image != -9999) & ~np.isclose(image, 100, atol=1e-3)]


mixed = neither(resampled.image)
print(f"rastereasy: nodata {resampled.get_nodata():g} in {(resampled.image == -9999).sum()} pixels; neither: {mixed.size}, from "
      f"{mixed.min():.1f} to {mixed.max():.1f}; rasterio, told of nodata: neither {neither(told).size}")
assert neither(told).size == 0 and resampled.get_nodata() == -9999, "the right answer has changed"
assert mixed.size == 192 and mixed.min() < -9900, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
