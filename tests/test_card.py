"""A model card: what it turns pixels into, what it refuses, and how a model gets the one that is meant."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from entropy_captum import EntropyCentric
from entropy_captum.adapter import Adapted, AdaptedForward, adapt, card_of, mask_classes, score_map, sized
from entropy_captum.card import ModelCard, card_text, from_inputs, make_card, read_card, to_inputs, to_picture
from entropy_captum.cli import app
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import ask
from entropy_captum.files import extent_of_array
from entropy_captum.forward import as_forward
from entropy_captum.models import load_model
from entropy_captum.question import Question
from entropy_captum.request import Request
from entropy_captum.workers import model_plugin
from entropy_captum.zoo import Padded, predict, predict_mask, rooftop_unet

IMAGE = procedural_scene(2, 64).image
IMAGENET = ModelCard(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Echo(nn.Module):
    """Returns what it is given, and keeps it."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.float()


@pytest.mark.parametrize("card, want", [
    (ModelCard(), lambda v: v / 127.5 - 1),
    (IMAGENET, lambda v: (v / 255 - IMAGENET.mean) / IMAGENET.std),
    (ModelCard(scale=1, mean=0, std=1), lambda v: v),
    (ModelCard(scale=1, mean=0, std=1, dtype="uint8"), lambda v: v),
    (ModelCard(bands=("blue", "green", "red"), mean=(0.1, 0.2, 0.3), std=1), lambda v: v[..., ::-1] / 255 - (0.1, 0.2, 0.3)),
    (ModelCard(bands=("green", "red", "blue"), scale=1, mean=0, std=1), lambda v: v[..., [1, 0, 2]])])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_network_gets_what_its_card_says(card, want, layout):
    network, own = Echo(), replace(card, layout=layout)
    Adapted(network, own)(to_inputs(IMAGE, own))
    seen = network.seen[0] if layout == "NHWC" else network.seen[0].permute(1, 2, 0)
    assert np.allclose(seen.numpy(), want(IMAGE.astype(np.float64)), atol=2e-4)
    assert str(network.seen.dtype).endswith(own.dtype)


def test_whole_numbers_are_rounded_and_stay_in_range():
    network, card = Echo(), ModelCard(scale=1, mean=0, std=1, dtype="uint8")
    values = torch.tensor([99.4, 99.6, -7.0, 300.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    Adapted(network, card)((values - 127.5) / 127.5)
    assert network.seen[0, 0].flatten().tolist() == [99, 100, 0, 255]


def test_the_bundled_card_changes_nothing():
    bundled, x = load_model(), normalize(IMAGE)
    assert torch.equal(bundled(x), Padded(rooftop_unet())(x)) and "gain" not in bundled.state_dict()
    assert as_forward(bundled).key == as_forward(Padded(rooftop_unet())).key


def test_a_card_survives_its_file(tmp_path):
    card = ModelCard(("nir", "röt", 'a "b"'), (-1.5, 4), 0.1, (1, 2, 3), 2, ("x", "y z"), "sigmoid", (64, 32), 8, "grey",
                     "NHWC", "uint16", 1)
    for name, text in (("a.toml", card_text(asdict(card))), ("a.json", json.dumps(asdict(card)))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert make_card(read_card(tmp_path / name), name) == card
    assert card_text({}).count("# ") == len(fields(ModelCard)), "what is missing stands there, to be filled in"
    for line in ('# activation = "auto" or "softmax" or "sigmoid" or "none"', '# layout = "NCHW" or "NHWC"', "# scale ="):
        assert line in card_text({}).splitlines(), "with the words that it may be"


@pytest.mark.parametrize("facts, said", [
    ({}, "nothing says what pixel values"), ({"scale": 1, "std": 0}, "std must be above 0, got 0"),
    ({"scale": 1, "mean": [1, 2]}, "one for each of the 3 bands, got [1, 2]"), ({"scale": "1/255"}, "scale must be a number"),
    ({"scale": 1, "layout": "HWC"}, "layout must be one of NCHW, NHWC, got 'HWC'"), ({"scale": 1, "mein": 2}, "no entry 'mein'"),
    ({"scale": 1, "classes": ["a", "a"]}, "different names"), ({"scale": 1, "value_range": [1, 1]}, "lowest and the highest"),
    ({"scale": 1, "multiple": 0}, "sides of at least 1"), ({"scale": 1, "size": [8]}, "one for each of the 2"),
    ({"scale": 1, "activation": "tanh"}, "activation must be one of"), ({"scale": float("nan")}, "scale must be a number"),
    ({"scale": 1, "bands": []}, "bands must be at least one"), ({"scale": 1, "dtype": "int4"}, "dtype must be one of")])
def test_a_wrong_card_is_refused(facts, said):
    with pytest.raises(ValueError, match=r"roofs[.]onnx: ") as problem:
        make_card(facts, "roofs.onnx")
    assert said in str(problem.value)


@pytest.mark.parametrize("name, text, said", [
    ("a.toml", "scale = 1/255", "not a model card in TOML"), ("a.json", "[1]", "expected a table"),
    ("a.toml", "skale = 1", "'skale'"), ("b.toml", None, "no readable model card")])
def test_a_wrong_card_file_is_refused(name, text, said, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"toml|json") as problem:
        read_card(tmp_path / name)
    assert said in str(problem.value) and name in str(problem.value)


def test_pixels_of_another_kind_are_refused():
    bands = ModelCard(("a", "b"), (0, 1), 1, 0, 1)
    for image, card, said in ((IMAGE, bands, "bands a, b"), (IMAGE[..., :2] * 100, bands, "another unit"),
                              (IMAGE[..., 0], ModelCard(), ""), (IMAGE / 255, ModelCard(), ""),
                              (np.array([["x"]]), bands, "got <U1")):
        with pytest.raises((ValueError, TypeError)) as problem:
            to_inputs(image, card)
        assert said in str(problem.value)


def test_other_bands_go_in_and_come_out():
    rng = np.random.default_rng(0)
    card = ModelCard(("blue", "green", "red", "nir"), (0, 10_000), 1e-4, 0, 1)
    image = rng.integers(0, 10_000, (8, 9, 4)).astype(np.uint16)
    x = to_inputs(image, card)
    assert np.allclose(from_inputs(x, card), image, atol=1e-2) and float(x.min()) >= -1 and float(x.max()) <= 1
    network = Echo()
    Adapted(network, card)(x)
    assert np.allclose(network.seen[0].permute(1, 2, 0).numpy(), image / 1e4, atol=1e-5)
    seen, ramp = to_picture(image, card), np.argsort(image[..., 2], axis=None, kind="stable")
    assert seen.shape == (8, 9, 3) and seen.dtype == np.uint8
    assert (np.diff(seen[..., 0].ravel()[ramp].astype(int)) >= 0).all(), "red is the third band"


def test_a_fixed_size_is_padded_up_to_and_no_further():
    model = adapt(Echo(), ModelCard(size=(64, 96)))
    x = normalize(IMAGE[:50, :40])
    assert torch.equal(model(x), x) and model.model.seen.shape == (1, 3, 64, 96)
    with pytest.raises(ValueError, match=r"images of 96 x 64 pixels only, got 97 x 64.*--window 64"):
        model(torch.zeros(1, 3, 64, 97))


@pytest.mark.parametrize("padding, mode", [("reflect", "reflect"), ("replicate", "edge"), ("grey", "constant")])
def test_what_is_put_beside_a_small_image(padding, mode):
    model, x = adapt(Echo(), ModelCard(multiple=32, padding=padding)), normalize(IMAGE[:50, :40])
    assert torch.equal(model(x), x)
    assert np.array_equal(model.model.seen[0].numpy(), np.pad(x[0].numpy(), ((0, 0), (0, 14), (0, 24)), mode))
    model(normalize(IMAGE[:50, :20]))
    beyond = "edge" if padding == "reflect" else mode  # 12 columns can be mirrored, more than there are cannot
    tiny = normalize(IMAGE[:10, :20])
    model(tiny)
    assert np.array_equal(model.model.seen[0].numpy(), np.pad(tiny[0].numpy(), ((0, 0), (0, 22), (0, 12)), beyond))


def test_channels_and_classes_must_agree():
    model = adapt(Echo(), ModelCard(classes=("ground", "building")))
    with pytest.raises(ValueError, match="3 channels, its card names 2 classes: ground, building"):
        model(normalize(IMAGE))


@pytest.mark.parametrize("outputs, output, want", [
    ({"out": 1, "aux": 2}, None, 1), ({"out": 1, "aux": 2}, "aux", 2), ((1, 2), 1, 2), ({"a": 1, "n": "text"}, None, 1),
    ({"logits": 3, "hidden_states": (1,)}, None, 3)])
def test_one_map_among_several(outputs, output, want):
    full = {k: torch.full((1, 1, 2, 2), float(v)) if isinstance(v, int) else v for k, v in
            (outputs.items() if isinstance(outputs, dict) else enumerate(outputs))}
    given = full if isinstance(outputs, dict) else tuple(full.values())
    assert float(score_map(given, output).mean()) == want


def test_two_maps_without_a_name_are_no_map():
    with pytest.raises(TypeError, match=r"dict with \['a', 'b'\]"):
        adapt(lambda x: {"a": x, "b": x}, ModelCard())(normalize(IMAGE))
    with pytest.raises(ValueError, match="no output 'c'; it returns a, b"):
        adapt(lambda x: {"a": x, "b": x}, ModelCard(output="c"))(normalize(IMAGE))


def test_mask_classification_is_read_by_its_published_rule():
    rng = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(2, 5, 4, generator=rng), torch.randn(2, 5, 3, 3, generator=rng)
    want = torch.zeros(2, 3, 3, 3)
    for b, q, k in np.ndindex(2, 5, 3):  # plain loops: p(class of the mask) times the mask's value, summed over the masks
        want[b, k] += classes[b, q].exp()[k] / classes[b, q].exp().sum() * (1 / (1 + (-masks[b, q]).exp()))
    scores = mask_classes(classes, masks)
    assert torch.allclose(scores.exp(), want, atol=1e-6)
    assert torch.allclose(scores.softmax(1), want / want.sum(1, keepdim=True), atol=1e-6)
    model = adapt(lambda x: {"class_queries_logits": classes[:1], "masks_queries_logits": masks[:1]}, ModelCard())
    assert torch.equal(model(torch.zeros(1, 3, 3, 3)), scores[:1])


def test_a_card_decides_activation_and_names_for_every_caller():
    card = ModelCard(classes=("roof", "road", "tree"), activation="sigmoid")
    model, x = adapt(Echo(), card), normalize(IMAGE)
    question = Question(model, x, np.ones((64, 64), bool), "road")
    assert question.activation == "sigmoid" and question.channel == 1
    assert torch.equal(predict(model, x, "tree")[0], x[0, 2] > 0) and torch.equal(predict(model, x, "2")[0], x[0, 2] > 0)
    assert (predict_mask(model, IMAGE, target="roof") == (IMAGE[..., 0] > 127.5)).all()
    named, numbered = (EntropyCentric(model).attribute(x, target=t, grid_size=2, n_samples=2) for t in ("road", 1))
    plain = EntropyCentric(Echo(), "sigmoid").attribute(x, target=1, grid_size=2, n_samples=2)
    assert torch.equal(named, numbered) and torch.equal(named, plain)
    for call in (lambda: predict(model, x, "water"), lambda: EntropyCentric(model).attribute(x, target="water", n_samples=2)):
        with pytest.raises(ValueError, match="no class 'water'; known are roof, road, tree"):
            call()


def test_the_region_is_predicted_on_what_is_explained():
    """Next to pixels that hold nothing, a network that looks around sees what replaces them, not what the file holds there."""
    mosaic = np.full((32, 32, 3), 160, np.uint8)
    mosaic[:, 16:] = 0
    blur = nn.Conv2d(3, 1, 9, padding=4, padding_mode="replicate")
    nn.init.constant_(blur.weight, 1 / 243)
    nn.init.constant_(blur.bias, -0.1)
    model = adapt(blur, ModelCard())
    request = Request(mosaic, extent_of_array(mosaic, "a mosaic"), valid=mosaic.any(-1))
    region = ask(model, request, "grey", 2).regions[0].numpy() > 0
    filled = np.where(request.valid[..., None], mosaic, 128).astype(np.uint8)
    want = (blur(normalize(filled))[0, 0] > 0).detach().numpy() & request.valid
    assert np.array_equal(region, want) and not np.array_equal(region, predict_mask(model, mosaic) & request.valid)


FUNCTION = '''
import torch

class Model(torch.nn.Module):
    card = {"scale": 1, "classes": ["red"]}
    def forward(self, x):
        return x[:, :1] - 100

def make():
    return Model()

def plain(x):
    return x[:, :1] - 100

table = {"not": "a model"}
'''


@pytest.fixture
def code(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(FUNCTION)
    return tmp_path / "mine.py"


def test_references_give_modules_functions_and_what_makes_them(code):
    x = normalize(IMAGE)
    want = torch.from_numpy(IMAGE[..., 0].astype(np.float32))[None, None] - 100
    for name in ("Model", "make", "plain"):
        model = load_model(f"{code}:{name}", {"scale": 1} if name == "plain" else None)
        assert torch.allclose(model(x), want, atol=1e-4) and model.card.scale == 1
        assert isinstance(model, AdaptedForward if name == "plain" else Adapted)
    found = load_model("torch.nn:Identity", {"scale": 1})
    assert torch.allclose(found(x)[0, 0], want[0, 0] + 100, atol=1e-4)


def test_the_last_card_has_the_last_word(code):
    beside = code.with_name("mine.py.card.toml")
    assert load_model(f"{code}:Model").card.classes == ("red",)
    beside.write_text('classes = ["crimson"]\nmultiple = 16')
    assert load_model(f"{code}:Model").card == replace(ModelCard(scale=1, mean=0, std=1, classes=("crimson",)), multiple=16)
    assert load_model(f"{code}:Model", {"multiple": 4}).card.multiple == 4
    assert load_model(f"{code}:Model", ModelCard()).card == ModelCard()
    beside.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="two cards of one model"):
        load_model(f"{code}:Model")


@pytest.mark.parametrize("source, said", [
    ("FILE:none", "cannot be imported (AttributeError"), ("FILE:table", "expected a model, or a function that makes one, got dict"),
    ("nothing.at_all:f", "cannot be imported (ModuleNotFoundError"), ("none.py:f", "no such file of Python code"),
    ("none.onnx", "no such model file"), ("FILE", "no known kind of model"), ("FILE:plain", "nothing says what pixel values")])
def test_what_is_no_model_is_refused(source, said, code):
    with pytest.raises((ValueError, TypeError)) as problem:
        load_model(source.replace("FILE", str(code)))
    assert said in str(problem.value)


def test_a_model_that_is_a_function_survives_pickling_and_has_a_key_of_its_weights(code):
    class Keyed:
        key = "abc"

        def __call__(self, x: Tensor) -> Tensor:
            return x[:, :1]

    first, other = adapt(Keyed(), ModelCard()), adapt(Keyed(), IMAGENET)
    assert first.key and first.key == adapt(Keyed(), ModelCard()).key != other.key
    assert load_model(f"{code}:plain", {"scale": 1}).key is None, "nothing is known of a plain function"
    again = pickle.loads(pickle.dumps(load_model(f"{code}:plain", {"scale": 1})))
    assert again.card.scale == 1 and sized(again) is again and card_of(again).scale == 1


@pytest.mark.slow
def test_a_model_from_a_file_travels_to_workers_that_cannot_read_it(code, tmp_path):
    parcel = model_plugin(load_model(f"{code}:Model")).parcel
    code.unlink()
    (tmp_path / "parcel").write_bytes(parcel)
    program = f"""
import pickle, torch
model, _ = pickle.loads(open({str(tmp_path / "parcel")!r}, "rb").read())
print(float(model(torch.ones(1, 3, 32, 32)).mean()), model.card.classes)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "155.0 ('red',)", done.stderr


@pytest.mark.slow
def test_explain_and_inspect_take_a_model_from_a_file(code, tmp_path):
    from PIL import Image
    Image.fromarray(IMAGE).save(tmp_path / "tile.png")
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "tile.png"), "--model", f"{code}:Model", "--grid-size", "2",
                                    "--n-samples", "2", "--device", "cpu", "--out", str(tmp_path / "out"), "--target", "red"])
    assert done.exit_code == 0 and (tmp_path / "out" / "entropy.npy").is_file(), done.output
    for arguments, said in ((["--model", "none.pt"], "--model none.pt: no such file"), (["--target", "blue"], "no class 'blue'"),
                            (["--model-card", "none.toml"], "--model-card none.toml: no such file")):
        problem = CliRunner().invoke(app, ["explain", str(tmp_path / "tile.png"), *arguments, "--device", "cpu"]).exception
        assert said in str(problem)
