"""Studies: rows that survive kills, one writer, the same numbers on a cluster, and bad tiles that do not stop a run."""
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerGradCam
from captum.metrics import sensitivity_max
from conftest import Encoded, largest_file, small_net
from dask import config as dask_config
from distributed import Client
from PIL import Image
from scipy import stats

from entropy_captum import SobolTotal, report, study, tiles, workers
from entropy_captum.cli import print_counts
from entropy_captum.estimate import beyond_first
from entropy_captum.labels import LabelValues
from entropy_captum.methods import (
    REGISTRY,
    ask_of_image,
    distance_from,
    feature_ids,
    method_names,
    nearness,
    register,
    run_methods,
)
from entropy_captum.models import load_model
from entropy_captum.question import Budget
from entropy_captum.report import make_report
from entropy_captum.study import evaluate, facts_of, read_rows
from entropy_captum.tiles import Settings, find_sources, study_class
from entropy_captum.zoo import Padded, rooftop_unet

SMALL = Settings(methods=("entropy", "sobol", "random"), grid_size=2, n_samples=2)


def write_tiles(folder: Path, count: int, side: int = 32) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("image", "label"):
        (folder / "drawn/val" / kind).mkdir(parents=True)
    for k in range(count):
        image = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(image).save(folder / f"drawn/val/image/scene{k // 2}_{k}.png")
        Image.fromarray((image[..., 0] > 127).astype(np.uint8) * 255).save(folder / f"drawn/val/label/scene{k // 2}_{k}.png")
    return folder


def without_times(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[c for c in rows if "seconds" not in c]]


@pytest.fixture
def model():
    return Padded(small_net()).eval()


def test_a_study_takes_folders_and_sources_and_limits_both(model, tmp_path):
    data = write_tiles(tmp_path / "data", 3)
    sources = find_sources(data)
    asked = [data, [data], [str(data)], sources, find_sources(data, 2)]
    tables = [evaluate(model, one, tmp_path / f"run{k}", SMALL, limit=2, show_progress=False) for k, one in enumerate(asked)]
    assert {len(table["tile"].unique()) for table in tables} == {2}
    known = [json.loads(next((tmp_path / f"run{k}").rglob("run.json")).read_text())["about"]["data"] for k in range(5)]
    assert known == [[str(data)]] * 3 + [[]] * 2
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evaluate(model, sources, tmp_path / "none", SMALL, limit=0)
    with pytest.raises(TypeError, match=r"expected a folder.* got 7 among 4"):
        evaluate(model, [*sources, 7], tmp_path / "none", SMALL)


@pytest.mark.slow
def test_every_method_gives_a_finite_map_per_region():
    x, regions = torch.randn(1, 3, 32, 32), torch.zeros(2, 32, 32)
    regions[0, :8, :8], regions[1, 20:, 20:] = 1, 1
    question, budget = ask_of_image(Padded(Encoded()).eval(), x, regions, grid_size=2), Budget(4, 3)
    found, again = (run_methods(question, budget, method_names()) for _ in range(2))
    for name, (maps, forwards, _, seconds) in found.items():
        assert seconds > 0
        assert maps.shape == (2, 32, 32) and torch.isfinite(maps).all(), name
        assert torch.equal(maps, again[name].maps), name
        assert (forwards == 0) == (name in ("ones", "random", "distance")), name
    assert found["entropy"].forwards == found["sobol"].forwards == 4 * 5
    assert found["entropy"].seconds == found["sobol"].seconds != found["occlusion"].seconds
    with pytest.raises(ValueError, match="unknown method 'guess'"):
        run_methods(question, budget, ["guess"])
    with pytest.raises(ValueError, match="'rise' is registered already"):
        register("rise", lambda score: None)


def test_rise_finds_the_patch_that_decides():
    class Patch(torch.nn.Module):
        def forward(self, x):
            return 4 * x[:, :1, 8:16, 16:24].mean((2, 3), keepdim=True).expand(-1, -1, 32, 32)

    x = torch.ones(1, 3, 32, 32)
    question = ask_of_image(Patch(), x, torch.ones(1, 32, 32), grid_size=4)
    cells = tiles.cell_means(run_methods(question, Budget(32, 64), ["rise"])["rise"].maps[0], feature_ids(question))
    assert cells.argmax() == 6


@pytest.mark.slow
def test_rows_are_kept_found_again_and_belong_to_their_settings(model, tmp_path):
    data = write_tiles(tmp_path / "data", 3)
    first = evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
    assert len(first) == 9 and set(first.status) == {"ok"} and set(first.scene) == {"scene0", "scene1"}
    files = sorted((tmp_path / "run").rglob("*.parquet"))
    stamps = [file.stat().st_mtime_ns for file in files]
    assert evaluate(model, data, tmp_path / "run", SMALL, show_progress=False).equals(first)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    # Another tile in the place of one: its rows are made anew.
    os.replace(files and data / "drawn/val/image/scene0_0.png", data / "drawn/val/image/scene0_1.png")
    changed = evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
    assert len(changed) == 6 and not changed[changed.tile == "scene0_1"].equals(first[first.tile == "scene0_1"])
    other = evaluate(model, data, tmp_path / "run", Settings(SMALL.methods, 2, 4), show_progress=False)
    assert set(other.run_id).isdisjoint(first.run_id) and len(list((tmp_path / "run").glob("*/run.json"))) == 2


@pytest.mark.slow
def test_each_building_has_its_rows(model, tmp_path):
    data = write_tiles(tmp_path / "data", 1)
    settings = Settings(SMALL.methods, 2, 2, per="building", min_pixels=5, seeds=(0, 1), baselines=("grey", "black"))
    rows = evaluate(model, data, tmp_path / "run", settings, show_progress=False, keep_maps=True)
    assert rows.unit.nunique() > 1 and len(rows) == rows.unit.nunique() * 3 * 2 * 2 and (rows.region_pixels >= 5).all()
    same = rows[(rows.seed == 0) & (rows.method == "entropy")]
    assert same.rank_to_first_seed.isna().all(), "a map's agreement with itself is no measurement"
    assert rows[rows.seed == 1].rank_to_first_seed.notna().any()
    assert rows[rows.baseline == "black"].rank_to_first_baseline.notna().any()
    shares = rows[[c for c in rows if c.startswith("share_")]].sum(axis=1)
    assert np.allclose(shares[shares > 0], 1)
    import zarr
    stored = zarr.open_group(next((tmp_path / "run").rglob("maps.zarr")), mode="r")
    assert stored["drawn/val/scene0_0.png/building-1/grey/0/entropy"].shape == (32, 32)


def spoil(folder: Path, what: str) -> None:
    image, label = folder / "drawn/val/image/scene0_0.png", folder / "drawn/val/label/scene0_0.png"
    if what == "corrupt":
        image.write_bytes(image.read_bytes()[:200])
    elif what == "four bands":
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 4), np.uint8), "RGBA").save(image)
    elif what == "grey":
        Image.open(image).convert("L").save(image)
    elif what == "label size":
        Image.open(label).resize((16, 16), Image.Resampling.NEAREST).save(label)
    elif what == "label values":
        Image.fromarray(np.full((32, 32), 7, np.uint8)).save(label)


@pytest.mark.parametrize("what,message", [("corrupt", "its pixels cannot be decoded"), ("grey", "expected an 8-bit RGB"),
                                          ("four bands", "band 4, called alpha, lies between"),
                                          ("label size", r"the label has the shape \(16, 16\), but the image \(32, 32\); save it "
                                                         "at the image's size .* or take it away"),
                                          ("label values", "0/1 or 0/255")])
def test_a_bad_tile_is_an_error_row_and_the_run_goes_on(model, tmp_path, what, message):
    data = write_tiles(tmp_path / "data", 2)
    spoil(data, what)
    rows = evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
    bad, good = rows[rows.tile == "scene0_0"], rows[rows.tile == "scene0_1"]
    assert list(bad.status) == ["error"] and re.search(message, bad.error.iloc[0]) and set(good.status) == {"ok"}


@pytest.mark.parametrize("what", ["corrupt", "label size", "label values"])
def test_a_tile_that_fails_anew_keeps_its_rows_and_maps(model, tmp_path, what):
    """What was found of good files is not lost to bad ones: it stays, the failure is told each time, and mended files go on."""
    data = write_tiles(tmp_path / "data", 2)
    good = evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False)
    home = next((tmp_path / "run").glob("*/run.json")).parent
    files, maps = {path: path.read_bytes() for path in home.rglob("*.parquet")}, study.kept_maps(home)
    safe = {path: path.read_bytes() for path in data.rglob("scene0_0.png")}
    spoil(data, what)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"failed anew, rows from before are kept: 1 \(drawn/val/scene0_0\): ValueError"):
            assert evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False).equals(good)
        assert files == {path: path.read_bytes() for path in home.rglob("*.parquet")}
        assert study.kept_maps(home).keys() == maps.keys()
    heading = "<h2>Tiles with rows from before</h2>"
    (known,) = study.failed_anew(home).to_dict("records")
    assert (known["tile"], known["error"][:11]) == ("scene0_0", "ValueError ")
    page = make_report(home)
    assert heading in page and "files of these tiles have changed since, so they are not shown" in page, "of two tiles one is worst"
    others = [source for source in find_sources(data) if source.tile.name != "scene0_0"]
    evaluate(model, others, tmp_path / "run", SMALL, keep_maps=True, show_progress=False)
    assert len(study.failed_anew(home)) == 1, "a run over other tiles says nothing of this one"
    for path, content in safe.items():
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False).equals(good)
    page = make_report(home)
    assert study.failed_anew(home).empty and heading not in page and "changed since" not in page


def test_scenes_of_one_name_are_told_apart_by_their_data_set():
    sources = [tiles.Source(place, tiles.Tile(Path(f"{name}.png"))) for place, name in (("a/val", "s_1"), ("b/val", "s_2"),
                                                                                        ("b/val", "t_1"))]
    assert tiles.scenes_found(sources).endswith(": a/s (1), b/s (1), t (1)")


def test_scenes_are_what_is_said_of_the_names(tmp_path):
    """Tiles of one flight count once, however their names are made: in rows and report, said before and after the work."""
    names = [f"{town}_{flight}_r{k}_c0" for town, flight in (("east", "f1"), ("east", "f2"), ("west", "f1")) for k in range(2)]
    data, settings = patches(tmp_path / "data", dict.fromkeys(names, 100)), Settings(("random",), 2, 2)
    sources = find_sources(data)
    network = load_model(Bright(), {"scale": 2 / 255, "mean": 1.0})
    rows = evaluate(network, data, tmp_path / "run", settings, show_progress=False)
    assert rows.scene.nunique() == 6 and tiles.scenes_found(sources).startswith("6 scenes by the tiles' names up to their last _: ")
    run = next((tmp_path / "run").glob("*/run.json")).parent
    assert set(report.rows_of(run, r"_(f\d)_|^(x)").scene) == {"f1", "f2"}, "the group that holds something"
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    again = evaluate(network, data, tmp_path / "run", settings, scenes=r"^\w+_f\d", show_progress=False)
    assert set(again.scene) == {"east_f1", "east_f2", "west_f1"} and files == {path: path.stat().st_mtime_ns for path in files}
    with pytest.warns(UserWarning, match="this run was begun with scenes='.*'; now a tile's scene is its name up to the last _"):
        assert evaluate(network, data, tmp_path / "run", settings, show_progress=False).scene.nunique() == 6
    evaluate(network, data, tmp_path / "run", settings, scenes=r"^\w+_f\d", show_progress=False)
    assert "Means over 3 scenes" in make_report(run) and "Means over 2 scenes" in make_report(run, scenes=r"^[a-z]+")
    for wrong, said in (("f[", r"scenes='f\[' is no regular expression: unterminated"),
                        ("east", "scenes='east' finds nothing in the name of the tile 'west_f1_r0_c0'"),
                        ("z*", "scenes='z\\*' finds nothing in the name")):
        with pytest.raises(ValueError, match=said):
            evaluate(network, data, tmp_path / "other", settings, scenes=wrong, show_progress=False)
        with pytest.raises(ValueError, match=said):
            make_report(run, scenes=wrong)
    assert not (tmp_path / "other").exists()


def test_a_class_that_fails_anew_keeps_its_rows(tmp_path, monkeypatch):
    """Of several classes each has its rows: one that fails now takes none of another's, and none of its own from before."""
    data, settings = write_tiles(tmp_path / "data", 2), Settings(("random",), 2, 2, targets=(0, 1), min_pixels=1)
    network, broken, now = Padded(small_net(2)).eval(), set[int](), study_class
    network.model[4].bias.data[:] = torch.tensor([1.0, 1.0])

    def moody(model, source, settings, target):
        if target in broken and source.tile.name == "scene0_0":
            return [{"target": str(target), "checksum": source.checksum()} | tiles.failure(ValueError("broken"), settings)]
        return now(model, source, settings, target)

    def statuses() -> list[str]:
        rows = evaluate(network, data, tmp_path / "run", settings, show_progress=False)
        return list(rows[rows.tile == "scene0_0"].status)

    monkeypatch.setattr(tiles, "study_class", moody)
    broken |= {1}
    first = statuses()
    assert first[1] == "error" != first[0], "of class 1 there was nothing from before"
    broken |= {0}
    with pytest.warns(UserWarning, match="rows from before are kept"):
        assert statuses() == first
    broken.clear()
    assert "error" not in statuses()


def test_what_has_no_label_or_no_class_or_other_bands(model, tmp_path):
    data = write_tiles(tmp_path / "data", 2)
    (data / "drawn/val/label/scene0_0.png").unlink()
    rows = evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
    assert set(rows.status) == {"ok"} and rows[rows.tile == "scene0_0"].l_sit_iou_drop.isna().all()
    never = Padded(small_net())
    never.model[4].bias.data -= 1000
    absent = evaluate(never.eval(), data, tmp_path / "run", SMALL, show_progress=False)
    assert list(absent.status) == ["absent"] * 2
    four = evaluate(Padded(small_net(1, 4)).eval(), data, tmp_path / "run", SMALL, show_progress=False)
    assert list(four.status) == ["error"] * 2 and "channels" in four.error.iloc[0]


class Bright(torch.nn.Module):
    """Sees a building in each pixel that is brighter than mid-grey."""

    def forward(self, x):
        return 9 * x[:, :1]


def patches(folder: Path, sizes: dict[str, int], labelled: int = 32) -> Path:
    """Black tiles of 32 pixels with a white patch of 4 rows and so many columns each, whose labels hold `labelled` rows of it."""
    for kind in ("image", "label"):
        (folder / "drawn/val" / kind).mkdir(parents=True)
    for name, columns in sizes.items():
        image = np.zeros((32, 32, 3), np.uint8)
        image[4:8, 2:2 + columns] = 255
        Image.fromarray(image).save(folder / f"drawn/val/image/{name}.png")
        Image.fromarray(image[..., 0] * (np.arange(32) < labelled)[:, None].astype(np.uint8)).save(
            folder / f"drawn/val/label/{name}.png")
    return folder


@pytest.mark.parametrize("per", ["class", "building"])
def test_a_speck_has_no_weight_and_is_told(tmp_path, per, capsys):
    """Eight predicted pixels are no unit beside a hundred, whatever is explained: counted, not averaged, with the reason."""
    data = patches(tmp_path / "data", {"a_1": 25, "b_1": 2, "c_1": 0})
    rows = evaluate(Bright(), data, tmp_path / "run", Settings(("random",), 2, 2, per=per), show_progress=False)
    assert dict(zip(rows.tile, rows.status, strict=True)) == {"a_1": "ok", "b_1": "small", "c_1": "absent"}
    assert rows.predicted_pixels.tolist() == [100, 8, 0]
    print_counts(rows, tmp_path / "run")
    said = capsys.readouterr().out
    assert "(1 ok, 1 small, 1 absent)" in said
    assert "note: 1 tile (drawn/val/b_1) not explained: 8 pixels are predicted" in said and "fewer than --min-pixels 64" in said
    assert "1 tile (drawn/val/b_1) not explained" in (page := make_report(tmp_path / "run"))
    assert "In 1 tile of drawn (in another 2 the network predicts nothing, or too little to explain), " in " ".join(page.split())
    smaller = Settings(("random",), 2, 2, per=per, min_pixels=8)
    rows = evaluate(Bright(), data, tmp_path / "all", smaller, show_progress=False)
    assert list(rows.status) == ["ok", "ok", "absent"]


def test_a_building_where_the_label_has_none_is_told(tmp_path, capsys):
    """Explained, but its IoU of 0 says nothing about the map; a label that holds it, or says nothing, is no such case."""
    data = patches(tmp_path / "data", {"a_1": 25, "b_1": 25, "c_1": 0}, labelled=0)
    patches(tmp_path / "more", {"d_1": 25})
    os.rename(tmp_path / "more/drawn/val", data / "drawn/test")
    settings, codes = Settings(("random",), 2, 2), LabelValues({}, ignore=((0,),))
    rows = evaluate(Bright(), data, tmp_path / "run", settings, show_progress=False)
    print_counts(rows, tmp_path / "run")
    said = "2 tiles (drawn/val/a_1, ...): the class is predicted where the label has none"
    assert f"note: {said}" in capsys.readouterr().out and said in make_report(tmp_path / "run")
    unknown = evaluate(Bright(), find_sources(data, values=codes), tmp_path / "unknown", settings, show_progress=False)
    assert (unknown.status == "ok").sum() == 3 and not study.remarks(unknown)


def test_another_run_in_a_folder_is_told_with_what_differs(model, tmp_path):
    """Other settings make another run beside the first, which is said once; where one is meant both are told apart by words."""
    data, other = write_tiles(tmp_path / "data", 1), Settings(("random",), 2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*what pixel values")
        evaluate(model, data, tmp_path / "run", Settings(("random",), 2, 2), show_progress=False)
    with pytest.warns(UserWarning, match=r"another run beside 1 in .*run, which stay; it has n_samples=4, other than "):
        evaluate(model, data, tmp_path / "run", other, show_progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate(model, data, tmp_path / "run", other, show_progress=False)
    with pytest.raises(ValueError, match=r"2 runs of different settings; name one: ") as refused:
        make_report(tmp_path / "run")
    said = re.findall(r"run/[0-9a-f]{12} \(made \d{4}-\d\d-\d\d, n_samples=(\d)\)", str(refused.value))
    assert sorted(said) == ["2", "4"]


@pytest.mark.slow
def test_a_network_without_a_card_is_told_once_what_pixels_it_gets(tmp_path):
    """The study writes mean and std of the bundled network into run.json: said of a network that may want others, of no other."""
    def told(network, out: str) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            evaluate(network, data, tmp_path / out, Settings(("random",), 2, 2), show_progress=False)
        return [said for each in found if "nothing says what pixel values" in (said := str(each.message))]

    data, bare = patches(tmp_path / "data", {"a_1": 25, "b_1": 25}), Bright()
    card = {"scale": 1 / 255, "mean": (0.2, 0.3, 0.4), "std": (0.5, 0.5, 0.5)}
    first, *others = told(bare, "run")
    assert first.startswith("Bright: nothing") and "mean 0.5, std 0.5" in first and "load_model(model, dict(" in first
    assert not others
    assert not told(bare, "run") and not told(Padded(bare), "padded")
    assert [said.split(":")[0] for said in told(lambda x: 9 * x[:, :1], "function")] == ["<lambda>"]
    assert not told(load_model(Bright(), card), "carded") and not told(rooftop_unet(), "bundled")
    facts = study.read_facts(next((tmp_path / "carded").glob("*/run.json")).parent)
    assert facts["card"]["mean"] == [0.2, 0.3, 0.4]


def test_bad_requests_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no tiles found"):
        find_sources(tmp_path)
    for wrong, message in ((dict(methods=("guess",)), "'guess'"), (dict(per="street"), "'street'"),
                           (dict(baselines=("pink",)), "'pink'"), (dict(seeds=()), "at least one"),
                           (dict(seeds=(0, 0)), r"each once, got \(0, 0\)"), (dict(noisy=-1), "got -1"), (dict(grid_size=0),
                                                                                                          "got 0"),
                           (dict(crop=0), "crop must be at least 1"), (dict(n_samples=1), "n_samples must be .* at least 2, got 1"),
                           (dict(perturbations_per_eval=0), "perturbations_per_eval must be")):
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)
    with pytest.raises(ValueError, match="no rows yet"):
        read_rows([])
    data = write_tiles(tmp_path / "data", 1)
    with pytest.raises(ValueError, match=r"no data set 'drawn/trian' to skip.*drawn/val"):
        find_sources(data, skip=("drawn/trian",))
    with pytest.raises(ValueError, match="at least 1, got -1"):
        find_sources(data, -1)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(model, tmp_path):
    data = write_tiles(tmp_path / "data", 2, 128)
    smooth = Settings(("distance", "ones"), 2, 2)  # a map of distances does not compress well
    for keep, file in ((False, "scene0_0"), (True, "maps.zarr")):
        run = tmp_path / f"run{keep}"
        with largest_file(2500), pytest.raises(ValueError, match=f"{file}.*could not be written"):
            evaluate(model, data, run, smooth, keep_maps=keep, show_progress=False)
        assert not [path for path in run.rglob("*") if path.suffix in (".parquet", ".tmp")]
        assert len(evaluate(model, data, run, smooth, keep_maps=keep, show_progress=False)) == 4
    with largest_file(100), pytest.raises(ValueError, match=r"run\.json: could not be written"):
        evaluate(model, data, tmp_path / "other", SMALL, show_progress=False)
    with pytest.raises(ValueError, match=r"\.png: could not be written"):
        evaluate(model, data, data / "drawn/val/image/scene0_0.png", SMALL, show_progress=False)


# A server that has imported all once: each study's process is forked from it, and begins without delay.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["entropy_captum.study"])


def study_of_its_own(data: Path, run: Path, begun) -> None:
    torch.set_num_threads(1)
    model = Padded(small_net()).eval()
    begun.set()
    evaluate(model, data, run, SMALL, keep_maps=True, show_progress=False)


def start(data: Path, run: Path) -> multiprocessing.Process:
    """A study in a process of its own, which has just begun."""
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=study_of_its_own, args=(data, run, begun))
    process.start()
    assert begun.wait(300)
    return process


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_lives(model, tmp_path):
    data = write_tiles(tmp_path / "data", 60, 128)
    first = start(data, tmp_path / "run")
    try:
        while not list((tmp_path / "run").rglob("*.parquet")):
            time.sleep(0.01)
        with pytest.raises(ValueError, match="another process is writing to this run folder"):
            evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
        assert first.is_alive()
    finally:
        first.kill()
        first.join()
    assert len(evaluate(model, find_sources(data, 2), tmp_path / "run", SMALL, show_progress=False)) == 6


@pytest.mark.slow
def test_kills_lose_no_row_and_double_none(model, tmp_path):
    data, rng = write_tiles(tmp_path / "data", 20, 128), np.random.default_rng(0)
    want = evaluate(model, data, tmp_path / "calm", SMALL, keep_maps=True, show_progress=False)
    for _ in range(5):
        wanted = len(list((tmp_path / "run").rglob("*.parquet"))) + 1 + rng.integers(2)
        process = start(data, tmp_path / "run")
        # However fast the machine: killed at any moment of one of the next tiles.
        while process.is_alive() and len(list((tmp_path / "run").rglob("*.parquet"))) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    before = len(list((tmp_path / "run").rglob("*.parquet")))
    found = evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False)
    assert 0 < before < 20
    pd.testing.assert_frame_equal(without_times(found), without_times(want))
    maps, calm = (study.kept_maps(next((tmp_path / name).glob("*/run.json")).parent) for name in ("run", "calm"))
    assert maps.keys() == calm.keys() and all(np.array_equal(heat, calm[name]) for name, heat in maps.items())
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_method_that_raises_costs_its_tile_and_not_the_run(model, tmp_path, monkeypatch):
    def moody(question, budget):
        if question.inputs.mean() > 0.9:
            raise KeyError("white")
        return run_methods(question, budget, ["random"])["random"]

    monkeypatch.setitem(REGISTRY, "moody", moody)
    data = write_tiles(tmp_path / "data", 2)
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(data / "drawn/val/image/scene0_0.png")
    always = Padded(small_net()).eval()
    always.model[4].bias.data += 1000
    rows = evaluate(always, data, tmp_path / "run", Settings(("moody",), 2, 2), show_progress=False)
    assert list(rows.status) == ["error", "ok"] and rows.error[0] == "KeyError in moody: 'white'"


def test_other_code_is_another_run(model, monkeypatch):
    facts = facts_of(SMALL, model)
    assert {"python", "timm", "segmentation-models-pytorch", "entropy_captum", "torch"} <= facts["versions"].keys()
    monkeypatch.setattr(study, "code_hash", lambda: "0")
    assert facts_of(SMALL, model)["code"] != facts["code"] and study.run_id(facts_of(SMALL, model)) != study.run_id(facts)


def test_each_process_claims_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(workers, "_claims", [])
    claim = workers.claim_device.__wrapped__
    assert claim() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [claim(), claim()] == ["cuda:0", "cuda:1"] and claim() in ("cuda:0", "cuda:1")
    workers._claims[0].release()
    assert claim() == "cuda:0"


def dask(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]], env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows_though_a_worker_is_killed(model, tmp_path):
    data = write_tiles(tmp_path / "data", 30, 160)
    # Occlusion counts its forwards by a hook, which a model must still take after its journey.
    settings = Settings(("entropy", "occlusion"), 2, 2)
    want = evaluate(model, data, tmp_path / "here", settings, show_progress=False)
    assert set(want.status) == {"ok"}
    address_file = tmp_path / "scheduler.json"
    where = ("--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(address_file))
    scheduler = dask("dask_scheduler", "--no-dashboard", *where)
    workers = []
    try:
        while not (address_file.exists() and address_file.read_text().endswith("}")):  # it is there before it is written
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
        workers = [dask("dask_worker", address, *options, "--name", str(k)) for k in (0, 1)]
        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)

        def kill_one():
            while len(list((tmp_path / "there").rglob("*.parquet"))) < 4:
                time.sleep(0.01)
            workers[0].kill()

        killer = threading.Thread(target=kill_one)
        killer.start()
        found = evaluate(model, data, tmp_path / "there", settings, cluster=address, show_progress=False)
        killer.join()
        pd.testing.assert_frame_equal(without_times(found), without_times(want))
        assert workers[0].wait(10) == -signal.SIGKILL
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_here_knows_methods_of_ones_own_and_survives_a_deadly_tile(tmp_path):
    """On two processes: a layer attribution that was registered here, and that ends its process on a white tile."""
    def make(score):
        class Deadly(LayerGradCam):
            def attribute(self, inputs):
                return os._exit(1) if inputs.mean() > 0.9 else super().attribute(inputs)
        return Deadly(score, score.model.model[0])

    layers = torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Upsample(scale_factor=2.0), torch.nn.Conv2d(4, 1, 1)
    model = Padded(torch.nn.Sequential(*layers))
    layers[2].bias.data += 1
    data = write_tiles(tmp_path / "data", 3)
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(data / "drawn/val/image/scene1_2.png")
    register("deadly", make)
    try:
        settings = Settings(("entropy", "deadly"), 2, 2)
        want = evaluate(model, find_sources(data, 2), tmp_path / "here", settings, show_progress=False)
        with dask_config.set({"distributed.scheduler.allowed-failures": 1}):
            found = evaluate(model, data, tmp_path / "there", settings, cluster="local", show_progress=False)
    finally:
        del REGISTRY["deadly"]
    assert set(want.status) == {"ok"} and len(want) == 4
    bad = found.tile == "scene1_2"
    assert set(found[~bad].status) == {"ok"}, found.error.tolist()
    same = without_times(want).columns
    pd.testing.assert_frame_equal(found[~bad][same], want[same], check_dtype=False)
    assert list(found[bad].status) == ["error"] and "KilledWorker" in found[bad].error.iloc[0]


@pytest.mark.slow
def test_a_worker_of_several_threads_gives_the_same_rows(tmp_path):
    """Hooks that count forwards and random draws belong to a process: its threads must not mix them."""
    data, settings = write_tiles(tmp_path / "data", 8, 64), Settings(("occlusion", "kernel-shap"), 2, 2)
    model = Padded(small_net()).eval()
    want = evaluate(model, data, tmp_path / "here", settings, show_progress=False)
    with Client(processes=False, n_workers=1, threads_per_worker=4, dashboard_address=None) as client:
        found = evaluate(model, data, tmp_path / "there", settings, cluster=client, show_progress=False)
        assert client.status == "running", "a client that was passed in is not closed"
    pd.testing.assert_frame_equal(without_times(found), without_times(want))


def test_a_cluster_without_workers_says_so(model, tmp_path, monkeypatch):
    data = write_tiles(tmp_path / "data", 1)
    monkeypatch.setattr(workers.count_workers, "__defaults__", (0.2,))
    with (Client(processes=False, n_workers=0, dashboard_address=None) as client,
          pytest.raises(ValueError, match=r"no worker has joined the scheduler .*start one: dask worker")):
        evaluate(model, data, tmp_path / "run", SMALL, cluster=client, show_progress=False)
    assert evaluate(model, data, tmp_path / "run", SMALL, show_progress=False).status.eq("ok").all()


@pytest.mark.data
def test_real_tiles_are_found_by_data_set(aerial):
    sources = find_sources(aerial, skip=("whu/train", "inria/train"))
    counts = pd.Series([source.dataset for source in sources]).value_counts()
    assert counts["massachusetts/train"] == 32 and counts["jonkoping/val"] == 22 and "whu/train" not in counts
    assert {s.scene for s in sources if s.dataset == "massachusetts/val"} >= {"23129140_15"}
    assert len(find_sources(aerial, 2)) == 16 and len({source.dataset for source in sources[:6]}) == 6


def test_nearness_falls_with_distance():
    region = torch.zeros(1, 16, 16)
    region[0, 4:6, 4:6] = 1
    near = nearness(distance_from(region))[0]
    assert near[4, 4] == 1 and near[4, 8] == pytest.approx(1 / 4)


def test_interaction_is_total_minus_first_order_and_costs_its_own_rows(model):
    x, region = torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32)
    region[0, :16, :16] = 1
    question, budget = ask_of_image(model, x, region, grid_size=2), Budget(16, 8)
    found = run_methods(question, budget, ["entropy", "sobol", "interaction"])
    alone = SobolTotal(model, first_order=True).estimate(x, region=region, grid_size=2, n_samples=16, perturbations_per_eval=8)
    expected = alone.spread(alone.total_order - alone.first_order)[0][:, 0].float()
    assert torch.allclose(found["interaction"].maps, expected, atol=1e-6) and found["interaction"].maps.abs().max() > 0
    assert [found[name].forwards for name in ("entropy", "sobol", "interaction")] == [16 * 5, 16 * 5, 16 * 6]
    assert torch.equal(found["sobol"].maps, run_methods(question, budget, ["sobol"])["sobol"].maps)


def test_partial_rank_correlation_is_that_of_the_residuals():
    rng = np.random.default_rng(4)
    a, b, d = (stats.rankdata(rng.random(50) + k) for k in range(3))
    a, b = stats.rankdata(a + d), stats.rankdata(b + 2 * d)
    left = [v - np.polyval(np.polyfit(d, v, 1), d) for v in (a, b)]
    assert tiles.rank_given(a, b, d) == pytest.approx(stats.pearsonr(*left).statistic, abs=1e-12)
    assert np.isnan(tiles.rank_given(a, d, d)) and np.isnan(tiles.rank_given(a, np.ones(50), d))


def test_agreement_is_mutual_and_the_order_of_methods_does_not_matter(model, tmp_path):
    folder = write_tiles(tmp_path / "data", 1)
    pair = ("sobol", "entropy", "distance")
    rows = [evaluate(model, folder, tmp_path / f"run{k}", Settings(methods=methods, grid_size=4, n_samples=4), show_progress=False)
            .set_index("method") for k, methods in enumerate((pair, pair[::-1]))]
    for each in rows:
        for a, b in (("sobol", "entropy"), ("distance", "sobol")):
            assert each.loc[a, f"rank_to_{b}"] == pytest.approx(each.loc[b, f"rank_to_{a}"])
            assert np.isnan(each.loc[a, f"rank_to_{a}"])
        assert each.loc["distance", "rank_to_sobol"] == pytest.approx(each.loc["sobol", "rank_to_nearness"])
    assert np.isfinite(rows[0].loc["sobol", "rank_to_entropy"])
    ranks = [c for c in rows[0] if c.startswith("rank_to_")]
    pd.testing.assert_frame_equal(rows[0][ranks].sort_index(), rows[1].loc[:, ranks].sort_index())


def test_sensitivity_is_captums(model):
    x, region = torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32)
    region[0, :16, :16] = 1
    settings = Settings(methods=("entropy",), grid_size=2, n_samples=4, noisy=3)
    draws = tiles.noisy_inputs(x, settings, 0)
    assert all(0.019 < float((draw - x).abs().max()) <= 0.02 for draw in draws) and not torch.equal(draws[0], draws[1])

    def explain(inputs: torch.Tensor) -> torch.Tensor:
        asked = [ask_of_image(model, each[None], region, grid_size=2) for each in inputs]
        return torch.stack([run_methods(one, Budget(4), ["entropy"])["entropy"].maps for one in asked])

    of_captum = sensitivity_max(lambda inputs: (explain(inputs[0]),), (x,),
                                perturb_func=lambda inputs, radius: (torch.cat(draws),), n_perturb_samples=3)
    noisy = [explain(draw)[0, 0] for draw in draws]
    assert tiles.sensitivity(explain(x)[0, 0], noisy) == pytest.approx(float(of_captum), rel=1e-5) and float(of_captum) > 0
    assert np.isnan(tiles.sensitivity(noisy[0], [])) and np.isnan(tiles.sensitivity(torch.zeros(4, 4), noisy))


@pytest.mark.slow
def test_two_runs_are_compared_map_by_map(model, tmp_path):
    data = write_tiles(tmp_path / "data", 1)
    settings = Settings(("entropy", "sobol", "distance"), 4, 4, noisy=1)
    rows = evaluate(model, data, tmp_path / "one", settings, keep_maps=True, show_progress=False)
    assert (rows[rows.method == "entropy"].sensitivity > 0).all() and (rows[rows.method == "distance"].sensitivity == 0).all()
    other = Padded(small_net()).eval()
    other.model[0].weight.data.neg_()
    evaluate(other, data, tmp_path / "two", settings, keep_maps=True, show_progress=False)
    one, two = (next((tmp_path / name).glob("*/run.json")).parent for name in ("one", "two"))
    same, compared = study.compare_runs(one, one), study.compare_runs(one, two)
    assert list(same.method) == ["distance", "entropy", "sobol"] and (same["rank"] == 1).all()
    assert np.isnan(same.rank_given_nearness[0]) and np.allclose(same.rank_given_nearness[1:], 1)
    assert (compared[["dataset", "scene", "tile"]] == ("drawn/val", "scene0", "scene0_0")).all(axis=None)
    assert (compared["rank"][1:] < 1).all()
    with pytest.raises(ValueError, match="--keep-maps"):
        study.compare_runs(data, one)


@pytest.mark.slow
def test_kept_maps_are_tested_again_and_maps_made_of_them(model, tmp_path):
    data = write_tiles(tmp_path / "data", 3)
    settings = Settings(("entropy", "occlusion"), 4, 4, seeds=(0, 1), baselines=("grey", "black"), per="building", min_pixels=4)
    rows = evaluate(model, data, tmp_path / "run", settings, keep_maps=True, show_progress=False)
    run = next((tmp_path / "run").glob("*/run.json")).parent
    again = study.retest(model, run, find_sources(data), lambda maps: maps, show_progress=False)
    keys = ["dataset", "scene", "tile", "unit", "baseline", "seed", "method"]
    both = again.merge(rows, on=keys, suffixes=("", "_run"))
    drops = [c for c in again if c.startswith(("l_", "h_", "gap"))]
    assert len(both) == len(again) == (rows.status == "ok").sum() > 24
    assert np.allclose(both[drops], both[[f"{c}_run" for c in drops]], atol=1e-6, equal_nan=True)
    turned = study.retest(model, run, find_sources(data, 1), lambda maps: {"entropy": -maps["entropy"]}, show_progress=False)
    both = turned.merge(again, on=keys, suffixes=("", "_straight"))
    assert len(both) == len(turned) >= 8 and not np.allclose(both.gap, both.gap_straight)
    with pytest.raises(ValueError, match="no maps of these tiles"):
        study.retest(model, run, find_sources(data / "drawn/val"), lambda maps: maps)
    image = find_sources(data)[0].tile.image
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(image)
    with pytest.raises(ValueError, match=f"{image.name}: has changed"):
        study.retest(model, run, find_sources(data), lambda maps: maps, show_progress=False)
    other = Padded(small_net()).eval()
    other.model[0].weight.data.neg_()
    with pytest.raises(ValueError, match="another network"):
        study.retest(other, run, find_sources(data), lambda maps: maps)


def test_the_random_control_is_another_one_on_every_tile_and_seed_and_region(model):
    x, regions = torch.randn(2, 3, 32, 32), torch.ones(2, 32, 32)

    def drawn(k: int, seed: int) -> torch.Tensor:
        question = ask_of_image(model, x[k:k + 1], regions, grid_size=2)
        return run_methods(question, Budget(seed=seed), ["random"])["random"].maps

    maps = torch.cat([drawn(0, 0), drawn(0, 1), drawn(1, 0)])
    assert len(torch.unique(maps.flatten(1), dim=0)) == 6 and torch.equal(maps[:2], drawn(0, 0))


def test_an_interaction_has_an_error_of_its_own(model):
    """The jackknife of total minus first order, by a plain loop; not the error of the Sobol index beside it."""
    x, region = torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32)
    region[0, :16, :16] = 1
    found = run_methods(ask_of_image(model, x, region, grid_size=2), Budget(16, 8), ["sobol", "interaction"])
    rng = np.random.default_rng(0)
    f, changed, other = rng.random((12, 1)), rng.random((12, 1, 3)), rng.random((12, 1))

    def index(n):
        a, c, b = f[n], changed[n], other[n]
        variance = a.var(0, ddof=1)
        total = ((a[..., None] - c) ** 2).mean(0)[0] / 2
        first = [np.cov(b[:, 0], c[:, 0, i] - a[:, 0])[0, 1] for i in range(3)]
        return (total - first) / variance

    left = np.stack([index(np.arange(12) != k) for k in range(12)])
    value, error = beyond_first(f, changed, other)
    assert value[0] == pytest.approx(index(np.arange(12))) and error[0] == pytest.approx(left.std(0) * np.sqrt(11))
    estimate, sobol = found["interaction"].estimate, found["sobol"].estimate
    assert torch.allclose(estimate.scores, estimate.total_order - estimate.first_order)
    assert not torch.allclose(estimate.standard_error, sobol.standard_error) and not torch.allclose(estimate.scores, sobol.scores)
    assert estimate.settings["method"] == "Sobol Interaction" and estimate.settings["error"] == "jackknife"


def test_values_that_differ_by_rounding_have_no_rank_and_noise_of_nan_stays():
    """As they come of another batch: zeros of which some are 1e-10."""
    rng = np.random.default_rng(0)
    heat, other = np.append(rng.random(20), np.zeros(40)), rng.random(60)
    noisy = heat + np.append(np.zeros(20), rng.random(40) * 1e-10)
    assert tiles.rank_correlation(noisy, other) == pytest.approx(tiles.rank_correlation(heat, other), abs=1e-12)
    assert tiles.rank_correlation(heat, other) == pytest.approx(stats.spearmanr(heat, other).statistic)
    assert np.isnan(tiles.rank_correlation(np.zeros(4), other[:4]))
    flat, nan = torch.ones(4, 4), torch.full((4, 4), torch.nan)
    assert all(np.isnan(tiles.sensitivity(flat, order)) for order in ([1.3 * flat, nan], [nan, 1.3 * flat]))


def test_rows_of_another_network_with_the_same_weights_are_not_taken(tmp_path):
    """Weights do not say what a network does with them, and functions have none."""
    data, net = write_tiles(tmp_path / "data", 2), small_net()
    layers = [each for each in net.modules() if isinstance(each, torch.nn.Conv2d)]
    one, other = (torch.nn.Sequential(layers[0], between, *layers[1:]) for between in (torch.nn.ReLU(), torch.nn.Tanh()))
    bright, dark = (lambda x: 4 * x.mean(1, keepdim=True)), (lambda x: -4 * x[:, :1] * x[:, 1:2] + 1)
    settings = Settings(("entropy", "random"), 2, 2)
    for k, (first, second) in enumerate(((one, other), (bright, dark))):
        rows = evaluate(first, data, tmp_path / f"run{k}", settings, show_progress=False)
        assert evaluate(first, data, tmp_path / f"run{k}", settings, show_progress=False).equals(rows)
        with pytest.raises(ValueError, match=r"its rows are of another network, .* in drawn/val/.*take another folder"):
            evaluate(second, data, tmp_path / f"run{k}", settings, show_progress=False)
        assert not evaluate(second, data, tmp_path / f"other{k}", settings, show_progress=False).class_confidence.equals(
            rows.class_confidence)


def test_maps_are_kept_of_tiles_that_have_rows_already(model, tmp_path):
    data = write_tiles(tmp_path / "data", 2)
    rows = evaluate(model, data, tmp_path / "run", SMALL, show_progress=False)
    (home,) = (path.parent for path in (tmp_path / "run").rglob("run.json"))
    again = evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False)
    assert without_times(again).equals(without_times(rows))
    assert {tiles.read_map_name(name).key for name in study.kept_maps(home)} == {source.key for source in find_sources(data)}
    stamps = [path.stat().st_mtime_ns for path in home.rglob("*.parquet")]
    evaluate(model, data, tmp_path / "run", SMALL, keep_maps=True, show_progress=False)
    assert [path.stat().st_mtime_ns for path in home.rglob("*.parquet")] == stamps


def test_a_study_goes_on_where_a_tile_tells_nothing_of_its_network(tmp_path):
    """A method that no tile can be asked by, a class that no tile has, a file that cannot be read any more."""
    data, bright = write_tiles(tmp_path / "data", 2), (lambda x: 4 * x.mean(1, keepdim=True))
    for k, (settings, network) in enumerate(((Settings(("grad-cam",), 2, 2), bright),
                                             (Settings(("entropy",), 2, 2), lambda x: x.mean(1, keepdim=True) - 9))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first, again = (evaluate(network, data, tmp_path / f"run{k}", settings, show_progress=False) for _ in range(2))
        assert without_times(again).equals(without_times(first))
    rows = evaluate(bright, data, tmp_path / "run", SMALL, show_progress=False)
    (data / "drawn/val/image/scene0_0.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="failed anew"):
        again = evaluate(bright, data, tmp_path / "run", SMALL, show_progress=False)
    assert without_times(again).equals(without_times(rows))
