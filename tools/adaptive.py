"""Adaptive designs against uniform ones on recorded designs of real buildings: share of rows, realised error, coverage, bias.

First it records: every row of many designs of one building on each of some val tiles in $ENTROPY_CAPTUM_DATA (256 px), to
runs/adaptive/GRID; what is there already is kept. Then it replays: parts of the recorded nets stand for fresh designs, hundreds of
times, and `entropy_captum.adaptive` decides what is asked: medians over tiles to nbs/benchmarks/adaptive-shares.csv.
Usage: adaptive.py GRID [N] [TILES PER DATA SET] [REPLAYS]
At last it searches the recorded designs for the five strongest patches, in 0.4 of the rows of N = 32: adaptive-top.csv.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from benchmark_tables import replace_rows
from scipy.special import stdtrit
from torch import Tensor, nn

from entropy_captum import rooftop_unet
from entropy_captum.adaptive import AdaptiveHistory, Plan, goal_of, make_plan, weighed_mean
from entropy_captum.data import find_tiles, normalize
from entropy_captum.estimate import DEGREES, mean_change
from entropy_captum.question import Budget, Question
from entropy_captum.region import objects
from entropy_captum.run import Quantity, Run
from entropy_captum.sampling import Row

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("whu", "inria", "massachusetts", "jonkoping")
SIZE = 256
SHARES = {8: (0.4, 0.5, 0.6), 16: (0.3, 0.4, 0.5)}


def building_of(model: nn.Module, x: Tensor) -> np.ndarray | None:
    """The largest building of at least 200 pixels that does not fill the window and is not at its rim."""
    with torch.no_grad():
        ids = objects(model(x)[0, 0].numpy() > 0)
    for number in np.argsort(-np.bincount(ids.ravel())):
        rows, columns = np.nonzero(ids == number)
        off = max(abs(rows.mean() - SIZE / 2), abs(columns.mean() - SIZE / 2))
        if number and len(rows) >= 200 and max(np.ptp(rows), np.ptp(columns)) <= 90 and off < 90:
            return np.asarray(ids == number)
    return None


def questions(model: nn.Module, grid: int, each: int) -> Iterator[tuple[str, Question]]:
    """One building on each of so many tiles of each data set."""
    for dataset in DATASETS:
        found = 0
        for tile in find_tiles(Path(os.environ["ENTROPY_CAPTUM_DATA"]) / dataset / "val"):
            x = normalize(tile.read()[0])[..., :SIZE, :SIZE].contiguous()
            if found < each and x.shape[-1] == SIZE and (mask := building_of(model, x)) is not None:
                found += 1
                yield f"{dataset}_{tile.name}", Question(model, x, torch.from_numpy(mask)[None], grid_size=grid)


def record(grid: int, n_samples: int, each: int, folder: Path) -> None:
    """The changes (N,d) and the points (N,d,2) of every building."""
    for name, question in questions(rooftop_unet(), grid, each):
        path = folder / f"{name.replace('/', '_')}.npz"
        if not path.exists():
            run = Run(question, Budget(n_samples, 8, seed=100), [Quantity("recorded")])
            for _ in run.advance():
                pass
            history = run.tally.histories["pixel"]
            np.savez(path, delta=np.stack(history.delta)[:, 0][:, history.features], points=np.stack(history.points or []))
            print("recorded", path.name, flush=True)


class Recording(NamedTuple):
    """All designs of a building: changes (N,d), points (N,d,2)."""

    delta: np.ndarray
    points: np.ndarray

    def draw(self, rng: np.random.Generator, half: int, fresh: int) -> tuple[np.ndarray, np.ndarray]:
        """Two halves of a pilot and a run of fresh designs for every feature, each from another place of its recorded nets.

        Blocks of 8 whose numbers are combined with one number by exclusive or are nets again, at 8, 16, 32, ...
        """
        n, features = self.delta.shape
        chosen = np.empty((2 * half + fresh, features), np.int64)
        for feature in range(features):
            blocks = np.arange(fresh // 8) ^ rng.integers(n // 8)
            left = np.setdiff1d(np.arange(n // 8), blocks)
            parts = rng.choice(left, 2, replace=False) * 8 + rng.integers(8 // half, size=2) * half
            chosen[:, feature] = np.concatenate([(parts[:, None] + np.arange(half)).ravel(),
                                                 (blocks[:, None] * 8 + np.arange(8)).ravel()])
        return np.take_along_axis(self.delta, chosen, 0), np.take_along_axis(self.points, chosen[..., None], 0)


class Replay(NamedTuple):
    """Of one replay: errors and whether they were covered, of the adaptive run and of N = 32, and the rows that it took."""

    off: np.ndarray
    covered: np.ndarray
    early: np.ndarray
    uniform_off: np.ndarray
    uniform_covered: np.ndarray
    rows: int


def against(truth: np.ndarray, value: np.ndarray, n: np.ndarray | int, total: int) -> np.ndarray:
    """How far values of n designs are off the mean of all `total` recorded ones; what both have in common is put back."""
    return (value - truth) / np.sqrt(1 - np.minimum(n, total / 2) / total)


def covered(off: np.ndarray, error: np.ndarray, n: np.ndarray | int, kind: str) -> np.ndarray:
    """Whether 95 % intervals hold the truth."""
    return np.abs(off) <= stdtrit(DEGREES[kind](n), 0.975) * error


def replay(recording: Recording, budget: Budget, rng: np.random.Generator) -> Replay:
    features, truth = recording.delta.shape[1], recording.delta.mean(0)
    goal = goal_of(budget, budget.rows(features))
    size = 2 * goal.half
    delta, points = recording.draw(rng, goal.half, goal.most)
    plan = make_plan(delta[:size], goal)
    asked = np.where(np.arange(len(delta))[:, None] < size + plan.fresh, delta, np.nan)
    value, error = weighed_mean(asked, points, Plan(*plan), goal.half)
    plain, plain_error = (part[0] for part in mean_change(delta[size:size + 32, None], list(points[size:size + 32])))
    n, total = plan.fresh + size, len(recording.delta)
    off, plain_off = against(truth, value, n, total), against(truth, plain, 32, total)
    return Replay(off, covered(off, error, n, "adaptive"), plan.fresh == 0, plain_off,
                  covered(plain_off, plain_error, 32, "nearest neighbours"), goal.cost(plan.fresh) + size * (features + 1))


def measure(recording: Recording, budget: Budget, replays: int) -> dict[str, float]:
    """Against N = 32: rows, largest error, coverage (of features that stopped after the pilot, too), bias in errors."""
    rng, truth = np.random.default_rng(0), recording.delta.mean(0)
    off, inside, early, uniform, uniform_inside, rows = map(np.array, zip(*(replay(recording, budget, rng) for _ in range(replays)),
                                                                          strict=True))
    live = truth > 1e-3 * truth.max()
    bias = (off.mean(0) / np.sqrt((off**2).mean(0)))[live]
    return {"rows": rows.mean() / (32 * (len(truth) + 1)), "largest": np.abs(off).max(1).mean() / np.abs(uniform).max(1).mean(),
            "coverage": inside[:, live].mean(), "early": inside[early & live].mean(), "uniform": uniform_inside[:, live].mean(),
            "stopped": early.mean(), "bias": bias.mean(), "bias_rms": np.sqrt(max((bias**2).mean() - 1 / replays, 0.0))}


TOP = 5


def play(history: AdaptiveHistory, delta: np.ndarray) -> None:
    """Give the history of one region the changes (n,d) that it asks for, as a run would."""
    def add(numbers: range, asked: tuple[Row, ...]) -> None:
        for number in numbers:
            values = np.full((1, delta.shape[1] + 1), np.nan)
            for row in asked:
                values[0, history.column[row]] = delta[number, row.changed[0]] if row.changed else 0.0
            history.add(np.array([0]), values, values)

    history.numbers.extend(range(history.pilot))
    add(range(history.pilot), history.rows)
    for span in history.spans(np.array([0])):
        add(range(history.pilot + span.start, history.pilot + span.end), span.rows)


def search(recording: Recording, budget: Budget, rng: np.random.Generator) -> Replay:
    """As `replay`, of a search for the strongest; `early` are features that were asked in the pilot alone."""
    features, truth, n_all = recording.delta.shape[1], recording.delta.mean(0), len(recording.delta)
    rows = budget.rows(features)
    history = AdaptiveHistory(np.zeros(1, np.int64), rows, goal=goal_of(budget, rows))
    delta, points = recording.draw(rng, history.goal.half, history.goal.most)
    history.drawn = points
    play(history, delta)
    (value,), (error,) = history.changes()
    plain = delta[history.pilot:history.pilot + 32]
    n, off = history.counts()[0], against(truth, value, history.counts()[0], n_all)
    places = list(points[history.pilot:history.pilot + 32])
    plain_value, plain_error = (part[0] for part in mean_change(plain[:, None], places))
    plain_off = against(truth, plain_value, 32, n_all)
    return Replay(off, covered(off, error, n, "adaptive"), n == history.pilot, plain_off,
                  covered(plain_off, plain_error, 32, "nearest neighbours"), int(history.forwards(frozenset())[0]))


def right(truth: np.ndarray, off: np.ndarray) -> float:
    """The share of the strongest patches among those of values that are so far off, (n,d)."""
    true = set(np.argsort(-truth)[:TOP])
    return float(np.mean([len(true & set(np.argsort(-(truth + each))[:TOP])) / TOP for each in off]))


def measure_search(recording: Recording, replays: int) -> dict[str, float]:
    """A search in 0.4 of the rows of N = 32: rows, the share of right ones beside that of N = 32, coverage, bias in errors."""
    rng, truth = np.random.default_rng(0), recording.delta.mean(0)
    budget = Budget(32, top=TOP, max_rows=int(0.4 * 32 * (len(truth) + 1)))
    runs = (search(recording, budget, rng) for _ in range(replays))
    off, inside, early, uniform, _, rows = map(np.array, zip(*runs, strict=True))
    live = truth > 1e-3 * truth.max()
    bias = (off.mean(0) / np.sqrt((off**2).mean(0)))[live]
    return {"rows": rows.mean() / (32 * (len(truth) + 1)), "right": right(truth, off), "right_uniform": right(truth, uniform),
            "coverage": inside[:, live].mean(), "early": inside[early & live].mean(), "bias": bias.mean()}


def main() -> None:
    grid, n_samples, each, replays = (int(given) for given in (*sys.argv[1:], *("8", "512", "3", "400")[len(sys.argv) - 1:]))
    folder = ROOT / "runs" / "adaptive" / str(grid)
    folder.mkdir(parents=True, exist_ok=True)
    record(grid, n_samples, each, folder)
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            recording = Recording(stored["delta"].astype(np.float64), stored["points"])
        for share in SHARES.get(grid, (0.5,)):
            budget = Budget(32, max_rows=int(share * 32 * (grid**2 + 1)))
            found.append({"tile": path.stem, "share": share} | measure(recording, budget, replays))
        top = {"tile": f"{path.stem}, {grid}", "replays": replays} | measure_search(recording, replays)
        replace_rows("adaptive-top", pd.DataFrame([top]))
        print(pd.Series(top).to_string(), flush=True)
    table = pd.DataFrame(found)
    print(table.round(3).to_string(index=False))
    medians = table.drop(columns="tile").groupby("share").median().reset_index()
    medians.insert(0, "grid", grid)
    medians.insert(1, "tiles", table.tile.nunique())
    print(f"\nmedians\n{medians.round(3).to_string(index=False)}")
    replace_rows("adaptive-shares", medians)


if __name__ == "__main__":
    main()
