"""Adaptive designs: right on average, honest errors, exact counts, the same numbers however they are run."""
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import Recorder, small_net
from scipy.stats import t as student
from torch import nn

from entropy_captum.adaptive import COUNTS, OWN, AdaptiveHistory, Goal, adaptive_designs, goal_of, make_plan, weighed_mean
from entropy_captum.attribution import EntropyCentric, SobolTotal
from entropy_captum.estimate import Estimate
from entropy_captum.question import Budget, Question
from entropy_captum.run import Quantity, answer
from entropy_captum.sampling import supercube

SIDE = 6
FEATURES = SIDE**2


class Drawn:
    """Six pixels whose log-odds are linear in the patches, most of which hardly matter; its true scores come of many designs."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scale = 3 * np.exp(-np.arange(FEATURES) / 5)
        self.weights = scale * rng.normal(0.8, 0.6, (6, FEATURES))
        self.start = rng.normal(6, 1, 6) - self.weights.sum(1) / 2
        self.truth = np.mean([self.changes(*rng.random((2, 2000, FEATURES))).mean(0) for _ in range(40)], 0)

    def changes(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How far the entropy moves, (N,d), when one patch after the other of the designs (N,d) is redrawn."""
        logits = a @ self.weights.T + self.start
        moved = logits[:, None] + (b - a)[..., None] * self.weights.T
        return np.abs(self.entropy(moved) - self.entropy(logits)[:, None]).mean(2)

    @staticmethod
    def entropy(logits: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-logits))
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


@cache
def replayed(seeds: int = 400) -> dict[str, np.ndarray]:
    """Adaptive runs at half the rows of N = 32, and uniform ones, of the same drawn function."""
    drawn, budget, found = Drawn(3), Budget(32, max_rows=16 * (FEATURES + 1)), []
    goal = goal_of(budget, budget.rows(FEATURES))
    for seed in range(seeds):
        designs = adaptive_designs(goal.half, 96, FEATURES, seed)
        delta = drawn.changes(np.stack([x.a for x in designs]), np.stack([x.b for x in designs]))
        plan = make_plan(delta[:8], goal)
        assert 8 * (FEATURES + 1) + plan.fresh.sum() + plan.fresh.max() <= budget.max_rows
        asked = np.where(np.arange(len(delta))[:, None] < 8 + plan.fresh, delta, np.nan)
        points = np.stack([np.stack([x.a, x.b], 1) for x in designs])
        naive = np.nanmean(asked, 0)
        plain = list(supercube(32, FEATURES, seed))
        uniform = drawn.changes(np.stack([x.a for x in plain]), np.stack([x.b for x in plain])).mean(0)
        found.append((*weighed_mean(asked, points, plan, 4), plan.fresh, naive, uniform))
    scores, errors, fresh, naive, uniform = map(np.array, zip(*found, strict=True))
    return {"off": scores - drawn.truth, "errors": errors, "fresh": fresh, "naive": naive - drawn.truth,
            "uniform": uniform - drawn.truth}


@pytest.mark.slow
def test_error_bars_are_honest_also_where_a_feature_stopped_early():
    runs = replayed()
    n = runs["fresh"] + 8
    inside = np.abs(runs["off"]) <= student.ppf(0.975, 0.7 * (n - 1) + 4) * runs["errors"]
    early = runs["fresh"] == 0
    assert 0.2 < early.mean() < 0.8
    assert 0.93 <= inside.mean() <= 0.97 and 0.93 <= inside[early].mean() <= 0.97


@pytest.mark.slow
def test_stopping_hardly_biases_the_scores():
    runs = replayed()
    bias = {name: runs[name].mean(0).sum() / np.sqrt((runs[name] ** 2).mean(0)).sum() for name in ("off", "naive")}
    assert abs(bias["off"]) < 0.1
    assert bias["naive"] < 1.3 * bias["off"] < 0  # the mean of all that was asked prefers what was calm


@pytest.mark.slow
def test_half_of_the_rows_give_the_largest_error_of_uniform_designs():
    runs = replayed()
    largest = {name: np.abs(runs[name]).max(1).mean() for name in ("off", "uniform")}
    assert largest["off"] < 1.05 * largest["uniform"]


def test_weights_of_a_half_do_not_know_it():
    """What the first half found may change its weight only by the share that the whole pilot decides."""
    rng = np.random.default_rng(0)
    pilot = rng.lognormal(0, 1, (8, 16)) * np.exp(-np.arange(16) / 4)
    goal = Goal(4, 96, rows=400)
    changed = pilot.copy()
    changed[:4] *= rng.lognormal(0, 2, (4, 16))
    (first, second), (first_after, second_after) = make_plan(pilot, goal).shares, make_plan(changed, goal).shares
    assert np.abs(first_after - first).max() <= OWN  # decided by the second half, which is as it was
    assert np.abs(second_after - second).max() > np.abs(first_after - first).max()


NET = small_net().double()
X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
REGION = torch.zeros(1, 32, 32)
REGION[0, 10:16, 12:20] = 1
CALL = {"region": REGION, "grid_size": SIDE, "perturbations_per_eval": 7}
GOALS = [{"max_rows": 800}, {"tolerance": 2e-3, "n_samples": 64}]


def same(a: Estimate, b: Estimate, rtol: float = 1e-4) -> None:
    assert torch.equal(a.n_samples, b.n_samples) and torch.equal(a.n_forwards, b.n_forwards)
    for name in ("scores", "standard_error"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=rtol, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: next(iter(goal)))
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_rows_are_counted_exactly(goal, inference):
    model = Recorder(NET)
    estimate = EntropyCentric(model, inference="full").estimate(X, **CALL, **goal)
    rows = sum(len(seen) for seen in model.seen)
    assert rows in (int(estimate.n_forwards), int(estimate.n_forwards) + 1)  # one more to look whether the network is steady
    assert int(estimate.n_forwards) == int(estimate.n_samples.sum() + estimate.n_samples.max())
    assert set((estimate.n_samples[0] - 8).tolist()) <= {*COUNTS.tolist(), 56}
    assert estimate.n_samples.unique().numel() > 1
    found = EntropyCentric(NET, inference=inference).estimate(X, **CALL, **goal)
    asked = int(found.n_samples.sum() + found.n_samples.max())
    live = found.n_samples[0][found.scores[0] > 0].sum() + found.n_samples.max()
    assert int(found.n_forwards) == (asked if inference == "full" else int(live))
    if "max_rows" in goal:
        assert 0.95 * 800 < asked <= 800


@pytest.mark.slow
@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: next(iter(goal)))
def test_the_batch_size_changes_nothing(goal):
    ec = EntropyCentric(NET, inference="full")
    first, *others = (ec.estimate(X, **CALL | {"perturbations_per_eval": rows}, **goal) for rows in (1, 5, 64))
    for other in others:
        same(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("goal", [*GOALS, {"top": 3}], ids=lambda goal: next(iter(goal)))
def test_what_is_asked_does_not_depend_on_the_engine_or_on_what_is_asked_beside_it(goal):
    """Rows that the incremental engine skips count in a goal as if they were run: which ones they are depends on all regions."""
    full, fast = (EntropyCentric(NET, inference=kind).estimate(X, **CALL, **goal) for kind in ("full", "incremental"))
    regions, call = torch.cat([REGION, REGION.roll((-10, -11), (1, 2))]), {k: v for k, v in CALL.items() if k != "region"}
    both = EntropyCentric(NET, inference="incremental").estimate_regions(X, regions, **call, **goal)
    assert int(fast.n_skipped) > int(both.n_skipped[0]) > 0
    for found in (fast, both):
        assert torch.equal(full.n_samples[0], found.n_samples[0])
        torch.testing.assert_close(full.scores[0], found.scores[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(full.standard_error[0], found.standard_error[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("goal", [*GOALS, {"top": 3}], ids=lambda goal: next(iter(goal)))
def test_rounding_is_under_no_law(goal):
    """Patches that cannot reach the region change it in float32 by some 1e-10, in each batch by another; no logarithm sees that."""
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Sequential(nn.Conv2d(3 if k == 0 else 16, 16, 3, padding=1), nn.ReLU()) for k in range(4)),
                         nn.Conv2d(16, 1, 1)).eval()
    for weights in deep.parameters():
        weights.data *= 2.5
    x, region = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64)
    region[0, 28:36, 28:36] = 1
    call = {"region": region, "grid_size": 8, **goal}
    first, *others = (EntropyCentric(deep, inference="full").estimate(x, **call, perturbations_per_eval=k) for k in (1, 5, 64))
    moved = [(found.scores > 0).sum() for found in (first, *others)]
    assert max(moved) > min(moved)  # what rounds differs
    for other in others:
        same(first, other)
    clean = EntropyCentric(deep, inference="incremental").estimate(x, **call)  # which runs none of those rows
    for found in (first, *others):
        same(clean, replace(found, n_forwards=clean.n_forwards))


@pytest.mark.slow
@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: next(iter(goal)))
def test_each_region_stops_on_its_own(goal):
    regions = REGION.repeat(2, 1, 1)
    regions[1] = REGION[0].roll((8, 8), (0, 1)) * 0.5 + REGION[0].roll((-6, 2), (0, 1))
    model, call = Recorder(NET), {key: value for key, value in CALL.items() if key != "region"}
    ec = EntropyCentric(model, inference="full")
    both = ec.estimate_regions(X, regions, **call, **goal)
    together = sum(len(seen) for seen in model.seen)
    assert not torch.equal(both.n_samples[0], both.n_samples[1])
    assert together < int(both.n_forwards.sum())  # rows that both need are run once
    for number, region in enumerate(regions):
        alone = ec.estimate(X, **CALL | {"region": region[None]}, **goal)
        assert torch.equal(alone.n_samples[0], both.n_samples[number])
        torch.testing.assert_close(alone.scores[0], both.scores[number], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(alone.standard_error[0], both.standard_error[number], rtol=1e-3, atol=1e-7)
    assert torch.equal(ec.attribute_regions(X, regions, **call, **goal), both.spread(both.scores)[0].to(X))


@pytest.mark.slow
def test_examples_are_asked_by_themselves():
    x = torch.cat([X, X.flip(3) * 0.3])
    call = CALL | {"region": REGION.repeat(2, 1, 1)}
    model = Recorder(NET)
    both = EntropyCentric(model, inference="full").estimate(x, **call, max_rows=800)
    assert sum(len(seen) for seen in model.seen) in (int(both.n_forwards.sum()), int(both.n_forwards.sum()) + 1)
    alone = EntropyCentric(NET, inference="full").estimate(x[1:], **CALL, max_rows=800)
    assert torch.equal(alone.n_samples[0], both.n_samples[1])
    torch.testing.assert_close(alone.scores[0], both.scores[1], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_tolerance_is_kept():
    ec = EntropyCentric(NET, inference="full")
    plain = ec.estimate(X, **CALL, n_samples=64)
    goal = float(plain.standard_error.max())
    found = ec.estimate(X, **CALL, n_samples=512, tolerance=goal)
    assert found.standard_error.max() <= goal
    assert int(found.n_forwards) < 0.6 * int(plain.n_forwards)
    capped = ec.estimate(X, **CALL, n_samples=16, tolerance=goal / 10)
    assert int(capped.n_samples.max()) == 16 and capped.standard_error.max() > goal / 10


@pytest.mark.slow
def test_a_tolerance_is_honest():
    """400 seeds: the root mean square error of every patch is what was asked for, and the bars hold 95 %."""
    drawn, tolerance, found = Drawn(4), 0.01, []
    for seed in range(400):
        goal = Goal(4, 248, tolerance=tolerance)
        history = AdaptiveHistory(np.zeros(1, np.int64), Budget().rows(FEATURES), goal=goal)
        designs = history.draw(seed)
        delta = drawn.changes(np.stack([x.a for x in designs]), np.stack([x.b for x in designs]))

        def add(numbers, rows, history=history, delta=delta):
            for number in numbers:
                values = np.full((1, FEATURES + 1), np.nan)
                for row in rows:
                    values[0, history.column[row]] = delta[number, row.changed[0]] if row.changed else 0.0
                history.add(np.array([0]), values, values)

        history.numbers.extend(range(8))
        add(range(8), history.rows)
        for span in history.spans(np.array([0])):
            add(range(8 + span.start, 8 + span.end), span.rows)
        (value,), (error,) = history.changes()
        found.append((value - drawn.truth, error, history.counts()[0]))
    off, error, n = map(np.array, zip(*found, strict=True))
    assert (error <= tolerance)[n < 256].all() and (n == 256).mean() < 0.01
    inside = np.abs(off) <= student.ppf(0.975, 0.7 * (n - 1) + 4) * error
    assert 0.93 <= inside.mean() <= 0.97 and 0.93 <= inside[n == 8].mean() <= 0.97
    assert np.sqrt((off**2).mean(0)).max() < 1.1 * tolerance
    assert abs(off.mean(0).sum() / np.sqrt((off**2).mean(0)).sum()) < 0.1


@pytest.mark.slow
def test_sobol_indices_come_of_enough_designs():
    estimate = EntropyCentric(NET, inference="full", first_order=True).estimate(X, **CALL, max_rows=800)
    enough = estimate.n_samples >= 16
    assert enough.any() and not enough.all()
    for values in (estimate.total_order, estimate.first_order):
        assert torch.equal(~torch.isnan(values), enough)
    many = EntropyCentric(NET, inference="full").estimate(X, **CALL, n_samples=512)
    off = (estimate.total_order - many.total_order)[enough].abs()
    assert (off <= 4 * estimate.total_order_error[enough] + 0.02).all()


@pytest.mark.slow
def test_a_stream_ends_at_the_estimate():
    ec = EntropyCentric(NET, inference="full")
    *before, last = ec.stream(X, **CALL, max_rows=800)
    same(last, ec.estimate(X, **CALL, max_rows=800))
    samples = torch.cat([state.n_samples for state in [*before, last]])
    assert (samples.diff(dim=0) >= 0).all() and samples[0].max() == 1
    assert all(not torch.isnan(state.scores).any() for state in before)


def test_saved_and_read_back_also_from_before_features_had_counts(tmp_path):
    estimate = EntropyCentric(NET, inference="full").estimate(X, **CALL, max_rows=800)
    again = Estimate.load(estimate.save(tmp_path / "adaptive"))
    same(again, estimate, 0)
    assert torch.equal(again.margin(), estimate.margin()) and again.settings["max_rows"] == 800
    old = EntropyCentric(NET, inference="full").estimate(X, **CALL, n_samples=4)
    path = old.save(tmp_path / "old")
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"n_samples": arrays["n_samples"][:, 0]})
    assert torch.equal(Estimate.load(path).n_samples, old.n_samples) and torch.equal(Estimate.load(path).margin(), old.margin())
    assert json.loads(path.with_suffix(".json").read_text())["error"] == "nearest neighbours"


def test_planted_patches_are_asked_most():
    class Planted(nn.Module):
        """Three patches decide, the others whisper."""

        def forward(self, x):
            kept = nn.functional.adaptive_avg_pool2d(x, 8).mean(1)
            loud = kept[:, 2, 3] + 2 * kept[:, 5, 5] * kept[:, 4, 4]
            return (6 * loud + 0.3 * kept.sum((1, 2)) - 10)[:, None, None, None].expand(-1, 1, *x.shape[-2:])

    estimate = EntropyCentric(Planted()).estimate(torch.ones(1, 3, 32, 32), region=REGION, max_rows=700, perturbations_per_eval=64)
    loud = {2 * 8 + 3, 5 * 8 + 5, 4 * 8 + 4}
    assert set(estimate.scores[0].topk(3).indices.tolist()) == loud
    assert set(estimate.n_samples[0].topk(3).indices.tolist()) == loud


@pytest.mark.parametrize(("call", "message"), [
    ({"max_rows": 100}, "max_rows=100 does not hold a pilot of 4 designs for 36 features; that takes 148"),
    ({"max_rows": 0}, "max_rows must be an integer of at least 1, got 0"),
    ({"max_rows": 900, "tolerance": 0.1}, "no tolerance, got 'supercube', 32 and 0.1"),
    ({"max_rows": 900, "n_samples": 4}, "n_samples of at least 8"),
])
def test_goals_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        EntropyCentric(NET, inference="full").estimate(X, **CALL, **call)


def test_goals_of_other_methods_are_refused():
    with pytest.raises(ValueError, match="max_rows is for entropy-centric scores"):
        SobolTotal(NET).estimate(X, **CALL, max_rows=900)
    with pytest.raises(ValueError, match="needs sampler='supercube'"):
        EntropyCentric(NET, sampler="sobol").estimate(X, **CALL, max_rows=900)
    with pytest.raises(ValueError, match="share forwards take no max_rows, got 900"):
        answer(Question(NET, X, REGION), Budget(max_rows=900), [Quantity("one"), Quantity("two", "object")])


def test_a_solver_is_imported_when_it_is_needed():
    code = "import sys, entropy_captum.adaptive; assert 'scipy.optimize' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
