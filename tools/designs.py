"""Designs against each other on real buildings: realised error and coverage by grid, N and sampler, to nbs/benchmarks/designs.csv.

Buildings are windows of 64 pixels of the val tiles in $ENTROPY_CAPTUM_DATA; the truth is a long run of Latin hypercube designs.
A run that is stopped goes on where it was (runs/designs.csv); grids can be named, `python tools/designs.py 16 11`.
"""
from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from benchmark_tables import replace_rows
from torch import Tensor, nn

from entropy_captum import EntropyCentric, Estimate, rooftop_unet
from entropy_captum.data import find_tiles, normalize
from entropy_captum.names import Runtime
from entropy_captum.region import objects
from entropy_captum.tiles import rank_correlation

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT / "runs" / "designs.csv"
DATASETS = ("whu", "inria", "massachusetts", "jonkoping")
SAMPLERS = ("supercube", "sobol", "latin", "monte_carlo")
NUMBERS = (8, 16, 32, 64)
SIDE = 64


class Plan(NamedTuple):
    """What is run on a grid: seeds of each sampler, designs of the truth, and buildings of each data set."""

    seeds: int
    truth: int
    buildings: int


PLANS = {4: Plan(4, 512, 3), 8: Plan(2, 256, 3), 11: Plan(1, 128, 3), 16: Plan(1, 128, 3)}


class Building(NamedTuple):
    """A window (1,3,S,S) with the building in its middle, bool (1,S,S)."""

    name: str
    inputs: Tensor
    region: Tensor


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> np.ndarray:
    return objects(model(x)[0, 0].numpy() > 0)


def building_in(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The largest building of a tile that fits into a window, seen in the window alone."""
    ids = predicted(model, x)
    for number in np.argsort(-np.bincount(ids.ravel())):
        mask = ids == number
        rows, columns = np.nonzero(mask)
        top, left = int(rows.mean()) - SIDE // 2, int(columns.mean()) - SIDE // 2
        if not number or max(np.ptp(rows), np.ptp(columns)) > 50 or min(top, left) < 0:
            continue
        window = x[..., top:top + SIDE, left:left + SIDE].contiguous()
        if mask.sum() < 150 or window.shape[-2:] != (SIDE, SIDE):
            continue
        own = predicted(model, window)
        sizes = np.bincount(own[mask[top:top + SIDE, left:left + SIDE]], minlength=2)
        sizes[0] = 0
        if sizes.max() >= 150:
            return window, torch.from_numpy(own == sizes.argmax())[None]
    return None


def buildings(model: nn.Module, data: Path, each: int) -> Iterator[Building]:
    for dataset in DATASETS:
        found = 0
        for tile in find_tiles(data / dataset / "val"):
            x = normalize(tile.read()[0])
            x = x[..., :x.shape[2] // 32 * 32, :x.shape[3] // 32 * 32]
            if (chosen := building_in(model, x)) is not None:
                yield Building(f"{dataset}/{tile.name}", *chosen)
                found += 1
            if found == each:
                break


def compare(estimate: Estimate, truth: Estimate, building: str, grid: int, seed: int) -> dict[str, object]:
    """One estimate against the truth, whose own error is taken off the squared error and added to the margin."""
    off, size = estimate.scores[0] - truth.scores[0], truth.scores[0].square().sum()
    live = truth.scores[0] > 1e-3 * truth.scores[0].max()
    margin = (estimate.margin()[0].square() + truth.margin()[0].square()).sqrt()
    return {"building": building, "grid": grid, "n": int(estimate.n_samples.max()), "sampler": estimate.settings["sampler"],
            "seed": seed, "squared_error": float((off.square().sum() - truth.standard_error[0].square().sum()) / size),
            "worst": float(off.abs().max() / truth.scores[0].max()), "coverage": float((off.abs() <= margin)[live].double().mean()),
            "rank": rank_correlation(estimate.scores[0].numpy(), truth.scores[0].numpy())}


def rows_of(model: nn.Module, building: Building, grid: int, plan: Plan, runtime: Runtime) -> Iterator[dict[str, object]]:
    options = {"region": building.region, "grid_size": grid, "perturbations_per_eval": 64}
    truth = EntropyCentric(model, sampler="latin", inference="full", runtime=runtime).estimate(
        building.inputs, n_samples=plan.truth, seed=10_000, **options)
    for sampler in SAMPLERS:
        method = EntropyCentric(model, sampler=sampler, inference="full", runtime=runtime)
        for seed in range(plan.seeds):
            for estimate in method.stream(building.inputs, n_samples=max(NUMBERS), seed=seed, **options):
                if int(estimate.n_samples.max()) in NUMBERS:
                    yield compare(estimate, truth, building.name, grid, seed)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Relative root mean square error, worst patch, coverage of 95 % intervals, rank correlation; buildings weigh alike."""
    grouped = rows.astype({"grid": int, "n": int}).groupby(["grid", "n", "sampler"])
    table = grouped[["squared_error", "worst", "coverage", "rank"]].mean()
    table.insert(0, "relative_error", table.pop("squared_error").clip(lower=0)**0.5)
    table.insert(0, "buildings", grouped["building"].nunique())
    return table.round(3).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*", type=int, default=list(PLANS), metavar="grid", help=f"of {', '.join(map(str, PLANS))}")
    parser.add_argument("--runtime", choices=get_args(Runtime), default="torch", help="what makes the forwards")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = Path(os.environ["ENTROPY_CAPTUM_DATA"])
    model = rooftop_unet().to(memory_format=torch.channels_last)
    RAW.parent.mkdir(exist_ok=True)
    for grid in given.grids:
        plan = PLANS[grid]
        for building in buildings(model, data, plan.buildings):
            done = pd.read_csv(RAW) if RAW.exists() else pd.DataFrame({"grid": [], "building": []})
            if ((done["grid"] == grid) & (done["building"] == building.name)).any():
                continue
            rows = pd.DataFrame(rows_of(model, building, grid, plan, given.runtime))
            pd.concat([done, rows]).to_csv(RAW, index=False)
            replace_rows("designs", summary(pd.read_csv(RAW)).query("grid == @grid"))
            print(time.strftime("%H:%M:%S"), grid, building.name, flush=True)
    print(summary(pd.read_csv(RAW)).to_string(index=False))


if __name__ == "__main__":
    main()
