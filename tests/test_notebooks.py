"""The notebooks are read: their cells stay short, their outputs small, their pictures described."""
import ast
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from conftest import load_tool

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))


def cells(path):
    return [(c["cell_type"], "".join(c["source"]), c.get("outputs", [])) for c in json.loads(path.read_text())["cells"]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_readable(path):
    found = cells(path)
    assert len(found) <= 60
    size = sum(len(json.dumps(outputs)) for _, _, outputs in found)
    assert size <= 300_000, f"{size // 1000} kB of outputs"
    assert "widgets" not in json.loads(path.read_text())["metadata"], "the state of a widget is stored"
    assert not any("stderr" in json.dumps(o.get("name", "")) for _, _, outputs in found for o in outputs)
    exported = [s for kind, s, _ in found if kind == "code" and s.startswith("#| export")]
    too_long = []
    for source in exported:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                limit = 80 if isinstance(node, ast.ClassDef) else 40
                if node.end_lineno - node.lineno + 1 > limit:
                    too_long.append(f"{node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert not too_long


def test_exported_cells_are_short():
    lengths = [sum(bool(line.strip()) for line in source.splitlines()[1:]) for path in NOTEBOOKS
               for kind, source, _ in cells(path) if kind == "code" and source.startswith("#| export")]
    assert statistics.median(lengths) <= 10


MODULES = [path for path in NOTEBOOKS if any(source.startswith("#| default_exp") for _, source, _ in cells(path))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_most_exports_are_followed_by_a_shown_value(path):
    """Before the next exported cell comes one that a reader can run, with an output to look at."""
    followed: list[bool] = []
    for kind, source, outputs in cells(path):
        if kind == "code" and source.startswith("#| export"):
            followed.append("from __future__" in source)  # imports show nothing
        elif kind == "code" and followed and outputs and not source.startswith("#| hide"):
            followed[-1] = True
    assert sum(followed) > len(followed) / 2, f"{sum(followed)} of {len(followed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_lesson_says_for_whom_it_is_and_leads_to_others(path):
    """What to read first, or that nothing is needed and where it is used; whatever it links is there."""
    said = cells(path)[0][1].partition("**For** ")[2]
    assert re.search(r"[Rr]ead first:\s", said) or "It can be read by itself" in said
    linked = re.findall(r"\]\(([\w/]+\.ipynb)\)", said)
    assert linked and all((path.parent / name).is_file() for name in linked)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_pictures_are_described(path):
    for kind, source, outputs in cells(path):
        if kind == "code" and any(name.startswith("image/") for o in outputs for name in o.get("data", {})):
            assert "#| fig-alt:" in source, f"no fig-alt: {source[:80]}"


def stored(path: Path, *cells: tuple[str, str]) -> Path:
    """A notebook of cells that show what they are said to show, true or not."""
    made = [nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("execute_result", {"text/plain": shown})])
            for source, shown in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


@pytest.mark.slow
def test_stale_outputs_are_found(tmp_path):
    docs_check = load_tool("docs_check")
    path = stored(tmp_path / "a.ipynb", ("1 / 3", "0.3334"), ("1 / 3", "0.5"), ("'two words'", "'two words'"), ("'new'", "'old'"),
                  ("#| timed\nimport time; time.perf_counter()", "12.5"))
    found = docs_check.differences(path)
    assert [line.split("\n")[0] for line in found] == ["cell 1: another text", "cell 3: another text"] and "'old'" in found[1]
    broken = docs_check.differences(stored(tmp_path / "b.ipynb", ("1 / 0", "0")))
    assert broken == ["does not run: ZeroDivisionError: division by zero"]
