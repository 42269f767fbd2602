"""What pictures show: one object, opacity that follows the score, a scale for what surrounds it, and a grid as fine as it is."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import load_tool
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from entropy_captum import figures
from entropy_captum.cli import app
from entropy_captum.estimate import Estimate
from entropy_captum.explanation import Explanation, ask, grid_for
from entropy_captum.figures import (
    FOUND,
    MISSED,
    closeup,
    dimmed,
    explanation_figure,
    in_the_dark,
    map_figure,
    overlay,
    own_pixels,
    panel,
    png_of,
    show_object,
    uncertain,
)
from entropy_captum.files import extent_of_array
from entropy_captum.request import Request
from entropy_captum.zoo import Padded, rooftop_unet

GROUND = np.full((64, 64, 3), 100, np.uint8)
PATCHES = np.arange(16).reshape(4, 4).repeat(16, 0).repeat(16, 1)  # 4 x 4 patches of 16 x 16 pixels
REGION = np.zeros((64, 64), bool)
REGION[18:26, 10:20] = True  # in the patches 4 and 5


def spread(scores):
    """Scores of the 16 patches as a map."""
    return np.asarray(scores, np.float64)[PATCHES]


#: The object's own patches are a hundred times above all others.
SCORES = np.linspace(0.0, 0.15, 16)
SCORES[[4, 5]] = 10.0, 20.0


def layers(ax):
    """The pictures that have a colour scale, by the label of their colour bar, and what is drawn of each, (H,W,4)."""
    bars = [inset for inset in ax.child_axes if inset.get_label() == "<colorbar>" or inset.collections]
    named = [bar.get_ylabel().replace("\n", " ") for bar in bars]
    scaled = [image for image in ax.images if image.get_array().ndim == 2]
    return {name: (image, image.to_rgba(image.get_array())) for name, image in zip(named, scaled, strict=True)}


def drawn(**options):
    """An overlay by itself."""
    ax = Figure().subplots()
    overlay(ax, GROUND, options.pop("heat", spread(SCORES)), REGION, unit="bit", **options)
    return ax


def hatched(ax):
    """The hatched contours of a picture."""
    return [one for one in ax.collections if any(getattr(one, "hatches", ()) or ())]


def test_opacity_is_in_proportion_to_the_score():
    """0 is clear, the highest is opaque to 0.8, half of that to 0.4; below 0 the size counts; a map by itself hides nothing."""
    (_, colors), = layers(drawn(heat=spread(np.linspace(0, 2, 16)))).values()
    np.testing.assert_allclose(colors[..., 3], 0.4 * spread(np.linspace(0, 2, 16)), atol=0.004)
    (_, colors), = layers(drawn(heat=spread(np.linspace(-3, 0, 16)))).values()
    np.testing.assert_allclose(colors[..., 3], -spread(np.linspace(-3, 0, 16)) * 0.8 / 3, atol=0.004)
    ax = Figure().subplots()
    overlay(ax, None, spread(SCORES))
    (_, colors), = layers(ax).values()
    assert (colors[..., 3] == 1).all()


def test_nan_and_flat_maps_are_drawn():
    """What is not known is clear, and a map of one value or none has a scale."""
    heat = spread(SCORES)
    heat[:16] = np.nan
    (_, colors), = layers(drawn(heat=heat)).values()
    assert (colors[:16, :, 3] == 0).all() and colors[16:, :, 3].max() > 0.7
    for flat in (heat * np.nan, heat * 0, heat * 0 + 2):
        layers(drawn(heat=flat, own=own_pixels(REGION, PATCHES), error=heat * 0))


def test_surroundings_have_a_scale_of_their_own():
    """The scale around the object ends at the highest score there, and both bars say which they are; no pixel has both."""
    own = own_pixels(REGION, PATCHES)
    np.testing.assert_array_equal(own, np.isin(PATCHES, (4, 5)))
    found = layers(drawn(own=own))
    assert list(found) == ["bit around it", "bit at the object"]
    (around, outer), (at, inner) = found.values()
    assert around.get_clim() == pytest.approx((0, 0.15)) and at.get_clim() == (0, 20)
    assert (outer[own][:, 3] == 0).all() and (inner[~own][:, 3] == 0).all()
    assert outer[-1, -1, 3] == pytest.approx(0.8, abs=0.01) and inner[20, 20, 3] == pytest.approx(0.8, abs=0.01)
    red, green, blue = inner[20, 10, :3]
    assert red == green == blue and len(set(outer[-1, -1, :3])) == 3  # the object's patches are grey, the others are not
    assert layers(drawn())["bit"][0].get_clim() == (0, 20)


@pytest.mark.parametrize("region", [np.ones((64, 64), bool), np.zeros((64, 64), bool)])
def test_one_scale_where_nothing_surrounds_the_object(region):
    """An object in every patch, or in none, leaves one scale."""
    ax = Figure().subplots()
    overlay(ax, GROUND, spread(SCORES), region, own=own_pixels(region, PATCHES), unit="bit")
    assert list(layers(ax)) == ["bit"]


def test_scores_that_errors_do_not_tell_from_0_are_hatched():
    """Below 2 standard errors of either sign; an error of 0 or NaN hatches nothing."""
    scores = np.array([0.19, 0.21, -0.19, -0.21, 0.0, 0.0, 1.0])
    errors = np.array([0.1, 0.1, 0.1, 0.1, 0.0, 0.1, np.nan])
    assert uncertain(scores, errors).tolist() == [True, False, True, False, False, True, False]
    errors = np.full(16, 0.01)
    errors[3], errors[4] = 0.1, 4.0
    ax = drawn(error=spread(errors))
    (marks,) = hatched(ax)
    inside = [marks.get_paths()[0].contains_point(place) for place in ((56, 8), (8, 24), (8, 8), (40, 40))]
    assert inside == [True, False, True, False]  # columns and rows in the patches 3, 4, 0 and 10
    assert not hatched(drawn()) and not hatched(drawn(error=spread(errors * 0)))


def texts(figure):
    """The texts of a figure's legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def off_the_pictures(figure):
    """Whether a figure's legends touch none of its pictures, their titles and colour bars included."""
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes if ax.images]
    return all(not box.overlaps(legend.get_window_extent()) for legend in figure.legends for box in boxes)


@pytest.mark.slow
def test_explanation_says_its_rules_below_the_pictures():
    """The legend has the rule of the hatching and of the scales, and lies on nothing; a map without errors has no hatching."""
    figure = explanation_figure(GROUND, spread(SCORES), spread(SCORES), REGION, unit="bit", patches=PATCHES)
    own, rule = texts(figure)
    assert "scale of their own" in own and "below 2 standard errors" in rule and off_the_pictures(figure)
    assert [len(layers(ax)) for ax in figure.axes[1:]] == [2, 2] and not hatched(figure.axes[2])
    (only,) = texts(explanation_figure(GROUND, spread(SCORES), None, REGION, unit="bit"))
    assert only == own
    assert not map_figure(None, spread(SCORES), spread(SCORES) / 100, None, PATCHES).legends


def test_a_method_names_its_scores_and_not_the_picture_beside_them():
    figure = explanation_figure(GROUND, spread(SCORES), spread(SCORES), REGION, unit="bit", method="sobol")
    titles = [ax.get_title() for ax in figure.axes if ax.images and ax.get_title()]
    assert titles == ["image and region", "sobol: score", "standard error"]


def test_only_the_object_is_bright():
    """Its pixels are as they were, all others are darker and greyer."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    shown = dimmed(image, REGION).astype(int)
    np.testing.assert_array_equal(shown[REGION], image[REGION])
    assert shown[~REGION].mean() < 0.85 * image[~REGION].mean()
    assert np.ptp(shown[~REGION], axis=1).mean() < 0.5 * np.ptp(image[~REGION].astype(int), axis=1).mean()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 56), (56, 0), (56, 56), (28, 28), (10, 40)])
def test_inset_enlarges_a_small_object_and_does_not_hide_it(row, column):
    """The inset is square, shows the whole object, larger than it is beside it, and lies elsewhere."""
    region = np.zeros((64, 64), bool)
    region[row:row + 8, column:column + 8] = True
    figure = Figure(figsize=(4, 4))
    ax = figure.subplots()
    show_object(ax, GROUND, region, inset=True)
    figure.draw_without_rendering()
    (small,) = ax.child_axes
    (left, right), (low, high) = small.get_xlim(), small.get_ylim()[::-1]
    assert left <= column - 0.5 and right >= column + 7.5 and low <= row - 0.5 and high >= row + 7.5
    place, corners = small.get_window_extent(), [(column - 0.5, row - 0.5), (column + 7.5, row + 7.5)]
    assert place.width / (right - left) >= 1.5 * ax.get_window_extent().width / 64
    assert not any(place.contains(*ax.transData.transform(corner)) for corner in corners)
    middle = ax.transData.inverted().transform(((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2))
    assert all((there - 31.5) * (here + 3.5 - 31.5) <= 0 for there, here in zip(middle, (column, row), strict=True))
    large = np.zeros((64, 64), bool)
    large[5:50, 5:50] = True
    ax = Figure().subplots()
    show_object(ax, GROUND, large, inset=True)
    assert not ax.child_axes


def test_closeup_stays_in_the_image():
    """A square around the object with a margin, less at a border; the whole image for a large object."""
    assert closeup(REGION) == (slice(14, 30), slice(7, 23))
    assert closeup(np.ones((40, 64), bool)) == (slice(0, 40), slice(12, 52))
    corner = np.zeros((64, 64), bool)
    corner[:10, :10] = True
    for turned, ends in ((corner[:, ::-1], (slice(0, 16), slice(48, 64))), (corner[::-1], (slice(48, 64), slice(0, 16)))):
        assert closeup(turned) == ends


def rows_of(kept=(0.1, 0.9), drops=(36.5, -0.04)):
    """Two tested maps: of patches with errors, and one without either."""
    left = np.zeros((64, 64), bool)
    left[:, :14] = True  # part of the object, and much else
    shown = figures.Tested(spread(SCORES), "bit", (GROUND, GROUND), (left, ~left), drops, kept, spread(SCORES), PATCHES)
    return {"entropy": shown, "grad-cam": replace(shown, error=None, patches=None)}


def test_panel_colours_only_the_object():
    """Of what is predicted on a test's input only the object has a colour, by whether it is found; elsewhere nothing is filled."""
    figure = panel(GROUND, REGION, np.ones((64, 64), bool), REGION, rows_of())
    axes = np.array(figure.axes).reshape(3, 5)
    for ax, found in zip(axes[1:, [2, 4]].flat, [np.arange(64) < 14, np.arange(64) >= 14] * 2, strict=True):
        ground, fill = ax.images
        colors = fill.get_array()
        assert (colors[~REGION][:, 3] == 0).all() and np.ptp(ground.get_array().astype(int), axis=2).max() == 0
        expected = np.where(np.broadcast_to(found, (64, 64))[..., None], to_rgba(FOUND), to_rgba(MISSED))
        np.testing.assert_allclose(colors[REGION][:, :3], expected[REGION][:, :3])
        (left, right), (high, low) = ax.get_xlim(), ax.get_ylim()
        assert right - left == 16 and high - low == 16  # enlarged four times
    bright = axes[0, 0].images[0].get_array()
    assert (bright[REGION] == 100).all() and bright[~REGION].max() < 90


@pytest.mark.slow
def test_panel_says_drop_and_kept_area_in_titles_and_its_legend_floats_nowhere():
    """The titles of the test pictures hold the numbers; the legend lies on no picture; a drop that rounds to 0 has no sign."""
    figure = panel(GROUND, None, REGION, REGION, rows_of())
    titles = [[ax.get_title().replace("\n", " ") for ax in row] for row in np.array(figure.axes).reshape(3, 5)]
    for row in titles[1:]:
        assert row[1:] == ["L-SIT: 10% of the surroundings kept", "L-SIT: confidence drop 36.5 points",
                           "H-SIT: 90% of the surroundings kept", "H-SIT: confidence drop 0.0 points"]
    assert titles[0][4] == "" and len(texts(figure)) == 5 and off_the_pictures(figure)
    assert not any(ax.texts for ax in figure.axes)


def test_patches_of_an_estimate():
    """The feature of every pixel, of the example that is meant; `show` outlines its region, which has to fit."""
    index = torch.stack([torch.from_numpy(PATCHES)[None], torch.from_numpy(PATCHES)[None] % 4])
    values = torch.from_numpy(np.stack([SCORES, SCORES]))
    counts = torch.ones(2, dtype=torch.int64)
    estimate = Estimate(values, values / 10, values, values, counts, counts, counts, (index,), ((3, 64, 64),), {})
    np.testing.assert_array_equal(estimate.patches(0), PATCHES)
    np.testing.assert_array_equal(estimate.patches(1), PATCHES % 4)
    figure = estimate.show(GROUND, 0, REGION)
    assert list(layers(figure.axes[0])) == ["around it", "at the object"] and off_the_pictures(figure)
    with pytest.raises(ValueError, match=r"region of shape \(8, 8\) does not fit the map of \(64, 64\)"):
        estimate.show(GROUND, 0, np.ones((8, 8), bool))


@pytest.mark.parametrize(("size", "side", "grid"), [
    ((512, 512), 40, 13), ((512, 512), 64, 8), ((512, 512), 63, 9), ((512, 512), 400, 8), ((512, 512), 32, 16), ((512, 512), 5, 16),
    ((256, 256), 38, 8), ((256, 512), 50, 11), ((12, 12), 1, 12), ((4, 4), 1, 4)])
def test_grid_is_as_fine_as_the_object(size, side, grid):
    """A patch is at most as long as the object between 8 and 16 patches a side, and no smaller than a pixel."""
    region = np.zeros(size, bool)
    region[:side, :side] = True
    assert grid_for(region) == grid
    if 8 < grid < 16 and min(size) > 16:
        assert max(size) / grid <= side < max(size) / (grid - 1)


@pytest.fixture(scope="module")
def request_of():
    """A request for a square of so many pixels a side in a plain image."""
    image = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)

    def make(side):
        region = np.zeros((128, 128), bool)
        region[40:40 + side, 40:40 + side] = True
        return Request(image, extent_of_array(image, "a plain image"), region)

    return make


def test_python_default_stays_8_and_none_chooses(request_of):
    """`ask` takes 8 unless it is told; None is the object's grid; where bands are removed it is 8."""
    model = Padded(rooftop_unet())
    assert ask(model, request_of(10)).grid_size == 8
    assert ask(model, request_of(10), grid_size=None).grid_size == 13
    assert ask(model, request_of(10), grid_size=4).grid_size == 4
    assert len(torch.unique(ask(model, request_of(10), grid_size=None, features="bands*patches").feature_mask)) == 3 * 64


def test_explain_says_and_records_the_grid(tmp_path, request_of, monkeypatch):
    """One line says how fine and what it costs; the estimate's description has it; an explicit grid is taken without a word."""
    from PIL import Image

    Image.fromarray(request_of(10).image).save(tmp_path / "tile.png")
    Image.fromarray(request_of(10).region).save(tmp_path / "mask.png")
    asked = []
    monkeypatch.setattr("entropy_captum.explanation.explain_question", lambda _, question, *rest: asked.append(question))
    monkeypatch.setattr("entropy_captum.cli.save_and_print", lambda *_: None)
    command = ["explain", str(tmp_path / "tile.png"), "--mask", str(tmp_path / "mask.png"), "--n-samples", "4"]
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    (line,) = [line for line in said.splitlines() if "grid of" in line]
    assert "13 x 13 patches of 10 x 10 pixels" in line and "square of 10;" in line and "680 forwards, 2.6 times" in line
    assert "--grid-size" in line and "--window" not in line
    said = CliRunner().invoke(app, [*command, "--grid-size", "5"], catch_exceptions=False).output
    assert "grid of" not in said and [question.grid_size for question in asked] == [13, 5]


@pytest.mark.slow
def test_saved_settings_have_the_grid(tmp_path, request_of):
    """Whoever loads an estimate reads how fine its grid was."""
    from entropy_captum.explanation import explain_question
    from entropy_captum.question import Budget

    question = ask(Padded(rooftop_unet()), request_of(40), grid_size=2)
    told: Explanation = explain_question(request_of(40), question, Budget(2, 8), ["entropy"])
    told.save(tmp_path)
    assert json.loads((tmp_path / "entropy-estimate.json").read_text())["grid_size"] == 2
    row = told.table.set_index("map").loc["entropy"]
    from entropy_captum.evaluation import SitTester
    from entropy_captum.explanation import tested

    shown = tested(SitTester(question), told.found["entropy"].maps[0], "bit", told.found["entropy"].estimate)
    assert shown.drops == pytest.approx((row["l_sit_confidence_drop"], row["h_sit_confidence_drop"]))
    assert shown.kept == pytest.approx((row["l_sit_kept_area"], row["h_sit_kept_area"]))


def test_in_the_dark_paper_is_dark_and_photographs_stay():
    paper, noise = np.full((120, 260, 3), 255, np.uint8), np.random.default_rng(0).integers(0, 150, (80, 80, 3), np.uint8)
    noise[30:40, 30:40] = 255  # a white roof
    paper[20:100, 20:100] = noise
    paper[50:54, 150:156], paper[60, 150:250] = 0, (30, 100, 200)  # a letter, a blue line
    found = np.asarray(in_the_dark(Image.fromarray(paper))).astype(int)
    assert (found[20:100, 20:100] == noise).all()
    assert found[:15].max() <= 26 and found[110:].max() <= 26 and found[50:54, 150:156].min() >= 225
    red, green, blue = found[60, 200]
    assert red < green < blue and blue > 120, "light enough on dark, and still blue"
    assert in_the_dark(Image.fromarray(noise)) is None and in_the_dark(Image.fromarray(paper).convert("P")) is not None


def test_in_the_dark_a_map_and_its_bar_keep_their_colours_and_a_plot_is_turned():
    """A map is white in places, and its bar has ticks and a white end; a plot has a band and bars, and its legend follows them."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    first, second = figure.subplots(1, 2)
    values = np.linspace(0, 1, 64).reshape(8, 8)
    image = first.imshow(values, cmap="Oranges")
    figure.colorbar(image, ax=first)
    second.bar([1, 2], [1, 2], width=0.2, color="tab:blue", label="bar")
    second.fill_between([0, 3], [2.5, 2.5], [3, 3], color="tab:blue", alpha=0.12)
    second.legend()
    drawn = np.asarray(Image.open(io.BytesIO(png_of(figure, 80))).convert("RGB")).astype(int)
    dark = np.asarray(in_the_dark(Image.fromarray(drawn.astype(np.uint8)))).astype(int)
    for ax in figure.axes:
        left, top, right, bottom = (ax.get_window_extent().extents * 80 / figure.dpi).round().astype(int)
        inside = np.s_[drawn.shape[0] - bottom + 3:drawn.shape[0] - top - 2, left + 3:right - 2]
        same = (drawn[inside] == dark[inside]).all(2).mean()
        assert same > 0.97 if ax is not second else same < 0.02, (ax, same)
    bars = (drawn == (31, 119, 180)).all(2)
    assert bars.sum() > 300 and (dark[bars] == dark[bars][0]).mean() > 0.99 and dark[bars][0].argmax() == 2


def test_a_picture_of_the_readme_with_another_label_is_another():
    """However an encoder rounds it is the same; a word that has changed is not, though it is a small part."""
    same, paper = load_tool("render_readme").same, np.full((368, 1024, 3), 250, np.uint8)
    paper[100:300, 200:800] = np.arange(200)[:, None, None]

    def encoded(pixels, quality) -> bytes:
        Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG", quality=quality)
        return stream.getvalue()

    other = paper.copy()
    other[20:32, 300:340] = 0
    assert same(encoded(paper, 90), encoded(paper, 91)) and not same(encoded(paper, 90), encoded(other, 90))
    assert not same(encoded(paper, 90), encoded(paper[:-1], 90))
