#!/usr/bin/env bash
# pylandstats 3.1.0 (rasterio 1.4.4, numpy 2.4.6): where a class map marks what was not mapped by NaN, the unmapped part counts as
# landscape; shares of classes no longer add up to 100 %, and the total area is that of the whole file.
#
# Expected: the same numbers as for the same map with 0 or -9999 as its nodata value. NaN is what masking by xarray and rioxarray leaves.
# Behaviour: the area of the landscape counts pixels that are not equal to the nodata value, and NaN is equal to nothing. Patches and
# classes leave NaN out, so areas of classes are right and everything that is divided by the landscape is too small. No warning.
# Output seen, two classes of 1 ha each in a map of 4 ha, half of it unmapped: shares 50 and 50 with nodata 0 and -9999, 25 and 25 with
# NaN; total area 2, 2 and 4 ha. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" pylandstats==3.1.0 rasterio==1.4.4 geopandas==1.2.0 pandas==3.1.1 \
    scipy==1.17.1 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import pylandstats
import rasterio

shares, total = {}, {}
for nodata in (0, -9999, np.nan):
    classes = np.full((20, 20), nodata, np.float32)
    classes[:10, :10], classes[:10, 10:] = 1, 2
    with rasterio.open("classes.tif", "w", driver="GTiff", width=20, height=20, count=1, dtype="float32", nodata=nodata,
                       crs="EPSG:25832", transform=rasterio.Affine(10, 0, 691000, 0, -10, 5335000)) as file:
        file.write(classes, 1)
    landscape = pylandstats.Landscape("classes.tif")
    table = landscape.compute_class_metrics_df(metrics=["total_area", "proportion_of_landscape"])
    assert table["total_area"].tolist() == [1, 1], "the right answers have changed"
    shares[nodata], total[nodata] = table["proportion_of_landscape"].tolist(), float(landscape.total_area())
    print(f"nodata {nodata:g}: shares {shares[nodata]}, total area {total[nodata]:g} ha")
assert shares[0] == shares[-9999] == [50, 50] and total[0] == total[-9999] == 2, "the right answers have changed"
assert shares[np.nan] == [25, 25] and total[np.nan] == 4, "the behaviour has changed"
PYTHON
