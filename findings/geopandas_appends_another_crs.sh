#!/usr/bin/env bash
# geopandas 1.2.0 (pyogrio 0.13.0): appending to a file (mode="a") writes coordinates of another CRS under the file's own, without an
# error or a warning.
#
# Expected: an error, as `GeoDataFrame.to_postgis(if_exists="append")` and `geopandas.sjoin`'s warning have it, or a transformation.
# Behaviour: the CRS of what is appended is not looked at. A footprint in degrees lands some 5,000 km away, in metres, in the same layer.
# Output seen: the second building's west and south in EPSG:25832, appended from EPSG:4326: 11.576, 48.137 (expected 691641, 5334737),
# in GeoPackage, FlatGeobuf and shapefile; warnings: none.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geopandas==1.2.0 pyogrio==0.13.0 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import geopandas as gpd
from shapely.geometry import box

first = gpd.GeoDataFrame({"name": ["a"]}, geometry=[box(691000, 5334000, 691010, 5334010)], crs=25832)
second = gpd.GeoDataFrame({"name": ["b"]}, geometry=[box(11.576, 48.137, 11.5761, 48.1371)], crs=4326)
expected = second.to_crs(25832).geometry[0].bounds[:2]
for ending in ("gpkg", "fgb", "shp"):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        first.to_file(f"buildings.{ending}")
        second.to_file(f"buildings.{ending}", mode="a")
    read = gpd.read_file(f"buildings.{ending}").set_index("name")
    west, south = read.geometry["b"].bounds[:2]
    print(f"{ending}: EPSG:{read.crs.to_epsg()}, the second building at {west:.3f}, {south:.3f} (expected {expected[0]:.0f}, "
          f"{expected[1]:.0f}); said: {[str(each.message) for each in said]}")
    assert read.crs.to_epsg() == 25832 and len(read) == 2 and expected[0] > 600000, "the right answers have changed"
    assert abs(west - 11.576) < 1e-9 and abs(south - 48.137) < 1e-9 and not said, "the behaviour has changed"
PYTHON
