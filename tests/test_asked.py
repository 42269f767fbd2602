"""What a user may pass: regions with gradients, and numbers of other libraries."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from entropy_captum import EntropyCentric, RegionScore
from entropy_captum.interactions import interactions


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 1, 3, padding=1)).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


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
