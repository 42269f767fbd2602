#!/usr/bin/env bash
# geowombat 2.5.3 (xarray 2026.9.0, rasterio 1.4.4): subset and clip_by_polygon of a raster whose pixels are not square return another
# width than was asked for: half of the place, or twice as much.
#
# Expected: the columns between left and right, as rasterio.windows.from_bounds counts them in the same file.
# Behaviour: the width in pixels is the width on the ground divided by the height of a pixel. Rasters in degrees that were projected,
# radar and many elevation models have such pixels. Nothing is said, and what is missing on the right is not seen in the picture.
# Output seen: columns of a place of 20, by subset, by clip_by_polygon and by rasterio: pixels of 10 x 10 20, 20, 20; of 10 x 20 10, 10,
# 20; of 20 x 10 40, 40, 20. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geowombat==2.5.3 xarray==2026.9.0 dask==2026.8.0 geopandas==1.2.0 \
    shapely==2.2.0 rasterio==1.4.4 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import geopandas as gpd
import geowombat as gw
import numpy as np
import rasterio
from rasterio.windows import from_bounds
from shapely.geometry import box

found = {}
for size in ((10, 10), (10, 20), (20, 10)):
    with rasterio.open("scene.tif", "w", driver="GTiff", width=60, height=40, count=1, dtype="uint16", crs="EPSG:25832",
                       transform=rasterio.Affine(size[0], 0, 691000, 0, -size[1], 5335000)) as file:
        file.write(np.ones((1, 40, 60), "uint16"))
    left, top = 691000 + 10 * size[0], 5335000 - 5 * size[1]
    right, bottom = left + 20 * size[0], top - 10 * size[1]
    with rasterio.open("scene.tif") as file:
        columns = [round(from_bounds(left, bottom, right, top, file.transform).width)]
    with gw.open("scene.tif") as scene:
        columns.insert(0, gw.subset(scene, left=left, top=top, right=right, bottom=bottom).shape[-1])
        place = gpd.GeoDataFrame({"id": [1]}, geometry=[box(left, bottom, right, top)], crs=25832)
        columns.insert(1, gw.clip_by_polygon(scene, place).shape[-1])
    found[size] = columns
    print(f"pixels of {size[0]} x {size[1]}: {columns[0]} columns by subset, {columns[1]} by clip_by_polygon, {columns[2]} by rasterio")
assert found[10, 10] == [20, 20, 20] and found[10, 20][2] == found[20, 10][2] == 20, "the right answers have changed"
assert found[10, 20][:2] == [10, 10] and found[20, 10][:2] == [40, 40], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
