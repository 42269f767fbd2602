#!/usr/bin/env bash
# raster-footprint 0.3.0 (rasterio 1.4.4): where 256 bands (or 512, 768, 1024) are valid, a pixel counts as without data; a complete image
# of 256 bands has no footprint, and one of 257 has a piece cut out.
#
# Expected: a pixel lies outside where all its bands are nodata, as the documentation of footprint_from_href says, however many there are.
# Behaviour: the valid bands of a pixel are counted in 8 bits, so 256 of them count as none. 256, 512, 768 and 1024 are the usual sizes of
# stored embeddings. None is also what an image without any data gives. With the same file and no bands named, the footprint is right.
# Output seen: 10 x 10 pixels of 1 m, all valid: area 100 for 1, 255, 257 bands, no footprint for 256, 512, 768, by data and by a file
# with all its bands named; 257 bands, one of them nodata in the top 4 rows: 60 of 100. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" raster-footprint==0.3.0 rasterio==1.4.4 shapely==2.2.0 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
from raster_footprint import footprint_from_data, footprint_from_href
from rasterio.crs import CRS
from rasterio.transform import from_origin
from shapely.geometry import shape

crs, transform, nodata = CRS.from_epsg(32633), from_origin(500_000, 5_000_000, 1, 1), -9999


def area(footprint):
    return 0 if footprint is None else shape(footprint).area


def by_data(data):
    return area(footprint_from_data(data, transform, crs, destination_crs=crs, nodata=nodata))


def by_file(data, bands=None):
    with rasterio.open("image.tif", "w", driver="GTiff", width=10, height=10, count=len(data), dtype="float32", crs=crs,
                       transform=transform, nodata=nodata) as file:
        file.write(data)
    return area(footprint_from_href("image.tif", destination_crs=crs, bands=bands))


found = {}
for count in (1, 255, 256, 257, 512, 768):
    data = np.ones((count, 10, 10), np.float32)
    found[count] = by_data(data), by_file(data, list(range(1, count + 1))), by_file(data)
    print(f"{count} bands, all valid: by data {found[count][0]:g}, by file and bands {found[count][1]:g}, by file {found[count][2]:g}")
holed = np.ones((257, 10, 10), np.float32)
holed[0, :4] = nodata
piece = by_data(holed), by_file(holed, list(range(1, 258))), by_file(holed)
print("257 bands, one of them nodata in 4 rows of 10: by data {:g}, by file and bands {:g}, by file {:g}".format(*piece))
assert all(found[count] == (100, 100, 100) for count in (1, 255, 257)), "the right answers have changed"
assert all(found[count] == (0, 0, 100) for count in (256, 512, 768)), "the behaviour has changed"
assert piece == (60, 60, 100), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
