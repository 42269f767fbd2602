#!/usr/bin/env bash
# buildingregulariser 0.2.5 (geopandas 1.2.0): regularize_geodataframe numbers its rows anew and makes a row of every part of a building,
# so that a column taken over by index belongs to other buildings. No error, no warning of it.
#
# Expected: a row a building under its own index, as geopandas' own geometry methods give (the documentation promises "original
# attributes"), or an error for a building of two parts.
# Behaviour: MultiPolygons are taken apart and the index is set back. All that follows the first building of two parts moves down.
# Output seen: three buildings of 200, 400 and 900 m2, the first of two parts, get 100, 100 and 400 by index.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" buildingregulariser==0.2.5 geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import geopandas as gpd
from buildingregulariser import regularize_geodataframe
from shapely.geometry import MultiPolygon, box

east, north = 691000, 5335000
two = MultiPolygon([box(east, north, east + 10, north + 10), box(east + 30, north, east + 40, north + 10)])
others = [box(east + 60, north, east + 80, north + 20), box(east + 100, north, east + 130, north + 30)]
roofs = gpd.GeoDataFrame({"id": [7, 8, 9]}, geometry=[two, *others], crs="EPSG:25832")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    regular = regularize_geodataframe(roofs, num_cores=1)
said = [str(each.message) for each in caught if "Deprecat" not in each.category.__name__ and "inplace" not in str(each.message)]
roofs["area"] = regular.area.round()
print(roofs.assign(true=roofs.geometry.area)[["id", "true", "area"]].to_string(), "\nids of the regularised rows:", list(regular["id"]))
assert list(roofs.simplify(0.5).area) == [200, 400, 900], "geopandas' own methods have changed"
assert list(roofs["area"]) == [100, 100, 400] and list(regular["id"]) == [7, 7, 8, 9] and not said, "the behaviour has changed"
PYTHON
