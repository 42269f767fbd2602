"""What makes full forwards: the network as it was written, its folded layers, or another program; only what agrees is used."""
from __future__ import annotations

import gc
import sys
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from entropy_captum import EntropyCentric, SobolTotal, faster
from entropy_captum.faster import Choice, FastForward, choose_engine, choose_program, find_program, try_program
from entropy_captum.incremental import IncrementalInference
from entropy_captum.inference import FullInference
from entropy_captum.layers import layout
from entropy_captum.models import load_model
from entropy_captum.question import Budget, Question

SIDE = 48


class Small(nn.Module):
    """A network with what is folded, depthwise layers, a skip connection and a change of size; its layers tell when they run."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(16, 1, 1)
        with torch.no_grad():
            for norm in (self.stem[1], self.deep[1]):
                norm.running_mean.uniform_(-0.3, 0.3)
                norm.running_var.uniform_(0.1, 0.4)
            self.head.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.stem(x)
        both = torch.cat([first, self.deep(first)], 1)
        return nn.functional.interpolate(self.head(both), scale_factor=2.0, mode="nearest")


class Swapped(nn.Module):
    """Its answer for a row depends on the row beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x - x.mean(0, keepdim=True))


class Branching(nn.Module):
    """No exporter can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if float(x.detach().mean()) > 0.5 else -self.conv(x)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(faster, "_chosen", type(faster._chosen)())


@pytest.fixture
def network() -> nn.Module:
    return Small().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def ask(model, x: torch.Tensor) -> Question:
    region = torch.zeros(1, SIDE, SIDE)
    region[:, 12:36, 12:30] = 1
    return Question(model, x[:1], region, grid_size=3)


def engine_of(model, x: torch.Tensor, **options):
    question = ask(model, x)
    full = FullInference(question.network, None, 4)
    return choose_engine(full, question.perturbation, question.regions, Budget(4, 4, **options))


def always(monkeypatch) -> None:
    """Each run is long, and each program fast."""
    monkeypatch.setattr(faster, "LONG_RUN", 0)
    monkeypatch.setattr(faster, "speed_of", lambda *_: 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@torch.no_grad()
def test_every_program_gives_the_networks_own_scores_in_any_batch(network, images, runtime: str) -> None:
    program, want = try_program(runtime, network, images[:1]).program, network(images)
    assert float(want.abs().max()) > 1
    for rows in (1, 2, 5):
        assert float((program(images[:rows]) - want[:rows]).abs().max()) < 1e-5


@torch.no_grad()
def test_folded_layers_run_channels_last_and_few_rows_at_a_time(network, images, monkeypatch) -> None:
    seen, real = [], faster.run_pass
    def noted(net, steps, x, kept):
        seen.append((len(x), layout(x)))
        return real(net, steps, x, kept)
    monkeypatch.setattr(faster, "run_pass", noted)
    monkeypatch.setattr(faster, "CACHE_FRIENDLY", 2 * 4 * 16 * (SIDE // 2) ** 2)  # two rows of the largest map, of 16 channels
    folded = faster.Folded(network, images[:1])
    folded(images)
    assert seen == [(2, torch.channels_last), (2, torch.channels_last), (1, torch.channels_last)]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize("off", [1e-2, 2e-4, float("nan")])
@torch.no_grad()
def test_a_program_that_is_off_is_not_used(network, images, monkeypatch, runtime: str, off: float) -> None:
    real = faster.make_program
    def wrong(*given):
        run = real(*given)
        return lambda x: run(x) + off
    monkeypatch.setattr(faster, "speed_of", lambda *_: 9.0)
    monkeypatch.setattr(faster, "make_program", wrong)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = FastForward(network, runtime)
        assert torch.equal(fast(images), network(images)) and fast.choice(images[:1]).program is None
        fast(images)
        FastForward(network, runtime)(images)
    told = [str(w.message) for w in caught]
    assert len(told) == (runtime in ("onnxruntime", "openvino"))  # said once, and of "torch" and "auto" not at all
    assert all(f"{runtime} is not possible, going on with torch: its logits differ" in line for line in told)


@pytest.mark.slow
@torch.no_grad()
def test_one_that_is_right_for_the_first_row_alone_is_not_used(network, images, monkeypatch) -> None:
    real = faster.make_program
    def first_alone(*given):
        run = real(*given)
        return lambda x: run(x[:1]).expand(len(x), -1, -1, -1)
    monkeypatch.setattr(faster, "make_program", first_alone)
    with pytest.raises(ValueError, match="its logits differ from torch's by"):
        try_program("openvino", network, images[:1])
    with pytest.raises(ValueError, match="its logits differ"):  # as a network whose rows depend on each other, run row by row
        monkeypatch.setattr(faster, "make_program", lambda _, net, __: lambda x: torch.cat([net(row) for row in x.split(1)]))
        try_program("torch", Swapped().eval(), images[:1])


@pytest.mark.parametrize(("speeds", "best"), [((1.6, 2.0, 3.0), "openvino"), ((1.6, 2.0, 1.9), "onnxruntime"),
                                              ((2.6, 2.0, 1.9), "torch"), ((1.05, 0.5, 1.0), None)])
def test_auto_takes_the_fastest_that_agrees_or_none(network, images, monkeypatch, speeds, best) -> None:
    given = dict(zip(("torch", "onnxruntime", "openvino"), speeds, strict=True))
    monkeypatch.setattr(faster, "try_program", lambda name, *_: Choice(name, lambda x: x, given[name]))
    found = find_program(network, images[:1], "auto")
    assert found.program is None if best is None else (found.runtime, found.speed) == (best, given[best])
    assert find_program(network, images[:1], "onnxruntime").runtime == "onnxruntime"  # who names one gets it, fast or not


def test_auto_goes_without_what_is_not_installed_and_a_name_without_its_extra_is_an_error(network, images, monkeypatch) -> None:
    always(monkeypatch)
    tried = []
    monkeypatch.setattr(faster, "try_program", lambda name, *_: tried.append(name) or Choice(name, lambda x: x, 2.0))
    real = faster.find_spec
    monkeypatch.setattr(faster, "find_spec", lambda name: None if name == "openvino" else real(name))
    find_program(network, images[:1], "auto")
    assert tried == ["torch", "onnxruntime"]
    for runtime, extra in (("openvino", "openvino"), ("onnxruntime", "onnx")):
        monkeypatch.setitem(sys.modules, runtime, None)
        with pytest.raises(ImportError, match=rf"this needs the package {runtime}: pip install .*{extra}"):
            EntropyCentric(network, runtime=runtime).estimate(images[:1], n_samples=2, grid_size=2)


@pytest.mark.slow
def test_what_openvino_compiles_has_float32_asked_for(network, images, monkeypatch) -> None:
    import openvino
    asked, real = [], openvino.Core.compile_model
    monkeypatch.setattr(openvino.Core, "compile_model", lambda self, *a: asked.append(a[2]) or real(self, *a))
    try_program("openvino", network, images[:1])
    assert [options["INFERENCE_PRECISION_HINT"] for options in asked] == ["f32"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize("method", [EntropyCentric, SobolTotal])
def test_scores_are_those_of_torch_for_any_batch(network, images, monkeypatch, method, runtime: str) -> None:
    ask = dict(region=torch.ones(SIDE, SIDE), n_samples=8, grid_size=3)
    want = method(network, inference="full").estimate(images[:2], **ask).scores  # too short a run for anything but the network
    always(monkeypatch)
    for rows in (1, 3, 16):
        found = method(network, inference="full", runtime=runtime).estimate(images[:2], perturbations_per_eval=rows, **ask).scores
        assert float(want.max()) > 0.01 and torch.allclose(found, want, atol=1e-4)


@pytest.mark.slow
def test_a_run_takes_the_program_and_short_ones_the_network(network, images, monkeypatch) -> None:
    assert engine_of(network, images, inference="full").forward.origin is network
    assert not isinstance(engine_of(network, images, inference="full").forward, FastForward)
    assert not isinstance(engine_of(network, images, inference="full", runtime="auto").forward, FastForward)
    assert engine_of(network, images, inference="full", runtime="onnxruntime").forward.runtime == "onnxruntime"
    always(monkeypatch)
    for runtime in ("torch", "auto"):
        engine = engine_of(network, images, inference="full", runtime=runtime)
        assert engine.forward.runtime == runtime and engine.rows_per_forward == 4


@pytest.mark.slow
def test_a_plan_that_saves_more_is_not_given_up(network, images, monkeypatch) -> None:
    always(monkeypatch)
    assert isinstance(engine_of(network, images, inference="incremental", runtime="openvino"), IncrementalInference)
    for saving, kept in ((4.5, True), (3.95, True), (3.0, False)):  # programs are three times as fast, a plan must be worth 1.3
        question = ask(network, images)
        full = FullInference(question.network)
        plan = IncrementalInference(engine_of(network, images, inference="incremental").plans, full, 4, saving)
        monkeypatch.setattr(faster, "choose_inference", lambda *_, plan=plan: plan)
        engine = choose_engine(full, question.perturbation, question.regions, Budget(4, runtime="openvino"))
        assert isinstance(engine, IncrementalInference) == kept
        monkeypatch.undo()
        always(monkeypatch)


@pytest.mark.slow
def test_programs_are_made_once_for_weights_and_size_and_anew_for_others(network, images, monkeypatch) -> None:
    made, real = [], faster.find_program
    monkeypatch.setattr(faster, "find_program", lambda *a: made.append(tuple(a[1].shape)) or real(*a))
    first = choose_program(network, images[:1], "onnxruntime")
    assert choose_program(network, images[1:2], "onnxruntime") is first and len(made) == 1
    choose_program(network, images[:1, :, :32, :32], "onnxruntime")
    assert made == [(1, 3, 48, 48), (1, 3, 32, 32)]
    network.head.bias.data += 1.0  # behind the back of autograd's counter
    with torch.no_grad():
        assert torch.allclose(choose_program(network, images[:1], "onnxruntime").program(images), network(images), atol=1e-4)
    assert len(made) == 3
    for side in range(8, 8 + 2 * faster.MOST_KEPT, 2):
        monkeypatch.setattr(faster, "find_program", lambda *_: Choice("torch"))
        choose_program(network, torch.zeros(1, 3, side, side), "torch")
    assert len(faster._chosen[network]) == faster.MOST_KEPT


@pytest.mark.slow
def test_a_program_that_is_remembered_does_not_keep_its_network(images, monkeypatch) -> None:
    always(monkeypatch)
    model = Small().eval()
    assert choose_program(model, images[:1], "torch").program is not None
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_hooks_gradients_and_other_inputs_meet_the_network(network, images, monkeypatch) -> None:
    fast = FastForward(network, "onnxruntime")
    x = images[:1].clone().requires_grad_()
    fast(x).sum().backward()
    want = images[:1].clone().requires_grad_()
    network(want).sum().backward()
    assert torch.equal(x.grad, want.grad) and float(x.grad.abs().max()) > 0
    seen = []
    handle = network.head.register_forward_hook(lambda *a: seen.append(1))
    fast(images)
    assert seen == [1]
    handle.remove()
    assert torch.equal(fast(images.double()), TorchOf(network)(images.double()))
    fast(images)
    assert seen == [1] and fast.programs[SIDE, SIDE].program is not None


def TorchOf(network):
    from entropy_captum.forward import TorchForward
    return TorchForward(network)


def test_a_named_program_that_cannot_run_the_question_says_so_and_torch_goes_on(network, images) -> None:
    alone = dict(region=torch.ones(SIDE, SIDE), n_samples=2, grid_size=2)
    want = EntropyCentric(network).estimate(images[:1], **alone).scores
    with pytest.warns(UserWarning, match="openvino is not possible, going on with torch: it runs networks of one image tensor"):
        found = EntropyCentric(lambda x: network(x), runtime="openvino").estimate(images[:1], **alone).scores
    assert torch.equal(found, want)
    with pytest.warns(UserWarning, match="onnxruntime is not possible, going on with torch: Branching cannot be exported to ONNX"):
        EntropyCentric(Branching(), runtime="onnxruntime").estimate(images[:1], **alone)


def test_unknown_runtimes_are_refused_before_any_forward(network) -> None:
    for make in (lambda: EntropyCentric(network, runtime="tensorrt"), lambda: Budget(runtime="tensorrt"),
                 lambda: load_model(runtime="tensorrt")):
        with pytest.raises(ValueError, match="runtime must be one of torch, onnxruntime, openvino, auto, got 'tensorrt'"):
            make()


@pytest.mark.slow
def test_load_model_takes_the_same_words(images, monkeypatch) -> None:
    monkeypatch.setattr(faster, "speed_of", lambda *_: 3.0)
    card = {"scale": 1 / 255, "mean": 0.5, "std": 0.5}
    plain, auto = load_model(Small(), card, runtime="torch"), load_model(Small(), card, runtime="auto")
    assert isinstance(plain, nn.Module) and auto.runtime == "auto"
    with torch.no_grad():
        assert torch.allclose(auto(images), plain(images), atol=1e-4) and auto.programs[SIDE, SIDE].program is not None


@pytest.mark.slow
def test_the_command_takes_auto(tmp_path, monkeypatch) -> None:
    from PIL import Image
    from typer.testing import CliRunner

    from entropy_captum import cli
    from entropy_captum.drawn import procedural_scene
    monkeypatch.setattr(faster, "speed_of", lambda *_: 3.0)
    Image.fromarray(procedural_scene(2, 64).image).save(tmp_path / "tile.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 12:36] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "nets.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    card = {'scale': 1 / 255, 'mean': 0.5}\n\n    def __init__(self):\n"
        "        super().__init__()\n        torch.manual_seed(0)\n        self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)\n\n"
        "    def forward(self, x):\n        return 9 * self.conv(x)\n")
    maps = {}
    for runtime in ("torch", "auto"):
        done = CliRunner().invoke(cli.app, ["explain", str(tmp_path / "tile.png"), "--mask", str(tmp_path / "mask.png"), "--out",
                                            str(tmp_path / runtime), "--grid-size", "3", "--n-samples", "4", "--runtime", runtime,
                                            "--model", f"{tmp_path}/nets.py:Net"])
        assert done.exit_code == 0, (done.output, done.exception)
        maps[runtime] = np.load(tmp_path / runtime / "entropy.npy")
    assert maps["torch"].max() > 0.001 and np.abs(maps["torch"] - maps["auto"]).max() < 1e-4
