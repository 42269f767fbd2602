"""Noise finds what a network needs: planted truth, a minimum computed otherwise, and what must not happen on the way."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import optimize, stats
from torch import nn

from entropy_captum.drawn import procedural_scene
from entropy_captum.evaluation import random_attribution
from entropy_captum.forward import weights_hash
from entropy_captum.methods import ask_of_image, leave_out, method_names, run_methods
from entropy_captum.perturbation import grid_feature_mask, spread_scores
from entropy_captum.planted import auc, plant
from entropy_captum.question import Budget, Question
from entropy_captum.training import CropSampler, Recipe
from entropy_captum.unoise import (
    NoiseNetwork,
    NoiseRecipe,
    average_noise,
    divergence,
    learn_noise,
    load_noise,
    noise_test,
    noised,
    one_building,
    save_noise,
    train_noise,
    unoise,
)

pytestmark = pytest.mark.filterwarnings("ignore:all outputs lie in")


class Cell(nn.Module):
    """Logits that hang on the mean of one patch of a grid of 2 x 2 on 16 x 16 pixels."""

    def __init__(self, weight: float = 3.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return (self.weight * x[:, :, :8, :8].mean((1, 2, 3)))[:, None, None, None] + 0 * x[:, :1]


class Local(nn.Module):
    """Logits of each pixel that hang on this pixel alone."""

    def forward(self, x):
        return 4 * x.mean(1, keepdim=True)


@pytest.mark.parametrize("kind", ["patch", "pair", "shadow"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_avoids_exactly_what_was_planted(kind, seed):
    case = plant(kind, seed)
    scale = learn_noise(case.question())[0]
    assert auc(1 - scale.double().numpy(), case.truth) == 1
    own = case.region[0, ::8, ::8].flatten() > 0  # which matters a little: logits follow each cell itself
    planted = torch.from_numpy(case.truth)
    assert scale[planted].max() < 0.1 and scale[~planted].min() > 0.4 and scale[~planted & ~own].min() > 0.9


@pytest.mark.slow
def test_of_either_patch_one_is_spared():
    for seed in range(3):
        case = plant("either", seed)
        scale = learn_noise(case.question())[0].sort().values
        assert scale[0] < 0.1 and scale[1] > 0.4 and bool(case.truth[int(learn_noise(case.question())[0].argmin())])


def test_a_network_of_single_pixels_needs_the_region_alone():
    x, region = 0.9 * torch.ones(1, 3, 64, 64), torch.zeros(1, 64, 64)
    region[:, 24:40, 24:40] = 1
    heat = unoise(Local(), x, region)[0, 0]
    assert heat[region[0] > 0].min() > 0.9 and heat[region[0] == 0].max() < 0.01


def test_the_scale_is_where_a_search_finds_the_minimum():
    """Without chance in the noise, what is learned is the minimum of a function of one number."""
    recipe, w, value = NoiseRecipe(steps=400, deviation=0, strength=0.3), 3.0, 0.8
    question = Question(Cell(w), torch.full((1, 3, 16, 16), value), torch.ones(1, 16, 16), grid_size=2)

    def cost(m: float) -> float:
        p, q = (1 / (1 + np.exp(-w * value * keep)) for keep in (1, 1 - m))
        return np.log1p(stats.entropy([p, 1 - p], [q, 1 - q], base=2)) - 0.3 * np.log(m) / 4

    expected = optimize.minimize_scalar(cost, (0.001, 0.3), (1e-4, 0.999), method="bounded").x
    assert float(learn_noise(question, recipe)[0, 0]) == pytest.approx(expected, rel=0.03)


def test_divergence_is_that_of_scipy_and_counts_the_region_alone():
    p, q = np.array([0.9, 0.2, 0.5]), np.array([0.6, 0.2, 0.1])
    bits = stats.entropy(np.stack([p, 1 - p]), np.stack([q, 1 - q]), base=2)
    odds = [torch.logit(torch.from_numpy(v))[None] for v in (p, q)]
    assert float(divergence(*odds, torch.tensor([[[1.0, 0, 1]]]))) == pytest.approx(bits[[0, 2]].mean())
    assert float(divergence(*odds, torch.tensor([[[0.0, 1, 0]]]))) == pytest.approx(0, abs=1e-6)


def test_a_scale_of_nought_leaves_the_image_and_one_leaves_nothing_of_it():
    x, base, noise = torch.rand(2, 3, 4, 4), torch.zeros(1), torch.randn(1, 3, 4, 4)
    assert torch.equal(noised(x, base, torch.zeros(1), noise), x)
    assert torch.allclose(noised(x, base, torch.ones(1), noise), noise.expand_as(x), atol=1e-6)


def test_the_same_seed_gives_the_same_numbers_and_touches_nothing_else():
    case = plant("pair", 4)
    case.model.train()
    state = torch.get_rng_state()
    first, again = (unoise(case.model, case.inputs, case.region) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, unoise(case.model, case.inputs, case.region, seed=1))
    assert case.model.training and all(w.grad is None for w in case.model.parameters())


def test_regions_are_learned_as_if_alone():
    case = plant("patch", 2)
    other = case.region.flip(-1).roll(16, -1)
    both = learn_noise(ask_of_image(case.model, case.inputs, torch.cat([case.region, other]), grid_size=8))
    alone = [learn_noise(ask_of_image(case.model, case.inputs, one, grid_size=8))[0] for one in (case.region, other)]
    assert torch.allclose(both, torch.stack(alone), atol=1e-4)


def test_pixels_that_hold_nothing_get_no_noise():
    case = plant("patch", 1)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[:, :8] = False
    marked = case.inputs.clone()
    marked[..., :8] = 55.0  # whatever the file holds there
    scales = [learn_noise(replace(case.question(), inputs=x, valid=valid))[0] for x in (case.inputs, marked)]
    assert len(scales[0]) == 56 and torch.equal(*scales)
    seen = []
    model = lambda x: seen.append(x[..., :8]) or case.model(x)  # noqa: E731
    learn_noise(Question(model, marked, case.region, valid=valid), NoiseRecipe(steps=2))
    assert len(seen) == 3 and not any(each.any() for each in seen)


def test_several_classes_and_probabilities_are_read_as_everywhere():
    case = plant("patch", 3)
    two = lambda x: torch.cat([torch.zeros_like(case.model(x)), case.model(x)], 1)  # noqa: E731
    sure = lambda x: case.model(x).sigmoid()  # noqa: E731
    expected = unoise(case.model, case.inputs, case.region)
    assert torch.allclose(unoise(two, case.inputs, case.region, 1), expected, atol=1e-4)
    assert torch.allclose(unoise(sure, case.inputs, case.region, activation="none"), expected, atol=1e-2)


@pytest.mark.parametrize("forward", [torch.no_grad()(Local()), lambda x: Local()(x.detach()), lambda x: (Local()(x) > 0).float()])
def test_a_network_without_gradients_is_refused(forward):
    with pytest.raises(ValueError, match="gradient"):
        unoise(forward, torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16))


def test_it_is_a_method_among_others_and_left_out_where_it_cannot_be_asked():
    case = plant("patch", 5)
    assert "unoise" in method_names()
    question = ask_of_image(case.model, case.inputs, case.region, grid_size=8)
    found = run_methods(question, Budget(2, 8, 3), ["unoise"])["unoise"]
    assert torch.allclose(found.maps[0], unoise(case.model, case.inputs, case.region, seed=3)[0, 0])
    assert found.forwards == 101
    with pytest.warns(UserWarning, match="unoise is left out: it needs gradients"):
        assert leave_out(replace(question, forward=lambda x: 8 * x.mean(1, keepdim=True)), ["unoise", "entropy"]) == ["entropy"]


@pytest.mark.slow
def test_at_equal_area_its_map_keeps_more_than_chance_and_a_constant_map_is_chance():
    gaps, chance = [], []
    for seed in range(4):
        case = plant("patch", seed)
        test = noise_test(case.question(), unoise(case.model, case.inputs, case.region), (0.3, 0.6))
        assert (test.low < 0.01).all() and (test.high > 0.1).all()
        gaps.append(float(test.gap))
        maps = [random_attribution(case.inputs, grid_feature_mask((64, 64)), k) for k in range(6)]
        chance.append(np.mean([float(noise_test(case.question(), heat, (0.3, 0.6)).gap) for heat in maps]))
    assert min(gaps) > 2 * max(np.abs(chance))


def test_every_map_gets_the_same_area_of_noise_and_none_on_the_region():
    seen = []

    class Recorder(Local):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    x, region = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 16, 16)
    region[:, :4] = 1
    for heat in (torch.rand(1, 16, 16), torch.ones(1, 16, 16), torch.zeros(1, 16, 16)):
        seen.clear()
        noise_test(Question(Recorder(), x, region, grid_size=2), heat, (0.25,), draws=1)
        changed = [(each != x).any(1) for each in seen]
        assert sorted(int(c.sum()) for c in changed) == [0, 48, 48] and not any(c[:, :4].any() for c in changed)


def test_average_noise_is_that_of_the_image_times_the_map():
    network, x = NoiseNetwork(), torch.rand(2, 3, 32, 32)
    nn.init.normal_(network.head.weight)
    region, heat = torch.ones(2, 32, 32), torch.rand(2, 32, 32)
    heat[:, 0, 0], heat[:, 0, 1] = 0, 1  # scaled as it is
    scale = network(x * heat[:, None], region).sigmoid()
    found = average_noise(network, x, region, heat)
    assert torch.allclose(found.mean, scale.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(found.second_moment, (scale**2).mean((1, 2, 3)), atol=1e-6)


def scenes(*seeds: int) -> CropSampler:
    """Crops of drawn scenes."""
    drawn = [procedural_scene(seed, 128) for seed in seeds]
    return CropSampler([[(scene.image, scene.label) for scene in drawn]], Recipe(crop=64, batch_size=2, procedural=0))


def test_a_building_is_one_object_of_the_label():
    labels = torch.zeros(3, 1, 32, 32)
    labels[0, 0, :10, :10], labels[0, 0, 20:, 20:], labels[2, 0, :2, :2] = 1, 1, 1
    inputs, regions = one_building(torch.rand(3, 3, 32, 32), labels, np.random.default_rng(0))
    assert len(inputs) == len(regions) == 1 and int(regions.sum()) in (100, 144)
    assert one_building(torch.rand(1, 3, 32, 32), labels[1:2], np.random.default_rng(0))[1].shape == (0, 32, 32)


@pytest.mark.slow
def test_a_noise_network_learns_where_a_network_of_single_pixels_looks():
    recipe, model = NoiseRecipe(steps=150, learning_rate=5e-3), Local()
    state = torch.get_rng_state()
    network, log = train_noise(model, scenes(3, 4), recipe)
    assert torch.equal(torch.get_rng_state(), state) and len(log) == 150
    again, _ = train_noise(model, scenes(3, 4), recipe)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    x, region = one_building(*scenes(5)(0), np.random.default_rng(0))
    heat = network.attribution(x, region)[:, 0]
    assert heat[region > 0].mean() > heat[region == 0].mean() + 0.3


def test_a_saved_noise_network_says_where_it_comes_from(tmp_path):
    network, log = train_noise(Local(), scenes(3), recipe := NoiseRecipe(steps=2, seed=7))
    save_noise(network, tmp_path / "noise.safetensors", Cell(), recipe, log, "one drawn scene")
    with safe_open(tmp_path / "noise.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["training"])
    assert facts["initial_weights"] == "random, from the seed 7" and facts["explains"] == weights_hash(Cell())
    card = (tmp_path / "noise.md").read_text()
    assert "initial weights: random, from the seed 7" in card and "one drawn scene" in card
    x, region = torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32)
    again = load_noise(tmp_path / "noise.safetensors")
    assert torch.allclose(again.attribution(x, region), network.attribution(x, region), atol=1e-2)
    with pytest.raises(ValueError, match="shapes"):
        load_noise(tmp_path / "noise.safetensors", channels=4)


def test_noise_networks_whose_names_have_dots_keep_a_card_each(tmp_path):
    for strength in (0.25, 0.5):
        save_noise(NoiseNetwork(), tmp_path / f"noise_x{strength:.2f}", Cell(), NoiseRecipe(strength=strength), [1.0], "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "noise_x0.25", "noise_x0.25.md", "noise_x0.50", "noise_x0.50.md"]
    assert "0.25" in (tmp_path / "noise_x0.25.md").read_text()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"seed": -1}, {"strength": 0}, {"deviation": -1}, {"learning_rate": 0}])
def test_a_recipe_quotes_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        NoiseRecipe(**wrong)


def test_several_inputs_are_refused():
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\), \(1, 3, 16, 16\)"):
        learn_noise(Question(lambda a, b: a + b, (x, x), torch.ones(1, 16, 16)))


def test_pixels_that_hold_nothing_do_not_count_in_the_mean_of_the_noise():
    """An image alone, and beside twice as much that holds nothing."""
    case, cells = plant("patch", 1), torch.arange(64) // 16
    mask, region = (cells[:, None] * 4 + cells)[None, None], torch.as_tensor(case.region).reshape(1, 64, 64)
    alone = learn_noise(Question(case.model, case.inputs, region, feature_mask=mask))
    wide = [nn.functional.pad(values, (0, 128)) for values in (case.inputs, region.float(), mask)]
    valid = torch.zeros(64, 192, dtype=torch.bool)
    valid[:, :64] = True
    beside = learn_noise(Question(lambda x: nn.functional.pad(case.model(x[..., :64]), (0, 128)), wide[0], wide[1],
                                  feature_mask=wide[2], valid=valid))
    assert (beside - alone).abs().max() < 0.01  # the noise itself is drawn for images of another size


def test_as_a_method_it_knows_what_holds_nothing():
    """What lies there is not seen, and the mean of the noise is that of the rest; regions are learned each by itself."""
    case, valid = plant("patch", 1), torch.ones(64, 64, dtype=torch.bool)
    valid[:, :16] = False
    marked = case.inputs.clone()
    marked[..., :16] = 5.0
    maps = [run_methods(replace(case.question(), inputs=x, valid=valid), Budget(2, 8, seed=3), ["unoise"])["unoise"].maps
            for x in (case.inputs, marked)]
    assert torch.equal(*maps) and not maps[0][..., :16].any()
    alone = learn_noise(replace(case.question(), valid=valid), NoiseRecipe(seed=3))
    index = replace(case.question(), valid=valid).perturbation.index[0]
    torch.testing.assert_close(maps[0], spread_scores(1 - alone, index, (index.shape[1], 64, 64)).mean(1))
