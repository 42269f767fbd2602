"""L-SIT and H-SIT against plain loops; controls; the claim on real tiles."""
import math

import numpy as np
import pytest
import reference
import torch
from conftest import small_net

from entropy_captum import EntropyCentric, h_sit, l_sit, rooftop_unet
from entropy_captum.data import find_tiles, normalize
from entropy_captum.evaluation import SitTester, kept_pixels, ones_attribution, random_attribution
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Question
from entropy_captum.region import object_at, objects


def loop_sit(model, x, heat, region, label, low, baseline, threshold=0.1):
    """Eq. 9 and 10 pixel by pixel, for a region of several objects (no restriction of the IoU)."""
    span = float(heat.max() - heat.min())
    masked, kept = x.clone(), 0
    for y in range(x.shape[1]):
        for c in range(x.shape[2]):
            important = (float(heat[y, c]) - float(heat.min())) / span > threshold
            if not region[y, c] and important != low:
                masked[:, y, c] = baseline
            kept += bool(not region[y, c] and important == low)

    def state(image):
        pixels = reference.measure(model, image, region, 0, "sigmoid")
        p = model(image[None])[0, 0] > 0
        overlap = int((p & label).sum()) / int((p | label).sum())
        return reference.mean(pixels, 1), overlap, reference.mean(pixels, 2)

    (c0, i0, h0), (c1, i1, h1) = state(x), state(masked)
    return 100 * (c0 - c1), 100 * (i0 - i1), 100 * (h1 - h0), kept / int((~region).sum()), c0


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("test,low", [(l_sit, True), (h_sit, False)])
def test_equals_a_plain_loop(test, low, dtype, tolerance):
    """In points: 1e-3 of a point is 1e-5 of a probability."""
    model, x, heat = small_net().eval().double(), torch.randn(3, 12, 12).double(), torch.rand(12, 12).double() ** 4
    region = torch.zeros(12, 12, dtype=torch.bool)
    region[1:4, 1:4] = region[7:10, 6:11] = True
    label = torch.rand(12, 12) > 0.5
    want = loop_sit(model, x, heat, region, label, low, -0.5)
    got = test(model.to(dtype), x[None].to(dtype), heat[None].to(dtype), region=region[None], label=label[None], baselines=-0.5)
    for value, expected in zip(got, want, strict=False):
        assert abs(float(value) - expected) < tolerance
    relative = test(model, x[None].to(dtype), heat[None].to(dtype), region=region[None], baselines=-0.5, relative=True)
    assert abs(float(relative.confidence_drop) - want[0] / want[4]) < 10 * tolerance
    assert math.isnan(float(relative.iou_drop))


def test_ones_win_both_tests_and_the_area_says_so():
    model, x, region = small_net(), torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8)
    region[:, 2:5, 2:5] = 1
    low, high = (t(model, x, ones_attribution(x), region=region) for t in (l_sit, h_sit))
    assert (low.confidence_drop == 0).all() and (low.kept_area == 1).all() and (high.kept_area == 0).all()
    assert torch.isnan(l_sit(model, x, ones_attribution(x), region=torch.ones(2, 8, 8)).confidence_drop).all()


def test_matched_area_removes_the_same_share_for_all():
    region = np.zeros((10, 10), bool)
    region[0] = True
    for heat in (np.zeros((10, 10)), np.arange(100.0).reshape(10, 10)):
        for low in (True, False):
            kept = kept_pixels(heat, region, low, removed=0.3)
            assert kept[region].all() and (~kept).sum() == 27
    lowest_removed, highest_removed = (kept_pixels(heat, region, low, removed=0.3) for low in (True, False))
    assert lowest_removed[4:].all() and not lowest_removed[1:3].any() and not highest_removed[8:].any()
    same, other = (kept_pixels(np.zeros((10, 10)), region, True, removed=0.5, seed=s) for s in (0, 1))
    assert (same == kept_pixels(np.zeros((10, 10)), region, True, removed=0.5)).all() and (same != other).any()


def test_iou_of_one_object_ignores_the_others():
    model = torch.nn.Conv2d(3, 1, 1, bias=False)
    model.weight.data[:] = 1
    x = -torch.ones(1, 3, 16, 16)
    x[..., 2:6, 2:6] = x[..., 10:14, 10:14] = 1
    label, region = x[:, 0] > 0, torch.zeros(1, 16, 16)
    region[0, 2:6, 2:6] = 1
    heat = torch.zeros(1, 16, 16)
    heat[0, 0, 0] = 1
    assert float(l_sit(model, x, heat, region=region, label=label, baselines=-1).iou_drop) == 0
    both = region.clone()
    both[0, 15, 0] = 1
    assert float(l_sit(model, x, heat, region=both, label=label, baselines=-1).iou_drop) == pytest.approx(50)


@pytest.mark.parametrize("change,message", [
    ({"attribution": torch.zeros(1, 4, 4)}, r"\(1, 4, 4\)"), ({"attribution": torch.full((1, 8, 8), math.nan)}, "NaN"),
    ({"label": torch.full((1, 8, 8), 255)}, "255"), ({"label": torch.zeros(1, 4, 4)}, r"\(1, 4, 4\)"),
    ({"removed": 1.5}, "1.5"), ({"scale": "log"}, "'log'"), ({"region": torch.ones(1, 4, 4)}, "4 x 4 .*8 x 8")])
def test_bad_input_is_quoted(change, message):
    arguments = {"attribution": torch.rand(1, 8, 8), "region": torch.eye(8)[None]} | change
    with pytest.raises(ValueError, match=message):
        l_sit(small_net(), torch.randn(1, 3, 8, 8), **arguments)


@pytest.mark.data
def test_the_entropy_map_beats_chance_on_real_tiles(aerial):
    model, gaps = rooftop_unet(), {"entropy": [], "random": []}
    for tile in find_tiles(aerial / "whu" / "val") + find_tiles(aerial / "inria" / "val")[:2]:
        image = tile.read().image
        top = (image.shape[0] - 256) // 2
        x = normalize(image[top:top + 256, top:top + 256])
        predicted = (model(x)[0, 0] > 0).numpy()
        ids = objects(predicted)
        sizes = np.bincount(ids.ravel(), minlength=2)
        sizes[0] = 0
        if sizes.max() < 100:
            continue
        y, c = np.argwhere(ids == sizes.argmax())[0]
        region = torch.from_numpy(object_at(predicted, c, y))[None]
        heat = EntropyCentric(model).attribute(x, region=region, n_samples=8, grid_size=6, perturbations_per_eval=8)
        control = random_attribution(x, grid_feature_mask((256, 256), 6))
        tester = SitTester(Question(model, x, region))
        for name, e in (("entropy", heat), ("random", control)):
            gaps[name].append(float(tester.gap(e, 0.5)))
    assert len(gaps["entropy"]) >= 4
    assert np.mean(gaps["entropy"]) > np.mean(gaps["random"])


def test_the_curve_is_that_of_single_tests():
    model, x = small_net(), torch.randn(2, 3, 16, 16)
    region = torch.zeros(2, 16, 16)
    region[0, 2:8, 2:8], region[1] = 1, 1
    tester, heat = SitTester(Question(model, x, region)), torch.rand(2, 16, 16)
    for batch in (1, 4):
        low, high = tester.curve(heat, (0.25, 0.5, 0.75), perturbations_per_eval=batch)
        for k, removed in enumerate((0.25, 0.5, 0.75)):
            for found, which in ((low, True), (high, False)):
                want = tester.test(which, heat, removed=removed).confidence_drop
                assert torch.allclose(found[k], want, equal_nan=True, atol=1e-4)
    assert torch.isnan(low[:, 1]).all() and torch.isfinite(low[:, 0]).all()


class Louder(torch.nn.Module):
    """A network whose logits are multiplied by an argument, a value per example or one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net().eval()

    def forward(self, x, gain=1.0):
        return self.net(x) * (gain[:, None, None, None] if torch.is_tensor(gain) and gain.ndim else gain)


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_further_arguments_of_a_network_go_along(rows):
    """Each example keeps its own, however many versions of it run at once: as if each were tested alone with it built in."""
    model, x, heat, gains = Louder().eval(), torch.randn(2, 3, 8, 8), torch.rand(2, 8, 8), torch.tensor([5.0, 0.5])
    region = torch.zeros(2, 8, 8)
    region[:, 2:5, 2:5] = 1
    for given, own in (((gains,), gains), ((torch.tensor(5.0),), (5.0, 5.0))):
        tester = SitTester(Question(model, x, region, additional_forward_args=given), rows=rows)
        drops = torch.stack(tester.curve(heat, (0.3, 0.5), perturbations_per_eval=3))
        for k, gain in enumerate(own):
            alone = SitTester(Question(lambda x, gain=float(gain): model(x, gain), x[k:k + 1], region[k:k + 1]))
            assert torch.allclose(tester.before.confidence[:, k], alone.before.confidence[:, 0], atol=1e-6)
            assert torch.allclose(drops[:, :, k], torch.stack(alone.curve(heat[k:k + 1], (0.3, 0.5)))[..., 0], atol=1e-4)


def test_ranks_are_of_pixels_that_hold_something_and_nothing_below_zero_is_important():
    heat, valid = np.random.default_rng(0).random((10, 20)), np.zeros((10, 20), bool)
    valid[:, :10] = True
    none = np.zeros((10, 20), bool)
    part = kept_pixels(heat[:, :10], none[:, :10], True, threshold=0.5, scale="rank")
    assert (kept_pixels(heat, none, True, threshold=0.5, scale="rank", valid=valid)[:, :10] == part).all() and part.mean() == 0.5
    for values in ([-3.0, -2.0, -1.0], [-3.0, -2.0, 0.0]):
        assert not kept_pixels(np.array([values]), np.zeros((1, 3), bool), True, scale="max").any()


def test_a_region_without_an_inside_is_named():
    region = torch.zeros(1, 8, 8)
    region[:, 2:5, 2:5] = 0.4
    with pytest.raises(ValueError, match=r"region 0: its largest weight is 0\.4; expected at least one of 0\.5 or more"):
        SitTester(Question(small_net().eval(), torch.randn(1, 3, 8, 8), region))
