"""The estimator against plain loops, closed forms and a model that records its inputs."""
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from conftest import Recorder, small_net
from scipy.stats import qmc
from torch import nn

from entropy_captum.attribution import EntropyCentric, SobolTotal
from entropy_captum.estimate import Estimate
from entropy_captum.run import answer
from entropy_captum.sampling import pick_freeze


def region_of(soft: bool, size: int = 9) -> torch.Tensor:
    region = torch.zeros(size, size, dtype=torch.float64)
    region[3:6, 2:7] = 1
    if soft:
        region *= torch.rand(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return region


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("classes,activation,soft", [(1, "auto", False), (3, "auto", False), (3, "sigmoid", True),
                                                     (3, "softmax", True)])
def test_equals_plain_loops(dtype, tolerance, classes, activation, soft):
    x = torch.randn(3, 9, 9, dtype=torch.float64)
    net, region, grid, n = small_net(classes).double(), region_of(soft), 3, 4
    pairs = [np.concatenate([design.a, design.b]) for design in pick_freeze(n, grid * grid, seed=5)]
    resolved = {"auto": "sigmoid" if classes == 1 else "softmax"}.get(activation, activation)
    want = reference.estimate(net.eval(), x, region, classes - 1, resolved, grid, pairs, baseline=-0.5)
    net = net.to(dtype)
    for reduction in ("pixel", "object"):
        got = EntropyCentric(net, activation, reduction, first_order=True).estimate(
            x[None].to(dtype), -0.5, classes - 1, region=region[None], grid_size=grid, n_samples=n, seed=5,
            perturbations_per_eval=3)
        np.testing.assert_allclose(got.scores[0], want[reduction], atol=tolerance)
        np.testing.assert_allclose(got.standard_error[0], want["neighbours"][reduction], atol=tolerance)
        np.testing.assert_allclose(got.total_order[0], want["total"], atol=100 * tolerance if dtype == torch.float32 else tolerance)
        np.testing.assert_allclose(got.first_order[0], want["first"], atol=100 * tolerance if dtype == torch.float32 else tolerance)
        np.testing.assert_allclose(got.first_order_error[0], want["first_error"], rtol=1e-2 if dtype == torch.float32 else 1e-6)
    sobol = SobolTotal(net, activation).estimate(x[None].to(dtype), -0.5, classes - 1, region=region[None], grid_size=grid,
                                                 n_samples=n, seed=5)
    assert torch.equal(sobol.scores, sobol.total_order)
    np.testing.assert_allclose(sobol.standard_error[0], want["total_error"], rtol=1e-2 if dtype == torch.float32 else 1e-6)


def test_probability_outputs_need_no_activation():
    x = torch.randn(3, 9, 9, dtype=torch.float64)
    net = nn.Sequential(small_net().double(), nn.Sigmoid())
    pairs = qmc.Sobol(18, rng=np.random.default_rng(0)).random(4)
    want = reference.estimate(net.eval(), x, region_of(False), 0, "none", 3, pairs)
    got = EntropyCentric(net, "none", sampler="sobol").estimate(x[None], region=region_of(False), grid_size=3, n_samples=4)
    np.testing.assert_allclose(got.scores[0], want["pixel"], atol=1e-9)
    np.testing.assert_allclose(got.standard_error[0], want["error"]["pixel"], atol=1e-9)


class OfFeatures(nn.Module):
    """A probability map computed from d one-pixel features by a function of (B,d)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x[:, 0, 0])[:, None, None, None]


def ishigami(u):
    v = (2 * u - 1) * math.pi
    return (torch.sin(v[:, 0]) + 7 * torch.sin(v[:, 1]) ** 2 + 0.1 * v[:, 2] ** 4 * torch.sin(v[:, 0]) + 11) / 29


def sobol_g(u, a=(0.0, 1.0, 4.5, 9.0)):
    a = torch.tensor(a, dtype=u.dtype)
    return ((4 * u - 2).abs() + a).div(1 + a).prod(1) / 8


def closed_form_ishigami():
    a, b, pi = 7, 0.1, math.pi
    v1, v2, v13 = 0.5 * (1 + b * pi**4 / 5) ** 2, a**2 / 8, b**2 * pi**8 * (1 / 18 - 1 / 50)
    v = v1 + v2 + v13
    return np.array([v1, v2, 0]) / v, np.array([v1 + v13, v2, v13]) / v


def closed_form_g(a=(0.0, 1.0, 4.5, 9.0)):
    parts = np.array([1 / 3 / (1 + x) ** 2 for x in a])
    v = np.prod(1 + parts) - 1
    total = np.array([parts[i] * np.prod(np.delete(1 + parts, i)) for i in range(len(a))])
    return parts / v, total / v


@pytest.mark.slow
@pytest.mark.parametrize("function,truth", [(ishigami, closed_form_ishigami()), (sobol_g, closed_form_g())])
def test_sobol_indices_meet_closed_forms(function, truth):
    first, total = truth
    d = len(first)
    x, region, ids = torch.ones(1, 1, 1, d, dtype=torch.float64), torch.ones(1, d), torch.arange(d)[None, None, None]
    runs = [SobolTotal(OfFeatures(function), "none", first_order=True).estimate(
        x, region=region, feature_mask=ids, n_samples=256, seed=s, perturbations_per_eval=500) for s in range(12)]
    for values, want in ((torch.cat([r.total_order for r in runs]), total), (torch.cat([r.first_order for r in runs]), first)):
        error = values.std(0) / math.sqrt(len(runs))
        assert ((values.mean(0) - torch.from_numpy(want)).abs() <= 3 * error + 2e-3).all()


def test_small_first_order_indices_are_resolved():
    """64 features alike have 1/64 each: small against the 0.25 that a difference of two variances errs by at N = 32."""
    d = 64
    x, region, ids = torch.ones(1, 1, 1, d, dtype=torch.float64), torch.ones(1, d), torch.arange(d)[None, None, None]
    runs = [SobolTotal(OfFeatures(lambda u: u.mean(-1)), "none", first_order=True).estimate(
        x, region=region, feature_mask=ids, n_samples=32, seed=s, perturbations_per_eval=500) for s in range(8)]
    first = torch.cat([r.first_order for r in runs])
    assert (first - 1 / d).square().mean().sqrt() < 0.05
    assert (torch.cat([r.first_order_error for r in runs]).mean() / first.std(0).mean()).log().abs() < 0.5


def interacting(u: torch.Tensor) -> torch.Tensor:
    """Probabilities (B,) from 16 features of different weight, every pair of which interacts."""
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(16, generator=generator, dtype=u.dtype) * 2
    v = torch.randn(2, 16, generator=generator, dtype=u.dtype)
    centred = u - 0.5
    return (centred @ w + (centred @ v[0]) * (centred @ v[1])).sigmoid()


def covered(sampler: str, n: int, seeds: int) -> float:
    """The share of 95 % intervals of interacting features' scores that hold the truth of 40,000 independent draws."""
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.random((40_000, 16))) for _ in range(2))
    base, truth = reference_entropy(interacting(a)), np.zeros(16)
    for i in range(16):
        changed = a.clone()
        changed[:, i] = b[:, i]
        truth[i] = (reference_entropy(interacting(changed)) - base).abs().mean()
    x, ids = torch.ones(1, 1, 1, 16, dtype=torch.float64), torch.arange(16)[None]
    method, inside = EntropyCentric(OfFeatures(interacting), "none", sampler=sampler), []
    for seed in range(seeds):
        e = method.estimate(x, region=torch.ones(1, 16), feature_mask=ids, n_samples=n, seed=seed, perturbations_per_eval=600)
        inside.append(((e.scores[0] - torch.from_numpy(truth)).abs() <= e.margin()[0]).double())
    return float(torch.stack(inside).mean())


def reference_entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_the_intervals_of_the_default_design_hold_the_truth(n):
    assert (0.92 if n == 8 else 0.93) <= covered("supercube", n, 100) <= 0.975


@pytest.mark.slow
def test_intervals_of_independent_designs_hold_the_truth_and_those_of_a_sobol_sequence_do_not():
    assert 0.92 <= covered("monte_carlo", 32, 60) <= 0.98
    assert covered("sobol", 8, 60) < 0.9


@pytest.mark.parametrize("per_eval", [1, 4, 100])
def test_rows_that_reach_the_model(per_eval):
    model, x, n, d = Recorder(small_net()), torch.rand(2, 3, 8, 8) + 2, 4, 4
    region = torch.ones(2, 8, 8)
    EntropyCentric(model).estimate(x, 0.5, region=region, grid_size=2, n_samples=n, perturbations_per_eval=per_eval)
    assert max(len(s) for s in model.seen) <= 2 * per_eval
    assert len(model.seen.pop(1)) == 1  # the look whether a row gets the same outputs alone
    rows = torch.cat([s.reshape(-1, 2, 3, 8, 8) for s in model.seen])
    assert len(rows) == n * (d + 1)
    keep = ((rows - 0.5) / (x - 0.5))[:, 0, 0, ::4, ::4].reshape(n, d + 1, d)
    for j, design in enumerate(pick_freeze(n, d)):
        np.testing.assert_allclose(keep[j, 0], design.a, atol=1e-5)
        for i in range(d):
            changed = ((keep[j, i + 1] - keep[j, 0]).abs() > 1e-5).nonzero().flatten().tolist()
            assert changed == [i]
            np.testing.assert_allclose(keep[j, i + 1, i], design.b[i], atol=1e-5)
        assert not any(np.allclose(row, design.b, atol=1e-4) for row in keep[j])
    assert torch.allclose(rows[:, 0], 0.5 + (x[0] - 0.5) * keep.reshape(-1, d).reshape(-1, 1, 2, 2).repeat_interleave(
        4, 2).repeat_interleave(4, 3), atol=1e-5)


def test_predicted_region_costs_one_more_row():
    net = small_net()
    net[4].bias.data += 3
    model = Recorder(net)
    e = EntropyCentric(model).estimate(torch.randn(1, 3, 8, 8), grid_size=2, n_samples=4)
    assert sum(len(s) for s in model.seen) == 4 * 5 + 1 == int(e.n_forwards[0])


@pytest.mark.slow
def test_regions_share_the_forwards():
    model, x = Recorder(small_net()), torch.randn(1, 3, 16, 16)
    ids = torch.zeros(16, 16, dtype=torch.int64)
    ids[1:5, 1:5], ids[8:12, 3:9], ids[3:6, 10:15] = 4, 9, 30
    together = EntropyCentric(model).attribute_regions(x, ids, grid_size=4, n_samples=8)
    rows = sum(len(s) for s in model.seen)
    assert rows == 8 * 17
    for k, number in enumerate((4, 9, 30)):
        alone = EntropyCentric(model).attribute(x, grid_size=4, n_samples=8, region=ids[None] == number)
        assert torch.allclose(together[k], alone[0], atol=1e-6)


def test_planted_patches_and_unreachable_ones():
    class Planted(nn.Module):
        def forward(self, x):
            evidence = x[:, :, :8, :8].mean((1, 2, 3)) + x[:, :, 16:24, 24:].mean((1, 2, 3))
            return (2 * evidence)[:, None, None, None].expand(-1, 1, 32, 32)

    e = EntropyCentric(Planted()).estimate(torch.ones(1, 3, 32, 32), grid_size=4, n_samples=16)
    assert (e.scores[0] > 1e-6).nonzero().flatten().tolist() == [0, 11]
    net = small_net()
    region = torch.zeros(32, 32)
    region[:8, :8] = 1
    e = EntropyCentric(net).estimate(torch.randn(1, 3, 32, 32), region=region, grid_size=4, n_samples=8)
    far = [i for i in range(16) if i not in (0, 1, 4, 5)]
    assert e.scores[0, far].max() < 1e-6 < e.scores[0, 0]


def test_constant_network_is_flat():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, 8, 8), 2.0)

    with pytest.warns(UserWarning, match="flat map"):
        e = EntropyCentric(Constant()).estimate(torch.randn(1, 3, 8, 8), grid_size=2, n_samples=4)
    assert (e.scores == 0).all() and (e.total_order == 0).all() and (e.total_order_error == 0).all()


def test_tolerance_stops_each_example_on_its_own():
    net, x = small_net(), torch.randn(2, 3, 16, 16)
    x[1] *= 0.01
    run = EntropyCentric(net)
    arguments = dict(region=torch.ones(2, 16, 16), grid_size=2, n_samples=64, perturbations_per_eval=8)
    early = run.estimate(x, **(arguments | {"n_samples": 8})).standard_error.amax(1)
    between = float(early.mean())
    model = Recorder(net)
    e = EntropyCentric(model).estimate(x, **arguments, tolerance=between)
    assert int(e.n_samples[1].max()) == 8 < int(e.n_samples[0].max())
    assert e.standard_error[1].max() <= between < early[0]
    assert sum(len(s) for s in model.seen) == int(e.n_forwards.sum()) + 1  # one more row, to compare it with itself alone
    alone = run.estimate(x[1:], **(arguments | {"region": torch.ones(1, 16, 16)}), tolerance=between)
    assert torch.allclose(e.scores[1], alone.scores[0], atol=1e-6)


def test_stream_grows_to_the_estimate():
    x, method = torch.randn(1, 3, 8, 8), EntropyCentric(small_net())
    arguments = dict(region=torch.ones(8, 8), grid_size=2, n_samples=8, perturbations_per_eval=7)
    states = list(method.stream(x, **arguments))
    assert [int(e.n_samples[0].max()) for e in states] == list(range(1, 9))
    # The first designs of a stream come in passes of their own: other batches, so float32 may round otherwise.
    torch.testing.assert_close(states[-1].scores, method.estimate(x, **arguments).scores, rtol=0, atol=1e-6)
    assert not torch.equal(states[3].scores, states[-1].scores)


def test_saved_estimates_come_back(tmp_path):
    x = torch.randn(1, 3, 8, 10)
    e = EntropyCentric(small_net(), first_order=True).estimate(x, region=torch.ones(8, 10), grid_size=(2, 5), n_samples=4)
    back = Estimate.load(e.save(tmp_path / "one.npz"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.json", "one.npz"]
    assert all(torch.equal(getattr(e, n), getattr(back, n)) for n in Estimate.ARRAYS)
    assert back.settings == e.settings and back.settings["weights"]
    assert torch.equal(back.to_attribution(), e.to_attribution()) and back.to_attribution().shape == x.shape
    with pytest.raises(ValueError, match="nowhere"):
        Estimate.load(tmp_path / "nowhere")
    text = (tmp_path / "one.json").read_text()
    (tmp_path / "one.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match=r"one\.json belong to different estimates"):
        Estimate.load(tmp_path / "one.npz")


def test_same_answer_for_every_batch_size_and_random_state():
    x, region = torch.randn(3, 3, 8, 8), torch.ones(3, 8, 8)
    method = EntropyCentric(small_net())
    want = method.attribute(x, region=region, grid_size=4, n_samples=8)
    for seed, per_eval in ((1, 2), (2, 5), (3, 1000)):
        torch.manual_seed(seed)
        np.random.seed(seed)
        state = torch.get_rng_state()
        got = method.attribute(x, region=region, grid_size=4, n_samples=8, perturbations_per_eval=per_eval)
        assert torch.equal(state, torch.get_rng_state())
        assert torch.allclose(got, want, atol=1e-5)
    one = method.attribute(x[1:2], region=region[:1], grid_size=4, n_samples=8)
    assert torch.allclose(one[0], want[1], atol=1e-5)


def test_out_of_memory_halves_the_batch():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("too large")
            return self.net(x)

    x, arguments = torch.randn(1, 3, 8, 8), dict(region=torch.ones(8, 8), grid_size=2, n_samples=4)
    with pytest.warns(UserWarning, match="perturbations_per_eval=2"):
        got = EntropyCentric(Small()).attribute(x, **arguments, perturbations_per_eval=8)
    assert torch.allclose(got, EntropyCentric(Small()).attribute(x, **arguments), atol=1e-6)


def test_no_flat_warning_for_a_clear_map():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        region = torch.zeros(32, 32)
        region[:8, :8] = 1
        EntropyCentric(small_net()).estimate(torch.randn(1, 3, 32, 32), region=region, grid_size=4, n_samples=16)


def test_methods_that_share_forwards_give_what_each_gives_alone():
    model, x = small_net(), torch.randn(1, 3, 24, 24)
    seen = Recorder(model)
    methods = [EntropyCentric(seen), EntropyCentric(seen, reduction="object"), SobolTotal(seen)]
    arguments = dict(region=torch.ones(24, 24), n_samples=4, grid_size=3, perturbations_per_eval=7)
    question, budget = methods[0].ask(x, **arguments)
    joint = answer(question, budget, [method.quantity for method in methods])
    assert sum(map(len, seen.seen)) == 4 * 10 + 1  # one more row, to compare it with itself alone
    for method, found in zip(methods, joint, strict=True):
        alone = method.estimate(x, **arguments)
        assert torch.equal(found.scores, alone.scores) and torch.equal(found.standard_error, alone.standard_error)
        assert found.settings == alone.settings
    with pytest.raises(ValueError, match=r"no tolerance, got 0\.1"):
        answer(question, replace(budget, tolerance=0.1), [method.quantity for method in methods])


def test_an_estimate_says_in_one_line_what_it_is():
    e = EntropyCentric(small_net()).estimate(torch.randn(2, 3, 8, 10), region=torch.ones(2, 8, 10), grid_size=2, n_samples=4)
    largest = float(e.scores.max())
    assert repr(e).startswith("<Entropy Centric: 4 features of 2 examples, N = 4, 20 forwards, scores ")
    assert f" to {largest:.3g}, largest standard error {float(e.standard_error.max()):.2g}>" in repr(e)
