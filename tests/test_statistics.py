"""The statistics of a study against scipy's and examples worked by hand."""
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from entropy_captum.cli import print_study
from entropy_captum.evaluation import SitTester
from entropy_captum.question import Question
from entropy_captum.report import extreme_tiles, status_sections, wide_table
from entropy_captum.statistics import (
    compare,
    curves,
    holm,
    mean_interval,
    method_table,
    rival_table,
    scene_means,
    sign_flip_p,
    strata_of,
    tile_counts,
    with_far,
)


def units(values, datasets="a"):
    names = datasets if len(datasets) == len(values) else [datasets] * len(values)
    return pd.Series(values, pd.MultiIndex.from_arrays([list(names), range(len(values))], names=["dataset", "scene"]))


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal"])
def test_the_interval_of_one_stratum_is_scipys(draw):
    values = getattr(np.random.default_rng(3), draw)(size=40)
    # scipy's, at the level of normal deviates at which they reach as far as Student's t does (Hesterberg 2015).
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, 39) * np.sqrt(40 / 39)) - 1
    want = stats.bootstrap((values,), np.mean, method="BCa", confidence_level=level, n_resamples=40_000,
                           rng=np.random.default_rng(1)).confidence_interval
    found = mean_interval(units(values), resamples=40_000)
    width = want.high - want.low
    assert found.mean == pytest.approx(values.mean())
    assert abs(found.low - want.low) < 0.03 * width and abs(found.high - want.high) < 0.03 * width


def test_strata_keep_what_differs_between_data_sets_out_of_the_interval():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 20), rng.normal(50, 1, 20)])
    apart, mixed = mean_interval(units(values, "a" * 20 + "b" * 20)), mean_interval(units(values))
    assert apart.high - apart.low < 1 < 10 < mixed.high - mixed.low


def test_a_scene_in_two_splits_is_one_unit():
    rows = pd.DataFrame({"dataset": ["town/train", "town/val", "town/val", "val"], "scene": list("ssts"), "tile": list("abcd"),
                         "gap": [1.0, 3, 5, 7]})
    assert scene_means(rows, "gap").to_dict() == {("town", "s"): 2, ("town", "t"): 5, ("val", "s"): 7}


def test_intervals_scale_with_the_unit():
    values = np.array([0.1] * 9 + [0.3])
    one, ten = mean_interval(units(values, "aaaaabbbbb")), mean_interval(units(10 * values, "aaaaabbbbb"))
    assert 10 * one.low == pytest.approx(ten.low) and 10 * one.high == pytest.approx(ten.high)


def test_small_strata_by_hand():
    # "a" has one scene and joins "b", the smallest; 3/2 * 5/6 and 3/2 * 5/6 enlarge the squared deviations of both.
    found = strata_of(units([1.0, 2.0, 6.0, 10.0, 20.0, 30.0], "abbccc"))
    factor = np.sqrt(3 / 2 * 5 / 6)
    assert sorted(found[0]) == pytest.approx(sorted(3 + factor * np.array([-2, -1, 3])))
    assert sorted(found[1]) == pytest.approx(sorted(20 + factor * np.array([-10, 0, 10])))
    assert strata_of(units([1.0, 5.0]))[0] == pytest.approx([1, 5])


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "least"), [((8,), 0.9), ((1, 2, 3, 2), 0.9), ((1, 1, 1, 2, 2, 2), 0.9), ((2,) * 6, 0.92),
                                              ((4, 1, 6, 3), 0.92)])
def test_intervals_of_small_strata_hold_the_truth(sizes, least):
    names, rng = "".join("abcdef"[k] * n for k, n in enumerate(sizes)), np.random.default_rng(1)
    found = [mean_interval(units(rng.normal(size=len(names)), names), resamples=999, seed=k) for k in range(400)]
    assert least < np.mean([interval.low <= 0 <= interval.high for interval in found]) < 0.98


def test_few_units_get_no_interval_and_no_p_value():
    few = units(np.arange(7.0))
    assert mean_interval(few).mean == 3 and np.isnan(mean_interval(few).low)
    found = compare(few, few - 1, "rival")
    assert found.difference == 1 and found.wins == 1 and np.isnan(found.wilcoxon) and np.isnan(found.sign_flip)


def test_sign_flips_by_hand():
    # Of the 2^3 signs of (1, 2, 3), two give a mean as far from 0 as all plus: all plus and all minus.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    # (1, 1, -1): |sum| >= 1 for every sign.
    assert sign_flip_p(np.array([1.0, 1.0, -1.0])) == pytest.approx(1)
    assert sign_flip_p(np.array([1.0, -1.0])) == 1


@pytest.mark.parametrize("n", [1, 2, 9, 12])
@pytest.mark.parametrize("digits", [0, 1, 9])  # few digits make ties
def test_sign_flips_count_what_a_plain_loop_counts(n, digits):
    d = np.round(np.random.default_rng(n).normal(0.4, 1, n), digits) / 10
    sums = [abs(sum(s * each for s, each in zip(signs, d.tolist(), strict=True))) for signs in itertools.product((-1, 1), repeat=n)]
    assert sign_flip_p(d) == sum(each >= abs(d.sum()) - 1e-9 for each in sums) / 2**n


@pytest.mark.slow
@pytest.mark.parametrize("n", [31, 40, 41])
def test_sign_flips_of_many_units_are_near_what_is_drawn(n):
    d = np.random.default_rng(n).normal(0.35, 1, n)
    drawn = np.abs(np.random.default_rng(0).choice([-1.0, 1.0], (100_000, n)) @ d)
    want = (drawn >= abs(d.sum())).mean()
    assert 0.01 < want < 0.5 and abs(sign_flip_p(d) - want) < 5 * np.sqrt(want / 100_000)
    assert (sign_flip_p(d, seed=1) == sign_flip_p(d)) is (n <= 40)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; made monotone.
    assert holm(np.array([0.03, 0.01, np.nan, 0.04, 0.02])) == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1, 1])


def test_a_comparison_is_scipys_on_the_common_units():
    rng = np.random.default_rng(5)
    a, b = units(rng.normal(1, 1, 30)), units(rng.normal(0, 1, 32))
    found, d = compare(a, b, "rival"), a.to_numpy() - b.to_numpy()[:30]
    assert found.units == 30 and found.difference == pytest.approx(d.mean())
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(d).pvalue) and found.wins == pytest.approx((d > 0).mean())
    assert found.effect_size == pytest.approx(d.mean() / d.std(ddof=1))


def rows():
    table = pd.DataFrame({"dataset": "a", "scene": ["s", "s", "s", "t"], "tile": ["1", "1", "2", "3"], "status": "ok",
                          "method": "entropy", "gap": [0.0, 2.0, 4.0, 10.0], "l_drop_r0.5": 1.0, "h_drop_r0.5": [1.0, 3, 5, 11]})
    return pd.concat([table, table.assign(method="sobol", gap=0.0), pd.DataFrame({"dataset": ["a", "b"], "tile": ["4", "1"],
                      "scene": "u", "status": ["absent", "error"]})], ignore_index=True)


def test_buildings_are_averaged_in_tiles_and_tiles_in_scenes():
    only = rows()[lambda r: r.method == "entropy"]
    # Tile 1 has the mean 1, so scene s has (1 + 4) / 2.
    assert scene_means(only, "gap").to_list() == [2.5, 10]
    table = method_table(rows(), ["gap"])
    assert table["mean"].to_list() == [6.25, 0] and table.units.to_list() == [2, 2] and table.tiles.to_list() == [3, 3]


def test_means_of_fewer_tiles_say_so():
    """A method that is undefined on one tile has a mean of others than its rivals."""
    some = rows()
    some.loc[(some.method == "sobol") & (some.tile == "2"), "gap"] = np.nan
    assert method_table(some, ["gap"]).tiles.to_list() == [3, 2]
    shown = wide_table(some, {"gap": "gap (points)"}).set_index("method")["gap (points)"]
    assert shown["entropy"] == "6.25" and shown["sobol"] == "0.00 (2 of 3 tiles)"


def test_tiles_won_are_counted_whatever_their_scene():
    """One scene of three tiles and one of a single tile: two of four tiles are won, one is a tie; of scenes one of two."""
    rows = pd.DataFrame([{"dataset": "d", "scene": scene, "tile": tile, "status": "ok", "method": method, "gap": gap}
                         for scene, tile, a, b in (("s", 0, 2.0, 1.0), ("s", 1, 2.0, 1.0), ("s", 2, 1.0, 1.0), ("t", 3, 0.0, 1.0))
                         for method, gap in (("entropy", a), ("rival", b))])
    found = rival_table(rows).iloc[0]
    assert found["tile_wins"] == (2 + 0.5) / 4 and found["wins"] == 1 / 2


def test_tables_count_what_they_do_not_average():
    counts = tile_counts(rows())
    assert counts.loc["a"].to_dict() == {"absent": 1, "error": 0, "ok": 3} and counts.loc["b", "error"] == 1
    assert rival_table(rows()).rival.to_list() == ["sobol"] and rival_table(rows()).difference[0] == 6.25
    curve = curves(rows())
    assert curve[curve.method == "entropy"]["mean"].to_list() == [6.25] and curve.removed.unique().tolist() == [0.5]
    with pytest.raises(ValueError, match=r"'guess'.*entropy, sobol"):
        rival_table(rows(), method="guess")


def test_far_is_distance_with_the_ranking_turned_round():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 3, 24, 24)).astype(np.float32))
    model = torch.nn.Conv2d(3, 1, 5, padding=2)
    region = torch.zeros(1, 24, 24)
    region[:, 10:14, 10:14] = 1
    tester = SitTester(Question(model, image, region))
    heat = torch.from_numpy(rng.permutation(576).reshape(1, 1, 24, 24).astype(np.float32))
    facts = {"dataset": "a", "scene": "s", "tile": "t", "status": "ok", "method": "distance", "l_sit_kept_area": 0.5}
    drops = [[drop[:, 0].numpy() for drop in tester.curve(h)] for h in (heat, -heat)]
    near, far = (pd.DataFrame(facts | {"gap": (high - low).mean(), "l_drop_r0.5": low[4], "h_drop_r0.5": high[4]}, [0])
                 for low, high in drops)
    derived = with_far(near)[lambda r: r.method == "far"]
    measured = ["gap", "l_drop_r0.5", "h_drop_r0.5"]
    assert derived[measured].to_numpy() == pytest.approx(far[measured].to_numpy(), abs=1e-5)
    assert abs(derived.gap.item()) > 0.01 and derived.l_sit_kept_area.isna().all()
    assert with_far(rows()).equals(rows())


def test_a_tile_that_one_method_says_nothing_of_compares_nothing():
    """Pairs are of what both have: elsewhere a method that is strong on other tiles would be taken for better."""
    rows = [{"dataset": "d", "scene": f"s{s}", "tile": t, "unit": "class", "baseline": "grey", "seed": 0, "method": method,
             "status": "ok", "gap": gap} for s in range(10)
            for t, method, gap in (("1", "entropy", 10 + 0.01 * s), ("2", "entropy", 0.001 * s**2), ("1", "sobol", np.nan),
                                   ("2", "sobol", 1.0))]
    (found,) = rival_table(pd.DataFrame(rows)).itertuples()
    assert found.difference == pytest.approx(np.mean([0.001 * s**2 - 1 for s in range(10)]))
    assert (found.wins, found.tile_wins, found.units) == (0, 0, 10) and found.high < 0


def test_a_rival_that_never_differs_counts_in_the_correction():
    rng = np.random.default_rng(0)
    rows = [{"dataset": "d", "scene": f"s{s}", "tile": "1", "method": method, "status": "ok", "gap": gap} for s in range(12)
            for method, gap in (("entropy", 1.0 + s), ("same", 1.0 + s), ("other", s + rng.normal()))]
    found = rival_table(pd.DataFrame(rows)).set_index("rival")
    assert found.loc["same", "sign_flip"] == found.loc["same", "wilcoxon"] == 1
    assert found.loc["other", "sign_flip_holm"] == pytest.approx(min(1, 2 * found.loc["other", "sign_flip"]))


def test_splits_join_scenes_and_not_tiles():
    rows = pd.DataFrame([{"dataset": f"d/{split}", "scene": "s", "tile": "1", "status": "ok", "gap": gap}
                         for split, gap in (("train", 1.0), ("val", 2.0), ("val", 4.0))])
    assert scene_means(rows, "gap").to_list() == [2.0]


def a_study(gaps, **facts):
    """Rows of a method on tiles t0, t1, ... with these gaps."""
    return pd.DataFrame([{"dataset": "d", "scene": f"s{k}", "tile": f"t{k}", "target": "", "unit": "class", "status": "ok",
                          "method": "entropy", "gap": gap, "clean_confidence": 0.9, "region_pixels": 100 + k, "seed": 0,
                          **facts} for k, gap in enumerate(gaps)])


def test_a_tile_without_a_gap_is_neither_best_nor_worst():
    found = extreme_tiles(a_study([0, 1, np.nan, 3, 4, np.nan, 6, 7]), "entropy", 2)
    assert found["best"].tile.to_list() == ["t7", "t6"] and found["worst"].tile.to_list() == ["t0", "t1"]


def test_pixels_of_a_tile_are_counted_once_however_many_seeds_and_buildings_it_has():
    rows = pd.concat([a_study([1, 2]).assign(seed=seed, unit=unit, region_pixels=pixels)
                      for seed in (0, 1) for unit, pixels in (("1", 30), ("2", 50))])
    assert extreme_tiles(rows, "entropy", 1)["best"].pixels.to_list() == [80]


def test_the_state_of_every_class_is_explained():
    rows = pd.concat([a_study([1, 2]).assign(target="building"), a_study([1, 2]).assign(target="road", status="absent")])
    (tiles,) = status_sections(rows.assign(error=""), {"methods": ["entropy"]})
    assert "ok: explained" in str(tiles) and "absent: the network predicts nothing there" in str(tiles)


def test_data_sets_and_scenes_are_counted_without_their_splits(capsys, tmp_path):
    """A scene that has tiles in two splits of a data set is one; the means are over that many."""
    tests = dict.fromkeys(("l_sit_confidence_drop", "h_sit_confidence_drop", "l_sit_kept_area", "h_sit_kept_area"), 0.5)
    rows = pd.concat([a_study(range(5), dataset=name, baseline="grey", error="", **tests) for name in ("d/train", "d/val")])
    print_study(rows, tmp_path, "grey")
    assert "Means over 5 scenes" in capsys.readouterr().out
    assert "data sets: 1." in str(status_sections(rows, {"methods": ["entropy"]})[0])
