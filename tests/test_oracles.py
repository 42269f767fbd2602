"""Estimators and statistics against other people's: SALib and scipy (Sobol indices, bootstrap), statsmodels (Holm)."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from SALib.analyze import sobol as salib_analyze
from SALib.sample import sobol as salib_sample
from SALib.test_functions import Ishigami, Sobol_G
from scipy import stats
from statsmodels.stats.multitest import multipletests
from torch import nn

from entropy_captum.attribution import SobolTotal
from entropy_captum.estimate import jansen, saltelli
from entropy_captum.statistics import holm, mean_interval

G = np.array([0, 1, 4.5, 9])


class Known(NamedTuple):
    """A function of `d` variables in [0, 1], (n,d) to (n,), as SALib has it, and its indices in closed form, each (d,)."""

    function: Callable[[np.ndarray], np.ndarray]
    d: int
    first: np.ndarray
    total: np.ndarray


def ishigami() -> Known:
    a, b, pi = 7, 0.1, np.pi
    one, two, both = (1 + b * pi**4 / 5) ** 2 / 2, a**2 / 8, b**2 * pi**8 * (1 / 18 - 1 / 50)
    parts = np.array([[one, two, 0], [one + both, two, both]]) / (one + two + both)
    return Known(lambda u: Ishigami.evaluate((2 * u - 1) * pi), 3, *parts)


FUNCTIONS = {"Ishigami": ishigami(),
             "Sobol-G": Known(lambda u: Sobol_G.evaluate(u, G), len(G), Sobol_G.sensitivity_index(G),
                              Sobol_G.total_sensitivity_index(G))}


class Values(NamedTuple):
    """A function's values on N designs: f(A) (N,), f(B) (N,) and f(C_i) (N,d)."""

    f: np.ndarray
    f_b: np.ndarray
    f_changed: np.ndarray

    def ours(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Our indices and their errors, each (d,), by order."""
        columns = (self.f[:, None], self.f_changed[:, None], self.f_b[:, None])
        found = {"total": jansen(*columns[:2]), "first": saltelli(*columns)}
        return {order: (index[0], error[0]) for order, (index, error) in found.items()}

    def for_scipy(self) -> dict[str, np.ndarray]:
        return {"f_A": self.f[None], "f_B": self.f_b[None], "f_AB": self.f_changed.T[:, None]}

    def by_salib(self, **options: object) -> dict[str, np.ndarray]:
        """SALib's analysis of these values, which it wants in one row per design: f(A), f(C_1), ..., f(B)."""
        names = [f"x{i}" for i in range(self.f_changed.shape[1])]
        flat = np.concatenate([self.f[:, None], self.f_changed, self.f_b[:, None]], 1).ravel()
        return salib_analyze.analyze({"num_vars": len(names), "names": names}, flat, calc_second_order=False, seed=1, **options)

    def pooled(self) -> float:
        """The variance that SALib and scipy divide by: of f(A) and f(B) together; ours is that of f(A) alone, without bias."""
        return float(np.var([self.f, self.f_b]) / np.var(self.f, ddof=1))


def drawn_by_salib(known: Known, n: int) -> Values:
    problem = {"num_vars": known.d, "names": [f"x{i}" for i in range(known.d)], "bounds": [[0, 1]] * known.d}
    values = known.function(salib_sample.sample(problem, n, calc_second_order=False, seed=3)).reshape(n, -1)
    return Values(values[:, 0], values[:, -1], values[:, 1:-1])


def drawn_by_scipy(known: Known, n: int) -> tuple[Values, object]:
    """What scipy evaluates, and what it makes of it."""
    seen: list[np.ndarray] = []

    def watched(x: np.ndarray) -> np.ndarray:
        seen.append(known.function(x.T))
        return seen[-1]

    result = stats.sobol_indices(func=watched, n=n, dists=[stats.uniform()] * known.d, rng=np.random.default_rng(3))
    return Values(seen[0], seen[1], seen[2].reshape(n, known.d)), result


def independent(known: Known, n: int, seed: int = 5) -> Values:
    """Values on designs drawn independently of each other, which is what bootstrap and jackknife suppose."""
    a, b = np.random.default_rng(seed).random((2, n, known.d))
    changed = [np.where(np.arange(known.d) == i, b, a) for i in range(known.d)]
    return Values(known.function(a), known.function(b), np.stack([known.function(c) for c in changed], 1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_total_order_on_the_same_values_is_that_of_scipy_and_salib(name):
    """But for the variance that it is divided by."""
    known = FUNCTIONS[name]
    theirs, result = drawn_by_scipy(known, 128)
    np.testing.assert_allclose(theirs.ours()["total"][0], result.total_order * theirs.pooled(), rtol=1e-10)
    salibs = drawn_by_salib(known, 128)
    np.testing.assert_allclose(salibs.ours()["total"][0], salibs.by_salib()["ST"] * salibs.pooled(), rtol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_order_on_the_same_values_is_that_of_scipy_and_salib(name):
    """Ours does not change when f(B) is shifted. Theirs does; where the shift makes their centre f(B)'s mean, it is ours."""
    known = FUNCTIONS[name]
    for values in (drawn_by_scipy(known, 128)[0], drawn_by_salib(known, 128)):
        ours, n = values.ours()["first"][0], len(values.f)
        shifted = values._replace(f_b=values.f_b - values.f_b.mean() + values.f.mean())
        found = stats.sobol_indices(func=shifted.for_scipy(), n=n).first_order
        np.testing.assert_allclose(ours, found * shifted.pooled() * n / (n - 1), rtol=1e-9, atol=1e-12)
        others = np.concatenate([values.f[:, None], values.f_changed], 1).mean()
        shifted = values._replace(f_b=values.f_b - values.f_b.mean() + others)
        np.testing.assert_allclose(ours, shifted.by_salib()["S1"] * shifted.pooled() * n / (n - 1), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_indices_are_those_of_scipys_bootstrap(name):
    """scipy resamples the designs and calls our estimators on each resample; our errors come from one jackknife."""
    values = independent(FUNCTIONS[name], 256)

    def indices(f_A: np.ndarray, f_B: np.ndarray, f_AB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ours = Values(f_A[0], f_B[0], f_AB[:, 0].T).ours()
        return ours["first"][0], ours["total"][0]

    found = stats.sobol_indices(func=values.for_scipy(), n=256, method=indices).bootstrap(n_resamples=2000)
    for order, theirs in (("total", found.total_order), ("first", found.first_order)):
        np.testing.assert_allclose(values.ours()[order][1], theirs.standard_error, rtol=0.12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_total_order_are_those_of_salibs_bootstrap(name):
    """f(B) serves SALib's total order for the variance alone: with f(A) in its place its index is ours, and so is its error."""
    values, n = independent(FUNCTIONS[name], 256), 256
    index, error = values.ours()["total"]
    found = values._replace(f_b=values.f).by_salib(num_resamples=2000)
    np.testing.assert_allclose(index, found["ST"] * (n - 1) / n, rtol=1e-10)
    np.testing.assert_allclose(error, found["ST_conf"] / stats.norm.ppf(0.975), rtol=0.12)


class OfFeatures(nn.Module):
    """A score map of one pixel, computed from one-pixel features in [0, 1]."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Made a probability; an index does not change with scale and shift.
        return torch.from_numpy(self.function(x[:, 0, 0].numpy()) + 12)[:, None, None, None] / 32


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sampler", ["supercube", "monte_carlo"])
def test_indices_of_our_designs_agree_with_those_of_theirs(name, sampler):
    known, n = FUNCTIONS[name], 512
    method = SobolTotal(OfFeatures(known.function), "none", first_order=True, sampler=sampler)
    ours = method.estimate(torch.ones(1, 1, 1, known.d, dtype=torch.float64), region=torch.ones(1, known.d), n_samples=n,
                           feature_mask=torch.arange(known.d)[None, None, None], perturbations_per_eval=1000)
    salib = drawn_by_salib(known, n).by_salib(num_resamples=1000)
    result = drawn_by_scipy(known, n)[1]
    resampled, z = result.bootstrap(n_resamples=1000), stats.norm.ppf(0.975)
    mine = {"total": (ours.total_order, ours.total_order_error), "first": (ours.first_order, ours.first_order_error)}
    theirs = {"total": [(salib["ST"], salib["ST_conf"] / z), (result.total_order, resampled.total_order.standard_error)],
              "first": [(salib["S1"], salib["S1_conf"] / z), (result.first_order, resampled.first_order.standard_error)]}
    for order, truth in (("total", known.total), ("first", known.first)):
        index, error = (values[0].numpy() for values in mine[order])
        assert (np.abs(index - truth) <= 4 * error).all(), (order, index, error, truth)
        for other, other_error in theirs[order]:
            assert (np.abs(index - other) <= 3 * np.hypot(error, other_error)).all(), (order, index, error, other, other_error)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_holm_is_statsmodels(n):
    rng = np.random.default_rng(n)
    for scale in (1.0, 0.1, 0.005):
        p = np.round(scale * rng.random(n), 3)  # some are equal
        with_unknown = np.insert(p, n // 2, np.nan)
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-14)
        np.testing.assert_array_equal(np.delete(holm(with_unknown), n // 2), holm(p))


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal"])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_one_stratum_is_scipys_to_the_last_digits(draw, level):
    """The same generator draws the same resamples, so nothing is left to chance."""
    values = getattr(np.random.default_rng(3), draw)(size=30)
    means = pd.Series(values, pd.MultiIndex.from_product([["one"], range(30)], names=["dataset", "scene"]))
    ours = mean_interval(means, level, resamples=999, seed=8)
    normal = 2 * stats.norm.cdf(stats.t.ppf((1 + level) / 2, 29) * np.sqrt(30 / 29)) - 1
    theirs = stats.bootstrap((values,), np.mean, method="BCa", confidence_level=normal, n_resamples=999,
                             rng=np.random.default_rng(8)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=1e-9)
