#!/usr/bin/env bash
# pyogrio 0.13.0 (geopandas 1.2.0, shapely 2.2.0): read_bounds says of an empty polygon that it is the box 0, 0, 0, 0; of a missing
# geometry it says NaN, as geopandas and shapely do of both.
#
# Expected: NaN, as for a missing geometry, or as `GeoDataFrame.bounds` has it of the same file; an empty polygon lies nowhere.
# Behaviour: it lies where the coordinates begin: off the coast of Africa in degrees, on the equator in UTM. One emptied footprint of
# a city makes an extent, or an index that is built of these bounds, reach 5,335 km to the south, and meets any box around 0, 0.
# Output seen: pyogrio: [691000, 691010], [0, 0], [nan, nan] (left and right); geopandas: [691000, 691010], [nan, nan], [nan, nan];
# height of the whole: 5335010 m and 10 m. The same from a GeoJSON.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" pyogrio==0.13.0 geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import geopandas as gpd
import numpy as np
import pyogrio
from shapely import Polygon, box

footprints = gpd.GeoDataFrame(geometry=[box(691000, 5335000, 691010, 5335010), Polygon(), None], crs="EPSG:25832")
for name in ("city.gpkg", "city.geojson"):
    footprints.to_file(name)
    fast, slow = pyogrio.read_bounds(name)[1].T, gpd.read_file(name).bounds.to_numpy()
    heights = [float(np.nanmax(b[:, 3]) - np.nanmin(b[:, 1])) for b in (fast, slow)]
    print(f"{name}: pyogrio {fast[:, ::2].tolist()}, geopandas {slow[:, ::2].tolist()}; height of the whole {heights} m")
    assert fast[1].tolist() == [0, 0, 0, 0] and np.isnan(fast[2]).all() and np.isnan(slow[1:]).all(), "the behaviour has changed"
    assert heights == [5335010, 10], "the behaviour has changed"
PYTHON
