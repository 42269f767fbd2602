#!/usr/bin/env bash
# geowombat 2.5.3 (rasterio 1.4.4, shapely 2.2.0): array_to_polygon fills the holes of its polygons, so that the ground of a class map
# covers the buildings that stand on it.
#
# Expected: polygons of different values do not overlap, and their areas add up to that of the map, as those of rasterio.features.shapes.
# Behaviour: of each polygon the outer ring alone is kept. Areas by class are too large, a building with a courtyard gets a roof
# over it, and burning the polygons back depends on their order. Nothing is said.
# Output seen: ground and one building of 100 pixels on 2,400: areas 2400 and 100 by geowombat, 2300 and 100 by rasterio.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geowombat==2.5.3 xarray==2026.9.0 dask==2026.8.0 geopandas==1.2.0 \
    shapely==2.2.0 rasterio==1.4.4 numpy==2.4.6
cd "$home"
cat > check.py <<'PYTHON'
import geowombat as gw
import numpy as np
import rasterio
from rasterio.features import shapes
from shapely.geometry import shape

classes = np.ones((40, 60), np.uint8)
classes[10:20, 10:20] = 2
transform = rasterio.Affine(1, 0, 691000, 0, -1, 5335000)
with rasterio.open("classes.tif", "w", driver="GTiff", width=60, height=40, count=1, dtype="uint8", crs="EPSG:25832",
                   transform=transform) as file:
    file.write(classes, 1)
with gw.open("classes.tif") as source:
    table = gw.array_to_polygon(source)
found = {int(value): float(area) for value, area in zip(table["value"], table.area)}
right = {int(value): shape(polygon).area for polygon, value in shapes(classes, transform=transform)}
print(f"geowombat: ground {found[1]:.0f}, building {found[2]:.0f}; rasterio: ground {right[1]:.0f}, building {right[2]:.0f}")
assert right == {1: 2300, 2: 100}, "the right answer has changed"
assert found == {1: 2400, 2: 100}, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
