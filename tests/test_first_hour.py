"""The twelve mistakes of a first hour, through every door: what is said quotes what was given and names what to type next.

Where a mistake is put right by itself (a network in train mode), the result is the right one.
"""
from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from entropy_captum import EntropyCentric, RegionScore, l_sit
from entropy_captum.card import to_inputs
from entropy_captum.cli import in_options, main, print_counts, print_survey
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.evaluation import SitTester
from entropy_captum.explorer import explore
from entropy_captum.files import read_image
from entropy_captum.forward import Forward
from entropy_captum.judgement import judge
from entropy_captum.models import load_model
from entropy_captum.question import Question, doubt_of
from entropy_captum.scene import Scene
from entropy_captum.signs import signs
from entropy_captum.zoo import predict_mask

SCENE = procedural_scene(2, 64)
X, ROOF = normalize(SCENE.image), torch.from_numpy(SCENE.label)
RAW = torch.from_numpy(SCENE.image).permute(2, 0, 1)[None].float()


class Bright(nn.Module):
    """Bright pixels are roofs, and so, a little, are bright surroundings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.fill_(0.2), self.conv.bias.fill_(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * (1 + x.mean((1, 2, 3), keepdim=True))


class TwoClasses(Bright):
    """Ground and roof."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = super().forward(x)
        return torch.cat([-z, z], 1)


class Normalised(Bright):
    """With a normalisation that means something else in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x))


def estimate(model: Any, x: torch.Tensor, **options: Any) -> Any:
    asked = {"region": ROOF, "n_samples": 8, "grid_size": 4, "perturbations_per_eval": 8} | options
    return EntropyCentric(model).estimate(x, **asked)


def attribute(model: Any, x: torch.Tensor, **options: Any) -> Any:
    asked = {"region": ROOF, "n_samples": 8, "grid_size": 4, "perturbations_per_eval": 8} | options
    return EntropyCentric(model).attribute(x, **asked)


def sit_tester(model: Any, x: torch.Tensor, region: torch.Tensor = ROOF, **options: Any) -> SitTester:
    return SitTester(Question(model, x, region[None], **options))


def judged(model: Any, x: torch.Tensor, region: torch.Tensor = ROOF, heat: torch.Tensor | None = None, **options: Any) -> Any:
    return judge(sit_tester(model, x, region, **options), {"mine": torch.rand(1, 64, 64) if heat is None else heat})


def page(model: Any, image: Any, place: Any = None, **options: Any) -> str:
    """All that the explorer's page says of a place."""
    explorer = explore(model, image, **({"grid_size": 4, "n_samples": 4} | options))
    explorer._hear(None, {"kind": "again"}, None) if place is None else explorer.explain(place)
    explorer.wait(60)
    return "\n".join([explorer.message, *explorer.notices])


def said(call: Callable[[], Any]) -> str:
    """What a call warns of and raises, in lines, or what it returns if that is text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = call()
            words = [answer] if isinstance(answer, str) else []
        except (ValueError, TypeError) as problem:
            words = [str(problem)]
    return "\n".join([*(str(one.message) for one in caught), *words])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, masks, arrays and models, as a user may have them."""
    folder = tmp_path_factory.mktemp("hour")
    Image.fromarray(SCENE.image).save(folder / "aerial.png")
    Image.fromarray(SCENE.label.astype(np.uint8) * 255).save(folder / "mask.png")
    Image.fromarray(SCENE.label[:32, :32].astype(np.uint8) * 255).save(folder / "small.png")
    np.save(folder / "chw.npy", SCENE.image.transpose(2, 0, 1))
    np.save(folder / "floats.npy", SCENE.image.astype(np.float32))
    np.save(folder / "unit.npy", SCENE.image / 255)
    Image.fromarray(procedural_scene(2, 128).image).save(folder / "scene.png")
    np.save(folder / "bgr.npy", procedural_scene(2, 128).image[..., ::-1])
    Image.fromarray(procedural_scene(2, 128).label.astype(np.uint8) * 255).save(folder / "mask128.png")
    (folder / "own.py").write_text(OWN)
    (folder / "card.toml").write_text("scale = 0.00784313725\nmean = 1.0\n")
    return folder


OWN = """
from torch import nn
import torch
from entropy_captum.zoo import rooftop_unet


class Ended(nn.Module):
    def __init__(self, several):
        super().__init__()
        self.net, self.several = rooftop_unet(), several

    def forward(self, x):
        z = self.net(x)
        return torch.cat([-z, z], 1).softmax(1) if self.several else z.sigmoid()


class Flat(nn.Module):
    def forward(self, x):
        return 0 * x[:, :1] + 2


def softmax(): return Ended(True)
def sigmoid(): return Ended(False)
def flat(): return Flat()
def training(): return rooftop_unet().train()
"""


@pytest.fixture
def typed(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[str], str]]:
    """What the command prints for a line that is typed in the folder of files."""
    monkeypatch.chdir(files)
    kept, filters = warnings.formatwarning, warnings.filters[:]

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["entropy-captum", *line.split()])
        with suppress(SystemExit), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            main()
        return "\n".join([capsys.readouterr().err, *(str(one.message) for one in caught)])

    yield run
    warnings.formatwarning, warnings.filters[:] = kept, filters


QUICK = "--grid-size 2 --n-samples 2 --method entropy --out out"

# A wrong path, point and class --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_path(files, typed, tmp_path):
    near, folder = f"no such file; did you mean {files / 'aerial.png'}?", "is a folder; name a file in it, such as "
    assert near in said(lambda: read_image(files / "aeriel.png"))
    assert folder in said(lambda: read_image(files))
    assert f"no such file, and no such folder {files / 'none'}" in said(lambda: read_image(files / "none" / "a.png"))
    model = load_model()
    pytest.importorskip("rasterio")
    assert f"{files / 'aeriel.png'}: {near}" in said(lambda: explore(model, files / "aeriel.png"))
    assert folder in said(lambda: explore(model, files))
    assert "did you mean" in said(lambda: load_model(str(files / "own.pt"))) and "package.module:function" in said(
        lambda: load_model("org/model"))
    assert typed("explain aeriel.png").strip() == "error: aeriel.png: no such file; did you mean aerial.png?"
    for line in ("aerial.png --mask masc.png", "aerial.png --label masc.png"):
        assert "masc.png: no such file; did you mean mask.png?" in typed(f"explain {line}")
    assert "did you mean own.py?" in typed("explain aerial.png --model ownn.py") and "own.py" in typed("explain own.pyy")
    assert "--model-card cart.toml: no such file; did you mean card.toml?" in typed("explain aerial.png --model-card cart.toml")
    assert "tiles: no such folder" in typed("demo --data tiles") and "is a file" in typed("demo --data aerial.png")


@pytest.mark.slow
def test_a_wrong_point(typed):
    axes = r"lies outside the image of 64 x 64 pixels; a point is its column, up to 63, and its row, up to 63"
    assert f"the point (500, 5) {axes}" in typed("explain aerial.png --point 500 5")
    assert f"the point (500, 5) {axes}" in said(lambda: page(load_model(), SCENE.image, (500, 5)))
    image = np.full((64, 64, 3), 60, np.uint8)
    image[8:24, 8:24] = 250
    dark = lambda x: x.mean(1, keepdim=True)  # noqa: E731
    assert "object 1 is the nearest, 4.0 pixels away at (23, 8); click one, or draw a box" in said(lambda: page(
        dark, image, (27, 8)))
    words = typed("explain scene.png --point 0 100")
    assert "(0, 100) lies on no object; the nearest has a pixel at (22, 61): give that point, or another object's" in words
    assert "there is none; give a mask of the region, or another image" in typed("explain aerial.png --point 0 63")


@pytest.mark.parametrize("door", [estimate, attribute, sit_tester, judged])
def test_a_wrong_class(door):
    assert "target 3 is no class of an output with 2 channels; name one of 0 to 1" in said(lambda: door(TwoClasses(), X, target=3))
    assert "target 1 is no class of an output with 1 channel; name the only one, 0, or none" in said(
        lambda: door(Bright(), X, target=1))
    assert "needs a one-channel output, got 2 channels; name the class, 0 to 1" in said(lambda: door(TwoClasses(), X))
    assert "there is no class 'roof'; the model's card names no classes; give its number" in said(
        lambda: door(Bright(), X, target="roof"))


@pytest.mark.slow
def test_a_wrong_class_typed_or_explored(typed):
    assert "there is no class 'road'; known are building" in typed("explain aerial.png --mask mask.png --target road")
    assert "target 3 is no class of an output with 1 channel; name the only one, 0, or none" in typed(
        "explain aerial.png --mask mask.png --target 3")
    assert "name one of 0 to 1" in said(lambda: explore(TwoClasses(), SCENE.image, target=2))
    assert "known are building" in said(lambda: explore(load_model(), SCENE.image, target="road"))


# A model that ends in an activation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
@pytest.mark.parametrize("door", [estimate, attribute, sit_tester, judged])
def test_a_model_that_ends_in_an_activation(door, ending):
    model = nn.Sequential(TwoClasses(), nn.Softmax(1)) if ending == "softmax" else nn.Sequential(Bright(), nn.Sigmoid())
    target = 1 if ending == "softmax" else None
    words = said(lambda: door(model, X, target=target))
    assert f"ends in a {ending} already" in words.replace("seems to end", "ends") and "use activation='none'" in words
    plain = said(lambda: door(TwoClasses() if target else Bright(), X, target=target))
    assert "already" not in plain, "of logits nothing is said"


@pytest.mark.slow
def test_an_activation_elsewhere(typed):
    ended = nn.Sequential(Bright(), nn.Sigmoid())
    assert "use activation='none'" in said(lambda: l_sit(ended, X, torch.rand(1, 64, 64), region=ROOF[None]))
    assert "use activation='none'" in said(lambda: RegionScore(ended, ROOF)(X))
    assert "already" not in said(lambda: RegionScore(ended, ROOF, activation="none")(X)) + said(
        lambda: RegionScore(Bright(), ROOF)(X)) + said(lambda: RegionScore(ended, ROOF, score="logit")(X))
    assert "use activation='none'" in page(ended, SCENE.image, SCENE.label), "on the page, not only in the log"
    for name, target in (("softmax", "--target 1"), ("sigmoid", "")):
        words = typed(f"explain aerial.png --mask mask.png --model own.py:{name} --model-card card.toml {target} {QUICK}")
        assert f"end in a {name} already" in words and 'in a model card: activation = "none"' in words


# Pixels: axes, numbers, order -------------------------------------------------------------------------------------------------


def test_an_image_with_its_channels_last(typed):
    last = X.permute(0, 2, 3, 1)
    for door in (estimate, attribute, sit_tester, judged):
        assert "is the input (B,H,W,C)? inputs.permute(0, 3, 1, 2) makes it (B,C,H,W)" in said(
            lambda door=door: door(Bright(), last))
    words = said(lambda: estimate(Bright(), last, region=None, grid_size=2))
    assert "the model takes 3 channels, the input of shape (1, 64, 64, 3) has 64" in words
    assert "inputs.permute(0, 3, 1, 2)" in words
    # A function that any number of channels suits:
    silent = said(lambda: estimate(lambda x: x[:, :1], last, region=None, grid_size=2))
    assert "as (B,C,H,W) the input of shape (1, 64, 64, 3) is an image 3 pixels wide with 64 channels" in silent
    assert "inputs.permute(2, 0, 1)[None]" in said(lambda: estimate(Bright(), last[0], region=None))
    assert "inputs[None]" in said(lambda: estimate(Bright(), X[0], region=None))
    turned = "np.moveaxis(array, 0, -1) makes it (H,W,C)"
    assert turned in said(lambda: explore(Bright(), SCENE.image.transpose(2, 0, 1)))
    assert turned in said(lambda: normalize(SCENE.image.transpose(2, 0, 1)))
    assert turned in typed("explain chw.npy --mask mask.png")
    assert "give what read_image returns" in said(lambda: explore(Bright(), X))


@pytest.mark.parametrize("door", [estimate, attribute, sit_tester, judged])
def test_values_of_pixels_that_nobody_scaled(door):
    words = said(lambda: door(Bright(), RAW))
    assert f"has values from {RAW.min():g} to {RAW.max():g}, as pixels have that nobody has scaled" in words
    assert "data.normalize(image)" in words
    assert "data.normalize(image) makes one" in said(lambda: door(Bright(), torch.from_numpy(SCENE.image)))


@pytest.mark.slow
def test_it_is_said_once_for_each_network(typed):
    model = Bright()
    first, second = said(lambda: estimate(model, RAW)), said(lambda: estimate(model, RAW))
    assert "nobody has scaled" in first and "nobody has scaled" not in second
    known = load_model()
    assert "this network takes -1 to 1, as card.to_inputs(image, model.card) makes them" in said(lambda: sit_tester(known, RAW))
    assert "were scaled from 0 to 1; this network takes -1 to 1" in said(
        lambda: estimate(known, normalize(procedural_scene(2, 128).image) / 2 + 0.5, region=None, n_samples=2)), "another fault"
    assert "(image).round().astype(np.uint8) makes it 8-bit" in typed("explain floats.npy --mask mask.png")
    assert "(image * 255).round().astype(np.uint8) makes it 8-bit" in typed("explain unit.npy --mask mask.png")
    assert "(image * 255).round()" in said(lambda: explore(known, SCENE.image / 255))


IMAGENET = (torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))


@pytest.mark.parametrize("x", [X, RAW / 255, (RAW / 255 - IMAGENET[0]) / IMAGENET[1], 5 * torch.randn(1, 13, 32, 32),
                               torch.rand(1, 4, 8, 8) * 3, torch.zeros(1, 3, 8, 8), torch.ones(1, 200, 5, 4), torch.rand(2, 7)],
                         ids=["-1 to 1", "0 to 1", "ImageNet", "wide", "reflectance", "blank", "hyperspectral", "a table"])
def test_of_valid_inputs_nothing_is_said(x):
    assert doubt_of(x) == ""


def test_of_what_a_card_makes_nothing_is_said():
    model = load_model()
    for image in (SCENE.image, np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8), SCENE.image // 2 + 128):
        assert doubt_of(to_inputs(image, model.card), carded=True) == ""


@pytest.mark.slow
def test_blue_first(typed):
    """No array says so; a network that knows colours is less sure of it, and then it is said. Files say which band is red."""
    image, turned = procedural_scene(2, 128).image, "an array read by OpenCV has blue first: image[..., ::-1] turns it round"
    model = load_model()
    assert any("red and blue swapped" in sign for sign in signs(model, image[..., ::-1].copy())) and not signs(model, image)
    assert turned in "\n".join(explore(model, image[..., ::-1].copy()).notices) and not explore(model, image).notices
    assert turned in typed(f"explain bgr.npy --mask mask128.png {QUICK}")
    for told in (read_image, normalize):
        assert "image[..., ::-1]" in (told.__doc__ or ""), "where arrays are described"


# The model's mode -------------------------------------------------------------------------------------------------------------


def test_a_model_in_train_mode_is_run_in_eval_mode():
    model, ready = Normalised().train(), Normalised().eval()
    for door in (estimate, attribute):
        found = [door(one, X) for one in (model, ready)]
        numbers = [one if isinstance(one, torch.Tensor) else one.scores for one in found]
        assert torch.equal(*numbers)
    assert torch.equal(sit_tester(model, X).before.confidence, sit_tester(ready, X).before.confidence)
    first, second = (explore(one, SCENE.image, grid_size=4, n_samples=4) for one in (model, ready))
    assert np.array_equal(first.subject.objects, second.subject.objects)
    assert model.training and model.norm.training, "and is left as it was"


def test_a_score_of_a_model_in_train_mode():
    """It goes to methods that are not ours, which run the model as it is."""
    assert "Normalised is in train mode" in said(lambda: RegionScore(Normalised().train(), ROOF)(X))
    assert "model.eval() first" in said(lambda: RegionScore(Normalised().train(), ROOF)(X))
    quiet = (RegionScore(Normalised().eval(), ROOF), RegionScore(Bright().train(), ROOF), RegionScore(Normalised(), ROOF).eval())
    assert not any("train mode" in said(lambda one=one: one(X)) for one in quiet), "nor where it makes no difference"


# Region, samples, grid, map ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [estimate, attribute, sit_tester, judged])
def test_a_region_of_the_wrong_size(door):
    assert "region of 32 x 32 pixels (height x width) for an input of 64 x 64" in said(
        lambda: door(Bright(), X, region=ROOF[:32, :32]))
    assert "was it transposed, cropped or resized? region.T has that size" in said(
        lambda: door(Bright(), X[..., :32], region=ROOF[:32]))
    assert "got values from 0 to 255; of a mask whose pixels are 0 and another number, region > 0 is one" in said(
        lambda: door(Bright(), X, region=ROOF * 255.0))


def test_a_region_of_the_wrong_size_elsewhere(typed):
    assert "small.png: a mask of 32 x 32 for an image of 64 x 64 pixels; a value is needed for each pixel" in typed(
        "explain aerial.png --mask small.png")
    assert "a mask of shape (64, 64) was expected, got (32, 32): a value is needed for each pixel" in said(
        lambda: page(Bright(), SCENE.image, SCENE.label[:32, :32]))
    assert "attribution of shape (1, 32, 32) does not fit the input's (1, 3, 64, 64); expected (B,H,W) or (B,C,H,W)" in said(
        lambda: judged(Bright(), X, heat=torch.rand(1, 32, 32)))


@pytest.mark.parametrize("door", [estimate, attribute])
def test_too_few_samples(door):
    assert "n_samples must be an integer of at least 2, got 1" in said(lambda: door(Bright(), X, n_samples=1))


class Noisy(Forward):
    """What it says of a region hangs on all of the image in a way that no feature explains."""

    settled = True

    def __call__(self, *inputs: torch.Tensor, extra: Any = ()) -> torch.Tensor:
        waves = torch.sin(40 * inputs[0].mean((1, 2, 3), keepdim=True))
        return 3 * waves.expand(-1, 1, *inputs[0].shape[2:]) + 0.1 * inputs[0][:, :1]


def test_scores_that_are_mostly_error(typed):
    words = said(lambda: estimate(Noisy(), X, n_samples=2, grid_size=8))
    assert "of the variance between the scores is that of their errors" in words or "flat map" in words
    assert "more samples (n_samples)" in words
    assert not said(lambda: estimate(Bright(), X, n_samples=32, region=ROOF & (torch.arange(64) < 20)))
    assert "error: --n-samples must be an integer of at least 2, got 1" in typed("explain aerial.png --mask mask.png --n-samples 1")
    with pytest.raises(Exception, match=r"'n_samples' trait .* not be less than 2, but a value of 1 was specified"):
        explore(Bright(), SCENE.image, n_samples=1)
    assert "more samples (n_samples)" in page(Noisy(), SCENE.image, SCENE.label, n_samples=2, grid_size=8)


@pytest.mark.parametrize("door", [estimate, attribute])
def test_a_grid_that_is_too_fine(door):
    fine = "a grid of 65 x 65 cells does not fit an image of 64 x 64 pixels; take at most 64 x 64; 8 x 8 is usual"
    assert fine in said(lambda: door(Bright(), X, grid_size=65))
    assert "must be a positive integer or (rows, columns), got 0" in said(lambda: door(Bright(), X, grid_size=0))
    many, whole = torch.zeros(1, 3, 128, 128), torch.ones(128, 128)
    sobol = EntropyCentric(Bright(), sampler="sobol")
    assert "or fewer features" in said(lambda: sobol.estimate(many, region=whole, grid_size=128, n_samples=8))


def test_a_grid_that_is_too_fine_elsewhere(typed):
    fine = "a grid of 65 x 65 cells does not fit an image of 64 x 64 pixels; take at most 64 x 64"
    assert fine in typed("explain aerial.png --mask mask.png --grid-size 65")
    assert fine in page(Bright(), SCENE.image, SCENE.label, grid_size=65)


@pytest.mark.slow
def test_a_flat_map(typed):
    flat = lambda x: 0 * x[:, :1] + 2  # noqa: E731
    for door in (estimate, attribute):
        words = said(lambda door=door: door(flat, X))
        assert "flat map: all scores are equal within their error (0 to 0)" in words
        assert "more samples (n_samples), larger patches (a smaller grid_size) or a larger region" in words
    assert "the map 'mine' is 1 everywhere: chance decides which pixels go, and its verdict" in said(
        lambda: judged(Bright(), X, heat=torch.ones(1, 64, 64)))
    assert "flat map" in page(flat, SCENE.image, SCENE.label)
    line = f"explain aerial.png --mask mask.png --model own.py:flat --model-card card.toml {QUICK}"
    words = typed(f"{line} --method entropy,sobol")
    for name in ("entropy", "sobol"):  # several maps are told apart
        assert f"flat map: all scores of {name} are equal within their error" in words
    assert "more samples (--n-samples), larger patches (a smaller --grid-size) or" in words and "example 0" not in words
    assert "all scores of example 0 are" in said(lambda: estimate(flat, X.repeat(2, 1, 1, 1)))


@pytest.mark.parametrize("message,typed_so", [
    ("more samples (n_samples), larger patches (a smaller grid_size)",
     "more samples (--n-samples), larger patches (a smaller --grid-size)"),
    ("allow more (max_rows, n_samples)", "allow more (--max-rows, --n-samples)"),
    ("target=None needs a one-channel output, got 3 channels",
     "without --target a model needs a one-channel output, got 3 channels"),
    ("no pixel of class 0; pass region=", "no pixel of class 0; give --mask"),
    ("out of memory: going on with perturbations_per_eval=4", "out of memory: going on with --perturbations-per-eval 4"),
    ("scenes='f[0-9]' finds nothing", "--scenes 'f[0-9]' finds nothing"), ("by scenes='east': east", "by --scenes east: east"),
    ("grid_size='adaptive' refines", "--grid-size adaptive refines"), ("tolerance=0.05. Then", "--tolerance 0.05. Then"),
    ("top must be at least 1", "--top must be at least 1"), ("top of the map, a target and a window", None),
    ("(nodata), say so: valid=mask, or --nodata VALUE", "(nodata), say so: --nodata VALUE"),
    ("runs/grid_size/n_samples.csv: no such file", None), ("C:\\grid_size\\a.png, my_grid_size, n_samples.csv", None),
    ("--grid-size 0: expected a number", None), ("--n-samples 3, got target=road", "--n-samples 3, got --target road")])
def test_the_terminal_speaks_of_options(message, typed_so):
    assert in_options(message) == (message if typed_so is None else typed_so)


def test_reasons_of_studies_and_surveys_speak_of_options(tmp_path, capsys):
    """Rows hold reasons as Python gives them; at the terminal they name what can be typed."""
    reason = "ValueError: no pixel of class 0; pass region="
    rows = pd.DataFrame({"dataset": "town", "tile": ["a", "b", "c"], "target": "", "method": "entropy",
                         "status": ["error", "left out", "small"], "error": [reason, "it needs grid_size=8", "a larger grid_size"]})
    print_counts(rows, tmp_path)
    print_survey(pd.DataFrame({"status": ["error"], "error": [reason], "flags": [""]}), tmp_path)
    said = capsys.readouterr().out
    assert said.count("ValueError: no pixel of class 0; give --mask") == 2
    assert "left out: entropy: it needs --grid-size 8" in said and "not explained: a larger --grid-size" in said


@pytest.mark.parametrize("door", ["predict_mask", "scene", "explore"])
def test_a_network_without_a_card_is_told_what_pixels_it_gets(door, tmp_path):
    """Through every door that takes an image, once; with a card never."""
    image = tmp_path / "aerial.png"
    Image.fromarray(SCENE.image).save(image)

    def opened(network):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            if door == "predict_mask":
                predict_mask(network, SCENE.image)
            elif door == "scene":
                Scene(image, network).explain(point=(0, 7), methods=("distance",))
            else:
                explore(network, SCENE.image)
        return [str(each.message) for each in found if "nothing says what pixel values" in str(each.message)]

    bare = Bright()
    (said,) = opened(bare)
    assert said.startswith("Bright: ") and "from -1 to 1" in said and "load_model(model, dict(scale=" in said
    assert not opened(bare) and not opened(load_model(Bright(), dict(scale=1 / 255, mean=0.5, std=0.5)))


@pytest.mark.parametrize("door", ["estimate", "attribute"])
@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (2, 64, 48, 4), (1, 64, 64, 1)])
def test_channels_that_are_last_are_named(door, shape):
    words = said(lambda: getattr(EntropyCentric(Bright()), door)(torch.zeros(shape), n_samples=2))
    assert f"the input of shape {shape} looks like channels last: inputs.permute(0, 3, 1, 2) makes it (B,C,H,W)" in words
    words = said(lambda: getattr(EntropyCentric(Bright()), door)(torch.zeros(64, 64, 3), n_samples=2))
    assert words.endswith("inputs.permute(2, 0, 1)[None], if its channels are last") and "feature_mask" not in words
