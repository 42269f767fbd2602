"""A command says each thing once."""
from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from entropy_captum import cli
from entropy_captum.drawn import procedural_scene
from entropy_captum.notices import each_kind_once, notify


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
