#!/usr/bin/env bash
# torchgeo 0.8.1 (torch 2.15.0, geopandas 1.2.0, shapely 2.2.0): footprints in another CRS than the chip's are lost in two of its corners.
#
# Expected: every footprint that the chip meets, as geopandas finds them with the chip's outline transformed.
# Behaviour: VectorDataset looks for footprints in the box between two transformed corners, south-west and north-east. Away from the
# central meridian a UTM chip stands askew in degrees, and what lies at its north-west and south-east is called background.
# Output seen: 2,500 buildings of 10 m on a chip of 1 km in UTM 32 at 12 degrees east, read from EPSG:4326: about 70 are missing; read from
# EPSG:25832: none.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" torchgeo==0.8.1 requests==2.34.2 torch==2.15.0 rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import os

import geopandas as gpd
import numpy as np
from pyproj import CRS
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from shapely.geometry import box
from torchgeo.datasets import VectorDataset

west, south = 723000, 5320000
buildings = gpd.GeoDataFrame({"label": 1}, geometry=[box(west + x, south + y, west + x + 10, south + y + 10)
                                                     for x in range(0, 1000, 20) for y in range(0, 1000, 20)],
                             index=range(2500), crs=25832)
expected = rasterize(buildings.geometry, (1000, 1000), transform=from_bounds(west, south, west + 1000, south + 1000, 1000, 1000)) > 0
missing = {}
for epsg in (25832, 4326):
    os.makedirs(str(epsg))
    buildings.to_crs(epsg).to_file(f"{epsg}/buildings.gpkg")
    chip = VectorDataset(str(epsg), crs=CRS.from_epsg(25832), res=1.0)[west:west + 1000, south:south + 1000]["mask"].numpy() > 0
    # A building counts as missing where not one pixel around its middle is left.
    missing[epsg] = int((expected & ~chip).reshape(50, 20, 50, 20)[:, 12:17, :, 3:8].all((1, 3)).sum())
    print(f"EPSG:{epsg}: {missing[epsg]} of {len(buildings)} buildings are missing")
assert missing[25832] == 0, "the right answers have changed"
assert missing[4326] > 50, "the behaviour has changed"
PYTHON
