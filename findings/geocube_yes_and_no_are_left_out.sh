#!/usr/bin/env bash
# geocube 0.7.1 (geopandas 1.2.0, xarray 2026.9.0): make_geocube leaves a column of yes and no out of its result, without a word.
#
# Expected: ones and zeros, as of whole numbers, or an error that says that such a column is not burned.
# Behaviour: columns that are not numbers are passed over, and booleans count as such, also where "measurements" names the column. The
# data set comes back without it; asked for that column alone it is empty. So a layer of labels (is it a building, was it checked) is
# missed only later, as an AttributeError somewhere else, or never.
# Output seen: two squares with a column of whole numbers and one of booleans, both asked for: variables ["number"]; the booleans alone:
# []; cast to whole numbers: ["yes"]; no warning. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" geocube==0.7.1 geopandas==1.2.0 xarray==2026.9.0 \
    numpy==2.4.6 rasterio==1.4.4
cd "$home"
cat > check.py <<'PYTHON'
import warnings

import geopandas
from geocube.api.core import make_geocube
from shapely.geometry import box

table = geopandas.GeoDataFrame({"number": [1, 2], "yes": [True, False]}, geometry=[box(0, 0, 4, 4), box(4, 0, 8, 4)], crs="EPSG:32633")


def burned(table, *columns):
    return sorted(make_geocube(vector_data=table, measurements=list(columns), resolution=(-1, 1)).data_vars)


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = burned(table, "number", "yes"), burned(table, "yes"), burned(table.astype({"yes": int}), "yes")
about = [str(one.message) for one in said if "yes" in str(one.message) or "bool" in str(one.message)]
print(*found, about)
assert found == (["number"], [], ["yes"]) and not about, (found, about)
PYTHON
venv/bin/python check.py
