#!/usr/bin/env bash
# georeader-spaceml 2.4.2 (rasterio 1.4.4, numpy 2.4.6): a raster that is turned over by slicing, [::-1] or [:, ::-1], lies beside the
# scene, as far away as it is high or wide.
#
# Expected: each pixel keeps its place, as with any other slice of a GeoTensor (which moves the transform along with what it cuts), or an
# error.
# Behaviour: the sign of the pixel's size is turned, as it should be, but the origin stays at the first pixel of before. A tile that was
# turned over for training, or a prediction of it, is written to a file that begins where the scene ends. Nothing is said.
# Output seen: a scene of 60 x 40 pixels of 10 m, west, south, east, north in m from its south-west corner: 0 0 600 400; a slice of it
# 50 100 250 300, as it is cut; [::-1] 0 400 600 800; [:, ::-1] -600 0 0 400. The script fails if that changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q uv==0.13.9
"$home/venv/bin/uv" pip install -q --python "$home/venv/bin/python" georeader-spaceml==2.4.2 rasterio==1.4.4 geopandas==1.2.0 \
    shapely==2.2.0 numpy==2.4.6 typing-extensions==4.16.0 fsspec==2026.9.0
cd "$home"
cat > check.py <<'PYTHON'
import numpy as np
import rasterio
from georeader.geotensor import GeoTensor
from rasterio.transform import array_bounds

WEST, NORTH, SIZE = 691000, 5335000, 10
scene = GeoTensor(np.arange(2400, dtype="float32").reshape(40, 60), rasterio.Affine(SIZE, 0, WEST, 0, -SIZE, NORTH), "EPSG:25832")


def bounds(raster):
    """West, south, east and north in metres from the south-west corner of the scene, whichever way the raster is turned."""
    corners = [raster.transform @ corner for corner in ((0, 0), (raster.shape[-1], raster.shape[-2]))]
    x, y = (sorted(corner[axis] for corner in corners) for axis in (0, 1))
    return [round(value) for value in (x[0] - WEST, y[0] - NORTH + 400, x[1] - WEST, y[1] - NORTH + 400)]


assert [round(edge) for edge in array_bounds(40, 60, scene.transform)] == [WEST, NORTH - 400, WEST + 600, NORTH]
found = {"scene": scene, "part": scene[10:30, 5:25], "[::-1]": scene[::-1], "[:, ::-1]": scene[:, ::-1]}
for name, raster in found.items():
    print(name, *bounds(raster))
assert np.asarray(found["[::-1]"])[0, 0] == 2340 and np.asarray(found["[:, ::-1]"])[0, 0] == 59, "the right answers have changed"
assert bounds(scene) == [0, 0, 600, 400] and bounds(found["part"]) == [50, 100, 250, 300], "the right answers have changed"
assert bounds(found["[::-1]"]) == [0, 400, 600, 800] and bounds(found["[:, ::-1]"]) == [-600, 0, 0, 400], "the behaviour has changed"
PYTHON
"$home/venv/bin/python" -W ignore check.py
