"""What is written is whole: after a kill, on a full disk, and beside another process; and the work goes on afterwards."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import largest_file
from typer.testing import CliRunner

from entropy_captum import EntropyCentric, Estimate, study
from entropy_captum.cli import app
from entropy_captum.drawn import write_drawn_raster, write_scenes
from entropy_captum.explanation import ask, explain_question
from entropy_captum.files import extent_of_array
from entropy_captum.question import Budget
from entropy_captum.request import Request
from entropy_captum.study import RunFolder, kept_maps, save_maps
from entropy_captum.tiles import find_sources
from entropy_captum.training import Recipe, save_weights, train
from entropy_captum.writing import RECORD, clear_leftovers, files_of, record_of, write_together, write_whole, writing_to

HIDDEN = ".entropy-captum-*.tmp"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, text: str = "new") -> None:
    (folder / "a").write_text(text)
    (folder / "b").write_text(text)


# ---- the writer

@pytest.mark.parametrize("end", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_what_ends_in_the_middle_leaves_all_as_it_was(tmp_path, end):
    def cut(place: Path) -> None:
        fill(place) if place.is_dir() else place.write_text("new")
        raise end

    out = tmp_path / "new" / "out"
    expected = ValueError if isinstance(end, OSError) else type(end)
    with pytest.raises(expected):
        write_together(out, cut)
    assert not out.exists()
    write_together(out, partial(fill, text="old"))
    before = files_in(out)
    with pytest.raises(expected):
        write_together(out, cut, stale=("a",))
    with pytest.raises(expected):
        write_whole(out / "a", cut)
    assert files_in(out) == before == {"a": b"old", "b": b"old"} and len(list(out.iterdir())) == 2


@pytest.mark.parametrize("step", range(1, 5))
def test_a_change_that_is_cut_short_claims_to_be_neither(tmp_path, monkeypatch, step):
    """A kill between two of the moves: no record tells of files that are not its own, and the next writer knows what to remove."""
    def made(folder: Path, text: str, *names: str) -> None:
        for name in names:
            (folder / name).write_text(text)
        (folder / RECORD).write_text(json.dumps({"file": text, "files": [*names, RECORD]}))

    write_together(tmp_path, lambda folder: made(folder, "old", "a", "b"))
    moves, move = [], Path.replace

    def cut(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == step:
            raise KeyboardInterrupt
        return move(path, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, lambda folder: made(folder, "new", "a", "c"), stale=files_of(tmp_path))
    monkeypatch.undo()
    record, texts = record_of(tmp_path), {name: (tmp_path / name).read_text() for name in "abc" if (tmp_path / name).exists()}
    assert texts == {"a": "old", "b": "old"} if record is not None else step > 1
    assert {"a", "b"} <= set(files_of(tmp_path))
    write_together(tmp_path, lambda folder: made(folder, "last", "c"), stale=files_of(tmp_path))
    assert set(files_in(tmp_path)) == {"c", RECORD} and record_of(tmp_path)["file"] == "last"


def test_a_killed_process_leaves_the_old_files_and_one_folder_that_goes_later(tmp_path):
    write_together(tmp_path / "out", partial(fill, text="old"))
    code = ("import os, signal, sys\nfrom pathlib import Path\nfrom entropy_captum.writing import write_together\n"
            "def write(folder):\n    (folder / 'a').write_text('ne')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
            "write_together(Path(sys.argv[1]), write)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")])
    assert done.returncode == -signal.SIGKILL
    left, = (tmp_path / "out").glob(HIDDEN)
    assert [(tmp_path / "out" / name).read_text() for name in "ab"] == ["old", "old"] and (left / "a").read_text() == "ne"
    write_together(tmp_path / "out", fill)
    assert left.is_dir(), "it might be that of a process at work"
    os.utime(left, (time.time() - 3700,) * 2)
    (tmp_path / "out" / ".mine.tmp").mkdir()
    os.utime(tmp_path / "out" / ".mine.tmp", (0, 0))
    write_together(tmp_path / "out", fill)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".mine.tmp", "a", "b"]


def test_nobody_who_looks_for_files_of_a_kind_finds_an_unfinished_one(tmp_path):
    """The rows of a run are looked for while it is at work."""
    def write(file: Path) -> None:
        file.write_text("half")
        assert not list(tmp_path.rglob("*.parquet")) and file.parent == tmp_path

    write_whole(tmp_path / "tile.parquet", write)
    assert (tmp_path / "tile.parquet").read_text() == "half"


def test_two_that_write_the_same_file_do_not_mix(tmp_path):
    """One begins, the other begins and ends, the first ends: its content is there, whole."""
    path = tmp_path / "log.json"

    def slow(file: Path) -> None:
        with open(file, "w") as content:
            content.write("first, ")
            content.flush()
            write_whole(path, lambda other: other.write_text("second"))
            assert path.read_text() == "second"
            content.write("at length")

    write_whole(path, slow)
    assert path.read_text() == "first, at length" and [each.name for each in tmp_path.iterdir()] == ["log.json"]


def test_a_mount_point_can_be_written_to(tmp_path):
    """What is unfinished lies in the folder itself: beside a mount point it could not be moved into it, or not be written."""
    seen = []
    write_together(tmp_path / "out", lambda folder: seen.append(folder))
    assert seen[0].parent == tmp_path / "out"


def test_the_outermost_path_and_the_reason_are_named(tmp_path):
    with (pytest.raises(ValueError, match=r"^results: could not be written \(No space left on device\); make room, and run again"),
          writing_to(Path("results")), writing_to(Path("results/map"))):
        raise OSError(28, "No space left on device")
    with pytest.raises(ValueError, match=r"log\.json: could not be written \(a stream broke\)"):
        write_whole(tmp_path / "log.json", lambda _: (_ for _ in ()).throw(LookupError("a stream broke")), LookupError)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file: could not be written"):
        write_together(tmp_path / "file", fill)
    clear_leftovers(tmp_path / "nowhere")


# ---- estimates and explanations

@pytest.fixture(scope="module")
def estimate() -> Estimate:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3, padding=1)).eval()
    return EntropyCentric(model).estimate(torch.rand(1, 3, 16, 16), region=torch.ones(16, 16), grid_size=4, n_samples=4)


def test_an_estimate_that_does_not_fit_leaves_the_one_before(tmp_path, estimate):
    path = estimate.save(tmp_path / "roof")
    before = files_in(tmp_path)
    with largest_file(500), pytest.raises(ValueError, match=r"roof\.npz: could not be written"):
        replace(estimate, settings=estimate.settings | {"seed": 7}).save(path)
    assert files_in(tmp_path) == before and torch.equal(Estimate.load(path).scores, estimate.scores)


@pytest.mark.slow
def test_a_saved_explanation_outlives_one_that_does_not_fit(tmp_path, estimate):
    image, model = np.full((32, 32, 3), 128, np.uint8), torch.nn.Conv2d(3, 1, 1)
    request = Request(image, extent_of_array(image, "grey"), np.eye(32, dtype=bool))
    found = explain_question(request, ask(model, request, grid_size=2), Budget(2), ["entropy"])
    found.save(tmp_path)
    before = files_in(tmp_path)
    with largest_file(1500), pytest.raises(ValueError, match=rf"^{tmp_path}: could not be written .*make room"):
        replace(found, table=found.table.iloc[::-1]).save(tmp_path)
    assert files_in(tmp_path) == before and "entropy-estimate.npz" in before


# ---- studies

def source_of_a_tile(folder: Path):
    write_scenes(folder / "drawn/val", (1,), 32)
    return find_sources(folder)[0]


def test_a_map_that_was_cut_off_is_no_map(tmp_path, monkeypatch):
    """An array whose values were not written reads as zeros."""
    pytest.importorskip("zarr")
    source, rows = source_of_a_tile(tmp_path / "data"), pd.DataFrame({"status": ["ok"]})
    heat = {"class/grey/0/ones": np.ones((32, 32), np.float32), "class/grey/0/entropy": np.ones((32, 32), np.float32)}
    with RunFolder(tmp_path / "run", {"settings": 0}) as folder:
        def cut(store: Path, group: str, maps) -> None:
            save_maps(store, group, maps)
            next((store / group / "class/grey/0/entropy/c").rglob("0/0")).unlink()
            raise KeyboardInterrupt

        for kept in (True, False):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(study, "save_maps", cut)
                folder.write(source, rows, heat)
            assert not folder.path(source).exists() and kept_maps(folder.home) == {}
            folder.write(source, rows, heat if kept else None)
            found = kept_maps(folder.home)
            assert sorted(found) == sorted(f"{source.key}/{name}" for name in heat if kept)
            assert all((each == 1).all() for each in found.values())


def test_a_run_that_goes_on_removes_what_a_killed_one_left(tmp_path):
    source = source_of_a_tile(tmp_path / "data")
    with RunFolder(tmp_path / "run", {"settings": 0}) as folder:
        folder.write(source, pd.DataFrame({"status": ["ok"], "checksum": [source.checksum()]}))
        for place in (folder.home, folder.path(source).parent):
            (place / HIDDEN.replace("*", "1a2b")).write_text("ha")
        (folder.home / "run.json").unlink()
    with RunFolder(tmp_path / "run", {"settings": 0}) as folder:
        assert not list((tmp_path / "run").rglob("*.tmp")) and (folder.home / "run.json").is_file() and folder.done(source)


# ---- training

def test_a_training_that_goes_on_removes_what_a_killed_one_left(tmp_path):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 32)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / HIDDEN.replace("*", "1a2b")).write_bytes(b"half a state")
    (tmp_path / "run" / "state.pt").write_bytes(b"none, which ends this before the first step")
    with pytest.raises(ValueError, match=r"state\.pt: not a readable"):
        train([tmp_path / "toy"], tmp_path / "run", Recipe(encoder="resnet18", steps=1, procedural=0), show_progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.pt"]


def test_weights_that_do_not_fit_leave_those_before(tmp_path):
    path, small, large = tmp_path / "weights.safetensors", torch.nn.Linear(2, 2), torch.nn.Linear(200, 200)
    save_weights(small, path, {})
    before = files_in(tmp_path)
    with largest_file(5000), pytest.raises(ValueError, match=r"weights\.safetensors: could not be written .*make room"):
        save_weights(large, path, {})
    assert files_in(tmp_path) == before


def test_a_training_whose_folder_cannot_be_made_says_so_before_it_begins(tmp_path):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 32)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file/run: could not be written"):
        train([tmp_path / "toy"], tmp_path / "file/run", Recipe(encoder="resnet18", steps=10**6, procedural=0), show_progress=False)


@pytest.mark.parametrize("place,line", [
    pytest.param("survey", "explain scene.tif --footprints buildings.gpkg --scale 0 4095 --grid-size 2 --n-samples 2",
                 marks=pytest.mark.slow),
    ("study", "evaluate --data data --grid-size 2 --n-samples 2 --out run"), ("training", "train data --steps 1 --out weights")])
def test_the_terminal_says_what_goes_on_after_ctrl_c(place, line, tmp_path, monkeypatch):
    """Of many buildings too, which are one command with one building, of which nothing is kept."""
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_drawn_raster(tmp_path, size=128)
    write_scenes(tmp_path / "data/town", (2,), 64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"entropy_captum.{place}.{place.replace('study', 'evaluate').replace('training', 'train')}", stopped)
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 130 and "Stopped. What is done is kept: the same command goes on from there" in done.output
    if place == "survey":
        monkeypatch.setattr("entropy_captum.explanation.explain_question", stopped)
        alone = CliRunner().invoke(app, [*line.split(), "--id", "1"])
        assert alone.exit_code == 130 and "Stopped" not in alone.output
