#!/usr/bin/env bash
# rioxarray 0.19.0 (xarray 2026.9.0, rasterio 1.4.4): after `coarsen(...).mean()`, or taking every fourth pixel, `rio.transform()`,
# `rio.resolution()` and `rio.bounds()` still have the small pixels of before, at the middle of the first large one. Nothing is said.
#
# Expected: what says where an array lies agrees with its coordinates x and y, as `rio.transform(recalc=True)` does and the file that
# `rio.to_raster` writes.
# Behaviour: the size of a pixel is taken from the file's stored transform, the origin from the coordinates. A footprint burnt with that
# transform lies elsewhere; bounds and a reprojection lack a rim.
# Output seen: pixels of 2 m, called 0.5 m; 30 m from west to east, called 28.5 m; of the 20 pixels of a roof 0 are burnt right.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" \
    rioxarray==0.19.0 xarray==2026.9.0 rasterio==1.4.4 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import rasterio
import rioxarray
from rasterio.features import rasterize
from shapely.geometry import box

with rasterio.open("scene.tif", "w", driver="GTiff", width=60, height=40, count=1, dtype="float32", crs="EPSG:25832",
                   transform=rasterio.Affine(0.5, 0, 691000, 0, -0.5, 5335000)) as file:
    file.write(np.arange(2400, dtype="float32").reshape(40, 60), 1)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    coarse = rioxarray.open_rasterio("scene.tif").coarsen(x=4, y=4).mean()
    pixel, (west, _, east, _) = abs(coarse.rio.resolution()[0]), coarse.rio.bounds()
    used = coarse.rio.transform()
    said = [str(each.message) for each in said if "Deprecation" not in each.category.__name__]
right = coarse.rio.transform(recalc=True)
roof = box(691010, 5334988, 691020, 5334996)  # exactly 5 x 4 large pixels
burnt, expected = (rasterize([roof], coarse.shape[1:], transform=transform) for transform in (used, right))
spacing = float(coarse.x[1] - coarse.x[0])
coarse.rio.to_raster("coarse.tif")
with rasterio.open("coarse.tif") as file:
    written = file.transform
print(f"pixels of {spacing:g} m, called {pixel:g} m; 30 m from west to east, called {east - west:g} m; of the {expected.sum()} pixels "
      f"of a roof {(burnt & expected).sum()} are burnt right; said: {said}")
assert written == right and spacing == right.a == 2 and expected.sum() == 20, "the right answers have changed"
assert pixel == 0.5 and east - west == 28.5 and (burnt & expected).sum() < 5 and not said, "the behaviour has changed"
PYTHON
