"""The report of a study as a stranger, a browser and LaTeX read it, and studies of several folders."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import check_page, open_browser
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from entropy_captum import report
from entropy_captum.cli import app
from entropy_captum.methods import method_names
from entropy_captum.report import (
    LINES,
    Report,
    as_latex,
    as_table,
    extreme_tiles,
    find_run,
    kept_map,
    make_report,
    rivals_text,
    rows_of,
    section,
    study_report,
    tile_figure,
    tiles_shown,
    write_report,
)
from entropy_captum.statistics import rival_table
from entropy_captum.study import RunFolder, read_facts
from entropy_captum.tiles import EXPLAINED, Source, error_name, find_sources

#: What a run keeps beside a map, and how a picture of a tile in a report ends.
BESIDE = (EXPLAINED, error_name("entropy"))
PICTURE = 'with what is explained in it" src="data:image/jpeg'
METHODS = ("entropy", "sobol", "score-cam-increase", "random", "distance")
SHARES = [f"{test}_drop_r{r}" for test in "lh" for r in (0.1, 0.5, 0.9)]
NUMBERS = ["gap", "clean_confidence", "share_inside", "share_near", "share_middle", "share_far", "rank_to_nearness",
           "rank_to_entropy", "rank_to_entropy_given_nearness", "rank_to_first_seed", "rank_to_first_seed_given_nearness",
           "sensitivity", *SHARES,
           *(f"{test}_sit_{what}" for test in "lh" for what in ("confidence_drop", "iou_drop", "entropy_increase", "kept_area"))]


def write_tiles(folder: Path, count: int, side: int = 32) -> Path:
    """Tiles of noise, which no picture format makes small, each a scene of its own."""
    rng = np.random.default_rng(0)
    for kind in ("image", "label"):
        (folder / kind).mkdir(parents=True)
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"image/town{k}_1.png")
        label = np.zeros((side, side), np.uint8)
        label[4:12, 4:12] = 255
        Image.fromarray(label).save(folder / f"label/town{k}_1.png")
    return folder


def write_run(folder: Path, sources: list[Source], methods: tuple[str, ...] = METHODS, beside: tuple[str, ...] = BESIDE,
              **about: object) -> Path:
    """A run of invented rows, wide ones, with kept maps of entropy and what stands `beside` them."""
    rng = np.random.default_rng(0)
    facts = {"settings": {"methods": methods, "baselines": ["grey"], "per": "class", "crop": None}, "weights": "0123456789abcdef"}
    with RunFolder(folder, facts, about) as run:
        for source in sources:
            known = {"dataset": source.dataset, "scene": source.scene, "tile": source.tile.name, "checksum": source.checksum(),
                     "unit": "class", "baseline": "grey", "status": "ok", "error": "", "forwards": 520.0, "region_pixels": 64}
            rows = [known | dict(zip(NUMBERS, rng.normal(-12, 9, len(NUMBERS)), strict=True)) | {"method": method, "seed": seed}
                    for method in methods for seed in (0, 1)]
            side = len(source.tile.shown()[0])
            heat, error = rng.random((2, side, side))
            kept = {"entropy": heat, EXPLAINED: np.eye(side) > 0, error_name("entropy"): error / 8}
            run.write(source, pd.DataFrame(rows), {f"class/grey/0/{name}": kept[name] for name in ("entropy", *beside)})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "data/towns", 12).parent


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return write_run(tmp_path / "run", find_sources(data), model="roofs.onnx", data=[str(data)])


@pytest.mark.slow
def test_the_title_says_model_data_and_date_and_no_hash(run: Path) -> None:
    title = re.search(r"<h1>(.*?)</h1>", make_report(run))[1]
    today = date.today()
    assert title == f"Roofs.onnx on towns, {today.day} {today:%B %Y}"
    (path,) = run.glob("*/run.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"about": facts["about"] | {"date": "2026-03-05"}}))
    assert study_report(run).title.endswith(", 5 March 2026")
    path.write_text(json.dumps({name: fact for name, fact in facts.items() if name != "about"}))  # of an earlier version
    assert study_report(run).title == f"The network 01234567 on towns, {today.day} {today:%B %Y}"


@pytest.mark.slow
def test_what_a_run_says_of_itself_makes_it_no_other_run(run: Path, data: Path) -> None:
    home = find_run(run)
    facts = json.loads((home / "run.json").read_text())
    facts["about"]["date"] = "2026-03-05"
    (home / "run.json").write_text(json.dumps(facts))
    again = write_run(run, find_sources(data), model="another name")
    assert find_run(again) == home
    assert read_facts(home)["about"] == {"date": "2026-03-05", "model": "another name"}, "the day of the first start is kept"
    assert home.name not in study_report(run).title and "about" not in study_report(run).facts


@pytest.mark.slow
def test_a_stranger_reads_first_what_was_done(run: Path) -> None:
    page = make_report(run)
    first = re.search(r"</h1>\s*<p>(.*?)</p>", page, re.S)[1]
    for words in ("roofs.onnx", "12 tiles", "5 methods", "points (hundredths of confidence)", "0 is chance", "mid-grey"):
        assert words in first
    assert "BCa" not in first and page.index("chance (a gap of") < page.index("<h2>")


@pytest.mark.slow
def test_each_method_has_a_line(run: Path) -> None:
    assert {*method_names(), "far"} <= set(LINES)
    rows = re.findall(r"<tr>.*?</tr>", make_report(run).split("<h2>")[1])
    for name in (*METHODS, "far"):
        assert any(f"<td>{name}</td>" in row and LINES[name].replace("'", "&#39;") in row for row in rows), name


@pytest.mark.slow
def test_no_word_of_bands_where_none_are_drawn(run: Path, tmp_path: Path, data: Path) -> None:
    assert "95 % bands" in make_report(run)
    few = write_run(tmp_path / "few", find_sources(data, 3))
    page = make_report(few)
    assert "band" not in page and "95 %" not in page and "An interval takes 8 scenes" in page


@pytest.mark.slow
def test_the_page_lies_where_help_says(run: Path) -> None:
    said = " ".join(CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "default: report.html in RUN" in said
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0 and done.output.strip() == f"report: {run / 'report.html'}"
    assert (run / "report.html").read_text() == make_report(run) and not (find_run(run) / "report.html").exists()


@pytest.mark.slow
def test_tiles_and_heat_maps_are_shown_without_being_told_where_they_are(run: Path, data: Path) -> None:
    page = make_report(run)
    assert page.count(PICTURE) == 8 and "Below: the map" in page
    assert len(page) < 5e6
    shutil.move(data, data.with_name("moved"))
    assert PICTURE not in make_report(run) and "--data FOLDER" in make_report(run)
    assert make_report(run, data.with_name("moved")).count(PICTURE) == 8


@pytest.mark.slow
def test_a_large_page_of_real_size_tiles_stays_below_five_megabytes(tmp_path: Path) -> None:
    data = write_tiles(tmp_path / "data/towns", 8, side=512)
    page = write_report(write_run(tmp_path / "run", find_sources(data.parent)), data=data.parent)
    assert page.read_text().count(PICTURE) == 8 and page.stat().st_size < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_best_and_worst_tiles_share_none_and_pictures_do_not_overlap(count: int, run: Path, data: Path, tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", find_sources(data, count), data=[str(data)])
    rows = pd.concat(map(pd.read_parquet, few.rglob("*.parquet")))
    tiles = extreme_tiles(rows[rows.method == "entropy"], "entropy")
    assert not set(tiles["best"].tile) & set(tiles["worst"].tile) and len(tiles["best"]) == max(min(4, count // 2), 1)
    page = make_report(few)
    assert page.count(PICTURE) == len(tiles["best"]) + len(tiles["worst"])
    source = find_sources(data, count)[0]
    figure = tile_figure(source.tile.shown()[0], None, kept_map(find_run(few), source, "entropy"), "entropy", 8, source.tile.name)
    figure.draw_without_rendering()  # the layout settles in two
    figure.canvas.draw()
    assert len(overlapping(figure)) == 0


@pytest.mark.slow
def test_pictures_outline_what_was_explained_with_a_scale_of_its_own(run: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(report, "overlay", lambda *given, **more: drawn.append((given, more)))
    assert "Outlined: what the network predicts and the map explains." in make_report(run) and "hatched" in make_report(run)
    (_, image, heat, region), more = drawn[0]
    assert image.shape == (32, 32, 3) and heat.shape == (32, 32) and np.array_equal(region, np.eye(32) > 0)
    assert more["error"].shape == (32, 32) and more["own"].sum() == 8 * 16, "the eight patches of 4 x 4 pixels on the diagonal"
    drawn.clear()
    older = write_run(tmp_path / "older", find_sources(data), beside=(), data=[str(data)])
    assert "Outlined: the label, not what was predicted and explained." in make_report(older)
    (_, _, _, region), more = drawn[0]
    assert region.sum() == 64 and more["own"] is None and more["error"] is None


@pytest.mark.slow
def test_only_controls_that_were_run_are_spoken_of(run: Path, data: Path, tmp_path: Path) -> None:
    assert "“far”" in make_report(run) and "“ones”" not in make_report(run)
    assert "“ones”" in make_report(write_run(tmp_path / "ones", find_sources(data), ("entropy", "ones")))
    without = make_report(write_run(tmp_path / "without", find_sources(data), ("entropy", "sobol")))
    assert not re.search("“(far|distance|ones)”", without)
    assert "{" not in re.sub("(?s)<style>.*?</style>|<pre.*?</pre>", "", without)


def test_the_gap_of_a_tile_stands_with_its_error() -> None:
    rows = pd.DataFrame({"dataset": "towns", "tile": ["a", "a", "b"], "unit": ["one", "two", "one"], "method": "entropy", "status":
                         "ok", "gap": [3.0, 5, 1], "gap_r0.5": [2.0, 4, 1], "gap_r0.5_se": [3.0, 4, 0.5], "clean_confidence": 0.9,
                         "region_pixels": 9})
    tiles = extreme_tiles(rows, "entropy")
    found = tiles["best"][["gap_r0.5", "gap_r0.5_se"]].to_numpy().tolist()
    assert found == [[3, 2.5]], "independent errors of 3 and 4, of a mean of two"
    assert tiles_shown(tiles["best"])["gap, half removed"].item() == "3.0 ± 2.5"
    older = extreme_tiles(rows.drop(columns=["gap_r0.5", "gap_r0.5_se"]), "entropy")["worst"]
    assert list(tiles_shown(older)) == ["dataset", "tile", "gap", "confidence", "explained pixels"]


def overlapping(figure: Figure) -> list[tuple[int, int]]:
    """Pairs of axes whose drawn extents, titles and ticks included, meet."""
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    return [(a, b) for a in range(len(boxes)) for b in range(a)
            if min(boxes[a].x1, boxes[b].x1) - max(boxes[a].x0, boxes[b].x0) > 1
            and min(boxes[a].y1, boxes[b].y1) - max(boxes[a].y0, boxes[b].y0) > 1]


#: How light the first picture's corner is, 0 to 255.
CORNER = """async () => {
    const [image, canvas] = [document.body.querySelector('img'), document.createElement('canvas')];
    await image.decode();
    canvas.getContext('2d').drawImage(image, 0, 0);
    return Math.max(...canvas.getContext('2d').getImageData(1, 1, 1, 1).data.slice(0, 3));
}"""


@pytest.mark.browser
def test_in_a_browser_tables_fit_the_page_and_settings_are_folded(run: Path) -> None:
    path = write_report(run)
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"file://{path}")
        cut = page.evaluate("[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth)"
                            ".map(one => one.textContent.slice(0, 60))")
        assert cut == [] and page.locator(".wide").count() > 6
        assert "p (Wilcoxon, Holm)" in page.locator("th", has_text="Wilcoxon").inner_text().replace("\n", " ")
        assert not page.locator("details pre").is_visible()
        page.locator("summary").click()
        assert '"weights": "0123456789abcdef"' in page.locator("details pre").inner_text()
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(f"file://{path}")
        assert phone.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        rights = phone.evaluate("[...document.querySelectorAll('.tiles img')].map(one => one.getBoundingClientRect().right)")
        assert len(rights) == 8 and max(rights) < 390, "no tile is cut off"
        assert phone.evaluate(CORNER) < 45 and page.evaluate(CORNER) > 232, "in the dark a picture's paper is dark"


def without_maps(run: Path) -> None:
    shutil.rmtree(find_run(run) / "maps.zarr")


def with_failures(run: Path) -> None:
    """A tile that failed and one in which nothing is predicted."""
    for path, status in zip(sorted(run.rglob("*.parquet")), ("error", "absent"), strict=False):
        facts = pd.read_parquet(path)[["dataset", "scene", "tile", "checksum", "unit"]].head(1)
        facts.assign(status=status, error="ValueError: a file that ends too early, " * 5 * (status == "error")).to_parquet(path)


def moved(run: Path) -> None:
    shutil.move(run.parent / "data", run.parent / "elsewhere")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("count", "change"), [(12, None), (3, None), (1, None), (12, without_maps), (12, with_failures), (3, moved)])
def test_in_a_browser_each_state_of_a_report_fits_and_is_accessible(
        count: int, change: Callable[[Path], None] | None, tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run", find_sources(data, count), model="roofs.onnx", data=[str(data)])
    if change is not None:
        change(run)
    check_page(write_report(run))


# LaTeX


ESCAPED = re.compile(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater)\{\}|\\[&%$#_{}]")


def rows_of_latex(table: str) -> list[list[str]]:
    """The cells of a table's body."""
    body = re.search(r"\\midrule\n(.*?)\\bottomrule", table, re.S)[1].replace(r"\ensuremath{-}", "-")
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in body.strip().splitlines()]


def test_latex_has_the_numbers_and_the_structure_of_a_table() -> None:
    table = pd.DataFrame({"method": ["a_b", "c&d"], "share (%)": [0.25, np.nan], "gap #1 {x}": ["1.2 [-0.5, 3.0]", "–"]})
    text = as_latex(table, "50 % of $x$", "one")
    assert rows_of_latex(text) == [[r"a\_b", "0.25", "1.2 [-0.5, 3.0]"], [r"c\&d", "--", "--"]]
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1] == "lrr" and r"\caption{50 \% of \$x\$}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:one}")] == [1] * 4
    special = as_latex(pd.DataFrame({"a": ["\\&%$#_{}~^<>"], "b": [1]}), "", "x")
    ((cell, _),) = rows_of_latex(special)
    assert not re.search(r"[\\&%$#_~^<>]", ESCAPED.sub("", cell)), cell
    signs = as_latex(pd.DataFrame({"a": ["tile-3"], "b": ["-1.2 [-3, -0.5]"], "c": ["2026-11-28"]}), "", "x")
    assert r"tile-3 & \ensuremath{-}1.2 [\ensuremath{-}3, \ensuremath{-}0.5] & 2026-11-28" in signs


def test_a_table_wider_than_a_page_is_set_in_parts() -> None:
    table = pd.DataFrame({"method": ["entropy"]} | {f"column {k}": ["12.34 [10.00, 15.00]"] for k in range(7)})
    text = as_latex(table, "Wide", "wide")
    assert text.count(r"\begin{table}") == 4 and text.count("entropy &") == 4 and "(continued)" in text
    assert [len(row) for part in text.split("\n\n") for row in rows_of_latex(part)] == [3, 3, 3, 2]
    assert as_table(table).count("<table>") == 2


@pytest.mark.slow
def test_the_command_writes_the_tables_of_the_page(run: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--latex"])
    assert done.exit_code == 0 and done.output.splitlines()[1] == f"tables: {run / 'report.tex'}"
    text, page = (run / "report.tex").read_text(), (run / "report.html").read_text()
    assert text.startswith(r"% needs \usepackage{booktabs}")
    cells = {cell for part in text.split("\n\n")[1:] for row in rows_of_latex(part) for cell in row}
    intervals = set(re.findall(r"<td>(-?\d+\.\d\d \[[^]]*\])</td>", page))
    assert len(intervals) > 60 and intervals <= cells
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) > 5


def test_reports_whose_names_have_dots_keep_tables_each(tmp_path, monkeypatch) -> None:
    class Told:
        write = write_latex = staticmethod(lambda path: path)

    monkeypatch.setattr("entropy_captum.report.study_report", lambda *_, **__: Told)
    for name, tables in (("r_x0.25", "r_x0.25.tex"), ("r_x0.5.html", "r_x0.5.tex")):
        done = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / name), "--latex"])
        assert done.output.splitlines()[1] == f"tables: {tmp_path / tables}"


@pytest.mark.slow
def test_captions_say_how_many_scenes_units_direction_and_why_there_is_no_p(run: Path) -> None:
    """Without the page around them, tables stand by their captions alone."""
    told = study_report(run)
    found = re.findall(r"\\caption\{(.*?)\}\n\\label\{tab:(.*?)-\d+\}", told.latex())
    by_label = {label: text for text, label in found}
    scenes = rows_of(find_run(run)).query("status == 'ok'")[["dataset", "scene"]].drop_duplicates().shape[0]
    for label in ("does-removing-what-a-map-calls-important-hurt-more",
                  "the-paper-s-tests-at-a-fixed-threshold", "what-the-maps-are-like"):
        assert f"Means over {scenes} scene" in by_label[label], label
    assert "points" in by_label["does-removing-what-a-map-calls-important-hurt-more"]
    assert "larger is better" in by_label["does-removing-what-a-map-calls-important-hurt-more"]
    assert "a small drop is good" in by_label["the-paper-s-tests-at-a-fixed-threshold"]
    assert all(f"{told.title}." in text and "Outlined" not in text for text in by_label.values())


@pytest.mark.parametrize("count,missing", [(3, True), (9, False)])
def test_a_comparison_says_why_a_p_value_is_missing_only_where_it_is(count: int, missing: bool) -> None:
    rows = pd.DataFrame([{"dataset": "town", "scene": f"s{k}", "tile": f"t{k}", "status": "ok", "method": name, "target": "",
                          "gap": k % 4 + 3.0 * (name == "entropy")} for k in range(count) for name in ("entropy", "sobol")])
    text = rivals_text(rival_table(rows))
    assert ("No p-value (–) where there are fewer than 8 scenes" in text) == missing
    assert "in points" in text and "above 0" in text and "in the last column" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX on this machine")
def test_latex_compiles(run: Path, tmp_path: Path) -> None:
    study_report(run).write_latex(tmp_path / "tables.tex")
    (tmp_path / "paper.tex").write_text(r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tables}\end{document}")
    made = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True)
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in (tmp_path / "paper.log").read_text(encoding="latin-1"), "each table fits its page"


def test_any_report_is_latex_too(tmp_path: Path) -> None:
    told = Report("Buildings", ["one"], [section("What?", "", pd.DataFrame({"a": ["<b>"], "b": [1]}))], {})
    path = told.write_latex(tmp_path / "a.tex")
    assert r"\caption{What? Buildings.}" in path.read_text() and r"\textless{}b\textgreater{}" in path.read_text()
    assert "&lt;b&gt;" in told.html()


# Several folders


def test_two_folders_are_one_study(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiles(tmp_path / name / "val", 2)
    write_tiles(tmp_path / "c", 1)
    both = find_sources([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert [source.key for source in both] == ["a/val/town0_1.png", "b/val/town0_1.png", "c/town0_1.png", "a/val/town1_1.png",
                                               "b/val/town1_1.png"]
    assert [source.dataset for source in find_sources([tmp_path / "a", tmp_path / "c"])] == ["a/val", "c", "a/val"]
    assert {source.dataset for source in find_sources([tmp_path / "a", tmp_path / "b"], skip=["a/val"])} == {"b/val"}
    with pytest.raises(ValueError, match=r"the same tiles twice; give each folder once"):
        find_sources([tmp_path / "a", tmp_path / "a/val"])
    write_tiles(tmp_path / "other/c", 1)
    with pytest.raises(ValueError, match=r"c and .*c would both be the data set 'c'; rename a folder"):
        find_sources([tmp_path / "c", tmp_path / "other/c"])
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        find_sources([tmp_path / "a", tmp_path / "nowhere"])


@pytest.mark.slow
def test_evaluate_takes_both_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiles(tmp_path / name / "val", 1)
    (tmp_path / "bright.py").write_text("def model(x):\n    return 9 * x.mean(1, keepdim=True)\n\n"
                                        "model.card = {'scale': 2 / 255, 'mean': 1.0}\n")
    data = [part for name in ("a", "b") for part in ("--data", str(tmp_path / name))]
    options = ["--out", str(tmp_path / "run"), "--model", f"{tmp_path / 'bright.py'}:model", "--methods", "ones,random",
               "--grid-size", "2", "--n-samples", "2"]
    done = CliRunner().invoke(app, ["evaluate", *data, *options])
    assert done.exit_code == 0, done.output
    assert "rows of 2 tiles" in done.output
    told = study_report(tmp_path / "run")
    assert told.title.startswith("Bright.py:model on a and b, ") and read_facts(find_run(tmp_path / "run"))["about"]["data"] == [
        str(tmp_path / name) for name in ("a", "b")]
    missing = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "a"), "--data", "nowhere", *options])
    assert "nowhere: no such folder" in str(missing.exception)


def test_rivals_stand_with_their_intervals(run: Path) -> None:
    rows = pd.concat(map(pd.read_parquet, run.rglob("*.parquet")))
    rivals = rival_table(rows)
    (shown,) = next(part for part in report.test_sections(rows, "entropy", rivals) if "rival" in part["title"])["parts"]
    first = rivals.iloc[0]
    assert shown.iloc[0, 1] == f"{first.difference:.2f} [{first.low:.2f}, {first.high:.2f}]"
