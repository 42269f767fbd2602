"""The pages of evidence say what the committed rows say, and what they show of others' metrics is so."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import FeatureAblation, KernelShap
from captum.metrics import infidelity
from torch import nn

from entropy_captum import RegionScore, h_sit, l_sit
from entropy_captum.methods import Counter
from entropy_captum.question import Question
from entropy_captum.statistics import beyond_area, method_table, rival_table, scene_means, whole_sets, with_far
from entropy_captum.tiles import REMOVED, Asked, Settings, explain_tile

ROOT = Path(__file__).resolve().parent.parent
LANDING = " ".join((ROOT / "docs/paper.md").read_text().split())


def rows_of(name: str, baseline: str = "grey") -> pd.DataFrame:
    rows = pd.read_parquet(ROOT / f"nbs/results/{name}_256.parquet")
    return rows[(rows.status == "ok") & (rows.baseline == baseline) & (rows.seed == 0)]


def markdown_of(name: str) -> str:
    cells = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text())["cells"]
    return " ".join(" ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown").split())


def source_of(name: str, word: str) -> str:
    cells = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text())["cells"]
    (found,) = ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and word in "".join(c["source"])]
    return found


def against_all(rows: pd.DataFrame) -> pd.DataFrame:
    """Entropy against each other map by the gap, `far` among them: one family of comparisons on every page."""
    return rival_table(with_far(rows)).set_index("rival")


# -- Table I ---------------------------------------------------------------------------------------------------------------

def test_the_papers_table_is_as_printed():
    """Confidence, IoU and entropy increase, left L-SIT, right H-SIT."""
    printed = {"Entropy-Centric": "2 / 37.4, 0.7 / 44, 3.4 / 48.5", "Grad-CAM": "27.3 / 2.2, 29.7 / -0.1, 38.8 / 5",
               "Score-CAM": "0.6 / 32.3, 4.1 / 36.2, 8.9 / 45.3"}
    table = pd.read_csv(ROOT / "nbs/results/paper_table_1.csv").set_index(["test", "method"])
    assert len(table) == 6
    for method, text in printed.items():
        low, high = (table.loc[(test, method), ["confidence", "iou", "entropy"]] for test in ("L-SIT", "H-SIT"))
        assert ", ".join(f"{a:g} / {b:g}" for a, b in zip(low, high, strict=True)) == text
    assert "Ali Saleh" in markdown_of("paper/table_1") and "Nadine Alameh" in markdown_of("paper/table_1")


def test_what_table_1_says_of_grad_cam_is_in_the_rows():
    """The lead of entropy in both tests on WHU and Inria, in words and by hand."""
    rows = rows_of("study")
    near, text = rows[whole_sets(rows).isin(["whu", "inria"])], markdown_of("paper/table_1")
    for test, sign, words in (("l_sit", -1, "3.7 points [-0.1, 15.5]"), ("h_sit", 1, "0.5 [-6.6, 11.1]")):
        column = f"{test}_confidence_drop"
        by_tile = {m: near[near.method == m].set_index(["dataset", "scene", "tile"])[column] for m in ("entropy", "grad-cam")}
        lead = sign * (by_tile["entropy"] - by_tile["grad-cam"]).groupby(level=["dataset", "scene"]).mean().mean()
        assert f"{lead:.1f}" == words.split()[0] and words in text


def said(p: float) -> str:
    """A p-value as the pages print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.1g}"


def shown(mean: float, low: float, high: float) -> str:
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


# -- The landing page ------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_landing_page_says_what_the_rows_say():
    rows = rows_of("study")
    means = method_table(rows, ["l_sit_confidence_drop", "h_sit_confidence_drop", "gap"])
    means = means.pivot(index="method", columns="column", values="mean")
    low, high = means["l_sit_confidence_drop"], means["h_sit_confidence_drop"]
    assert f"{low['entropy']:.1f} against {low['grad-cam']:.1f}" in LANDING and f"a map of ones loses {low['ones']:.1f}" in LANDING
    assert f"{high['entropy']:.1f} against {high['grad-cam']:.1f}" in LANDING
    assert f"a map of random numbers costs {high['random']:.1f}" in LANDING
    relative = {m: [scene_means(part.assign(x=part[f"{s}_sit_confidence_drop"] / part.clean_confidence), "x").mean() for s in "lh"]
                for m, part in rows.groupby("method")}
    assert "ours are {:.1f} and {:.1f} for the entropy map and {:.1f} and {:.1f} for Grad-CAM".format(
        *relative["entropy"], *relative["grad-cam"]) in LANDING


@pytest.mark.slow
def test_the_landing_page_says_how_all_do_on_the_same_area():
    rows = rows_of("study")
    gaps = method_table(rows, ["gap"]).set_index("method")[["mean", "low", "high"]]
    rivals = against_all(rows)
    near, far, chance = (rivals.loc[name] for name in ("distance", "far", "random"))
    assert (f"gap {shown(*gaps.loc['entropy'])}; {shown(*chance[:3])} more than random maps (one was drawn for each tile), "
            f"{said(chance.sign_flip_holm)} | Holds here |") in LANDING
    mean = gaps["mean"]
    assert (f"nearness has a gap of {shown(*gaps.loc['distance'])}, farness {-mean['distance']:.1f}: {shown(*near[:3])} more than "
            f"nearness, {said(near.sign_flip_holm)}; {shown(*far[:3])} more than farness |") in LANDING
    assert far.sign_flip_holm > 0.05 > near.sign_flip_holm
    ahead = rivals.loc["score-cam-increase"]
    assert (f"Grad-CAM has {mean['grad-cam']:.1f}, Sobol {mean['sobol']:.1f}, and a variant of Score-CAM that weighs each channel "
            f"by how much it raises the confidence {mean['score-cam-increase']:.1f}, {said(ahead.sign_flip_holm)} |") in LANDING
    assert ahead.high < 0 and ahead.sign_flip_holm < 0.05 < min(rivals.sign_flip_holm[["grad-cam", "sobol"]])


@pytest.mark.slow
def test_the_landing_page_says_what_massachusetts_and_black_do():
    rows, black = rows_of("study"), rows_of("black", "black")
    few, few_black = (each[whole_sets(each) != "massachusetts"] for each in (rows, black))
    gap, behind, all_black, alone = (method_table(few, ["gap"]), against_all(few).loc["grad-cam"],
                                     *(method_table(each, ["gap"]) for each in (black, few_black)))
    gap, all_black, alone = (each.set_index("method")[["mean", "low", "high"]] for each in (gap, all_black, alone))
    assert (f"the gap is {shown(*gap.loc['entropy'])}, less than Grad-CAM's {gap['mean']['grad-cam']:.1f}: "
            f"{-behind.difference:.1f} [{-behind.high:.1f}, {-behind.low:.1f}] behind, "
            f"{said(behind.sign_flip_holm)} | Not shown") in LANDING
    mean, ahead = all_black["mean"], against_all(black).loc["distance"]
    assert (f"gap {shown(*all_black.loc['entropy'])} against {mean['grad-cam']:.1f} for Grad-CAM and {mean['sobol']:.1f} for "
            f"Sobol; nearness to the object alone has {shown(*all_black.loc['distance'])}. Without Massachusetts the gap is "
            f"{shown(*alone.loc['entropy'])}, and that of nearness {alone['mean']['distance']:.1f} |") in LANDING
    assert f"nearness is ahead ({said(ahead.sign_flip_holm)})" in LANDING and ahead.high < 0


def test_the_landing_pages_comparisons_are_those_of_the_rows():
    rows = rows_of("study")
    for column, sign, word in (("l_sit_confidence_drop", -1, "less"), ("h_sit_confidence_drop", 1, "more")):
        pair = rival_table(rows.assign(**{column: sign * rows[column]}), column).set_index("rival").loc["grad-cam"]
        assert f"{shown(*pair[:3])} {word}, {said(pair.sign_flip_holm)} |" in LANDING
    area = {m: scene_means(part, "l_sit_area_alone").mean() for m, part in beyond_area(rows).groupby("method")}
    assert f"{area['grad-cam'] - area['entropy']:.1f} of the 13.7 come from the larger area" in LANDING
    tiles = rows_of("resnet18")[["dataset", "tile"]].drop_duplicates().merge(rows_of("b0")[["dataset", "tile"]].drop_duplicates())
    shared = rows_of("resnet18").merge(tiles)
    assert len(tiles) == 11
    gap, rivals = scene_means(shared[shared.method == "entropy"], "gap").mean(), against_all(shared)
    cam, near = (shown(*rivals.loc[name][:3]) for name in ("grad-cam", "distance"))
    assert (f"ResNet-18 (11 tiles of 8 scenes): gap {gap:.1f}, which is {cam} more than Grad-CAM's and {near} more than that of "
            "nearness") in LANDING


def test_the_landing_page_says_how_stable_the_map_is():
    seeds = pd.read_parquet(ROOT / "nbs/results/seeds_256.parquet").query("status == 'ok'")
    again = method_table(seeds[seeds.seed == 1], ["rank_to_first_seed"]).set_index("method")
    noisy = {m: scene_means(part, "sensitivity").mean() for m, part in seeds[seeds.seed == 0].groupby("method")}
    entropy = again.loc["entropy"]
    assert (f"correlate by {entropy['mean']:.2f} [{entropy.low:.2f}, {entropy.high:.2f}], those of Sobol by "
            f"{again['mean']['sobol']:.2f}") in LANDING
    assert (f"changes by {noisy['entropy']:.0%}, Grad-CAM's by {noisy['grad-cam']:.0%}, Sobol's by "
            f"{noisy['sobol']:.0%}").replace("%", " %") in LANDING


def test_the_landing_page_says_how_simpler_maps_do_by_patches_and_without_signs():
    made = pd.read_parquet(ROOT / "nbs/results/equal_terms_256.parquet")
    made[["method", "form"]] = made.method.str.extract(r"^(.*?) (by cell|magnitude)$")
    rows = pd.concat([rows_of("methods").query("method not in ('ones', 'distance')").assign(form=""), made])
    plain = rows[rows.form == rows.groupby("method").form.transform("max")]  # "magnitude" where there is one, else "by cell"
    gap = method_table(plain, ["gap"]).set_index("method").loc["entropy"]
    ahead = rival_table(plain).set_index("rival").loc["occlusion"]
    tiles, scenes = len(plain[["dataset", "tile"]].drop_duplicates()), len(scene_means(plain[plain.method == "entropy"], "gap"))
    assert (f"on {tiles} tiles of {scenes} scenes, each map by patches and without its sign: {gap['mean']:.1f} [{gap.low:.1f}, "
            f"{gap.high:.1f}], and occlusion (every patch greyed out in turn, an eighth of the forwards) is "
            f"{-ahead.difference:.1f} "
            f"[{-ahead.high:.1f}, {-ahead.low:.1f}] ahead, {said(ahead.sign_flip_holm)}") in LANDING


def test_the_landing_page_says_how_the_map_does_of_another_network_on_many_tiles():
    """Of B0, on the tiles that the bundled network's study has too and with at least 64 predicted pixels."""
    rows = rows_of("b0").query("predicted_pixels >= 64").merge(rows_of("study")[["dataset", "tile"]].drop_duplicates())
    gap = method_table(rows, ["gap"]).set_index("method").loc["entropy"]
    behind = against_all(rows).loc["random"]
    tiles, scenes = len(rows[["dataset", "tile"]].drop_duplicates()), len(scene_means(rows[rows.method == "entropy"], "gap"))
    assert (f"EfficientNet-B0 ({tiles} tiles of {scenes} scenes): gap {gap['mean']:.1f} [{gap.low:.1f}, {gap.high:.1f}], "
            f"{-behind.difference:.1f} [{-behind.high:.1f}, {-behind.low:.1f}] behind random maps, {said(behind.sign_flip_holm)}"
            ) in LANDING


def test_the_page_on_scale_counts_the_forwards_that_a_study_runs():
    """By counting those of maps of a small network, one object and two; the tests of a map cost the same whatever made it."""
    page, x, ids = (ROOT / "docs/scale.md").read_text(), torch.randn(1, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.bool)
    ids[0, 2:7, 2:7] = ids[1, 9:14, 9:14] = True
    network, settings = nn.Conv2d(3, 1, 3, padding=1), Settings(methods=("entropy", "ones"), n_samples=2)

    def forwards(objects: int) -> int:
        question = Question(network, x, ids[:objects], examples=torch.zeros(objects, dtype=torch.long))
        with Counter(network) as counter:
            list(explain_tile(Asked(["object"] * objects, question, {}), settings))
        return counter.rows

    of_an_object = forwards(2) - forwards(1)
    each = 2 + 2 * len(REMOVED) + 20
    assert of_an_object == 6 + len(settings.methods) * each and "18 on equal area, 20 for the error of the gap; 6 more" in page
    maps, tests = 32 * 65, 6 + 9 * each
    one, ten = maps + 322 + 1 + tests, maps + 10 * (322 + 1 + tests)
    for words in (f"| {tests} | {10 * tests:,} |", f"| **{one:,}** | **{ten:,}** |",
                  f"| {one / 1e3:.1f} · 10⁹ | {ten / 1e3:.1f} · 10⁹ |",
                  f"pays {maps + 6 + each:,} forwards per tile, and {maps + 10 * (6 + each):,} for ten buildings",
                  f"| {one / 3.6:.0f} h | {round(ten / 3.6):,} h |"):
        assert words in page, words
    (of_a_tile,) = re.findall(r"takes some ([\d,]+) forwards", markdown_of("index"))
    assert abs(int(of_a_tile.replace(",", "")) / one - 1) < 0.02


def test_every_page_of_the_paper_is_linked_from_its_landing_page():
    text = (ROOT / "docs/paper.md").read_text()
    for path in (ROOT / "nbs/paper").glob("*.ipynb"):
        assert f"\nnotebooks/paper/{path.stem}\n" in text, path.stem


# -- A map of ones wins ----------------------------------------------------------------------------------------------------

def test_a_control_is_ahead_of_every_method_in_confidence():
    """What the page says first: `ones` or `random`, in each test at the threshold, grey and black."""
    for rows in (rows_of("study"), rows_of("black", "black")):
        methods = [m for m in rows.method.unique() if m not in ("ones", "random", "distance")]
        means = {m: {t: scene_means(part, f"{t}_sit_confidence_drop").mean() for t in "lh"} for m, part in rows.groupby("method")}
        assert min(means["ones"]["l"], means["random"]["l"]) < min(means[m]["l"] for m in methods)
        assert max(means["ones"]["h"], means["random"]["h"]) > max(means[m]["h"] for m in methods)
        assert (rows[rows.method == "ones"].l_sit_confidence_drop.abs() < 1e-3).all()


class Bright(nn.Module):
    """A logit that hangs on the image's mean brightness, everywhere the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3), keepdim=True).expand(-1, 1, *x.shape[-2:]) * 4


def test_a_power_of_a_map_changes_the_test_at_a_threshold_and_not_on_equal_area():
    x, heat = torch.ones(1, 3, 8, 8), torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    region = torch.zeros(1, 8, 8)
    region[:, :2, :2] = 1

    def drops(power: float, **options: float) -> list[float]:
        return [test(Bright(), x, heat**power, region=region, **options).confidence_drop.item() for test in (l_sit, h_sit)]

    narrow, wide = drops(6, threshold=0.1), drops(0.1, threshold=0.1)
    assert narrow[0] > 10 * wide[0] and wide[1] > 2 * narrow[1]
    assert np.allclose(drops(6, removed=0.5), drops(0.1, removed=0.5))
    for test, drop in ((l_sit, 0), (h_sit, None)):
        found = test(Bright(), x, torch.ones(1, 1, 8, 8), region=region).confidence_drop.item()
        assert drop is None or abs(found) < 1e-4


def test_what_area_alone_costs_is_the_random_curve_between_its_shares():
    """By a plain loop over tiles; a tile without controls has NaN."""
    rows = rows_of("study")
    rows = rows[rows.tile.isin(rows.tile.unique()[:4])]
    lone = rows[rows.method == "entropy"].iloc[:1].assign(tile="lone")
    found = beyond_area(pd.concat([rows, lone], ignore_index=True))
    for row in found.itertuples():
        if row.tile == "lone":
            assert np.isnan(row.l_sit_area_alone) and np.isnan(row.h_sit_beyond_area)
            continue
        tile = rows[(rows.tile == row.tile) & (rows.dataset == row.dataset)].set_index("method")
        points = [(0.0, 0.0), *((r / 10, tile.loc["random", [f"l_drop_r{r / 10}", f"h_drop_r{r / 10}"]].astype(float).mean())
                                for r in range(1, 10)), (1.0, tile.loc["ones", "h_sit_confidence_drop"])]
        for test in ("l_sit", "h_sit"):
            removed = 1 - getattr(row, f"{test}_kept_area")
            k = max(i for i, (r, _) in enumerate(points[:-1]) if r <= removed + 1e-12)
            (r0, c0), (r1, c1) = points[k], points[k + 1]
            alone = c0 + (c1 - c0) * (removed - r0) / (r1 - r0)
            assert np.isclose(getattr(row, f"{test}_area_alone"), alone)
            assert np.isclose(getattr(row, f"{test}_beyond_area"), getattr(row, f"{test}_confidence_drop") - alone)
    assert set(found.columns) - set(rows.columns) == {f"{t}_{c}" for t in ("l_sit", "h_sit") for c in ("area_alone", "beyond_area")}


def test_the_tests_of_random_and_ones_are_their_own_reference():
    rows = beyond_area(rows_of("study"))
    ones = rows[rows.method == "ones"]
    assert np.allclose(ones.h_sit_beyond_area, 0) and np.allclose(ones.l_sit_area_alone, 0)
    assert abs(scene_means(rows[rows.method == "random"], "l_sit_beyond_area").mean()) < 1.5


# -- Metrics on dense outputs ----------------------------------------------------------------------------------------------

def test_normalised_infidelity_does_not_see_the_sign():
    torch.manual_seed(0)
    x, weights = torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand_like(inputs)
        return noise, inputs - noise

    def score(inputs: torch.Tensor) -> torch.Tensor:
        return (inputs * weights).sum((1, 2, 3))

    found = []
    for heat in (weights, -weights):
        torch.manual_seed(1)
        found.append(infidelity(score, perturb, x, heat, n_perturb_samples=50, normalize=True).item())
    assert np.isclose(*found, atol=1e-6)


def test_feature_ablation_of_a_dense_network_has_a_row_per_pixel_and_of_a_region_score_one():
    dense, x = nn.Conv2d(3, 1, 3, padding=1), torch.rand(1, 3, 8, 8)
    ids = torch.arange(4).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert len(FeatureAblation(dense).attribute(x, target=0, feature_mask=ids)) == 64
    score = RegionScore(dense, torch.ones(1, 8, 8))
    assert FeatureAblation(score).attribute(x, feature_mask=ids).shape == x.shape


def test_kernel_shap_with_too_few_samples_is_wrong_without_a_word(recwarn):
    weights = torch.randn(64, generator=torch.Generator().manual_seed(0))
    errors = {}
    for n in (25, 520):
        torch.manual_seed(0)
        heat = KernelShap(lambda v: (v.flatten(1) * weights).sum(1)).attribute(
            torch.ones(1, 1, 8, 8), feature_mask=torch.arange(64).view(1, 1, 8, 8), n_samples=n, perturbations_per_eval=64)
        errors[n] = float((heat.flatten() - weights).abs().max())
    assert errors[520] < 0.01 and errors[25] > 1 and not [w for w in recwarn if "sample" in str(w.message)]


def test_the_adapter_gives_a_library_of_classes_the_score_of_a_region():
    names: dict[str, type[nn.Module]] = {}
    source = source_of("guides/dense_metrics", "class TwoClasses")
    exec(source[:source.index("\n\n\nnetwork = ")], {"torch": torch, "RegionScore": RegionScore}, names)
    dense, x = nn.Conv2d(3, 1, 3, padding=1), torch.rand(5, 3, 8, 8)
    score = RegionScore(dense, torch.ones(1, 8, 8))
    logits = names["TwoClasses"](score)(x)
    expected = dense(x).sigmoid().mean((1, 2, 3))
    assert logits.shape == (5, 2) and torch.allclose(logits.softmax(1)[:, 1], expected, atol=1e-5)
    assert torch.allclose(logits[:, 1], expected.logit(), atol=1e-4)


def test_what_is_stored_of_quantus_shows_what_the_guide_says():
    """A map and its reverse get the same curve of ones; dense arrays have the image's sides; `distance` is first and last."""
    tried = pd.read_csv(ROOT / "nbs/results/quantus_dense.csv", index_col=[0, 1])
    assert set(tried.loc["one number, softmax=True", "pixel flipping"]) == {"shape (1, 24), 1.00 to 1.00"}
    assert tried.loc["dense network, softmax=True", "pixel flipping"].str.contains("128, 128").all()
    maps = pd.read_csv(ROOT / "nbs/results/quantus_maps.csv", index_col=0)
    assert maps["faithfulness correlation (high)"].idxmax() == "distance" == maps["pixel flipping (low)"].idxmax()


def test_quantus_still_behaves_so():
    quantus = pytest.importorskip("quantus")
    score = RegionScore(nn.Conv2d(3, 1, 3, padding=1), torch.ones(1, 8, 8))

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = score

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.score(x)[:, None]

    metric = quantus.PixelFlipping(features_in_step=16, disable_warnings=True)
    heat = np.random.default_rng(0).random((1, 1, 8, 8), dtype="float32")
    found = metric(One().eval(), np.random.default_rng(1).random((1, 3, 8, 8), dtype="float32"), np.array([0]), heat, device="cpu")
    assert np.asarray(found).min() == 1


# -- Coverage of pairs -----------------------------------------------------------------------------------------------------

def test_what_is_said_of_pairs_is_in_the_table():
    """Entropy scores of the default design are held in 93 to 99 %, Sobol indices in 91 to 98; a difference never less than 98 %."""
    table, text = pd.read_csv(ROOT / "nbs/benchmarks/pairs.csv"), markdown_of("57_planted")
    held = table.pivot(index=["sampler", "method", "n"], columns="kind", values="held")
    for method, words in (("entropy", "93 to 99 % of the intervals hold"), ("sobol", "91 to 98 % do")):
        part = held.loc["supercube", method]
        assert f"{100 * part.min().min():.0f} to {100 * part.max().max():.0f} %" in words and words in text
    assert table[table.sampler == "supercube"].difference_held.min() > 0.98
    assert table[table.sampler == "sobol"].lowest_case.min() < 0.5


def test_what_is_said_of_real_tiles_in_the_sanity_check_is_in_the_rows():
    """On the landing page and in the README: likeness given nearness, as it is and with all weights shuffled, means over scenes."""
    rows = pd.read_csv(ROOT / "nbs/results/sanity_cascade_256.csv").query("dataset != 'drawn'")
    kept = {(m, s): part for (m, s), part in rows.groupby(["method", "state"])}
    means = {key: scene_means(part, "given_nearness").mean() for key, part in kept.items()}
    entropy, sobol = ([f"{means[m, s]:.2f}" for s in ("stem", "another design")] for m in ("entropy", "sobol"))
    tiles, scenes = len(kept["entropy", "stem"]), len(scene_means(kept["entropy", "stem"], "given_nearness"))
    assert (tiles, scenes) == (12, 6)
    assert f"they are {entropy[0]} and {entropy[1]}, and {sobol[0]} and {sobol[1]} of Sobol maps" in markdown_of("index")
    assert f"agree ({entropy[0]}, and {entropy[1]} as it is). For Sobol none is shown on the drawn ones; on the real ones it is " \
           f"{sobol[0]} and {sobol[1]}" in LANDING
