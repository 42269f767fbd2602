"""What a scene costs over a tile: peak memory, the share of time spent reading, and what a second worker saves; all in one run."""
from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import torch
from distributed import Client, LocalCluster
from geopandas import GeoDataFrame, read_file
from rasterio.windows import Window

from entropy_captum.adapter import sized
from entropy_captum.drawn import procedural_scene
from entropy_captum.footprints import outline
from entropy_captum.request import RasterPicture
from entropy_captum.scene import Scene
from entropy_captum.survey import SurveySettings, survey
from entropy_captum.zoo import rooftop_unet

PLACE = (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
#: A drawn street with a house, and how many of them stand in the scene.
STREET, COUNT = 512, 10


def write_sparse(path: Path, side: int, corners: list[tuple[int, int]]) -> GeoDataFrame:
    """A raster that holds a drawn street at each corner (row, column), and no bytes for what is between; a building of each."""
    shapes = []
    with rasterio.open(path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", crs="EPSG:25832", tiled=True,
                       blockxsize=256, blockysize=256, compress="deflate", sparse_ok=True, photometric="RGB",
                       transform=rasterio.Affine(*PLACE)) as file:
        for seed, (top, left) in enumerate(corners):
            drawn = procedural_scene(seed + 1, STREET)
            file.write(np.moveaxis(drawn.image, -1, 0), window=Window(left, top, STREET, STREET))
            inner = drawn.instances[STREET // 4:3 * STREET // 4, STREET // 4:3 * STREET // 4]
            ids, counts = np.unique(inner[inner > 0], return_counts=True)
            a, _, c, _, e, f = PLACE
            shapes.append(outline(drawn.instances == ids[counts.argmax()], (a, 0.0, c + a * left, 0.0, e, f + e * top)))
    return GeoDataFrame({"building": [f"b{k}" for k in range(len(shapes))]}, geometry=shapes, crs="EPSG:25832")


def scattered(side: int) -> list[tuple[int, int]]:
    """Where the streets of a scene lie, anywhere, but never two in one window."""
    rng, cells = np.random.default_rng(0), side // (3 * STREET)
    chosen = rng.choice(cells**2, COUNT, replace=False)
    places = np.stack(np.divmod(chosen, cells), 1) * 3 * STREET + rng.integers(2 * STREET, size=(COUNT, 2))
    return [(int(top), int(left)) for top, left in places]


def of_scene(folder: Path, name: str) -> Scene:
    """A scene of the folder, with its buildings."""
    return Scene(folder / f"{name}.tif", sized(rooftop_unet()), read_file(folder / f"{name}.gpkg"))


def alone(folder: Path, name: str, settings: SurveySettings) -> dict[str, float]:
    """In a process of its own: survey a scene; seconds in all and of reading, and the peak memory in MiB."""
    read, spent = RasterPicture.read, [0.0]

    def timed(picture: RasterPicture, window: object) -> object:
        start = time.perf_counter()
        found = read(picture, window)  # type: ignore[arg-type]
        spent[0] += time.perf_counter() - start
        return found

    RasterPicture.read = timed  # type: ignore[method-assign, assignment]
    scene, start = of_scene(folder, name), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        rows = survey(scene, out, settings, show_progress=False)
    if set(rows.status) != {"ok"}:
        raise RuntimeError(f"{name}: {rows.status.tolist()} {rows.get('error')}")
    return {"seconds": time.perf_counter() - start, "reading": spent[0],
            "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def apart(arguments: list[str]) -> dict[str, float]:
    """What `alone` says in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def on_workers(folder: Path, settings: SurveySettings, repeats: int) -> dict[int, list[float]]:
    """Seconds of the ten buildings on one worker and on two, in alternation, with clusters that have started before."""
    scene, seconds = of_scene(folder, "scene"), dict[int, list[float]]()
    for _ in range(repeats):
        for count in (1, 2):
            with (LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client,
                  tempfile.TemporaryDirectory() as out):
                survey(of_scene(folder, "tile"), Path(out) / "warm", settings, cluster=client, show_progress=False)
                start = time.perf_counter()
                survey(scene, Path(out) / "run", settings, cluster=client, show_progress=False)
                seconds.setdefault(count, []).append(time.perf_counter() - start)
    return seconds


def table(scenes: list[dict[str, float]], tiles: list[dict[str, float]], workers: dict[int, list[float]]) -> pd.DataFrame:
    """The three comparisons, a row each: medians, their ratio, and what is wanted."""
    def median(found: list[dict[str, float]], name: str) -> float:
        return statistics.median(each[name] for each in found)

    one, two = (statistics.median(workers[count]) for count in (1, 2))
    rows = [("peak memory, ten buildings of the scene over a tile, MiB", median(scenes, "MiB"), median(tiles, "MiB"), "<= 1.3"),
            ("reading over all of a survey, s", median(scenes, "reading"), median(scenes, "seconds"), "< 0.05"),
            ("one worker over two, s", one, two, ">= 1.6")]
    return pd.DataFrame([(what, a, b, a / b, wanted) for what, a, b, wanted in rows], columns=["what", "a", "b", "a / b", "wanted"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="of the scene, pixels")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--grid-size", type=int, default=8)
    parser.add_argument("--n-samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    settings = SurveySettings(window=given.window, grid_size=given.grid_size, n_samples=given.n_samples)
    if given.alone:
        print(json.dumps(alone(Path(given.alone[0]), given.alone[1], settings)))
        return
    options = [f"--window={given.window}", f"--grid-size={given.grid_size}", f"--n-samples={given.n_samples}"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_sparse(folder / "scene.tif", given.side, scattered(given.side)).to_file(folder / "scene.gpkg")
        write_sparse(folder / "tile.tif", STREET, [(0, 0)]).to_file(folder / "tile.gpkg")
        size = (folder / "scene.tif").stat().st_size / 2**20
        print(f"{COUNT} buildings, {given.side} x {given.side} pixels in a file of {size:.0f} MiB; {' '.join(options)}; "
              f"{given.repeats} repeats; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
        found: dict[str, list[dict[str, float]]] = {"tile": [], "scene": []}
        for _ in range(given.repeats):
            for name, runs in found.items():
                runs.append(apart(["--alone", place, name, *options]))
                print(name, {what: round(value, 2) for what, value in runs[-1].items()}, flush=True)
        print(table(found["scene"], found["tile"], on_workers(folder, settings, given.repeats)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
