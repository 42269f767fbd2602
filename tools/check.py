"""What a target of the Makefile checks, named as the argument: each stage timed, stopping at the first that fails."""
from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(*command: str, **environment: str) -> None:
    subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=True, env=os.environ | environment)


def in_sync() -> None:
    """Clean and export on a copy of the working tree change nothing, and every module has its notebook."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for name in ("nbs", "entropy_captum"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        shutil.copy(ROOT / "settings.ini", copy)
        for command in ("nbdev_clean", "nbdev_export"):
            subprocess.run([str(BIN / command)], cwd=copy, check=True)
        for name in ("nbs", "entropy_captum"):
            differing = compare(ROOT / name, copy / name)
            if differing:
                sys.exit(f"run nbdev_clean and nbdev_export and commit: {', '.join(differing)}")
    modules = {p.stem for p in (ROOT / "entropy_captum").glob("*.py")} - {"__init__", "_modidx"}
    sources = {p.stem.split("_", 1)[-1] for p in (ROOT / "nbs").glob("*.ipynb")}
    if modules - sources:
        sys.exit(f"modules without a notebook: {sorted(modules - sources)}")


def compare(ours: Path, theirs: Path) -> list[str]:
    def files(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob("*")
                if p.is_file() and "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts}
    names = files(ours) ^ files(theirs)
    names |= {n for n in files(ours) & files(theirs) if not filecmp.cmp(ours / n, theirs / n, shallow=False)}
    return sorted(names)


#: Tests with these marks are left to `make test`.
LEFT_OUT = ("slow", "browser", "site", "data")

#: Two workers of one thread each: with more, OpenMP threads of both wait for each other. What a file's tests share is made once.
IN_TWO = ("python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "--durations", "25")

STAGES = {
    "exports in sync": in_sync,
    "README in sync": lambda: run("python", "tools/render_readme.py", "--check"),
    "ruff": lambda: run("ruff", "check", "-q", "."),
    "mypy": lambda: run("mypy", "entropy_captum"),
    "fast tests": lambda: run(*IN_TWO, "-m", " and ".join(f"not {mark}" for mark in LEFT_OUT), OMP_NUM_THREADS="1"),
    "notebooks": lambda: run("nbdev_test", "--n_workers", "2", "--timing", OMP_NUM_THREADS="1"),
    "pytest": lambda: run(*IN_TWO, OMP_NUM_THREADS="1"),
}
QUICK, WHOLE = ("exports in sync", "README in sync", "ruff", "mypy"), ("notebooks", "pytest")
#: The stages of each target of the Makefile.
TARGETS = {"check": QUICK, "fast": (*QUICK, "fast tests"), "test": (*QUICK, *WHOLE), "test-only": WHOLE}

if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    for name in TARGETS[sys.argv[1]]:
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        try:
            STAGES[name]()
        except subprocess.CalledProcessError as error:
            sys.exit(f"== {name}: failed with exit code {error.returncode}")
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)
