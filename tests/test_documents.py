"""Every command in the README, the site's pages and the guides is run, or at least exists."""
from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from test_package import SETTINGS
from typer.testing import CliRunner

from entropy_captum.cli import app
from entropy_captum.drawn import procedural_scene, write_drawn_raster, write_scenes
from entropy_captum.judgement import VERDICTS, sentences
from entropy_captum.methods import REGISTRY
from entropy_captum.statistics import method_table
from entropy_captum.zoo import rooftop_unet

ROOT = Path(__file__).resolve().parent.parent
# Small enough for a test; the words of the documents stay as they are.
QUICK = ["--grid-size", "4", "--n-samples", "4"]
SMALLER = {"explain": QUICK, "evaluate": [*QUICK, "--limit", "1", "--crop", "96"], "demo": QUICK, "report": [], "model": []}


def shell_lines() -> list[tuple[str, str]]:
    """(file, line) of every shell block in README, pages and notebooks; comments cut off."""
    texts = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = {}
    for path, text in texts.items():
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
            for line in filter(None, (line.split(" #")[0].strip() for line in block.splitlines())):
                found.setdefault(line, str(path.relative_to(ROOT)))
    return [(path, line) for line, path in found.items()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with what the documents' placeholders stand for: IMAGE.png, a scene, DATA, MODEL with CARD.toml, and mine.py."""
    home = tmp_path_factory.mktemp("work")
    write_drawn_raster(home, size=256)
    write_scenes(home / "DATA/town", (2,))
    shutil.copy(home / "DATA/town/image/scene_2.png", home / "IMAGE.png")
    shutil.copytree(home / "DATA", home / "FOLDER")
    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=2)
    network.segmentation_head[0].bias.data = torch.tensor([0.0, 9.0])  # so that there is some road to explain
    network.save_pretrained(home / "MODEL")
    (home / "CARD.toml").write_text('scale = 0.00392156862745098\nclasses = ["ground", "road"]\n')
    (home / "mine.py").write_text("def smooth_gradient(model, inputs, region):\n    return inputs.mean(1)[0] * region[0]\n")
    return home


@pytest.mark.parametrize(("path", "line"), [
    pytest.param(path, line, marks=pytest.mark.slow if "entropy-captum " in line else ()) for path, line in shell_lines()])
def test_a_command_of_the_documents_works(path, line, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    program, *arguments = shlex.split(line)
    name = Path(program).name
    if name == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M), f"{path}: no such target: {line}"
    elif name == "pip":
        extras = re.findall(r"[\[,](\w+)(?=[\],])", line)
        known = {"all", *(key.removesuffix("_requirements") for key in SETTINGS["DEFAULT"])}
        assert "entropy_captum" in line and known.issuperset(extras)
    elif name == "entropy-captum":
        if "--cluster" in arguments:  # a real scheduler with workers of its own is in test_study
            del arguments[arguments.index("--cluster"):][:2]
        known = set(REGISTRY)
        many = "--footprints" in arguments and "--id" not in arguments
        done = CliRunner().invoke(app, [*arguments, *SMALLER[arguments[0]], *(["--window", "96"] if many else [])])
        for own in set(REGISTRY) - known:  # a command registers methods for its process, which here is that of other tests too
            del REGISTRY[own]
        assert done.exit_code == 0, f"{path}: {line}\n{done.output}\n{done.exception}"
    else:
        assert shutil.which(name) or (Path(sys.executable).parent / name).exists(), f"{path}: no such program: {line}"


def test_there_are_commands_to_run():
    lines = [line for _, line in shell_lines()]
    assert "make demo" in lines and any("entropy-captum explain" in line for line in lines) and len(lines) > 8


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_what_the_pages_quote_of_the_demo_has_its_words(page):
    """The figures are those of the whole demo, which takes minutes."""
    (quoted,) = re.findall(r"^```text\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    table = pd.DataFrame({"map": ["score-cam", "entropy", "distance", "random"], "gap_r0.5": [80.1, 21.0, 13.1, -0.2],
                          "gap_r0.5_se": [24.1, 9.6, 6.7, 4.8], "verdict": [VERDICTS[0], VERDICTS[2], "control", "control"]})
    *lines, last = sentences(table)
    *said, end = quoted.splitlines()
    assert said == lines and last.startswith(end)


@pytest.mark.slow
def test_the_python_of_the_pages_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    pages = {path: re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
             for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
    assert len(pages[ROOT / "README.md"]) == 2 and sum(map(len, pages.values())) >= 3
    scene = procedural_scene(2, 128)
    assert any("n_samples=8, grid_size=16" in block for block in pages[ROOT / "README.md"])
    for path, blocks in pages.items():
        names = {"model": rooftop_unet(), "image": scene.image, "mask": scene.label}
        for block in blocks:
            coarse = block.replace("n_samples=8, grid_size=16", "n_samples=2, grid_size=4").replace("grid_size=16)", "grid_size=4)")
            exec(compile(coarse, str(path), "exec"), names)
    assert (workplace / "explanation" / "table.csv").is_file()


def test_the_landing_notebook_ends_with_the_explorer():
    """Its cell is run with the others in tests/test_explorer.py. A stored widget would be a blob that no page can show."""
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    last = notebook.cells[-1]
    assert "explore(model, scene.image)" in last.source and not last.outputs and "widgets" not in notebook.metadata
    assert "Explore this scene" not in (ROOT / "README.md").read_text()


def test_what_the_pages_say_of_the_map_of_ones_is_in_the_rows():
    """At the threshold it loses nothing in L-SIT; in H-SIT other maps may lose more. The pages repeat these numbers."""
    rows = pd.read_parquet(ROOT / "nbs/results/study_256.parquet")
    rows = rows[(rows.status == "ok") & (rows.baseline == "grey") & (rows.seed == 0)]
    columns = ["l_sit_confidence_drop", "h_sit_confidence_drop"]
    means = method_table(rows, columns).pivot(index="method", columns="column", values="mean")[columns]
    assert len(rows.drop_duplicates(["dataset", "tile"])) == 108
    shown = {method: tuple(f"{value:.1f}" for value in means.loc[method]) for method in ("ones", "entropy", "random")}
    assert shown["ones"][0] == "0.0" and means.h_sit_confidence_drop["random"] > means.h_sit_confidence_drop["ones"]
    page = (ROOT / "docs" / "background.md").read_text()
    assert all(f"{low} and {high}" in " ".join(page.split()) for low, high in shown.values()), shown
    for name in ("27_evaluation", "guides/read_the_tests"):
        text = (ROOT / "nbs" / f"{name}.ipynb").read_text()
        assert all(high in text for _, high in shown.values()), (name, shown)


def test_the_readme_says_what_its_own_example_found():
    """The confidences in words are those whose difference the example prints as the gap."""
    text = (ROOT / "README.md").read_text()
    sure, less, still = (int(n) for n in re.findall(r"(\d+) %\s+sure", text)[:3])
    said = re.search(r"^    entropy: .*gap ([\d.]+) ± ([\d.]+) points; random maps get (-?[\d.]+)", text, re.M)
    gap, error, chance = map(float, said.groups())
    assert sure >= still > less and abs(still - less - gap) <= 1
    assert "better than chance" in text and gap - chance > 2 * error
