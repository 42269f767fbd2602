#!/usr/bin/env bash
# xarray-spatial 0.5.3 (numpy 2.4.6, numba 0.68.1): polygonize makes a polygon of every single cell that holds NaN.
#
# Expected: cells that hold nothing are left out, or are joined to one polygon as cells of any other value are. NaN is how xarray (and
# rioxarray with masked=True) says that a cell holds nothing, and mosaics have rims of it.
# Behaviour: neighbours are joined where their values are equal, and NaN equals nothing, itself neither. So a rim of a million cells
# becomes a million squares, each with the value nan, among the few polygons that were asked for. A `mask` helps who knows.
# Output seen: 40 x 40 cells, a block of 20 x 20 of the value 1, NaN around it: 1,201 polygons, 1,200 of them a cell of NaN; with the
# value 0 around it 2; with mask=notnull() 1. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" xarray-spatial==0.5.3 numpy==2.4.6 numba==0.68.1 xarray==2026.9.0
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import xarray as xr
from xrspatial.experimental.polygonize import polygonize


def polygons(around, mask=False):
    """How many polygons there are of a block of ones with something around it, and how many of them are of NaN."""
    values = np.full((40, 40), around, float)
    values[10:30, 10:30] = 1
    raster = xr.DataArray(values, dims=("y", "x"))
    found, _ = polygonize(raster, mask=raster.notnull() if mask else None)
    return len(found), int(np.isnan(found).sum())


found = {"0 around": polygons(0.0), "NaN around": polygons(np.nan), "NaN around, masked": polygons(np.nan, mask=True)}
print(found)
assert found == {"0 around": (2, 0), "NaN around": (1201, 1200), "NaN around, masked": (1, 0)}, found
PYTHON
venv/bin/python check.py
