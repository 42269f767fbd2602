"""Rows and seconds until a method's map agrees with its own converged one: Captum, Xplique and ours, to nbs/benchmarks/peers.csv.

One building on a WHU tile of $ENTROPY_CAPTUM_DATA (a drawn scene without it), the bundled network, 8 x 8 patches, zeros for what is
hidden. `agreement`: the rank correlation over the patches with the map that the method would give after any number of rows. Two
independent runs of n rows correlate by c, then one with the converged map by the root of c (Spearman and Brown); three seeds, the
median. What draws nothing is compared with a run of four times the rows, of which it is a part: that is kind to it.
`reached`: whether a run agreed to 0.95; where none did, rows and seconds are those of the longest that was compared, a lower bound.
Rows are counted on remembered answers of a fast program; then each method runs on the network as it is, one row at a time, one
thread, in turns with ours: 256 rows or a little more stand for longer runs. `over_ours`: seconds over ours.
Xplique (`pip install xplique tensorflow-cpu`, no part of the development extra) is left out where it is not there.
Usage: peers.py [SIZE [METHOD]]; "quick" in the place of SIZE is a drawn scene of 128 pixels. That, and one METHOD, is kept nowhere.
"""
from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from benchmark_tables import replace_rows
from captum.attr import FeatureAblation, KernelShap, ShapleyValueSampling
from rivals import black_box
from torch import Tensor, nn

from entropy_captum import EntropyCentric, RegionScore, rooftop_unet
from entropy_captum.data import find_tiles, normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.faster import SESSIONS, is_installed, make_program
from entropy_captum.methods import Counter
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.region import objects
from entropy_captum.tiles import rank_correlation

GRID, AGREES, SEEDS = 8, 0.95, 3


class Case(NamedTuple):
    """A network, an image (1,C,H,W) and the building (H,W) on it."""

    name: str
    model: nn.Module
    x: Tensor
    region: Tensor

    @property
    def mask(self) -> Tensor:
        """The patch of each pixel, (1,1,H,W)."""
        height, width = self.x.shape[-2:]
        return grid_feature_mask((height, width), GRID)

    def by_patch(self, attribution: Tensor) -> np.ndarray:
        """The number of each patch, (d,), of a map (1,C,H,W)."""
        numbers = torch.zeros(GRID**2, dtype=attribution.dtype)
        return numbers.scatter(0, self.mask.flatten(), attribution[0, 0].flatten()).numpy()


def case_of(size: int, drawn: bool) -> Case:
    """The largest building of 100 pixels or more, a third of the side at most, in the middle of the first WHU tile that has one."""
    model, data = rooftop_unet(), os.environ.get("ENTROPY_CAPTUM_DATA")
    real = () if drawn or data is None else find_tiles(Path(data) / "whu" / "val")
    for name, image in [*((f"whu_{tile.name}", tile.read()[0]) for tile in real), ("drawn", procedural_scene(2, size).image)]:
        x = normalize(image)[..., :size, :size].contiguous()
        with torch.no_grad():
            ids = objects(model(x)[0, 0].numpy() > 0)
        for number in np.argsort(-np.bincount(ids.ravel())):
            at = np.argwhere(ids == number)
            if number and len(at) >= 100 and np.ptp(at, axis=0).max() <= size / 3 and np.abs(at.mean(0) / size - 0.5).max() < 0.25:
                return Case(f"{name}, {size}", model, x, torch.from_numpy(ids == number).float())
    raise ValueError(f"no scene has a building that fits {size} pixels")


class Remembered(nn.Module):
    """A score per row (B,) that is computed once for each row; `asked`: rows that were asked for."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score, self.asked, self.known = score, 0, dict[bytes, float]()

    def forward(self, x: Tensor) -> Tensor:
        keys = [blake2b(row.numpy().tobytes()).digest() for row in x]
        new = [k for k, key in enumerate(keys) if key not in self.known]
        if new:
            self.known |= zip([keys[k] for k in new], self.score(x[new]).tolist(), strict=True)
        self.asked += len(x)
        return torch.tensor([self.known[key] for key in keys])


class Program(nn.Module):
    """Another program in the place of a network."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


#: From how many rows on a run's seconds a row are those of longer ones.
TIMED = 256
#: A method: the map (d,) of a score, of a length, by a seed, so many rows at a time.
Run = Callable[[nn.Module, Case, int, int, int], np.ndarray]


class Method(NamedTuple):
    """How a method is run, and how long. `draws`: whether a seed changes anything."""

    run: Run
    lengths: Sequence[int]
    draws: bool = True


def ablation(score: nn.Module, case: Case, length: int, seed: int, batch: int) -> np.ndarray:
    return case.by_patch(FeatureAblation(score).attribute(case.x, feature_mask=case.mask, perturbations_per_eval=batch))


def shapley(score: nn.Module, case: Case, length: int, seed: int, batch: int) -> np.ndarray:
    torch.manual_seed(seed)
    return case.by_patch(ShapleyValueSampling(score).attribute(case.x, feature_mask=case.mask, n_samples=length,
                                                               perturbations_per_eval=batch))


def kernel_shap(score: nn.Module, case: Case, length: int, seed: int, batch: int) -> np.ndarray:
    torch.manual_seed(seed)
    return case.by_patch(KernelShap(score).attribute(case.x, feature_mask=case.mask, n_samples=length,
                                                     perturbations_per_eval=batch))


def xplique(name: str) -> Run:
    """A method of Xplique on a torch network, with what it is set to but the grid and the number of designs."""
    def run(score: nn.Module, case: Case, length: int, seed: int, batch: int) -> np.ndarray:
        found = black_box(name, score, case.x, grid_size=GRID, nb_design=length, batch_size=batch)[0]
        # Resized smoothly from one number a patch: read at the patches' middles.
        middles = (np.arange(GRID) + 0.5) * case.x.shape[-1] / GRID
        return found[np.ix_(middles.astype(int), middles.astype(int))].ravel()
    return run


def methods() -> dict[str, Method]:
    """The peers."""
    found = {"Captum FeatureAblation": Method(ablation, [1], draws=False),
             "Captum ShapleyValueSampling": Method(shapley, [2, 4, 8]),
             "Captum KernelShap": Method(kernel_shap, [128, 256, 512])}
    if find_spec("xplique"):
        found["Xplique Sobol"] = Method(xplique("SobolAttributionMethod"), [1, 4, 16], draws=False)
        found["Xplique HSIC"] = Method(xplique("HsicAttributionMethod"), [64, 256, 1024], draws=False)
    return found


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps (d,); 0 where one is flat."""
    return float(np.nan_to_num(rank_correlation(one, other)))


class Found(NamedTuple):
    """How long a method must run, the rows of that, the agreement, and a length to be timed."""

    length: int
    rows: int
    agreement: float
    timed: int


def agreements(maps: dict[int, np.ndarray]) -> dict[int, float]:
    """By length, how far maps (seeds,d) agree with the converged one; see the module."""
    if len(maps) == 1:
        return dict.fromkeys(maps, 1.0)
    if len(maps[max(maps)]) > 1:
        pairs = {n: float(np.median([correlation(*pair) for pair in combinations(own, 2)])) for n, own in maps.items()}
        return {n: max(c, 0.0) ** 0.5 for n, c in pairs.items()}
    return {n: correlation(own[0], maps[4 * n][0]) for n, own in maps.items() if 4 * n in maps}


def found_of(maps: dict[int, np.ndarray], rows: dict[int, int]) -> Found:
    """What maps (seeds,d) by their length say."""
    agreement = agreements(maps)
    print("   ", {n: round(value, 3) for n, value in agreement.items()}, flush=True)
    enough = [n for n in agreement if all(agreement[k] >= AGREES for k in agreement if k >= n)]
    n = min(enough, default=max(agreement))
    return Found(n, rows[n], agreement[n], min((k for k in rows if TIMED <= rows[k] <= rows[n]), default=n))


def fast(case: Case) -> Program:
    """The network by the fastest program at hand."""
    name = next((name for name in reversed(SESSIONS) if is_installed(name)), "torch")
    return Program(make_program(name, case.model, case.x))


def rows_of(method: Method, score: Remembered, case: Case) -> Found:
    """How long a method must run."""
    maps, rows = dict[int, np.ndarray](), dict[int, int]()
    for n in method.lengths:
        before = score.asked
        maps[n] = np.stack([method.run(score, case, n, seed, 8) for seed in range(SEEDS if method.draws else 1)])
        rows[n] = (score.asked - before) // len(maps[n])
    return found_of(maps, rows)


def ours(case: Case, program: Program, longest: int = 16) -> Found:
    """How many designs for every patch our score must run."""
    method, rows = EntropyCentric(program, inference="full"), {n: n * (GRID**2 + 1) for n in range(2, longest + 1)}
    call = {"region": case.region, "grid_size": GRID, "n_samples": longest, "perturbations_per_eval": 8}
    runs = [[estimate.scores[0].numpy() for estimate in method.stream(case.x, seed=seed, **call)] for seed in range(SEEDS)]
    return found_of({n: np.stack([run[n - 1] for run in runs]) for n in rows}, rows)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(case: Case, only: str = "") -> pd.DataFrame:
    """A row of the table for each method; ours first."""
    program, method, table = fast(case), EntropyCentric(case.model), list[dict[str, object]]()
    score, plain = Remembered(RegionScore(program, case.region)), RegionScore(case.model, case.region)
    print("ours", flush=True)
    goal = ours(case, program)

    def own() -> float:
        return seconds(lambda: method.attribute(case.x, region=case.region, grid_size=GRID, n_samples=goal.length))

    def add(name: str, found: Found, took: float, beside: float) -> None:
        table.append({"method": name, "setting": found.length, "rows": found.rows, "agreement": found.agreement,
                      "reached": found.agreement >= AGREES, "seconds": took, "over_ours": took / beside})
        print("   ", table[-1], flush=True)

    own()  # captures the network
    before = own()
    add("ours", goal, before, before)
    for name, peer in methods().items():
        if only in name:
            print(name, flush=True)
            found = rows_of(peer, score, case)
            with torch.no_grad(), Counter(case.model) as counter:
                took = seconds(lambda peer=peer, found=found: peer.run(plain, case, found.timed, 0, 1))
            before, earlier = own(), before
            add(name, found, took * found.rows / counter.rows, (before + earlier) / 2)
    versions = {"Captum": version("captum"), **({"Xplique": version("xplique")} if find_spec("xplique") else {})}
    measured = pd.DataFrame(table)
    measured.insert(0, "case", case.name)
    measured.insert(2, "version", [versions.get(str(entry["method"]).split()[0], "") for entry in table])
    return measured


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    torch.set_num_threads(1)
    size, *only = sys.argv[1:] or ["128"]
    quick = size == "quick"
    found = measure(case_of(128 if quick else int(size), quick), *only)
    print(found.round(3).to_string(index=False))
    if not quick and not only:
        replace_rows("peers", found)


if __name__ == "__main__":
    main()
