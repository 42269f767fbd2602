#!/usr/bin/env bash
# momepy 0.11.0 (geopandas 1.2.0): courtyard_area of a building whose geometry is a MultiPolygon, as footprints of a building in several
# parts are published, is minus its own area, and courtyard_index is -1 for every one of them.
#
# Expected: the area of its holes, 0 without any, as for a Polygon; or an error, as momepy.corners gives one.
# Behaviour: the area within the outline is taken from the exterior, which is missing for a MultiPolygon and counts as 0; the building's
# area is then subtracted. No warning; a mean over a city is off by the area of all such buildings.
# Output seen: two squares of 100 square metres: courtyard_area -200, courtyard_index -1. A Polygon with a hole of 4: 4.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" momepy==0.11.0 geopandas==1.2.0 shapely==2.1.2 numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import geopandas
import momepy
import shapely

yard = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [[(4, 4), (6, 4), (6, 6), (4, 6)]])
parts = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)])
buildings = geopandas.GeoSeries([yard, parts], crs=32633)
areas, shares = momepy.courtyard_area(buildings).tolist(), momepy.courtyard_index(buildings).tolist()
print(f"courtyard_area {areas}, courtyard_index {shares}")
assert areas[0] == 4, "the right answer has changed"
assert areas[1] == -200 and shares[1] == -1, "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
