"""Tiles of other bands and depths in a study: read as `explain` reads a raster, never silently as something else."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import zarr
from PIL import Image
from scipy.stats import spearmanr
from torch import nn
from typer.testing import CliRunner

from entropy_captum.adapter import adapt, card_of
from entropy_captum.card import ModelCard
from entropy_captum.cli import app
from entropy_captum.data import Tile, find_tiles, read_mask
from entropy_captum.explanation import ask, demo_request, find_mistakes
from entropy_captum.labels import parse_values, read_label
from entropy_captum.report import kept_map, rows_of, write_report
from entropy_captum.request import picture_of, read_request
from entropy_captum.study import compare_runs, evaluate, kept_maps, read_facts, retest, save_maps, settings_of
from entropy_captum.tiles import HELD, Settings, find_sources, scenes_found
from entropy_captum.training import CropSampler, Recipe, pair_of, segmentation_loss
from entropy_captum.zoo import dataset_iou, predict_mask

QUICK = Settings(("entropy", "random"), grid_size=4, n_samples=4, min_pixels=1)


class Roofs(nn.Module):
    """Bright blocks of the red band are roofs; logits (B,1,H,W)."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(3, 1, 5, padding=2)
        with torch.no_grad():
            self.smooth.weight.copy_(torch.tensor([6.0, 1.0, 0.5])[None, :, None, None].expand(1, 3, 5, 5) / 25)

    def forward(self, x):
        return self.smooth(x)


@pytest.fixture
def model() -> Roofs:
    torch.manual_seed(0)
    return Roofs().eval()


def picture(seed: int) -> np.ndarray:
    """8-bit RGB of noise, (48,48,3), with two bright blocks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(10, 110, (48, 48, 3), np.uint8)
    image[6:20, 8:24], image[28:42, 26:40] = 220, (230, 190, 200)
    return image


def write_raster(path: Path, values: np.ndarray, names: tuple[str, ...] = (), **facts) -> None:
    """Bands (H,W,C) as a GeoTIFF, with their names where they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", height=48, width=48, count=values.shape[2], dtype=values.dtype.name,
                       transform=rasterio.Affine(0.3, 0, 500000, 0, -0.3, 5300000), crs="EPSG:25832", **facts) as file:
        file.write(values.transpose(2, 0, 1))
        for k, name in enumerate(names, 1):
            file.set_band_description(k, name)


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on when, and from which files, rows were made."""
    return rows.drop(columns=["dataset", "checksum", "run_id", "seconds_maps", "seconds_tests"])


@pytest.fixture
def eight(tmp_path, model) -> pd.DataFrame:
    """The rows of two 8-bit RGB pictures."""
    (tmp_path / "eight/image").mkdir(parents=True)
    for seed in (1, 2):
        Image.fromarray(picture(seed)).save(tmp_path / f"eight/image/s{seed}_a.png")
    return numbers(evaluate(model, tmp_path / "eight", tmp_path / "of_eight", QUICK, show_progress=False))


def test_twelve_bits_and_chosen_bands_give_the_rows_of_their_eight_bits(tmp_path, model, eight):
    for seed in (1, 2):
        twelve = np.rint(picture(seed) * (4095 / 255)).astype(np.uint16)
        # Blue, green, red and near infrared, without names: the order is said by numbers.
        write_raster(tmp_path / f"deep/image/s{seed}_a.tif", np.dstack([twelve[..., ::-1], twelve[..., :1] // 2]))
    settings = Settings(**vars(QUICK) | {"bands": (3, 2, 1), "scale": (0, 4095)})
    rows = evaluate(model, tmp_path / "deep", tmp_path / "of_deep", settings, show_progress=False, keep_maps=True)
    assert (rows["status"] == "ok").all() and len(rows) == 4
    pd.testing.assert_frame_equal(numbers(rows), eight)
    (run,) = tmp_path.glob("of_deep/*/run.json")
    facts = read_facts(run.parent)
    assert "rasterio" in facts["versions"] and settings_of(facts) == settings, "what is kept says how tiles were read"
    again = retest(model, run.parent, find_sources(tmp_path / "deep"), lambda maps: {"again": maps["entropy"]},
                   show_progress=False)
    assert np.allclose(again["gap"], rows.loc[rows["method"] == "entropy", "gap"])
    page = write_report(run.parent, out=tmp_path / "page.html").read_text()
    assert "have changed since" not in page and "not at hand" not in page and page.count("data:image/jpeg") >= 2


def test_the_card_says_how_tiles_of_other_bands_are_read(tmp_path, model, eight):
    """A network of physical numbers, its bands by name, whatever their order in the file; holes are no evidence."""
    card = ModelCard(bands=("red", "green", "blue"), value_range=(0.0, 0.5), scale=4.0, mean=(1.0,) * 3, std=(1.0,) * 3)
    for seed in (1, 2):
        write_raster(tmp_path / f"light/image/s{seed}_a.tif", (picture(seed)[..., [1, 2, 0]] / np.float32(510)).astype(np.float32),
                     ("green", "blue", "red"))
    rows = evaluate(adapt(model, card), tmp_path / "light", tmp_path / "of_light", QUICK, show_progress=False)
    columns = ["gap", "region_pixels", "clean_confidence"]
    assert np.allclose(rows[columns], eight[columns], rtol=1e-3)


def test_what_a_raster_says_it_does_not_hold_is_left_out(tmp_path, model):
    """A file's own nodata is as `nodata` of the settings; both leave the pixels out of regions and areas."""
    image = picture(1)
    image[:, 30:] = 7
    (tmp_path / "said/image").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "said/image/s_a.png")
    write_raster(tmp_path / "own/image/s_a.tif", image, ("red", "green", "blue"), nodata=7)
    write_raster(tmp_path / "clear/image/s_a.tif", np.dstack([image, np.where((image == 7).all(-1), 0, 255).astype(np.uint8)]),
                 alpha="yes", photometric="RGB")
    named = {"bands": ("red", "green", "blue")}
    said, *others = (evaluate(model, tmp_path / name, tmp_path / f"of_{name}_{k}", Settings(**vars(QUICK) | known),
                              show_progress=False)
                     for k, (name, known) in enumerate((("said", {"nodata": (7.0,)}), ("own", named), ("own", {}), ("clear", {}))))
    for own in others:
        assert (own["region_pixels"] == said["region_pixels"]).all() and (own["region_pixels"] < 14 * 22).all()
        assert np.allclose(own["clean_confidence"], said["clean_confidence"])


@pytest.mark.parametrize(("options", "said"), [
    ([], "--scale LOW HIGH"), (["--scale", "4095", "0"], "expected the lower number first"),
    (["--bands", "1,2"], "--bands 1,2: the model takes 3: red, green, blue"), (["--bands", "1,2,9"], "9"),
    (["--bands", ""], "--bands : the model takes 3")])
def test_the_command_says_how_tiles_are_to_be_read(tmp_path, options, said):
    write_raster(tmp_path / "deep/image/s_a.tif", picture(1).astype(np.uint16) * 16)
    found = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "deep"), "--out", str(tmp_path / "run"),
                                     "--grid-size", "4", "--n-samples", "4", "--methods", "random", *options])
    assert found.exit_code != 0 and said in f"{' '.join(found.output.split())} {found.exception}"


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_nodata_is_a_number_of_the_file_and_not_of_the_scale(tmp_path, model, kind):
    """What a scale makes of other pixels is no nodata, and nodata beyond the scale is none of its ends."""
    image, hole = picture(1).astype(kind) * np.dtype(kind).type(16), 65535 if kind == "uint16" else -9999
    image[:, 30:] = hole
    write_raster(tmp_path / "deep/image/s_a.tif", image)
    rows = {}
    for name, nodata in (("none", None), ("said", (float(hole),))):
        settings = Settings(**vars(QUICK) | {"bands": (1, 2, 3), "scale": (800, 4080), "nodata": nodata})
        rows[name] = evaluate(model, tmp_path / "deep", tmp_path / name, settings, show_progress=False)
        assert (rows[name]["status"] == "ok").all(), rows[name]["error"].tolist()
    write_raster(tmp_path / "marked/image/s_a.tif", image, nodata=hole)
    settings = Settings(**vars(QUICK) | {"bands": ("1", "2", "3"), "scale": (800.0, 4080.0)})
    own = evaluate(model, tmp_path / "marked", tmp_path / "own", settings, show_progress=False)
    columns = ["region_pixels", "clean_confidence", "gap"]
    pd.testing.assert_frame_equal(own[columns], rows["said"][columns])
    assert not np.allclose(rows["said"]["clean_confidence"], rows["none"]["clean_confidence"])


def test_a_tile_of_nothing_is_no_failure(tmp_path, model):
    """At the rim of a mosaic tiles hold nothing; a run that goes on does not try them for ever."""
    write_raster(tmp_path / "rim/image/s_a.tif", picture(1))
    write_raster(tmp_path / "rim/image/s_b.tif", np.zeros_like(picture(1)), nodata=0)
    settings = Settings(**vars(QUICK) | {"bands": (1, 2, 3)})
    rows = evaluate(model, tmp_path / "rim", tmp_path / "run", settings, show_progress=False)
    assert dict(rows.groupby("tile")["status"].first()) == {"s_a": "ok", "s_b": "absent"}


@pytest.mark.parametrize("source", ["pictures", "rasters", "numbers"])
def test_a_network_of_blue_green_and_red_sees_these(tmp_path, model, eight, source):
    """However the bands lie in the file, and whether they are found as a picture's, by name, or in the order that is said."""
    card = ModelCard(bands=("blue", "green", "red"), scale=1 / 127.5, mean=(1.0,) * 3, std=(1.0,) * 3)
    turned, data, settings = adapt(nn.Sequential(Turned(), model), card), tmp_path / "eight", QUICK
    if source != "pictures":
        data = tmp_path / "green_first"
        for seed in (1, 2):
            write_raster(data / f"image/s{seed}_a.tif", picture(seed)[..., [1, 2, 0]].astype(np.uint16) * 16,
                         ("green", "blue", "red") if source == "rasters" else ())
        named = {} if source == "rasters" else {"bands": (2, 1, 3)}
        settings = Settings(**vars(QUICK) | named | {"scale": (0, 4080)})
    rows = evaluate(turned, data, tmp_path / "of_turned", settings, show_progress=False)
    columns = ["gap", "region_pixels", "clean_confidence"]
    assert (rows["status"] == "ok").all() and np.allclose(rows[columns], eight[columns], rtol=1e-3)


def test_three_bands_that_are_others_go_by_their_names(tmp_path, model, eight):
    """A card of near infrared, red and green: never red, green and blue in their place."""
    card = ModelCard(bands=("nir", "red", "green"), scale=1 / 127.5, mean=(1.0,) * 3, std=(1.0,) * 3)
    for seed in (1, 2):
        write_raster(tmp_path / f"flown/image/s{seed}_a.tif", picture(seed)[..., [1, 2, 0]], ("red", "green", "nir"))
    rows = evaluate(adapt(model, card), tmp_path / "flown", tmp_path / "of_flown", QUICK, show_progress=False)
    columns = ["gap", "region_pixels", "clean_confidence"]
    assert np.allclose(rows[columns], eight[columns], rtol=1e-3)
    unlike = evaluate(adapt(model, card), tmp_path / "eight", tmp_path / "unlike", QUICK, show_progress=False)
    assert (unlike["status"] == "error").all() and "which bands are the model's nir, red, green?" in unlike["error"][0]


class Turned(nn.Module):
    """The bands in the other order."""

    def forward(self, x):
        return x.flip(1)


def test_one_reading_is_one_run():
    said, meant = Settings(bands=("3", "2", "nir"), scale=(0.0, 4095.0)), Settings(bands=(3, 2, "nir"), scale=(0, 4095))
    assert said == meant and repr(said.scale) == repr(meant.scale)


def test_a_mask_that_is_laid_beside_a_tile_makes_its_rows_old(tmp_path, model):
    """GDAL reads what lies beside a file; a run that goes on must not keep what it said before."""
    write_raster(tmp_path / "data/image/s_a.tif", picture(1))
    before = evaluate(model, tmp_path / "data", tmp_path / "run", QUICK, show_progress=False)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "data/image/s_a.tif", "r+") as file:
        file.write_mask(np.arange(48) < np.full((48, 1), 30))
    write_raster(tmp_path / "data/image/s_a.tif.again", picture(1))
    (tmp_path / "data/image/s_a.tif.again").rename(tmp_path / "data/image/s_a.tif")
    assert (tmp_path / "data/image/s_a.tif.msk").is_file()
    after = evaluate(model, tmp_path / "data", tmp_path / "run", QUICK, show_progress=False)
    assert (after["region_pixels"] < before["region_pixels"]).all() and set(after["status"]) == {"ok"}


def write_half_known(folder: Path) -> np.ndarray:
    """A tile that holds nothing from column 30 on, and a label that says building everywhere; returns the image (48,48,3)."""
    image = picture(1)
    image[:, 30:] = 7
    write_raster(folder / "image/s_a.tif", image, nodata=7)
    (folder / "label").mkdir()
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(folder / "label/s_a.png")
    return image


def test_what_a_tile_hides_is_neither_learned_nor_shown(tmp_path):
    image = write_half_known(tmp_path / "town")
    (tile,) = find_tiles(tmp_path / "town")
    known = tile.read().known
    assert np.array_equal(known, (image != 7).all(-1)) and np.array_equal(demo_request(tmp_path / "town", 0).valid, known)


def test_other_kinds_of_tiles_say_what_to_do(tmp_path, model):
    """A grey tile, a scale of the file's own, and nodata in what numbers the file holds."""
    write_raster(tmp_path / "grey/image/s_a.tif", picture(1)[..., :1])
    for k, (known, said) in enumerate((({}, "save the band three times, as red, green and blue"),
                                       ({"scale": (0, 255)}, "--bands 1,1,1 takes one more than once"))):
        rows = evaluate(model, tmp_path / "grey", tmp_path / f"a{k}", Settings(**vars(QUICK) | known), show_progress=False)
        assert rows["error"].str.contains(said, regex=False).all(), rows["error"].tolist()
    write_raster(tmp_path / "scaled/image/s_a.tif", picture(1))
    with rasterio.open(tmp_path / "scaled/image/s_a.tif", "r+") as file:
        file.scales = (1 / 255,) * 3
    rows = evaluate(model, tmp_path / "scaled", tmp_path / "c", QUICK, show_progress=False)
    assert set(rows["status"]) == {"ok"}, "eight bits are what the network takes, whatever light they stand for"
    deep = picture(1).astype(np.int16) * 16
    deep[:, 40:] = -9999
    write_raster(tmp_path / "deep/image/s_a.tif", deep, nodata=-9999)
    rows = evaluate(model, tmp_path / "deep", tmp_path / "d", Settings(**vars(QUICK) | {"bands": (1, 2, 3)}), show_progress=False)
    assert rows["error"].str.contains(r"here from 1\d\d to 3680").all(), rows["error"].tolist()


def test_nodata_has_one_form(tmp_path):
    assert Settings(nodata=0).nodata == Settings(nodata=(0,)).nodata == (0.0,)


def test_scenes_stay_those_of_the_run(tmp_path, model):
    """By whatever way its rows are read; and an expression must fit all tiles of a run."""
    for k in range(3):
        write_raster(tmp_path / f"data/image/f1_r{k}_c0.tif", picture(k))
    made = evaluate(model, tmp_path / "data", tmp_path / "run", QUICK, keep_maps=True, scenes=r"^f\d", show_progress=False)
    (home,) = (run.parent for run in tmp_path.glob("run/*/run.json"))
    again = retest(model, home, find_sources(tmp_path / "data"), lambda maps: {"again": maps["entropy"]}, show_progress=False)
    for rows in (made, again, compare_runs(home, home), rows_of(home)):
        assert set(rows["scene"]) == {"f1"}
    write_raster(tmp_path / "other/image/a0_c0.tif", picture(5))
    with pytest.raises(ValueError, match=r"finds nothing in the name of the tile 'f1_r\d_c0'"):
        evaluate(model, tmp_path / "other", tmp_path / "run", QUICK, scenes=r"^a\d", show_progress=False)
    assert set(rows_of(home)["scene"]) == {"f1"}


def test_runs_are_compared_where_tiles_hold_something(tmp_path, model):
    """Cells that hold nothing are alike in all maps, which is no agreement of theirs."""
    image = picture(1)
    image[:, 24:] = 7
    write_raster(tmp_path / "data/image/s_a.tif", image, nodata=7)
    write_raster(tmp_path / "data/image/s_b.tif", picture(2))
    settings = Settings(**vars(QUICK) | {"methods": ("entropy", "distance"), "grid_size": 4})
    homes, rng = [], np.random.default_rng(0)
    for name in ("one", "two"):
        evaluate(model, tmp_path / "data", tmp_path / name, settings, keep_maps=True, show_progress=False)
        homes += [run.parent for run in tmp_path.glob(f"{name}/*/run.json")]
        root = zarr.open_group(homes[-1] / "maps.zarr")
        for place, heat in sorted(kept_maps(homes[-1]).items()):  # by chance, and nothing where there is nothing
            drawn = rng.random((4, 4)).repeat(12, 0).repeat(12, 1)
            root[place][:] = drawn * (np.arange(48) < (24 if "s_a" in place else 48)) if place.endswith("/entropy") else heat
    found = compare_runs(*homes).set_index(["tile", "method"])["rank"]
    for tile, columns in (("s_a", 2), ("s_b", 4)):
        one, two = (heat[::12, ::12][:, :columns].ravel() for home in homes for place, heat in kept_maps(home).items()
                    if tile in place and place.endswith("/entropy"))
        assert found[tile, "entropy"] == pytest.approx(spearmanr(one, two).statistic) and abs(found[tile, "entropy"]) < 0.5


def test_the_mask_beside_maps_is_no_map(tmp_path):
    """Of a run of several classes, whose maps lie beside it under a later name."""
    heat = np.random.default_rng(0).random((4, 4))
    save_maps(tmp_path / "maps.zarr", "town/a.png", {"target-1/class/grey/0/entropy": heat, HELD: heat > 0.5})
    assert np.array_equal(kept_map(tmp_path, SimpleNamespace(key="town/a.png"), "entropy", 1).heat, heat)
    assert kept_maps(tmp_path) == {} and (tmp_path / "rows/town").mkdir(parents=True) is None
    pd.DataFrame().to_parquet(tmp_path / "rows/town/a.png.parquet")
    assert list(kept_maps(tmp_path)) == ["town/a.png/target-1/class/grey/0/entropy"]


def test_a_report_shows_no_picture_of_another_file(tmp_path, model):
    """Of tiles without labels too."""
    write_raster(tmp_path / "data/image/s_a.tif", picture(1))
    write_raster(tmp_path / "data/image/t_a.tif", picture(2))
    evaluate(model, tmp_path / "data", tmp_path / "run", QUICK, show_progress=False)
    assert "changed since" not in write_report(tmp_path / "run", tmp_path / "a.html", tmp_path / "data").read_text()
    for name in "st":
        write_raster(tmp_path / f"data/image/{name}_a.tif", picture(3))
    assert "changed since" in write_report(tmp_path / "run", tmp_path / "b.html", tmp_path / "data").read_text()


def test_splits_of_a_folder_are_of_one_data_set_whichever_folder_is_given(tmp_path):
    for split in ("train", "val"):
        write_raster(tmp_path / f"all/inria/{split}/image/s_{split}.tif", picture(1))
    for root in (tmp_path / "all", tmp_path / "all/inria"):
        sources = find_sources(root)
        assert [source.dataset for source in sources] == ["inria/train", "inria/val"]
        assert scenes_found(sources).startswith("1 scene by the tiles' names up to their last _: s (2)")


@pytest.fixture
def around() -> Roofs:
    """A network that looks seven pixels around."""
    torch.manual_seed(2)
    made = Roofs().eval()
    made.smooth = nn.Conv2d(3, 1, 15, padding=7)
    made.smooth.weight.data.normal_(0.02, 0.05)
    return made


def test_rows_of_a_baseline_do_not_depend_on_those_beside_it(tmp_path, around):
    """A network that looks around, at a hole: what it predicts beside the hole is predicted with grey in it."""
    image = picture(1)
    image[20:34, 20:30] = 7
    write_raster(tmp_path / "data/image/s_a.tif", image, nodata=7)
    found = []
    for k, baselines in enumerate((("grey", "black"), ("black", "grey"), ("black",))):
        settings = Settings(**vars(QUICK) | {"baselines": baselines})
        rows = evaluate(around, tmp_path / "data", tmp_path / f"run{k}", settings, show_progress=False)
        rows = rows[(rows["baseline"] == "black") & (rows["method"] == "entropy")].reset_index(drop=True)
        found.append(rows.drop(columns=["run_id", *(name for name in rows if "seconds" in name or "first" in name)]))
    assert len(found[0]) == 1 and found[0]["predicted_pixels"][0] > 0
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other[list(found[0])])


def test_mistakes_and_iou_are_told_with_grey_where_nothing_is_held(tmp_path, around):
    """Whatever a file holds there, and of a PNG as of a TIFF."""
    label = np.zeros((48, 48), np.uint8)
    label[6:20, 8:24] = 255
    wrong, scores = [], []
    for fill in (255, 0):
        image = picture(1)
        image[image == fill] = 100
        image[:, 30:] = fill
        home = tmp_path / str(fill)
        write_raster(home / "image/s_a.tif", image, nodata=fill)
        (home / "label").mkdir()
        Image.fromarray(label).save(home / "label/s_a.png")
        Image.fromarray(image).save(home / "plain.png")
        for path, nodata in ((home / "image/s_a.tif", None), (home / "plain.png", (float(fill),))):
            request = read_request(picture_of(path, card_of(around), nodata=nodata), label=home / "label/s_a.png")
            held = ask(around, request).held[0].numpy()
            assert not held[:, 30:].any() and held[:, :30].all()
            predicted = predict_mask(around, request.image, valid=held)
            mistakes = find_mistakes(request, around)
            assert np.array_equal(mistakes["false-positives"], predicted & (label == 0) & held)
            wrong.append(mistakes["false-positives"])
        scores.append(dataset_iou(around, find_tiles(home)))
    assert all(np.array_equal(wrong[0], other) for other in wrong[1:]) and scores[0] == scores[1]


def test_what_is_not_known_is_not_learned(tmp_path):
    write_half_known(tmp_path / "town")
    pixels = find_tiles(tmp_path / "town")[0].read()
    assert not (pixels.label & ~pixels.known).any()
    sampler = CropSampler([[pair_of(pixels)]], Recipe(crop=32, batch_size=4, procedural=0))
    _, labels = sampler(0)
    assert labels.isnan().any() and (labels[~labels.isnan()] == 1).all()
    logits = torch.randn(4, 1, 32, 32, requires_grad=True)
    loss = segmentation_loss(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and not logits.grad[labels.isnan()].any() and logits.grad[~labels.isnan()].all()
    known = ~labels.isnan()
    by_hand = torch.nn.functional.softplus(-logits[known]).mean()
    for p, truth, some in zip(logits.sigmoid(), labels, known, strict=True):
        by_hand = by_hand + (1 - (2 * (p * truth)[some].sum() + 1) / (p[some].sum() + truth[some].sum() + 1)) / 4
    torch.testing.assert_close(loss, by_hand)
    assert torch.isfinite(segmentation_loss(logits, torch.full_like(logits, torch.nan)))


PLACE = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


def write_label(path: Path, values: np.ndarray, transform=PLACE, **facts) -> Path:
    with rasterio.open(path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype,
                       crs="EPSG:25832", transform=transform, **facts) as file:
        file.write(values, 1)
    return path


@pytest.mark.parametrize(("values", "code", "building", "known"), [
    ([0, 1, 255], None, [1], [0, 1]), ([0, 1, 255], "building=1", [1], [0, 1]), ([0, 1, 255], "building=255", [255], [0, 1, 255]),
    ([0, 1, 255], "building=1;ignore=255", [1], [0, 1]), ([0, 255], "ignore=255", [], [0]), ([0, 1], None, [1], [0, 1])])
def test_what_a_label_marks_as_nothing_is_not_known(tmp_path, values, code, building, known):
    """By its own nodata number, as rasterio writes it; the code that is given wins."""
    stored = np.resize(np.array(values, np.uint8), (6, 9))
    label = read_label(write_label(tmp_path / "a.tif", stored, nodata=255), code and parse_values([code]))
    np.testing.assert_array_equal(label.mask, np.isin(stored, building))
    np.testing.assert_array_equal(np.ones(stored.shape, bool) if label.known is None else label.known, np.isin(stored, known))


def test_a_label_whose_only_value_means_nothing_is_asked_about(tmp_path):
    """0 is ground also where it is marked; of 0 and a marked 255 nobody can tell whether that is building."""
    stored = np.resize(np.array([0, 255], np.uint8), (6, 9))
    with pytest.raises(ValueError, match=r"255 alone, which it marks as holding nothing.*building=255 or ignore=255"):
        read_mask(write_label(tmp_path / "a.tif", stored, nodata=255))
    ground = read_label(write_label(tmp_path / "b.tif", stored, nodata=0))
    assert ground.known is None and np.array_equal(ground.mask, stored == 255)


@pytest.mark.parametrize("case", ["south up", "five pixels further south", "finer", "the same"])
def test_the_label_of_a_tile_lies_where_its_file_says(tmp_path, case):
    """Against the image's own pixels, of which each is known by its place."""
    truth = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=20, width=30, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=PLACE) as file:
        file.write(np.repeat(truth[None] * 200, 3, 0))
    stored, lies = {"south up": (truth[::-1], rasterio.Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000 - 10)),
                    "five pixels further south": (truth[5:], PLACE @ rasterio.Affine.translation(0, 5)),
                    "finer": (truth.repeat(2, 0).repeat(2, 1), PLACE @ rasterio.Affine.scale(0.5)),
                    "the same": (truth, PLACE)}[case]
    found = Tile(tmp_path / "a.tif", write_label(tmp_path / "label.tif", np.ascontiguousarray(stored), lies)).read()
    known = np.ones((20, 30), bool) if found.known is None else found.known
    assert known[5:].all() and known[:5].all() == (case != "five pixels further south")
    np.testing.assert_array_equal(found.label, (truth == 1) & known)


def test_labels_of_32_bits_have_no_sign(tmp_path):
    stored = np.resize(np.array([0, 7, 4294967295], np.uint32), (6, 9))
    label = read_label(write_label(tmp_path / "a.tif", stored), parse_values(["building=7;ignore=4294967295"]))
    np.testing.assert_array_equal(label.known, stored != 4294967295)
    np.testing.assert_array_equal(label.mask, stored == 7)
