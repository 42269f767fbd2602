"""How the project is worked on: what is checked where, with which versions, and which module may know of which."""
from __future__ import annotations

import ast
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import load_tool
from test_package import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "entropy_captum"
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]


# Which module may know of which --------------------------------------------------------------------------------------------

def numbers() -> dict[str, int]:
    """The number of each module's notebook."""
    found = {}
    for path in (ROOT / "nbs").rglob("[0-9]*.ipynb"):
        if exported := re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8")):
            found[exported[1]] = int(re.match(r"\d+", path.name)[0])
    return found


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def classes_of(module: str) -> set[str]:
    return {node.name for node in tree_of(module).body if isinstance(node, ast.ClassDef)}


def named_in(tree: ast.AST) -> Iterator[str]:
    """Every word of the imports and annotations of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from re.findall(r"\w+", ast.unparse(node))
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.AST):
                yield from re.findall(r"\w+", ast.unparse(annotation))


def test_no_module_below_attribution_names_it():
    """Neither by an import, wherever it stands, nor by a class of it in an annotation: what is below takes plain options."""
    number = numbers()
    below = {module for module in number if number[module] < number["attribution"]}
    new = {"attribution"}
    while new:  # with the same number, but imported by it
        words = set().union(*(named_in(tree_of(module)) for module in new))
        new = {module for module in number if module.split(".")[-1] in words} - below - {"attribution"}
        below |= new
    assert {"sampling", "region", "incremental", "estimate"} <= below
    owned = {"attribution", *classes_of("attribution")}.difference(*map(classes_of, below))
    assert "EntropyCentric" in owned
    assert not {module: found for module in sorted(below) if (found := owned & set(named_in(tree_of(module))))}


#: What is said in one place, and its modules: none where a name of `sampling` is asked.
ONCE = {"the type of a grid": (r'Literal\["adaptive"\]', {"names"}),
        "what to type for channels that are last": (r"inputs\.permute\(0, 3, 1, 2\)", {"perturbation"}),
        "how many rows a design has": (r"(features|\*\* ?2|changes|unique\(\)|pieces)\)? \+ (\d|[\w.]*bases)\b|"
                                        r"(n_samples|LOOKS) \* \(.*\+", set())}


@pytest.mark.parametrize("what", ONCE)
def test_one_module_says_it(what):
    pattern, homes = ONCE[what]
    assert homes == {path.stem for path in PACKAGE.glob("*.py") for line in path.read_text(encoding="utf-8").splitlines()
                     if re.search(pattern, line.partition("#")[0])}


# What is checked where -----------------------------------------------------------------------------------------------------

def test_ruff_reads_every_notebook():
    command = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    read = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    assert {str(path) for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts} <= read


def commands(check, stages: tuple[str, ...], monkeypatch) -> list[str]:
    """The command lines of some stages."""
    found: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(check, "run", lambda *command, **_: found.append(" ".join(command)))
        for stage in stages:
            check.STAGES[stage]()
    return found


def test_a_hook_runs_what_a_check_runs(monkeypatch):
    check = load_tool("check")
    hooks = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]}
    assert list(hooks) == ["nbdev-clean", "nbdev-export", "ruff", "mypy"]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks.values())
    assert [hooks[name]["entry"].removeprefix(".venv/bin/") for name in ("ruff", "mypy")] == commands(
        check, ("ruff", "mypy"), monkeypatch)


def test_ruff_and_mypy_run_once_wherever_the_tests_run():
    check = load_tool("check")
    jobs = {name: [step["run"].split()[1] for step in job["steps"] if "run" in step] for name, job in WORKFLOW.items()}
    stages = {name: [stage for target in targets for stage in check.TARGETS[target]] for name, targets in jobs.items()}
    assert not {"ruff", "mypy"} & set(stages["test"]) and "matrix" in WORKFLOW["test"]["strategy"]
    assert sorted(stage for found in stages.values() for stage in found) == sorted(check.TARGETS["test"])
    own = re.findall(r"^make (\S+)", (ROOT / ".ci/run").read_text(), re.M)
    assert own == ["test"] and "pre-commit" not in (ROOT / ".ci/run").read_text() + str(WORKFLOW)


def test_marks_are_declared_and_fast_leaves_them_out(monkeypatch):
    check = load_tool("check")
    fast, = commands(check, ("fast tests",), monkeypatch)
    declared = re.findall(r"^    (\w+): ", (ROOT / "setup.cfg").read_text().split("markers =")[1], re.M)
    assert fast.endswith("-m " + " and ".join(f"not {mark}" for mark in declared)) and len(declared) == 4
    assert set(check.TARGETS["fast"]) - {"fast tests"} == set(check.TARGETS["check"])
    with pytest.raises(pytest.fail.Exception, match="'slwo' not found in `markers`"):
        _ = pytest.mark.slwo


# What a test needs, by the fixtures it names.
NEEDS = {"aerial": "data", "browser": "browser", "watched": "browser", "lab": "browser", "opened": "browser", "html": "site",
         "site": "site"}


def marks_of(decorators: list[ast.expr]) -> set[str]:
    return {name for node in decorators for name in re.findall(r"pytest\.mark\.(\w+)", ast.unparse(node))}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_a_test_that_needs_much_is_marked(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    of_all = marks_of([node.value for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            needed = {NEEDS[argument.arg] for argument in node.args.args if argument.arg in NEEDS}
            assert needed <= of_all | marks_of(node.decorator_list), node.name


# The versions --------------------------------------------------------------------------------------------------------------

def oldest_torch() -> str:
    """The lower bound in settings.ini."""
    return re.search(r"\btorch>=([\d.]+)", SETTINGS["DEFAULT"]["requirements"])[1]


def test_the_workflow_tests_the_oldest_torch_and_the_newest():
    matrix = WORKFLOW["test"]["strategy"]["matrix"]
    assert matrix["torch"] == ["newest"] and [pair["torch"] for pair in matrix["include"]] == ["oldest"]
    assert matrix["include"][0]["python"] == SETTINGS["DEFAULT"]["min_python"] == matrix["python"][0]

    def installed(which: str) -> str:
        command = ["make", "-n", "-B", ".venv/.installed", f"TORCH={which}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"'torch=={oldest_torch()}.*'" in installed("oldest") and "torch==" not in installed("newest")
    assert any("TORCH=${{ matrix.torch }}" in step.get("run", "") for step in WORKFLOW["test"]["steps"])


@pytest.mark.slow
def test_all_that_is_needed_agrees_on_the_oldest_torch():
    """A dry resolution, nothing is installed; that all agrees on the newest shows wherever the tests run."""
    settings = SETTINGS["DEFAULT"]
    names = ("requirements", "models_requirements", "study_requirements", "lab_requirements", "dev_requirements")
    needed = [*(package for name in names for package in settings[name].split()), f"torch=={oldest_torch()}.*"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "--python-version", settings["min_python"]]
    done = subprocess.run(command, input="\n".join(needed), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.M))
    assert found["torch"].startswith(oldest_torch())
    assert {"torchvision", "captum", "timm", "segmentation-models-pytorch"} <= set(found)


def test_every_group_of_a_benchmark_table_has_its_date_and_versions():
    tables = load_tool("benchmark_tables")
    notes = pd.read_csv(tables.FOLDER / "made_with.csv", dtype=str, keep_default_na=False)
    assert {path.stem for path in tables.FOLDER.glob("*.csv")} == {*tables.KEYS, "made_with"}
    for table, key in tables.KEYS.items():
        groups = pd.read_csv(tables.FOLDER / f"{table}.csv", dtype=str)[key].unique()
        assert sorted(notes[notes.table == table].rows) == sorted(groups), table
    assert notes.date.str.fullmatch(r"\d{4}-\d\d-\d\d").all() and (notes[["torch", "numpy"]] != "").all(axis=None)


def test_a_renewed_group_is_noted_and_the_others_stay_to_the_letter(tmp_path):
    tables = load_tool("benchmark_tables")
    old = "network,threads,saving,wanted\nsmall,1,3.1,2\nlarge,1,2.50,3\nlarge,2,,3\n"
    (tmp_path / "incremental.csv").write_text(old)
    (tmp_path / "made_with.csv").write_text(
        "table,rows,date,python,torch,numpy,machine_threads\nincremental,large,2020-01-01,,2.0.0,,\n"
        "incremental,small,2020-01-02,3.8,1.0.0,1.0,8\ncost,small,2020-01-03,,,,\n")
    measured = pd.DataFrame({"network": ["small", "small"], "threads": [1, 2], "saving": [4.00049, 4.5], "wanted": [2, 2]})
    tables.replace_rows("incremental", measured, tmp_path)
    assert (tmp_path / "incremental.csv").read_text() == (
        "network,threads,saving,wanted\nlarge,1,2.50,3\nlarge,2,,3\nsmall,1,4.0,2\nsmall,2,4.5,2\n")
    *kept, new = (tmp_path / "made_with.csv").read_text().splitlines()[1:]
    assert kept == ["incremental,large,2020-01-01,,2.0.0,,", "cost,small,2020-01-03,,,,"]
    assert re.fullmatch(rf"incremental,small,20\d\d-\d\d-\d\d,{re.escape(platform.python_version())},"
                        rf"{re.escape(torch.__version__.split('+')[0])}\S*,[\d.]+,\d+", new)


def test_every_tool_writes_its_table_by_that_way():
    """A table that is written otherwise says nothing of its versions."""
    tables = load_tool("benchmark_tables")
    texts = {path.stem: path.read_text() for path in (ROOT / "tools").glob("*.py")}
    written = [table for text in texts.values() for table in re.findall(r'replace_rows\("([\w-]+)"', text)]
    assert sorted(written) == sorted(tables.KEYS)
    assert [name for name, text in texts.items() if re.search(r"""["']benchmarks["'/]""", text)] == ["benchmark_tables"]
