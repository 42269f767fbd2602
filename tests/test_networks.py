"""Networks as they come: in-place operations, train mode behind a lambda, odd dtypes, quantised, bound to a row, in wrappers."""
import functools
import logging
import operator
import threading
import warnings
import weakref
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerActivation
from conftest import Recorder, small_net
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from entropy_captum import EntropyCentric, LayerScoreCam, RegionScore, SobolTotal, l_sit
from entropy_captum.cam import seg_grad_cam
from entropy_captum.capture import captured, has_hooks
from entropy_captum.forward import as_forward, check_outputs, eval_mode, find_modules, weights_hash
from entropy_captum.inference import FullInference
from entropy_captum.methods import run_methods
from entropy_captum.question import Budget, Question

REGION = torch.zeros(8, 8)
REGION[2:6, 2:6] = 1
CALL = dict(region=REGION, grid_size=2, n_samples=4)
TOP = small_net().eval()


class Shifted(nn.Module):
    """A network behind a subtraction and a ReLU, in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace, self.net = inplace, small_net().eval()

    def forward(self, x, scale=None):
        x = x.sub_(0.2) if self.inplace else x - 0.2
        x = nn.functional.relu(x, inplace=self.inplace)
        if scale is not None:
            x = x * (scale.mul_(2) if self.inplace else scale * 2)
        return self.net(x)


@pytest.fixture
def image():
    torch.manual_seed(3)
    return torch.randn(1, 3, 8, 8)


CALLS = {
    "entropy": lambda m, x: EntropyCentric(m).attribute(x, **CALL),
    "predicted region": lambda m, x: EntropyCentric(m).attribute(x, grid_size=2, n_samples=4),
    "incremental": lambda m, x: EntropyCentric(m, inference="incremental").attribute(x, **CALL),
    "sobol": lambda m, x: SobolTotal(m).attribute(x, **CALL),
    "argument": lambda m, x: EntropyCentric(m).attribute(x, additional_forward_args=torch.ones(3, 8, 8), **CALL),
    "tests": lambda m, x: torch.stack(l_sit(m, x, x, region=REGION)[:3]),
    "tests with a label": lambda m, x: torch.stack(l_sit(m, x, x, region=REGION, label=REGION)[:3]),
    "captum": lambda m, x: FeatureAblation(RegionScore(m, REGION)).attribute(x),
    "captum's gradients": lambda m, x: IntegratedGradients(RegionScore(m, REGION)).attribute(x, n_steps=4),
    "score cam": lambda m, x: LayerScoreCam(RegionScore(m, REGION), m.net[0]).attribute(x),
    "grad cam": lambda m, x: seg_grad_cam(m, x, region=REGION, layer=m.net[0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_network_may_write_into_its_input(call, image):
    torch.manual_seed(0)
    given = image.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, found = call(Shifted(False), image), call(Shifted(True), given)
    if call is CALLS["incremental"]:  # the one in place cannot be captured and is run in full
        assert torch.allclose(want, found, atol=1e-6)
    else:
        assert torch.equal(torch.nan_to_num(want), torch.nan_to_num(found))
    assert torch.equal(given, image)


def test_arguments_and_baselines_are_not_written_into(image):
    scale, base = torch.ones(3, 8, 8), torch.full((1, 3, 8, 8), 0.3)
    EntropyCentric(Shifted(True)).attribute(image, base, additional_forward_args=scale, **CALL)
    model = Shifted(True)
    LayerScoreCam(RegionScore(model, REGION), model.net[0], "increase").attribute(image, baselines=base)
    assert (scale == 1).all() and (base == 0.3).all()


class Holder:
    def __init__(self, net):
        self.parts = [net]

    def predict(self, x, net=None):
        return self.parts[0](x)

    def __call__(self, x):
        return self.predict(x)


def behind(net):
    """Functions that hide a network in all the ways there are."""
    def inner(x):
        def innermost(y):
            return net(y)
        return innermost(x)

    def default(x, model=net):
        return model(x)

    return {"lambda": lambda x: net(x), "nested": inner, "default": default, "partial": functools.partial(default, model=net),
            "callable": Holder(net), "method of an object": Holder(net).predict, "forward": net.forward,
            "lambda of a lambda": (lambda f: lambda x: f(x))(lambda x: net(x)), "decorated": torch.no_grad()(inner)}


@pytest.mark.parametrize("how", behind(TOP))
def test_train_mode_does_not_hide(how, image):
    net = small_net()
    want = EntropyCentric(net).attribute(image, **CALL)
    statistics = net[1].running_mean.clone()
    for per_eval in (1, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*the order of the patches means little")  # of so few designs
            found = EntropyCentric(behind(net)[how]).attribute(image, perturbations_per_eval=per_eval, **CALL)
        assert torch.allclose(found, want, atol=1e-6)
    assert torch.equal(net[1].running_mean, statistics) and net.training and net[1].training
    assert find_modules(behind(net)[how]) == (net,) and weights_hash(behind(net)[how]) == weights_hash(net)


class Keeps(nn.Module):
    """Holds what leads to a network without registering it."""

    def __init__(self, kept, reach):
        super().__init__()
        self.__dict__["kept"] = kept
        self.reach = reach

    def forward(self, x):
        return self.reach(self.kept)(x)


class Names(nn.Module):
    def forward(self, x):
        return TOP(x)


@dataclass(slots=True)
class Slotted:
    net: nn.Module

    def __call__(self, x):
        return self.net(x)


def around(net):
    """Modules, and an object without attributes of its own, that hide a network where nothing registers it."""
    first = operator.itemgetter(0)
    return {"itself": Keeps(net, lambda kept: kept), "list": Keeps([net], first), "queue": Keeps(deque([net]), first),
            "deep": Keeps({"a": {"b": (net,)}}, lambda kept: kept["a"]["b"][0]), "function": Keeps([lambda x: net(x)], first),
            "object": Keeps(Holder(net), lambda kept: kept.predict), "global": Names(), "slots": Slotted(net),
            "part of a part": nn.Sequential(nn.Identity(), Keeps([net], first))}


@pytest.mark.filterwarnings("ignore:.*the order of the patches means little")  # of so few designs
@pytest.mark.parametrize("how", around(TOP))
def test_train_mode_does_not_hide_inside_of_a_module(how, image, monkeypatch):
    net = small_net()
    monkeypatch.setitem(globals(), "TOP", net)
    want, statistics, model = EntropyCentric(net.eval()).attribute(image, **CALL), net[1].running_mean.clone(), around(net)[how]
    if isinstance(model, nn.Module):
        model.eval()
    net.train()
    for per_eval in (1, 5):
        assert torch.allclose(EntropyCentric(model).attribute(image, perturbations_per_eval=per_eval, **CALL), want, atol=1e-6)
    assert torch.equal(net[1].running_mean, statistics) and net.training and net[1].training


def by_global(x):
    return TOP(x)


def test_globals_and_several_networks_are_found():
    one, two = small_net(), small_net(channels=3)
    assert find_modules(by_global) == (TOP,) and find_modules(lambda x: by_global(x)) == (TOP,)
    ensemble = {"a": one, "b": two}
    both = find_modules(lambda x: ensemble["a"](x) + ensemble["b"](x))
    assert both == (one, two) and find_modules(torch.sigmoid) == find_modules(nn.functional.interpolate) == ()
    with eval_mode(lambda x: ensemble["a"](x)):
        assert not one.training and not two.training
    assert one.training and two.training
    before = weights_hash(lambda x: [one, two])
    two[0].weight.data += 1
    assert weights_hash(lambda x: [one, two]) != before


class Across(nn.Module):
    def forward(self, x):
        return x[:, :1] - x.mean(0, keepdim=True)[:, :1] * 0.5


class Random(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x[:, :1])


def hidden(module):
    """A function in which no module is found."""
    forward = type(module).forward
    return lambda x: forward(None, x)


@pytest.mark.parametrize("model,per_eval,says", [
    (Across(), 4, "alone"), (Random(), 4, "alone"), (Random(), 1, "again"), (hidden(Across()), 1, "beside another"),
    (hidden(Random()), 1, "again"), (nn.BatchNorm2d(3, track_running_stats=False), 2, "alone")],
    ids=["across", "random by four", "random", "across, hidden", "random, hidden", "norm"])
def test_an_unsteady_network_is_said_to_be_one(model, per_eval, says, image):
    target = 0 if isinstance(model, nn.BatchNorm2d) else None
    with pytest.warns(UserWarning, match=rf"run {says} .*differ by [\d.e+]+ % of the largest"):
        EntropyCentric(model).attribute(image, target=target, perturbations_per_eval=per_eval, **CALL)


def test_a_steady_network_is_not_warned_about(image):
    for model in (small_net(), small_net().double(), small_net().bfloat16(), lambda x: x[:, :1]):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*one input run")
            EntropyCentric(model).attribute(image, perturbations_per_eval=4, **CALL)


@pytest.mark.parametrize("name,layer", [(n, m) for n, m in resnet18().named_modules() if isinstance(m, nn.BatchNorm2d)],
                         ids=lambda v: v if isinstance(v, str) else "")
def test_score_cam_reads_what_captum_reads(name, layer):
    torch.manual_seed(0)
    net = resnet18().eval()
    body = nn.Sequential(*list(net.children())[:-2], nn.Conv2d(512, 1, 1))
    x, layer = torch.randn(1, 3, 32, 32), dict(net.named_modules())[name]
    score = RegionScore(body, torch.ones(32, 32))
    want = LayerActivation(score, layer).attribute(x)
    found = LayerScoreCam(score, layer)._activation(x, None)
    assert torch.equal(found, want) and float(found.min()) < 0


def test_score_cam_reads_its_own_image_whatever_another_thread_runs(image, monkeypatch):
    net, other, own = small_net().eval(), torch.zeros_like(image), LayerScoreCam._score

    def foreign():
        with eval_mode(net), torch.no_grad():
            net(other)

    def then_another(self, *arguments):
        scores, thread = own(self, *arguments), threading.Thread(target=foreign)
        thread.start()
        thread.join(0.2)  # it may have to wait until this one is done
        return scores

    want = LayerScoreCam(RegionScore(net, REGION), net[0]).attribute(image)
    monkeypatch.setattr(LayerScoreCam, "_score", then_another)
    assert torch.equal(LayerScoreCam(RegionScore(net, REGION), net[0]).attribute(image), want)


@pytest.mark.slow
def test_a_view_is_captured_and_leaves_no_failure_behind():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net().eval()

        def forward(self, x):
            return self.net(x.view(x.shape[0], 3, x.shape[2] * x.shape[3]).view(x.shape))

    model, large = Views(), torch.randn(1, 3, 40, 40)
    crop = large[..., :32, :32]
    assert not crop.is_contiguous() and captured(model, crop) is captured(model, crop.contiguous())
    region = torch.zeros(32, 32)
    region[4:8, 4:8] = 1
    call = dict(region=region, grid_size=4, n_samples=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*going on in full")
        found = EntropyCentric(model, inference="incremental").attribute(crop, **call)
    want = EntropyCentric(model, inference="full").attribute(crop.contiguous(), **call)
    assert torch.allclose(found, want, atol=1e-6)


@pytest.mark.slow
def test_auto_says_once_why_it_runs_in_full(caplog, image):
    model = small_net()
    with caplog.at_level(logging.DEBUG, "entropy_captum"):
        for _ in range(2):
            EntropyCentric(model).attribute(image, **CALL)
    (record,) = caplog.records
    assert "run in full" in record.getMessage() and "longer" in record.getMessage()
    report = EntropyCentric(model).explain_plan(image, **CALL)
    assert ("runs in full, since" in str(report)) == (report.saving < 1.3) and "'auto'" in report._repr_html_()


class Extra(nn.Module):
    """Keeps a state that is no tensor."""

    def __init__(self, state):
        super().__init__()
        self.state, self.net = state, small_net()

    def get_extra_state(self):
        if self.state == "refuse":
            raise RuntimeError("no state for you")
        return self.state

    def set_extra_state(self, state):
        self.state = state

    def forward(self, x):
        return self.net(x)


def frozen():
    return torch.jit.freeze(torch.jit.script(small_net().eval()))


def quantised(scale=1.0):
    from torch.ao.quantization import quantize_dynamic

    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.mix = small_net().eval(), nn.Linear(8, 8)
            self.mix.weight.data *= scale

        def forward(self, x):
            return self.mix(self.net(x))

    return quantize_dynamic(Ends(), {nn.Linear}, torch.qint8)


@pytest.mark.parametrize("make", [lambda: Extra({"a": 1}), lambda: Extra("refuse"), lambda: Extra(lambda: 0), frozen, quantised,
                                  lambda: torch.jit.script(small_net())],
                         ids=["extra", "refuses", "not pickled", "frozen", "int8", "script"])
def test_bookkeeping_ends_no_call(make, image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make()
        e = EntropyCentric(model).estimate(image, **CALL)
        assert torch.isfinite(e.scores).all() and e.settings["weights"] == weights_hash(model)
        assert len(weights_hash(model)) == 16


def test_layers_that_wait_for_their_first_input_have_a_hash(image):
    lazy = nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.Conv2d(4, 1, 1)).eval()
    before = weights_hash(lazy)
    found = EntropyCentric(lazy).attribute(image, **CALL)
    assert torch.equal(EntropyCentric(lazy).attribute(image, **CALL), found) and weights_hash(lazy) != before


def test_the_hash_tells_quantised_weights_and_states_apart():
    assert weights_hash(Extra({"a": 1})) != weights_hash(Extra({"a": 2}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = quantised(1), quantised(2)
        assert weights_hash(one) != weights_hash(two) and weights_hash(one) == weights_hash(quantised(1))


def test_hooks_that_collect_for_a_library_do_not_refuse_the_shortcut():
    model, x = small_net().eval(), torch.randn(1, 3, 32, 32)
    seen = []

    def collect(module, args, output):  # as transformers leaves them: they do nothing unless it collects
        return None

    collect.__module__ = "transformers.utils.output_capturing"
    model[0].register_forward_hook(collect)
    assert not has_hooks(model)
    region = torch.zeros(32, 32)
    region[4:8, 4:8] = 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*going on in full")
        found = EntropyCentric(model, inference="incremental").attribute(x, region=region, grid_size=4, n_samples=4)
    want = EntropyCentric(model, inference="full").attribute(x, region=region, grid_size=4, n_samples=4)
    assert torch.allclose(found, want, atol=1e-6)
    model[0].register_forward_hook(lambda *_: seen.append(1))
    assert has_hooks(model)


def test_seg_grad_cam_takes_wrapped_networks(image):
    import segmentation_models_pytorch as smp

    x, region = torch.randn(1, 3, 32, 32), torch.ones(32, 32)
    net = smp.Unet("resnet18", encoder_weights=None).eval()
    want = seg_grad_cam(net, x, region=region)
    assert torch.equal(seg_grad_cam(nn.DataParallel(net), x, region=region), want)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_tensors_made_in_inference_mode(call, image):
    with torch.inference_mode():
        given = image.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, found = call(Shifted(False), image), call(Shifted(False), given)
        assert torch.equal(torch.nan_to_num(want), torch.nan_to_num(found))
        if call is CALLS["entropy"]:
            with torch.inference_mode():
                assert torch.equal(call(Shifted(False), given), want)


@pytest.mark.parametrize("weights,given", [(torch.bfloat16, torch.float32), (torch.float16, torch.float32),
                                           (torch.float32, torch.float64), (torch.float64, torch.float32),
                                           (torch.float32, torch.bfloat16)], ids=str)
def test_inputs_of_another_dtype_are_cast_to_the_weights(weights, given, image):
    torch.manual_seed(0)
    model, x = small_net().eval().to(weights), image.to(given)
    e = EntropyCentric(model).estimate(x, perturbations_per_eval=5, **CALL)
    want = EntropyCentric(small_net().eval()).estimate(image, **CALL)
    assert e.scores.dtype == torch.float64 and torch.allclose(e.scores, want.scores, rtol=0.1, atol=2e-2)
    score = RegionScore(model, REGION)
    assert score(x).dtype in (torch.float32, torch.float64)
    assert FeatureAblation(score).attribute(x).dtype.is_floating_point
    l_sit(model, x, x, region=REGION)
    leaf = x.clone().requires_grad_()
    score(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.dtype == given


class ChannelsLast(torch.nn.Module):
    """A network of images (B,H,W,C), which shifts them first."""

    def __init__(self, mean: float | None = 0.5) -> None:
        super().__init__()
        self.network, self.mean = small_net(), 0.0 if mean is None else torch.full((3,), mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mean).permute(0, 3, 1, 2))


@pytest.mark.parametrize("call", [CALLS["entropy"], CALLS["tests"], CALLS["captum"]])
@pytest.mark.parametrize("make,bands,says", [
    (lambda: small_net().to("meta"), 3, "'meta'.*load a checkpoint"),
    (small_net, 4, r"takes 3 channels, the input of shape \(\d, 4, 8, 8\) has 4"),
    (ChannelsLast, 3, r"takes its channels last .*layout = \"NHWC\" in its card, .*x\.permute\(0, 2, 3, 1\)"),
    (lambda: ChannelsLast(None), 3, r"takes its channels last")],
    ids=["meta", "bands", "channels last", "channels last, turned"])
def test_causes_are_said_in_a_line(make, bands, says, call):
    with pytest.raises(ValueError, match=says) as caught:
        call(make(), torch.randn(1, bands, 8, 8))
    assert "\n" not in str(caught.value)


def test_a_program_for_one_row_is_run_row_by_row(image):
    net = small_net().eval()
    program = torch.export.export(net, (image,)).module()
    with pytest.raises((RuntimeError, AssertionError)):
        program(image.expand(2, -1, -1, -1))
    want = EntropyCentric(net).attribute(image, **CALL)
    assert torch.allclose(EntropyCentric(program).attribute(image, perturbations_per_eval=4, **CALL), want, atol=1e-6)
    both = torch.cat([image, image.flip(-1)])
    assert torch.allclose(EntropyCentric(program).attribute(both, **CALL)[:1], want, atol=1e-6)


def test_the_networks_own_error_stays_its_own(image):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("of my own")

    with pytest.raises(RuntimeError, match=r"^of my own$"):
        EntropyCentric(Broken()).attribute(image, **CALL)


@pytest.mark.parametrize("name", ["attribute", "estimate", "stream", "explain_plan"])
def test_a_misspelled_keyword_is_named(name, image):
    with pytest.raises(TypeError) as caught:
        list(getattr(EntropyCentric(small_net()), name)(image, n_sample=4))
    assert "'n_sample'" in str(caught.value) and "Call" not in str(caught.value)
    if name != "attribute":
        assert "'n_samples'" in str(caught.value)


HEAT = torch.zeros(1, 2, 4, 4)
Pair = namedtuple("Pair", "scores heat")


class ModelOutput(OrderedDict):
    """A dict whose entries are attributes, as transformers returns."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.__dict__.update(entries)


@pytest.mark.parametrize("came,says,not_says", [
    ({"aux": HEAT, "out": HEAT}, r"model\(x\)\['out'\]", "lambda"),
    ({"masks": HEAT, "n": 1}, r"model\(x\)\['masks'\]", "out'"),
    (ModelOutput(logits=HEAT, hidden=(HEAT,)), r"ModelOutput.*model\(x\)\.logits", "'out'"),
    (ModelOutput(masks_queries_logits=HEAT), "none of them a score map", r"model\(x\)"),
    ([{"boxes": HEAT, "scores": HEAT}], "detection.*no score map", r"model\(x\)"),
    ((torch.zeros(1, 5), HEAT), r"model\(x\)\[1\]", "out"), (Pair(torch.zeros(1, 5), HEAT), r"model\(x\)\.heat", "out"),
    (None, "got NoneType", "out'"), ([], "list of 0", "out'"), ({}, "dict with", "out'"),
    (np.zeros((1, 2, 4, 4)), "ndarray", "out'"),
])
def test_the_advice_fits_what_came(came, says, not_says):
    with pytest.raises(TypeError, match=says) as caught:
        check_outputs(came, 1)
    assert not_says not in str(caught.value)


def test_a_decided_map_is_no_score_map():
    for wrong, says in ((HEAT.long(), "int64"), (HEAT[:, 0], r"outputs\[:, None\]")):
        with pytest.raises(ValueError, match=says):
            check_outputs(wrong, 1)


@pytest.mark.parametrize("inference", ["auto", "incremental"])
def test_advice_comes_before_a_capture(inference, monkeypatch):
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("captured before it was looked at"))
    x, region = torch.rand(1, 3, 64, 64), torch.ones(64, 64)
    with pytest.raises(TypeError, match="detection networks"):
        EntropyCentric(detector, inference=inference).attribute(x, region=region, n_samples=64)


def test_rows_are_run_as_often_as_said(image):
    model = Recorder(small_net())
    EntropyCentric(model).attribute(image, **CALL)
    assert [len(s) for s in model.seen] == [1] * 20
    engine = FullInference(model, None, 4)
    engine.clean((image,))
    assert engine.looked is False


class InClass(nn.Module):
    """Holds its network where no search looks."""

    nets = ()

    def forward(self, x):
        return self.nets[0](x)


class ByProperty:
    def __init__(self, net):
        self._get = weakref.ref(net)

    @property
    def net(self):
        return self._get()

    def __call__(self, x):
        return self.net(x)


class Helped(nn.Module):
    """One network that is found, and one behind a method that names a global."""

    def __init__(self, net):
        super().__init__()
        self.own = nn.Identity()
        HIDDEN[0] = weakref.ref(net)

    def help(self, x):
        return HIDDEN[0]()(x)

    def forward(self, x):
        return self.own(self.help(x))


HIDDEN: list = [None]
OUT_OF_SIGHT = {"in the class": lambda net: type("InOne", (InClass,), {"nets": [net]})(), "weak, by a property": ByProperty,
                "named by a helper": Helped}


@pytest.mark.parametrize("make", OUT_OF_SIGHT.values(), ids=OUT_OF_SIGHT)
def test_networks_that_no_search_finds_are_put_in_eval_mode_as_they_run(make, image):
    net = small_net()
    want, statistics, model = EntropyCentric(net.eval()).attribute(image, **CALL), net[1].running_mean.clone(), make(net)
    assert net not in find_modules(model)
    net.train()
    hooks = len(torch.nn.modules.module._global_forward_pre_hooks)
    for _ in range(2):
        assert torch.allclose(EntropyCentric(model).attribute(image, **CALL), want, atol=1e-6)
        assert torch.equal(net[1].running_mean, statistics) and net.training and net[1].training
    found = seg_grad_cam(model, image, region=REGION, layer=net[0])
    assert torch.equal(found, seg_grad_cam(net.eval(), image, region=REGION, layer=net[0]))
    assert len(torch.nn.modules.module._global_forward_pre_hooks) == hooks


def test_networks_of_other_threads_and_of_failed_calls_are_left_alone(image):
    other, net = small_net().train(), small_net().eval()
    flags = []

    def aside(x):
        thread = threading.Thread(target=lambda: flags.append((other(x), other.training)[1]))
        thread.start()
        thread.join()
        return net(x)

    with eval_mode(net):
        aside(image)
    assert flags == [True]
    hooks = len(torch.nn.modules.module._global_forward_pre_hooks)
    with pytest.raises(ZeroDivisionError):
        as_forward(lambda x: net(x) / (1 // 0))(image)
    assert len(torch.nn.modules.module._global_forward_pre_hooks) == hooks and other.training


def encoded():
    """A network with an encoder, always the same."""
    net = nn.Module()
    torch.manual_seed(1)
    net.encoder, net.head = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 1, 1)
    net.forward = lambda x: net.head(net.encoder(x))
    return net


@pytest.mark.parametrize("inside", [False, True], ids=["built there", "called there"])
@pytest.mark.parametrize("name", ["grad-cam", "input-x-gradient", "unoise"])
def test_methods_that_need_gradients_know_no_inference_mode(name, inside, image):
    def maps(net, x, region):
        return run_methods(Question(net, x, region, grid_size=2), Budget(n_samples=4), [name])[name].maps

    want, asked = maps(encoded(), image, REGION), torch.inference_mode()
    with asked:
        net, given, region = encoded(), image.clone(), REGION.clone()
        weight = net.head.weight
        if inside:
            assert torch.equal(maps(net, given, region), want)
    if not inside:
        assert torch.equal(maps(net, given, region), want)
    assert net.head.weight is weight and weight.is_inference()


@pytest.mark.parametrize("given", [dict(inputs=0), dict(region=0), dict(baselines=0), dict(feature_mask=0)], ids=str)
def test_tensors_without_numbers_are_said_to_have_none(given, image):
    place, = given
    values = {"inputs": image, "baselines": image, "region": REGION, "feature_mask": torch.zeros(1, 1, 8, 8, dtype=torch.int64)}
    asked = {"inputs": image, "region": REGION, "n_samples": 4, place: values[place].to("meta")}
    with pytest.raises(ValueError, match="'meta' and holds no numbers"):
        EntropyCentric(small_net().eval()).attribute(**asked)
    if place == "inputs":
        with pytest.raises(ValueError, match="'meta' and holds no numbers"):
            RegionScore(small_net().eval(), REGION)(asked["inputs"])
