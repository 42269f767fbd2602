"""Models without PyTorch: classifiers of pixels against plain loops, no context means exact zeros, arrays of bands as images."""
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
import reference
import torch
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from entropy_captum import EntropyCentric, Estimate
from entropy_captum.card import ModelCard, to_inputs, to_picture
from entropy_captum.cli import app, main
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import ask
from entropy_captum.explorer import explore
from entropy_captum.files import extent_of_array, look, read_image
from entropy_captum.methods import PICK_FREEZE, leave_out, run_methods
from entropy_captum.models import load_model
from entropy_captum.pixelwise import ArrayModel, PixelClassifier, fingerprint
from entropy_captum.question import Budget
from entropy_captum.request import Request, read_request
from entropy_captum.sampling import pick_freeze

ESTIMATORS = {
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1, random_state=0),
    "forest": lambda: RandomForestClassifier(10, max_depth=8, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "perceptron": lambda: make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=10, random_state=0)),
}
SCENE = procedural_scene(2, 64)
SMALL = dict(grid_size=4, n_samples=4)


def pixels_and_names(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    scenes = [procedural_scene(seed, size) for seed in (3, 4)]
    return (np.concatenate([s.image.reshape(-1, 3) for s in scenes]).astype(np.float32),
            np.where(np.concatenate([s.label.ravel() for s in scenes]), "building", "ground"))


def fitted(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the perceptron is stopped early
        return ESTIMATORS[name]().fit(*pixels_and_names())


@pytest.fixture(scope="module", params=ESTIMATORS)
def estimator(request):
    return fitted(request.param)


def of_pixels(estimator):
    """Score maps (B,K,H,W) of images in [-1, 1], a pixel at a time."""
    def function(x):
        values = (x.double() * 127.5 + 127.5).permute(0, 2, 3, 1).numpy()
        return torch.stack([torch.stack([torch.stack([torch.from_numpy(estimator.predict_proba(pixel[None])[0]) for pixel in row])
                                         for row in image]) for image in values]).permute(0, 3, 1, 2)
    return function


def touching(region: np.ndarray, grid: int, margin: int = 0) -> np.ndarray:
    """The patches of a grid with a pixel that is at most so far from the region; a plain loop."""
    found, (height, width) = np.zeros((grid, grid), bool), region.shape
    for y, x in np.argwhere(region):
        for dy in range(-margin, margin + 1):
            for dx in range(-margin, margin + 1):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    found[(y + dy) * grid // height, (x + dx) * grid // width] = True
    return found


def patches(heat: np.ndarray, grid: int) -> np.ndarray:
    step = heat.shape[0] // grid
    return heat[step // 2::step, step // 2::step]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgbm", "forest"])
def test_equals_a_plain_loop_over_pixels(name):
    """Scores of a grid of 3 on a corner of a building, by loops over pixels, designs and features in float64."""
    classifier = fitted(name)
    y, x = next((y, x) for y, x in np.argwhere(SCENE.label) if 4 <= y < 59 and 4 <= x < 59)
    image = SCENE.image[y - 4:y + 5, x - 4:x + 5]
    model = load_model(PixelClassifier(classifier))
    inputs, region = to_inputs(image, model.card), torch.from_numpy(SCENE.label[y - 4:y + 5, x - 4:x + 5]).double()
    designs = [np.concatenate([design.a, design.b]) for design in pick_freeze(4, 9, seed=5)]
    want = reference.estimate(of_pixels(classifier), inputs[0].double(), region, 0, "none", 3, designs)
    for reduction in ("pixel", "object"):
        found = EntropyCentric(model, reduction=reduction).estimate(inputs, target="building", region=region[None], grid_size=3,
                                                                    n_samples=4, seed=5, perturbations_per_eval=5)
        assert want[reduction].max() > 0.005
        np.testing.assert_allclose(found.scores[0], want[reduction], atol=1e-5)
        np.testing.assert_allclose(found.total_order[0], want["total"], atol=1e-4)


def test_what_is_predicted_once_is_what_is_predicted_every_time(estimator):
    """Rows that share pixels with one before, and images of another size between them, are as they are alone."""
    model, rows = PixelClassifier(estimator), np.random.default_rng(0).integers(0, 256, (6, 3, 12, 16)).astype(np.float32)
    rows[2:4] = rows[1]
    rows[3, :, :4, :5] = 7
    images = torch.from_numpy(rows)
    for batch in (images, images[3:4], images[:, :, :6], images[1:4], torch.cat([images[3:], images[:1]])):
        want = estimator.predict_proba(batch.permute(0, 2, 3, 1).reshape(-1, 3).numpy())
        found = model(batch).permute(0, 2, 3, 1).reshape(-1, 2)
        np.testing.assert_allclose(found, want, atol=2e-6)


def test_fewer_pixels_are_predicted_than_rows_hold():
    """65 rows of a design on a grid of 8 hold 65 images; no more than two and the designs' first rows are predicted."""
    seen = []

    class Counting:
        classes_, n_features_in_ = np.array(["dark", "light"]), 3

        def predict_proba(self, pixels):
            seen.append(len(pixels))
            light = pixels.mean(1) / 255
            return np.stack([1 - light, light], 1)

    model = load_model(PixelClassifier(Counting(), key="mean"))
    EntropyCentric(model).estimate(to_inputs(SCENE.image, model.card), target="light", grid_size=8, n_samples=4, seed=1,
                                   region=torch.from_numpy(SCENE.label)[None], perturbations_per_eval=8)
    assert sum(seen) <= (4 * 2 + 3) * SCENE.label.size


@pytest.mark.slow
def test_patches_off_the_region_score_exactly_0(estimator):
    model, region = load_model(PixelClassifier(estimator)), SCENE.instances == 1
    request = Request(SCENE.image, extent_of_array(SCENE.image, "drawn"), region)
    for baseline in ("grey", "mean", "blur"):
        found = run_methods(ask(model, request, baseline, 8, "building"), Budget(4, 5), [*PICK_FREEZE, "ablation"])
        for name, maps in found.items():
            heat = patches(maps.maps[0].numpy(), 8)
            assert (heat[~touching(region, 8)] == 0).all() and (heat[touching(region, 8)] != 0).any(), (baseline, name)


def test_a_function_of_arrays_reaches_as_far_as_it_looks():
    def blurred(pixels):
        """The mean over 3 x 3 pixels of how red a pixel is."""
        red = np.pad(pixels[..., 0] / 255, ((0, 0), (1, 1), (1, 1)), mode="edge")
        return np.mean([red[:, i:i + pixels.shape[1], j:j + pixels.shape[2]] for i in range(3) for j in range(3)], axis=0)

    region = np.zeros((64, 64), bool)
    region[17:31, 16:24] = True  # its columns end where patches end, its rows one pixel before
    model = load_model(ArrayModel(blurred, classes=["red"]))
    x = to_inputs(SCENE.image, model.card)
    np.testing.assert_allclose(model(x)[0, 0], blurred(SCENE.image[None].astype(float))[0], atol=1e-6)
    heat = EntropyCentric(model).estimate(x, region=region[None], grid_size=8, n_samples=4).scores[0].reshape(8, 8).numpy()
    reached = np.zeros((8, 8), bool)
    reached[2:4, 1:4] = True
    assert ((heat != 0) == reached).all()


KEYS = """
import pickle, sys
from entropy_captum.pixelwise import PixelClassifier
print(*(PixelClassifier(each).key for each in pickle.load(open(sys.argv[1], "rb"))))
"""


@pytest.mark.slow
def test_keys_are_the_same_in_every_process(tmp_path):
    made = [fitted(name) for name in ESTIMATORS]
    (tmp_path / "made.pkl").write_bytes(pickle.dumps(made))
    keys = [PixelClassifier(each).key for each in made]
    done = subprocess.run([sys.executable, "-c", KEYS, str(tmp_path / "made.pkl")], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout.split() == keys and len(set(keys)) == len(keys)


def test_a_key_changes_with_the_fit_and_not_on_the_way(estimator):
    model = PixelClassifier(estimator)
    model(torch.zeros(1, 3, 4, 4))
    again = pickle.loads(pickle.dumps(model))
    assert again.key == model.key
    assert torch.equal(again(torch.ones(1, 3, 4, 4)), model(torch.ones(1, 3, 4, 4)))
    pixels, names = pixels_and_names()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = type(estimator)(**estimator.get_params(deep=False)).fit(pixels[:, ::-1], names)
    assert PixelClassifier(other).key != model.key
    assert load_model(model).key != load_model(model, {"classes": ["roof", "other"]}).key is not None


def test_a_fingerprint_looks_at_no_padding_and_no_order():
    fields = np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 16})
    one, two = np.frombuffer(bytearray(32), fields), np.frombuffer(bytearray(b"\xff" * 32), fields)  # copies may drop the padding
    two["a"], two["b"] = 0, 0.0
    assert one.tobytes() != two.tobytes() and fingerprint(one) == fingerprint(two)
    assert list(one_set := set([0, 8])) != list(other_set := set([8, 0]))
    assert fingerprint({"x": 1, "y": one_set}) == fingerprint({"y": other_set, "x": 1}) != fingerprint({"x": 1})
    assert fingerprint([1, [2]]) != fingerprint([[1], 2]) and fingerprint("1") != fingerprint(1)
    holds_itself = [1]
    holds_itself.append(holds_itself)
    assert len(fingerprint(holds_itself)) == 16


def test_bands_are_the_columns_that_a_classifier_was_fitted_to():
    pixels, names = pixels_and_names()
    table = pd.DataFrame(pixels, columns=["red", "green", "blue"])[["blue", "red", "green"]]
    model = load_model(PixelClassifier(LogisticRegression(max_iter=200).fit(table, names)))
    plain = load_model(PixelClassifier(LogisticRegression(max_iter=200).fit(pixels, names)))
    assert model.card.bands == ("blue", "red", "green") and model.card.classes == ("building", "ground")
    x = to_inputs(SCENE.image, model.card)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns of arrays without names
        torch.testing.assert_close(model(x), plain(x), atol=2e-3, rtol=0)


def test_a_booster_knows_its_columns_too():
    """LightGBM itself says nothing of columns in another order, and predicts something else."""
    pixels, names = pixels_and_names()
    made = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1)
    table = pd.DataFrame(pixels, columns=["blue", "red", "green"])
    booster = made.fit(table, names).booster_
    assert PixelClassifier(booster).card.bands == PixelClassifier(made).card.bands == ("blue", "red", "green")
    with pytest.raises(ValueError, match="fitted to the columns blue, red, green, the bands are red, green, blue"):
        PixelClassifier(booster, ["red", "green", "blue"])
    assert PixelClassifier(fitted("lightgbm").booster_, ["a", "b", "c"]).card.bands == ("a", "b", "c")


class Doubtful:
    """A classifier that returns what it was made of."""

    n_features_in_ = 3

    def __init__(self, found):
        self.found = found

    def predict_proba(self, pixels):
        return self.found(pixels)


BAD = {
    "no classifier": (lambda x: PixelClassifier(Ridge().fit(np.ones((4, 3)), np.ones(4))), "got Ridge; wrap another function"),
    "bands": (lambda x: PixelClassifier(Doubtful(None), ["one", "two"]), "takes 3 numbers per pixel, there are 2 bands: one, two"),
    "columns": (lambda x: PixelClassifier(LogisticRegression().fit(pd.DataFrame({"a": [0, 1], "b": [1, 2]}), [0, 1]), ["b", "a"]),
                "fitted to the columns a, b, the bands are b, a"),
    "no probabilities": (lambda x: PixelClassifier(Doubtful(lambda p: 2 * p))(x), "from 0.0 to 2.0; expected probabilities"),
    "of too few": (lambda x: PixelClassifier(Doubtful(lambda p: p[1:]))(x), r"expected probabilities \(16,K\) of 16 pixels"),
    "not fitted": (lambda x: PixelClassifier(RandomForestClassifier())(x), "not fitted yet"),
    "no function": (lambda x: ArrayModel("clouds.pkl"), "expected a function of an array"),
    "no map": (lambda x: ArrayModel(lambda p: p.mean())(x), r"an array of shape \(\), expected \(1, 4, 4\)"),
    "decided": (lambda x: ArrayModel(lambda p: p[..., 0] > 1)(x), "returned bool: classes that are already decided"),
    "unknown fact": (lambda x: ArrayModel(lambda p: p, colours=3), "ArrayModel: a model card has no entry 'colours'"),
}


@pytest.mark.parametrize("make,message", BAD.values(), ids=BAD)
def test_what_is_no_classifier_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(torch.tensor([0.0, 1.0]).repeat(8)[None, None].reshape(1, 1, 4, 4).repeat(1, 3, 1, 1))


def test_methods_that_look_inside_are_left_out():
    model = load_model(PixelClassifier(fitted("forest")))
    request = Request(SCENE.image, extent_of_array(SCENE.image, "drawn"), SCENE.label)
    question = ask(model, request, target="building", grid_size=4)
    with pytest.warns(UserWarning) as said:
        left = leave_out(question, ("entropy", "grad-cam", "score-cam", "input-x-gradient", "occlusion"))
    told = [str(warning.message) for warning in said]
    assert left == ["entropy", "occlusion"] and len(told) == 3
    assert "score-cam is left out: it looks into a layer" in told[1] and "it needs gradients" in told[2]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no method of grad-cam can be asked"):
        leave_out(question, ("grad-cam",))


CLOUD_MODEL = '''
import cv2
import numpy as np
from s2cloudless import S2PixelCloudDetector
from s2cloudless.utils import MODEL_BANDS

from entropy_captum.pixelwise import ArrayModel, PixelClassifier

FACTS = {"bands": MODEL_BANDS, "value_range": (0, 1), "classes": ["cloud"]}
DETECTOR = S2PixelCloudDetector(average_over=4, dilation_size=2)
clouds = PixelClassifier(DETECTOR.classifier.classifier, **FACTS)

def look_around(pixels):
    probability = clouds.scores(pixels)[..., 0].astype(np.float32)
    means = (cv2.filter2D(one, -1, DETECTOR.conv_filter, borderType=cv2.BORDER_REFLECT) for one in probability)
    return np.stack([cv2.dilate(mean, DETECTOR.dilation_filter) for mean in means])

averaged = ArrayModel(look_around, **FACTS)
'''


def cloudy(size: int = 64) -> np.ndarray:
    """Reflectances of the ten bands over land, with two clouds, bright in all bands, float32 (H,W,10)."""
    land, cloud = (np.array(values) for values in (
        [0.12, 0.10, 0.08, 0.11, 0.28, 0.30, 0.09, 0.003, 0.22, 0.14],
        [0.62, 0.60, 0.58, 0.60, 0.66, 0.67, 0.30, 0.03, 0.45, 0.35]))
    y, x = np.mgrid[:size, :size] * 64 / size
    image = land * np.random.default_rng(0).normal(1, 0.05, (size, size, 10))
    for row, column, radius in ((20, 22, 9), (46, 48, 11)):
        share = np.clip((radius - np.hypot(y - row, x - column)) / 4, 0, 1)[..., None]
        image = image * (1 - share) + cloud * share
    return image.clip(0, 1).astype(np.float32)


@pytest.fixture
def sky(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("sky.npy", cloudy())
    Path("cloud_model.py").write_text(CLOUD_MODEL)
    return tmp_path


def explain(*arguments: str):
    done = CliRunner().invoke(app, ["explain", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


@pytest.mark.slow
def test_clouds_end_to_end(sky):
    """Without context: zeros off the cloud. With the detector's averaging and dilation: as far as their disks reach, 6 pixels."""
    from s2cloudless import S2PixelCloudDetector
    shared = ["--point", "22", "20", "--n-samples", "2", "--grid-size", "16", "--baseline", "black"]
    explain("sky.npy", "--model", "cloud_model.py:clouds", "--method", "entropy,sobol,grad-cam", *shared, "--out", "pure")
    assert {path.name for path in Path("pure").iterdir()} == {
        "table.csv", "panel.png", "pixels.json", "entropy.npy", "entropy.png", "entropy-estimate.npz", "entropy-estimate.json",
        "sobol.npy", "sobol.png", "sobol-estimate.npz", "sobol-estimate.json"}
    probability = S2PixelCloudDetector().get_cloud_probability_maps(cloudy()[None])[0]
    region = (probability > 0.5) & (np.mgrid[:64, :64].sum(0) < 64)
    for name in ("entropy", "sobol"):
        heat = patches(np.load(f"pure/{name}.npy"), 16)
        assert (heat[~touching(region, 16)] == 0).all() and (heat[touching(region, 16)] > 0).any()
    facts = json.loads(Path("pure/pixels.json").read_text())
    assert facts["file"] == "sky.npy" and facts["size"] == [64, 64]
    saved = Estimate.load("pure/entropy-estimate").settings
    about = {name: facts.pop(name) for name in ("explained", "made", "files")}  # of the explanation, not of the pixels
    assert "sobol.npy" in about["files"] and saved["pixels"] == facts
    assert load_model("cloud_model.py:clouds").key in saved.values(), saved
    Image.fromarray(region).save("cloud.png")
    explain("sky.npy", "--model", "cloud_model.py:averaged", "--mask", "cloud.png", *shared[3:], "--out", "wide")
    heat = patches(np.load("wide/entropy.npy"), 16)
    assert (heat[~touching(region, 16, 6)] == 0).all() and (heat[touching(region, 16, 6) & ~touching(region, 16)] > 0).any()


@pytest.mark.slow
def test_a_window_of_an_array_is_that_window(sky):
    """A part of a file, of other numbers and in Fortran's order, gives what an array of that part alone gives."""
    part = (slice(4, 36), slice(6, 38))
    np.save("large.npy", np.asfortranarray(cloudy().astype(">f8")))
    np.save("part.npy", cloudy()[part])
    shared = ["--model", "cloud_model.py:clouds", "--n-samples", "2", "--grid-size", "4"]
    explain("large.npy", *shared, "--point", "22", "20", "--window", "32", "--out", "one")
    explain("part.npy", *shared, "--point", "16", "16", "--out", "two")
    assert np.array_equal(np.load("one/entropy.npy"), np.load("two/entropy.npy")) and np.load("one/entropy.npy").any()
    assert json.loads(Path("one/pixels.json").read_text())["rows"] == [4, 36]


def test_the_window_alone_is_read_and_any_numbers(tmp_path):
    for kind in ("u1", "u2", "i2", "i4", "f2", "f4", "f8", ">u2", "?"):
        values = np.random.default_rng(0).integers(0, 2, (12, 16, 5)).astype(kind)
        np.save(tmp_path / "a.npy", values)
        found = read_image(tmp_path / "a.npy", (slice(2, 9), slice(3, 5)))
        assert found.dtype == values.dtype and np.array_equal(found, values[2:9, 3:5])
    assert "5 bands of 8 bits" in str(look(tmp_path / "a.npy"))
    np.save(tmp_path / "grey.npy", np.arange(12.0).reshape(3, 4))
    assert np.array_equal(read_image(tmp_path / "grey.npy"), np.arange(12.0).reshape(3, 4, 1))
    # 25 GB, of which a page is there.
    np.lib.format.open_memmap(tmp_path / "huge.npy", "w+", np.float32, (40_000, 40_000, 4))[7, 9] = 3
    with pytest.raises(ValueError, match="limit"):
        read_image(tmp_path / "huge.npy")
    assert read_image(tmp_path / "huge.npy", (slice(0, 32), slice(0, 32))).sum() == 12


@pytest.mark.slow
def test_pixels_that_are_not_a_number_hold_nothing(sky):
    """NaN in one band, or a value that is named, marks the same pixels: patches of them score 0, and the maps are the same."""
    hidden = np.zeros((64, 64), bool)
    hidden[:, 16:20] = hidden[40:, 40:56] = True
    one, other = cloudy(), cloudy()
    one[hidden, 4], other[hidden] = np.nan, -9999
    np.save("one.npy", one)
    np.save("other.npy", other)
    shared = ["--model", "cloud_model.py:clouds", "--n-samples", "2", "--grid-size", "16", "--point", "22", "20"]
    with pytest.warns(UserWarning, match=f"one.npy: {hidden.sum()} of 4096 pixels are NaN or infinite in a band"):
        explain("one.npy", *shared, "--out", "a")
    explain("other.npy", *shared, "--nodata", "-9999", "--out", "b")
    with pytest.warns(UserWarning):  # what predicts on the image before it is filled never sees a NaN
        assert np.isfinite(read_request(Path("one.npy")).image).all()
    heat = np.load("a/entropy.npy")
    assert np.array_equal(heat, np.load("b/entropy.npy")) and (heat[hidden] == 0).all() and heat.any()


REFUSED = {
    "picture": (["scene.png"], "B11, B12, an image (H,W,10), got uint8 of shape (64, 64, 3)"),
    "bands first": (["first.npy"], "as (H,W,C) that is 64 bands of 64 x 10 pixels, as (C,H,W) 10 bands of 64 x 64"),
    "bands first, point": (["first.npy", "--point", "20", "30"], "as (C,H,W) 10 bands of 64 x 64; if the latter is meant"),
    "bands first, mask": (["first.npy", "--mask", "mask.png"], "a value is needed for each pixel: as (H,W,C)"),
    "unit": (["counts.npy"], "for a model of values from 0 to 1: is it another unit?"),
    "objects": (["objects.npy"], "objects.npy: holds no array of numbers that can be read"),
    "text": (["text.npy"], "text.npy: expected an array of numbers (H,W,C), got <U1 of shape (4, 4)"),
    "complex": (["complex.npy"], "got complex64 of shape (64, 64, 10)"),
    "four axes": (["four.npy"], "got float32 of shape (1, 64, 64, 10)"),
    "cut short": (["short.npy"], "short.npy: holds no array of numbers that can be read"),
    "nothing": (["nan.npy"], "nan.npy: no pixel has a number in every band"),
    "no value": (["sky.npy", "--nodata", "0,0"], "--nodata 0,0: expected one number, or one for each of the 10 bands"),
    "no pixel": (["counts.npy", "--nodata", "0.5"], "can have this value, its numbers are uint16"),
    "not 8 bits": (["scene.png", "--nodata", "256"], "can have this value, its numbers are uint8"),
    "not a number": (["sky.npy", "--nodata", "nan"], "--nodata 'nan': expected a number"),
    "classifier": (["sky.npy", "--model", "forest.py:forest"], "got RandomForestClassifier; wrap it in"),
    "bundled": (["sky.npy", "bundled"], "expected an 8-bit RGB image of shape (H, W, 3), got float32 of shape (64, 64, 10)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments,message", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line(sky, arguments, message, monkeypatch, capsys):
    Image.fromarray(SCENE.image).save("scene.png")
    Image.fromarray(SCENE.label).save("mask.png")
    bands = cloudy()
    made = {"first": bands.transpose(2, 0, 1), "counts": (bands * 10_000).astype(np.uint16), "four": bands[None],
            "nan": bands * np.nan, "complex": bands * (1 + 0j), "text": np.full((4, 4), "a"), "short": bands}
    np.save("objects.npy", np.array([[None]]), allow_pickle=True)
    for name, values in made.items():
        np.save(f"{name}.npy", values)
    Path("short.npy").write_bytes(Path("short.npy").read_bytes()[:1000])
    Path("forest.py").write_text("from sklearn.ensemble import RandomForestClassifier\nforest = RandomForestClassifier()\n")
    image, *options = arguments
    model = [] if "bundled" in options else ["--model", "cloud_model.py:clouds"]
    options = [option for option in options if option != "bundled"]
    monkeypatch.setattr(sys, "argv", ["entropy-captum", "explain", image, *model, *options, "--out", "out"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and not Path("out").exists() and len([line for line in said if line.startswith("error: ")]) == 1
    assert said[-1].startswith("error: ")
    assert message in said[-1]


def test_masks_and_labels_may_be_arrays(sky):
    region = np.zeros((64, 64), bool)
    region[10:20, 10:20] = True
    np.save("mask.npy", region)
    np.save("label.npy", region.astype(np.uint8))
    request = read_request(Path("sky.npy"), Path("mask.npy"), Path("label.npy"))
    assert np.array_equal(request.region, region) and np.array_equal(request.labels.of().mask, region)
    with pytest.raises(ValueError, match=r"10 bands of 32 float bits .* but a label of one band is expected"):
        read_request(Path("sky.npy"), Path("sky.npy"))


@pytest.mark.slow
def test_the_explorer_takes_an_array(sky):
    model = load_model("cloud_model.py:clouds")
    explorer = explore(model, cloudy(), grid_size=4, n_samples=2)
    assert explorer.subject.objects.max() == 2
    explorer.explain(1)
    result = explorer.wait(60)
    region = explorer.subject.objects == 1
    heat = patches(result.found["entropy"].maps[0].numpy(), 4)
    assert (heat[~touching(region, 4)] == 0).all() and heat.any() and result.picture.dtype == np.uint8
    explorer.save("explored")
    assert json.loads(Path("explored/pixels.json").read_text())["checksum"] == extent_of_array(cloudy(), "").checksum
    explorer.method = "grad-cam"
    explorer.explain(1)
    assert explorer.wait(60) is None and "no encoder" in str(explorer.problem)


def test_pictures_of_changed_images_are_stretched_as_the_image_is():
    card = ModelCard(bands=("a", "b"), value_range=(0, 1), scale=1, mean=0, std=1)
    image = np.random.default_rng(0).random((16, 16, 2)).astype(np.float32) / 4
    changed = image.copy()
    changed[:8] = 0.9
    shown = to_picture(changed, card, image)
    assert (shown[8:] == to_picture(image, card)[8:]).all() and (shown[:8] == 255).all()
    assert (to_picture(changed, card)[8:] != shown[8:]).any()


@pytest.mark.parametrize("most", [255, 10000, 65535])
def test_pixels_are_the_whole_numbers_that_files_hold(most):
    """A threshold at a value finds the pixels that have it, also of 16 bits, which float32 in [-1, 1] does not hold exactly."""
    seen = []
    model = load_model(ArrayModel(lambda pixels: seen.append(pixels.copy()) or pixels.mean(-1) / most, value_range=(0, most)))
    values = np.arange(most + 1).repeat(3).reshape(1, -1, 3).astype(np.uint16 if most > 255 else np.uint8)
    model(to_inputs(values, model.card))
    assert np.array_equal(seen[-1], values[None])
    model(to_inputs(values, model.card) * 0.37)  # what is faded is no whole number
    assert (seen[-1] != np.round(seen[-1])).mean() > 0.5
