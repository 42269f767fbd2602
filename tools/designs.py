"""Designs against each other on real buildings: realised error and coverage by grid, N and sampler, to nbs/benchmarks/designs.csv.

Buildings are windows of 64 pixels of the val tiles in $ENTROPY_CAPTUM_DATA; the truth is the mean of independent Latin hypercubes.
Every estimate is kept in runs/designs: a run that is stopped goes on where it was, and a longer `--truth` adds to a shorter one.
The rows of each building go to nbs/benchmarks/rows/designs.csv at once and are not made again, on another machine either; the
table of a grid is renewed when all of its buildings are there. With `--precision bfloat16` the network computes in that precision,
through OpenVINO: another function, a little rough, but the same one for every design and for the truth, and four times as fast
where the processor multiplies such numbers itself. With `--tried`: designs that were looked at beside the default, and are not in
the package, to nbs/benchmarks/designs-tried.csv.
"""
from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from unittest.mock import patch

import numpy as np
import openvino
import pandas as pd
import torch
from benchmark_tables import FOLDER, renew, replace_rows
from openvino import properties
from scipy.stats import qmc
from torch import Tensor, nn

from entropy_captum import EntropyCentric, Estimate, rooftop_unet, sampling
from entropy_captum.data import find_tiles, normalize
from entropy_captum.names import Runtime
from entropy_captum.region import objects
from entropy_captum.sampling import NET, PickFreeze
from entropy_captum.tiles import rank_correlation

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "runs" / "designs"
BY_BUILDING = FOLDER / "rows" / "designs.csv"
SAMPLERS = ("supercube", "sobol", "latin", "monte_carlo")
NUMBERS = (8, 16, 32, 64)
SIDE = 64
#: Designs of one Latin hypercube of the truth: each is a run that can be kept.
PART = 128
#: Rows of one forward.
ROWS = 64
#: Seeds of each sampler by grid, and buildings of each data set (two of WHU's are small enough).
SEEDS = {4: 4, 8: 2, 11: 1, 16: 1}
BUILDINGS = {"whu": 2, "inria": 4, "massachusetts": 3, "jonkoping": 3}
Precision = Literal["float32", "bfloat16"]
#: What names the rows of a building.
KEY = ["building", "grid", "precision"]


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


def buildings(model: nn.Module, data: Path) -> Iterator[Building]:
    for dataset, wanted in BUILDINGS.items():
        found = 0
        for tile in find_tiles(data / dataset / "val"):
            x = normalize(tile.read()[0])
            x = x[..., :x.shape[2] // 32 * 32, :x.shape[3] // 32 * 32]
            if (chosen := building_in(model, x)) is not None:
                yield Building(f"{dataset}/{tile.name}", *chosen)
                found += 1
            if found == wanted:
                break


def in_bfloat16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network that computes in bfloat16. Every forward has as many rows: a row's rounding does not depend on its company."""
    size = (ROWS, 3, SIDE, SIDE)
    program = openvino.Core().compile_model(
        openvino.convert_model(model, example_input=torch.zeros(size), input=[size]), "CPU",
        {properties.inference_num_threads: 1, properties.hint.inference_precision: openvino.Type.bf16})

    def forward(x: Tensor) -> Tensor:
        full = torch.zeros(size)
        full[:len(x)] = x
        return torch.from_numpy(program(full.numpy())[0])[:len(x)].clone()
    return forward


class Truth(NamedTuple):
    """The mean of independent runs, each [F], with its standard error and the half-width of its 95 % interval."""

    scores: Tensor
    standard_error: Tensor
    margin: Tensor
    n_samples: int

    @classmethod
    def mean_of(cls, parts: Sequence[Estimate]) -> Truth:
        def together(errors: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(errors)).square().sum(0).sqrt() / len(parts)
        return cls(torch.stack([p.scores[0] for p in parts]).mean(0), together([p.standard_error[0] for p in parts]),
                   together([p.margin()[0] for p in parts]), sum(int(p.n_samples.max()) for p in parts))


def compare(estimate: Estimate, truth: Truth, building: str, grid: int, seed: int) -> dict[str, object]:
    """One estimate against the truth, whose own error is taken off the squared error and added to the margin."""
    off, size = estimate.scores[0] - truth.scores, truth.scores.square().sum()
    live = truth.scores > 1e-3 * truth.scores.max()
    margin = (estimate.margin()[0].square() + truth.margin.square()).sqrt()
    return {"building": building, "grid": grid, "n": int(estimate.n_samples.max()), "sampler": estimate.settings["sampler"],
            "seed": seed, "truth": truth.n_samples,
            "squared_error": float((off.square().sum() - truth.standard_error.square().sum()) / size),
            "worst": float(off.abs().max() / truth.scores.max()), "coverage": float((off.abs() <= margin)[live].double().mean()),
            "rank": rank_correlation(estimate.scores[0].numpy(), truth.scores.numpy())}


def kept(folder: Path, method: EntropyCentric, building: Building, grid: int, numbers: Sequence[int], seed: int) -> list[Estimate]:
    """The estimates after so many designs of one run: read where they are kept, else made and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{method.sampler}_{seed}_{n}.npz" for n in numbers]
    if not all(p.exists() for p in paths):
        wanted = dict(zip(numbers, paths, strict=True))
        for estimate in method.stream(building.inputs, n_samples=max(numbers), seed=seed, region=building.region, grid_size=grid,
                                      perturbations_per_eval=ROWS):
            if (n := int(estimate.n_samples.max())) in wanted:
                estimate.save(wanted[n])
    return [Estimate.load(p) for p in paths]


def neighbours(n_samples: int, n_features: int, seed: int = 0, net: int = NET) -> Iterator[PickFreeze]:
    """As `sampling.supercube`, but two patches side by side share a four-dimensional net, and the order of its points."""
    rng, side = np.random.default_rng(seed), round(n_features ** 0.5)
    starts = [row * side + column for row in range(side) for column in range(0, side, 2)]
    pairs = [[k] if k % side == side - 1 else [k, k + 1] for k in starts]
    nets = [qmc.Sobol(2 * len(pair), rng=rng) for pair in pairs]
    for start in range(0, n_samples, net):
        points = np.empty((net, n_features, 2))
        for pair, own in zip(pairs, nets, strict=True):
            points[:, pair] = own.random(net)[rng.permutation(net)].reshape(net, len(pair), 2)
        yield from (PickFreeze(*row.T.copy()) for row in points[:n_samples - start])


def antithetic(n_samples: int, n_features: int, seed: int = 0, net: int = NET) -> Iterator[PickFreeze]:
    """As `sampling.supercube` with half as many designs, each followed by its mirror image: 1 - a, 1 - b."""
    for design in SUPERCUBE(-(-n_samples // 2), n_features, seed, net):
        yield from (design, PickFreeze(1 - design.a, 1 - design.b))


SUPERCUBE = sampling.supercube
#: What was looked at beside the default, by the name of its rows.
TRIED = {"supercube": SUPERCUBE, "neighbours": neighbours, "antithetic": antithetic}


def truth_of(latin: EntropyCentric, building: Building, grid: int, designs: int, folder: Path) -> Truth:
    """The mean of Latin hypercubes, of seeds that are not compared."""
    return Truth.mean_of([kept(folder, latin, building, grid, [PART], 10_000 + part)[0] for part in range(designs // PART)])


def tried_on(methods: dict[str, EntropyCentric], building: Building, grid: int, designs: int, folder: Path) -> pd.DataFrame:
    """The rows of what was tried on a building, and of the default with the same seeds."""
    truth, rows = truth_of(methods["latin"], building, grid, designs, folder), []
    for name, supercube in TRIED.items():
        own = folder if supercube is SUPERCUBE else folder / name
        with patch.object(sampling, "supercube", supercube):
            rows += [compare(estimate, truth, building.name, grid, seed) | {"sampler": name} for seed in range(SEEDS[grid])
                     for estimate in kept(own, methods["supercube"], building, grid, NUMBERS, seed)]
    return pd.DataFrame(rows)


def rows_of(methods: dict[str, EntropyCentric], building: Building, grid: int, designs: int,
            folder: Path) -> Iterator[dict[str, object]]:
    truth = truth_of(methods["latin"], building, grid, designs, folder)
    for method in methods.values():
        for seed in range(SEEDS[grid]):
            for estimate in kept(folder, method, building, grid, NUMBERS, seed):
                yield compare(estimate, truth, building.name, grid, seed)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one building, grid, precision, N and sampler: the mean over the seeds."""
    numbers = ["squared_error", "worst", "coverage", "rank"]
    return rows.groupby([*KEY, "truth", "n", "sampler"])[numbers].mean().round(6).reset_index()


def known(grid: int, designs: int) -> pd.DataFrame:
    """The rows of the buildings that were compared with a truth of as many designs."""
    rows = pd.read_csv(BY_BUILDING) if BY_BUILDING.exists() else pd.DataFrame(columns=[*KEY, "truth"])
    return rows[(rows["grid"] == grid) & (rows["truth"] >= designs)]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Relative root mean square error, worst patch, coverage of 95 % intervals, rank correlation; buildings weigh alike."""
    grouped = rows.groupby(["grid", "precision", "n", "sampler"])
    table = grouped[["squared_error", "worst", "coverage", "rank"]].mean()
    table.insert(0, "relative_error", table.pop("squared_error").clip(lower=0)**0.5)
    table.insert(0, "truth", grouped["truth"].min())
    table.insert(0, "buildings", grouped["building"].nunique())
    return table.round(3).reset_index()


def compare_samplers(methods: dict[str, EntropyCentric], chosen: Sequence[Building], grid: int, truth: int,
                     precision: Precision) -> None:
    """The rows of the buildings that are missing, then the table of a grid."""
    for building in chosen:
        done = known(grid, truth)
        if building.name not in set(done.loc[done["precision"] == precision, "building"]):
            folder = KEPT / precision / str(grid) / building.name
            rows = pd.DataFrame(rows_of(methods, building, grid, truth, folder)).assign(precision=precision)
            renew(BY_BUILDING, means(rows), KEY)
            print(time.strftime("%H:%M:%S"), grid, building.name, flush=True)
    table = summary(known(grid, truth))
    replace_rows("designs", table)
    print(table.to_string(index=False))


def compare_tried(methods: dict[str, EntropyCentric], chosen: Sequence[Building], grid: int, truth: int,
                  precision: Precision) -> None:
    """The table of what was tried at a grid."""
    rows = []
    for building in chosen:
        rows.append(tried_on(methods, building, grid, truth, KEPT / precision / str(grid) / building.name))
        print(time.strftime("%H:%M:%S"), grid, building.name, flush=True)
    table = summary(means(pd.concat(rows).assign(precision=precision)))
    replace_rows("designs-tried", table)
    print(table.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*", type=int, default=list(SEEDS), metavar="grid", help=f"of {', '.join(map(str, SEEDS))}")
    parser.add_argument("--truth", type=int, default=1024, metavar="N", help=f"designs of the truth, a multiple of {PART}")
    parser.add_argument("--runtime", choices=get_args(Runtime), default="torch", help="what makes the forwards")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="what the network computes in")
    parser.add_argument("--tried", action="store_true", help="what is not in the package, beside the default")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = rooftop_unet().to(memory_format=torch.channels_last)
    chosen = list(buildings(model, Path(os.environ["ENTROPY_CAPTUM_DATA"])))
    forward = model if given.precision == "float32" else in_bfloat16(model)
    runtime = given.runtime if given.precision == "float32" else "torch"
    methods = {name: EntropyCentric(forward, sampler=name, inference="full", runtime=runtime) for name in SAMPLERS}
    for grid in given.grids:
        (compare_tried if given.tried else compare_samplers)(methods, chosen, grid, given.truth, given.precision)


if __name__ == "__main__":
    main()
