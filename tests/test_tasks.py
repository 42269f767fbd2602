"""The guide of the commonest tasks: each in at most two lines, each run here, each with a result that is checked."""
from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

GUIDE = Path(__file__).parent.parent / "nbs/guides/tasks.ipynb"
CELLS = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(GUIDE.read_text())["cells"]]


def tasks() -> dict[int, str]:
    """The code under each numbered heading."""
    found, number = {}, None
    for kind, source in CELLS:
        heading = re.search(r"^## (\d)\. ", source, re.M) if kind == "markdown" else None
        number = int(heading[1]) if heading else None if kind == "markdown" else number
        if kind == "code" and number:
            found[number] = source
    return found


@pytest.fixture(scope="module")
def done() -> dict[str, object]:
    """What all tasks leave behind, run one after the other on what the guide gives."""
    matplotlib.use("agg")
    names: dict[str, object] = {}
    (given,) = [source for kind, source in CELLS if kind == "code" and "rooftop_unet()" in source]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in (given, *tasks().values()):
            exec(compile(source, str(GUIDE), "exec"), names)
    return names


def test_there_are_eight_tasks_of_at_most_two_lines():
    assert sorted(tasks()) == list(range(1, 9))
    for number, source in tasks().items():
        lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
        assert len(lines) <= 2 and len(ast.parse(source).body) <= 2, f"task {number}: {source}"


@pytest.mark.slow
def test_each_task_gives_what_it_says(done):
    roof, estimate = done["roof"], done["estimate"]
    assert roof.dtype == bool and roof[48, 37] and 20 < roof.sum() < 2000
    assert done["heat"].shape == (1, 3, 128, 128) and np.allclose(done["heat"][0, 0], estimate.map(), atol=1e-6)
    assert estimate.scores.shape == (1, 16) and (estimate.margin() > estimate.standard_error).all()
    assert done["array"].shape == (128, 128) and done["array"].max() == pytest.approx(float(estimate.scores.max()))
    ids = done["objects"](done["predict_mask"](done["model"], done["image"]), 20)
    assert done["maps"].shape == (ids.max(), 3, 128, 128)
    one = ids[48, 37] - 1
    assert np.allclose(done["maps"][one, 0], done["heat"][0, 0], atol=1e-5)  # the same object, alone and beside the others
    assert done["cam"].shape == (1, 1, 128, 128) and done["cam"].min() >= 0 and done["cam"].max() > 0
    assert all(np.isfinite(float(result.confidence_drop)) for result in (done["low"], done["high"]))
    assert set(done["rows"]["method"]) == {"entropy", "grad-cam", "random"} and done["rows"]["status"].eq("ok").all()
