"""Refined maps: the full grid's own numbers where it matters, nothing hidden in what stays large, the same however it is run."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Recorder, load_tool, small_net
from torch import nn
from typer.testing import CliRunner

from entropy_captum import EntropyCentric, Estimate, SobolTotal
from entropy_captum.evaluation import SitTester
from entropy_captum.judgement import judge
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget, Question
from entropy_captum.refine import Cells, Patch, Search, put_together, refined, reply, scored
from entropy_captum.run import Quantity, answer

BITS = Quantity("bits")
NET = small_net().double()
X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
REGION = torch.zeros(1, 32, 32)
REGION[0, 10:16, 12:20] = 1
CALL = {"region": REGION, "grid_size": "adaptive", "finest": 1, "n_samples": 8, "perturbations_per_eval": 50}


@pytest.mark.slow
def test_finest_patches_have_the_scores_of_the_full_grid():
    question = Question(NET, X, REGION, grid_size="adaptive", finest=1)
    search = refined(question, Budget(8, 50), BITS)
    (found,), (full,) = scored(search, [BITS]), answer(Question(NET, X, REGION, grid_size=32), Budget(8, 50), [BITS])
    alone = [(k, piece[0]) for k, piece in enumerate(search.pieces()) if len(piece) == 1 and piece[0].level == 0]
    assert len(alone) >= 10
    for name in ("scores", "total_order"):
        values, fine = getattr(found, name)[0], getattr(full, name)[0]
        torch.testing.assert_close(values[[k for k, _ in alone]], fine[[32 * patch.row + patch.column for _, patch in alone]])


def test_scores_of_larger_patches_are_those_of_a_plain_loop():
    cells, halves = grid_feature_mask((8, 8), 4)[0, 0], grid_feature_mask((8, 8), (1, 2))[0, 0]
    x, region = X[..., :8, :8], torch.ones(1, 8, 8)
    (found,) = answer(Question(NET, x, region, feature_mask=halves, parts=cells), Budget(4, 3), [BITS])
    (design, *_), total = list(Budget(4).designs(16)), np.zeros(2)

    def entropy(keep):
        with torch.no_grad():
            z = NET.eval()(x * torch.from_numpy(keep)[cells])[0, 0].numpy()
        p = 1 / (1 + np.exp(-z))
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

    for design in Budget(4).designs(16):
        for half in (0, 1):
            inside = np.isin(np.arange(16) % 4 // 2, half)
            total[half] += np.abs(entropy(np.where(inside, design.b, design.a)) - entropy(design.a)).mean() / 4
    np.testing.assert_allclose(found.scores[0], total, rtol=1e-10)
    assert found.settings["error"] == "nearest neighbours"
    assert json.dumps(found.settings)


class Opposed(nn.Module):
    """Logits of the whole image that hang on the difference of two neighbouring pixels."""

    def forward(self, x):
        return 5 * (x[:, :1, 3:4, 4:5] - x[:, :1, 3:4, 5:6]).expand(-1, -1, *x.shape[-2:])


@pytest.mark.slow
def test_opposed_children_do_not_hide_in_their_patch():
    x, region = torch.ones(1, 3, 32, 32), torch.ones(1, 32, 32)
    as_wholes = EntropyCentric(Opposed()).estimate(x, region=region, grid_size=16, n_samples=8, perturbations_per_eval=64)
    assert (as_wholes.scores == 0).all()
    found = EntropyCentric(Opposed()).estimate(x, **CALL | {"region": region, "seed": 3})
    heat = found.map()
    assert set(zip(*np.nonzero(heat > heat.max() / 2), strict=True)) == {(3, 4), (3, 5)}
    assert (np.sort(heat.ravel())[:-2] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("acting", ["sum", "opposed", "pairs"])
def test_planted_cells_are_found_with_a_twentieth_of_the_rows(acting, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "tools")
    tool = load_tool("refine")
    net = tool.Scattered(acting, 1, cell=1).eval()
    found = tool.compared(net.question(1), Budget(32, 256, 1, max_rows=int(0.05 * 32 * 4097)), set(net.planted.tolist()))
    assert found["recall"] >= 0.9 and found["share"] <= 0.05


@pytest.mark.slow
def test_a_calm_patch_is_asked_again():
    """What shows in one of eight looks only is split for its second look."""
    search = Search(Question(NET, X, REGION, grid_size="adaptive", finest=1), Budget(8, 50), BITS)
    rounds = search.rounds()
    next(rounds)
    before = set(search.leaves.known)
    next(rounds)
    again = [patch for patch in before if len(search.leaves.known[patch]) == 16]
    assert again and not set(again) & set(search.leaves.parents) and len(again) <= 0.25 * 40


def same(a: Estimate, b: Estimate) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a.index, b.index, strict=True)) and torch.equal(a.n_samples, b.n_samples)
    for name in ("scores", "standard_error", "total_order"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_batch_size_engine_and_repetition_change_nothing():
    first = EntropyCentric(NET, inference="full").estimate(X, **CALL)
    assert len(first.scores[0]) > 64
    same(first, EntropyCentric(NET, inference="full").estimate(X, **CALL | {"perturbations_per_eval": 7}))
    same(first, EntropyCentric(NET, inference="incremental").estimate(X, **CALL))
    other = EntropyCentric(NET, inference="full").estimate(X, **CALL | {"seed": 1})
    assert not torch.equal(first.scores.max(), other.scores.max())


@pytest.mark.slow
def test_rows_are_counted_and_kept():
    model = Recorder(NET)
    found = EntropyCentric(model, inference="full").estimate(X, **CALL | {"max_rows": 1500})
    seen = sum(len(each) for each in model.seen)
    assert seen - int(found.n_forwards) in (0, 1) and int(found.n_forwards) <= 1500  # one more to see whether it is steady
    assert found.settings["max_rows"] == 1500
    assert found.settings["search_rows"] + 8 * (len(found.scores[0]) + 1) == int(found.n_forwards)
    more = EntropyCentric(NET, inference="full").estimate(X, **CALL | {"max_rows": 3000})
    assert int(found.n_forwards) < int(more.n_forwards) <= 3000
    predicted = EntropyCentric(Recorder(NET), inference="full").estimate(X, **CALL | {"region": None, "max_rows": 1500})
    assert predicted.settings["region_predicted"] and int(predicted.n_forwards) <= 1500


@pytest.mark.slow
def test_a_stream_yields_after_each_round():
    *rounds, last = EntropyCentric(NET).stream(X, **CALL)
    assert len(rounds) >= 3 and rounds[0].scores.shape == (1, 64)
    counts = [len(each.scores[0]) for each in rounds]
    assert counts == sorted(counts) and [int(each.n_forwards) for each in rounds] == sorted({int(e.n_forwards) for e in rounds})
    same(last, EntropyCentric(NET).estimate(X, **CALL))
    assert all(each.map().shape == (32, 32) and repr(each) for each in rounds)


@pytest.mark.slow
def test_regions_share_the_patches_that_any_of_them_asks_for():
    regions = torch.zeros(2, 32, 32)
    regions[0, 2:5, 2:5] = regions[1, 25:30, 24:30] = 1
    call = {k: v for k, v in CALL.items() if k != "region"} | {"max_rows": 4000}
    found = EntropyCentric(NET).estimate_regions(X, regions, **call)
    assert len(found.scores) == 2 and len(found.index[0]) == 1
    sizes = torch.bincount(found.index[0].flatten())
    for region in (0, 1):
        assert sizes[found.scores[region].argmax()] == 1
    torch.testing.assert_close(found.spread(found.scores)[0][1, 0].numpy(), found.map(1))


@pytest.mark.slow
def test_a_refined_map_is_saved_judged_and_shown(tmp_path):
    question = Question(NET, X, REGION, grid_size="adaptive", finest=1)
    search = refined(question, Budget(8, 50), BITS)
    asked = search.asked(search.pieces())
    bits, shares = scored(search, [BITS, SobolTotal(NET).quantity])
    again = Estimate.load(bits.save(tmp_path / "fine"))
    assert repr(again) == repr(bits) and again.settings["finest"] == 1 and torch.equal(again.margin(), bits.margin())
    table = judge(SitTester(asked), {"fine": torch.from_numpy(bits.map())[None]}, {"fine": bits})
    assert np.isfinite(table.set_index("map").loc["fine", "gap_r0.5"]) and bits._repr_png_().startswith(b"\x89PNG")
    assert shares.scores.shape == bits.scores.shape and torch.equal(shares.scores, bits.total_order)
    torch.testing.assert_close(EntropyCentric(NET).attribute(X, **CALL)[0, 0], torch.from_numpy(bits.map()))


@pytest.mark.slow
def test_sobol_indices_are_refined_too():
    found = SobolTotal(NET).estimate(X, **CALL | {"max_rows": 4000})
    assert torch.bincount(found.index[0].flatten())[found.scores[0].topk(3).indices].min() == 1 and len(found.scores[0]) > 64


@pytest.mark.slow
def test_nothing_is_split_where_there_is_nothing_and_where_there_is_no_pixel():
    flat = EntropyCentric(NET).estimate(X * 0, **CALL)
    assert len(flat.scores[0]) == 64 and (flat.scores == 0).all()
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:, 22:] = False
    found = EntropyCentric(NET).estimate(X, **CALL | {"valid": valid})
    assert (found.index[0][0, 0][:, 22:] == -1).all() and (found.map()[:, 22:] == 0).all()
    assert (found.index[0][0, 0][:, :22] >= 0).all()


def test_squares_cover_an_image_once_whatever_its_size():
    for size, finest in (((512, 512), 8), ((500, 333), 8), ((64, 200), 5), ((20, 20), 8)):
        cells = Cells(np.ones(size, bool), finest)
        number = cells.draw([[patch] for patch in cells.start()])
        assert number.shape == size and set(np.unique(number)) == set(range(len(cells.start())))
        for patch in cells.start()[-3:]:
            inside = cells.draw([[child] for child in cells.children(patch)]) < len(cells.children(patch))
            assert not cells.children(patch) or (inside == (cells.draw([[patch]]) == 0)).all()
    assert Cells(np.ones((512, 512), bool), 8).level == 3 and Cells(np.ones((20, 20), bool), 8).children(Patch(0, 0, 0)) == []


def test_what_is_left_is_put_together_below_the_level_only():
    top, parts = Patch(1, 0, 0), [Patch(0, r, c) for r in (0, 1) for c in (0, 1)]
    means = {part: np.array([value]) for part, value in zip(parts, (0.9, 0.3, 0.3, 0.1), strict=True)}
    assert put_together(top, {top: parts}, means, np.array([0.8])) == [[parts[0]], parts[1:]]
    assert put_together(top, {top: parts}, means, np.array([0.5])) == [[parts[0]], *([part] for part in parts[1:])]
    assert put_together(top, {top: parts}, means, np.array([2.0])) == [parts]


@pytest.mark.parametrize(("call", "message"), [

    ({"tolerance": 0.01}, "takes max_rows and no other goal, got .*0.01"), ({"max_rows": 900}, "max_rows=900 .* that takes 1040"),
    ({"feature_mask": torch.zeros(32, 32, dtype=torch.int64)}, "got a feature_mask"),
    ({"finest": 0}, "finest must be .* got 0"),
    ({"grid_size": 8}, "finest=1 goes with grid_size='adaptive', got grid_size=8"), ({"grid_size": "fine"}, "got.*'fine'")])
def test_what_cannot_be_refined_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        EntropyCentric(NET).estimate(X, **CALL | call)


def test_several_images_and_other_methods_are_refused():
    with pytest.raises(ValueError, match=r"one image \(1,C,H,W\), got \[\(2, 3, 32, 32\)\]"):
        EntropyCentric(NET).estimate(X.repeat(2, 1, 1, 1), **CALL | {"region": REGION.repeat(2, 1, 1)})
    question = Question(NET, X, REGION, grid_size="adaptive")
    with pytest.raises(ValueError, match="a grid needs a number of cells"):
        _ = question.perturbation
    cells = grid_feature_mask((32, 32), 8)[0, 0]
    with pytest.raises(ValueError, match=r"n_samples designs, got tolerance=0\.1"):
        answer(Question(NET, X, REGION, feature_mask=cells // 2, parts=cells), Budget(8, tolerance=0.1), [BITS])
    with pytest.raises(ValueError, match="each of the 64 parts must lie in one feature"):
        answer(Question(NET, X, REGION, grid_size=16, parts=cells), Budget(8), [BITS])


def test_a_plain_grid_is_answered_as_before():
    question, budget = Question(NET, X, REGION, grid_size=4), Budget(8, 50)
    assert torch.equal(reply(question, budget, [BITS])[0].scores, answer(question, budget, [BITS])[0].scores)


@pytest.mark.slow
def test_command_line(tmp_path):
    from PIL import Image

    from entropy_captum.cli import app
    from entropy_captum.drawn import procedural_scene
    scene = procedural_scene(2, 96)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    call = ["explain", str(tmp_path / "scene.png"), "--grid-size", "adaptive", "--finest", "8", "--n-samples", "4",
            "--method", "entropy,ablation", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = Estimate.load(tmp_path / "out" / "entropy-estimate")
    assert found.settings["finest"] == 8 and int(found.n_forwards) == found.settings["search_rows"] + 4 * (len(found.scores[0]) + 1)
    few = CliRunner().invoke(app, [*call[:-6], "--n-samples", "8", "--max-rows", "700", "--out", str(tmp_path / "few")])
    assert few.exit_code == 0, few.output
    limited = Estimate.load(tmp_path / "few" / "entropy-estimate")
    assert limited.settings["max_rows"] == 700 >= int(limited.n_forwards) > limited.settings["search_rows"] > 0
    wrong = CliRunner().invoke(app, [*call[:2], "--grid-size", "fine"])
    assert wrong.exit_code != 0 and "--grid-size" in str(wrong.output) + str(wrong.exception)


def test_the_forward_that_finds_the_region_is_held_by_max_rows_too():
    call = {k: v for k, v in CALL.items() if k != "region"}
    with pytest.raises(ValueError, match="that takes 1041"):
        EntropyCentric(NET, inference="full").estimate(X, **call | {"max_rows": 1040})
    model = Recorder(NET)
    found = EntropyCentric(model, inference="full").estimate(X, **call | {"max_rows": 1041})
    assert int(found.n_forwards) <= 1041 and sum(map(len, model.seen)) - int(found.n_forwards) in (0, 1)
