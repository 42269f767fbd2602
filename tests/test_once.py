"""A command asks each thing once and says it once."""
from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import entropy_captum
from entropy_captum import cli, explanation
from entropy_captum.drawn import procedural_scene
from entropy_captum.evaluation import SitTester
from entropy_captum.judgement import judge
from entropy_captum.notices import each_kind_once, notify
from entropy_captum.question import Question


def test_a_warning_is_said_once_and_what_differs_in_numbers_is_counted():
    """Also where a library changes the filters in between, by which Python forgets what it has shown."""
    said, shown = [], warnings.showwarning
    with pytest.raises(ZeroDivisionError), each_kind_once(said.append):
        warnings.simplefilter("default")
        for k in (1, 1, 1e-3, 30):
            notify(f"the map of tile {k} is flat (0 to {k / 3}); take more samples")
            notify("no label")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
        raise ZeroDivisionError
    assert said == ["the map of tile 1 is flat (0 to 0.3333333333333333); take more samples", "no label",
                    "2 more like this, with other numbers: the map of tile 1 is flat"]
    assert warnings.showwarning is shown


@pytest.mark.slow
def test_a_command_says_nothing_twice(tmp_path, monkeypatch, capsys):
    """Three maps by two designs, none of which tells patches apart."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(procedural_scene(2, 64).image).save("aerial.png")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save("mask.png")
    monkeypatch.setattr(sys, "argv", [
        "entropy-captum", "explain", "aerial.png", "--mask", "mask.png", "--n-samples", "2", "--grid-size", "2",
        "--method", "entropy,entropy-object,sobol"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("warning: ")]
    assert end.value.code in (0, None) and len(lines) == len(set(lines))
    assert sum(line.startswith("warning: flat map") for line in lines) == 1


def test_no_part_of_the_tests_is_without_a_bar(capsys):
    """Also the tests at the fixed threshold and of random maps, which come before the error of the gap."""
    region = torch.zeros(1, 16, 16)
    region[0, 4:8, 4:8] = 1
    question = Question(lambda x: 4 * x.mean(1, keepdim=True), torch.rand(1, 3, 16, 16), region, grid_size=4)
    judge(SitTester(question), {"entropy": torch.rand(1, 16, 16)}, show_progress=True)
    said = capsys.readouterr().err
    assert 0 <= said.index("testing the maps") < said.index("how sure the tests are")


def records_made(monkeypatch) -> list[tuple[str, dict[str, object]]]:
    """The name and the fields of every dataclass and named tuple of the package, as they are made from now on."""
    made: list[tuple[str, dict[str, object]]] = []

    def watch(kind: type) -> None:
        before = kind.__init__

        def noted(self, *args, **keywords):
            before(self, *args, **keywords)
            made.append((kind.__name__, {field.name: getattr(self, field.name, None) for field in dataclasses.fields(kind)}))
        monkeypatch.setattr(kind, "__init__", noted)

    def watch_tuple(kind: type) -> None:
        before = kind.__new__

        def noted(cls, *args, **keywords):
            one = before(cls, *args, **keywords)
            made.append((kind.__name__, one._asdict()))
            return one
        monkeypatch.setattr(kind, "__new__", noted)

    for found in pkgutil.iter_modules(entropy_captum.__path__):
        module = importlib.import_module(f"entropy_captum.{found.name}")
        for kind in vars(module).values():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                continue
            if dataclasses.is_dataclass(kind):
                watch(kind)
            elif hasattr(kind, "_fields"):
                watch_tuple(kind)
    return made


@pytest.mark.slow
def test_what_is_asked_passes_at_most_two_records_under_one_name(tmp_path, monkeypatch):
    """From the command line to the heat map, whose judgement comes after it; each value is one that nothing else has."""
    class Mapped(BaseException):
        """The heat map is there."""

    def judged(*_: object, **__: object) -> None:
        raise Mapped
    monkeypatch.chdir(tmp_path)
    Image.fromarray(procedural_scene(2, 96).image).save("aerial.png")
    asked = {"grid_size": 3, "n_samples": 22, "perturbations_per_eval": 5077, "seed": 987654, "max_rows": 131}
    options = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    made = records_made(monkeypatch)
    monkeypatch.setattr(sys, "argv", [
        "entropy-captum", "explain", "aerial.png", "--point", "48", "48", "--inference", "full", *options])
    monkeypatch.setattr(explanation, "judge", judged)
    with pytest.raises(Mapped):
        cli.main()
    for name, value in asked.items():
        holders = {(kind, field) for kind, fields in made for field, held in fields.items() if type(held) is int and held == value}
        assert {field for _, field in holders} == {name}, holders
        assert len(holders) <= 2, holders
