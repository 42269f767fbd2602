"""Does a map stay what it is when its image hardly changes? How alike the maps of one place are in several views of it.

A view is the central window of 256 pixels of a tile, the window beside it by a few pixels, or the central one a tenth brighter.
The class that the network predicts in a view is explained (N = 8, 8 by 8, grey), the map is laid back on the central window, and
its means in that window's cells are compared: one tile of each scene of the study, in $ENTROPY_CAPTUM_DATA.

Rows go to nbs/results/views_256.csv, tile by tile; those that are there are kept and what is missing is made.
Usage: stability.py [--minutes M] [--runtime openvino]
"""
from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from benchmark_tables import write_facts
from numpy.typing import NDArray
from torch import nn

from entropy_captum.data import normalize
from entropy_captum.forward import weights_hash
from entropy_captum.methods import ask_of_image, distance_from, nearness, run_methods
from entropy_captum.names import Runtime
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget
from entropy_captum.region import iou
from entropy_captum.tiles import Source, cell_means, find_sources, rank_correlation, rank_given, whole_set
from entropy_captum.zoo import predict_mask, rooftop_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "views_256.csv"
SIZE, GRID, SAMPLES, SMALLEST = 256, 8, 8, 64
METHODS = ("entropy", "entropy-object", "sobol", "grad-cam", "score-cam", "score-cam-increase", "input-x-gradient", "distance")


class View(NamedTuple):
    """A window so many pixels below and right of the central one, its pixel values times a factor."""

    name: str
    shift: int = 0
    factor: float = 1.0

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window (256,256,3) of an image (H,W,3)."""
        top, left = ((n - SIZE) // 2 + self.shift for n in image.shape[:2])
        window = image[top:top + SIZE, left:left + SIZE].astype(np.float64) * self.factor
        return window.round().clip(0, 255).astype(np.uint8)

    def laid_back(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the view (256,256) where they lie in the central window; NaN where the view does not show it."""
        back = np.full(values.shape, np.nan)
        back[self.shift:, self.shift:] = values[:SIZE - self.shift, :SIZE - self.shift]
        return back


ITSELF = View("itself")
VIEWS = (View("4 pixels beside", 4), View("16 pixels beside", 16), View("a tenth brighter", factor=1.1))


class Seen(NamedTuple):
    """What the network predicts in a view, bool (256,256), and the maps (256,256) by method."""

    prediction: NDArray[np.bool_]
    maps: dict[str, NDArray[np.float64]]


def look(model: nn.Module, view: View, image: NDArray[np.uint8], runtime: Runtime) -> Seen | None:
    """The maps of what is predicted in a view; None where that is hardly anything."""
    picture = view.of(image)
    prediction = predict_mask(model, picture)
    if prediction.sum() < SMALLEST:
        return None
    question = ask_of_image(model, normalize(picture), torch.from_numpy(prediction)[None], grid_size=GRID)
    found = run_methods(question, Budget(SAMPLES, 8, runtime=runtime), METHODS)
    return Seen(prediction, {name: each.maps[0].double().numpy() for name, each in found.items()})


def rows_of(model: nn.Module, source: Source, runtime: Runtime) -> Iterator[dict[str, object]]:
    """A row per view and method: how alike its map is to that of the central window, and how alike the predictions are."""
    facts = {"dataset": source.dataset, "scene": source.scene, "tile": source.tile.name}
    image = source.tile.read()[0]
    if (itself := look(model, ITSELF, image, runtime)) is None:
        yield facts | {"status": "nothing predicted"}
        return
    ids = grid_feature_mask((SIZE, SIZE), GRID)
    near = nearness(distance_from(torch.from_numpy(itself.prediction)[None]))[0]
    for view in VIEWS:
        if (other := look(model, view, image, runtime)) is None:
            yield facts | {"view": view.name, "status": "nothing predicted"}
            continue
        both = np.isfinite(view.laid_back(other.maps["distance"]))
        cells = torch.where(torch.from_numpy(both), ids, -1)
        agreed = iou(itself.prediction & both, view.laid_back(other.prediction.astype(float)) == 1)
        for name in METHODS:
            a, b, given = (cell_means(torch.as_tensor(np.nan_to_num(heat)), cells)
                           for heat in (itself.maps[name], view.laid_back(other.maps[name]), near))
            yield facts | {"view": view.name, "status": "ok", "prediction_iou": agreed, "method": name,
                           "correlation": rank_correlation(a, b), "given_nearness": rank_given(a, b, given)}


def large(source: Source) -> bool:
    """Whether a tile holds all windows."""
    return bool(min(source.tile.read()[0].shape[:2]) >= SIZE + 2 * max(view.shift for view in VIEWS))


def one_of_each_scene() -> list[Source]:
    """The first tile of each scene of the study that holds all windows, the data sets in turn."""
    known = {(source.dataset, source.tile.name): source for source in find_sources(Path(os.environ["ENTROPY_CAPTUM_DATA"]))}
    study = pd.read_parquet(ROOT / "nbs" / "results" / "study_256.parquet").query("status == 'ok'")
    study = study.assign(whole=study["dataset"].map(whole_set)).drop_duplicates(["whole", "scene", "tile"])
    turns: dict[str, list[Source]] = {}
    for (whole, _), tiles in study.groupby(["whole", "scene"]):
        candidates = (known[key] for key in tiles[["dataset", "tile"]].itertuples(index=False, name=None))
        turns.setdefault(whole, []).extend(islice(filter(large, candidates), 1))
    return [source for turn in zip_longest(*turns.values()) for source in turn if source is not None]


def run(minutes: float, runtime: Runtime) -> None:
    """Make the rows of the tiles that are missing, for so long."""
    end = time.monotonic() + 60 * minutes
    done = set(pd.read_csv(RESULTS)["tile"]) if RESULTS.exists() else set()
    todo = [source for source in one_of_each_scene() if source.tile.name not in done]
    model = rooftop_unet()
    write_facts(RESULTS, {"size": SIZE, "n_samples": SAMPLES, "grid_size": GRID, "baseline": "grey", "seed": 0, "views":
                          {view.name: view._asdict() for view in VIEWS}, "methods": METHODS}, weights=weights_hash(model))
    for count, source in enumerate(todo):
        if time.monotonic() > end:
            print(f"{len(todo) - count} of {len(todo)} left; the same command goes on")
            return
        start = time.monotonic()
        columns = ["dataset", "scene", "tile", "view", "status", "prediction_iou", "method", "correlation", "given_nearness"]
        rows = pd.DataFrame(rows_of(model, source, runtime)).reindex(columns=columns).round(4)
        rows.to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False)
        print(f"{source.dataset}/{source.tile.name} {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so many")
    parser.add_argument("--runtime", choices=get_args(Runtime), default="torch", help="what makes the full forwards")
    torch.set_num_threads(1)
    run(**vars(parser.parse_args()))
