#!/usr/bin/env bash
# aeronet-raster 0.2.5 (rasterio 1.4.4): BandSample.resample of pixels that are not square keeps the wrong extent: half of the image is
# gone, and as much emptiness is added below.
#
# Expected: the same ground at the new pixel size, as Band.resample of the same library gives for the same image in a file.
# Behaviour: the new height is computed from the width of a pixel and the new width from its height. Pixels north of 50 degrees are
# often oblong (elevation models in degrees). The values stay in their places, so what is left looks right; the added rows hold 0.
# Output seen: 16 rows x 24 columns of 2 m x 1 m, all 7, resampled to 1 m x 1 m: by Band 16 x 48, 768 pixels of 7; by BandSample 32 x 24,
# 384 pixels of 7 and 384 of 0. With square pixels both agree. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" aeronet-raster==0.2.5 rasterio==1.4.4 \
    opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
from aeronet_raster import Band
from rasterio.transform import from_origin


def resampled(width, height):
    """The image resampled to 1 m x 1 m, by the file and by what was read of it."""
    with rasterio.open("image.tif", "w", driver="GTiff", width=24, height=16, count=1, dtype="uint8", crs="EPSG:32633",
                       transform=from_origin(500_000, 5_000_000, width, height)) as file:
        file.write(np.full((16, 24), 7, np.uint8), 1)
    band = Band("image.tif")
    sample = band.sample(0, 0, 16, 24)
    results = band.resample((1, 1), fp="resampled/image.tif"), sample.resample((1, 1))
    for name, result in zip(("Band", "BandSample"), results):
        print(f"{width} m x {height} m, {name}: {result.shape[0]} x {result.shape[1]}, of 7: {(result.numpy() == 7).sum()}, of 0: "
              f"{(result.numpy() == 0).sum()}, ends {result.bounds.right - 500_000:g} m east, {5_000_000 - result.bounds.bottom:g} m south")
    return [(*result.shape, int((result.numpy() == 7).sum()), int((result.numpy() == 0).sum())) for result in results]


square, oblong = resampled(2, 2), resampled(2, 1)
assert square == [(32, 48, 1536, 0)] * 2 and oblong[0] == (16, 48, 768, 0), "the right answers have changed"
assert oblong[1] == (32, 24, 384, 384), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
