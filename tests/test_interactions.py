"""Interactions: closed forms, plain loops, planted pairs and sums, both engines, honest errors."""
from inspect import signature
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import Recorder, small_net
from reference import entropy
from SALib.test_functions import Sobol_G
from scipy.special import stdtrit
from torch import nn

from entropy_captum.attribution import EntropyCentric, SobolTotal
from entropy_captum.estimate import Estimate, mean_change
from entropy_captum.interactions import Interactions, interactions, total_interaction
from entropy_captum.planted import plant
from entropy_captum.sampling import pick_freeze, supercube

NET = small_net().double()
X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
REGION = torch.zeros(1, 32, 32)
REGION[0, 10:16, 12:20] = 1
CALL = {"region": REGION, "grid_size": 6, "perturbations_per_eval": 7, "n_samples": 8}


@pytest.mark.slow
def test_sobol_g_has_its_closed_form():
    """Of a product of factors with variances v, a superset has the product of its v times the product of 1 + v of the others."""
    a, n = np.array([0, 1, 4.5, 9]), 8192
    v = 1 / (3 * (1 + a) ** 2)
    pairs = list(combinations(range(4), 2))
    truth = [v[i] * v[j] * np.prod([1 + v[k] for k in range(4) if k not in (i, j)]) / (np.prod(1 + v) - 1) for i, j in pairs]
    designs = list(supercube(n, 4, 3))
    first, second = np.stack([x.a for x in designs]), np.stack([x.b for x in designs])

    def at(*which):
        return Sobol_G.evaluate(np.where(np.isin(np.arange(4), which), second, first), a)[:, None]

    parts = np.stack([np.stack([at(i), at(j)], 2) for i, j in pairs], 2)
    index, error = total_interaction(at(), parts, np.stack([at(*pair) for pair in pairs], 2))
    assert (np.abs(index[0] - truth) <= 4 * error[0]).all() and error.max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["pixel", "object"])
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_numbers_are_those_of_a_plain_loop(reduction, inference):
    among, n = [14, 15, 20], 8
    found = interactions(EntropyCentric(NET, reduction=reduction, inference=inference), X, among=among, **CALL)
    net, inside, cells = NET.eval(), REGION[0] > 0, torch.arange(32) * 6 // 32

    def pixels(keep):
        with torch.no_grad():
            z = net(X * keep[cells][:, cells])[0, 0][inside].tolist()
        return np.array([1 / (1 + np.exp(-v)) for v in z])

    for i, j in combinations(range(3), 2):
        bits, probability, base = [], [], []
        for design in pick_freeze(n, 36):
            p = []
            for changed in ((), (among[i],), (among[j],), (among[i], among[j])):
                keep = design.a.copy()
                for k in changed:
                    keep[k] = design.b[k]
                p.append(pixels(torch.from_numpy(keep).reshape(6, 6)))
            h = [np.array([entropy(q) for q in each]) for each in p]
            off = h[3] - h[1] - h[2] + h[0]
            bits.append((np.abs(off).mean() if reduction == "pixel" else abs(off.mean())) / 2)
            probability.append((p[3].mean() - p[1].mean() - p[2].mean() + p[0].mean()) ** 2 / 4)
            base.append(p[0].mean())
        assert float(found.values[0, i, j]) == pytest.approx(np.mean(bits), rel=1e-6)
        assert float(found.total_interaction[0, i, j]) == pytest.approx(np.mean(probability) / np.var(base, ddof=1), rel=1e-6)
    assert torch.equal(found.values.nan_to_num(), found.values.nan_to_num().mT) and found.values[0].diagonal().isnan().all()


def test_the_batch_changes_nothing_and_rows_are_counted():
    first, other = (interactions(EntropyCentric(NET, inference="full"), X, among=3, **CALL | {"perturbations_per_eval": rows})
                    for rows in (1, 50))
    for name in Interactions.ARRAYS:
        torch.testing.assert_close(getattr(first, name), getattr(other, name), equal_nan=True)
    model = Recorder(NET)
    found = interactions(EntropyCentric(model, inference="full"), X, among=3, **CALL)
    assert int(found.n_forwards) == 8 * (37 + 7)
    assert sum(len(seen) for seen in model.seen) - int(found.n_forwards) in (0, 1)  # one more to see whether it is steady
    assert not found.settings["region_predicted"]


@pytest.mark.parametrize("among", [3, [14, 15, 20]])
def test_the_forward_that_finds_the_region_counts(among):
    model, call = Recorder(NET), {name: value for name, value in CALL.items() if name != "region"}
    found = interactions(EntropyCentric(model, inference="full"), X, among=among, **call)
    assert sum(len(seen) for seen in model.seen) - int(found.n_forwards) in (0, 1)
    assert int(found.n_forwards) == 1 + 8 * (37 * (among == 3) + 7) and found.settings["region_predicted"]


@pytest.mark.parametrize("goal", [{"top": 3}, {"max_rows": 400}, {"max_seconds": 600.0}], ids=lambda goal: next(iter(goal)))
def test_a_goal_is_of_the_search_alone(goal):
    model = Recorder(NET)
    found = interactions(EntropyCentric(model, inference="full"), X, among=3, **CALL, **goal)
    assert int(found.n_samples) == 8 and sum(len(seen) for seen in model.seen) - int(found.n_forwards) in (0, 1)
    named = interactions(EntropyCentric(NET, inference="full"), X, among=sorted(found.features[0].tolist()), **CALL)
    order = found.features[0].argsort()
    torch.testing.assert_close(found.values[0][order][:, order], named.values[0], equal_nan=True)


@pytest.mark.slow
def test_a_pair_is_found_and_a_sum_has_none():
    case = plant("pair", 3)
    both = np.flatnonzero(case.truth)
    found = interactions(SobolTotal(case.model), case.inputs, region=case.region, among=4, n_samples=32, perturbations_per_eval=64)
    best = found.pairs()[0]
    assert {best.first, best.second} == set(both.tolist()) and best.value > 10 * found.pairs()[1].value

    class Sum(nn.Module):
        """The halves of the object hang on two patches, one each; a mean probability is the sum."""

        def forward(self, x):
            kept = nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1)
            p = torch.where(torch.arange(32) < 16, kept[:, :1] * 0.4 + 0.1, kept[:, 3:] * 0.5 + 0.2)
            return p[:, None, None].expand(-1, 1, 32, -1)

    for method in (EntropyCentric(Sum(), "none"), SobolTotal(Sum(), "none")):
        none = interactions(method, torch.ones_like(X), among=[0, 3], **CALL | {"grid_size": 2})
        assert float(none.values[0, 0, 1]) < 1e-12 < float(none.scores.min())


@pytest.mark.slow
def test_an_interaction_is_no_more_than_either_score():
    found = interactions(EntropyCentric(NET), X, among=4, **CALL | {"n_samples": 256, "perturbations_per_eval": 64})
    least = torch.minimum(found.scores[:, :, None], found.scores[:, None])
    assert (found.values.nan_to_num() <= least * 1.05).all()


def test_saved_and_read_back(tmp_path):
    method = EntropyCentric(NET)
    found = interactions(method, X, among=[14, 15, 20], **CALL)
    again = Interactions.load(found.save(tmp_path / "pairs"))
    assert repr(again) == repr(found) and torch.equal(again.margin().nan_to_num(), found.margin().nan_to_num())
    with pytest.raises(ValueError, match="holds no saved interactions"):
        Interactions.load(method.estimate(X, **CALL).save(tmp_path / "estimate"))
    assert found._repr_png_().startswith(b"\x89PNG")


def test_patches_that_cannot_reach_the_region_do_nothing_together():
    found = interactions(EntropyCentric(NET, inference="incremental"), X, among=[0, 1, 5], **CALL)
    assert (found.values.nan_to_num() == 0).all() and int(found.n_forwards) == 8


@pytest.mark.parametrize(("among", "message"), [
    (1, "among must be an integer of at least 2, got 1"), (99, "among=99 of 36 features"),
    ([3, 3], r"at least two different features, 0 to 35, got \[3, 3\]"), ([3, 36], "0 to 35")])
def test_what_is_no_choice_is_refused(among, message):
    with pytest.raises(ValueError, match=message):
        interactions(EntropyCentric(NET), X, among=among, **CALL)


@pytest.mark.slow
def test_error_bars_are_honest():
    """400 seeds of a drawn function of entropies: 95 % intervals hold the truth; at few designs they are a little wide."""
    rng = np.random.default_rng(3)
    weights = 3 * np.exp(-np.arange(12) / 4) * rng.normal(0.8, 0.6, (6, 12))
    start, pairs = rng.normal(6, 1, 6) - weights.sum(1) / 2, list(combinations(range(3), 2))

    def changes(a, b):
        def bits(*which):
            p = 1 / (1 + np.exp(-np.where(np.isin(np.arange(12), which), b, a) @ weights.T - start))
            return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        return np.stack([np.abs(bits(i, j) - bits(i) - bits(j) + bits()).mean(1) / 2 for i, j in pairs], 1)

    truth = np.mean([changes(*rng.random((2, 20000, 12))).mean(0) for _ in range(10)], 0)
    for n in (32, 128):
        held = []
        for seed in range(400):
            designs = list(supercube(n, 12, [seed, 5]))
            points = [np.stack([[x.a[i], x.b[i], x.a[j], x.b[j]] for i, j in pairs]) for x in designs]
            delta = changes(np.stack([x.a for x in designs]), np.stack([x.b for x in designs]))
            value, error = (part[0] for part in mean_change(delta[:, None], points))
            held.append(np.abs(value - truth) <= stdtrit(n / 2, 0.975) * error)
        assert 0.92 <= np.mean(held) <= 0.985


def test_a_picture_takes_what_that_of_an_estimate_takes():
    assert list(signature(Interactions.show).parameters) == list(signature(Estimate.show).parameters)
    found = interactions(EntropyCentric(NET), X, among=[0, 1, 7], **CALL)
    plain, outlined = (found.show(np.full((32, 32, 3), 90, np.uint8), 0, region) for region in (None, REGION[0].numpy() > 0))
    assert len(outlined.axes[1].get_children()) > len(plain.axes[1].get_children())
