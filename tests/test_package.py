"""The package as it is published: built, checked, installed where nothing else is, and its public names."""
from __future__ import annotations

import ast
import configparser
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import entropy_captum

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Wheel and sdist, made from the files that git knows."""
    home = tmp_path_factory.mktemp("dist")
    source = home / "source"
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "-o", str(home / "dist"), str(source)], check=True, capture_output=True)
    return next((home / "dist").glob("*.whl")), next((home / "dist").glob("*.tar.gz"))


@pytest.mark.slow
def test_the_metadata_passes_twine(built):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = zipfile.ZipFile(built[0]).namelist()
    package = {n.removeprefix("entropy_captum/") for n in names if n.startswith("entropy_captum/")}
    modules = {p.name for p in (ROOT / "entropy_captum").glob("*.py")}
    assert modules | {"py.typed", "explorer.js", "explorer.css"} <= package
    assert any(n.startswith("weights/") and n.endswith(".safetensors") for n in package)
    assert {n.split("/")[0] for n in names} == {"entropy_captum", f"entropy_captum-{entropy_captum.__version__}.dist-info"}


@pytest.mark.slow
def test_the_page_of_the_package_index_points_to_nothing_that_is_not_there(built):
    """An index shows the description alone: a relative link or picture would lead nowhere."""
    wheel = zipfile.ZipFile(built[0])
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))).decode()
    targets = re.findall(r"\]\(([^)\s]+)\)", metadata)
    repository = f"github.com/entropy-captum/entropy_captum/blob/v{entropy_captum.__version__}/"
    here = [target.split(repository)[1].partition("#")[0] for target in targets if repository in target]
    assert len(here) > 30 and all((ROOT / path).is_file() for path in here)
    assert all(target.startswith("https://") for target in targets)
    pictures = re.findall(r'\bsrc(?:set)?="([^"]+)"', metadata)
    assert len(pictures) == 2 and "![" not in metadata
    assert all(url.startswith("https://raw.githubusercontent.com/") and (ROOT / url.split("/", 6)[6]).is_file() for url in pictures)
    assert {line.split(",")[0] for line in metadata.splitlines() if line.startswith("Project-URL")} == {
        f"Project-URL: {name}" for name in ("Documentation", "Source", "Issues", "Changelog")}


@pytest.mark.slow
def test_the_sdist_can_be_built_again(built):
    with tarfile.open(built[1]) as sdist:
        names = {n.split("/", 1)[1] for n in sdist.getnames() if "/" in n}
    assert {"settings.ini", "setup.py", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md"} <= names


@pytest.mark.slow
def test_the_wheel_works_where_only_its_requirements_are(built, tmp_path):
    """Installed by uv, which shares the files of packages that this environment has."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "empty")], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    def install(what: str) -> None:
        subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), what], check=True)

    def run(code: str) -> str:
        done = subprocess.run([str(python), "-c", f"import torch; torch.set_num_threads(1)\n{code}"], capture_output=True,
                              text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def asked(module: str) -> str:
        return run(f"try:\n    import entropy_captum.{module}\nexcept ImportError as problem:\n    print(problem)")

    install(str(built[0]))
    assert "(1, 3, 64, 64)" in run(
        "import importlib.util as u\n"
        "assert not any(map(u.find_spec, ('nbdev', 'pandas', 'typer', 'segmentation_models_pytorch', 'safetensors')))\n"
        "from entropy_captum import EntropyCentric, l_sit\n"
        "model, x, region = torch.nn.Conv2d(3, 1, 3, padding=1), torch.randn(1, 3, 64, 64), torch.ones(64, 64)\n"
        "region[:20] = 0\n"
        "heat = EntropyCentric(model).attribute(x, region=region, n_samples=2, grid_size=2)\n"
        "l_sit(model, x, heat, region=region)\nprint(tuple(heat.shape))")
    for module in ("zoo", "cli", "tiles", "study"):
        assert "pip install segmentation-models-pytorch safetensors" in asked(module), module
    install(f"{built[0]}[models]")
    assert "(1, 3, 64, 64)" in run(
        "from entropy_captum import EntropyCentric, rooftop_unet\n"
        "print(tuple(EntropyCentric(rooftop_unet()).attribute(torch.randn(1, 3, 64, 64), region=torch.ones(64, 64), n_samples=2,"
        " grid_size=2).shape))")
    assert "pip install pyarrow" in asked("study") and "pip install jupyterlab" in asked("explorer")
    helped = subprocess.run([str(python.parent / "entropy-captum"), "--help"], capture_output=True, text=True,
                            env=os.environ | {"COLUMNS": "100"})
    assert all(command in helped.stdout for command in ("demo", "explain", "train", "evaluate", "report"))


def test_the_public_names_are_these():
    assert sorted(entropy_captum.__all__) == ["EntropyCentric", "Estimate", "LayerScoreCam", "RegionScore", "SitResult",
                                              "SobolTotal", "h_sit", "l_sit", "load_model", "rooftop_unet"]
    assert all(hasattr(entropy_captum, name) and getattr(entropy_captum, name).__doc__ for name in entropy_captum.__all__)


def test_a_module_shows_what_a_user_calls_catches_or_annotates_with():
    """What only other modules call is exported by `#| exporti`: it can be imported, but is not in `__all__` nor on the site."""
    shown = {path.stem: len(re.findall(r"'(\w+)'", listed[1])) for path in (ROOT / "entropy_captum").glob("[a-z]*.py")
             if (listed := re.search(r"^__all__ = \[(.*?)\]", path.read_text(encoding="utf-8"), re.M | re.S))}
    assert len(shown) > 60 and sum(shown.values()) <= 300
    assert not {name: count for name, count in shown.items() if count > 14}
    assert shown["explorer"] <= 3 and shown["cli"] <= 10


def loaded_by(code: str) -> set[str]:
    """The packages that a new process has loaded after some code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_importing_the_package_imports_no_extra():
    """`tools/bench.py imports` measures how long it takes."""
    extras = {"distributed", "zarr", "anywidget", "seaborn", "sklearn", "typer", "nbdev", "jinja2", "segmentation_models_pytorch"}
    loaded = loaded_by("from entropy_captum import *")
    assert {"torch", "captum"} <= loaded and not extras & loaded
    assert not {"torch", "numpy"} & loaded_by("import entropy_captum\ndir(entropy_captum)")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ["--help"], ["explain", "--help"], ["evaluate", "--help"], ["model", "inspect", "--help"], ["explain", "nowhere.png"],
    ["explain", "README.md", "--label", "nowhere"], ["train", "nowhere"], ["train", ".", "--finish", "nowhere"],
    ["report", "nowhere"], ["explain", "README.md", "--mask", "nowhere", "--remote"],
    ["explain", "README.md", "--model-card", "https://nowhere.test/card.toml"],
    ["demo", "--data", "nowhere"], ["evaluate", "--data", "nowhere", "--out", "out"], ["model", "inspect", "nowhere"],
    ["evaluate", "--data", ".", "--out", "out", "--seeds", "one"]])
def test_a_mistake_is_answered_before_anything_heavy_is_imported(arguments):
    heavy = {"torch", "captum", "scipy", "pandas", "matplotlib", "timm", "segmentation_models_pytorch"}
    # typer imports pydantic, as slow as all that is imported before, where it makes values of the words.
    heavy |= {"pydantic"} if "--seeds" not in arguments else set()
    code = ("import sys\nfrom entropy_captum.cli import main\n"
            f"sys.argv = ['entropy-captum', *{arguments!r}]\ntry:\n    main()\nexcept SystemExit:\n    pass")
    assert not heavy & loaded_by(code)


def test_the_version_stands_in_one_place():
    version = SETTINGS["DEFAULT"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert entropy_captum.__version__ == version == citation["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text() and f"Version {version}}}" in (ROOT / "docs/cite.md").read_text()


@pytest.mark.slow
def test_the_citation_is_valid():
    """By the schema of the format, which cffconvert carries; in an environment of its own, for it needs old packages."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, "cffconvert", "-i", "CITATION.cff"]
    done = subprocess.run([*command, "--validate"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    made = subprocess.run([*command, "-f", "bibtex"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "cite.md").read_text()
    fields = dict(re.findall(r"^\s*(\w+) *= *\{(.*)\}", made, re.M))
    assert {"author", "title", "url"} <= set(fields) and all(value in page for value in fields.values()), fields


def test_workflows_call_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = {}
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job.get("steps", ())]
        runs = [step["run"].split() for step in steps if "run" in step]
        assert runs and all(run[0] == "make" and run[1] in targets for run in runs), path.name
        called[path.stem] = [run[1] for run in runs]
    assert called["tests"] == ["check", "test-only"] and "docs" in called["site"] and "docs-check" in called["outputs"]
    assert called["publish"] == ["release-check", "test", "dist"]


def test_only_a_tag_of_this_version_is_published():
    def check(tag: str) -> subprocess.CompletedProcess:
        return subprocess.run(["make", "-s", "release-check", f"TAG={tag}"], cwd=ROOT, capture_output=True, text=True)
    assert check(f"v{entropy_captum.__version__}").returncode == 0
    wrong = check("v9.9.9")
    assert wrong.returncode and "v9.9.9" in wrong.stderr and entropy_captum.__version__ in wrong.stderr


@pytest.mark.slow
def test_a_module_imports_only_modules_before_it():
    stems = sorted(p.stem for p in (ROOT / "nbs").glob("[0-9]*.ipynb"))
    order = {stem.partition("_")[2]: int(stem.partition("_")[0]) for stem in stems}
    assert sorted(order.values()) == list(range(len(stems)))  # each number once
    for name, number in order.items():
        tree = ast.parse((ROOT / "entropy_captum" / f"{name}.py").read_text())
        imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
        later = [m for m in imported if order.get(m.removeprefix("entropy_captum.").lstrip("."), -1) >= number]
        assert not later, f"{name} imports {later}"


def test_notebooks_are_read_in_one_order_on_disk_on_the_site_and_in_the_index():
    stems = sorted(p.stem for p in (ROOT / "nbs").glob("[0-9]*.ipynb"))
    assert re.findall(r"notebooks/(\d\d_\w+)", (ROOT / "docs/how.md").read_text()) == stems
    index = "".join(line for cell in json.loads((ROOT / "nbs/index.ipynb").read_text())["cells"] for line in cell["source"])
    assert list(dict.fromkeys(re.findall(r"\((\d\d_\w+)\.ipynb\)", index.partition("in reading order")[2]))) == stems
