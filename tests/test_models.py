"""Networks from elsewhere give the scores that they give at home, and what cannot come in says why."""
import json
import socket
import sys
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import reference
import segmentation_models_pytorch as smp
import torch
import torchvision
from conftest import small_net
from torch import nn

from entropy_captum.attribution import EntropyCentric
from entropy_captum.cam import default_layer, seg_grad_cam
from entropy_captum.capture import Unsupported
from entropy_captum.card import ModelCard, to_inputs
from entropy_captum.inference import FullInference
from entropy_captum.methods import ask_of_image, leave_out
from entropy_captum.models import load_model
from entropy_captum.perturbation import Perturbation
from entropy_captum.planning import largest_difference, propose
from entropy_captum.question import Budget
from entropy_captum.sampling import pick_freeze
from entropy_captum.signs import inspect_model

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(f"ignore:{what}") for what in (
    ":DeprecationWarning", ":FutureWarning", ".*images are explained at"))]

SIZE, GRID, DESIGNS = 64, 2, 2
CARD = {"scale": 1 / 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


def steady(net):
    """Eval mode, and batch-norm statistics that are not trivial."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def unet(classes):
    torch.manual_seed(5)
    return steady(smp.Unet("resnet18", encoder_weights=None, classes=classes))


@pytest.fixture(scope="session")
def image():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def region():
    mask = torch.zeros(SIZE, SIZE)
    mask[20:34, 26:40] = 1
    return mask


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refused(*_):
        raise AssertionError("a model is loaded without the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def scores(model, image, region, target, inference="full"):
    found = EntropyCentric(model, inference=inference).estimate(
        to_inputs(image, model.card), target=target, region=region, grid_size=GRID, n_samples=DESIGNS, perturbations_per_eval=3)
    return found.scores[0].numpy()


# The same network, in ten ways and more.

def as_module(net, folder):
    return net


def by_file(net, folder):
    torch.save(net.state_dict(), folder / "own.pth")
    (folder / "own.py").write_text(
        "import segmentation_models_pytorch as smp, torch\n"
        "def make(classes):\n"
        "    net = smp.Unet('resnet18', encoder_weights=None, classes=classes)\n"
        f"    net.load_state_dict(torch.load({str(folder / 'own.pth')!r}))\n"
        "    return net\n")
    return f"{folder}/own.py:make(classes={net.segmentation_head[0].out_channels})"


def by_package(net, folder):
    module = type(sys)("package_with_a_network")
    module.network = net
    sys.modules[module.__name__] = module
    return "package_with_a_network:network"


def checkpoint(net, folder):
    torch.save({"state_dict": {f"model.{k}": v for k, v in net.state_dict().items()}, "recipe": {"encoder": "resnet18"}},
               folder / "last.ckpt")
    return folder / "last.ckpt"


def torchgeo(net, folder):
    classes = net.segmentation_head[0].out_channels
    task = {"model": "unet", "backbone": "resnet18", "in_channels": 3, "num_classes": classes,
            "task": "binary" if classes == 1 else "multiclass", "loss": "ce", "class_weights": None, "lr": 1e-3}
    tensors = {f"model.{k}": v for k, v in net.state_dict().items()} | {"criterion.weight": torch.ones(2)}
    torch.save({"state_dict": tensors, "hyper_parameters": task, "epoch": 3}, folder / "epoch3.ckpt")
    return folder / "epoch3.ckpt"


def smp_folder(net, folder):
    net.save_pretrained(folder / "hub")
    return folder / "hub"


def traced(net, folder):
    torch.jit.trace(net, torch.rand(2, 3, SIZE, SIZE)).save(folder / "traced.pt")
    return folder / "traced.pt"


def scripted(net, folder):
    torch.jit.save(torch.jit.script(net), folder / "scripted.torchscript")
    return folder / "scripted.torchscript"


def export(net, path, batch, dynamic):
    torch.export.save(torch.export.export(net, (torch.rand(batch, 3, SIZE, SIZE),), dynamic_shapes=(dynamic,)), path)
    return path


def exported_fixed(net, folder):
    return export(net, folder / "fixed.pt2", 1, None)


def exported_pairs(net, folder):
    return export(net, folder / "pairs.pt2", 2, None)


def exported_dynamic(net, folder):
    dim = torch.export.Dim
    return export(net, folder / "dynamic.pth", 2, {0: dim("b"), 2: 32 * dim("h", max=32), 3: 32 * dim("w", max=32)})


def exported_module(net, folder):
    return torch.export.load(export(net, folder / "dynamic.pt2", 2, {0: torch.export.Dim.DYNAMIC})).module()


def onnx(net, path, batch, axes=None):
    pytest.importorskip("onnxruntime")
    torch.onnx.export(net, (torch.rand(batch, 3, SIZE, SIZE),), path, dynamo=False, input_names=["x"], output_names=["y"],
                      dynamic_axes=axes)
    return path


def onnx_fixed(net, folder):
    return onnx(net, folder / "fixed.onnx", 1)


def onnx_dynamic(net, folder):
    return onnx(net, folder / "dynamic.onnx", 2, {"x": {0: "b", 2: "h", 3: "w"}, "y": {0: "b", 2: "h", 3: "w"}})


def openvino(net, folder):
    read = pytest.importorskip("openvino")
    read.save_model(read.Core().read_model(onnx_dynamic(net, folder)), folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


def function(net, folder):
    return lambda x: net(x)


def compiled(net, folder):
    return torch.compile(net, backend="eager")


def in_dict(net, folder):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return OrderedDict(out=self.net(x))

    return Wrapped()


def in_place(net, folder):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            y = self.net(x)
            x.zero_()
            return y

    return Writes()


SAME = [as_module, by_file, by_package, checkpoint, torchgeo, smp_folder, traced, scripted, exported_fixed, exported_pairs,
        exported_dynamic, exported_module, onnx_fixed, onnx_dynamic, openvino, function, compiled, in_dict, in_place]


@pytest.fixture(scope="session")
def at_home(image, region):
    """The scores of the network by itself, on inputs that are prepared by hand, in plain loops over the pixels."""
    found = {}
    for classes in (1, 3):
        net, k = unet(classes), classes - 1
        found[classes] = by_loops(net, image, region, k, CARD)
    return found


def by_loops(net, image, region, k, card, prepare=None):
    """Scores by plain loops; what is perturbed is the image itself, grey (the middle of its range) where a patch is removed."""
    def by_hand(pixels):
        given = ((pixels * card["scale"] - np.array(card["mean"])) / np.array(card["std"])).transpose(2, 0, 1)[None]
        return net(torch.from_numpy(given).float())

    def network(x):
        return (prepare or by_hand)(x.numpy()[0].transpose(1, 2, 0)).double()

    pairs = np.concatenate([np.concatenate([d.a, d.b])[None] for d in pick_freeze(DESIGNS, GRID * GRID)])
    activation = "sigmoid" if k == 0 else "softmax"
    x = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two designs leave nothing for a jackknife, which is not asked for
        return reference.estimate(network, x, region, k, activation, GRID, pairs, baseline=127.5)["pixel"]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("way", SAME, ids=lambda f: f.__name__)
def test_the_same_network_gives_the_same_scores(way, classes, image, region, at_home, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(way(unet(classes), tmp_path), CARD)
        found = scores(model, image, region, classes - 1)
    np.testing.assert_allclose(found, at_home[classes], atol=1e-5, rtol=2e-3)
    assert at_home[classes].max() > 1e-4  # there is something to compare


# Networks of other libraries, each against plain loops over what its own preprocessing makes of the image.

def segformer():
    return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
        id2label={0: "ground", 1: "roof", 2: "tree"}, hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, num_attention_heads=[1] * 4,
        decoder_hidden_size=16))


def upernet():
    stages = transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1] * 4,
                                         out_features=[f"stage{k}" for k in range(1, 5)])
    return transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
        backbone_config=stages, num_labels=3, hidden_size=16, auxiliary_in_channels=16, auxiliary_channels=8, pool_scales=[1, 2]))


VIT = {"image_size": SIZE, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
       "intermediate_size": 32, "num_labels": 3, "initializer_range": 0.2}


def beit():
    return transformers.BeitForSemanticSegmentation(transformers.BeitConfig(
        **VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8, auxiliary_num_convs=1, use_relative_position_bias=True))


def dpt():
    return transformers.DPTForSemanticSegmentation(transformers.DPTConfig(
        **VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=16))


def swin():
    return transformers.SwinConfig(image_size=SIZE, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
                                   out_features=[f"stage{k}" for k in range(1, 5)])


def mask2former():
    return transformers.Mask2FormerForUniversalSegmentation(transformers.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=5, num_labels=3))


def maskformer():
    detr = transformers.DetrConfig(d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
                                   encoder_attention_heads=2, decoder_attention_heads=2, num_queries=5)
    return transformers.MaskFormerForInstanceSegmentation(transformers.MaskFormerConfig(
        backbone_config=swin(), fpn_feature_size=32, mask_feature_size=32, decoder_config=detr, num_labels=3))


PROCESSORS = {segformer: "Segformer", upernet: "Segformer", beit: "Beit", dpt: "DPT", mask2former: "Mask2Former",
              maskformer: "MaskFormer"}


def saved(make, folder):
    """A folder of transformers, its network and the image processor in it."""
    torch.manual_seed(3)
    net = steady(make())
    net.save_pretrained(folder)
    getattr(transformers, f"{PROCESSORS[make]}ImageProcessor")().save_pretrained(folder)
    return net, transformers.AutoImageProcessor.from_pretrained(folder)


def summed(outputs):
    """The scores of a mask classification network, query by query: the log of what its classes and masks add up to."""
    total = 0
    for q in range(outputs.class_queries_logits.shape[1]):
        chance = outputs.class_queries_logits[:, q].exp() / outputs.class_queries_logits[:, q].exp().sum(-1, keepdim=True)
        mask = 1 / (1 + torch.exp(-outputs.masks_queries_logits[:, q]))
        total = total + chance[:, :-1, None, None] * mask[:, None]
    return total.log()


@pytest.mark.parametrize("make", PROCESSORS, ids=lambda f: f.__name__)
def test_a_folder_of_transformers_is_explained_as_its_own_processor_prepares_it(make, image, region, tmp_path):
    net, processor = saved(make, tmp_path)

    def prepare(pixels):
        given = processor(pixels, return_tensors="pt", do_resize=False, input_data_format="channels_last")["pixel_values"]
        outputs = net(given.float())
        maps = outputs.logits if "logits" in outputs else summed(outputs)
        return nn.functional.interpolate(maps, (SIZE, SIZE), mode="bilinear", align_corners=False)

    model = load_model(tmp_path)
    wanted = by_loops(net, image, region, 1, CARD, prepare)
    np.testing.assert_allclose(scores(model, image, region, 1), wanted, atol=1e-7, rtol=1e-2)
    assert wanted.max() > 1e-7
    assert model.card.classes == (("ground", "roof", "tree") if make is segformer else ())
    assert model.card.size == ((SIZE, SIZE) if make is dpt else None)


def test_masks_become_classes_by_the_librarys_own_rule(tmp_path):
    from entropy_captum.adapter import mask_classes
    for make in (maskformer, mask2former):
        net, processor = saved(make, tmp_path / make.__name__)
        with torch.no_grad():
            outputs = net(torch.randn(1, 3, SIZE, SIZE))
        masks = outputs.masks_queries_logits
        if make is mask2former:  # the library enlarges its masks first
            masks = nn.functional.interpolate(masks, (384, 384), mode="bilinear", align_corners=False)
        found = mask_classes(outputs.class_queries_logits, masks).argmax(1)[0]
        assert torch.equal(found, processor.post_process_semantic_segmentation(outputs)[0])


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_a_torchvision_builder_by_reference_fetches_nothing_and_says_that_it_knows_nothing(name, image, region):
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="weights are random"):
        model = load_model(f"torchvision.models.segmentation:{name}(num_classes=3)", CARD)
    torch.manual_seed(1)
    net = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=3).eval()
    mean, std = torch.tensor(CARD["mean"]), torch.tensor(CARD["std"])

    def prepare(pixels):
        return net(((torch.from_numpy(pixels) / 255 - mean) / std).permute(2, 0, 1)[None].float())["out"]

    wanted = by_loops(net, image, region, 1, CARD, prepare)
    np.testing.assert_allclose(scores(model, image, region, 1), wanted, atol=1e-6, rtol=1e-2)


def test_weights_of_torchvision_bring_their_preprocessing(monkeypatch):
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights as Weights
    net = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    monkeypatch.setattr(Weights, "get_state_dict", lambda self, *_, **__: net.state_dict())
    model = load_model("torchvision.models.segmentation:lraspp_mobilenet_v3_large(weights='DEFAULT')")
    assert model.card.mean == (0.485, 0.456, 0.406)
    assert model.card.classes[:2] == ("__background__", "aeroplane")


# What a source says of itself.

def test_a_folder_of_smp_says_what_its_config_says(tmp_path):
    options = {"encoder_depth": 3, "decoder_channels": (16, 8, 8), "in_channels": 4, "classes": 2, "activation": "sigmoid"}
    smp.Unet("resnet18", encoder_weights=None, **options).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="nothing says what pixel values"):
        load_model(tmp_path)
    card = load_model(tmp_path, {"scale": 1 / 255}).card
    assert (card.multiple, card.activation, len(card.bands)) == (8, "none", 4)
    config = json.loads((tmp_path / "config.json").read_text()) | {"encoder_weights": "imagenet"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="not on this machine"):
        load_model(tmp_path, {"scale": 1 / 255})


def test_the_encoders_own_preprocessing_is_taken_where_it_is_known(tmp_path):
    from timm.models import get_pretrained_cfg
    name = "tf_efficientnet_lite0"
    smp.Unet(f"tu-{name}", encoder_weights=None).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"encoder_weights": "imagenet"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="are those of the weights 'imagenet'"):
        card = load_model(tmp_path).card
    assert card.mean == tuple(get_pretrained_cfg(name).mean)


def test_an_image_processor_may_flip_channels_and_leave_numbers_alone(tmp_path):
    saved(segformer, tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings |= {"do_rescale": False, "do_normalize": False, "do_reduce_labels": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.warns(UserWarning, match="counted from 1"):
        card = load_model(tmp_path).card
    assert (card.scale, card.mean, card.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    transformers.MobileViTImageProcessor().save_pretrained(tmp_path)
    assert load_model(tmp_path).card.bands == ("blue", "green", "red")


def test_a_program_says_its_size_multiple_bands_and_batch(tmp_path):
    dim, net = torch.export.Dim, small_net(2, 4).eval()
    torch.export.save(torch.export.export(net, (torch.rand(1, 4, 32, 48),)), tmp_path / "fixed.pt2")
    with pytest.warns(UserWarning, match="takes 1 image at a time"):
        card = load_model(tmp_path / "fixed.pt2", {"scale": 1 / 255}).card
    assert (card.size, len(card.bands)) == ((32, 48), 4)
    sides = {0: dim("b"), 2: 8 * dim("h", max=32), 3: 12 * dim("w", max=32)}
    torch.export.save(torch.export.export(net, (torch.rand(2, 4, 32, 48),), dynamic_shapes=(sides,)), tmp_path / "any.pt2")
    assert load_model(tmp_path / "any.pt2", {"scale": 1 / 255}).card.multiple == 24


def test_a_program_says_which_sizes_it_was_exported_for():
    dim, net = torch.export.Dim, small_net().eval()
    sides = {0: dim("b"), 2: 8 * dim("h", min=2, max=4), 3: 8 * dim("w", min=2, max=4)}
    for example, shapes, size, said in ((1, None, (16, 24), "height is 8"), (1, None, (8, 24), "width is 8"),
                                        (2, (sides,), (8, 24), "height is >= 16"), (2, (sides,), (24, 40), "width is <= 32")):
        side = 8 if shapes is None else 16
        program = torch.export.export(net, (torch.rand(example, 3, side, side),), dynamic_shapes=shapes).module()
        with pytest.raises(ValueError, match=rf"exported for inputs whose {said}, the input has the shape \(1, 3, \d+, \d+\)"):
            EntropyCentric(program).attribute(torch.rand(1, 3, *size), region=torch.ones(size), grid_size=2, n_samples=2)


# The engine.

def tv(name):
    return getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=3)


ENGINE = {"segformer": segformer, "upernet": upernet, "fcn": lambda: tv("fcn_resnet50"),
          "lraspp": lambda: tv("lraspp_mobilenet_v3_large"),
          "deeplab": lambda: tv("deeplabv3_mobilenet_v3_large"), "compiled": lambda: torch.compile(unet(1), backend="eager"),
          "exported": lambda: torch.export.export(unet(1), (torch.rand(2, 3, SIZE, SIZE),),
                                                  dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module(),
          "in place": lambda: in_place(unet(1), None)}


@pytest.mark.parametrize("name", ENGINE)
def test_incremental_inference_engages_and_is_exact(name, image, region):
    torch.manual_seed(2)
    net = ENGINE[name]()
    model = load_model(net if name == "exported" else steady(net), CARD)
    x = to_inputs(image, model.card)
    with torch.no_grad():
        model(x)  # transformers leaves hooks at its first call, and a network is compiled
    found = propose(FullInference(model), Perturbation((x,), 0.0, None, GRID), region[None], Budget(n_samples=DESIGNS))
    assert largest_difference(found.engine, Perturbation((x,), 0.0, None, GRID)) < 1e-4
    target = None if name in ("compiled", "exported", "in place") else 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="incremental inference is not possible")
        fast = scores(model, image, region, target, "incremental")
    np.testing.assert_allclose(fast, scores(model, image, region, target), atol=1e-6, rtol=1e-2)


def refusing(kind, folder):
    if kind == "TorchScript":
        return traced(small_net().eval(), folder)
    if kind == "batch":
        return exported_fixed(small_net().eval(), folder)
    saved(mask2former, folder)
    return folder


@pytest.mark.parametrize(("kind", "why"), [("TorchScript", "TorchScript"), ("batch", "torch.export"), ("queries", "size")])
def test_where_it_cannot_the_plan_says_why(kind, why, image, region, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(refusing(kind, tmp_path), None if kind == "queries" else CARD)
        if kind == "queries":  # recorded, and found out when it is compared to a full forward
            with pytest.warns(UserWarning, match=f"going on in full: .*{why}"):
                scores(model, image, region, 0, "incremental")
            return
        with pytest.raises(Unsupported, match=why):
            EntropyCentric(model).explain_plan(to_inputs(image, model.card), target=0, region=region, grid_size=2, n_samples=2)
    with pytest.warns(UserWarning, match="going on in full"):
        scores(model, image, region, 0, "incremental")


@pytest.mark.parametrize("make", [segformer, upernet, lambda: tv("lraspp_mobilenet_v3_large")],
                         ids=["segformer", "upernet", "lraspp"])
def test_a_layer_is_found_in_encoders_by_any_name(make, image, region):
    model = load_model(steady(make()), CARD)
    x = to_inputs(image, model.card)
    layer = default_layer(model, x)
    side = []
    handle = layer.register_forward_hook(lambda _m, _i, output: side.append(output.shape[-1]))
    heat = seg_grad_cam(model, x, region=region[None], target=1, layer=layer)
    handle.remove()
    assert side[0] in (2, 4)  # the deepest of the encoder: a 32nd, or a 16th, of 64 pixels
    assert heat.shape == (1, 1, SIZE, SIZE)


def test_cams_of_a_compiled_network_are_those_of_the_network(image, region):
    net = unet(1)
    model, other = load_model(net, CARD), load_model(torch.compile(net, backend="eager"), CARD)
    x = to_inputs(image, model.card)
    with torch.no_grad():
        other(x)
    assert torch.equal(seg_grad_cam(other, x, region=region[None]), seg_grad_cam(model, x, region=region[None]))


@pytest.mark.parametrize(("kind", "why"), [("patches", "returns no map"), ("program", "returns no map"), ("script", "TorchScript"),
                                           ("trace", "TorchScript")])
def test_cams_are_left_out_with_a_reason(kind, why, image, region, tmp_path):
    make = {"patches": lambda *_: steady(beit()), "program": exported_fixed, "script": scripted, "trace": traced}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(make(unet(3), tmp_path), CARD)
    question = ask_of_image(model, to_inputs(image, model.card), region[None], target=1)
    with pytest.warns(UserWarning, match=f"is left out: it looks into a layer, and .*{why}"):
        assert leave_out(question, ["entropy", "grad-cam", "score-cam"]) == ["entropy"]


# Odd networks behind a card.

@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_scores(dtype, image, region, at_home):
    found = scores(load_model(unet(3).to(dtype), CARD), image, region, 2)
    np.testing.assert_allclose(found, at_home[3], atol=0.1 * at_home[3].max())


class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how, self.calls = unet(1), how, 0

    def forward(self, x):
        self.calls += 1
        y = self.net(x)
        return nn.functional.dropout(y, 0.3, training=True) if self.how == "random" else y + 10 * self.calls


@pytest.mark.parametrize("how", ["random", "stateful"])
def test_a_model_without_one_answer_is_said_to_be_so_with_the_spread(how, image, region):
    with pytest.warns(UserWarning, match=r"differ by [\d.e+]+ % of the largest"):
        scores(load_model(Odd(how), CARD), image, region, None)


def test_the_users_tensor_is_never_touched(image):
    x = to_inputs(image, ModelCard())
    before = x.clone()
    load_model(in_place(unet(1), None), ModelCard())(x)  # a card under which nothing is computed
    assert torch.equal(x, before)


def test_eval_and_train_of_a_program_do_nothing(tmp_path):
    net = small_net().eval()
    for source in (exported_module(net, tmp_path), tmp_path / "dynamic.pt2"):
        model = load_model(source, CARD)
        assert model.train().eval() is model


# Bad input, one case each.

def detr_folder(folder):
    (folder / "config.json").write_text(json.dumps({"architectures": ["DetrForObjectDetection"]}))
    return folder


def oneformer_folder(folder):
    (folder / "config.json").write_text(json.dumps({"architectures": ["OneFormerForUniversalSegmentation"]}))
    return folder


def empty_folder(folder):
    return folder


def foreign_code(folder):
    config = {"architectures": ["MyForSemanticSegmentation"], "auto_map": {"AutoModel": "my.My"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def lacking(folder):
    from safetensors.torch import load_file, save_file
    saved(segformer, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("decode_head.classifier.bias")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def only_pickled(folder):
    net, _ = saved(segformer, folder)
    (folder / "model.safetensors").unlink()
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    return folder


def text_as_weights(folder):
    (folder / "a.pt").write_text("not a model")
    return folder / "a.pt"


def whole_module(folder):
    torch.save(unet(1), folder / "whole.pth")
    return folder / "whole.pth"


def broken_program(folder):
    path = exported_fixed(small_net(), folder)
    path.write_bytes(path.read_bytes()[:-600])
    return path


def two_inputs(folder):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    torch.export.save(torch.export.export(Two(), (torch.rand(1, 3, 8, 8),) * 2), folder / "two.pt2")
    return folder / "two.pt2"


def code_in_a_program(folder):
    import zipfile
    path = exported_fixed(small_net().eval(), folder)
    inner = folder / "inner.pt"
    torch.save(({"net": nn.Identity()},), inner)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / "code.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, inner.read_bytes() if name.endswith("sample_inputs/model.pt") else old.read(name))
    return folder / "code.pt2"


def unknown_task(folder):
    torch.save({"state_dict": {}, "hyper_parameters": {"model": "fcn", "backbone": "resnet18"}}, folder / "fcn.ckpt")
    return folder / "fcn.ckpt"


def wrong_option(folder):
    return "torchvision.models.segmentation:fcn_resnet50(classes=3)"


def no_literal(folder):
    return "torchvision.models.segmentation:fcn_resnet50(num_classes=n)"


BAD = [(detr_folder, "finds boxes and has no score map"), (oneformer_folder, "also wants a text"), (empty_folder, "config.json"),
       (foreign_code, "code from a folder is not run"), (lacking, "lack 1 tensors of Segformer.*classifier.bias"),
       (only_pickled, "safetensors"), (text_as_weights, "not a readable weights file"), (whole_module, "only tensors are read"),
       (broken_program, "neither"), (two_inputs, "one image tensor"), (code_in_a_program, "cannot load it"),
       (unknown_task, "cannot build 'fcn'"), (wrong_option, "torchvision cannot build it"), (no_literal, "written out")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "why"), BAD, ids=lambda v: getattr(v, "__name__", ""))
def test_what_cannot_come_in_says_why_and_names_itself(make, why, tmp_path):
    source = make(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){why}") as caught:
        load_model(source, CARD)
    assert str(source) in str(caught.value)


def test_a_missing_extra_names_what_to_install(tmp_path, monkeypatch):
    saved(segformer, tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"needs the package transformers: pip install .*transformers"):
        load_model(tmp_path)


def test_a_network_on_meta_holds_no_numbers():
    with pytest.raises(ValueError, match="'meta'"):
        load_model(unet(1).to("meta"), CARD)


def test_what_is_no_score_map_or_no_class_or_of_other_bands(image, region):
    with pytest.raises((TypeError, ValueError), match=r"dict per image.*no score map"):
        net = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
        scores(load_model(net, CARD), image, region, 0)
    with pytest.raises(ValueError, match="score map"):
        scores(load_model(torchvision.models.squeezenet1_1(weights=None), CARD), image, region, 0)
    with pytest.raises(ValueError, match="classes"):
        scores(load_model(unet(3), CARD | {"classes": ("ground", "roof")}), image, region, 0)
    with pytest.raises(ValueError, match="roofs"):
        scores(load_model(unet(3), CARD | {"classes": ("ground", "roof", "tree")}), image, region, "roofs")
    with pytest.raises(ValueError, match="4"):
        scores(load_model(small_net(2, 4), {"scale": 1.0, "bands": ("a", "b", "c", "d")}), image, region, 0)


@pytest.mark.parametrize(("task", "activation"),
                         [("binary", "sigmoid"), ("multiclass", "softmax"), ("multilabel", "sigmoid"), (None, "auto")])
def test_a_task_says_what_makes_probabilities_of_its_scores(task, activation, tmp_path):
    """Labels that do not exclude each other are no softmax: torchgeo's `task` tells."""
    net = smp.Unet("resnet18", encoder_weights=None, classes=1 if task == "binary" else 2)
    given = {"model": "unet", "backbone": "resnet18", "task": task} | ({} if task == "binary" else {"num_labels": 2})
    weights = {f"model.{k}": v for k, v in net.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": given}, tmp_path / "last.ckpt")
    assert load_model(tmp_path / "last.ckpt", {"scale": 1 / 255}).card.activation == activation


def test_inspecting_a_network_of_four_bands_needs_no_image(tmp_path):
    net = smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=2)
    card = {"bands": ["red", "green", "blue", "nir"], "multiple": 32, "scale": 1 / 4095, "value_range": (0, 4095)}
    assert "gave a score map (1, 2, 256, 256)" in str(inspect_model(net, card))
