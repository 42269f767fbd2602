"""What is remembered of a network does not grow without bound."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from entropy_captum import capture
from entropy_captum.capture import captured


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)).eval()


def test_graphs_of_few_image_sizes_are_kept(network, monkeypatch):
    monkeypatch.setattr(capture, "MOST_GRAPHS", 2, raising=False)
    made = {side: captured(network, torch.zeros(1, 3, side, side)) for side in (8, 9)}
    assert captured(network, torch.zeros(1, 3, 8, 8)) is made[8]
    captured(network, torch.zeros(1, 3, 10, 10))  # of the others, 9 was used first
    assert len(capture._captured[network]) == 2
    assert captured(network, torch.zeros(1, 3, 8, 8)) is made[8]
    assert captured(network, torch.zeros(1, 3, 9, 9)) is not made[9]
