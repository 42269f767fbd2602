"""What a map says of a building, in numbers: against plain loops, drawn errors and closed forms."""
import math

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_captum.footprints import metres_between
from entropy_captum.measures import (
    area_outside,
    bearing,
    context_reliance,
    distances_holding,
    measure_map,
    middle_of,
    outside_in_words,
    shares_outside,
    strongest_outside,
)
from entropy_captum.raster import steps_of, to_pixel

GRID = np.kron(np.arange(16).reshape(4, 4), np.ones((6, 6), int))


def drawn(seed):
    rng = np.random.default_rng(seed)
    region = np.zeros((24, 24), bool)
    top, left = rng.integers(0, 14, 2)
    region[top:top + rng.integers(2, 10), left:left + rng.integers(2, 10)] = True
    index = GRID.copy()
    index[rng.random((24, 24)) < 0.1] = -1  # what holds nothing
    return rng.normal(0.3, 0.3, 16), rng.uniform(0.01, 0.05, 16), index, region


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_share_outside_is_that_of_the_pixels_score(seed):
    scores, errors, index, region = drawn(seed)
    inside = outside = 0.0
    for row in range(24):
        for column in range(24):
            patch = index[row, column]
            if patch >= 0:
                part = max(scores[patch], 0) / (index == patch).sum()
                inside, outside = inside + part * region[row, column], outside + part * (not region[row, column])
    share, _ = context_reliance(scores, errors, shares_outside(index, region, 16))
    assert share == pytest.approx(outside / (inside + outside))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_yardstick_is_the_share_of_a_map_that_is_equal_at_every_pixel(seed):
    """Counted pixel by pixel, and as the context reliance of scores as large as their patches."""
    _, errors, index, region = drawn(seed)
    counted = [not region[row, column] for row in range(24) for column in range(24) if index[row, column] >= 0]
    assert area_outside(index, region) == pytest.approx(sum(counted) / len(counted))
    sizes = np.array([(index == patch).sum() for patch in range(16)], float)
    assert context_reliance(sizes, errors, shares_outside(index, region, 16))[0] == pytest.approx(area_outside(index, region))
    assert math.isnan(area_outside(np.full((4, 4), -1), np.ones((4, 4), bool)))
    assert outside_in_words(0.74, 0.87) == "74% of the score lies outside the building (a map without preference would have 87%)"


@pytest.mark.parametrize("seed", range(4))
def test_its_error_is_the_spread_of_shares_of_scores_drawn_again(seed):
    _, _, index, region = drawn(seed)
    rng = np.random.default_rng(seed)
    scores, errors, outside = rng.uniform(0.2, 1, 16), rng.uniform(0.01, 0.03, 16), shares_outside(index, region, 16)
    shares = [context_reliance(again, errors, outside)[0] for again in rng.normal(scores, errors, (4000, 16))]
    assert context_reliance(scores, errors, outside)[1] == pytest.approx(np.std(shares), rel=0.06)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_distances_hold_half_and_nearly_all_of_the_score(seed):
    scores, _, index, region = drawn(seed)
    width, height = 0.3, 0.5
    own = np.argwhere(region)
    found = []
    for row in range(24):
        for column in range(24):
            patch = index[row, column]
            if patch >= 0:
                away = min(np.hypot((column - x) * width, (row - y) * height) for y, x in own)
                found.append((away, max(scores[patch], 0) / (index == patch).sum()))
    for share, distance in zip((0.5, 0.9), distances_holding(scores, index, region, (width, height)), strict=True):
        total = sum(mass for _, mass in found)
        within, before = (sum(mass for away, mass in found if near(away)) for near in
                          (lambda away, d=distance: away <= d + 1e-9, lambda away, d=distance: away < d - 1e-9))
        assert within >= share * total * (1 - 1e-9) and before < share * total


def test_the_strongest_patch_outside_is_weighed_by_what_lies_outside():
    region = np.zeros((24, 24), bool)
    region[:6, :6] = region[:6, 6:11] = True  # patch 0 whole, five sixths of patch 1
    scores = np.full(16, 0.01)
    scores[0], scores[1], scores[15] = 5.0, 1.0, 0.2
    place = strongest_outside(scores, GRID, region)
    assert place.patch == 15 and (place.column, place.row) == (21, 21)
    scores[1] = 1.3
    place = strongest_outside(scores, GRID, region)
    assert place.patch == 1 and (place.column, place.row) == (11.5, 3)
    assert strongest_outside(-scores, GRID, region) is None and strongest_outside(scores, GRID, np.ones_like(region)) is None


@pytest.mark.parametrize(("steps", "end", "expected"), [
    ([[0.3, 0], [0, -0.3]], (0, -10), (0, 3)), ([[0.3, 0], [0, -0.3]], (10, 0), (90, 3)),
    ([[0.3, 0], [0, 0.3]], (0, 10), (0, 3)), ([[0.2, 0], [0, -0.4]], (10, 5), (135, 2 * 2**0.5)),
    ([[0, 0.3], [0.3, 0]], (0, 10), (90, 3))])  # north-up, south-up, oblong, turned by a quarter
def test_a_bearing_is_clockwise_from_north_and_its_distance_in_metres(steps, end, expected):
    assert bearing((0, 0), end, np.array(steps)) == pytest.approx(expected)


def test_true_north_is_not_the_north_of_a_grid():
    # The convergence of a transverse Mercator, to first order: sin(latitude) times the distance from its middle meridian.
    transform = (0.3, 0, 691000, 0, -0.3, 5335000)  # 11.57 degrees east, 48.14 north, in a zone around 9 degrees
    convergence = np.degrees(np.arctan(np.tan(np.radians(11.5675 - 9)) * np.sin(np.radians(48.1394))))
    found, metres = bearing((0, 0), (0, -100), steps_of("EPSG:25832", transform, 0, 0))
    assert found == pytest.approx(convergence, abs=0.01) and metres == pytest.approx(30, abs=0.02)
    degrees = (1e-5, 0, 11.5675, 0, -1e-5, 48.1394)
    column, row = to_pixel(degrees, 11.5675 + 1e-3, 48.1394 + 1e-3)
    found, metres = bearing((0, 0), (column, row), steps_of("EPSG:4326", degrees, 0, 0))
    east, north = 1e-3 * 111320 * np.cos(np.radians(48.1394)), 1e-3 * 111200
    assert found == pytest.approx(np.degrees(np.arctan2(east, north)), abs=0.2)
    assert metres == pytest.approx(np.hypot(east, north), rel=0.003)


def test_what_cannot_be_told_is_nan():
    region = np.zeros((24, 24), bool)
    region[3:5, 3:5] = True
    nothing = measure_map(np.zeros(16), np.ones(16), GRID, region, np.array([[1, 0], [0, -1]]))
    assert nothing.pop("area_outside") == pytest.approx(1 - 4 / 24 ** 2)  # asks for no score
    assert all(np.isnan(value) for value in nothing.values())
    nowhere = measure_map(np.ones(16), np.ones(16), GRID, region)
    assert nowhere["context_reliance"] == pytest.approx(1 - (4 / 36) / 16) and np.isnan(nowhere["distance_half_m"])
    assert middle_of(region) == (4, 4)


@pytest.mark.parametrize(("code", "place"), [("EPSG:27572", (600000.0, 2200000.0)), ("EPSG:2154", (700000.0, 6600000.0))])
def test_a_metre_is_a_metre_where_angles_are_counted_in_grads(code, place):
    """Both are conformal grids of France, the older of a datum whose angles are in grads (400 to a circle)."""
    steps = steps_of(code, (1.0, 0, place[0], 0, -1.0, place[1]), 0, 0)
    assert np.linalg.norm(steps, axis=0) == pytest.approx(1, rel=2e-3)
    assert abs(np.degrees(np.arctan2(steps[1, 0], steps[0, 0]))) < 2.5  # east is east


def test_distances_of_points_in_grads():
    apart = 1e-4
    crs = pyproj.CRS("EPSG:4807")
    north = metres_between(crs, shapely.Point(0, 54), shapely.Point(0, 54 + apart))
    assert float(north.split()[0]) == pytest.approx(apart * 0.9 * 111_200, rel=5e-3)  # a grad is nine tenths of a degree
