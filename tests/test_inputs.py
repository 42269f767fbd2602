"""What a region, mask, label, map or count may be: arrays as tensors, sizes refused, nodata left out, dots in names kept."""
import json
import warnings
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from conftest import Recorder, small_net
from torch import nn

from entropy_captum import EntropyCentric, Estimate, RegionScore, SobolTotal, h_sit, l_sit
from entropy_captum.cam import LayerScoreCam, seg_grad_cam
from entropy_captum.evaluation import SitTester, random_attribution
from entropy_captum.inference import FullInference
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget, Question
from entropy_captum.region import binary_entropy, object_at
from entropy_captum.survey import SurveySettings
from entropy_captum.tiles import Settings

X = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(3))
REGION = np.zeros((16, 24), bool)
REGION[4:10, 6:14] = True
SMALL = dict(grid_size=4, n_samples=4)


# ---- another size than the input

def attribute(region):
    EntropyCentric(small_net()).attribute(X, region=region, **SMALL)


def attribute_regions(region):
    EntropyCentric(small_net()).attribute_regions(X, region, **SMALL)


def score_of_the_constructor(region):
    RegionScore(small_net(), region)(X)


def score_of_the_call(region):
    RegionScore(small_net())(X, region)


def grad_cam(region):
    seg_grad_cam(small_net(), X, region=region, layer=small_net()[0])


def sit_of_a_map(region):
    l_sit(small_net(), X, torch.ones(1, 16, 24), region=region)


@pytest.mark.parametrize("call", [attribute, score_of_the_constructor, score_of_the_call, grad_cam, sit_of_a_map])
@pytest.mark.parametrize("shape", [(24, 16), (8, 12), (16, 23)])
def test_a_region_of_another_size_is_refused_with_both_sizes(call, shape):
    with pytest.raises(ValueError, match=rf"region of {shape[0]} x {shape[1]} pixels .* input of 16 x 24"):
        call(torch.ones(1, *shape))


def test_regions_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"region of 24 x 16 pixels .* input of 16 x 24"):
        attribute_regions(torch.ones(2, 24, 16))


def test_a_smaller_output_is_still_resized():
    net = nn.Sequential(small_net(), nn.AvgPool2d(2))
    assert EntropyCentric(net).attribute(X, region=REGION, **SMALL).shape == X.shape


# ---- arrays and numpy's numbers

def test_arrays_are_taken_wherever_masks_are():
    net, ids = small_net(), grid_feature_mask((16, 24), 4)
    as_tensor, flipped = torch.from_numpy(REGION), REGION[::-1, ::-1].copy()[::-1, ::-1]
    ec = EntropyCentric(net)
    want = ec.attribute(X, region=as_tensor, **SMALL)
    given = dict(n_samples=np.int64(4), perturbations_per_eval=np.int32(1), seed=np.uint8(0))
    assert torch.equal(ec.attribute(X, region=REGION, grid_size=(np.int64(4), np.int64(4)), **given), want)
    assert torch.equal(ec.attribute(X, region=flipped, feature_mask=ids[0, 0].numpy().astype(np.uint16), **given), want)
    assert torch.equal(ec.attribute(X, region=REGION, feature_mask=ids.numpy(), **given), want)
    numbers = REGION.astype(np.int32) * 7
    assert torch.equal(ec.attribute_regions(X, numbers, **SMALL)[:1], want)
    assert torch.equal(RegionScore(net.eval(), REGION)(X), RegionScore(net, as_tensor)(X))
    assert torch.equal(RegionScore(net)(X, REGION[None]), RegionScore(net, as_tensor)(X))
    heat = want[:, 0]
    for test in (l_sit, h_sit):
        found = test(net, X, heat.numpy(), region=object_at(REGION, 7, 5), label=REGION, baselines=np.float32(0))
        for a, b in zip(found, test(net, X, heat, region=as_tensor, label=as_tensor[None]), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(random_attribution(X, ids.numpy(), 3), random_attribution(X, ids, 3))
    assert torch.equal(ec.attribute(X, np.zeros((1, 3, 16, 24)), region=REGION, **SMALL), want)


def test_what_is_no_mask_is_named():
    with pytest.raises(TypeError, match="expected a tensor or a numpy array, got list"):
        EntropyCentric(small_net()).attribute(X, region=[[True]], **SMALL)
    with pytest.raises(ValueError, match=r"n_samples must be an integer of at least 2, got 4\.0"):
        EntropyCentric(small_net()).attribute(X, region=REGION, n_samples=4.0)


# ---- saturated regions

class Saturated(nn.Module):
    """Logits level + scale (x1 + x2 / 2) over two features, the same in every pixel."""

    def __init__(self, level: float, scale: float) -> None:
        super().__init__()
        self.level, self.scale = level, scale

    def forward(self, x):
        return (self.level + self.scale * (x[:, :1, :1, :1] + 0.5 * x[:, :1, :1, 1:])).expand(-1, 1, 1, 2)


def indices(level: float, scale: float = 1.0):
    x, ids = torch.ones(1, 1, 1, 2), torch.tensor([[0, 1]])
    return SobolTotal(Saturated(level, scale)).estimate(x, region=torch.ones(1, 2), feature_mask=ids, n_samples=64)


@pytest.mark.parametrize("level", [0.0, 6.0, 14.0, 25.0, -14.0, -40.0, 40.0])
def test_sobol_indices_of_a_saturated_region(level):
    """At any level the float32 network has the indices of the float64 formula; for large ones exp(-z) is all that varies."""
    from entropy_captum.sampling import pick_freeze

    designs = list(pick_freeze(64, 2))
    a, b = (np.array([getattr(d, name) for d in designs]) for name in ("a", "b"))

    def f(u):  # 1 - p where p is near 1: it varies as p does
        z = level + u[:, 0] + 0.5 * u[:, 1]
        return 1 / (1 + np.exp(np.abs(level) + (z - level) * (1 if level >= 0 else -1)))

    want = []
    for i in range(2):
        c = a.copy()
        c[:, i] = b[:, i]
        want.append(np.mean((f(a) - f(c)) ** 2) / 2 / f(a).var(ddof=1))
    np.testing.assert_allclose(indices(level).total_order[0], want, rtol=2e-3 if abs(level) < 20 else 2e-2)


def test_an_index_made_of_rounding_is_undefined_and_said_so():
    with pytest.warns(UserWarning, match=r"Sobol indices are undefined \(NaN\)"):
        e = indices(200.0, 2e-5)  # float32 numbers near 200 lie 1.5e-5 apart
    assert torch.isnan(e.scores).all()


@pytest.mark.parametrize(("level", "known"), [(6.0, True), (-6.0, True), (-18.0, True), (18.0, False), (25.0, False)])
def test_probabilities_near_1_hold_no_index(level, known):
    """Where a network returns float32 probabilities there is nothing below their last digit, and no index is made of that digit."""
    class Ends(Saturated):
        def forward(self, x):
            return super().forward(x).sigmoid()

    x, ids = torch.ones(1, 1, 1, 2), torch.tensor([[0, 1]])
    asked = {"region": torch.ones(1, 2), "feature_mask": ids, "n_samples": 64}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = SobolTotal(Ends(level, 1.0), activation="none").estimate(x, **asked)
    if known:
        want = SobolTotal(Saturated(level, 1.0)).estimate(x, **asked)
        assert torch.allclose(found.scores, want.scores, rtol=0.02) and not told
    else:
        assert torch.isnan(found.scores).all() and torch.isnan(found.standard_error).all()
        assert any("Sobol indices are undefined (NaN)" in str(each.message) for each in told)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_entropy_of_a_probability_holds_where_it_is_small_or_near_1(dtype):
    """Against sixty decimal digits, for probabilities as they are stored."""
    p = torch.tensor([1e-30, 1e-12, 1e-8, 1e-5, 1e-3, 0.3, 0.5, 0.999, 1 - 1e-6], dtype=dtype)
    with localcontext(prec=60):
        exact = [Decimal(each) for each in p.tolist()]
        want = [float(-(q * q.ln() + (1 - q) * (1 - q).ln()) / Decimal(2).ln()) for q in exact]
    np.testing.assert_allclose(binary_entropy(p), want, rtol=4 * torch.finfo(dtype).eps)
    assert binary_entropy(torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [0, 0]


@pytest.mark.parametrize(("level", "known"), [(6.0, True), (12.0, True), (-18.0, True), (18.0, False), (22.0, False)])
@pytest.mark.parametrize("goal", [{}, {"max_rows": 160}])
def test_scores_made_of_rounded_probabilities_are_said_to_be(level, known, goal):
    """Float32 numbers below 1 lie 6e-8 apart: the scores of a network that returns such probabilities lose their digits."""
    class Ends(Saturated):
        def forward(self, x):
            return super().forward(x).sigmoid()

    x, ids = torch.ones(1, 1, 1, 2), torch.tensor([[0, 1]])
    asked = {"region": torch.ones(1, 2), "feature_mask": ids, "n_samples": 64, **goal}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = EntropyCentric(Ends(level, 1.0), activation="none").estimate(x, **asked).scores
        said = any("the scores may be made of rounding" in str(each.message) for each in told)
        want = EntropyCentric(Saturated(level, 1.0).double()).estimate(x.double(), **asked).scores
    assert said is not known
    assert torch.allclose(found.double(), want.double(), rtol=0.04, atol=0) is known


@pytest.mark.parametrize("halved", ["all", "some", "autocast"])
def test_the_rounding_of_networks_in_half_precision_is_known(halved):
    """Their outputs become float32, which knows nothing of the eight bits that they were made of."""
    class Flat(nn.Module):
        """Logits near 4 that the input moves by less than bfloat16 can tell: numbers there lie 0.03 apart."""

        def __init__(self):
            super().__init__()
            self.weight, self.other = (nn.Parameter(torch.ones(1, 3, 1, 1)) for _ in range(2))

        def forward(self, x):
            moved = nn.functional.conv2d(x, self.weight * 1e-2)
            return (moved + torch.full_like(moved, 4.0)).float() + 0 * self.other.sum().float()

    net, x = Flat(), torch.rand(1, 3, 16, 24)
    if halved != "autocast":
        net.weight.data = net.weight.data.bfloat16()
        net.other.data = net.other.data.bfloat16() if halved == "all" else net.other.data
        x = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=halved == "autocast"), pytest.warns(UserWarning, match="undefined"):
        found = SobolTotal(net, inference="full").estimate(x, region=REGION, grid_size=4, n_samples=8)
    assert torch.isnan(found.scores).all()


# ---- names with dots

def test_names_with_dots_are_names(tmp_path):
    estimates = {name: EntropyCentric(small_net()).estimate(X, region=REGION, seed=k, **SMALL)
                 for k, name in enumerate(("roof_x0.25", "roof_x0.50", "plain", "given.npz"))}
    paths = [e.save(tmp_path / name) for name, e in estimates.items()]
    assert [p.name for p in paths] == ["roof_x0.25.npz", "roof_x0.50.npz", "plain.npz", "given.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{p.name.removesuffix('.npz')}{s}" for p in paths for s in (".npz", ".json"))
    for name, e in estimates.items():
        assert torch.equal(Estimate.load(tmp_path / name).scores, e.scores)
    assert json.loads((tmp_path / "roof_x0.50.json").read_text())["seed"] == 1


# ---- several inputs, and a time axis

class OfTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net(channels=4)

    def forward(self, image, height):
        return self.net(torch.cat([image, height], 1))


class OfTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net(channels=6)

    def forward(self, x):
        return self.net(x.flatten(1, 2))


@pytest.mark.slow
def test_the_tests_take_several_inputs_and_a_time_axis():
    """Both are the network of one stacked image, asked differently."""
    image, height = X, X.mean(1, keepdim=True) * 2
    heat = torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(1))
    times = torch.stack([image, image * 2], 2)
    two = torch.cat([image, height], 1)
    for model, inputs, stacked in ((OfTwo(), (image, height), two), (OfTime(), times, times.flatten(1, 2))):
        for test in (l_sit, h_sit):
            for base in (0.0, -1.0):
                options = dict(region=REGION, label=REGION, baselines=base, removed=0.5)
                for a, b in zip(test(model, inputs, heat, **options), test(model.net, stacked, heat, **options), strict=True):
                    torch.testing.assert_close(a, b)
    both = (heat[:, None].expand(-1, 3, -1, -1), heat[:, None])
    pair = [l_sit(OfTwo(), (image, height), each, region=REGION, label=REGION) for each in (both, heat)]
    assert pair[0] == pair[1]


def test_inputs_without_pixels_are_refused_by_the_tests():
    with pytest.raises(ValueError, match=r"the tests replace pixels.*\(1, 3, 16, 24\), \(1, 5\)"):
        l_sit(OfTwo(), (X, torch.zeros(1, 5)), torch.ones(1, 16, 24), region=REGION)


def test_score_cam_refuses_a_time_axis_and_several_inputs():
    net = OfTime()
    cam = LayerScoreCam(RegionScore(net, REGION), net.net[0])
    with pytest.raises(ValueError, match=r"\(B,C,H,W\), got shape \(1, 3, 2, 16, 24\)"):
        cam.attribute(torch.stack([X, X], 2))
    with pytest.raises(ValueError, match="one input, got 2"):
        cam.attribute((X, X))


# ---- pixels that hold nothing

def nodata():
    valid = np.ones((16, 24), bool)
    valid[:, 18:] = False
    x = X.clone()
    x[..., 18:] = -1
    return x, valid


def test_nodata_is_no_feature_and_holds_the_baseline():
    x, valid = nodata()
    model, region = Recorder(small_net()), REGION | ~valid
    e = EntropyCentric(model).estimate(x, 0.25, region=region, valid=valid, grid_size=4, n_samples=4)
    assert e.scores.shape == (1, 12)  # the last of four columns of cells holds nothing
    assert all((seen[..., 18:] == 0.25).all() for seen in model.seen)
    heat = e.to_attribution()
    assert (heat[..., 18:] == 0).all() and (heat[..., :18] > 0).all()


def test_nodata_is_left_out_of_tests_and_areas():
    """Tests on an image with nodata are those on the image without these columns, for a network that looks at single pixels."""
    x, valid = nodata()
    torch.manual_seed(2)
    net = nn.Conv2d(3, 1, 1)
    heat, label = torch.rand(1, 16, 24), np.roll(REGION, 1, 1) | ~valid
    for test in (l_sit, h_sit):
        for removed in (None, 0.3):
            found = test(net, x, heat.where(torch.from_numpy(valid), 5.0), region=REGION | ~valid, label=label, valid=valid,
                         baselines=0.5, removed=removed, threshold=0.4)
            want = test(net, x[..., :18], heat[..., :18], region=REGION[:, :18], label=label[:, :18], baselines=0.5,
                        removed=removed, threshold=0.4)
            for field in ("confidence_drop", "iou_drop", "entropy_increase") if removed is None else ():
                torch.testing.assert_close(getattr(found, field), getattr(want, field))
            torch.testing.assert_close(found.kept_area, want.kept_area)


def test_ignored_label_pixels_leave_the_iou():
    torch.manual_seed(2)
    net, label = nn.Conv2d(3, 1, 1), REGION.astype(np.float32)
    label[:, 12:] = np.nan
    tester = SitTester(Question(net, X, REGION, label=label))
    with torch.no_grad():
        predicted = net(X)[0, 0].numpy() > 0
    from entropy_captum.evaluation import touching
    predicted, known = touching(predicted, REGION)[:, :12], REGION[:, :12]
    assert float(tester.before.iou) == pytest.approx((predicted & known).sum() / (predicted | known).sum())
    label[0, 0] = 0.5
    with pytest.raises(ValueError, match="NaN where it is not known"):
        SitTester(Question(net, X, REGION, label=label))


def test_a_map_that_finds_a_constant_border_important_warns():
    x, valid = nodata()

    class Outside(nn.Module):
        def forward(self, x):
            return (x[..., 18:].mean((1, 2, 3)) * 3)[:, None, None, None].expand(-1, 1, 16, 24)

    with pytest.warns(UserWarning, match=r"100% of the score lies on a border of constant pixels \(25% of the"):
        EntropyCentric(Outside()).estimate(x, region=REGION, grid_size=4, n_samples=4)
    with pytest.raises(TypeError, match=r"valid must be a bool mask .* got torch\.int64"):
        EntropyCentric(Outside()).estimate(x, region=REGION, valid=valid.astype(int))
    with pytest.raises(ValueError, match=r"valid of shape \(4, 4\) does not fit"):
        EntropyCentric(Outside()).estimate(x, region=REGION, valid=valid[:4, :4])


def test_a_region_in_the_place_of_the_baselines_is_told_by_name():
    with pytest.raises(TypeError, match=r"^estimate: multiple values for argument 'baselines'; .* inputs, baselines, target"):
        EntropyCentric(torch.nn.Identity()).estimate(torch.zeros(1, 1, 8, 8), torch.ones(1, 8, 8), baselines=0)


def test_arrays_as_files_hold_them_and_grids_as_arrays_are_taken():
    """Big-endian numbers of a region or feature mask, as many rasters have them, and a grid that numpy made."""
    x, region = torch.randn(1, 3, 8, 8), np.zeros((8, 8), ">f4")
    region[2:6, 2:6] = 1
    mask, net = grid_feature_mask((8, 8), 2).numpy().astype(">i8"), small_net().eval()
    want = EntropyCentric(net).attribute(x, region=torch.from_numpy(region.astype(np.float32)), n_samples=16, grid_size=2)
    for options in ({"grid_size": 2}, {"grid_size": np.array([2, 2])}, {"feature_mask": mask}):
        for own in (region, region.astype(">i4")):
            assert torch.equal(EntropyCentric(net).attribute(x, region=own, n_samples=16, **options), want)


def test_a_baseline_by_its_name_is_told_how_to_be_made():
    with pytest.raises(TypeError, match=r"baselines='black': expected a number or a tensor; named_baseline\('black', inputs\)"):
        EntropyCentric(small_net()).attribute(torch.randn(1, 3, 8, 8), baselines="black")


def test_a_point_in_a_window_without_objects_names_the_window():
    with pytest.raises(ValueError, match=r"none in columns 40 to 47 and rows 80 to 87; .* another point or a larger window"):
        object_at(np.zeros((8, 8), bool), 44, 82, corner=(40, 80))


def test_rows_in_a_forward_are_a_whole_number_wherever_they_are_given():
    assert FullInference(small_net(), perturbations_per_eval=np.int64(4)).rows_per_forward == 4
    for made in (Budget, Settings, SurveySettings, partial(FullInference, small_net())):
        with pytest.raises(ValueError, match="perturbations_per_eval must be an integer of at least 1, got 0"):
            made(perturbations_per_eval=0)
