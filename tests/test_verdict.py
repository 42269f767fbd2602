"""How sure a gap is, what it says beside chance and nearness, and what a person sees of it while it is made."""

import fcntl
import functools
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from conftest import small_net
from test_study import write_tiles

from entropy_captum import EntropyCentric, judgement, rooftop_unet
from entropy_captum.cli import echo_in, print_table
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.evaluation import SitTester, random_attribution, verdict
from entropy_captum.explorer import Explorer, rows_of
from entropy_captum.judgement import (
    MOVES,
    VERDICTS,
    Gap,
    GapTester,
    in_words,
    judge,
    judged_rows,
    moved,
    redrawn,
    sentences,
    with_outlines,
)
from entropy_captum.notices import waiting
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Question
from entropy_captum.region import object_at
from entropy_captum.report import one_decides_nothing
from entropy_captum.run import Tally
from entropy_captum.tiles import Settings, ask_tile, explain_tile, find_sources
from entropy_captum.zoo import Padded, predict_mask

torch.manual_seed(0)
NET, X = small_net().eval(), torch.rand(1, 3, 20, 24)
REGION = torch.zeros(20, 24, dtype=torch.bool)
REGION[6:13, 8:17] = True


def question(**options):
    return Question(NET, X, REGION, 0, grid_size=4, **options)


def neighbours(mask, y, x):
    around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
    return [mask[b, a] for b, a in around if 0 <= b < mask.shape[0] and 0 <= a < mask.shape[1]]


def by_hand(mask, pixels):
    """A mask moved by pixels, pixel after pixel."""
    for _ in range(abs(pixels)):
        decide = (lambda here, around: here or any(around)) if pixels > 0 else (lambda here, around: here and all(around))
        mask = np.array([[decide(mask[y, x], neighbours(mask, y, x)) for x in range(mask.shape[1])] for y in range(mask.shape[0])])
    return mask


@pytest.mark.parametrize("place", [np.s_[6:13, 8:17], np.s_[0:7, 0:9]])
@pytest.mark.parametrize("pixels", MOVES)
def test_an_outline_moves_by_pixels_and_not_at_the_images_border(place, pixels):
    mask = np.zeros((20, 24), bool)
    mask[place] = True
    assert np.array_equal(moved(mask, pixels), by_hand(mask, pixels))


def test_a_speck_is_not_eroded_away():
    mask = np.zeros((9, 9), bool)
    mask[4, 3:5] = True
    assert np.array_equal(moved(mask, -2), mask)


@torch.no_grad()
def plain_gap(heat, region, removed=0.5):
    """The gap of a map (H,W) without ties, by a loop over pixels."""
    places = sorted(zip(*np.nonzero(~region), strict=True), key=lambda place: heat[place])
    count = round(removed * len(places))
    confidence = []
    for lost in (places[:count], places[len(places) - count:]):
        image = X.clone()
        for y, x in lost:
            image[0, :, y, x] = 0
        confidence.append(float(torch.sigmoid(NET(image))[0, 0][torch.from_numpy(region)].double().mean()))
    return 100 * (confidence[0] - confidence[1])


def test_the_error_of_a_gap_is_that_of_a_plain_loop():
    heat = torch.rand(20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = GapTester(SitTester(question())).gap(heat[None], rounds=2)
    value = plain_gap(heat.numpy(), REGION.numpy())
    versions = [plain_gap(heat.numpy(), by_hand(REGION.numpy(), pixels)) for _ in range(2) for pixels in MOVES]
    assert found.value == pytest.approx(value, abs=1e-4) and found.versions == pytest.approx(versions, abs=1e-4)
    assert found.error == pytest.approx(np.sqrt(sum((v - value) ** 2 for v in versions) / 10), abs=1e-4) and found.error > 0


def test_rows_of_the_error_are_counted_and_come_in_batches():
    GapTester(SitTester(question(), "full"))  # whether the network is steady is looked at once
    seen = []
    handle = NET.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        tester = SitTester(question(), "full")
        seen.clear()
        asked = GapTester(tester)
        before = sum(seen)
        found = asked.gap(torch.rand(1, 20, 24))
        rows = sum(seen) - before
        seen.clear()
        one_by_one = GapTester(tester, 1).gap(torch.rand(1, 20, 24))
    finally:
        handle.remove()
    assert before == 5 and rows == 2 + found.forwards == 22 and set(seen) == {1} and one_by_one.forwards == 20


@pytest.mark.parametrize("maps", [1, 3])
def test_rows_of_a_judgement_are_known_before_and_no_gap_is_computed_twice(maps):
    seen = []
    judge(SitTester(question(), watch=seen.append), {f"map {k}": torch.rand(1, 20, 24) for k in range(maps)})
    errors, chance, tests = 10 * (maps + 1), 20, 2 * (maps + 2)  # each of gaps, which are two rows; a verdict is a gap and two rows
    assert sum(seen) == judged_rows(maps) == 1 + 5 + 2 * (errors + chance + tests)


def test_rows_in_one_forward_do_not_change_the_error():
    heat = torch.rand(1, 20, 24)
    few, many = (GapTester(SitTester(question()), rows).gap(heat) for rows in (1, 5))
    assert few.versions == pytest.approx(many.versions, abs=1e-4)


def test_scores_are_redrawn_within_their_errors_and_whole_features_move():
    estimate = EntropyCentric(NET).estimate(X, region=REGION, target=0, grid_size=4, n_samples=8)
    heat = estimate.to_attribution()[0].mean(0)
    drawn = redrawn(heat, estimate, count=400)
    off = (drawn - heat)[:, ::5, ::6].flatten(1)  # a pixel of each feature
    assert off.std(0).numpy() == pytest.approx(estimate.standard_error[0].numpy(), rel=0.2) and off.mean(0).abs().max() < 0.02
    assert torch.equal(drawn[:, 0, 0], drawn[:, 4, 5]) and abs(np.corrcoef(off[:, 0], off[:, 1])[0, 1]) < 0.2
    assert torch.equal(redrawn(heat, None, count=3), heat.expand(3, 20, 24))


def test_only_what_varies_has_an_error():
    """Without errors of scores, ties, or an influence of the outline nothing is left; each of them brings some."""
    def blind(x):  # the same everywhere, whatever the region
        return x.mean((1, 2, 3), keepdim=True).expand(-1, 1, 20, 24) * 5
    flat = Question(blind, X, REGION, grid_size=4)
    gaps = GapTester(SitTester(flat)).gap(torch.rand(1, 20, 24))
    ties = GapTester(SitTester(flat)).gap(torch.ones(1, 20, 24))
    assert gaps.error < ties.error


def test_nodata_stays_outside_of_moved_outlines():
    valid = torch.ones(20, 24, dtype=torch.bool)
    valid[:, 17:] = False
    regions = with_outlines(question(valid=valid)).regions
    assert len(regions) == 5 and not regions[:, :, 17:].any() and regions[4].sum() > regions[2].sum() > regions[0].sum()


def test_several_regions_are_refused_with_the_way_out():
    both = torch.stack([REGION, ~REGION])
    with pytest.raises(ValueError, match=r"got 2; see `Question.each`"):
        with_outlines(replace(question(), region=both, examples=torch.zeros(2, dtype=torch.int64)))


def test_a_region_that_covers_the_image_has_no_gap_and_no_verdict():
    whole = Question(NET, X, torch.ones(20, 24), 0, grid_size=4)
    table = judge(SitTester(whole), {"mine": torch.rand(1, 20, 24)})
    assert table["verdict"][0] == "undefined" and np.isnan(table["gap_r0.5"][0])


def test_chance_is_the_mean_and_deviation_of_twenty_draws():
    asked, seen = GapTester(SitTester(question())), question().perturbation.index[0]
    chance = asked.chance()
    assert len(chance.versions) == 20 and chance.forwards == 40
    assert chance.value == pytest.approx(np.mean(chance.versions))
    assert chance.error == pytest.approx(np.std(chance.versions, ddof=1))
    testers = [SitTester(Question(NET, X, torch.from_numpy(by_hand(REGION.numpy(), k)), 0)) for k in MOVES]
    for draw in (1, 2, 7, 20):  # each is a random map of its own, by the next outline
        heat = random_attribution(X, seen, draw)[:, 0]
        tie = 1 + (draw - 1) // 5
        assert chance.versions[draw - 1] == pytest.approx(float(testers[(draw - 1) % 5].gap(heat, seed=tie)[0]), abs=1e-4)


def gap(value, error=1.0, spread=(0.0, 0.0)):
    return Gap(value, error, value + np.asarray(spread), 4)


@pytest.mark.parametrize("value, error, chance, near, words", [
    (30, 5, gap(0, 5), gap(10), VERDICTS[0]),  # 30 > 2 * 7.1, and 20 beyond nearness
    (30, 5, gap(0, 5), gap(40), VERDICTS[1]),
    (14, 5, gap(0, 5), gap(0), VERDICTS[2]), (15, 5, gap(0, 5), gap(0), VERDICTS[0]),  # 2 * sqrt(50) is 14.14
    (24, 5, gap(10, 5), gap(0), VERDICTS[2]), (-15, 5, gap(0, 5), gap(0), VERDICTS[3]),  # beside the mean of chance
    (9.3, 0, gap(0, 8), gap(0), VERDICTS[2]), (float("nan"), float("nan"), gap(0, 5), gap(0), VERDICTS[4]),
])
def test_the_rule(value, error, chance, near, words):
    assert in_words(gap(value, error), chance, near) == words


def test_nearness_is_compared_outline_by_outline():
    """Both gaps move by 20 points with the outline, but together; a map whose lead changes sign is not ahead."""
    chance, swing = gap(0, 1), (20.0, -20.0)
    assert in_words(gap(50, 2, swing), chance, gap(45, 2, swing)) == VERDICTS[0]
    assert in_words(gap(50, 2, swing), chance, gap(45, 2, (-20.0, 20.0))) == VERDICTS[1]


@pytest.fixture(scope="module")
def table():
    heat = torch.rand(1, 20, 24, generator=torch.Generator().manual_seed(5))
    return judge(SitTester(question()), {"worse": -heat, "better": heat, "random": heat})


def test_the_table_keeps_the_columns_of_the_verdict_and_adds_to_them(table):
    heat = torch.rand(1, 20, 24, generator=torch.Generator().manual_seed(5))
    plain = verdict(SitTester(question()), {"better": heat})
    assert set(table) == {*plain, "gap_r0.5_se", "verdict"} and list(table)[:4] == ["map", "gap_r0.5", "gap_r0.5_se", "verdict"]
    own = table.set_index("map").loc["better", [name for name in plain if name != "map"]]
    assert own.to_numpy(float) == pytest.approx(plain.iloc[0, 1:].to_numpy(float), nan_ok=True)


def test_rows_are_ordered_by_their_verdict_and_controls_come_last(table):
    assert sorted(table["map"][:2]) == ["better", "worse"] and set(table["map"][2:]) == {"random", "distance", "ones"}
    places = [VERDICTS.index(words) for words in table["verdict"][:2]]
    assert places == sorted(places) and set(table["verdict"][2:]) == {"control"}
    if places[0] == places[1]:
        assert table["gap_r0.5"][0] >= table["gap_r0.5"][1]


def test_each_map_has_a_sentence_and_the_last_says_what_they_do_not(table):
    *said, last = sentences(table)
    assert [sentence.partition(":")[0] for sentence in said] == list(table["map"][:2])
    chance = table.set_index("map").loc["random"]
    for sentence, row in zip(said, table.itertuples(), strict=False):
        assert f"{row.verdict} on this building" in sentence and f"± {row[3]:.1f} points" in sentence
        spread = f"{chance['gap_r0.5']:.1f} ± {chance['gap_r0.5_se']:.1f} (the spread of 20 of them)"
        assert f"random maps get {spread}, nearness " in sentence and sentence.count("spread") == 1
    shown = {row["map"]: row["gap"] for row in rows_of(table)}  # the explorer says below its table what ± is
    assert f"{shown['random']} (the spread of 20 of them)" == spread and "±" in shown["distance"]
    assert "of random maps, how far 20 of them spread" in Explorer.caution.default_value
    assert "One building decides nothing" in last and "Table I" in last


@pytest.mark.slow
def test_the_roof_of_the_front_page_is_the_one_of_the_explorer():
    """By the label's outline the gap was 3, by the network's 40: the error has to reach from the one to the other."""
    scene, model = procedural_scene(2), rooftop_unet()
    own = object_at(predict_mask(model, scene.image), x=107, y=112)
    x, label = normalize(scene.image), scene.instances == 8
    assert (own & label).sum() > 0.9 * max(own.sum(), label.sum())
    found = []
    for roof in (own, label):
        estimate = EntropyCentric(model).estimate(x, region=roof, n_samples=8, perturbations_per_eval=8)
        found.append(GapTester(SitTester(Question(model, x, roof))).gap(estimate.to_attribution(), estimate))
    assert found[0].value - found[1].value > 30
    assert found[0].value - found[1].value < 2 * np.hypot(found[0].error, found[1].error)


def test_a_study_says_how_sure_each_gap_is(tmp_path):
    source, model = find_sources(write_tiles(tmp_path, 1))[0], Padded(NET).eval()
    settings = Settings(("entropy", "interaction", "random"), 2, 4)
    rows = pd.DataFrame(explain_tile(ask_tile(model, source, settings), settings))
    assert (rows["status"] == "ok").all() and len(rows) == 3
    assert rows["gap_r0.5"].to_numpy() == pytest.approx(rows["h_drop_r0.5"] - rows["l_drop_r0.5"])
    assert (rows["gap_r0.5_se"] >= 0).all()


COLUMNS = {"map": ["a", "b", "random"], "gap_r0.5": [30.0, 1, 0], "gap_r0.5_se": [2.0, 3, 4],
           "verdict": [VERDICTS[0], VERDICTS[2], "control"], "l_sit_confidence_drop": [1.0, 2, np.nan]}


@pytest.mark.parametrize("terminal, no_color, colored", [(True, "", True), (True, "1", False), (False, "", False)])
def test_the_better_side_is_coloured_where_a_terminal_wants_it(monkeypatch, capsys, terminal, no_color, colored):
    monkeypatch.setenv("NO_COLOR", no_color)
    near = pd.DataFrame({"map": ["distance"], "gap_r0.5": 1, "gap_r0.5_se": 1, "verdict": "control"})
    shown = pd.concat([pd.DataFrame(COLUMNS), near])
    strip = f"{typer.echo.__module__}.should_strip_ansi"
    monkeypatch.setattr(strip, lambda _, color=None: not terminal if color is None else not color)
    print_table(shown, Path("out"))
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if re.search(r"\ba\b +30", line))
    assert ("\x1b[32m" in row) == colored and not any("\x1b[32m" in line for line in lines if re.search(r"\bb\b +1", line))
    assert any("One building decides nothing" in line for line in lines)


@pytest.mark.slow
def test_a_wait_has_a_bar_from_the_start_with_the_time_left(capsys):
    with waiting("thinking", True, 2):
        time.sleep(0.7)
        early = capsys.readouterr().err
        time.sleep(1.2)
    later = capsys.readouterr().err
    shares = [int(share) for share in re.findall(r"thinking: +(\d+)%", early + later)]
    assert shares[0] == 0 and sorted(shares) == shares and 20 < shares[-1] < 100 and re.search(r"00:0\d<00:0\d", later)
    with waiting("thinking", False, 2):
        pass
    assert capsys.readouterr().err == ""


CODE = "from entropy_captum.cli import main; main()"


def in_terminal(*arguments, until, timeout=240):
    """Start the program in a terminal, and give it, all it wrote, and the terminal, when it writes `until`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # a bar needs a width
    # What was started in the background of a shell passes on that it ignores Ctrl-C; a terminal's program does not.
    process = subprocess.Popen([sys.executable, "-c", CODE, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
                               start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"},
                               preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    os.close(theirs)
    said, end = "", time.monotonic() + timeout
    while until not in said and time.monotonic() < end and process.poll() is None:
        if select.select([ours], [], [], 0.2)[0]:
            said += os.read(ours, 4096).decode(errors="replace")
    return process, said, ours


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["loading the network", "preparing the network"])
def test_ctrl_c_ends_it_at_once_also_while_it_prepares(stage, tmp_path):
    """Within two seconds of the process's own time: what others do with the machine meanwhile is not counted."""
    process, said, ours = in_terminal("demo", "--grid-size", "4", "--out", str(tmp_path / "out"), until=stage)
    try:
        assert stage in said, said
        used = before = spent(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            used = spent(process.pid) or used
            if select.select([ours], [], [], 0.02)[0]:
                with suppress(OSError):
                    os.read(ours, 4096)
        assert process.poll() == 130 and used - before < 2
    finally:
        process.kill()
        os.close(ours)
    assert not (tmp_path / "out").exists()


def spent(pid):
    """The processor time of a process in seconds; 0 where it is over."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize("goal", [{}, {"tolerance": 1e-9}, {"max_rows": 600}, {"top": 2, "max_rows": 600}, {"region": None}],
                         ids=["N", "tolerance", "rows", "top", "predicted"])
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_the_first_map_of_a_stream_comes_within_a_tenth_of_its_rows(inference, goal, monkeypatch):
    """Whatever runs the rows, and whatever the goal is; they are counted where they arrive."""
    rows, add = [], Tally.add
    monkeypatch.setattr(Tally, "add", lambda self, block: rows.append(len(block.row)) or add(self, block))
    stream = EntropyCentric(NET, inference=inference).stream(
        X, **{"region": REGION, "target": 0, "grid_size": 4, "n_samples": 32, "perturbations_per_eval": 64} | goal)
    next(stream)
    first = sum(rows)
    last = deque(stream, maxlen=1)[0]
    assert 0 < first <= 0.1 * sum(rows) and sum(rows) <= int(last.n_forwards[0]) <= sum(rows) + 1


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"grid_size": 4}, {"grid_size": "adaptive", "finest": 2}], ids=["grid", "adaptive"])
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_a_bar_is_there_before_the_first_row(asked, inference, monkeypatch, capsys):
    """In every part of a run: an adaptive grid first looks where it has to be fine."""
    seen, add = [], Tally.add
    monkeypatch.setattr(Tally, "add", lambda self, block: seen.append(capsys.readouterr().err) or add(self, block))
    EntropyCentric(NET, inference=inference).estimate(X, region=REGION, n_samples=8, show_progress=True, **asked)
    assert "%|" in seen[0] and ("where to be fine" in seen[0]) == (asked["grid_size"] == "adaptive")
    assert "%|" in "".join(seen[1:]) + capsys.readouterr().err
    EntropyCentric(NET, inference=inference).estimate(X, region=REGION, n_samples=8, **asked)
    assert "%|" not in capsys.readouterr().err


def test_the_report_says_how_sure_one_tile_is_and_reads_old_rows():
    rows = pd.DataFrame({"method": ["entropy", "entropy", "random"], "gap": [1.0, 2, 3], "gap_r0.5_se": [4.0, 7.0, 90.0]})
    assert "standard error of 5.5 points" in one_decides_nothing(rows, "entropy")
    assert one_decides_nothing(rows.drop(columns="gap_r0.5_se"), "entropy") == ""
    assert one_decides_nothing(rows.assign(**{"gap_r0.5_se": np.nan}), "entropy") == ""


def test_scores_of_several_inputs_are_redrawn_in_all_of_them():
    """Features 0 to 15 of one input and 16 to 31 of the other: a pixel's map is the mean of two scores, its error of both."""
    def forward(one, other):
        return (one - 2 * other).mean(1, keepdim=True) * 3

    inputs = (torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))
    mask = grid_feature_mask((16, 16), 4)
    region = torch.zeros(1, 16, 16)
    region[0, 2:10, 3:12] = 1
    estimate = EntropyCentric(forward).estimate(inputs, region=region, feature_mask=(mask, mask + 16), n_samples=8)
    heat = torch.stack([each[0, 0] for each in estimate.to_attribution()]).mean(0)
    found = (redrawn(heat, estimate, count=4000) - heat)[:, ::4, ::4].flatten(1).std(0)
    first, second = estimate.standard_error[0].reshape(2, 16)
    assert found.numpy() == pytest.approx(np.hypot(first, second) / 2, rel=0.08, abs=1e-9)


def test_a_verdict_keeps_its_colour_in_other_words(monkeypatch):
    said = []
    monkeypatch.setattr(judgement, "VERDICTS", tuple(f"in other words {k}" for k in range(len(VERDICTS))))
    monkeypatch.setattr(typer, "echo", lambda text, **_: said.append(text))
    for words in (*judgement.VERDICTS, "control"):
        echo_in("a line", words)
    styles = ({"fg": "green", "bold": True}, {"fg": "green"}, {}, {"fg": "red"}, {}, {"dim": True})
    assert said == [typer.style("a line", **style) for style in styles]
