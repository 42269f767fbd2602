"""The scores of a region lie where the features of its own example are."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import noise_image, plain_net
from torch import nn

from entropy_captum.attribution import EntropyCentric
from entropy_captum.estimate import Estimate
from entropy_captum.explorer import of_region
from entropy_captum.question import Budget, Question
from entropy_captum.run import Quantity, answer

SIDE = 16


@pytest.fixture
def network() -> nn.Module:
    return plain_net()


@pytest.fixture
def x() -> torch.Tensor:
    return noise_image(SIDE, 2)


@pytest.fixture
def regions() -> torch.Tensor:
    regions = torch.zeros(3, SIDE, SIDE)
    regions[0, 3:9, 4:9], regions[1, 6:12, 7:12], regions[2, 5:13, 5:13] = 1, 1, 1
    return regions


@pytest.fixture
def halves() -> torch.Tensor:
    """Left and right for the first example, upper and lower for the second."""
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.int64)
    mask[0, :, :, SIDE // 2:], mask[1, :, SIDE // 2:] = 1, 1
    return mask


@pytest.mark.parametrize("examples", [[1, 0], [1, 0, 1], [1, 1, 1], [0]])
@pytest.mark.parametrize("goal", [{}, {"max_rows": 40}])
def test_each_region_is_laid_out_by_its_own_examples_features(network, x, regions, halves, examples, goal, tmp_path):
    own = regions[:len(examples)]
    question = Question(network, x, own, feature_mask=halves, examples=torch.tensor(examples))
    found, = answer(question, Budget(8, **goal), [Quantity("entropy")])
    found.save(tmp_path / "found")
    for k, example in enumerate(examples):
        alone, = answer(Question(network, x[[example]], own[[k]], feature_mask=halves[[example]]), Budget(8, **goal),
                        [Quantity("entropy")])
        for each in (found, Estimate.load(tmp_path / "found")):
            torch.testing.assert_close(torch.from_numpy(each.map(k)), torch.from_numpy(alone.map()), rtol=1e-4, atol=1e-7)
            assert (each.patches(k) == alone.patches()).all()


def test_pixels_that_hold_nothing_are_those_of_the_regions_example(network, x, regions):
    valid = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    valid[0, :4], valid[1, :, -4:] = False, False
    question = Question(network, x, regions[:2], grid_size=4, valid=valid, examples=torch.tensor([1, 0]))
    found, = answer(question, Budget(8), [Quantity("entropy")])
    assert ((found.patches(0) >= 0) == valid[1].numpy()).all() and ((found.patches(1) >= 0) == valid[0].numpy()).all()
    assert (found.map(0)[:, -4:] == 0).all() and (found.map(1)[:4] == 0).all()


def test_examples_in_their_own_order_are_as_before(network, x, regions, halves):
    found = EntropyCentric(network).estimate(x, region=regions[:2], feature_mask=halves, n_samples=8)
    assert torch.equal(found.index[0], halves)


def test_an_estimate_of_one_region_keeps_what_is_said_of_that_region():
    x, masks = torch.randn(1, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :4], masks[1, 8:] = True, True
    both = EntropyCentric(nn.Conv2d(3, 1, 3, padding=1)).estimate_regions(x, masks, grid_size=2, n_samples=4)
    both = replace(both, settings=both.settings | {"rounded": [False, True]})
    assert [of_region(both, k).settings["rounded"] for k in (0, 1)] == [[False], [True]]
    assert of_region(both, 1).scores.tolist() == both.scores[1:].tolist()
