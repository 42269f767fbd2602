"""Several classes: in labels, drawn scenes, studies, reports and mistakes, with networks whose predictions numpy knows."""
from __future__ import annotations

import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from browser import check_page
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from entropy_captum.card import ModelCard
from entropy_captum.cli import app
from entropy_captum.drawn import SCENE_CLASSES, procedural_scene, write_scenes
from entropy_captum.explanation import ask, choose_region, find_mistakes
from entropy_captum.files import extent_of_array
from entropy_captum.labels import LabelValues, parse_values, read_label, read_labels
from entropy_captum.perturbation import filled
from entropy_captum.question import Question
from entropy_captum.region import predicted_region
from entropy_captum.report import classes_table, extreme_tiles, make_report, wide_table
from entropy_captum.request import Request, read_request
from entropy_captum.statistics import curves, method_table, rival_table, scene_means, tile_counts, with_far
from entropy_captum.study import RunFolder, evaluate, kept_maps, left_out, read_facts, retest, settings_of
from entropy_captum.tiles import Settings, cell_means, find_sources, held_ids
from entropy_captum.zoo import class_table, predict_mask, rooftop_unet

NAMES = SCENE_CLASSES
CODE = "building=1;road=2;tree=3;water=4"
#: A colour for each class, far from one another and from mid-grey.
COLOURS = np.array([(200, 200, 60), (230, 30, 30), (20, 20, 20), (20, 160, 20), (20, 40, 220)], np.uint8)


class Lookup(nn.Module):
    """Every pixel is of the class whose colour is nearest: predictions are known exactly, and no pixel has a context."""

    card = ModelCard(classes=NAMES)

    def __init__(self, sharpness: float = 6.0) -> None:
        super().__init__()
        self.register_buffer("colours", torch.from_numpy(COLOURS.astype(np.float32)) / 127.5 - 1)
        self.sharpness = sharpness

    def forward(self, x):
        return -self.sharpness * (x[:, None] - self.colours[None, :, :, None, None]).square().sum(2)


class Blurred(Lookup):
    """The same of a picture that is blurred before: with a context, so that maps have something to show."""

    def forward(self, x):
        return super().forward(nn.functional.avg_pool2d(x, 7, 1, 3, count_include_pad=False))


class Grey(Lookup):
    """Without names, and softer."""

    card = ModelCard()


def paint(seen: np.ndarray) -> np.ndarray:
    """The image (H,W,3) in which `Lookup` sees these classes (H,W)."""
    return COLOURS[seen]


#: Scenes of 64 pixels a side with buildings, trees and, but for the first, roads.
SEEDS = (0, 5, 8, 9)


def scenes(folder, seeds=SEEDS, size=64):
    """Drawn scenes whose picture is the colours of their classes, with a class-valued label each."""
    home = write_scenes(folder / "town", seeds, size, classes=True, water=True)
    for seed in seeds:
        Image.fromarray(paint(procedural_scene(seed, size, water=True).classes)).save(home / f"image/scene_{seed}.png")
    return folder


def tiles_of(folder, code=CODE):
    return find_sources(folder, values=parse_values([code]))


def only_run(folder):
    return next(folder.glob("*/run.json")).parent


def spots(size=48):
    """What the network sees and what the label says: blocks of all classes, right and wrong."""
    seen, label = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    seen[4:14, 4:14] = label[4:14, 4:14] = 1
    seen[4:14, 30:40], label[4:14, 30:40] = 1, 2  # a road is called a building
    seen[30:40, 4:14], label[30:40, 4:14] = 3, 1  # a building is called a tree
    seen[30:36, 30:40], label[30:36, 30:40] = 1, 0  # ground is called a building
    label[44:46, :] = 255
    seen[44:48, 20:30] = 1  # where half of the label is not known
    return seen, label


# --- labels


def test_a_label_holds_several_classes(tmp_path):
    rng = np.random.default_rng(0)
    classes = rng.choice([0, 1, 2, 3, 4, 255], (20, 30)).astype(np.uint8)
    Image.fromarray(classes).save(tmp_path / "numbers.png")
    palette = np.zeros((256, 3), np.uint8)
    palette[:5], palette[255] = COLOURS, 255
    Image.fromarray(palette[classes]).save(tmp_path / "colours.png")
    indexed = Image.fromarray(classes, "P")
    indexed.putpalette(palette.ravel().tolist())
    indexed.save(tmp_path / "indexed.png")
    numbers = ["building=1", "road=2", "trees and water=3;trees and water=4", "ignore=255"]
    typed = [",".join(map(str, colour)) for colour in COLOURS]
    colours = [f"building={typed[1]}; road={typed[2]}", f"trees and water={typed[3]};trees and water={typed[4]};ignore=255,255,255"]
    want = {"building": classes == 1, "road": classes == 2, "trees and water": (classes == 3) | (classes == 4)}
    for name, code in (("numbers", numbers), ("indexed", numbers), ("indexed", colours), ("colours", colours)):
        values, path = parse_values(code), tmp_path / f"{name}.png"
        found = read_labels(path, values)
        assert list(found.masks) == list(want) and np.array_equal(found.known, classes != 255)
        for of, mask in want.items():
            label = read_label(path, values, (slice(3, 17), slice(5, 20)), of)
            assert np.array_equal(found.masks[of], mask) and np.array_equal(label.mask, mask[3:17, 5:20]), (name, of)
            truth, part = label.truth, classes[3:17, 5:20]
            assert np.array_equal(np.isnan(truth), part == 255) and (truth == 1).sum() == mask[3:17, 5:20].sum()
        with pytest.raises(ValueError, match=rf"{name}.png: the label has no class 'pond'; known are building, road, trees"):
            read_label(path, values, name="pond")
        with pytest.raises(ValueError, match=r"say which class of the label is meant; known are building, road"):
            read_label(path, values)
    with pytest.raises(ValueError, match=r"expected a label of 0/1.*3 \(1\d\.\d%\)"):
        read_label(tmp_path / "numbers.png", name="road")


def test_a_label_of_two_values_needs_no_code(tmp_path):
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "plain.png")
    for name in (None, "building", "road"):
        assert np.array_equal(read_label(tmp_path / "plain.png", name=name).mask, np.eye(8, dtype=bool))


@pytest.mark.parametrize("texts,message", [
    (["ignore=1", "=2"], r"'=2': expected NAME=VALUE"), (["road"], r"'road': expected NAME=VALUE"),
    (["building=1", "road=1"], "the value 1 cannot be building and road at once"),
    (["road=1;ignore=1"], "the value 1 cannot be road and ignore at once"), (["road=a"], r"'road=a': expected NAME=VALUE")])
def test_a_code_that_cannot_be_is_one_error(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_values(texts)


def test_names_of_classes_are_words():
    assert str(parse_values(["low vegetation=2", "building=0,0,255;ignore=255"])) == "low vegetation=2;building=0,0,255;ignore=255"
    for name in ("a=b", "a;b", " "):
        with pytest.raises(ValueError, match="needs a name without = and ;"):
            LabelValues({name: ((1,),)})
    with pytest.raises(ValueError, match="'ignore' is no class"):
        LabelValues({"ignore": ((1,),)})


# --- drawn scenes

#: Of the pixels, labels and instances of the scenes of seeds 0 to 9 before they had classes.
DIGESTS = {64: "0bd560ccc8576304", 128: "b928abaa60d6d9a7", 256: "f92c5f20402f04e3"}


@pytest.mark.parametrize("size", [64, 128, pytest.param(256, marks=pytest.mark.slow)])
def test_drawn_scenes_are_what_they_were(size):
    digest = hashlib.blake2b(digest_size=8)
    for seed in range(10):
        scene = procedural_scene(seed, size)
        for part in (scene.image, scene.label, scene.instances):
            digest.update(np.ascontiguousarray(part).tobytes())
        assert np.array_equal(scene.classes == 1, scene.label) and scene.classes.dtype == np.uint8 and scene.classes.max() < 4
    assert digest.hexdigest() == DIGESTS[size]


@pytest.mark.slow
def test_drawn_classes_are_where_their_colours_are():
    assert NAMES == ("ground", "building", "road", "tree", "water")
    for seed in range(4):
        plain, scene = procedural_scene(seed, 192), procedural_scene(seed, 192, water=True)
        red, green, blue = (scene.image[..., k].astype(float) for k in range(3))
        inside = {name: scene.classes == k for k, name in enumerate(NAMES)}
        assert all(mask.mean() > 0.01 for mask in inside.values())
        assert (green - red)[inside["tree"]].mean() > 5 and abs(green - blue)[inside["road"]].mean() < 12
        assert (blue - red)[inside["water"]].mean() > 20
        assert abs((green - red)[inside["road"]].mean()) < 8
        # The pond alone differs, with its bank, the trees in its place and their shadows.
        assert np.array_equal(plain.label, scene.label)
        y, x = np.nonzero(inside["water"])
        far = np.ones((192, 192), bool)
        far[max(y.min() - 40, 0):y.max() + 41, max(x.min() - 40, 0):x.max() + 41] = False
        assert np.array_equal(plain.image[far], scene.image[far]) and np.array_equal(plain.classes[far], scene.classes[far])
        assert (plain.image != scene.image)[inside["water"]].any(-1).mean() > 0.95


def test_scenes_are_written_with_classes(tmp_path):
    write_scenes(tmp_path, (5,), 64, classes=True, water=True)
    with Image.open(tmp_path / "label/scene_5.png") as file:
        assert file.mode == "L" and np.array_equal(np.asarray(file), procedural_scene(5, 64, water=True).classes)
    write_scenes(tmp_path, (5,), 64)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "label/scene_5.png")), procedural_scene(5, 64).label * np.uint8(255))


# --- all classes of a scene


def test_the_table_of_classes_is_counted_by_numpy(tmp_path):
    seen, label = spots()
    Image.fromarray(label).save(tmp_path / "label.png")
    labels, valid = read_labels(tmp_path / "label.png", parse_values([CODE, "ignore=255"])), np.ones(seen.shape, bool)
    valid[:, :6] = False
    known = valid & (label != 255)
    table = class_table(Lookup(), paint(seen), labels, valid=valid).set_index("class")
    assert list(table.index) == list(NAMES)
    for k, name in enumerate(NAMES):
        assert table.predicted[name] == pytest.approx((seen == k)[valid].mean())
        if k:
            assert table.labelled[name] == pytest.approx((label == k)[known].mean())
            union = ((seen == k) | (label == k))[known].sum()
            assert (np.isnan(table.iou[name]) and not union) or table.iou[name] == pytest.approx(
                ((seen == k) & (label == k))[known].sum() / union)
    assert np.isnan(table.labelled["ground"]) and np.isnan(table.confidence["water"])
    logits = -6 * ((COLOURS[1] / 127.5 - COLOURS / 127.5) ** 2).sum(1)
    assert table.confidence["building"] == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), rel=1e-6)


# --- studies

SMALL = {"methods": ("entropy", "random", "distance"), "grid_size": 4, "n_samples": 4}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three classes of four scenes in one run, with maps."""
    folder = tmp_path_factory.mktemp("study")
    data = scenes(folder / "data")
    rows = evaluate(Blurred(), tiles_of(data), folder / "run", Settings(**SMALL, targets=("building", "road", "tree")),
                    keep_maps=True, show_progress=False)
    return data, folder / "run", rows


def compared(rows):
    return rows.drop(columns=["run_id", "seconds_maps", "seconds_tests"]).reset_index(drop=True)


@pytest.mark.slow
def test_a_study_of_three_classes_is_three_studies(study, tmp_path):
    data, run, rows = study
    assert list(rows.groupby("target").tile.nunique()) == [4, 4, 4] and set(rows.status) <= {"ok", "absent"}
    maps = kept_maps(only_run(run))
    for name, number in (("building", 1), ("road", 2), ("tree", 3)):
        settings = Settings(**SMALL, targets=(name,))
        alone = evaluate(Blurred(), tiles_of(data), tmp_path / name, settings, keep_maps=True, show_progress=False)
        part = rows[rows.target == name]
        assert set(alone.target) == {name}
        pd.testing.assert_frame_equal(compared(part), compared(alone), check_dtype=False, check_like=True)
        good, own = part[part.status == "ok"], alone[alone.status == "ok"]
        assert len(good) == len(own) > 0
        for table in (lambda r: method_table(r, ["gap"]), lambda r: rival_table(with_far(r)), curves, tile_counts,
                      lambda r: wide_table(r, {"gap": "gap"})):
            pd.testing.assert_frame_equal(table(good), table(own))
        for key, heat in kept_maps(only_run(tmp_path / name)).items():
            home, unit, baseline, seed, method = key.rsplit("/", 4)
            assert np.array_equal(maps[f"{home}/target-{number}/{unit}/{baseline}/{seed}/{method}"], heat)
    assert len(maps) == (rows.status == "ok").sum()


@pytest.mark.slow
def test_rows_of_two_classes_are_no_replicates(study):
    _, _, rows = study
    good = rows[rows.status == "ok"]
    for mixed in (lambda: scene_means(good, "gap"), lambda: method_table(good, ["gap"]), lambda: rival_table(good),
                  lambda: curves(good)):
        with pytest.raises(ValueError, match=r"rows of several classes \(building, tree, road\): a mean is of one"):
            mixed()
    counts = tile_counts(rows)
    assert counts.to_numpy().sum() == 12 and counts.loc[("town", "road")].sum() == 4


@pytest.mark.slow
def test_classes_of_a_study_are_counted_by_numpy(study):
    _, _, rows = study
    table = classes_table(rows).set_index("class")
    pixels = {}
    for seed in SEEDS:
        scene = procedural_scene(seed, 64, water=True)
        for k, name in enumerate(NAMES):
            seen = predict_mask(Blurred(), paint(scene.classes), target=name)
            pixels.setdefault(name, []).append((seen.mean(), (scene.classes == k).mean(), (seen & (scene.classes == k)).sum(),
                                                (seen | (scene.classes == k)).sum()))
    for name in ("building", "road", "tree"):
        predicted, labelled, common, union = np.array(pixels[name]).T
        assert table["share predicted"][name] == pytest.approx(predicted.mean())
        assert table["share labelled"][name] == pytest.approx(labelled.mean())
        assert table["IoU"][name] == pytest.approx(common.sum() / union.sum())
        assert (table["tiles"][name], table["predicted in"][name], table["labelled in"][name]) == (
            4, (predicted > 0).sum(), (labelled > 0).sum())
    assert list(table.index) == ["building", "road", "tree"]


@pytest.mark.slow
def test_a_run_of_several_classes_goes_on(study, tmp_path):
    data, run, rows = study
    settings = Settings(**SMALL, targets=(1, "road", 3))  # numbers and names of the same classes are the same run
    again = evaluate(Blurred(), tiles_of(data), run, settings, keep_maps=True, show_progress=False)
    assert len(list(run.glob("*/run.json"))) == 1
    pd.testing.assert_frame_equal(again, rows)
    path = only_run(run) / "rows/town/scene_8.png.parquet"
    before = path.read_bytes()
    path.unlink()
    again = evaluate(Blurred(), tiles_of(data), run, settings, keep_maps=True, show_progress=False)
    pd.testing.assert_frame_equal(compared(again), compared(rows))
    changed = again.seconds_maps.dropna() != rows.seconds_maps.dropna()
    assert set(again.loc[changed[changed].index].tile) == {"scene_8"}
    path.write_bytes(before)


@pytest.mark.slow
def test_kept_maps_of_several_classes_are_tested_again(study):
    data, run, rows = study
    found = retest(Blurred(), only_run(run), tiles_of(data), lambda maps: {"entropy": maps["entropy"]}, show_progress=False)
    want = rows[(rows.method == "entropy") & (rows.status == "ok")]
    both = found.merge(want, on=["tile", "target"], suffixes=("_again", ""))
    assert len(both) == len(want) == len(found) and np.allclose(both.gap_again, both.gap, equal_nan=True)
    facts = read_facts(only_run(run))
    assert settings_of(facts).targets == (1, 2, 3)
    facts["settings"] |= {"target": 2}
    del facts["settings"]["targets"]
    assert settings_of(facts).targets == (2,)


def test_a_class_is_named_as_it_is(tmp_path):
    data = scenes(tmp_path / "data", (0,))
    for targets, message in ((("roof",), "there is no class 'roof'; known are ground, building, road, tree, water"),
                             ((1, "building"), "targets must be different classes"), ((5,), "target 5 is no class"),
                             ((None,), "target=None needs a one-channel output")):
        with pytest.raises(ValueError, match=message):
            evaluate(Lookup(), tiles_of(data), tmp_path / "run", Settings(**SMALL, targets=targets), show_progress=False)
    for targets in ((1, 1), (), (-1,), (None, 1)):
        with pytest.raises(ValueError, match="targets must be"):
            Settings(targets=targets)
    quick = Settings(("distance",), 4, 4, targets=(1, 3))
    rows = evaluate(Grey(), tiles_of(data), tmp_path / "grey", quick, show_progress=False)
    assert list(rows.target.unique()) == ["1", "3"]


def test_a_label_goes_with_a_class_by_its_name(tmp_path):
    data, quick = scenes(tmp_path / "data", (0,)), Settings(("distance",), 4, 4, targets=("building", "road"))
    with pytest.warns(UserWarning, match="there is no label of road, and so no IoU: the labels hold building") as said:
        rows = evaluate(Lookup(), tiles_of(data, "building=1"), tmp_path / "one", quick, show_progress=False).set_index("target")
    assert sum("no IoU" in str(each.message) for each in said) == 1
    label = procedural_scene(0, 64, water=True).classes
    assert rows.labelled_pixels["building"] == (label == 1).sum() and rows.labelled_pixels["road"] == -1
    assert rows.clean_iou["building"] == 1 and np.isnan(rows.clean_iou["road"])
    # A label of two values is the building's.
    Image.fromarray((label == 1) * np.uint8(255)).save(data / "town/label/scene_0.png")
    with pytest.warns(UserWarning, match="there is no label of road"):
        rows = evaluate(Lookup(), data, tmp_path / "plain", quick, show_progress=False).set_index("target")
    assert rows.clean_iou["building"] == 1 and np.isnan(rows.clean_iou["road"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Lookup(), data, tmp_path / "alone", Settings(("distance",), 4, 4, targets=(1,)), show_progress=False)


# --- methods that cannot be asked


def by_colour(x):
    """The blurred network as a function: no layers, no gradients that anybody promises."""
    return Blurred()(x)


by_colour.card = ModelCard(classes=NAMES)


@pytest.mark.slow
def test_what_cannot_be_asked_is_left_out_with_its_reason(tmp_path):
    data, methods = scenes(tmp_path / "data", (5, 0)), ("grad-cam", "distance", "score-cam")
    settings = Settings(methods, 4, 4, targets=("building", "road"), per="building", min_pixels=4)
    rows = evaluate(by_colour, tiles_of(data), tmp_path / "run", settings, show_progress=False)
    seen = rows.groupby(["tile", "target"]).filter(lambda part: part.status.iloc[0] != "absent")
    assert seen.groupby("tile").target.nunique().tolist() == [1, 2] and len(rows) == len(seen) + 1
    for _, part in seen.groupby(["tile", "target"]):
        assert part.status.iloc[0] == "ok" and list(part.status.iloc[-2:]) == ["left out", "left out"]
        assert set(part.method.iloc[-2:]) == {"grad-cam", "score-cam"} and (part.status == "left out").sum() == 2
    assert left_out(rows).keys() == {"grad-cam", "score-cam"} and all("layer" in reason for reason in left_out(rows).values())
    assert tile_counts(rows).columns.tolist() == ["absent", "ok"]
    again = evaluate(by_colour, tiles_of(data), tmp_path / "run", settings, show_progress=False)
    pd.testing.assert_frame_equal(again, rows)  # with the seconds of the first time: nothing ran again
    alone = evaluate(by_colour, tiles_of(data), tmp_path / "alone", Settings(**{**settings.__dict__, "methods": ("distance",)}),
                     show_progress=False)
    columns = ["tile", "target", "unit", "gap", "rank_to_nearness", "map_mean"]
    tested, own = rows[rows.status == "ok"], alone[alone.status == "ok"]
    pd.testing.assert_frame_equal(tested[columns].reset_index(drop=True), own[columns].reset_index(drop=True))
    page = make_report(tmp_path / "run")
    assert "Methods that were left out" in page and left_out(rows)["grad-cam"].split("'")[0] in page
    (tmp_path / "model.py").write_text("import torch\n\ndef model(x):\n    return 9 * x.mean(1, keepdim=True)\n\n"
                                       "model.card = {'scale': 2 / 255, 'mean': 1.0}\n")
    done = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--out", str(tmp_path / "cli"), "--model",
                                    f"{tmp_path / 'model.py'}:model", "--methods", "grad-cam,ones", "--label-values", CODE,
                                    "--grid-size", "4", "--n-samples", "4"])
    assert done.exit_code == 0, done.output
    assert "left out: grad-cam: it looks into a layer" in done.output and "2 ok)" in done.output


# --- pixels that hold nothing


@pytest.mark.slow
def test_pixels_that_hold_nothing_are_nowhere_in_a_study(tmp_path):
    seen, label = spots()
    image, folder = paint(seen), tmp_path / "data/town"
    image[:, :10] = 7  # which the network calls a road
    for kind in ("image", "label"):
        (folder / kind).mkdir(parents=True)
    for name, values in (("a_1", image), ("a_2", np.full_like(image, 7))):
        Image.fromarray(values).save(folder / f"image/{name}.png")
        Image.fromarray(label).save(folder / f"label/{name}.png")
    held, code = (image != 7).any(-1), f"{CODE};ignore=255"
    assert predict_mask(Lookup(), image, target="road")[:, :10].all()
    settings = Settings(("entropy", "ones", "distance"), 4, 4, targets=("building", "road"), nodata=(7,),
                        baselines=("black", "mean"))
    rows = evaluate(Lookup(), tiles_of(tmp_path / "data", code), tmp_path / "run", settings, keep_maps=True, show_progress=False)
    first = rows[rows.tile == "a_1"]
    one, roads = first[first.target == "building"], first[first.target == "road"]
    assert list(roads.status) == ["absent"] and list(rows[rows.tile == "a_2"].status) == ["absent", "absent"]
    known = held & (label != 255)
    assert set(one.tile_pixels) == {held.sum()} and set(one.region_pixels) == {((seen == 1) & held).sum()}
    assert set(one.known_pixels) == {known.sum()} and set(one.labelled_pixels) == {((label == 1) & known).sum()}
    assert set(one.union_pixels) == {(((seen == 1) | (label == 1)) & known).sum()}
    ones = one[one.method == "ones"]
    assert (ones.map_mean == 1).all() and (ones.l_sit_kept_area == 1).all()
    for name, heat in kept_maps(only_run(tmp_path / "run")).items():
        assert not heat[~held].any(), name
    # Whatever stands in those pixels changes nothing.
    for value in (0, 255):
        other = image.copy()
        other[:, :10] = value
        Image.fromarray(other).save(folder / "image/a_1.png")
        changed = Settings(**{**settings.__dict__, "nodata": (value,)})
        found = evaluate(Lookup(), tiles_of(tmp_path / "data", code), tmp_path / f"run{value}", changed, show_progress=False)
        left = found[(found.tile == "a_1") & (found.target == "building")]
        pd.testing.assert_frame_equal(compared(left).drop(columns="checksum"), compared(one).drop(columns="checksum"))


class Spread(torch.nn.Module):
    """A network that sees the mean of 9 x 9 pixels: what lies beside a pixel decides about it."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 9, 1, 4)


def test_a_study_predicts_on_what_it_explains_whatever_stands_where_nothing_is(tmp_path):
    seen = np.full((64, 64, 3), 90, np.uint8)
    seen[20:40, 30:50] = 200
    counted = []
    for value in (0, 255):
        (folder := tmp_path / f"{value}/town/image").mkdir(parents=True)
        seen[:, 40:] = value
        Image.fromarray(seen).save(folder / "a_1.png")
        rows = evaluate(Spread(), tmp_path / str(value), tmp_path / f"run{value}", Settings(("ones",), 4, 4, nodata=(value,)),
                        show_progress=False)
        counted.append(rows.region_pixels.tolist())
    assert counted[0] == counted[1] and counted[0][0] > 0


@pytest.mark.parametrize(("nodata", "words"), [((300,), "no pixel of this image can have this value"),
                                               ((1, 2), "expected one number, or one for each of the 3 bands")])
def test_a_study_says_of_a_nodata_value_that_cannot_be_what_explain_says(tmp_path, nodata, words):
    (folder := tmp_path / "data/town/image").mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "a_1.png")
    rows = evaluate(Spread(), tmp_path / "data", tmp_path / "run", Settings(("ones",), 4, 4, nodata=nodata), show_progress=False)
    assert list(rows.status) == ["error"] and words in rows.error[0]


def test_cells_are_of_pixels_that_hold_something():
    held, heat = torch.ones(8, 8, dtype=torch.bool), torch.arange(64.0).reshape(8, 8)
    held[:, 6:], held[:4, 4:] = False, False
    question = Question(Lookup(), torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8), 1, valid=held, grid_size=2)
    cells = [heat[:4, :4], heat[4:, :4], heat[4:, 4:6]]  # the cell at the upper right holds nothing
    assert cell_means(heat, held_ids(question)) == pytest.approx([float(cell.mean()) for cell in cells])


def test_what_stands_where_nothing_is():
    x = torch.arange(12.0).reshape(1, 1, 3, 4) / 12
    held = torch.ones(3, 4, dtype=torch.bool)
    held[:, 3] = False
    mean = np.mean([k / 12 for k in range(12) if k % 4 < 3])
    for name, want in (("grey", 0), ("black", -1), ("mean", mean), ("blur", mean)):
        found = filled(x, held, name)
        assert torch.equal(found[..., :3], x[..., :3]) and torch.allclose(found[..., 3], torch.tensor(float(want)))
    assert filled(x, None, "grey") is x


# --- mistakes


@pytest.fixture
def wrong(tmp_path):
    """The files of a scene with mistakes, its request, and both by numpy."""
    seen, label = spots()
    Image.fromarray(paint(seen)).save(tmp_path / "image.png")
    Image.fromarray(label).save(tmp_path / "label.png")
    request = read_request(tmp_path / "image.png", label=tmp_path / "label.png", values=parse_values([CODE, "ignore=255"]))
    return tmp_path, request, seen, label


def test_mistakes_are_those_of_numpy(wrong):
    _, request, seen, label = wrong
    known = label != 255
    for k, name in ((1, "building"), (2, "road"), (3, "tree")):
        want = {"false-positives": (seen == k) & (label != k) & known, "false-negatives": (seen != k) & (label == k) & known}
        found = find_mistakes(request, Lookup(), name)
        assert found.keys() == {kind for kind, mask in want.items() if mask.any()}
        assert all(np.array_equal(mask, want[kind]) for kind, mask in found.items())
    assert find_mistakes(request, Lookup(), "water") == {}
    roads = find_mistakes(request, Lookup(), "building", "road")
    assert list(roads) == ["false-positives"] and np.array_equal(roads["false-positives"], (seen == 1) & (label == 2))
    assert find_mistakes(request, Lookup(), "building", "water") == {}
    for name in ("building", "pond"):
        with pytest.raises(ValueError, match=f"'{name}': expected another class of the label; known are road, tree, water"):
            find_mistakes(request, Lookup(), "building", name)
    with pytest.raises(ValueError, match="the label has no class 'ground'; known are building, road, tree, water"):
        find_mistakes(request, Lookup(), "ground")
    with pytest.raises(ValueError, match="give --label"):
        find_mistakes(Request(request.image, request.extent), Lookup(), 1)


def test_mistakes_at_a_point_in_a_region_and_among_pixels_that_hold_something(wrong):
    _, request, seen, _ = wrong
    at = find_mistakes(Request(request.image, request.extent, None, request.labels, (33, 5)), Lookup(), 1)
    block = np.zeros(seen.shape, bool)
    block[4:14, 30:40] = True
    assert list(at) == ["false-positives"] and np.array_equal(at["false-positives"], block)
    with pytest.raises(ValueError, match=r"the point \(20, 20\) lies on no object; the nearest has a pixel at"):
        find_mistakes(Request(request.image, request.extent, None, request.labels, (20, 20)), Lookup(), 1)
    region, valid = np.zeros(seen.shape, bool), np.ones(seen.shape, bool)
    region[:20], valid[:, 35:] = True, False
    inside = find_mistakes(Request(request.image, request.extent, region, request.labels, None, valid), Lookup(), 1)
    assert list(inside) == ["false-positives"] and np.array_equal(inside["false-positives"], block & valid)


def test_a_missed_building_is_asked_about_the_building(wrong):
    _, request, seen, label = wrong
    missed = find_mistakes(request, Lookup(), "building")["false-negatives"]
    question = ask(Lookup(), Request(request.image, request.extent, missed, request.labels), "grey", 4, "building")
    assert question.channel == 1 and np.array_equal(question.regions[0].numpy() == 1, (seen == 3) & (label == 1))
    assert np.array_equal(choose_region(Request(request.image, request.extent, missed), Lookup(), "building"), missed)
    logits = -6 * ((COLOURS[3] / 127.5 - COLOURS / 127.5) ** 2).sum(1)
    from entropy_captum.evaluation import SitTester
    confidence = float(SitTester(question).before.confidence[0, 0])
    assert confidence == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), rel=1e-4)


MODEL = """from test_classes import Lookup
def network():
    return Lookup().eval()
"""


def explain(folder, *options):
    (folder / "network.py").write_text(MODEL)
    command = ["explain", folder / "image.png", "--label", folder / "label.png", "--label-values", f"{CODE};ignore=255", "--out",
               folder / "out", "--model", f"{folder / 'network.py'}:network", "--grid-size", "4", "--n-samples", "4", *options]
    return CliRunner().invoke(app, list(map(str, command)))


@pytest.mark.slow
def test_the_command_explains_both_kinds_of_mistakes(wrong):
    folder, request, *_ = wrong
    done = explain(folder, "--target", "building", "--mistakes", "--method", "entropy,distance")
    assert done.exit_code == 0, done.output
    for kind in ("false-positives", "false-negatives"):
        assert (folder / "out" / kind / "panel.png").is_file()
        heat = np.load(folder / "out" / kind / "distance.npy")
        mask = find_mistakes(request, Lookup(), "building")[kind]
        assert heat[mask].min() > heat[~mask].max(), "nearness is largest inside"
    table = class_table(Lookup(), request.image, request.labels).round(3)
    row = next(line.split() for line in done.output.splitlines() if line.split()[:1] == ["building"])
    assert [float(each) for each in row[1:]] == pytest.approx(table.set_index("class").loc["building"].tolist())


@pytest.mark.slow
def test_the_command_says_which_mistakes_there_are_not(wrong):
    folder, *_ = wrong
    one = explain(folder, "--target", "tree", "--mistakes", "--method", "distance")
    assert one.exit_code == 0 and "there are no false negatives" in one.output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["false-positives"]
    roads = explain(folder, "--target", "building", "--mistakes", "--labelled", "road", "--method", "distance")
    assert roads.exit_code == 0 and "there are no" not in roads.output
    heat = np.load(folder / "out/false-positives/distance.npy")
    assert heat[4:14, 30:40].min() > heat[4:14, 42:].max()
    none = explain(folder, "--target", "water", "--mistakes", "--out", folder / "none")
    assert none.exit_code == 0 and not (folder / "none").exists()
    assert "there are no false positives" in none.output and "there are no false negatives" in none.output
    for options, message in ((("--labelled", "road"), "--labelled road goes with --mistakes"),
                             (("--mistakes", "--labelled", "pond"), "known are road, tree, water")):
        assert message in str(explain(folder, "--target", "building", *options).exception)
    unlabelled = CliRunner().invoke(app, ["explain", str(folder / "image.png"), "--mistakes"])
    assert "--mistakes needs --label" in str(unlabelled.exception)


# --- the command line and the report


@pytest.mark.slow
def test_the_command_runs_classes_by_name_number_and_all(study, tmp_path):
    data, _, rows = study
    (tmp_path / "network.py").write_text("from test_classes import Blurred\n")
    common = ["evaluate", "--data", str(data), "--model", f"{tmp_path / 'network.py'}:Blurred", "--methods",
              "entropy,random,distance", "--grid-size", "4", "--n-samples", "4", "--label-values", CODE]
    done = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "some"), "--target", "building,2,tree"])
    assert done.exit_code == 0, done.output
    found = pd.concat(map(pd.read_parquet, (tmp_path / "some").rglob("*.parquet"))).sort_values(["tile", "target", "method"])
    assert np.allclose(found.gap, rows.sort_values(["tile", "target", "method"]).gap, equal_nan=True)
    lines = [line.strip() for line in done.output.splitlines()]
    assert {"building", "road", "tree"} <= set(lines) and sum("gap on equal area" in line for line in lines) == 3
    assert any("building: 4 ok; road: " in line for line in lines)
    quick = [*common[:5], "--methods", "ones", *common[7:], "--nodata", "1"]
    everything = CliRunner().invoke(app, [*quick, "--out", str(tmp_path / "all"), "--target", "all", "--limit", "1"])
    assert everything.exit_code == 0, everything.output
    facts = json.loads((only_run(tmp_path / "all") / "run.json").read_text())
    assert facts["settings"]["targets"] == [0, 1, 2, 3, 4] and facts["settings"]["nodata"] == [1]
    unknown = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "none"), "--target", "building,roof"])
    assert "there is no class 'roof'; known are ground, building, road" in str(unknown.exception)
    (tmp_path / "nameless.py").write_text("from test_classes import Grey\n")
    nameless = CliRunner().invoke(app, [*quick[:3], "--model", f"{tmp_path / 'nameless.py'}:Grey", "--out", str(tmp_path / "none"),
                                        "--target", "all"])
    assert "--target all: the model's card names no classes" in str(nameless.exception)


@pytest.mark.slow
def test_the_report_has_a_part_for_each_class(study, tmp_path):
    data, run, rows = study
    page = make_report(run, data, values=parse_values([CODE]))
    assert "<h2>Classes</h2>" in page and "Classes: building, road, tree, each by itself." in page
    titles = [title for title in page.split("<h2>")[1:]]
    for name in ("building", "road", "tree"):
        assert sum(title.startswith(f"{name}: ") for title in titles) >= 6
        table = wide_table(with_far(rows[(rows.target == name) & (rows.status == "ok")]), {"gap": "gap on equal area"})
        part = next(title for title in titles if title.startswith(f"{name}: Does removing"))
        assert all(str(cell) in part for cell in table.to_numpy().ravel())
    shown = [tiles for _, part in rows.groupby("target") for tiles in extreme_tiles(part, "entropy").values()]
    assert page.count("with what is explained in it") == sum(map(len, shown)) > 6 and "Outlined: what the network predicts" in page
    one = evaluate(Blurred(), tiles_of(data), tmp_path / "one", Settings(**SMALL, targets=("road",)), show_progress=False)
    single = make_report(tmp_path / "one")
    assert "<h2>Classes</h2>" not in single and "each by itself" not in single and "road: " not in single.split("<h2>Settings")[0]
    assert len(one)


@pytest.mark.browser
def test_in_a_browser_the_report_of_several_classes_fits_and_is_accessible(study, tmp_path):
    data, run, _ = study
    (tmp_path / "report.html").write_text(make_report(run, data, values=parse_values([CODE])))
    check_page(tmp_path / "report.html")


@pytest.mark.slow
def test_another_run_folder_of_classes_is_done_only_without_errors(study, tmp_path):
    data, run, rows = study
    sources, facts = tiles_of(data), read_facts(only_run(run))
    with RunFolder(tmp_path / "run", facts) as folder:
        own = rows[rows.tile == "scene_0"]
        folder.write(sources[0], own)
        assert folder.done(sources[0])
        folder.write(sources[0], own.assign(status=["error", *own.status.iloc[1:]]))
        assert not folder.done(sources[0])


def test_a_request_knows_where_it_lies():
    scene = procedural_scene(0, 64)
    request = Request(scene.image, extent_of_array(scene.image, "a scene"))
    assert request.labels is None


def test_what_lies_where_nothing_is_held_does_not_reach_the_network():
    """A network that looks around: its table is the same whatever a file has in pixels that hold nothing."""
    image, valid = procedural_scene(2, 64).image, np.ones((64, 64), bool)
    valid[:, 40:] = False
    tables = []
    for fill in (0, 255, 90):
        image = np.where(valid[..., None], image, np.uint8(fill))
        tables.append(class_table(rooftop_unet(), image, valid=valid))
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_channels_of_probabilities_that_do_not_sum_to_1_stand_for_themselves():
    """As of a network with a sigmoid for each class: what overlaps is predicted of both, by 0.5 and not by which is more."""
    p = torch.tensor([[0.9, 0.6, 0.4], [0.8, 0.1, 0.3]])[None, :, None]  # (1,2,1,3)
    own = [predicted_region(p, torch.tensor([k]), "none")[0, 0].tolist() for k in (0, 1)]
    logits = [predicted_region(p.logit(), torch.tensor([k]), "sigmoid")[0, 0].tolist() for k in (0, 1)]
    assert own == logits == [[True, True, False], [True, False, False]]
    shares = torch.tensor([[0.4, 0.6], [0.35, 0.3], [0.25, 0.1]])[None, :, None].half()
    assert predicted_region(shares, torch.tensor([0]), "none")[0, 0].tolist() == [True, True]
