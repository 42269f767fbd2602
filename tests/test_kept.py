"""What is remembered of a network does not grow without bound."""
from __future__ import annotations

import pytest
import torch
from conftest import plain_net
from torch import nn

from entropy_captum import capture, planning
from entropy_captum.capture import captured
from entropy_captum.inference import FullInference
from entropy_captum.perturbation import Perturbation
from entropy_captum.question import Budget


@pytest.fixture
def network() -> nn.Module:
    return plain_net(4)


def test_graphs_of_few_image_sizes_are_kept(network, monkeypatch):
    monkeypatch.setattr(capture, "MOST_GRAPHS", 2, raising=False)
    made = {side: captured(network, torch.zeros(1, 3, side, side)) for side in (8, 9)}
    assert captured(network, torch.zeros(1, 3, 8, 8)) is made[8]
    captured(network, torch.zeros(1, 3, 10, 10))  # of the others, 9 was used first
    assert len(capture._captured[network]) == 2
    assert captured(network, torch.zeros(1, 3, 8, 8)) is made[8]
    assert captured(network, torch.zeros(1, 3, 9, 9)) is not made[9]


def test_few_numbers_are_kept_of_what_is_not_worth_a_plan(network, monkeypatch):
    monkeypatch.setattr(planning, "WORTH", float("inf"))
    monkeypatch.setattr(planning, "MOST_DECLINED", 3, raising=False)
    planned = []
    monkeypatch.setattr(planning, "propose", lambda *a, real=planning.propose: planned.append(1) or real(*a))
    x = torch.zeros(1, 3, 16, 16)
    full, perturbation = FullInference(network), Perturbation((x,), grid_size=4)
    captured(network, x)
    regions = torch.zeros(5, 1, 16, 16)
    for k, region in enumerate(regions):
        region[:, k:k + 4, :4] = 1
        for _ in range(2):  # asked again, it is known
            assert planning.choose_inference(full, perturbation, region, Budget(4)) is full
    assert len(planned) == 5
    known = planning._declined[network]
    assert len(known) == 3 and all(isinstance(case, int) for case in known)
    planning.choose_inference(full, perturbation, regions[4], Budget(4))
    assert len(planned) == 5
    planning.choose_inference(full, perturbation, regions[0], Budget(4))
    assert len(planned) == 6
