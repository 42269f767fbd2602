"""Do the intervals of two patches that act together hold the truth? Planted pairs, by sampler and N, to nbs/benchmarks/pairs.csv.

`held`: the share of 95 % intervals of planted patches that hold the score (or index) of many independent designs.
`difference_held`: of the difference of the two patches' scores, its error made of both as if they were independent.
`error_ratio`: the root mean square of the standard errors over that of the true errors.
`lowest_case`: the share held in the worst of the cases.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from benchmark_tables import replace_rows

from entropy_captum import Estimate
from entropy_captum.methods import PICK_FREEZE
from entropy_captum.planted import Kind, PlantedCase, plant
from entropy_captum.question import Budget
from entropy_captum.run import answer
from entropy_captum.sampling import Sampler

SAMPLERS: tuple[Sampler, ...] = ("supercube", "sobol")
KINDS: tuple[Kind, ...] = ("pair", "either")
METHODS = ("entropy", "sobol")
NUMBERS, CASES, RUNS, TRUTH = (8, 32), 24, 20, 2048


def estimates(case: PlantedCase, sampler: Sampler, n: int, seed: int) -> list[Estimate]:
    """The scores and the Sobol indices of a case, from the same forwards."""
    return answer(case.question(), Budget(n, 520, seed, sampler=sampler), [PICK_FREEZE[method] for method in METHODS])


def compared(found: Estimate, truth: Estimate, planted: torch.Tensor) -> dict[str, object]:
    """How far two planted patches are off, and whether their intervals hold them; the truth's own error is counted too."""
    off, error, margin, own = (value[0, planted].double().numpy() for value in (
        found.scores - truth.scores, found.standard_error, found.margin(), truth.standard_error))
    quantile = float(margin.sum() / error.sum())
    between = abs(off[0] - off[1]) <= quantile * float(np.hypot(np.hypot(*error), np.hypot(*own)))
    return {"held": (np.abs(off) <= np.hypot(margin, 1.96 * own)).mean(), "difference_held": between,
            "squared_off": (off**2 - own**2).mean(), "squared_error": (error**2).mean()}


def rows_of(kind: Kind, number: int) -> Iterator[dict[str, object]]:
    case = plant(kind, number)
    planted, truths = torch.from_numpy(case.truth), estimates(case, "monte_carlo", TRUTH, 10_000)
    for sampler in SAMPLERS:
        for n in NUMBERS:
            for run in range(RUNS):
                for method, found, truth in zip(METHODS, estimates(case, sampler, n, run), truths, strict=True):
                    facts = {"sampler": sampler, "method": method, "n": n, "kind": kind, "case": number}
                    yield facts | compared(found, truth, planted)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares and ratios over all cases and runs of each sampler, method, N and kind."""
    keys = ["sampler", "method", "n", "kind"]
    table = rows.groupby(keys)[["held", "difference_held", "squared_off", "squared_error"]].mean()
    table["error_ratio"] = np.sqrt(table.pop("squared_error") / table.pop("squared_off"))
    table["lowest_case"] = rows.groupby([*keys, "case"])["held"].mean().groupby(keys).min()
    table["intervals"] = 2 * rows.groupby(keys).size()
    return table.reset_index()


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for number in range(CASES):
        for kind in KINDS:
            rows += rows_of(kind, number)
        print(f"{number + 1} of {CASES} cases of each kind", flush=True)
    replace_rows("pairs", summary(pd.DataFrame(rows)))
    print(summary(pd.DataFrame(rows)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
