"""A wrong model card is given away by what the network does with pictures, and a right one is not suspected."""

import math
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from entropy_captum.card import ModelCard, card_text, make_card, read_card, to_inputs
from entropy_captum.cli import app
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.explorer import ImageSubject
from entropy_captum.models import load_model
from entropy_captum.pixelwise import PixelClassifier
from entropy_captum.runtimes import run_by
from entropy_captum.scene import Scene
from entropy_captum.scene_view import SceneSubject
from entropy_captum.signs import divergence, inspect_model, other_cards, readings, signs, warn_of_signs
from entropy_captum.zoo import rooftop_unet

CARD = ModelCard(multiple=32, classes=("building",))
SCENES = [procedural_scene(seed, 256) for seed in range(3)]
WRONG = {"255 times as small": replace(CARD, scale=1.0, mean=0, std=1),
         "red and blue swapped": replace(CARD, bands=CARD.bands[::-1]),
         "255 times as large": replace(CARD, scale=1 / 255**2, mean=0, std=1)}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return rooftop_unet()


def as_kind(kind: str, network: nn.Module):
    """The network as a module, whose normalisations can be looked at, or as a function, of which nothing is known."""
    return network if kind == "module" else lambda x: network(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "function"])
@pytest.mark.parametrize("suspect", WRONG)
def test_a_wrong_card_is_named_without_a_label(kind, suspect, network):
    model = load_model(as_kind(kind, network), WRONG[suspect])
    for scene in SCENES:
        assert [sign.partition(",")[0] for sign in signs(model, scene.image)][:1] == [suspect]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_right_card_is_not_suspected(kind, network):
    model = load_model(as_kind(kind, network), CARD)
    for scene in SCENES:
        assert signs(model, scene.image) == signs(model, scene.image, scene.label, 0) == []


@pytest.mark.slow
def test_a_label_decides(network):
    scene = SCENES[0]
    (sign, *_) = signs(load_model(network, WRONG["255 times as small"]), scene.image, scene.label, 0)
    own, _, small, _ = readings(load_model(network, WRONG["255 times as small"]), scene.image, scene.label, 0)
    with torch.no_grad():  # by hand: the network on pixels from 0 to 255, and from 0 to 1
        pixels = torch.from_numpy(scene.image.copy()).permute(2, 0, 1)[None].float()
        found = [(network(x)[0, 0] > 0).numpy() for x in (pixels, pixels / 255)]
    want = [(p & scene.label).sum() / (p | scene.label).sum() for p in found]
    assert np.allclose((own.iou, small.iou), want) and f"{want[1]:.2f}, not {want[0]:.2f}" in sign


@pytest.mark.slow
def test_contrast_and_entropy_are_those_of_the_plain_formulas(network):
    (own, *_) = readings(load_model(network, CARD), SCENES[1].image)
    with torch.no_grad():
        z = network(to_inputs(SCENES[1].image, CARD)).double().flatten()
    p = torch.special.expit(z)
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / math.log(2)
    assert math.isclose(own.contrast, float(z.std(correction=0)), rel_tol=1e-9)
    assert math.isclose(own.entropy, float(entropy.mean()), rel_tol=1e-6)


def test_the_divergence_is_that_of_two_normal_distributions():
    norm = nn.BatchNorm2d(2)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25])
    x = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(3)) * 3 + 1
    seen = [torch.distributions.Normal(x[:, c].double().mean(), x[:, c].double().std(correction=0)) for c in range(2)]
    kept = [torch.distributions.Normal(m.double(), v.double().sqrt())
            for m, v in zip(norm.running_mean, norm.running_var, strict=True)]
    want = np.mean([float(torch.distributions.kl_divergence(a, b)) for a, b in zip(seen, kept, strict=True)])
    assert math.isclose(divergence(x, norm), want, rel_tol=1e-9)
    assert math.isnan(divergence(x, nn.BatchNorm2d(2, track_running_stats=False)))


@pytest.mark.slow
@pytest.mark.parametrize("ending, kind", [(nn.Sigmoid(), "sigmoid"), (nn.Softmax(1), "softmax")])
def test_a_second_activation_is_named(ending, kind):
    torch.manual_seed(0)
    found = inspect_model(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), ending), {"scale": 1 / 255})
    assert any(f"a {kind} is in the model already" in sign for sign in found.signs)
    plain = inspect_model(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), ending), {"scale": 1 / 255, "activation": "none"})
    assert not any("already" in sign for sign in plain.signs)


@pytest.mark.slow
def test_the_command_shows_and_writes_a_card(tmp_path):
    (tmp_path / "mine.py").write_text("from entropy_captum.zoo import rooftop_unet\n\ndef make():\n    return rooftop_unet()\n")
    home, source = write_scenes(tmp_path / "tiles", (2,), 256), f"{tmp_path}/mine.py:make"
    arguments = ["model", "inspect", source, "--image", str(home / "image/scene_2.png"), "--label", str(home / "label/scene_2.png")]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "card.toml")])
    assert done.exit_code == 0, done.output
    rows = {line.rpartition("  ")[0].split("  ")[0].strip(): float(line.split()[-1]) for line in done.output.splitlines()
            if line.strip().startswith(("0 to", "-1 to", "ImageNet"))}
    assert "missing, and needed: scale, mean, std" in done.output and max(rows, key=rows.get) == "-1 to 1"
    (tmp_path / "card.toml").write_text((tmp_path / "card.toml").read_text().replace("# scale =", "scale = 0.00392156862745098"))
    assert make_card(read_card(tmp_path / "card.toml"), "card").scale == 1 / 255
    again = CliRunner().invoke(app, [*arguments, "--model-card", str(tmp_path / "card.toml")])
    assert "nothing is missing" in again.output and "sign:" not in again.output


@pytest.mark.parametrize("arguments, said", [
    (["none.onnx"], "none.onnx: no such file or folder"), (["SOURCE", "--label", "LABEL"], "give --image too"),
    (["SOURCE", "--out", "SOURCE"], "is a file already"), (["SOURCE", "--target", "roof"], "no class 'roof'"),
    (["SOURCE", "--model-card", "LABEL"], "not a model card")])
def test_wrong_use_of_the_command(arguments, said, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "label.png")
    (tmp_path / "mine.py").write_text("def make():\n    import torch\n    return torch.nn.Conv2d(3, 1, 1)\n")
    places = {"SOURCE": f"{tmp_path}/mine.py:make", "LABEL": str(tmp_path / "label.png")}
    given = [str(tmp_path / "mine.py") if name == "SOURCE" and k and arguments[k - 1] == "--out" else places.get(name, name)
             for k, name in enumerate(arguments)]
    problem = CliRunner().invoke(app, ["model", "inspect", *given]).exception
    assert said in str(problem)


MINE = "from entropy_captum.zoo import rooftop_unet\n\ndef make():\n    return rooftop_unet()\n"
SMALL = "255 times as small, the pixels would suit the model better"


@pytest.mark.slow
def test_a_wrong_card_is_named_whatever_makes_the_forwards(network):
    model = run_by(load_model(network, WRONG["255 times as small"]), "auto")
    with pytest.warns(UserWarning, match=SMALL):
        warn_of_signs(model, SCENES[0].image)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "footprints"])
def test_a_wrong_card_is_named_before_many_images_are_explained(command, tmp_path):
    """On the first of them; a right card is not suspected, and an image that is none is said when it is its turn."""
    write_scenes(tmp_path / "tiles" / "drawn", range(1), 128)
    (tmp_path / "mine.py").write_text(MINE)
    arguments = ["evaluate", "--data", str(tmp_path / "tiles"), "--methods", "ones,random"]
    if command == "footprints":
        path, shapes = scene_with_footprints(tmp_path)
        arguments = ["explain", str(path), "--footprints", str(shapes), "--window", "128"]
    for name, card in (("wrong", WRONG["255 times as small"]), ("right", CARD)):
        (tmp_path / f"{name}.toml").write_text(card_text(asdict(card)))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            done = CliRunner().invoke(app, [*arguments, "--model", f"{tmp_path}/mine.py:make", "--model-card",
                                            str(tmp_path / f"{name}.toml"), "--grid-size", "2", "--n-samples", "2", "--out",
                                            str(tmp_path / name)])
        assert done.exit_code == 0, done.exception
        assert any(SMALL in str(each.message) for each in said) == (name == "wrong")


def scene_with_footprints(folder: Path) -> tuple[Path, Path]:
    """A drawn scene as a GeoTIFF, and one of its houses as a file of polygons."""
    import rasterio
    from geopandas import GeoDataFrame

    from entropy_captum.footprints import outline
    drawn, place = procedural_scene(2, 128), (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", height=128, width=128, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=rasterio.Affine(*place), photometric="RGB") as file:
        file.write(np.moveaxis(drawn.image, -1, 0))
    house = outline(drawn.instances == 1, place)
    GeoDataFrame({"id": ["h1"]}, geometry=[house], crs="EPSG:25832").to_file(folder / "houses.gpkg")
    return folder / "scene.tif", folder / "houses.gpkg"


@pytest.mark.slow
@pytest.mark.parametrize("classes", [(), ("ground", "building")])
@pytest.mark.parametrize("subject", ["image", "scene"])
def test_the_explorer_names_a_wrong_card(subject, classes, network, tmp_path):
    """Whatever it shows, and of a network of several classes, too; of a scene where the first building is asked for."""
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return torch.cat([-self.network(x), self.network(x)], 1) / 2

    card = replace(WRONG["255 times as small"], classes=classes)
    model, target = load_model(Both() if classes else network, card), "building" if classes else None
    with pytest.warns(UserWarning, match=SMALL):
        if subject == "image":
            ImageSubject(model, SCENES[0].image, target=target)
        else:
            path, shapes = scene_with_footprints(tmp_path)
            SceneSubject(model, Scene(path, model, shapes), target=target, window=128).ask("h1", 2)


@pytest.mark.parametrize("kind", ["one channel", "three channels", "pixels"])
def test_what_is_linear_in_its_pixels_is_not_told_to_take_larger_ones(kind):
    """Of 255 times as large pixels it is 255 times as sure, whatever it was fitted to."""
    if kind == "pixels":
        from sklearn.linear_model import LogisticRegression
        drawn = procedural_scene(3, 128)
        model = PixelClassifier(LogisticRegression().fit(drawn.image.reshape(-1, 3), drawn.label.ravel()))
    else:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 1 if kind == "one channel" else 3, 9, padding=4)
        nn.init.normal_(model.weight, 0, 0.3)
    found = signs(load_model(model, None if kind == "pixels" else replace(CARD, classes=())), SCENES[0].image)
    assert not any(sign.startswith("255 times as large") for sign in found)


@pytest.mark.parametrize("net, target, said", [
    ("torch.nn.Conv2d(3, 3, 1)", "9", "target 9 is no class of an output with 3 channels; name one of 0 to 2"),
    ("torch.nn.Conv2d(3, 3, 1)", "water", "there is no class 'water'; known are ground, road, tree"),
    ("torch.nn.Conv2d(3, 2, 1)", "9", "target 9 is no class of an output with 2 channels; name one of 0 to 1"),
    ("torch.nn.Conv2d(4, 2, 1)", "1", "the model takes 4 channels, the input of shape (1, 3, 64, 64) has 3")])
def test_what_does_not_fit_is_one_sentence_before_anything_is_explained(net, target, said, tmp_path):
    card = {"scale": 1 / 255} | ({"classes": ["ground", "road", "tree"]} if "3, 3" in net else {})
    code = f"import torch\n\ndef make():\n    model = {net}\n    model.card = {card}\n    return model\n"
    (tmp_path / "mine.py").write_text(code)
    Image.fromarray(SCENES[0].image[:64, :64]).save(tmp_path / "tile.png")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "tile.png"), "--mask", str(tmp_path / "mask.png"), "--model",
                                    f"{tmp_path}/mine.py:make", "--target", target, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, ValueError) and said in str(done.exception)


def test_each_column_of_an_inspection_has_a_line_that_says_what_it_is():
    shown = str(inspect_model(rooftop_unet(), {"multiple": 32}))
    head = next(line for line in shown.splitlines() if "reading" in line and "entropy" in line).split()
    for column in head:
        assert re.search(rf"^{column}: .+", shown, re.M), column
    assert "iou" not in head and "\niou:" not in shown  # there is no label


@pytest.mark.parametrize("bands", [("red", "green", "blue"), ("green", "red", "blue"), ("Blue", "green", "Red")])
def test_red_and_blue_are_swapped_wherever_they_stand(bands):
    swapped = other_cards(replace(CARD, bands=bands))["red and blue swapped"].bands
    assert [name.lower() for name in swapped] == [{"red": "blue", "blue": "red"}.get(name.lower(), name) for name in bands]
