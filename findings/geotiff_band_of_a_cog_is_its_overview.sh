#!/usr/bin/env bash
# geotiff 0.2.10 (tifffile 2024.8.30, zarr 2.12.0; files by rasterio 1.4.4): of a Cloud Optimized GeoTIFF, GeoTiff(file, band=1) reads the
# first overview, with the pixel size of the full image, so that every place on the ground gets values from elsewhere.
#
# Expected: the second band, as the documentation has it ("If the geotiff file has multiple bands, you can specify which band to use",
# "The default band is 0"), or an error, as for the same image without overviews ("index out of range").
# Behaviour: the band is taken for the number of a page of the file. The pages of a COG are its overviews, each half as large and with all
# bands; the pixel size stays the first page's. So the scene shrinks to its north-west quarter, and what is read at a place lies twice as far
# from that corner. The height of one band, asked for as band 1 as with GDAL, looks sound in shape and type. Nothing is said.
# Output seen: 1,024 x 512 pixels of 1 m that hold their column number, a box from 100.5 m to 110.5 m: band 0 extent 1024 x 512 and columns
# 101 to 109; band 1 extent 512 x 256 and columns 203 to 219; two bands, band 1: the same, and both bands of it. The script fails if that
# changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geotiff==0.2.10 tifffile==2024.8.30 zarr==2.12.0 numcodecs==0.13.1 \
  imagecodecs==2024.9.22 pyproj==3.7.2 rasterio==1.4.4 numpy==1.26.4
cat > "$home/check.py" <<'PYTHON'
import sys

import numpy as np
import rasterio
from geotiff import GeoTiff

columns, rows = np.meshgrid(np.arange(1024, dtype="uint16"), np.arange(512, dtype="uint16"))
image = np.stack([columns, rows + 5000])
place = rasterio.transform.from_origin(500000, 5000000, 1, 1)


def written(name, count, **driver):
    """Path of a file that holds the first bands of the image."""
    path = f"{sys.argv[1]}/{name}.tif"
    with rasterio.open(path, "w", count=count, height=512, width=1024, dtype="uint16", crs=32633, transform=place, **driver) as file:
        file.write(image[:count])
    return path


def of(path, band):
    """Width and height on the ground, and the values in a box, by band number."""
    file = GeoTiff(path, band=band, as_crs=32633)
    (west, north), (east, south) = file.tif_bBox
    return (east - west, north - south), file.read_box(((500100.5, 4999899.5), (500110.5, 4999889.5)))


def found(path, band):
    """The extent, and the first and last value of a box."""
    extent, box = of(path, band)
    return extent, box.min(), box.max()


height, both = written("height", 1, driver="COG", blocksize=256), written("both", 2, driver="COG", blocksize=256)
first, second = found(height, 0), found(height, 1)
extent, box = of(both, 1)
ends = box[..., 0].min(), box[..., 0].max()
print(f"one band: as band 0 {first}, as band 1 {second}; two bands: as band 1 {extent}, {ends}, shape {box.shape}")
with rasterio.open(both) as file:
    assert file.count == 2 and (file.read(2) == image[1]).all() and file.overviews(1) == [2, 4], "the file has changed"
try:
    found(written("plain", 1, driver="GTiff"), 1)
    sys.exit("the right answers have changed")
except IndexError:
    pass
assert first == ((1024, 512), 101, 109), "the right answers have changed"
assert second == ((512, 256), 203, 219), "the behaviour has changed"
assert extent == (512, 256) and box.shape[2] == 2 and ends == (203, 219), "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py" "$home"
