#!/usr/bin/env bash
# rasterio 1.4.4 (its GDAL, shapely 2.2.0): a polygon that covers a raster entirely burns not one pixel of it where its corners are more
# than 2^31 pixels away; rasterize gives zeros, and geometry_mask says that everything lies outside. No error, no warning.
#
# Expected: a raster inside a polygon is burned whole, however far the polygon goes on; or the call refuses.
# Behaviour: GDAL turns rows and columns of corners into 32-bit whole numbers, and what runs over is lost. The outline of the world in
# degrees does so over a drone's picture of 1 cm and finer (360 degrees are 4e9 such pixels), and masks it out.
# Output seen: share of a 100 x 100 raster that is burned, pixels of 1e-6, 1e-7 and 5e-8 degrees (11 cm, 1 cm, 6 mm): 1, 1, 0; by
# geometry_mask 1, 1, 0; after cutting the polygon to the raster's bounds 1, 1, 1.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterio==1.4.4 shapely==2.2.0 numpy==2.4.6
"$home/venv/bin/python" -W ignore - <<'PYTHON'
from rasterio.features import geometry_mask, rasterize
from rasterio.transform import array_bounds, from_origin
from shapely import box

world, size, found = box(-180, -90, 180, 90), (100, 100), []
for pixel in (1e-6, 1e-7, 5e-8):
    place = from_origin(11.5, 48.1, pixel, pixel)
    near = world & box(*array_bounds(*size, place))
    found.append((float(rasterize([world], size, transform=place, dtype="uint8").mean()),
                  float(geometry_mask([world], size, place, invert=True).mean()),
                  float(rasterize([near], size, transform=place, dtype="uint8").mean())))
    print(f"pixels of {pixel:g} degrees: rasterize burns {found[-1][0]:g}, geometry_mask {found[-1][1]:g}, of the part inside "
          f"{found[-1][2]:g}")
assert found == [(1, 1, 1), (1, 1, 1), (0, 0, 1)], "the behaviour has changed"
PYTHON
