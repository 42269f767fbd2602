"""What `make qgis` runs: QGIS and GDAL's own programs open what `entropy_captum.gis` writes, and all lies where it should.

Scenes whose place on Earth is known are written by rasterio in five ways: north up, south up, rotated, pixel-is-point, and in
degrees. A map of a window and its patches have to be drawn by QGIS where the transform says, to a tenth of a pixel. Then a drawn
scene is explained and drawn with its styles, to be looked at. What QGIS drew is left in OUT (default: _qgis).
"""
from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from PIL import Image
from rasterio import Affine

from entropy_captum import EntropyCentric
from entropy_captum.card import to_inputs
from entropy_captum.drawn import procedural_scene
from entropy_captum.gis import map_style, outlined, patches, write_buildings, write_layers, write_map
from entropy_captum.measures import measure_map
from entropy_captum.models import load_model
from entropy_captum.raster import open_raster

QGIS_PYTHON = os.environ.get("QGIS_PYTHON", "/usr/bin/python3")
#: Scenes by name: CRS, transform, and whether coordinates are of the pixels' middles.
SCENES = {
    "north_up": ("EPSG:25832", Affine(0.3, 0, 691000.1, 0, -0.3, 5335000.7), False),
    "south_up": ("EPSG:25832", Affine(0.3, 0, 691000.1, 0, 0.3, 5335000.7), False),
    "rotated": ("EPSG:25832", Affine.translation(691000.1, 5335000.7) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3), False),
    "pixel_is_point": ("EPSG:25832", Affine(0.3, 0, 691000.1, 0, -0.3, 5335000.7), True),
    "degrees": ("EPSG:4326", Affine(4e-6, 0, 11.5675, 0, -4e-6, 48.1394), False)}
#: The window: its first row and column, and its patches, which are no squares; one of them is no rectangle.
ROW, COLUMN = 17, 23
INDEX = np.kron(np.arange(16).reshape(4, 4), np.ones((5, 6), int))
INDEX[3, 6:8] = 0
SCORES = 10.0 * (1 + np.arange(16))
#: Points of the picture for a pixel of the scene, and the white of what lies outside.
ZOOM, OUTSIDE = 40, 255
#: The house of the drawn scene of which nothing is known.
OTHER = 2


def missing() -> str:
    """What has to be installed, empty for nothing."""
    programs = [name for name in ("gdalinfo", "gdaltransform") if shutil.which(name) is None]
    if shutil.which(QGIS_PYTHON) is None or subprocess.run([QGIS_PYTHON, "-c", "import qgis.core"], capture_output=True).returncode:
        programs.append(f"QGIS for {QGIS_PYTHON} (another: QGIS_PYTHON=...)")
    return f"not installed: {', '.join(programs)}; Debian has them as qgis, python3-qgis and gdal-bin" if programs else ""


def write_scene(folder: Path, name: str) -> tuple[Affine, list[float]]:
    """A scene whose window holds the scores, its map and patches. Returns the window's transform and its bounds."""
    crs, transform, point = SCENES[name]
    values = np.full((60, 70), OUTSIDE, np.uint8)
    height, width = INDEX.shape
    values[ROW:ROW + height, COLUMN:COLUMN + width] = SCORES[INDEX]
    with rasterio.open(folder / f"{name}_scene.tif", "w", driver="GTiff", width=70, height=60, count=1, dtype="uint8", crs=crs,
                       transform=transform) as file:
        file.update_tags(AREA_OR_POINT="Point" if point else "Area")
        file.write(values, 1)
    raster = open_raster(folder / f"{name}_scene.tif")
    window = slice(ROW, ROW + height), slice(COLUMN, COLUMN + width)
    extent = raster.extent(window, raster.read(window))
    write_map(folder / f"{name}_map.tif", SCORES[INDEX], SCORES[INDEX] / 8, extent, "bits", {"method": "none"})
    write_layers(folder / f"{name}.gpkg", {"patches": patches(SCORES, SCORES / 8, INDEX, extent)})
    placed = transform @ Affine.translation(COLUMN, ROW)
    x, y = zip(*(placed @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))), strict=True)
    side = abs(transform.determinant) ** 0.5
    return placed, [min(x) - side, min(y) - side, max(x) + side, max(y) + side]


def expected(placed: Affine, extent: list[float], shape: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """The grey levels of a picture (h,w) by the transform alone; shift: in pixels of the scene, along columns and rows."""
    x = np.linspace(extent[0], extent[2], 2 * shape[1] + 1)[1::2][None, :]
    y = np.linspace(extent[3], extent[1], 2 * shape[0] + 1)[1::2][:, None]
    a, b, c, d, e, f = placed[:6]
    column = (e * (x - c) - b * (y - f)) / (a * e - b * d) + shift[0]
    row = (a * (y - f) - d * (x - c)) / (a * e - b * d) + shift[1]
    inside = (column >= 0) & (column < INDEX.shape[1]) & (row >= 0) & (row < INDEX.shape[0])
    index = INDEX[np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int)]
    return np.where(inside, SCORES[index], OUTSIDE)


def misfit(picture: np.ndarray, placed: Affine, extent: list[float], reach: float, shift: float = 0) -> float:
    """The share of a picture's points (h,w) that show nothing within `reach` pixels of the scene, were that shifted by so many."""
    steps = np.linspace(-reach, reach, 2 * math.ceil(reach / 0.25) + 1) + shift
    fits = [picture == expected(placed, extent, picture.shape, pair) for pair in itertools.product(steps, steps)]
    return float(1 - np.any(fits, 0).mean())


def run_program(*words: str, given: str = "") -> str:
    """What a program prints."""
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout


def by_gdal(folder: Path, name: str, placed: Affine) -> float:
    """How far off GDAL's own programs put the corners of a map's patches, in pixels of the scene, at most."""
    path = str(folder / f"{name}_map.tif")
    facts = json.loads(run_program("gdalinfo", "-json", path))
    said = facts["metadata"][""].get("method"), *((band.get("description"), band.get("unit")) for band in facts["bands"])
    if said != ("none", ("score", "bits"), ("standard error", "bits")):
        raise SystemExit(f"{path}: gdalinfo says {said}")
    corners = list(itertools.product((0, 6, 12, 24), (0, 5, 20)))
    given = "\n".join(f"{column} {row}" for column, row in corners)
    places = [line.split()[:2] for line in run_program("gdaltransform", path, given=given).splitlines()]
    off = np.array(places, float) - [placed @ corner for corner in corners]
    return float(np.abs(off).max() / abs(placed.determinant) ** 0.5)


def explain_drawn(folder: Path) -> dict[str, Any]:
    """Explain a building of a drawn scene, and write its map, patches and outline with their styles. Returns how to draw them."""
    scene, model = procedural_scene(2, 128), load_model()
    largest = np.bincount(scene.instances[scene.instances > 0]).argmax()
    region, transform = scene.instances == largest, Affine(0.3, 0, 691000, 0, -0.3, 5335000)
    with rasterio.open(folder / "drawn.tif", "w", driver="GTiff", width=128, height=128, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=transform) as file:
        file.write(np.moveaxis(scene.image, -1, 0))
    raster = open_raster(folder / "drawn.tif")
    extent = raster.extent((slice(0, 128), slice(0, 128)), raster.read((slice(0, 128), slice(0, 128))))
    estimate = EntropyCentric(model).estimate(to_inputs(scene.image, model.card), region=region[None], n_samples=16)
    scores, errors = estimate.scores[0].numpy(), estimate.standard_error[0].numpy()
    index = estimate.index[0][0, 0].numpy()
    write_map(folder / "drawn_map.tif", estimate.map(), estimate.error_map(), extent, "bits")
    (folder / "drawn_map.qml").write_text(map_style(0, float(scores.max())), encoding="utf-8")
    known = measure_map(scores, errors, index, region, np.array([[0.3, 0], [0, -0.3]]))
    buildings = pd.concat([outlined([known], region, extent), outlined([{}], scene.instances == OTHER, extent)])
    write_buildings(folder / "drawn.gpkg", buildings, [patches(scores, errors, index, extent)])
    return {"layers": ["drawn.gpkg|layername=buildings", "drawn_map.tif", "drawn.tif"], "extent": list(raster.bounds()),
            "plain": False, "size": [900, 900], "picture": "drawn.png"}


def draw_all(folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have QGIS draw jobs; returns what it says of each."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([QGIS_PYTHON, Path(__file__).with_name("in_qgis.py"), folder], capture_output=True, text=True,
                          env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
    if done.returncode:
        raise SystemExit(f"QGIS failed:\n{done.stdout}{done.stderr}")
    found: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return found


def compare(folder: Path, placed: dict[str, tuple[Affine, list[float]]],
            drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Print how far off everything lies; returns what lies where it should not."""
    bad = []
    for job, seen in drawn:
        name, _, kind = job["picture"].removesuffix(".png").rpartition("_")
        picture = np.asarray(Image.open(folder / job["picture"]).convert("L"))
        # QGIS itself resamples a rotated raster to its own pixels, north up: its edges are ragged by up to one.
        reach = 1.0 if name == "rotated" and kind != "patches" else 0.1
        off, shifted = (misfit(picture, placed[name][0], seen["extent"], reach, shift) for shift in (0, 2.5 * reach))
        print(f"{name:15s} {kind:8s} {off:.2%} more than {reach} pixels off; if shifted by {2.5 * reach}: {shifted:.1%}")
        bad += [f"{job['picture']}: {off:.2%} of it off"] * (off > 0 or shifted < 0.01)
    for name, (transform, _) in placed.items():
        off = by_gdal(folder, name, transform)
        print(f"{name:15s} by gdaltransform {off:.1e} pixels off")
        bad += [f"{name}: gdaltransform puts corners {off:.2g} pixels off"] * (off > 1e-3)
    return bad


def main(folder: Path) -> None:
    """Write, draw, compare; the end is an error where something lies elsewhere."""
    if absent := missing():
        raise SystemExit(absent)
    folder.mkdir(parents=True, exist_ok=True)
    placed = {name: write_scene(folder, name) for name in SCENES}
    jobs = []
    for name, (transform, extent) in placed.items():
        size = [round(ZOOM * (extent[k + 2] - extent[k]) / abs(transform.determinant) ** 0.5) for k in (0, 1)]
        jobs += [{"layers": [name + end], "plain": True, "extent": extent, "picture": f"{name}_{kind}.png", "size": size}
                 for kind, end in (("scene", "_scene.tif"), ("map", "_map.tif"), ("patches", ".gpkg|layername=patches"))]
    styled = explain_drawn(folder)
    found = draw_all(folder, [*jobs, styled, styled | {"layers": ["drawn.gpkg|layername=patches", "drawn.tif"],
                                                       "picture": "drawn_patches.png"}])
    bad = compare(folder, placed, list(zip(jobs, found[:-2], strict=True)))
    for seen, styles in zip(found[-2:], (["graduatedSymbol", "singlebandpseudocolor", "multibandcolor"],
                                         ["graduatedSymbol", "multibandcolor"]), strict=True):
        bad += [f"no style is found: {seen['renderers']}"] * (seen["renderers"] != styles)
    if bad:
        raise SystemExit("\n".join(bad))
    print(f"all lies where it should; look at {folder / 'drawn.png'} and {folder / 'drawn_patches.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "_qgis"))
