"""One function written as several networks gives one study; a network of several channels has to be told which is meant."""
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from entropy_captum.card import ModelCard
from entropy_captum.cli import app
from entropy_captum.data import find_tiles, normalize
from entropy_captum.explorer import explore
from entropy_captum.methods import CONTROLS, ask_of_image, method_names, run_methods
from entropy_captum.question import Budget
from entropy_captum.report import make_report
from entropy_captum.study import evaluate, failures, kept_maps, read_facts, retest, settings_of
from entropy_captum.tiles import Settings, find_sources
from entropy_captum.zoo import Padded, dataset_iou, predict, predict_mask


class Roofs(nn.Module):
    """Bright, smooth blocks are roofs: an encoder that halves the map, and a head; logits (B,1,H,W)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(6, 1, 1)

    def logits(self, x):
        bright = 6 * F.avg_pool2d(x, 5, 1, 2, count_include_pad=False).mean(1, keepdim=True)
        return bright + 0.3 * F.interpolate(self.head(self.encoder(x)), scale_factor=2.0)

    def forward(self, x):
        return self.logits(x)


class GroundAndRoof(Roofs):
    def forward(self, x):
        z = self.logits(x)
        return torch.cat([torch.zeros_like(z), z], 1)


class RoofDoubtGround(Roofs):
    """As the paper's network: three labels with a sigmoid each."""

    def forward(self, x):
        z = self.logits(x)
        return torch.cat([z, 3 - z.abs(), -z], 1)


class Probability(Roofs):
    def forward(self, x):
        z = self.logits(x)
        return torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)


FORMS = {"ground and roof": (GroundAndRoof, 1, "auto"), "three sigmoids": (RoofDoubtGround, 0, "sigmoid"),
         "probabilities": (Probability, 1, "none")}


def build(form: type[Roofs]) -> Roofs:
    torch.manual_seed(3)
    return form().eval()


@pytest.fixture
def data(tmp_path):
    """Two tiles of noise with two bright blocks, and a label that is a little off."""
    rng = np.random.default_rng(0)
    for kind in ("image", "label"):
        (tmp_path / "data/town" / kind).mkdir(parents=True)
    for k in range(2):
        image, label = rng.integers(20, 110, (32, 32, 3)), np.zeros((32, 32), bool)
        for rows, columns in ((slice(3, 13), slice(4, 15)), (slice(18, 28), slice(16, 29))):
            image[rows, columns] += 130
            label[rows, columns] = True
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"data/town/image/scene_{k}.png")
        Image.fromarray(label.astype(np.uint8) * 255).save(tmp_path / f"data/town/label/scene_{k}.png")
    return tmp_path / "data"


def only_run(folder):
    return next(folder.glob("*/run.json")).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_one_function_in_several_networks_gives_one_study(data, tmp_path, name):
    form, target, activation = FORMS[name]
    # Where scores are probabilities the gradient of a score is another, and an interaction of nothing is another rounding.
    left_out = {"grad-cam", "interaction"} if activation == "none" else set()
    methods = tuple(name for name in method_names() if name not in left_out)
    common = dict(methods=methods, grid_size=2, n_samples=4, perturbations_per_eval=4, per="building", min_pixels=20, noisy=1)
    want = evaluate(build(Roofs), data, tmp_path / "one", Settings(**common), keep_maps=True, show_progress=False)
    settings = Settings(**common, targets=(target,), activation=activation)
    found = evaluate(build(form), data, tmp_path / "several", settings, keep_maps=True, show_progress=False)
    assert set(want.status) == set(found.status) == {"ok"}, found.error.tolist()
    assert (want.groupby("tile").unit.nunique() == 2).all()
    numbers = want.select_dtypes("number").columns.drop(["seconds_maps", "seconds_tests"])
    keys = ["dataset", "tile", "unit", "baseline", "seed", "method"]
    pd.testing.assert_frame_equal(found[keys], want[keys])
    # Ranks of nearly equal cells may swap on rounding, and so may pixels of the maps that a gap's error redraws; the maps below
    # must agree as numbers.
    plain = [c for c in numbers if not c.startswith("rank_") and c != "gap_r0.5_se"]
    pd.testing.assert_frame_equal(found[plain], want[plain], rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(found["gap_r0.5_se"], want["gap_r0.5_se"], rtol=0.02)
    maps, others = kept_maps(only_run(tmp_path / "one")), kept_maps(only_run(tmp_path / "several"))
    assert maps.keys() == others.keys() and len(maps) == len(want)
    for key, heat in maps.items():
        np.testing.assert_allclose(others[key], heat, rtol=1e-3, atol=1e-5, err_msg=key)
    # And the prediction is that of the logits: a label that a plain threshold meets by nine tenths.
    tile = find_tiles(data / "town")[0]
    image, label = tile.read()[:2]
    with torch.no_grad():
        positive = (build(Roofs)(normalize(image))[0, 0] > 0).numpy()
    overlap = (positive & label).sum() / (positive | label).sum()
    assert 0.85 < overlap < 1
    assert (predict_mask(build(form), image, target=target, activation=activation) == positive).all()
    pooled = dataset_iou(build(form), find_tiles(data / "town"), target=target, activation=activation)
    assert pooled == pytest.approx(dataset_iou(build(Roofs), find_tiles(data / "town")))
    # Tests of kept maps are those of the run.
    again = retest(build(form), only_run(tmp_path / "several"), find_sources(data), lambda maps: maps, show_progress=False)
    merged = again.merge(found, on=keys, suffixes=("_again", ""))
    assert len(merged) == len(found) and np.allclose(merged.gap_again, merged.gap, atol=1e-4)


def test_a_class_that_is_not_named_is_never_the_first(data, tmp_path):
    three = build(RoofDoubtGround)
    for target, message in ((None, "target=None needs a one-channel output, got 3 channels; name the class, 0 to 2"),
                            (3, "target 3 is no class of an output with 3 channels")):
        with pytest.raises(ValueError, match=message):
            evaluate(three, data, tmp_path / "run", Settings(("ones",), 2, 2, targets=(target,)), show_progress=False)
    with pytest.raises(ValueError, match="softmax of one channel"):
        evaluate(build(Roofs), data, tmp_path / "run", Settings(("ones",), 2, 2, activation="softmax"), show_progress=False)
    assert not (tmp_path / "run").exists()
    image, x = find_tiles(data / "town")[0].read()[0], torch.zeros(1, 3, 32, 32)
    question = ask_of_image(three, x, torch.ones(1, 32, 32), baselines=x, grid_size=2)
    explained = [name for name in method_names() if name not in CONTROLS]
    for call in (lambda: predict_mask(three, image), lambda: explore(three, image),
                 lambda: dataset_iou(three, find_tiles(data / "town")),
                 *(partial(run_methods, question, Budget(2), [name]) for name in explained)):
        with pytest.raises(ValueError, match="target=None needs a one-channel output"):
            call()
    for wrong, message in ((dict(targets=(-1,)), r"targets must be names or numbers of at least 0, or None alone, got \(-1,\)"),
                           (dict(activation="relu"), "activation must be one of auto, softmax, sigmoid, none, got 'relu'")):
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)


def test_a_tile_that_cannot_be_read_does_not_hide_the_class(data, tmp_path):
    (data / "town/image/scene_0.png").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="target=None needs a one-channel output"):
        evaluate(build(GroundAndRoof), data, tmp_path / "run", Settings(("ones",), 2, 2), show_progress=False)
    rows = evaluate(build(GroundAndRoof), data, tmp_path / "run", Settings(("ones",), 2, 2, targets=(1,)), show_progress=False)
    assert list(rows.status) == ["error", "ok"]


def test_runs_from_before_are_still_read(data, tmp_path):
    evaluate(build(Roofs), data, tmp_path, Settings(("ones", "random"), 2, 2), keep_maps=True, show_progress=False)
    home = only_run(tmp_path)
    facts = read_facts(home)
    assert {"targets", "activation"} <= facts["settings"].keys()
    old = {k: v for k, v in facts["settings"].items() if k not in ("targets", "activation")}
    (home / "run.json").write_text(json.dumps(facts | {"settings": old}))
    assert settings_of(read_facts(home)) == Settings(("ones", "random"), 2, 2)
    assert len(retest(build(Roofs), home, find_sources(data), lambda maps: maps, show_progress=False)) == 4


def test_predictions_are_those_of_the_map_at_the_inputs_size():
    """A network with a smaller map, which has to be padded: the padding must not squeeze what is left."""
    class Quarter(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x[:, :1], 4)

    torch.manual_seed(0)
    x = F.interpolate(torch.randn(1, 3, 12, 10), (48, 40), mode="bilinear")
    padded = F.pad(x, (0, 24, 0, 16), mode="reflect")
    want = F.interpolate(F.avg_pool2d(padded[:, :1], 4), (64, 64), mode="bilinear", align_corners=False)[..., :48, :40]
    assert torch.allclose(Padded(Quarter())(x), want)
    assert torch.equal(predict(Padded(Quarter()), x), want[:, 0] > 0)
    assert Padded(Quarter())(padded).shape == (1, 1, 16, 16), "what fits is left as it is"


def test_predicting_leaves_the_network_as_it_was():
    class Halves(nn.Module):
        """Without any parameter, and writing into its input."""

        def forward(self, x):
            return x.sub_(0.5)[:, :1]

    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.9)).train()
    net[1].eval()
    image = np.full((16, 16, 3), 200, np.uint8)
    first = predict_mask(net, image)
    assert (predict_mask(net, image) == first).all() and [m.training for m in net] == [True, False, True]
    assert predict_mask(Halves(), image).all()
    broken = nn.Conv2d(3, 1, 1)
    broken.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN in 256 of 256"):
        predict_mask(broken, image)


class Moody(nn.Module):
    """Ends in an error of its own on dark tiles."""

    card = ModelCard()

    def forward(self, x):
        if x.mean() < -0.8:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return x.mean(1, keepdim=True)


@pytest.fixture
def mostly_bad(tmp_path):
    """Eight tiles: three whose image is cut off, two dark ones, a label of another size, a grey one, and one that is good."""
    home = tmp_path / "some data" / "town"
    for kind in ("image", "label"):
        (home / kind).mkdir(parents=True)
    for k in range(8):
        image = np.full((32, 32, 3), 0 if k in (3, 4) else 200, np.uint8)
        Image.fromarray(image[..., 0] if k == 6 else image).save(home / f"image/roof_x0.{k}.png")
        Image.fromarray(np.full((16, 16) if k == 5 else (32, 32), 255, np.uint8)).save(home / f"label/roof_x0.{k}.png")
        if k < 3:
            (home / f"image/roof_x0.{k}.png").write_bytes(b"no picture")
    return home.parent


def test_reasons_of_failed_tiles_are_grouped_and_counted(mostly_bad, tmp_path):
    rows = evaluate(Moody(), mostly_bad, tmp_path / "run", Settings(("ones",), 2, 2), show_progress=False)
    found = failures(rows)
    assert found.tiles.tolist() == [3, 2, 1, 1] and found["first"].tolist()[:2] == ["town/roof_x0.0", "town/roof_x0.3"]
    for reason, words in zip(found.reason, ("FILE", "mat1 and mat2", "", ""), strict=True):
        assert words in reason and "roof_x0" not in reason
    assert failures(rows[rows.status == "ok"]).empty
    (mostly_bad / "town/label/roof_x0.5.png").unlink()
    again = failures(evaluate(Moody(), mostly_bad, tmp_path / "run", Settings(("ones",), 2, 2), show_progress=False))
    assert again.tiles.tolist() == [3, 2, 1]
    page = make_report(tmp_path / "run")
    assert "mat1 and mat2 shapes cannot be multiplied" in page and "<td>3</td>" in page.replace(' class="number"', "")


def test_the_terminal_says_why_most_tiles_failed(mostly_bad, tmp_path):
    arguments = ["evaluate", "--data", str(mostly_bad), "--out", str(tmp_path / "run"), "--methods", "ones,random", "--grid-size",
                 "2", "--n-samples", "2", "--model", f"{__file__}:Moody"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    (counted,) = (line for line in lines if "rows of 8 tiles" in line)
    assert "7 error, 1 ok" in counted
    reasons = [line for line in lines if line.startswith("failed: ")]
    assert [line.split()[1] for line in reasons] == ["3", "2", "1", "1"] and "(town/roof_x0.3, ...): RuntimeError" in reasons[1]
    assert lines.index(reasons[0]) == lines.index(counted) + 1 and "gap on equal area" in done.output


@pytest.mark.slow
def test_the_class_is_named_on_the_command_line(data, tmp_path):
    """A U-Net of two channels, trained elsewhere: explained as the network in Python is."""
    torch.manual_seed(0)
    model = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None, classes=2).eval()
    torch.save({"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "two.ckpt")
    common = ["evaluate", "--data", str(data), "--model", str(tmp_path / "two.ckpt"), "--methods", "entropy,ones",
              "--grid-size", "2",
              "--n-samples", "2"]
    unnamed = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "none")])
    assert isinstance(unnamed.exception, ValueError) and "target=None needs a one-channel output" in str(unnamed.exception)
    for target in (0, 1):
        done = CliRunner().invoke(app, [*common, "--out", str(tmp_path / f"run{target}"), "--target", str(target),
                                        "--activation", "softmax"])
        assert done.exit_code == 0, done.output
        rows = pd.concat(map(pd.read_parquet, (tmp_path / f"run{target}").rglob("*.parquet"))).sort_values(["tile", "method"])
        settings = Settings(("entropy", "ones"), 2, 2, targets=(target,))
        want = evaluate(model, data, tmp_path / f"want{target}", settings, show_progress=False)
        assert rows.status.tolist() == want.status.tolist()
        assert np.allclose(rows.clean_confidence, want.clean_confidence, equal_nan=True)
    assert "ok" in want.status.tolist() or "ok" in rows.status.tolist()
