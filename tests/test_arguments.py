"""What goes along with inputs follows its examples: further arguments of a network, regions and classes that differ."""
import pickle
from dataclasses import replace

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam
from conftest import Encoded, small_net
from torch import nn

from entropy_captum import EntropyCentric, LayerScoreCam, RegionScore
from entropy_captum.evaluation import SitTester
from entropy_captum.inference import Bound, bind_arguments
from entropy_captum.judgement import GapTester
from entropy_captum.methods import captum_maps, leave_out, method_names, run_methods
from entropy_captum.question import Budget, Question
from entropy_captum.unoise import learn_noise, noise_test

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
REGIONS = torch.zeros(4, 16, 16)
for number, mask in enumerate(REGIONS):
    mask[2 * number:2 * number + 6, 4:10] = 1


class Gained(Encoded):
    """A network that is given how to weigh the bands, (B,3,1,1) or (3,), beside the images."""

    def forward(self, x, gain=None):
        return super().forward(x if gain is None else x * gain.reshape(-1, 3, 1, 1))


@pytest.fixture
def net() -> Gained:
    torch.manual_seed(1)
    made = Gained().eval()
    made.head.weight.data *= 4
    return made


@pytest.mark.parametrize("make", [lambda score: IntegratedGradients(score), lambda score: FeatureAblation(score),
                                  lambda score: LayerScoreCam(score, score.model[0], "increase")])
def test_classes_that_differ_follow_their_examples(make):
    two = small_net(2).eval()
    extra = {"n_steps": 4} if isinstance(make(RegionScore(two)), IntegratedGradients) else {"perturbations_per_eval": 3}
    x, ids = X[:2], {"feature_mask": (torch.arange(16) // 8 + 2 * (torch.arange(16) // 8)[:, None])[None, None]}
    extra |= ids if isinstance(make(RegionScore(two)), FeatureAblation) else {}
    both = make(RegionScore(two)).attribute(x, additional_forward_args=(REGIONS[:2], torch.tensor([0, 1])), **extra)
    for k in range(2):
        alone = make(RegionScore(two, REGIONS[k], k)).attribute(x[k:k + 1], **extra)
        torch.testing.assert_close(both[k], alone[0], rtol=1e-4, atol=1e-6)


def test_classes_of_the_constructor_are_not_dealt_out_to_another_batch():
    score = RegionScore(small_net(2).eval(), REGIONS[0], [0, 1])
    assert score(X[:2]).shape == (2,)
    with pytest.raises(ValueError, match=r"target names 2 classes, the input has 4 rows; .*=\(region, target\)"):
        score(X)
    two = small_net(2).eval()
    with pytest.raises(ValueError, match="target names 2 classes, the input has 6 rows"):  # a list is stacked by nobody
        LayerScoreCam(RegionScore(two), two[0]).attribute(X[:2], (REGIONS[:2], [0, 1]), 3)


@pytest.mark.parametrize("per_eval", [1, 2, 16])
def test_regions_of_a_part_of_the_batch_follow_their_examples(net, per_eval):
    cam = LayerScoreCam(RegionScore(net), net.encoder)
    found = cam.attribute(X, REGIONS[:2], per_eval)
    for k in range(4):
        torch.testing.assert_close(found[k], cam.attribute(X[k:k + 1], REGIONS[k // 2][None], 1)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in method_names() if name not in ("ones", "random", "distance")])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3,)], ids=["of the example", "of all"])
def test_every_method_asks_the_network_with_its_arguments(net, name, shape):
    gain = torch.tensor([0.2, 3.0, -1.0]).reshape(shape)
    asked, options = Budget(4, 4), {"region": REGIONS[:1], "grid_size": 4}
    given = run_methods(Question(net, X[:1], additional_forward_args=gain, **options), asked, [name])[name].maps
    bound = run_methods(Question(lambda x: net(x, gain), X[:1], **options), asked, [name])[name].maps
    without = run_methods(Question(net, X[:1], **options), asked, [name])[name].maps
    torch.testing.assert_close(given, bound, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(given, without, rtol=1e-2, atol=1e-6)


def test_what_can_be_asked_is_found_with_the_arguments(net):
    """Of a network that must be given some; and what `register` says of the network in a score stays true."""
    class Needy(Gained):
        def forward(self, x, gain):
            return super().forward(x, gain)

    needy, gain = Needy().eval(), torch.tensor([0.2, 3.0, -1.0])
    question = Question(needy, X[:1], REGIONS[:1], additional_forward_args=gain, grid_size=4)
    assert leave_out(question, ["grad-cam", "score-cam"]) == ["grad-cam", "score-cam"]
    found = captum_maps(bind_arguments(question), Budget(4, 4), lambda score: LayerGradCam(score, score.model.encoder))
    assert found.maps.shape == (1, 16, 16) and found.forwards > 0
    bound = bind_arguments(replace(question, forward=net)).forward
    assert torch.equal(pickle.loads(pickle.dumps(bound))(X), bound(X)) and bound.encoder is net.encoder
    with pytest.raises(ValueError, match="3 rows, expected a multiple of the 2 examples"):
        Bound(needy, gain, torch.arange(2), 2)(X[:3])


def test_no_arguments_are_none(net):
    cam = LayerScoreCam(RegionScore(net, REGIONS[0]), net.encoder)
    assert torch.equal(cam.attribute(X[:1], ()), cam.attribute(X[:1]))


def test_noise_meets_the_network_with_its_arguments(net):
    """Each of two examples its own."""
    gain = torch.tensor([[0.2, 3.0, -1.0], [1.0, -2.0, 0.5]])[..., None, None]
    options = {"grid_size": 4}
    both = Question(net, X[:2], REGIONS[:2], additional_forward_args=gain, **options)
    alone = [Question(lambda x, k=k: net(x, gain[k]), X[k:k + 1], REGIONS[k:k + 1], **options) for k in range(2)]
    torch.testing.assert_close(learn_noise(both), torch.cat([learn_noise(one) for one in alone]), rtol=1e-3, atol=1e-4)
    heat = torch.rand(2, 16, 16)
    gaps = [float(noise_test(one, heat[k:k + 1]).gap) for k, one in enumerate(alone)]
    assert noise_test(both, heat).gap.tolist() == pytest.approx(gaps, abs=1e-5)


@pytest.mark.parametrize("rows", [2, 3, 4, None])
def test_an_argument_of_as_many_numbers_as_a_forward_has_rows_is_no_examples(net, rows):
    """Three bands and parts of three rows; five outlines, and as many numbers that are none of theirs."""
    gain, heat = torch.tensor([0.2, 3.0, -1.0]), torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
    given = Question(net, X[:1], REGIONS[:1], additional_forward_args=gain)
    bound = Question(lambda x: net(x, gain), X[:1], REGIONS[:1])
    curves = [SitTester(question, rows=rows).curve(heat, (0.1, 0.5, 0.9), perturbations_per_eval=3) for question in (given, bound)]
    for one, other in zip(*curves, strict=True):
        torch.testing.assert_close(one, other)

    class Five(nn.Module):
        """A bias for each of five levels, of which the third is taken."""

        def forward(self, x, levels):
            return x.mean(1, keepdim=True) * 4 + levels.reshape(-1)[2]

    levels = torch.tensor([0.0, 1.0, -1.5, 2.0, 5.0])
    given = Question(Five(), X[:1], REGIONS[:1], additional_forward_args=levels)
    bound = Question(lambda x: Five()(x, levels), X[:1], REGIONS[:1])
    one, other = (GapTester(SitTester(question, rows=rows)).versions(heat[0].expand(10, 16, 16)) for question in (given, bound))
    assert tuple(one) == pytest.approx(tuple(other))


def test_tensors_in_lists_are_the_models_own():
    class Halves(nn.Module):
        def forward(self, x, held):
            held[0]["level"].mul_(0.5)
            return x[:, :1] * held[0]["level"]

    level, x = torch.tensor(4.0), torch.rand(1, 3, 8, 8)
    for _ in range(2):
        EntropyCentric(Halves()).attribute(x, region=torch.ones(8, 8), grid_size=2, n_samples=2,
                                           additional_forward_args=([{"level": level}],))
    assert level == 4
