#!/usr/bin/env bash
# rasterstats 0.21.0 (rasterio 1.4.4, shapely 2.2.0): zonal_stats and point_query of a rotated raster answer from other pixels, without
# an error or a warning.
#
# Expected: the pixels under the polygon, as rasterio.mask finds them in the same file, or an error, as exactextract gives.
# Behaviour: window and pixel are computed from origin and pixel size alone; what turns the raster is left out. The count is
# plausible, so that nothing shows; with a strong rotation the answer is None, with count 0.
# Output seen: 20 x 20 pixels by rasterio.mask and rasterstats, rotated by 0, 1 and 5 degrees: 4999.5 and 4999.5, 4999.5 and 4900.5,
# 4999.5 and 4553.0; a pixel's value, 5050, by point_query: 5050, 4951, 4654.
# The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" rasterstats==0.21.0 rasterio==1.4.4 shapely==2.2.0 affine==3.0.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import rasterio
from affine import Affine
from rasterio.mask import mask
from rasterstats import point_query, zonal_stats
from shapely.geometry import Point, Polygon

values, found, said = np.arange(10000.0).reshape(100, 100), {}, []
for degrees in (0, 1, 5):
    place = Affine.translation(691000, 5335000) @ Affine.rotation(degrees) @ Affine.scale(1, -1)
    with rasterio.open("scene.tif", "w", driver="GTiff", width=100, height=100, count=1, dtype="float64", transform=place,
                       crs="EPSG:25832", nodata=-1) as file:
        file.write(values, 1)
    roof = Polygon([place * corner for corner in ((40, 40), (60, 40), (60, 60), (40, 60))])
    with rasterio.open("scene.tif") as file:
        inside = mask(file, [roof])[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (zone,), (value,) = zonal_stats([roof], "scene.tif"), point_query([Point(place * (50.5, 50.5))], "scene.tif",
                                                                          interpolate="nearest")
    said += [str(each.message) for each in caught if "Deprecation" not in each.category.__name__]
    found[degrees] = inside[inside >= 0].mean(), zone["mean"], zone["count"], value
    print(f"{degrees} degrees: rasterio.mask {found[degrees][0]}; rasterstats {zone['mean']} of {zone['count']} pixels; the pixel "
          f"{values[50, 50]:g} is {value:g}")
assert all(each[0] == 4999.5 for each in found.values()) and found[0][1:] == (4999.5, 400, 5050), "the right answers have changed"
assert found[1][1:] == (4900.5, 400, 4951) and found[5][1] == 4553 and not said, "the behaviour has changed"
PYTHON
