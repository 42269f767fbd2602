"""A command says each thing once."""
from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from entropy_captum import cli
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
