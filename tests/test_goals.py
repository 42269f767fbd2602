"""Goals of adaptive runs: the strongest features told from the rest, a budget in seconds; however a run is made, kept, resumed."""
import json
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from conftest import Recorder, load_tool, small_net
from scipy.stats import norm
from scipy.stats import t as student
from test_adaptive import FEATURES, Drawn
from typer.testing import CliRunner

import entropy_captum.run
from entropy_captum.adaptive import AdaptiveHistory, Goal, goal_of, streams_of, told_apart
from entropy_captum.attribution import EntropyCentric, SobolTotal
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.estimate import Estimate, total_order
from entropy_captum.methods import ask_of_image, run_methods
from entropy_captum.models import load_model
from entropy_captum.question import Budget, Question
from entropy_captum.run import Quantity, answer
from entropy_captum.sampling import supercube
from entropy_captum.tiles import Settings

TOP = 5
play = load_tool("adaptive").play


def played(drawn: Drawn, budget: Budget, seed: int) -> dict[str, np.ndarray]:
    """An adaptive run on a drawn function, without a network."""
    rows = budget.rows(FEATURES)
    history = AdaptiveHistory(np.zeros(1, np.int64), rows, goal=goal_of(budget, rows))
    designs = history.draw(seed)
    delta = drawn.changes(np.stack([x.a for x in designs]), np.stack([x.b for x in designs]))

    play(history, delta)
    (value,), (error,) = history.changes()
    naive = np.nanmean(history.table(0, history.delta, history.features), 0)
    parts = np.stack([delta[:8].mean(0), delta[8:16].mean(0), delta[16:32].mean(0), delta.mean(0)])
    return {"value": value, "error": error, "n": history.counts()[0], "rows": history.forwards(frozenset())[0],
            "separated": history.separated()[0], "naive": naive, "parts": parts}


@cache
def searches(function: int, seeds: int = 400, **limits: int) -> tuple[Drawn, dict[str, np.ndarray]]:
    """Searches for the strongest of a drawn function."""
    drawn, budget = Drawn(function), Budget(**({"top": TOP} | limits))
    found = [played(drawn, budget, seed) for seed in range(seeds)]
    return drawn, {name: np.stack([run[name] for run in found]) for name in found[0]}


def right(drawn: Drawn, values: np.ndarray) -> np.ndarray:
    """The share of the five strongest, by true scores, among the five strongest of each run."""
    true = set(np.argsort(-drawn.truth)[:TOP])
    return np.array([len(true & set(np.argsort(-value)[:TOP])) / TOP for value in values])


def bias_of(drawn: Drawn, runs: dict[str, np.ndarray], name: str) -> float:
    """Bias over error, summed over features. What all designs of a run were off by is taken out: it says nothing of stopping."""
    off = runs[name] - drawn.truth
    known = runs["parts"] - drawn.truth
    columns = [np.column_stack([np.ones(len(off)), known[..., i]]) for i in range(FEATURES)]
    bias = [np.linalg.lstsq(own, off[:, i], rcond=None)[0][0] for i, own in enumerate(columns)]
    return float(np.sum(bias) / np.sqrt((off**2).mean(0)).sum())


@pytest.mark.slow
def test_the_strongest_are_found_as_often_with_four_tenths_of_the_rows():
    drawn, runs = searches(5, 200, max_rows=int(0.4 * 32 * (FEATURES + 1)))
    assert runs["rows"].max() <= 0.4 * 32 * (FEATURES + 1)
    uniform = []
    for seed in range(200):
        designs = list(supercube(32, FEATURES, seed))
        uniform.append(drawn.changes(np.stack([x.a for x in designs]), np.stack([x.b for x in designs])).mean(0))
    assert right(drawn, runs["value"]).mean() > right(drawn, np.stack(uniform)).mean() - 0.02


def test_features_alike_are_seldom_told_apart():
    """All scores are the same, so that every separation is an error; of 400 runs at most 5 % may find one."""
    rng, false = np.random.default_rng(0), 0
    goal = Goal(4, 256, rows=5000, top=2, pilot=72)
    for _ in range(400):
        changes = rng.lognormal(-0.8, 1.2, (8 * 2**5, 8))
        told = [told_apart(part.mean(0), part.std(0, ddof=1) / np.sqrt(n), np.full(8, 0.7 * (n - 1) + 4), 2, len(goal.looks)).all()
                for n in (8, 16, 32, 64, 128, 256) for part in [changes[:n]]]
        false += any(told)
    assert false <= 20


def test_one_comparison_is_welchs():
    """Two features, one look: the rule is a one-sided test at 5 %."""
    n, error = 200, 0.01
    for gap in (0.9, 1.1):
        value = np.array([0.5 + gap * norm.ppf(0.95) * error * np.sqrt(2), 0.5])
        assert told_apart(value, np.full(2, error), np.full(2, 1e6), 1, 1).all() == (gap > 1)
    few = student.ppf(0.95, 2 * n)
    assert told_apart(np.array([few * error * np.sqrt(2) * 1.001, 0.0]), np.full(2, error), np.full(2, float(n)), 1, 1).all()


@pytest.mark.slow
def test_error_bars_of_a_search_are_honest():
    drawn, runs = searches(3, 400, max_rows=600)
    n = runs["n"]
    inside = np.abs(runs["value"] - drawn.truth) <= student.ppf(0.975, 0.7 * (n - 1) + 4) * runs["error"]
    early = n == 8
    assert 0.3 < early.mean() < 0.95
    assert 0.93 <= inside.mean() <= 0.97 and 0.93 <= inside[early].mean() <= 0.97


@pytest.mark.slow
def test_a_search_hardly_biases_the_scores():
    drawn, runs = searches(3, 400, max_rows=600)
    bias, naive = bias_of(drawn, runs, "value"), bias_of(drawn, runs, "naive")
    assert abs(bias) < 0.1
    assert abs(naive) > abs(bias)


def test_streams_share_nothing_and_hold_half_of_every_net():
    first, second = streams_of(8 + 32, 4)
    assert not (first & second).any() and (first | second).all()
    assert first[:4].all() and second[4:8].all()
    assert (first[8:].reshape(-1, 8).sum(1) == 4).all()


NET = small_net().double()
X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
REGION = torch.zeros(1, 32, 32)
REGION[0, 10:16, 12:20] = 1
CALL = {"region": REGION, "grid_size": 6, "perturbations_per_eval": 7}
SEARCH = {"top": 3, "max_rows": 900}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* strongest features")
        yield


def same(a: Estimate, b: Estimate, rtol: float = 1e-4) -> None:
    assert torch.equal(a.n_samples, b.n_samples) and torch.equal(a.n_forwards, b.n_forwards)
    assert a.settings["separated"] == b.settings["separated"]
    for name in ("scores", "standard_error"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=rtol, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_rows_of_a_search_are_counted_exactly(inference):
    model = Recorder(NET)
    found = EntropyCentric(model, inference="full").estimate(X, **CALL, **SEARCH)
    rows = sum(len(seen) for seen in model.seen)
    assert rows in (int(found.n_forwards), int(found.n_forwards) + 1) and rows <= 901
    again = EntropyCentric(NET, inference=inference).estimate(X, **CALL, top=3, n_samples=24)
    assert int(again.n_forwards) <= 24 * 37
    assert again.scores[0].topk(3).indices.tolist() == found.scores[0].topk(3).indices.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_the_batch_size_changes_nothing(inference):
    ec = EntropyCentric(NET, inference=inference)
    first, *others = (ec.estimate(X, **CALL | {"perturbations_per_eval": rows}, **SEARCH) for rows in (1, 5, 64))
    for other in others:
        same(first, other)


@pytest.mark.slow
def test_each_region_and_each_example_searches_on_its_own():
    regions = REGION.repeat(2, 1, 1)
    regions[1] = REGION[0].roll((8, 8), (0, 1)) * 0.5 + REGION[0].roll((-6, 2), (0, 1))
    ec, call = EntropyCentric(NET, inference="full"), {key: value for key, value in CALL.items() if key != "region"}
    both = ec.estimate_regions(X, regions, **call, **SEARCH)
    assert not torch.equal(both.n_samples[0], both.n_samples[1]) and len(both.settings["separated"]) == 2
    x = torch.cat([X, X.flip(3) * 0.3])
    batch = ec.estimate(x, **CALL | {"region": REGION.repeat(2, 1, 1)}, **SEARCH)
    for found, number, alone in ((both, 0, ec.estimate(X, **CALL | {"region": regions[:1]}, **SEARCH)),
                                 (both, 1, ec.estimate(X, **CALL | {"region": regions[1:]}, **SEARCH)),
                                 (batch, 1, ec.estimate(x[1:], **CALL, **SEARCH))):
        assert torch.equal(alone.n_samples[0], found.n_samples[number])
        torch.testing.assert_close(alone.scores[0], found.scores[number], rtol=1e-4, atol=1e-7)
    assert torch.equal(ec.attribute_regions(X, regions, **call, **SEARCH), both.spread(both.scores)[0].to(X))


@pytest.mark.slow
def test_a_stream_ends_at_the_estimate_and_both_are_kept(tmp_path):
    ec = EntropyCentric(NET, inference="full")
    *before, last = ec.stream(X, **CALL, **SEARCH)
    found = ec.estimate(X, **CALL, **SEARCH)
    same(last, found)
    assert all(not torch.isnan(state.scores).any() for state in before)
    samples = torch.cat([state.n_samples for state in [*before, last]])
    assert (samples.diff(dim=0) >= 0).all()
    again = Estimate.load(found.save(tmp_path / "search"))
    same(again, found, 0)
    assert again.settings["top"] == 3 and torch.equal(again.margin(), found.margin())


def test_the_cap_is_said_when_it_comes_first():
    ec = EntropyCentric(NET, inference="full")
    with pytest.warns(UserWarning, match=r"the 3 strongest features are not told .* rows \(\d+\) came to their end"):
        capped = ec.estimate(X, **CALL, top=3, max_rows=400)
    assert capped.settings["separated"] == [False]

    class Planted(torch.nn.Module):
        def forward(self, x):
            kept = torch.nn.functional.adaptive_avg_pool2d(x, 6).mean(1)
            loud = kept[:, 2, 3] + kept[:, 4, 5] + kept[:, 1, 1]
            return (6 * loud + 0.2 * kept.sum((1, 2)) - 9)[:, None, None, None].expand(-1, 1, *x.shape[-2:])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = EntropyCentric(Planted(), inference="full").estimate(torch.ones(1, 3, 36, 36), region=torch.ones(1, 36, 36),
                                                                     grid_size=6, top=3, perturbations_per_eval=64, n_samples=64)
    assert found.settings["separated"] == [True] and int(found.n_forwards) < 0.8 * 64 * 37
    assert set(found.scores[0].topk(3).indices.tolist()) == {2 * 6 + 3, 4 * 6 + 5, 1 * 6 + 1}


class Paced(torch.nn.Module):
    """A network whose rows take half a millisecond each of a clock of its own."""

    def __init__(self):
        super().__init__()
        self.net, self.now, self.rows = NET, 0.0, 0

    def forward(self, x):
        self.rows += len(x)
        self.now += len(x) * 5e-4
        return self.net(x)

    def perf_counter(self):
        return self.now


@pytest.fixture
def paced(monkeypatch):
    model = Paced().eval()
    monkeypatch.setattr(entropy_captum.run, "time", model)
    return model


@pytest.mark.slow
def test_seconds_are_kept_and_their_rows_can_be_asked_again(paced):
    ec = EntropyCentric(paced, inference="full")
    found = ec.estimate(X, **CALL, max_seconds=1.0, n_samples=256)
    assert 0.85 < paced.now <= 1.0
    spent = found.settings["max_rows"]
    assert 0.85 * spent < int(found.n_forwards) <= spent
    again = EntropyCentric(NET, inference="full").estimate(X, **CALL, max_rows=spent, n_samples=256)
    assert torch.equal(again.n_samples, found.n_samples)
    torch.testing.assert_close(again.scores, found.scores)
    torch.testing.assert_close(again.standard_error, found.standard_error)
    with pytest.warns(UserWarning, match="max_seconds=0.01 were over after .* with the pilot of 8 designs"):
        pilot = ec.estimate(X, **CALL, max_seconds=0.01)
    assert pilot.n_samples.unique().tolist() == [8]
    same_pilot = EntropyCentric(NET, inference="full").estimate(X, **CALL, max_rows=pilot.settings["max_rows"])
    torch.testing.assert_close(same_pilot.scores, pilot.scores)


@pytest.mark.slow
def test_seconds_of_several_regions_are_shared(paced):
    """Rows that several regions need are run once, so that regions alike get nearly as many rows each as one alone."""
    regions = REGION.repeat(3, 1, 1)
    call = {key: value for key, value in CALL.items() if key != "region"}
    ec = EntropyCentric(paced, inference="full")
    found = ec.estimate_regions(X, regions, **call, max_seconds=60, n_samples=8)
    assert found.n_samples.max() == 40 and int(found.n_forwards[0]) <= 32 * 37  # all there is: 4 N designs
    paced.rows = 0
    some = ec.estimate_regions(X, regions, **call, max_seconds=0.5, n_samples=512)
    assert int(some.n_forwards[0]) <= some.settings["max_rows"]
    assert paced.rows < 1.5 * int(some.n_forwards[0])


@pytest.mark.parametrize(("call", "message"), [
    ({"top": 0}, "top must be an integer of at least 1, got 0"),
    ({"top": 36}, "top must be below the number of features, 36, got 36"),
    ({"top": 2, "tolerance": 0.1}, "top needs .* no tolerance, got 'supercube', 32 and 0.1"),
    ({"top": 2, "n_samples": 4}, "top needs .* n_samples of at least 8"),
    ({"max_seconds": 0}, "max_seconds must be a number above 0, got 0"),
    ({"max_seconds": 5, "tolerance": 0.1}, "max_seconds needs .* no tolerance"),
])
def test_goals_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        EntropyCentric(NET, inference="full").estimate(X, **CALL, **call)


@pytest.mark.slow
def test_sobol_indices_come_of_the_same_rows_where_there_are_enough():
    with pytest.raises(ValueError, match="top is for entropy-centric scores, Sobol Total takes n_samples; got 3"):
        SobolTotal(NET).estimate(X, **CALL, top=3)
    question = Question(NET, X, REGION, grid_size=6)
    entropy, sobol = answer(question, Budget(top=3, max_rows=900), [Quantity("one"), Quantity("two", importance=total_order)])
    enough = entropy.n_samples >= 16
    assert torch.equal(~torch.isnan(sobol.scores), enough) and 0 < int(enough.sum()) < 36
    torch.testing.assert_close(sobol.scores, entropy.total_order, equal_nan=True)
    assert f"Sobol indices of {int(enough.sum())} of 36" in repr(entropy)
    maps = run_methods(ask_of_image(NET, X, REGION, grid_size=6), Budget(top=3, max_rows=900), ["entropy", "sobol"])
    assert maps["entropy"].forwards == maps["sobol"].forwards


@pytest.mark.slow
def test_what_ran_the_rows_is_recorded():
    assert EntropyCentric(NET, inference="full").estimate(X, **CALL, n_samples=2).settings["ran_by"] == "torch"
    fast = EntropyCentric(NET, inference="incremental").estimate(X, **CALL, n_samples=2)
    assert fast.settings["ran_by"] == "torch, incremental"
    by_hand = EntropyCentric(lambda x: x.mean(1, keepdim=True) * 3, inference="full").estimate(X, **CALL, n_samples=2)
    assert by_hand.settings["ran_by"] == "<lambda>"
    single = small_net()
    found = EntropyCentric(single, inference="full", runtime="onnxruntime").estimate(X.float(), **CALL, n_samples=2)
    assert found.settings["ran_by"] == "onnxruntime"


@pytest.mark.slow
@pytest.mark.parametrize("goal", [{"max_rows": 250}, {"tolerance": 0.02}, {"top": 2}], ids=lambda goal: next(iter(goal)))
def test_a_study_with_a_goal_goes_on_where_it_was_stopped(goal, tmp_path):
    from entropy_captum.study import evaluate

    write_scenes(tmp_path / "data" / "drawn", range(2), 64)
    settings = Settings(("entropy", "sobol", "ones"), 4, 16, 8, crop=64, **goal)
    model = load_model()
    whole = evaluate(model, tmp_path / "data", tmp_path / "whole", settings, show_progress=False)
    evaluate(model, tmp_path / "data", tmp_path / "stopped", settings, limit=1, show_progress=False)
    resumed = evaluate(model, tmp_path / "data", tmp_path / "stopped", settings, show_progress=False)
    timed = [name for name in whole if name.startswith("seconds")]
    assert (whole["status"] == "ok").all()
    assert whole.drop(columns=timed).equals(resumed.drop(columns=timed))
    assert json.loads(next((tmp_path / "whole").glob("*/run.json")).read_text())["settings"][next(iter(goal))]
    assert (whole[whole.method == "entropy"]["forwards"] <= 16 * 17 + 1).all()


def test_a_study_says_at_once_which_methods_have_no_goal():
    with pytest.raises(ValueError, match=r"top=2 is for the method entropy .* got entropy-object"):
        Settings(("entropy", "entropy-object"), top=2)
    with pytest.raises(ValueError, match="n_samples of at least 8"):
        Settings(("entropy",), n_samples=4, max_rows=900)


@pytest.mark.slow
def test_the_command_line_takes_goals(tmp_path):
    from PIL import Image

    from entropy_captum.cli import app
    scene = procedural_scene(2, 64)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    Image.fromarray((scene.label * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    base = ["explain", str(tmp_path / "scene.png"), "--mask", str(tmp_path / "mask.png"), "--grid-size", "4", "--n-samples", "16"]
    for number, (options, name, value) in enumerate(((["--top", "2"], "top", 2), (["--tolerance", "0.05"], "tolerance", 0.05),
                                                     (["--max-rows", "250"], "max_rows", 250),
                                                     (["--max-seconds", "1.5"], "max_seconds", 1.5))):
        out = tmp_path / str(number)
        done = CliRunner().invoke(app, [*base, *options, "--out", str(out)])
        assert done.exit_code == 0, (done.output, done.exception)
        assert Estimate.load(out / "entropy-estimate").settings[name] == value
    refused = CliRunner().invoke(app, [*base, "--top", "2", "--tolerance", "0.05", "--out", str(tmp_path / "no")])
    assert "top needs" in str(refused.exception) and not (tmp_path / "no").exists()
