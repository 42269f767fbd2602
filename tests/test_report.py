"""The report of a study: everything in one file, right numbers, clear errors."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import load_tool
from PIL import Image
from typer.testing import CliRunner

from entropy_captum.cli import app
from entropy_captum.report import (
    against_chance,
    against_rivals,
    extreme_tiles,
    find_run,
    make_report,
    result_sections,
    rows_of,
    table_across,
    write_report,
)
from entropy_captum.statistics import mean_interval, method_table, rival_table, scene_means, whole_sets
from entropy_captum.study import RunFolder
from entropy_captum.tiles import Settings, Source, find_sources

METHODS = ("entropy", "grad-cam", "random")
BASELINES = ("grey", "black")


def invented_rows(sources: list[Source]) -> dict[Source, pd.DataFrame]:
    """Rows as `study_tile` writes them, with invented numbers; the last tile is an error."""
    rng, found = np.random.default_rng(0), {}
    for k, source in enumerate(sources):
        facts = {"dataset": source.dataset, "scene": source.scene, "tile": source.tile.name, "checksum": source.checksum()}
        if k == len(sources) - 1:
            found[source] = pd.DataFrame([facts | {"unit": "class", "status": "error", "error": "ValueError: <b>broken</b>"}])
            continue
        numbers = {name: rng.normal(5, 1) for name in (
            "gap", "l_sit_confidence_drop", "l_sit_kept_area", "h_sit_confidence_drop", "h_sit_kept_area", "l_sit_iou_drop",
            "h_sit_iou_drop", "l_sit_entropy_increase", "h_sit_entropy_increase", "clean_confidence", "share_inside", "share_near",
            "share_middle", "share_far", "rank_to_entropy", "rank_to_first_seed", "rank_to_first_baseline", "l_drop_r0.5",
            "h_drop_r0.5")}
        # On grey, entropy is a point better than the others; on black all fall by a hundred points.
        found[source] = pd.DataFrame([facts | numbers | {
            "unit": "class", "baseline": baseline, "seed": seed, "method": method, "status": "ok", "error": "", "forwards": 5,
            "region_pixels": 9, "gap": numbers["gap"] + (method == "entropy") + seed - 100 * (baseline == "black")}
            for method in METHODS for baseline in BASELINES for seed in (0, 1)])
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for kind in ("image", "label"):
        (tmp_path / "data" / "towns" / kind).mkdir(parents=True)
    for k in range(11):
        Image.fromarray(np.full((32, 32, 3), 20 * k, np.uint8)).save(tmp_path / f"data/towns/image/town{k}_1.png")
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / f"data/towns/label/town{k}_1.png")
    with RunFolder(tmp_path / "run", {"settings": {"methods": METHODS, "baselines": BASELINES, "per": "class", "crop": None},
                                      "versions": {}}) as folder:
        for source, rows in invented_rows(find_sources(tmp_path / "data")).items():
            folder.write(source, rows)
    return tmp_path / "run"


@pytest.mark.slow
def test_the_report_is_one_file_that_asks_for_nothing(run: Path) -> None:
    page = write_report(run, data=run.parent / "data").read_text()
    assert not re.search(r"https?:|<link|<script|@import|url\(", page)
    assert all(re.match("data:image/(png|jpeg);base64,", source) for source in re.findall(r'src="([^"]*)"', page))
    assert all(re.findall(r'<img alt="([^"]*)"', page))
    assert page == make_report(run, run.parent / "data"), "the same rows gave another report"


@pytest.mark.slow
def test_its_numbers_are_those_of_the_rows(run: Path) -> None:
    page = make_report(run)
    rows = pd.concat(map(pd.read_parquet, (find_run(run) / "rows").rglob("*.parquet")))
    for baseline in BASELINES:
        table = method_table(rows[rows.baseline == baseline], ["gap"]).set_index("method")
        for method in METHODS:
            row = table.loc[method]
            assert f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in page
    assert "tiles: 11;" in page
    best = extreme_tiles(rows[rows.status == "ok"], "entropy")
    assert best["best"].gap.min() > best["worst"].gap.max()
    assert not set(best["best"].tile) & set(best["worst"].tile)


@pytest.mark.slow
def test_other_baselines_have_a_table_of_their_own(run: Path) -> None:
    rows = rows_of(find_run(run))
    before = make_report(run).split("<h2>")
    titles = [part.split("</h2>")[0] for part in before]
    assert titles.index("By baseline") > 0
    for part in before:
        # Black's gaps lie near -95 and would draw any mean below 0: they are nowhere but in their own table.
        assert bool(re.search(r"<td>-\d", part)) == part.startswith("By baseline"), part[:80]
    only = rows[rows.baseline == "grey"]
    assert "By baseline" not in [part["title"] for part in result_sections(only, only, "entropy", rival_table(only))]


@pytest.mark.slow
def test_the_first_words_are_the_verdict(run: Path) -> None:
    good = rows_of(find_run(run)).query("status == 'ok' and baseline == 'grey'")
    found = mean_interval(scene_means(good[good.method == "entropy"], "gap"))
    chance, rivals = against_chance(good, "entropy"), against_rivals(rival_table(good))
    assert f"better than chance (a gap of {found.mean:.1f}" in chance and "10 scenes" in chance
    assert "better than grad-cam, random" in rivals and "worse" not in rivals
    page = make_report(run)
    assert page.index(chance) < page.index("<h2>") and page.index(rivals.replace("<", "&lt;")) < page.index("<h2>")
    assert "worse than chance" in against_chance(good.assign(gap=-good.gap), "entropy")
    assert "not shown" in against_chance(good.assign(gap=good.gap - good[good.method == "entropy"].gap.mean()), "entropy")
    assert "too few scenes" in against_chance(good[good.tile < "town4"], "entropy")
    assert against_rivals(rival_table(good[good.tile < "town4"])) == ""
    assert "worse than random" in against_rivals(rival_table(good.assign(gap=good.gap + 3 * (good.method == "random"))))


def test_data_sets_stand_side_by_side(run: Path) -> None:
    good = rows_of(find_run(run)).query("status == 'ok' and baseline == 'grey'")
    two = pd.concat([good, good.assign(dataset="hills/val", gap=good.gap + 7)[good.tile < "town2"]])
    table = table_across(two, "gap", whole_sets(two)).set_index("method")
    assert list(table) == ["towns", "hills"]
    assert "[" in table.loc["random", "towns"] and "[" not in table.loc["random", "hills"]
    assert float(table.loc["random", "hills"]) == pytest.approx(
        two[(two.dataset == "hills/val") & (two.method == "random")].gap.mean(), abs=0.006)


@pytest.mark.slow
def test_failed_tiles_are_told_and_texts_escaped(run: Path) -> None:
    page = make_report(run)
    assert "&lt;b&gt;broken&lt;/b&gt;" in page and "<b>broken" not in page


def test_a_run_without_any_good_row_has_a_report(run: Path) -> None:
    for path in (find_run(run) / "rows").rglob("*.parquet"):
        if "town9_1" not in path.name:
            path.unlink()
    only = next((find_run(run) / "rows").rglob("*.parquet"))
    assert (pd.read_parquet(only).status == "error").all()
    assert "Tiles that failed" in make_report(run)


def test_which_run_is_meant_must_be_clear(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run found.*evaluate"):
        find_run(tmp_path / "data")
    with RunFolder(run, {"settings": Settings().methods}):
        pass
    with pytest.raises(ValueError, match="2 runs"):
        find_run(run)


@pytest.mark.slow
def test_the_command_says_where_the_report_is(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "page.html") in done.output.replace("\n", "") and json.loads(
        (find_run(run) / "run.json").read_text())["settings"]["per"] in (tmp_path / "page.html").read_text()


def test_rows_of_a_later_run_take_the_place_of_the_same_ones(tmp_path):
    collect = load_tool("collect_rows").collect
    for run, methods, gap in (("one", ("entropy", "random"), 1.0), ("two", ("random",), 2.0)):
        same = {"dataset": "d", "scene": "s", "unit": "class", "baseline": "grey", "seed": 0, "gap": gap, "seconds_maps": 3.0}
        rows = pd.DataFrame([same | {"tile": tile, "method": method, "status": "error" if tile == "bad" else "ok"}
                             for tile in ("a", "bad") for method in methods])
        (tmp_path / run / "id" / "rows").mkdir(parents=True)
        rows.to_parquet(tmp_path / run / "id" / "rows" / "t.parquet")
        (tmp_path / run / "id" / "run.json").write_text(json.dumps({"settings": {"methods": methods}}))
        (tmp_path / run / "id").rename(tmp_path / run / run)
    collect("both", [tmp_path / "one", tmp_path / "two"], tmp_path)
    found = pd.read_parquet(tmp_path / "both.parquet")
    assert dict(zip(found.method, found.gap, strict=True)) == {"entropy": 1.0, "random": 2.0}
    assert len(found) == 2 and "seconds_maps" not in found
    assert json.loads((tmp_path / "both.json").read_text())["two"] == {"settings": {"methods": ["random"]}}
    collect("fewer", [tmp_path / "one"], tmp_path, without=["random"])
    assert pd.read_parquet(tmp_path / "fewer.parquet").method.to_list() == ["entropy"]
    collect("fewer", [tmp_path / "one", tmp_path / "two"], tmp_path, refresh=True)  # `random` was not in the file
    assert pd.read_parquet(tmp_path / "fewer.parquet").method.to_list() == ["entropy"]
    collect("both", [tmp_path / "one"], tmp_path, without=["entropy"], refresh=True)
    found = pd.read_parquet(tmp_path / "both.parquet")
    assert dict(zip(found.method, found.gap, strict=True)) == {"entropy": 1.0, "random": 1.0}
    assert set(json.loads((tmp_path / "both.json").read_text())) == {"one", "two"}
    collect("fewer", [tmp_path / "two"], tmp_path, extend=True)  # what is there stays, also where the run has it not
    found = pd.read_parquet(tmp_path / "fewer.parquet")
    assert dict(zip(found.method, found.gap, strict=True)) == {"entropy": 1.0, "random": 2.0}
    assert set(json.loads((tmp_path / "fewer.json").read_text())) == {"one", "two"}
