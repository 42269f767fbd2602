#!/usr/bin/env bash
# geowombat 2.5.3 (xarray 2026.9.0, geopandas 1.2.0): extract(bands=1) gives the values of band 2, in a column that is called 1; bands=[1]
# gives those of band 1.
#
# Expected: band 1 of both spellings; the documentation has "int or 1d array-like" and "the first band is 1, not 0".
# Behaviour: one is taken off the numbers in a list, not off a single number. There is no message, and a last band is the only one that
# raises. A classifier that is fitted to "red" is fitted to green.
# Output seen, three bands of 100, 200 and 300: bands=1 200, bands=2 300, bands=[1] 100, bands=[2] 200; the column of bands=2 is called
# 1 as well. The script fails if that changes.
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

with rasterio.open("scene.tif", "w", driver="GTiff", width=60, height=40, count=3, dtype="uint16", crs="EPSG:25832",
                   transform=rasterio.Affine(10, 0, 691000, 0, -10, 5335000)) as file:
    file.write(np.stack([np.full((40, 60), value, "uint16") for value in (100, 200, 300)]))
places = gpd.GeoDataFrame({"id": [0, 1]}, geometry=gpd.points_from_xy([691105, 691205], [5334895, 5334795]), crs=25832)
found, names = {}, {}
with gw.open("scene.tif") as scene:
    for bands in (1, 2, [1], [2]):
        table = gw.extract(scene, places.copy(), bands=bands).drop(columns=["id", "geometry"])
        found[str(bands)], names[str(bands)] = sorted({int(value) for value in table.to_numpy().ravel()}), list(table)
        print(f"bands={bands}: {found[str(bands)]} in column {names[str(bands)]}")
assert found["[1]"] == [100] and found["[2]"] == [200], "the right answers have changed"
assert found["1"] == [200] and found["2"] == [300] and names["1"] == names["2"] == [1], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
