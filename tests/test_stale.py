"""Nothing that was remembered of a network is used after the network has become another."""
from __future__ import annotations

import pytest
import torch
from conftest import noise_image, plain_net
from torch import nn

from entropy_captum import EntropyCentric, faster
from entropy_captum.adapter import adapt
from entropy_captum.card import ModelCard
from entropy_captum.faster import choose_program
from entropy_captum.runtimes import run_by


class OfClass(nn.Module):
    """One class of a network, by a number that is no weight."""

    def __init__(self, network: nn.Module, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[:, self.number:self.number + 1]


@pytest.fixture
def network() -> nn.Module:
    return plain_net(8, 3, nn.ReLU)


@pytest.fixture
def x() -> torch.Tensor:
    return noise_image(32)


@pytest.fixture
def region() -> torch.Tensor:
    region = torch.zeros(1, 32, 32)
    region[:, 10:20, 10:20] = 1
    return region


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_a_program_of_another_class_is_not_run(network, x, region, runtime, monkeypatch):
    if runtime != "torch":
        pytest.importorskip(runtime)
    monkeypatch.setattr(faster, "LONG_RUN", 0)
    monkeypatch.setattr(faster, "speed_of", lambda *_: 2.0)
    one = OfClass(network, 0)
    method = EntropyCentric(one, runtime=runtime, inference="full")
    for number in (0, 2, 1):
        one.number = number
        found = method.estimate(x, region=region, grid_size=4, n_samples=8)
        want = EntropyCentric(OfClass(network, number), inference="full").estimate(x, region=region, grid_size=4, n_samples=8)
        assert found.settings["ran_by"] == ("torch, folded" if runtime == "torch" else runtime)
        torch.testing.assert_close(found.scores, want.scores, rtol=1e-3, atol=1e-5)


def test_a_program_is_remembered_while_it_is_right(network, x):
    first = choose_program(network, x, "onnxruntime")
    assert choose_program(network, 2 * x, "onnxruntime") is first
    network[0].bias.data.copy_(network[0].bias + 0.3)  # the hash of the weights tells these
    assert choose_program(network, x, "onnxruntime") is not first


@pytest.mark.parametrize("write", ["data", "number"])
def test_a_runtime_that_lives_on_sees_what_has_changed(network, x, region, write):
    card = ModelCard(classes=("one",), bands=("red", "green", "blue"), activation="sigmoid")
    one = OfClass(network, 0)
    lasting = run_by(adapt(one, card), "onnxruntime")
    before = EntropyCentric(lasting).estimate(x, region=region, grid_size=4, n_samples=8).scores
    if write == "data":
        network[2].weight.data.copy_(network[2].weight.flip(0))
    else:
        one.number = 2
    found = EntropyCentric(lasting).estimate(x, region=region, grid_size=4, n_samples=8)
    want = EntropyCentric(adapt(one, card), runtime="torch").estimate(x, region=region, grid_size=4, n_samples=8)
    assert found.settings["ran_by"] == "onnxruntime"
    assert (before - want.scores).abs().max() > 1e-3
    torch.testing.assert_close(found.scores, want.scores, rtol=1e-3, atol=1e-5)


def test_a_prediction_between_runs_sees_another_class(network, x):
    one = OfClass(network, 0)
    lasting = run_by(adapt(one, ModelCard(classes=("one",), bands=("red", "green", "blue"))), "onnxruntime")
    with torch.no_grad():
        lasting(x)
        one.number = 2
        torch.testing.assert_close(lasting(x), network(x)[:, 2:], rtol=1e-4, atol=1e-5)
