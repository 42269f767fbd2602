"""What a user may pass: regions with gradients, and numbers of other libraries."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import noise_image, plain_net
from torch import nn

from entropy_captum import EntropyCentric, RegionScore
from entropy_captum.estimate import Estimate
from entropy_captum.interactions import interactions
from entropy_captum.question import Budget


@pytest.fixture
def network() -> nn.Module:
    return plain_net()


@pytest.fixture
def x() -> torch.Tensor:
    return noise_image(16)


def test_a_region_may_come_straight_from_the_network(network, x):
    region, method, small = network(x).sigmoid()[:, 0], EntropyCentric(network), {"grid_size": 2, "n_samples": 4}
    assert region.requires_grad
    want = method.estimate(x, region=region.detach(), **small)
    assert torch.equal(method.estimate(x, region=region, **small).scores, want.scores)
    assert torch.equal(list(method.stream(x, region=region, **small))[-1].scores, want.scores)
    assert torch.equal(method.estimate_regions(x, region, **small).scores, want.scores)
    found = interactions(method, x, region=region, among=2, **small)
    assert torch.equal(found.features, interactions(method, x, region=region.detach(), among=2, **small).features)
    assert not RegionScore(network, region).region.requires_grad


GOALS = [{"tolerance": np.float32(0.01)}, {"tolerance": torch.tensor(0.01)}, {"max_seconds": np.int64(2)},
         {"max_seconds": np.float32(2)}, {"grid_size": "adaptive", "finest": np.int64(8)}, {"max_rows": np.int64(80)}]


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_what_was_asked_with_numbers_of_numpy_and_torch_is_saved(network, x, goal, tmp_path):
    region = torch.zeros(1, 16, 16)
    region[:, 4:12, 4:12] = 1
    found = EntropyCentric(network).estimate(x, region=region, n_samples=8, **{"grid_size": 2} | goal)
    found.save(tmp_path / "found")
    settings = Estimate.load(tmp_path / "found").settings
    for name, value in goal.items():
        if name != "grid_size":
            assert settings[name] == float(value) and json.dumps(settings[name])


@pytest.mark.parametrize("value", ["0.01", True, None, torch.ones(2), -1.0, float("nan")], ids=str)
@pytest.mark.parametrize(("name", "meant"), [("tolerance", "a standard error of at least 0"), ("max_seconds", "a number above 0")])
def test_what_is_no_number_is_said(name, meant, value):
    if value is None:
        assert getattr(Budget(**{name: value}), name) is None
        return
    with pytest.raises(ValueError, match=f"{name} must be {meant}, got"):
        Budget(**{name: value})
