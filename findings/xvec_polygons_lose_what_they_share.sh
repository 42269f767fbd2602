#!/usr/bin/env bash
# xvec 0.5.2 (xarray 2026.9.0, rasterio 1.4.4): zonal_stats with method="rasterize" gives each pixel to one polygon only. Polygons that
# overlap, as the surroundings of neighbouring buildings do, lose what they share with a later one, without a warning.
#
# Expected: the statistics of the pixels in each polygon, as method="iterate" gives them. Of "rasterize" the documentation says that small
# polygons or lines may be lost; of polygons that overlap it says nothing. It is the method that is taken where exactextract is missing.
# Behaviour: all polygons are burned into one raster, the later over the earlier, before pixels are grouped.
# Output seen: two squares of 36 pixels that share 4: 32 and 36 pixels, mean 69.75 instead of 67.5 for the first.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" xvec==0.5.2 xarray==2026.9.0 rioxarray==0.19.0 rasterio==1.4.4 \
  geopandas==1.2.0 shapely==2.1.2 joblib numpy==2.4.6
cat > "$home/check.py" <<'PYTHON'
import numpy as np
import rioxarray  # noqa: F401
import shapely
import xarray as xr
import xvec  # noqa: F401

middles = np.arange(0.5, 10)
heights = xr.DataArray(np.arange(100.0).reshape(10, 10), {"y": middles[::-1], "x": middles}, ("y", "x")).rio.write_crs(32633)
around = [shapely.box(0, 0, 6, 6), shapely.box(4, 4, 10, 10)]


def of(shapes, method):
    """Mean and number of pixels of each polygon."""
    found = heights.xvec.zonal_stats(shapes, x_coords="x", y_coords="y", stats=["mean", "count"], method=method)
    return found.transpose("geometry", "zonal_statistics").values.tolist()


both, each, alone = of(around, "rasterize"), of(around, "iterate"), of(around[:1], "rasterize")
print(f"rasterize {both}, iterate {each}, the first alone {alone}")
assert each == [[67.5, 36], [31.5, 36]] and alone == each[:1], "the right answers have changed"
assert both == [[69.75, 32], [31.5, 36]], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore "$home/check.py"
