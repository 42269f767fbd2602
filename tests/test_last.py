"""The last estimate of a stream is the estimate."""
from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from entropy_captum import EntropyCentric


class Net(nn.Module):
    """A network of which a pixel sees little."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b((self.a(x) * 2).tanh()) * 3


GOALS = [{"tolerance": 0.003}, {"tolerance": 0.01}, {"tolerance": 0.5}, {"max_rows": 200}, {"top": 3}, {"max_rows": 260, "top": 2},
         {}]


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize("examples", [1, 2])
def test_the_last_estimate_of_a_stream_is_the_estimate(goal, examples):
    network = Net().double().eval()
    x = torch.randn(3, 3, 23, 21, generator=torch.Generator().manual_seed(1)).double()[:examples]
    region = torch.zeros(examples, 23, 21)
    region[0, 3:9, 3:8], region[-1, 4:12, 3:8] = 1, 1
    method = EntropyCentric(network, inference="full")
    asked = {"region": region, "target": 0, "grid_size": (3, 5), "n_samples": 19} | goal
    whole, stream = method.estimate(x, **asked), list(method.stream(x, **asked))
    for name in whole.ARRAYS:
        found, want = getattr(stream[-1], name), getattr(whole, name)
        assert (found is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(found, want, equal_nan=True, rtol=1e-12, atol=0)
    if "tolerance" not in goal:  # nothing is said twice
        assert all(not torch.equal(one.scores, two.scores) for one, two in pairwise(stream))
