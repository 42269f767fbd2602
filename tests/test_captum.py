"""The Captum contract over all attribution classes, and the hosted methods against Captum and plain loops."""
import math

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam, NoiseTunnel, Occlusion
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from conftest import Recorder, small_net
from torch import nn

from entropy_captum import EntropyCentric, LayerScoreCam, RegionScore, SobolTotal
from entropy_captum.cam import default_layer, scaled_channels, seg_grad_cam
from entropy_captum.zoo import Padded, paper_unet

REGION = torch.zeros(8, 8)
REGION[2:6, 2:6] = 1
CLASSES = {"pixel": lambda m: EntropyCentric(m), "object": lambda m: EntropyCentric(m, reduction="object"),
           "sobol": lambda m: SobolTotal(m)}
SMALL = dict(grid_size=2, n_samples=4)


@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
class TestContract:
    def test_shapes_and_tuples(self, make):
        x, method = torch.randn(2, 3, 8, 8), make(small_net())
        alone = method.attribute(x, region=REGION, **SMALL)
        assert alone.shape == x.shape and alone.is_contiguous() and alone.dtype == x.dtype
        packed = method.attribute((x,), region=REGION, **SMALL)
        assert isinstance(packed, tuple) and torch.equal(packed[0], alone)

    def test_two_inputs_share_features(self, make):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = small_net(channels=4)

            def forward(self, rgb, height, offset):
                return self.net(torch.cat([rgb, height], 1)) + offset[:, None, None, None]

        rgb, height, model = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8), Two()
        a, b = make(model).attribute((rgb, height), (0.0, torch.ones(1, 1, 8, 8)), additional_forward_args=torch.tensor([0.0, 2.0]),
                                     region=REGION, perturbations_per_eval=3, **SMALL)
        assert a.shape == rgb.shape and b.shape == height.shape and torch.equal(a[:, :1], b)
        single = make(model).attribute((rgb[1:], height[1:]), (0.0, torch.ones(1, 1, 8, 8)), region=REGION,
                                       additional_forward_args=torch.tensor([2.0]), **SMALL)
        assert torch.allclose(single[0][0], a[1], atol=1e-5)

    def test_targets_and_masks_per_example(self, make):
        x, method = torch.randn(2, 3, 8, 8), make(small_net(3))
        ids = torch.arange(3).reshape(1, 3, 1, 1) * 10
        both = method.attribute(x, target=[2, 0], feature_mask=ids, region=REGION, n_samples=8)
        for b, target in enumerate((2, 0)):
            one = method.attribute(x[b:b + 1], target=torch.tensor([target]), feature_mask=ids, region=REGION, n_samples=8)
            assert torch.allclose(one[0], both[b], atol=1e-5)

    def test_model_is_left_as_it_was(self, make):
        model, x = small_net(), torch.randn(1, 3, 8, 8, requires_grad=True)
        model[1].eval()
        flags, state = [m.training for m in model.modules()], torch.get_rng_state()
        make(model).attribute(x, region=REGION, **SMALL)
        model[4].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError, match="broken"):
            make(model).attribute(x, region=REGION, **SMALL)
        assert flags == [m.training for m in model.modules()] and torch.equal(state, torch.get_rng_state())
        assert x.grad is None and all(p.grad is None for p in model.parameters())

    def test_noise_tunnel_and_sensitivity(self, make):
        x, method = torch.randn(2, 3, 8, 8), make(small_net())
        regions = torch.stack([REGION, REGION.roll(1, 0)])
        smooth = NoiseTunnel(method).attribute(x, nt_samples=2, stdevs=0.0, region=regions, **SMALL)
        assert torch.allclose(smooth, method.attribute(x, region=regions, **SMALL), atol=1e-5)
        assert sensitivity_max(method.attribute, x, n_perturb_samples=2, region=regions, **SMALL).shape == (2,)

    def test_infidelity_and_visualization(self, make):
        x, model = torch.randn(1, 3, 8, 8), small_net().eval()
        attribution = make(model).attribute(x, region=REGION, **SMALL)

        def perturb(inputs):
            noise = torch.randn_like(inputs) * 0.1
            return noise, inputs - noise

        assert torch.isfinite(infidelity(RegionScore(model, REGION), perturb, x, attribution)).all()
        heat, image = (t[0].permute(1, 2, 0).detach().numpy() for t in (attribution, x))
        figure, _ = viz.visualize_image_attr(heat, image.clip(0, 1), method="blended_heat_map", sign="all", use_pyplot=False)
        assert figure.axes


@pytest.mark.parametrize("score", ["probability", "logit", "entropy"])
@pytest.mark.parametrize("classes,activation", [(1, "sigmoid"), (3, "softmax")])
def test_region_score_is_the_mean_over_the_region(score, classes, activation):
    model, x = small_net(classes).eval().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    raw = model(x)
    p = raw.sigmoid()[:, 0] if classes == 1 else raw.softmax(1)[:, 0]
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2())
    want = {"probability": p, "logit": raw[:, 0], "entropy": entropy}[score][:, 2:6, 2:6]
    for reduce, expected in (("mean", want.mean((1, 2))), ("sum", want.sum((1, 2)))):
        got = RegionScore(model, REGION, 0, activation, score, reduce)(x)
        assert torch.allclose(got, expected, atol=1e-9)


def test_region_score_hosts_captums_methods():
    model, x = small_net().eval(), torch.randn(2, 3, 8, 8)
    regions = torch.stack([REGION, REGION.roll(1, 1)])
    score = RegionScore(model)
    for method, extra in ((FeatureAblation(score), {"perturbations_per_eval": 2}), (IntegratedGradients(score), {"n_steps": 4}),
                          (Occlusion(score), {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)})):
        both = method.attribute(x, additional_forward_args=regions, **extra)
        one = method.attribute(x[1:], additional_forward_args=regions[1:], **extra)
        assert both.shape == x.shape and torch.allclose(both[1], one[0], atol=1e-5)
    with pytest.raises(ValueError, match="2 different rows"):
        RegionScore(model, regions)(torch.randn(4, 3, 8, 8))


def test_seg_grad_cam_is_captums():
    model, x = small_net().eval(), torch.randn(1, 3, 8, 8)
    want = LayerGradCam(RegionScore(model, REGION, score="logit"), model[0]).attribute(x, relu_attributions=True)
    assert torch.allclose(seg_grad_cam(model, x, region=REGION[None], layer=model[0]), want)


@pytest.mark.parametrize("weights", ["softmax", "increase"])
@pytest.mark.parametrize("per_eval", [1, 5])
def test_score_cam_equals_a_plain_loop(weights, per_eval):
    model, x = small_net().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model[0].weight.data[3] = 0
    model[4].bias.data += 1
    cam = LayerScoreCam(RegionScore(model, REGION), model[0], weights).attribute(x, perturbations_per_eval=per_eval, baselines=-1)
    model.eval()

    def score(image):
        return float(model(image[None]).sigmoid()[0, 0, 2:6, 2:6].mean())

    for b in range(2):
        activation = model[0](x[b:b + 1])[0].detach()
        scores = []
        for channel in activation:
            low, high = float(channel.min()), float(channel.max())
            scores.append(None if low == high else score(-1 + (x[b] + 1) * ((channel - low) / (high - low))))
        assert scores[3] is None
        if weights == "softmax":
            total = sum(math.exp(s) for s in scores if s is not None)
            w = [0 if s is None else math.exp(s) / total for s in scores]
        else:
            w = [0 if s is None else s - score(torch.full_like(x[b], -1)) for s in scores]
        want = sum(a * float(v) for a, v in zip(activation, w, strict=True)).clamp(min=0)
        assert torch.allclose(cam[b, 0], want, atol=1e-6)
    assert not model[0]._forward_hooks


class TestLayerScoreCamContract:
    """What the perturbation methods promise, for the layer method: its maps have the layer's size."""

    def cam(self, model, region=None):
        return LayerScoreCam(RegionScore(model, region), model[2])

    def test_shapes_tuples_and_batches(self):
        x, regions, model = torch.randn(2, 3, 8, 8), torch.stack([REGION, REGION.roll(1, 0)]), small_net()
        both = self.cam(model).attribute(x, regions, 3)
        assert both.shape == (2, 1, 8, 8) and both.is_contiguous() and both.dtype == x.dtype
        packed = self.cam(model).attribute((x,), regions, 3)
        assert isinstance(packed, tuple) and torch.equal(packed[0], both)
        for b in range(2):
            assert torch.allclose(self.cam(model).attribute(x[b:b + 1], regions[b:b + 1])[0], both[b], atol=1e-5)
        with pytest.raises(ValueError, match="one input, got 2"):
            self.cam(model).attribute((x, x), regions)

    def test_model_is_left_as_it_was(self):
        model, x = small_net(), torch.randn(1, 3, 8, 8, requires_grad=True)
        model[1].eval()
        flags, state = [m.training for m in model.modules()], torch.get_rng_state()
        self.cam(model, REGION).attribute(x)
        broken = model[4].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError, match="broken"):
            self.cam(model, REGION).attribute(x)
        broken.remove()
        assert flags == [m.training for m in model.modules()] and torch.equal(state, torch.get_rng_state())
        assert not any(m._forward_hooks for m in model.modules()) and x.grad is None

    def test_noise_tunnel_sensitivity_and_visualization(self):
        x, model = torch.randn(2, 3, 8, 8), small_net()
        method = self.cam(model, REGION)
        smooth = NoiseTunnel(method).attribute(x, nt_samples=2, stdevs=0.0)
        assert torch.allclose(smooth, method.attribute(x), atol=1e-5)
        assert sensitivity_max(method.attribute, x, n_perturb_samples=2).shape == (2,)
        heat, image = (t[0].permute(1, 2, 0).detach().numpy() for t in (method.attribute(x), x))
        figure, _ = viz.visualize_image_attr(heat, image.clip(0, 1), method="blended_heat_map", sign="all", use_pyplot=False)
        assert figure.axes

    def test_infidelity_of_the_upsampled_map(self):
        x, model = torch.randn(1, 3, 8, 8), small_net().eval()
        spread = self.cam(model, REGION).attribute(x).expand_as(x)

        def perturb(inputs):
            noise = torch.randn_like(inputs) * 0.1
            return noise, inputs - noise

        assert torch.isfinite(infidelity(RegionScore(model, REGION), perturb, x, spread)).all()


def test_score_cam_refuses_a_dense_model():
    model = small_net()
    with pytest.raises(ValueError, match=r"one number per example.*\(1, 1, 8, 8\).*RegionScore"):
        LayerScoreCam(model, model[0]).attribute(torch.randn(1, 3, 8, 8))
    assert not model[0]._forward_hooks


@pytest.mark.slow
def test_default_layer_is_the_bottleneck():
    model = paper_unet()
    layer = default_layer(model, torch.zeros(1, 3, 64, 64))
    seen = []
    handle = layer.register_forward_hook(lambda _m, _i, o: seen.append(tuple(o.shape)))
    model(torch.zeros(1, 3, 64, 64))
    handle.remove()
    assert seen == [(1, 320, 2, 2)]


def test_default_layer_is_found_inside_wrappers_at_any_size():
    model = paper_unet()
    layer = default_layer(model, torch.zeros(1, 3, 64, 64))
    for wrapped in (Padded(model), nn.DataParallel(Padded(model)), Padded(nn.Sequential(model)), nn.Sequential(Padded(model))):
        assert default_layer(wrapped, torch.rand(1, 3, 41, 50)) is layer


METHOD = EntropyCentric(small_net())
X = torch.randn(1, 3, 8, 8)
BAD = {
    "n no power of two": (lambda: EntropyCentric(small_net(), sampler="sobol").attribute(X, n_samples=6), "power of two.*got 6"),
    "n too small": (lambda: METHOD.attribute(X, n_samples=1), "at least 2, got 1"),
    "mask and grid": (lambda: METHOD.attribute(X, feature_mask=torch.zeros(1, 1, 8, 8).long(), grid_size=2), "not both"),
    "mask of another shape": (lambda: METHOD.attribute(X, feature_mask=torch.zeros(1, 1, 4, 4).long()), r"\(1, 1, 4, 4\)"),
    "float mask": (lambda: METHOD.attribute(X, feature_mask=torch.zeros(1, 1, 8, 8)), "integer ids, got torch.float32"),
    "empty region": (lambda: METHOD.attribute(X, region=torch.zeros(8, 8)), "empty region"),
    "region out of range": (lambda: METHOD.attribute(X, region=torch.full((8, 8), 255.0)), "255"),
    "region of another batch": (lambda: METHOD.attribute(X, region=torch.ones(3, 8, 8)), r"\(3, 8, 8\)"),
    "target out of range": (lambda: METHOD.attribute(X, target=1, region=REGION, **SMALL), "1 is no class"),
    "no target": (lambda: EntropyCentric(small_net(3)).attribute(X, region=REGION, **SMALL), "target=None.*3 channels"),
    "softmax of one": (lambda: EntropyCentric(small_net(), "softmax").attribute(X, region=REGION, **SMALL), "softmax of one"),
    "unknown activation": (lambda: EntropyCentric(small_net(), "tanh"), "'tanh'"),
    "unknown reduction": (lambda: EntropyCentric(small_net(), reduction="sum"), "'sum'"),
    "unknown sampler": (lambda: EntropyCentric(small_net(), sampler="grid").attribute(X), "'grid'"),
    "too many features": (
        lambda: EntropyCentric(small_net(), sampler="sobol").attribute(torch.zeros(1, 1, 128, 128), grid_size=128), "21201"),
    "nan input": (lambda: METHOD.attribute(X * math.nan), "NaN"),
    "nan output": (lambda: EntropyCentric(lambda x: x[:, :1] * math.nan).attribute(X, region=REGION, **SMALL), "NaN"),
    "classifier": (lambda: EntropyCentric(lambda x: x.mean((2, 3))).attribute(X, region=REGION, **SMALL), r"got shape \(1, 3\)"),
    "no probability": (lambda: EntropyCentric(lambda x: 3 + x[:, :1], "none").attribute(X, region=REGION, **SMALL), "none"),
    "baseline shape": (lambda: METHOD.attribute(X, torch.zeros(5, 3, 8, 8), region=REGION), r"\(5, 3, 8, 8\)"),
    "per eval": (lambda: METHOD.attribute(X, region=REGION, perturbations_per_eval=0), "integer of at least 1, got 0"),
    "grid too fine": (lambda: METHOD.attribute(X, grid_size=9), "9 x 9.*8 x 8"),
    "negative tolerance": (lambda: METHOD.attribute(X, region=REGION, tolerance=-1), "got -1"),
    "regions batch": (lambda: METHOD.attribute_regions(torch.zeros(2, 3, 8, 8), REGION.long()), "batch 1"),
    "regions float map": (lambda: METHOD.attribute_regions(X, REGION), r"integer map"),
    "no region in score": (lambda: RegionScore(small_net())(X), "needs a region"),
}


@pytest.mark.parametrize("call,message", BAD.values(), ids=BAD)
def test_bad_input_is_quoted(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_dictionary_output_is_refused():
    with pytest.raises(TypeError, match="dict"):
        EntropyCentric(lambda x: {"out": x}).attribute(X, region=REGION, **SMALL)


def test_activated_outputs_are_a_warning():
    model = nn.Sequential(small_net(), nn.Sigmoid())
    with pytest.warns(UserWarning, match="in a sigmoid already"):
        EntropyCentric(model).attribute(X, region=REGION, **SMALL)


def test_empty_prediction_is_an_error():
    model = small_net()
    model[4].bias.data -= 100
    with pytest.raises(ValueError, match="predicts no pixel of class 0; pass region="):
        EntropyCentric(model).attribute(X)


def test_score_map_of_another_size_is_resized():
    half = nn.Sequential(small_net(), nn.AvgPool2d(2))
    seen = Recorder(half)
    attribution = EntropyCentric(seen).attribute(X, region=REGION, **SMALL)

    class Resized(nn.Module):
        def forward(self, x):
            return torch.nn.functional.interpolate(half(x), (8, 8), mode="bilinear", align_corners=False)

    half.eval()
    assert torch.allclose(attribution, EntropyCentric(Resized()).attribute(X, region=REGION, **SMALL), atol=1e-6)
    assert np.isfinite(attribution.numpy()).all()


def test_resizing_makes_no_pattern_of_a_constant_channel():
    activation = torch.cat([torch.full((1, 1, 8, 8), 0.1), torch.rand(1, 1, 8, 8)], 1)
    masks, varies = scaled_channels(activation, (64, 64))
    assert varies.tolist() == [[False, True]] and not masks[0, 0].any() and masks[0, 1].max() == 1
