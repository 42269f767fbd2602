"""How the explorer draws maps, and how fine a grid it takes by itself."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from browser import CANVAS, Watched, find_chromium, open_browser, run_all, run_lab, wait_for_message, write_notebook

from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import grid_for
from entropy_captum.explorer import Explorer, cells_of, drawn, explore, palette
from entropy_captum.figures import dimmed, own_pixels, uncertain
from entropy_captum.methods import run_methods
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget, Question


class Bright(torch.nn.Module):
    """Bright pixels are objects; a stand-in that takes no time."""

    def forward(self, x):
        return 4 * x.mean(1, keepdim=True)


@pytest.fixture
def explorer() -> Explorer:
    image = np.full((64, 64, 3), 60, np.uint8)
    image[8:12, 8:12], image[24:60, 30:60] = 250, 240
    return explore(Bright().eval(), image, min_pixels=4, n_samples=2)


def test_the_grid_is_as_fine_as_the_object_is_small(explorer):
    """As the command `explain` takes it; the code names the grid, so that it does the same later on."""
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "message")
    for number, grid in ((1, 16), (2, 8)):
        explorer.explain(number)
        told = explorer.wait(60)
        assert told.question.grid_size == grid == grid_for(told.region) and explorer.maps[0]["shape"] == [grid, grid]
        assert f"{grid} x {grid} patches" in explorer.maps[0]["made"] and f"grid_size={grid}" in explorer.code
        assert any(text.endswith(f"pixels, by {grid} x {grid} patches") for text in seen)
    assert explorer.grid_size is None
    explorer.explain([2, 1])
    explorer.wait(60)
    assert [one.question.grid_size for one in explorer.explanations[2:]] == [16, 16], "several share forwards, so also a grid"
    explorer.grid_size = 4
    explorer.explain(1)
    assert explorer.wait(60).question.grid_size == 4


def test_marks_are_those_of_figures(explorer):
    explorer.grid_size, explorer.n_samples = 8, 4
    explorer.explain(1)
    told = explorer.wait(60)
    estimate, (sent,) = told.found["entropy"].estimate, explorer.maps
    own = np.frombuffer(sent["own"], np.uint8).reshape(8, 8).repeat(8, 0).repeat(8, 1)
    assert np.array_equal(own > 0, own_pixels(told.region, estimate.patches(0))) and 0 < own.sum() < own.size
    scores, errors = (each[0].numpy() for each in (estimate.scores, estimate.standard_error))
    assert np.array_equal(np.frombuffer(sent["uncertain"], bool), uncertain(scores, errors))
    assert explorer.drawing["marks"].keys() == {"own", "uncertain"}


def test_cells_that_hold_nothing_have_no_score():
    """Where an image ends inside of its window there are fewer scores than cells, and each keeps its place."""
    grid = grid_feature_mask((6, 6), 3)[0, 0].numpy()
    patches = np.where(grid > 3, grid - 1, grid)
    patches[grid == 3] = -1
    assert cells_of(patches, (3, 3)).tolist() == [[0, 1, 2], [-1, 3, 4], [5, 6, 7]]
    x = torch.rand(1, 3, 6, 6, generator=torch.manual_seed(0))
    question = Question(Bright(), x, np.ones((6, 6), bool), valid=patches >= 0, grid_size=3)
    estimate = run_methods(question, Budget(4), ["entropy"])["entropy"].estimate
    sent = np.frombuffer(drawn("entropy", estimate, (3, 3), np.ones((6, 6), bool))["scores"], np.float32)
    assert np.isnan(sent).tolist() == [k == 3 for k in range(9)]
    assert np.allclose(sent[[0, 1, 2, 4, 5, 6, 7, 8]], estimate.scores[0])


def test_the_opacity_follows_the_score():
    colors = np.frombuffer(palette("cividis"), np.uint8).reshape(256, 4).astype(int)
    assert colors[[0, 255], 3].tolist() == [255, 255] and colors[127:129, 3].max() <= 1
    assert (np.diff(colors[128:, 3]) >= 1).all() and (np.diff(colors[:128, 3]) <= -1).all()


@pytest.mark.browser
def test_only_the_explained_object_is_bright(tmp_path):
    """All else is dark as `figures.dimmed` makes it, but with the image only; of the scales there are two."""
    find_chromium()
    scene = procedural_scene(2)
    root = tmp_path / "root"
    root.mkdir()
    write_notebook(root / "explorer.ipynb", """from entropy_captum.drawn import procedural_scene
from entropy_captum.explorer import explore

explorer = explore(lambda x: 8 * (x[:, :1] - 0.2), procedural_scene(2).image, n_samples=2)
explorer.explain((120, 100, 160, 140))
explorer""")
    with run_lab(root, tmp_path / "home") as url, open_browser() as browser:
        watched = Watched(browser, url, viewport={"width": 1280, "height": 1000})
        page, canvas = watched.page, watched.page.locator(CANVAS)
        run_all(page, url, "explorer.ipynb")
        canvas.wait_for(timeout=120_000)
        wait_for_message(page, "Done: gap", 240)
        panel = page.locator(".ec-panel")
        assert panel.get_by_label("patches a side").locator("option:checked").inner_text() == "by the object's size"
        assert page.locator(".ec-bar > span:first-child").all_inner_texts() == ["around it", "at the object"]
        assert "a scale of their own" in page.locator(".ec-legend").inner_text()
        panel.get_by_label("opacity").fill("0")
        look = "(c) => [...c.getContext('2d').getImageData(3, 3, 762, 762).data]"
        dark = np.array(canvas.evaluate(look)).reshape(762, 762, 4)[..., :3]
        panel.get_by_label("show").select_option("image only")
        bright = np.array(canvas.evaluate(look)).reshape(762, 762, 4)[..., :3]
        inside, ground = (slice(330, 390), slice(390, 450)), (slice(660, 740), slice(20, 100))
        assert np.median(np.abs(dark[ground] - dimmed(bright.astype(np.uint8))[ground].astype(int))) <= 6
        assert np.median(np.abs(bright - scene.image.repeat(3, 0).repeat(3, 1)[3:765, 3:765])) <= 4
        assert np.abs(dark - bright)[inside].mean() < np.abs(dark - bright)[ground].mean() / 2
        page.close()
    assert not watched.wrong
