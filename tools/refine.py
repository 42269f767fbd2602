"""Does a refined map find the strongest places of the full fine grid, at what share of its rows? To nbs/benchmarks/refine.csv.

Planted: ten of 64 x 64 cells matter, by themselves (sum), as neighbours that pull in opposite ways (opposed), or two together
(pairs); all others a little. `recall`: the share of the ten that are the refined map's ten strongest finest patches.
Scene: a roof of a drawn scene and the bundled network; the ten strongest cells of the full grid by the same designs are the truth.
`difference`: the largest between a finest patch's score and the full grid's, NaN where the full grid was not run.
Coverage, to nbs/benchmarks/refine-coverage.csv: the share of 95 % intervals of refined maps that hold the true score, of drawn
functions of 16 x 16 cells, a search and its scores for each seed. `finest`, `larger`: of patches of one cell, and of several.
Usage: refine.py [planted | scene | coverage ...], by default all.
"""
from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from benchmark_tables import replace_rows
from torch import Tensor, nn

from entropy_captum import Estimate, rooftop_unet
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import largest_object
from entropy_captum.question import Budget, Question
from entropy_captum.refine import Search, refined, scored
from entropy_captum.run import Quantity, answer
from entropy_captum.zoo import predict_mask

GRID, TEN, ENTROPY = 64, 10, Quantity("entropy")
#: How the planted cells act.
Acting = Literal["sum", "opposed", "pairs"]


class Scattered(nn.Module):
    """Logits (B,1,H,W) that hang on ten cells of a grid, on all others a little, and on each pixel itself; `planted`: the ten."""

    def __init__(self, acting: Acting, seed: int, cell: int = 8) -> None:
        super().__init__()
        rng, self.acting, self.cell = np.random.default_rng(seed), acting, cell
        self.inside = np.zeros((GRID, GRID), bool)
        self.inside[GRID // 2 - 2:GRID // 2 + 2, GRID // 2 - 2:GRID // 2 + 2] = True
        if acting == "opposed":
            left = rng.choice(GRID**2 // 2, TEN // 2, replace=False) * 2
            self.planted = np.concatenate([left, left + 1])
        else:
            self.planted = rng.choice(np.flatnonzero(~self.inside), TEN, replace=False)
        half = np.linspace(1, 0.6, TEN // 2)
        strength = {"sum": np.linspace(1, 0.5, TEN), "opposed": np.concatenate([half, -half]), "pairs": np.tile(half, 2)}[acting]
        self.strength = nn.Buffer(torch.from_numpy(strength).float())
        self.others = nn.Buffer(torch.from_numpy(0.05 * rng.standard_normal(GRID**2)).float())

    def forward(self, x: Tensor) -> Tensor:
        """Logits of inputs (B,3,H,W)."""
        cells = F.avg_pool2d(x.mean(1, keepdim=True), self.cell)
        bright = cells.flatten(1)
        own, half = bright[:, self.planted], TEN // 2
        if self.acting == "pairs":
            evidence = (own[:, :half] * own[:, half:]) @ self.strength[:half] - 0.8
        else:
            evidence = own @ self.strength - 0.45 * self.strength.sum()
        local = F.interpolate(cells.tanh(), x.shape[-2:], mode="nearest")
        return (4 * evidence + bright @ self.others - 0.2)[:, None, None, None] + 0.3 * local

    def question(self, seed: int) -> Question:
        """A bright noisy image, and the object in its middle."""
        side, rng = GRID * self.cell, np.random.default_rng(seed)
        x = torch.from_numpy(0.9 + 0.1 * rng.standard_normal((1, 3, side, side))).float()
        region = torch.from_numpy(np.kron(self.inside, np.ones((self.cell, self.cell))))[None].float()
        return Question(self, x, region, grid_size="adaptive", finest=self.cell)


def finest(search: Search, estimate: Estimate) -> dict[int, float]:
    """The scores of the pieces that are one finest cell, by the cell."""
    columns = search.cells.held.shape[1]
    return {piece[0].row * columns + piece[0].column: score for piece, score in
            zip(search.pieces(), estimate.scores[0].tolist(), strict=True) if len(piece) == 1 and piece[0].level == 0}


def compared(question: Question, budget: Budget, truth: set[int], full: Estimate | None = None) -> dict[str, object]:
    """What a search and its scores found of the true cells, and what it took."""
    search = refined(question, budget, ENTROPY)
    (estimate,) = scored(search, [ENTROPY])
    found, cells = finest(search, estimate), search.cells.held.size
    strongest = set(sorted(found, key=lambda cell: -found[cell])[:TEN])
    off = [abs(score - float(full.scores[0, cell])) for cell, score in found.items()] if full is not None else []
    return {"n": budget.n_samples, "recall": len(strongest & truth) / TEN, "share": int(estimate.n_forwards) / budget.n_samples
            / (cells + 1), "patches": len(estimate.scores[0]), "rounds": search.number, "difference": max(off, default=np.nan)}


class Drawn:
    """Log-odds of six pixels that are linear in the cells, of which most matter little; scores (B,1,H,W) of images (B,1,H,W)."""

    def __init__(self, seed: int, side: int = 16, designs: int = 4_000) -> None:
        rng, self.side = np.random.default_rng(seed), side
        strength = 4 * np.exp(-rng.permutation(side**2) / 15) + 0.02
        self.weights = strength * rng.normal(0.8, 0.6, (6, side**2))
        self.start = rng.normal(2, 1, 6) - self.weights.sum(1) / 2
        self.a, self.b = rng.random((2, designs, side**2))
        self.region = torch.zeros(1, side, side)
        self.region[0, 0, :6] = 1

    def __call__(self, x: Tensor) -> Tensor:
        outputs = torch.zeros(len(x), 1, self.side, self.side)
        outputs[:, 0, 0, :6] = x.flatten(1) @ torch.from_numpy(self.weights.T).float() + torch.from_numpy(self.start).float()
        return outputs

    @staticmethod
    def entropy(logits: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-logits))
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

    def truth(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The true scores and what they may be off by, each (d,), of pieces that cells belong to, (cells,)."""
        members, change = np.eye(index.max() + 1)[index], 0.0
        for weights, start in zip(self.weights, self.start, strict=True):
            logits = (self.a @ weights + start)[:, None]
            moved = logits + ((self.b - self.a) * weights) @ members
            change = change + np.abs(self.entropy(moved) - self.entropy(logits)) / len(self.weights)
        return np.mean(change, 0), np.std(change, 0) / np.sqrt(len(self.a))


def intervals(drawn: Drawn, n: int, seed: int) -> pd.DataFrame:
    """Of one refined map, by patch: its cells, how far the score is off, its error, and whether its interval holds the truth."""
    x = torch.ones(1, 1, drawn.side, drawn.side)
    search = refined(Question(drawn, x, drawn.region, grid_size="adaptive", finest=1), Budget(n, 256, seed), ENTROPY)
    (estimate,) = scored(search, [ENTROPY])
    index = estimate.index[0].flatten().numpy()
    truth, own = drawn.truth(index)
    off, error, margin = (v[0].double().numpy() for v in (estimate.scores, estimate.standard_error, estimate.margin()))
    off = off - truth
    found = pd.DataFrame({"cells": np.bincount(index), "squared_off": off**2 - own**2, "squared_error": error**2,
                          "held": np.abs(off) <= np.hypot(margin, 1.96 * own)})
    return found[truth > 1e-3 * truth.max()]


def coverage_rows(functions: int = 4, seeds: int = 50, numbers: Sequence[int] = (8, 32)) -> Iterator[dict[str, object]]:
    """By N, over drawn functions and seeds."""
    for n in numbers:
        found = pd.concat([intervals(drawn, n, seed) for drawn in map(Drawn, range(functions)) for seed in range(seeds)])
        one = found.cells == 1
        ratio = np.sqrt(found.squared_error.mean() / found.squared_off.mean())
        yield {"n": n, "maps": functions * seeds, "intervals": len(found), "held": found.held.mean(),
               "finest": found.held[one].mean(), "larger": found.held[~one].mean(), "error_ratio": ratio}


def planted_rows() -> Iterator[dict[str, object]]:
    """Cells of one pixel, as only their mean counts; one image of 512 pixels shows that their size does not matter."""
    rows = int(0.05 * 32 * (GRID**2 + 1))
    for acting in get_args(Acting):
        for seed in range(8):
            for cell in (1, 8) if acting == "sum" and seed == 0 else (1,):
                net = Scattered(acting, seed, cell).eval()
                question, planted = net.question(seed), set(net.planted.tolist())
                found = compared(question, Budget(32, 256 // cell, seed, max_rows=rows), planted)
                yield {"case": acting, "pixels": GRID * cell, "finest": cell, "seed": seed, **found}


def scene_rows() -> Iterator[dict[str, object]]:
    """A roof of a drawn scene of 256 pixels, N = 8."""
    model, scene, grid = rooftop_unet(), procedural_scene(2), 32
    roof = torch.from_numpy(largest_object(predict_mask(model, scene.image)))[None]
    question = Question(model, normalize(scene.image), roof, grid_size=grid)
    (full,) = answer(question, Budget(8, 8), [ENTROPY])
    truth = set(full.scores[0].topk(TEN).indices.tolist())
    for rows in (None, 8 * 512):
        asked = Question(model, question.inputs, roof, grid_size="adaptive")
        yield {"case": "scene", "pixels": 256, "finest": 8, "seed": 0, **compared(asked, Budget(8, 8, max_rows=rows), truth, full)}


PARTS = {"planted": (planted_rows, "refine"), "scene": (scene_rows, "refine"), "coverage": (coverage_rows, "refine-coverage")}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        (measure, table), rows = PARTS[part], []
        for row in measure():
            print(row, flush=True)
            rows.append(row)
        replace_rows(table, pd.DataFrame(rows))


if __name__ == "__main__":
    main()
