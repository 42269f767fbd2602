"""Weights as training leaves them: every wrapping comes off, the right set is taken, and nothing foreign passes for the network."""
import argparse
import json
import logging
import subprocess
import sys
import warnings
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from conftest import small_net
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from entropy_captum import training
from entropy_captum.checkpoints import load_weights
from entropy_captum.drawn import write_scenes
from entropy_captum.models import load_model
from entropy_captum.training import Recipe, train
from entropy_captum.zoo import rooftop_unet


def network(seed: int = 0) -> nn.Module:
    """Names with a `model` of their own in the middle, as timm's encoders have, and batch statistics."""
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    net = nn.ModuleDict({"encoder": nn.ModuleDict({"model": inner}), "head": nn.Conv2d(4, 1, 1)})
    inner[1].running_mean.normal_()
    return net.eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())


def load(path, content) -> nn.Module:
    torch.save(content, path)
    return load_weights(network(1), path)


@pytest.mark.parametrize("order", list(permutations(("model", "module", "_orig_mod", "net"), 3))[::3], ids=".".join)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net", "ema"])
def test_prefixes_come_off_in_any_order(tmp_path, order, key, caplog):
    want = network()
    state = {".".join((*order, name)): value for name, value in want.state_dict().items()}
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "entropy_captum"):
        warnings.simplefilter("error")
        found = load(tmp_path / "a.pth", state if key is None else {key: state, "epoch": 3, "optimizer": {"state": {0: {
            "exp_avg": torch.ones(4, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]}})
    assert same(found, want) and not found.training
    assert repr(f"{'' if key is None else key + '.'}{'.'.join(order)}.") in caplog.text, "the wrapping is said"


@pytest.mark.slow
def test_wrappings_that_torch_itself_makes(tmp_path):
    want = network()
    compiled = torch.compile(nn.DataParallel(want))
    assert next(iter(compiled.state_dict())).startswith("_orig_mod.module.encoder")
    parts = network()
    parts["encoder"] = torch.compile(nn.DataParallel(parts["encoder"]))
    assert next(iter(parts.state_dict())).startswith("encoder._orig_mod.module.model")
    by_part = {name: part.state_dict() for name, part in want.items()}
    for state in (compiled.state_dict(), parts.state_dict(), by_part):
        assert same(load(tmp_path / "a.pt", state), want)
    save_file(dict(compiled.state_dict()), tmp_path / "a.safetensors")
    assert same(load_weights(network(1), tmp_path / "a.safetensors"), want)
    into = torch.compile(network(1))
    torch.save(want.state_dict(), tmp_path / "plain.pth")
    assert same(load_weights(into, tmp_path / "plain.pth")._orig_mod, want)


def test_of_several_sets_the_running_average_is_loaded_and_said(tmp_path):
    raw, average = network(), AveragedModel(network(2), use_buffers=True)
    want = network(2)
    for name in ("average", "shadow"):  # the second is known by its counter alone
        with pytest.warns(UserWarning, match=rf"2 sets of weights.*'model\.', '{name}\.module\.'; the running average is loaded"):
            assert same(load(tmp_path / "state.pt", {"model": raw.state_dict(), name: average.state_dict()}), want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load(tmp_path / "alone.pt", average.state_dict()), want), "n_averaged is no tensor of the network"
        assert same(load(tmp_path / "twice.pt", {"model": raw.state_dict(), "best": raw.state_dict()}), raw)
    with pytest.warns(UserWarning, match="running average"):
        assert same(load(tmp_path / "timm.pth", {"state_dict": raw.state_dict(), "state_dict_ema": want.state_dict()}), want)
    with pytest.raises(ValueError, match=r"student.*teacher.*save the one that is meant"):
        load(tmp_path / "two.pth", {"student": raw.state_dict(), "teacher": want.state_dict()})


@pytest.mark.parametrize("kind", ["parameters", "a list"])
def test_a_running_average_that_is_passed_over_is_said(tmp_path, kind):
    """As libraries keep one that average parameters alone."""
    raw, averaged = network(), dict(network(2).named_parameters())
    assert any(True for _ in raw.buffers())
    kept = averaged if kind == "parameters" else {"decay": 0.9, "shadow_params": list(averaged.values())}
    with pytest.warns(UserWarning, match=r"average, 'ema', is no whole set .* passed over; those under 'model\.' are loaded"):
        assert same(load(tmp_path / "state.pt", {"model": raw.state_dict(), "ema": kept}), raw)


def test_what_lies_beside_the_network_is_named_and_left(tmp_path):
    want = network()
    lightning = {f"model.{name}": value for name, value in want.state_dict().items()}
    lightning |= {"mean": torch.ones(3), "loss.pos_weight": torch.ones(1), "metric.head.weight": torch.ones(2)}
    with pytest.warns(UserWarning, match=r"beside the network \(3\) are not loaded: state_dict\.mean, state_dict\.loss"):
        assert same(load(tmp_path / "last.ckpt", {"state_dict": lightning, "loops": {}}), want)
    with pytest.warns(UserWarning, match=r"beside the network \(1\) are not loaded: aux\.weight"):
        assert same(load(tmp_path / "aux.pth", want.state_dict() | {"aux.weight": torch.ones(2)}), want)


def test_what_does_not_fit_is_named(tmp_path):
    state = {f"net.{name}": value for name, value in network().state_dict().items()}
    deeper = state | {"net.encoder.model.2.weight": torch.ones(4)}
    for content, message in ((deeper, r"has the unknown 1 tensors.*net\.encoder\.model\.2\.weight"),
                             ({k: v for k, v in state.items() if "head.bias" not in k}, "lacks 1 tensors, the first: head.bias"),
                             (state | {"net.head.weight": torch.ones(2, 4, 1, 1)}, r"1 .*\(2, 4, 1, 1\) for \(1, 4, 1, 1\)"),
                             ({"epoch": 3}, "lacks 8 tensors"), ([1, 2], "expected a state dict.*got list"),
                             ({"hparams": argparse.Namespace(lr=1), "state_dict": state}, "argparse.Namespace, but only tensors"),
                             (network(), "holds a torch.nn")):
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "a.pth", content)


def test_a_checkpoint_of_ones_own_network_says_how_to_give_it(tmp_path):
    """It names no architecture; what the error tells one to write works."""
    path, card = tmp_path / "last.ckpt", {"scale": 1 / 255, "mean": 0.5, "std": 0.25}
    torch.save({"state_dict": small_net().state_dict(), "hyper_parameters": {"lr": 0.1}}, path)
    with pytest.raises(ValueError, match=r"lacks .* the bundled network was tried.* give file\.py:make") as told:
        load_model(path, card)
    call = str(told.value).split("returns ")[1]
    (tmp_path / "file.py").write_text("import entropy_captum.checkpoints\nfrom torch import nn\n\n\ndef make():\n"
                                      "    network = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(),\n"
                                      "                            nn.Dropout(), nn.Conv2d(8, 1, 3, padding=1))\n"
                                      f"    return {call}\n")
    assert same(load_model(f"{tmp_path / 'file.py'}:make", card).model, small_net())


def test_only_a_checkpoint_that_names_no_network_is_told_so(tmp_path):
    """Where two sets of weights fit, or `train` wrote down the encoder, a function of one's own is not what is missing."""
    own = rooftop_unet().state_dict()
    torch.save({"first": own, "second": {name: value + 1 for name, value in own.items()}}, tmp_path / "two.pth")
    torch.save({"state_dict": small_net().state_dict(), "recipe": {"encoder": "resnet18"}}, tmp_path / "train.pth")
    for name, words in (("two.pth", "save the one that is meant by itself$"), ("train.pth", "does the architecture match.$")):
        with pytest.raises(ValueError, match=words):
            load_model(tmp_path / name)


def test_a_larger_network_does_not_pass_for_a_smaller_one(tmp_path):
    """Every tensor of a ResNet-18 has its name and shape in a ResNet-34."""
    small, large = (smp.encoders.get_encoder(name, weights=None) for name in ("resnet18", "resnet34"))
    assert small.state_dict().keys() < large.state_dict().keys()
    torch.save(large.state_dict(), tmp_path / "large.pth")
    with pytest.raises(ValueError, match="has the unknown"):
        load_weights(small, tmp_path / "large.pth")


@pytest.mark.slow
def test_what_training_keeps_can_be_explained(tmp_path):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    recipe = Recipe(encoder="resnet18", steps=2, batch_size=2, crop=64, procedural=0)
    weights = train([tmp_path / "toy"], tmp_path / "run", recipe, show_progress=False)
    with pytest.warns(UserWarning, match="'average.module.'"):
        kept = rooftop_unet(tmp_path / "run" / "state.pt")
    # The file of weights holds the running average in half precision.
    for (name, value), other in zip(kept.named_parameters(), rooftop_unet(weights).parameters(), strict=True):
        assert torch.allclose(value, other, atol=1e-3, rtol=1e-3), name
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert torch.equal(kept.state_dict()["encoder.conv1.weight"], state["average"]["module.encoder.conv1.weight"])
    (tmp_path / "run" / "state.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"state\.pt: not a readable weights file"):
        train([tmp_path / "toy"], tmp_path / "run", recipe, show_progress=False)


@pytest.mark.slow
def test_a_full_disk_or_a_kill_while_the_log_is_written_ends_no_run(tmp_path, monkeypatch):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    recipe = Recipe(encoder="resnet18", steps=2, batch_size=2, crop=64, procedural=0)
    run = partial(train, [tmp_path / "toy"], recipe=recipe, validate_every=1, show_progress=False)
    want = run(out=tmp_path / "calm").read_bytes()
    real, calls = training.torch.save, []

    def full(content, path):
        real(content, path)
        calls.append(path)
        if len(calls) == 2:
            raise RuntimeError("PytorchStreamWriter failed writing file data/15")

    monkeypatch.setattr(training.torch, "save", full)
    with pytest.raises(ValueError, match=r"state\.pt: could not be written .*make room"):
        run(out=tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("*.tmp"))
    log = tmp_path / "cut" / "log.json"
    assert [entry["step"] for entry in json.loads(log.read_text())] == [1, 2], "the log is a step ahead of the state"
    assert run(out=tmp_path / "cut").read_bytes() == want
    assert [entry["step"] for entry in json.loads(log.read_text())] == [1, 2]


@pytest.mark.slow
def test_a_checkpoint_of_several_channels_is_loaded_as_such(tmp_path):
    torch.manual_seed(0)
    model = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None, classes=2).eval()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    x = torch.randn(1, 3, 64, 64)
    lightning = {"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}
    for state in (model.state_dict(), lightning, average.state_dict()):
        torch.save(state, tmp_path / "two.ckpt")
        assert np.array_equal(rooftop_unet(tmp_path / "two.ckpt")(x).detach(), model(x).detach())


@pytest.mark.slow
def test_importing_does_not_import_what_only_networks_need():
    code = "import sys, entropy_captum, entropy_captum.study; print(sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'entropy_captum'" in loaded and not any(f"'{name}'" in loaded for name in ("segmentation_models_pytorch", "timm"))
