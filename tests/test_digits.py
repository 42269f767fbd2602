"""Scores of a float32 network keep their digits where it is unsure: against the same network in float64."""
from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import Occlusion
from conftest import noise_image, plain_net
from torch import nn

from entropy_captum import EntropyCentric, RegionScore
from entropy_captum.region import PackedRegions
from entropy_captum.unoise import divergence

SIDE = 24


class Unsure(nn.Module):
    """A network whose logits are near 0, or whose probabilities are near 1/2."""

    def __init__(self, scale: float, probabilities: bool = False) -> None:
        super().__init__()
        self.body = plain_net(8)
        self.scale, self.probabilities = scale, probabilities

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.scale * self.body(x)
        return z.sigmoid() if self.probabilities else z


@pytest.fixture
def x() -> torch.Tensor:
    return noise_image(SIDE)


@pytest.fixture
def region() -> torch.Tensor:
    region = torch.zeros(1, SIDE, SIDE)
    region[:, 6:18, 6:18] = 1
    return region


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("reduction", ["pixel", "object"])
def test_scores_of_an_unsure_network_are_those_of_float64(x, region, scale, reduction, probabilities):
    network = Unsure(scale, probabilities)
    ask = {"activation": "none" if probabilities else "auto", "reduction": reduction, "inference": "full"}
    budget = {"region": region, "grid_size": 3, "n_samples": 8}
    found = EntropyCentric(network, **ask).estimate(x, **budget).scores
    want = EntropyCentric(copy.deepcopy(network).double(), **ask).estimate(x.double(), **budget).scores
    # A probability near 1/2 has digits down to 3e-8, of a distance of 1e-3 or so.
    torch.testing.assert_close(found, want, rtol=1e-3 if probabilities and scale < 1 else 2e-5, atol=0)


def test_the_entropy_of_a_region_keeps_its_changes(x, region):
    network = Unsure(0.01)
    score = {"region": region, "score": "entropy"}
    found = Occlusion(RegionScore(network, **score)).attribute(x, (3, 8, 8), (3, 8, 8))
    want = Occlusion(RegionScore(copy.deepcopy(network).double(), **score)).attribute(x.double(), (3, 8, 8), (3, 8, 8))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-4])
def test_a_small_divergence_is_half_the_fisher_information(noise):
    clean = torch.linspace(-3, 3, 64)[None]
    moved = clean + noise
    exact = (clean.double().sigmoid() * (clean.double().sigmoid() / moved.double().sigmoid()).log2()
             + (-clean.double()).sigmoid() * ((-clean.double()).sigmoid() / (-moved.double()).sigmoid()).log2()).mean(1)
    found = divergence(clean, moved, torch.ones(1, 8, 8))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-14)
    assert (found > 0).all()


def test_what_is_measured_is_float64(region):
    packed = PackedRegions(region, torch.tensor([0]))
    measure = packed.measure(torch.randn(2, 1, 1, SIDE, SIDE), torch.tensor([0]), "sigmoid")
    assert {part.dtype for part in (measure.probability, measure.complement, measure.entropy)} == {torch.float64}
