"""Incremental inference: every rule against the operation, every architecture against full forwards, and what it refuses."""
import warnings

import exactness
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

import entropy_captum.incremental as incremental
import entropy_captum.layers as layers
import entropy_captum.planning as planning
from entropy_captum import EntropyCentric, SobolTotal
from entropy_captum.boxes import EMPTY, Box
from entropy_captum.capture import Unsupported, captured, is_captured
from entropy_captum.cost import CALL_SECONDS
from entropy_captum.evaluation import SitTester
from entropy_captum.inference import FullInference
from entropy_captum.layers import Site
from entropy_captum.passes import Network, full_box, make_plan
from entropy_captum.perturbation import Perturbation
from entropy_captum.plan_report import report_plan
from entropy_captum.planning import halves
from entropy_captum.question import Budget, Question
from entropy_captum.region import objects
from entropy_captum.sampling import A, B, Row, pick_freeze
from entropy_captum.zoo import Padded

aten = torch.ops.aten


def site_of(operation, tensors, weights, arguments, keywords):
    """A graph of one operation on maps `tensors` and `weights`, as the capture would record it."""
    graph, values = fx.Graph(), {}
    inputs = [graph.placeholder(f"x{k}") for k in range(len(tensors))]
    fixed = {name: graph.placeholder(name) for name in weights}
    for node, tensor in zip(inputs, tensors, strict=True):
        node.meta["val"] = values[node] = tensor
    for name, node in fixed.items():
        values[node] = weights[name]
    names = {f"x{k}": node for k, node in enumerate(inputs)} | fixed

    def swap(a):
        return names.get(a, a) if isinstance(a, str) else [swap(v) for v in a] if isinstance(a, list) else a

    node = graph.call_function(operation, tuple(swap(a) for a in arguments), {k: swap(v) for k, v in keywords.items()})
    node.meta["val"] = want = layers.run_node(node, values)
    graph.output(node)
    return Site(node, {n: values[n] for n in fixed.values()}), inputs, want[0] if isinstance(want, tuple) else want


@st.composite
def cases(draw, name):
    """An operation with drawn options: (operation, tensors, weights, arguments, keywords)."""
    height, width = draw(st.integers(5, 17)), draw(st.integers(5, 17))
    number = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    torch.manual_seed(number(0, 99))
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    stride, dilation, kernel = [number(1, 3), number(1, 3)], [number(1, 2), number(1, 2)], [number(1, 4), number(1, 4)]
    groups, shape = draw(st.sampled_from([1, 2, 4])), [6, 5]
    if name == "convolution":
        weights = {"w": torch.randn(8, 4 // groups, *kernel).double(), "b": torch.randn(8).double()}
        padding = [number(0, 3), number(0, 3)]
        if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip((height, width), padding, dilation, kernel, strict=True)):
            padding = [4, 4]
        return aten.conv2d.default, [x], weights, ("x0", "w", "b", stride, padding, dilation, groups), {}
    if name == "transposed":
        weights = {"w": torch.randn(4, 3, *kernel).double(), "b": torch.randn(3 * groups).double()}
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        padding = [number(0, 1), number(0, 1)]
        return aten.conv_transpose2d.input, [x], weights, ("x0", "w", "b", stride, padding, extra, groups, dilation), {}
    if name in ("max_pool", "avg_pool"):
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        if name == "max_pool":
            return aten.max_pool2d.default, [x], {}, ("x0", kernel, stride, padding), {}
        return aten.avg_pool2d.default, [x], {}, ("x0", kernel, stride, padding, False, draw(st.booleans())), {}
    if name == "adaptive":
        return aten.adaptive_avg_pool2d.default, [x], {}, ("x0", [number(1, 5), number(1, 5)]), {}
    if name in ("nearest", "bilinear"):
        by_factor = draw(st.booleans())
        factors = [draw(st.sampled_from([0.5, 1.5, 2.0, 3.0])) for _ in range(2)]
        size = None if by_factor else [number(2, 30), number(2, 30)]
        if name == "nearest":
            return aten.upsample_nearest2d.vec, [x], {}, ("x0", size, factors if by_factor else None), {}
        return aten.upsample_bilinear2d.vec, [x], {}, ("x0", size, draw(st.booleans()), factors if by_factor else None), {}
    if name == "pad":
        return aten.pad.default, [x], {}, ("x0", [number(0, 3) for _ in range(4)], "constant", 0.5), {}
    if name == "crop":
        return aten.slice.Tensor, [x], {}, ("x0", draw(st.sampled_from([2, 3, -1])), number(0, 2), number(3, 99)), {}
    if name == "pixel_shuffle":
        return aten.pixel_shuffle.default, [x], {}, ("x0", 2), {}
    if name == "cat":
        return aten.cat.default, [x, torch.randn(2, 3, height, width).double()], {}, (["x0", "x1"], 1), {}
    if name == "broadcast":
        small = torch.randn(2, 4, draw(st.sampled_from([1, height])), 1).double()
        return aten.mul.Tensor, [x, small], {}, ("x0", "x1"), {}
    if name == "softmax":
        return aten.softmax.int, [x], {}, ("x0", 1), {}
    if name == "batch_norm":
        weights = {n: torch.rand(4).double() + 0.1 for n in ("w", "b", "m", "v")}
        return aten._native_batch_norm_legit_no_training.default, [x], weights, ("x0", "w", "b", "m", "v", 0.1, 1e-5), {}
    assert name == "hardtanh" and len(shape) == 2
    return aten.hardtanh.default, [x], {}, ("x0", 0.0, 6.0), {}


RULES = ("convolution", "transposed", "max_pool", "avg_pool", "adaptive", "nearest", "bilinear", "pad", "crop", "pixel_shuffle",
         "cat", "broadcast", "softmax", "batch_norm", "hardtanh")


def spans(data, extent):
    start = data.draw(st.integers(0, extent - 1))
    return start, data.draw(st.integers(start + 1, extent))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_rules_compute_any_box_from_what_they_read(name, data):
    operation, tensors, weights, arguments, keywords = data.draw(cases(name))
    site, inputs, want = site_of(operation, tensors, weights, arguments, keywords)
    rule = layers.RULES.get(operation, layers.pointwise)
    layer = rule(site)
    if 0 in want.shape[2:] or not all(reach.complete for axes in layer.reach for reach in axes):
        return  # such a layer is run whole
    out = Box(*spans(data, want.shape[2]), *spans(data, want.shape[3]))
    reads = [layer.read(k, out) for k in range(len(layer.inputs))]
    parts = [tensors[inputs.index(n)][(..., *r.box.within(EMPTY))] for n, r in zip(layer.inputs, reads, strict=True)]
    got = layer.compute(parts, reads, out)
    assert torch.allclose(got, want[:, :, out.top:out.bottom, out.left:out.right], atol=1e-10)
    # What changes when a box of an input changes lies within the predicted box.
    which = data.draw(st.integers(0, len(layer.inputs) - 1))
    changed = [t.clone() for t in tensors]
    source = inputs.index(layer.inputs[which])
    box = Box(*spans(data, changed[source].shape[2]), *spans(data, changed[source].shape[3]))
    changed[source][:, :, box.top:box.bottom, box.left:box.right] += 1
    _, _, other = site_of(operation, changed, weights, arguments, keywords)
    differs = (other - want).abs().amax((0, 1)) > 1e-12
    predicted = layer.changed(which, box)
    differs[predicted.top:predicted.bottom, predicted.left:predicted.right] = False
    assert not differs.any()


PAIRS = [(a, "tu-vit_tiny_patch16_224.augreg_in21k" if a == "DPT" else "resnet18") for a in exactness.ARCHITECTURES]
PAIRS += [("Unet", e) for e in exactness.ENCODERS[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("architecture,encoder", PAIRS, ids=["-".join(p) for p in PAIRS])
def test_every_architecture_is_exact(architecture, encoder):
    size = {"Unet": 64, "PSPNet": 64, "PAN": 128}.get(architecture, 96)
    model = exactness.build(architecture, encoder, size)
    for where in ("centre", "corner"):
        found = exactness.compare(model, torch.randn(1, 3, size, size), exactness.place(where, (size, size)), every=3)
        assert found["difference"] <= 1e-4
    border = exactness.place("border", (size, size))
    double = exactness.compare(model.double(), torch.randn(1, 3, size, size).double(), border, every=5)
    assert double["difference"] <= 1e-10


def far_apart(size=96):
    regions = torch.zeros(2, size, size)
    regions[0, 4:14, 4:14] = 1
    regions[1, size - 12:size - 4, size - 16:size - 4] = 1
    return regions


@pytest.fixture(scope="module")
def unet():
    return exactness.build("Unet", "resnet18", 64)


@pytest.mark.slow
@pytest.mark.parametrize("method", [EntropyCentric, SobolTotal])
@pytest.mark.parametrize("options", [{}, {"interpolation": "bilinear"}, {"first_order": True}], ids=str)
def test_estimates_are_those_of_full_inference(unet, method, options):
    x, arguments = torch.randn(1, 3, 96, 96), dict(target=1, regions=far_apart(), n_samples=4, grid_size=(3, 4))
    ours = method(unet, inference="incremental", **options).estimate_regions(x, **arguments)
    theirs = method(unet, inference="full", **options).estimate_regions(x, **arguments, perturbations_per_eval=5)
    for name in ("scores", "standard_error", "total_order", "first_order"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=2e-5))


@pytest.mark.slow
def test_batches_masks_and_padding(unet):
    x, mask = torch.randn(2, 3, 50, 70), torch.from_numpy(objects(np.random.default_rng(0).random((50, 70)) > 0.7) % 9)[None, None]
    arguments = dict(target=0, feature_mask=mask, region=torch.ones(2, 50, 70), n_samples=4, perturbations_per_eval=5)
    a, b = (EntropyCentric(Padded(unet), inference=k).estimate(x, -1.0, **arguments) for k in ("incremental", "full"))
    assert torch.allclose(a.scores, b.scores, atol=1e-5)


class Local(nn.Module):
    """Looks at 5 x 5 pixels only."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x):
        return self.net(x)


def test_features_out_of_reach_are_not_run():
    region = torch.zeros(32, 32)
    region[2:6, 2:6] = 1
    model = Local()
    method, x = EntropyCentric(model, inference="incremental"), torch.randn(1, 3, 32, 32)
    estimate = method.estimate(x, region=region, n_samples=4, grid_size=4)
    reached = torch.zeros(16, dtype=torch.bool)
    reached[[0]] = True
    assert int(estimate.n_skipped) == 15 and int(estimate.n_forwards) == 4 * 2
    assert (estimate.scores[0][~reached] == 0).all() and (estimate.standard_error[0][~reached] == 0).all()
    assert (estimate.total_order[0][~reached] == 0).all() and estimate.scores[0, 0] > 0


def test_far_regions_get_plans_of_their_own(unet):
    assert halves([Box(0, 4, 0, 4), Box(3, 9, 2, 6)]) is None
    near = [Box(0, 4, 0, 4), Box(3, 9, 2, 6)]
    assert halves([Box(50, 60, 0, 9), *near]) == (near, [Box(50, 60, 0, 9)])
    perturbation = Perturbation((torch.randn(1, 3, 64, 64),), grid_size=4)
    model = Local()
    regions = torch.zeros(2, 64, 64)
    regions[0, :8, :8] = regions[1, -8:, -8:] = 1
    proposal = planning.propose(FullInference(model), perturbation, regions, Budget(16))
    assert len(proposal.engine.plans) == 2 and len(proposal.engine.skipped) == 14


@pytest.mark.slow
def test_memory_decides_the_chunk(unet):
    x, region = torch.randn(1, 3, 96, 96), far_apart()[:1]
    perturbation, full = Perturbation((x,), grid_size=4), FullInference(unet)
    large = planning.propose(full, perturbation, region, Budget(16))
    fixed, each = large.engine.plans[0].memory()
    three = fixed + 3 * each
    assert large.engine.chunk == 16 and planning.propose(full, perturbation, region, Budget(16, max_memory=three)).engine.chunk == 3
    with pytest.raises(Unsupported, match="the budget is"):
        planning.propose(full, perturbation, region, Budget(16, max_memory=fixed))
    arguments = dict(target=0, region=region, n_samples=8, grid_size=4)
    a, b = (EntropyCentric(unet, inference="incremental", max_memory=m).estimate(x, **arguments) for m in (three, None))
    assert torch.allclose(a.scores, b.scores, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["base", "features"])
def test_out_of_memory_halves_what_goes_through_a_pass(unet, monkeypatch, which):
    x, region = torch.randn(1, 3, 96, 96), far_apart()[:1]
    arguments = dict(target=0, region=region, n_samples=8, grid_size=4)
    want = EntropyCentric(unet, inference="incremental").estimate(x, **arguments)
    run_pass, tried = incremental.run_pass, []

    def at_most_three(network, steps, inputs, kept, keep=None):
        if (which == "base") == (not kept):
            tried.append(len(inputs))
            if len(inputs) > 3:
                raise torch.OutOfMemoryError("too large")
        return run_pass(network, steps, inputs, kept, keep)

    monkeypatch.setattr(incremental, "run_pass", at_most_three)
    monkeypatch.setattr(incremental, "CACHE_FRIENDLY", 2**40)
    with pytest.warns(UserWarning, match="out of memory: going on with 2 designs in one pass"):
        found = EntropyCentric(unet, inference="incremental").estimate(x, **arguments)
    assert max(tried) == 8 and torch.allclose(found.scores, want.scores, atol=1e-6)
    monkeypatch.setattr(incremental, "run_pass", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("too large")))
    with pytest.raises(torch.OutOfMemoryError, match="too large"):
        EntropyCentric(unet, inference="incremental").estimate(x, **arguments)


def test_a_model_trained_meanwhile_is_seen(unet):
    model, x, region = Local(), torch.randn(1, 3, 32, 32), torch.ones(32, 32)
    arguments = dict(region=region, n_samples=4, grid_size=2)
    before = EntropyCentric(model, inference="incremental").estimate(x, **arguments)
    model.net[0].weight.data *= 3
    after = EntropyCentric(model, inference="incremental").estimate(x, **arguments)
    want = EntropyCentric(model, inference="full").estimate(x, **arguments)
    assert torch.allclose(after.scores, want.scores, atol=1e-6) and not torch.allclose(before.scores, after.scores, atol=1e-3)


class Noisy(Local):
    def forward(self, x):
        return super().forward(x) + torch.rand_like(x[:, :1]) * 0


def hooked():
    model = Local()
    model.net[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("model,reason", [(Noisy(), "rand.*is random"), (hooked(), "forward hooks"),
                                          (lambda x: x[:, :1], "no torch.nn.Module")])
def test_what_cannot_be_run_incrementally_runs_in_full(model, reason):
    x = torch.randn(1, 3, 16, 16)
    arguments = dict(region=torch.ones(16, 16), n_samples=4, grid_size=2)
    with pytest.warns(UserWarning, match=reason):
        got = EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    assert torch.allclose(got, EntropyCentric(model, inference="full").attribute(x, **arguments), atol=1e-6)


def test_a_wrong_rule_is_noticed(monkeypatch):
    model, x = Local(), torch.randn(1, 3, 16, 16)

    def wrong(site):
        layer = layers.pointwise(site)
        return layers.Layer(layer.inputs, layer.reach, lambda t, r, o: F.relu(t[0]) + 0.1)

    monkeypatch.setitem(layers.RULES, aten.relu.default, wrong)
    arguments = dict(region=torch.ones(16, 16), n_samples=4, grid_size=2)
    with pytest.warns(UserWarning, match="differ from a full forward"):
        got = EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    assert torch.allclose(got, EntropyCentric(model, inference="full").attribute(x, **arguments), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_autocast_and_channels_last(unet, dtype, tolerance):
    x, region = torch.randn(1, 3, 64, 64).to(memory_format=torch.channels_last), far_apart(64)[:1]
    arguments = dict(target=0, region=region, n_samples=4, grid_size=4)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype):
        warnings.simplefilter("error")
        a, b = (EntropyCentric(unet, inference=k).estimate(x, **arguments) for k in ("incremental", "full"))
    assert torch.allclose(a.scores, b.scores, atol=tolerance)


def test_auto_is_full_for_short_runs_and_small_savings(monkeypatch):
    model, x = small_net(), torch.randn(1, 3, 16, 16)
    full, perturbation = FullInference(model), Perturbation((x,), grid_size=2)
    arguments = (full, perturbation, torch.ones(1, 16, 16), Budget(4))
    assert planning.choose_inference(*arguments) is full and not is_captured(model)
    captured(model, x)
    monkeypatch.setattr(planning, "WORTH", float("inf"))
    assert planning.choose_inference(*arguments) is full
    planning._declined.clear()
    monkeypatch.setattr(planning, "WORTH", 0.0)
    assert isinstance(planning.choose_inference(*arguments), incremental.IncrementalInference)


def test_a_prediction_counts_the_row_b_of_first_order_indices():
    """In full it is a row as any other, by the plan a base pass more."""
    model, x, region = small_net().eval(), torch.randn(1, 3, 16, 16), torch.zeros(1, 16, 16)
    region[0, :4, :4] = 1
    full, perturbation = FullInference(model), Perturbation((x,), grid_size=2)
    total, first = (planning.propose(full, perturbation, region, Budget(4, first_order=b)) for b in (False, True))
    row = sum(total.seconds.values())
    assert first.seconds == total.seconds and (total.full, first.full) == pytest.approx((5 * row, 6 * row))
    (plan,) = total.engine.plans
    base = sum(row_share(total.seconds, step) + CALL_SECONDS / first.engine.chunk for step in plan.base.steps)
    assert first.incremental - total.incremental == pytest.approx(base)
    for proposal, rows in ((total, 5), (first, 6)):
        table = report_plan(proposal).table
        assert table["full_ms"].sum() == pytest.approx(1e3 * rows * row)
        assert table["incremental_ms"].sum() == pytest.approx(1e3 * proposal.incremental)


def row_share(seconds, step) -> float:
    return seconds[step.node] * step.out.area / full_box(step.node).area


@pytest.mark.slow
def test_the_plan_is_reported(unet):
    report = EntropyCentric(unet).explain_plan(torch.randn(1, 3, 96, 96), target=0, region=far_apart()[0], n_samples=4)
    assert report.saving > 1 and "decoder.blocks.0" in set(report.table["module"]) and "predicted saving" in str(report)
    assert report.figure().axes and "<table" in report._repr_html_()
    with pytest.raises(ValueError, match="'quick'"):
        EntropyCentric(unet, inference="quick")
    with pytest.raises(ValueError, match=r"max_memory.*got 0"):
        EntropyCentric(unet, max_memory=0)


@pytest.mark.slow
def test_sit_tests_are_those_of_full_inference(unet):
    x, heat, region = torch.randn(2, 3, 96, 96), torch.rand(2, 96, 96), far_apart()
    short, full = (SitTester(Question(unet, x, region, target=1), k) for k in ("incremental", "full"))
    assert short.shortcut is not None and short.shortcut.steps.steps and full.shortcut is None
    for low in (True, False):
        for a, b in zip(short.test(low, heat), full.test(low, heat), strict=True):
            assert torch.allclose(a, b, atol=1e-3, equal_nan=True)
    assert torch.allclose(short.gap(heat), full.gap(heat), atol=1e-3)
    labelled = SitTester(Question(unet, x, region, target=1, label=region > 0), "incremental")
    assert labelled.shortcut is None and torch.isfinite(labelled.test(True, heat).iou_drop).all()


class Gate(nn.Module):
    """A channel gate computed from the flattened map: a view that is legal in one memory layout only."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1), nn.Linear(4 * 64, 4)

    def forward(self, x):
        y = self.first(x).relu()
        weights = self.gate(F.adaptive_avg_pool2d(y, 8).flatten(1)).sigmoid()
        return self.last(y * weights[:, :, None, None])


class ComputedNorm(nn.Module):
    """A BatchNorm whose affine parameters are computed, after a convolution and after an activation."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.w = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1), nn.Parameter(torch.randn(4))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("var", torch.rand(4) + 0.5)

    def forward(self, x):
        y = F.batch_norm(self.first(x), self.mean, self.var, 1 + self.w, self.w, False)
        return self.last(F.batch_norm(y.relu(), self.mean, self.var, 1 + self.w, self.w, False))


class Shared(nn.Module):
    """Values with several readers: a convolution before and after its BatchNorm, an activation in place, nearest by a factor."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        z = F.relu(self.norm(y), inplace=True)
        return self.last(F.interpolate(torch.cat([y, z], 1), scale_factor=2.05))[..., :32, :32]


@pytest.mark.parametrize("build", [Gate, ComputedNorm, Shared])
def test_unusual_networks_are_exact(build):
    torch.manual_seed(1)
    model, x = build().eval(), torch.randn(1, 3, 32, 32)
    arguments = dict(region=far_apart(32)[0], n_samples=4, grid_size=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="incremental")
        got = EntropyCentric(model, inference="incremental").estimate(x, **arguments).scores
    assert torch.allclose(got, EntropyCentric(model, inference="full").estimate(x, **arguments).scores, atol=1e-6)


@pytest.mark.slow
def test_a_model_rebuilt_after_capture_is_captured_anew():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1)), torch.randn(1, 3, 16, 16)
    arguments = dict(region=torch.ones(16, 16), n_samples=4, grid_size=2)
    EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    model[1], model[2] = nn.ReLU6(), nn.Conv2d(4, 1, 1, bias=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="incremental")
        got = EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    assert torch.allclose(got, EntropyCentric(model, inference="full").attribute(x, **arguments), atol=1e-6)


class Bordered(Local):
    """A factor that the captured graph holds as a constant, and scores of minus infinity at the border."""

    factor = 1.0

    def forward(self, x):
        return F.pad(super().forward(x)[..., 1:-1, 1:-1] * self.factor, (1, 1, 1, 1), value=-torch.inf)


def test_a_stale_graph_is_noticed_beside_infinite_scores():
    model, x, region = Bordered(), torch.randn(1, 3, 16, 16), torch.zeros(16, 16)
    region[4:10, 4:10] = 1
    arguments = dict(region=region, n_samples=4, grid_size=2)
    EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    model.factor = 5.0
    got = EntropyCentric(model, inference="incremental").attribute(x, **arguments)
    assert torch.allclose(got, EntropyCentric(model, inference="full").attribute(x, **arguments), atol=1e-6)
    assert planning.relative_difference(torch.tensor([torch.nan]), torch.ones(1)) == float("inf")
    model.factor = 1.0
    with pytest.warns(UserWarning, match="differ"):
        assert SitTester(Question(model, x, region), "incremental").shortcut is None


def test_what_was_not_worth_it_is_not_planned_again(monkeypatch):
    model, x = small_net().eval(), torch.randn(1, 3, 16, 16)
    captured(model, x)
    planned = []
    plan_regions = planning.plan_regions
    monkeypatch.setattr(planning, "plan_regions", lambda *a: planned.append(1) or plan_regions(*a))
    monkeypatch.setattr(planning, "WORTH", float("inf"))
    arguments = dict(region=torch.ones(16, 16), grid_size=2, n_samples=4)
    first, again = (EntropyCentric(model).attribute(x, **arguments) for _ in range(2))
    assert torch.equal(first, again) and len(planned) == 1
    EntropyCentric(model).attribute(x, **arguments | {"grid_size": 4})
    assert len(planned) == 2


@pytest.mark.slow
def test_a_network_without_operations_is_run_in_full():
    """Long enough for "auto" to look for a plan; the search used to end the call."""
    x, region = torch.randn(1, 1, 256, 256), torch.zeros(256, 256)
    region[40:90, 40:90] = 1
    auto, full = (EntropyCentric(nn.Identity(), inference=k).estimate(x, region=region, n_samples=8) for k in ("auto", "full"))
    assert torch.equal(auto.scores, full.scores)
    with pytest.raises(Unsupported, match="does nothing"):
        EntropyCentric(nn.Identity()).explain_plan(x, region=region)


@pytest.mark.slow
def test_rows_that_change_several_features_run_in_both_engines(unet):
    """A row says itself what it changes: pairs, and changes of B, need nothing else."""
    x, region, example = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64), torch.arange(1)
    region[0, 4:20, 4:20] = 1
    perturbation, full = Perturbation((x,), grid_size=4), FullInference(unet)
    rows = (A, B, Row("a", (0, 5)), Row("b", (1,)), Row("a", (2, 3, 15)))
    inputs = incremental.changed_inputs(incremental.feature_boxes(perturbation), rows)
    network = Network(captured(unet, x), unet, (64, 64))
    engine = incremental.IncrementalInference([make_plan(network, Box(4, 20, 4, 20), inputs)], full, 2)
    designs = list(pick_freeze(2, 16))

    def outputs(inference):
        blocks = inference.evaluate(perturbation, designs, rows, example)
        return {(j, row): output for block in blocks for j, row, output in zip(block.design, block.row, block.outputs, strict=True)}

    found, want = outputs(engine), outputs(full)
    assert found.keys() == want.keys() and len(found) == 2 * len(rows)
    for key, value in found.items():
        assert torch.allclose(value, want[key][..., 4:20, 4:20], atol=1e-4)
    assert not torch.allclose(want[0, rows[2]], want[0, A])
    assert torch.equal(designs[0].keep(Row("b", tuple(range(16)))), designs[0].keep(A))
