"""Methods of one's own: checked when they are registered, run as they are, and named where they return no map."""
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import Attribution, GuidedGradCam, LayerGradCam, Occlusion, Saliency
from conftest import Encoded, small_net
from distributed import Client, LocalCluster
from torch import nn
from typer.testing import CliRunner

from entropy_captum import RegionScore
from entropy_captum.cli import app
from entropy_captum.drawn import write_scenes
from entropy_captum.methods import REGISTRY, ask_of_image, feature_ids, method_names, register, run_methods
from entropy_captum.methods import registered as method_names_at
from entropy_captum.question import Budget, Question
from entropy_captum.study import differences, evaluate, facts_of, read_rows, run_id
from entropy_captum.tiles import Settings
from entropy_captum.zoo import rooftop_unet


@contextmanager
def registered(**methods):
    """Methods that are known inside."""
    try:
        for name, method in methods.items():
            register(name, method)
        yield
    finally:
        for name in methods:
            REGISTRY.pop(name, None)


BUDGET = Budget(2, seed=5)


@pytest.fixture
def question() -> Question:
    x, regions = torch.rand(1, 3, 24, 32), torch.zeros(2, 24, 32)
    regions[0, :8, :8], regions[1, 12:, 20:] = 1, 1
    return ask_of_image(small_net(), x, regions, grid_size=2)


def gradients(model, inputs, region):
    """By hand, what Captum's Saliency gives of the region's mean probability."""
    inputs.requires_grad_()
    p = model(inputs)[:, 0].sigmoid()
    return torch.autograd.grad((p * region).sum() / region.sum(), inputs)[0].abs().mean(1)[0]


def test_a_function_and_an_attribution_that_do_the_same_give_the_same(question):
    flags = [m.training for m in question.forward.modules()]
    with registered(mine=gradients, theirs=Saliency, lazy=lambda score: Saliency(score)):
        found = run_methods(question, BUDGET, ["mine", "theirs", "lazy"])
    for name in ("theirs", "lazy"):
        assert torch.allclose(found["mine"].maps, found[name].maps, atol=1e-7) and found["mine"].maps.std() > 0
    assert found["mine"].forwards == 2 and [m.training for m in question.forward.modules()] == flags


SHAPES = {"(H,W)": (24, 32), "(1,H,W)": (1, 24, 32), "(1,1,H,W)": (1, 1, 24, 32), "(1,3,H,W)": (1, 3, 24, 32)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray, np.int64, lambda values: values > 0.5])
def test_maps_of_every_likely_shape_are_taken(question, shape, kind):
    values = np.random.default_rng(0).random(shape) * 3
    with registered(mine=lambda model, inputs, region: kind(values)):
        found = run_methods(question, BUDGET, ["mine"])["mine"].maps
    want = np.asarray(kind(values), float).reshape(-1, 24, 32).mean(0)
    assert found.shape == (2, 24, 32) and found.dtype == torch.float32 and np.allclose(found, want)


@pytest.mark.parametrize("returned,message", [
    (torch.zeros(32, 24), r"'mine' returned a map of shape \(32, 24\), expected \(24, 32\) or \(1, 1, 24, 32\)"),
    (torch.zeros(2, 24, 32), r"'mine' returned a map of shape \(2, 24, 32\)"),
    (torch.tensor(1.0), r"'mine' returned a map of shape \(\), expected"),
    (torch.full((24, 32), torch.nan), "'mine' returned a map with NaN"), (None, "'mine' returned NoneType, expected a map"),
    ({"map": 1}, "'mine' returned dict, expected a map"), ("map", "'mine' returned str, expected a map")])
def test_what_is_no_map_is_named(question, returned, message):
    with registered(mine=lambda model, inputs, region: returned), pytest.raises((ValueError, TypeError), match=message):
        run_methods(question, BUDGET, ["mine"])


class Resembles:
    """A class that makes something of a score, and no attribution."""

    def __init__(self, score):
        self.score = score


def two_more(model, inputs, region, layer, steps):
    raise NotImplementedError


@pytest.mark.parametrize("method,message", [
    (None, "must be a function or the class of an attribution, got NoneType"), ("occlusion", "got str"),
    (Occlusion(lambda x: x.sum((1, 2, 3))), "or the class of an attribution, got Occlusion"),
    (lambda: None, r"'mine' takes \(\), expected a score, or the model, inputs and region"),
    (lambda model, inputs: None, r"takes \(model, inputs\)"), (GuidedGradCam, r"takes \(model, layer\)"),
    (two_more, r"takes \(model, inputs, region, layer, steps\)"), (lambda *args: None, r"takes \(\)"),
    (lambda score, *, layer: None, r"takes \(score, layer\)"), (Resembles, "the class Resembles, which is no Captum attribution"),
    (nn.Conv2d(3, 1, 1), r"takes \(\)"), (print, r"takes \(\)"), (dict, "no Captum attribution")])
def test_what_cannot_be_run_is_refused_when_it_is_registered(method, message):
    with pytest.raises(TypeError, match=message):
        register("mine", method)
    assert "mine" not in method_names()


def test_names_are_words_that_files_and_lists_can_hold():
    for name in ("two words", "a,b", "a/b", "", "entropy\n"):
        with pytest.raises(ValueError, match="a word of letters"):
            register(name, Occlusion)
    for name in ("entropy", "occlusion", "ones"):
        with pytest.raises(ValueError, match="registered already"):
            register(name, Occlusion)


def test_a_maker_that_makes_no_attribution_is_named(question):
    with registered(mine=lambda score: None), pytest.raises(TypeError, match="'mine' made NoneType, expected a Captum attribution"):
        run_methods(question, BUDGET, ["mine"])


def test_a_function_is_given_what_it_names_and_cannot_spoil_the_rest(question):
    seen = {}

    def greedy(model, inputs, region, *, target, baselines, seed=None, activation="auto", feature_mask=None, steps=3):
        seen.update(target=target, seed=seed, activation=activation, cells=feature_mask.unique().tolist(), steps=steps)
        assert torch.equal(baselines, torch.zeros(1, 3, 24, 32)) and inputs.shape == (1, 3, 24, 32) and region.shape == (1, 24, 32)
        inputs.zero_(), region.zero_()
        return torch.rand(24, 32)

    before = question.inputs.clone(), question.regions.clone()
    with registered(mine=greedy):
        other, first, again = (run_methods(question, replace(BUDGET, seed=seed), ["mine"])["mine"].maps for seed in (6, 5, 5))
    assert seen == {"target": None, "seed": 5, "activation": "auto", "cells": [0, 1, 2, 3], "steps": 3}
    assert torch.equal(question.inputs, before[0]) and torch.equal(question.regions, before[1])
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_attribution_of_a_layer_is_made_of_the_network_in_the_score(question):
    with registered(layer=lambda score: LayerGradCam(score, score.model[0])):
        found = run_methods(question, BUDGET, ["layer"])["layer"].maps[0]
    cam = LayerGradCam(RegionScore(question.forward.eval(), question.regions[:1]), question.forward[0])
    assert issubclass(LayerGradCam, Attribution) and torch.allclose(found, cam.attribute(question.inputs)[0, 0].detach(), atol=1e-6)


@pytest.fixture
def data(tmp_path):
    write_scenes(tmp_path / "data" / "town", (2, 5), 64)
    return tmp_path / "data"


def bright() -> nn.Module:
    net = nn.Conv2d(3, 1, 1)
    net.weight.data.fill_(1.0)
    return net


def test_a_study_names_the_method_in_the_rows_of_tiles_that_it_fails_on(data, tmp_path):
    with registered(mine=lambda model, inputs, region: region.mean()):
        rows = evaluate(bright(), data, tmp_path / "run", Settings(("mine",), 2, 2, min_pixels=1), show_progress=False)
    assert set(rows.status) == {"error"} and all("the method 'mine' returned a map of shape ()" in error for error in rows.error)


@pytest.mark.slow
def test_workers_of_a_cluster_run_it_too(data, tmp_path):
    def mine(model, inputs, region):  # known to no worker but by what is sent
        return (model(inputs).sigmoid() * region * inputs).detach()

    with registered(mine=mine, theirs=Saliency):
        settings, model = Settings(("mine", "theirs"), 2, 2, min_pixels=1), bright()
        want = evaluate(model, data, tmp_path / "here", settings, show_progress=False)
        with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            found = evaluate(model, data, tmp_path / "there", settings, cluster=client, show_progress=False)
    assert set(want.status) == {"ok"}
    columns = [c for c in want if "seconds" not in c]
    pd.testing.assert_frame_equal(found[columns], want[columns])


def test_rows_of_a_method_that_has_changed_are_another_runs():
    """A name says nothing of what it stood for yesterday."""
    def identity(method) -> str:
        with registered(mine=method):
            return run_id(facts_of(Settings(("mine", "ones"), 2, 2), model))

    model = bright()
    ids = [identity(method) for method in (
        lambda model, inputs, region: inputs,
        lambda model, inputs, region: inputs * 2,
        gradients, partial(two_more, layer=1, steps=2), partial(two_more, layer=2, steps=2))]
    assert len(set(ids)) == 5 and identity(gradients) == ids[2]
    assert facts_of(Settings(("ones",), 2, 2), model)["methods"] == {}


def test_a_map_that_is_undefined_is_not_tested_and_costs_no_other_row(data, tmp_path, monkeypatch):
    def undefined(question, budget):
        maps = run_methods(question, budget, ["ones"])["ones"]
        return maps._replace(maps=torch.full_like(maps.maps, torch.nan))

    monkeypatch.setitem(REGISTRY, "undefined", undefined)
    rows = evaluate(bright(), data, tmp_path / "run", Settings(("undefined", "random"), 2, 2, min_pixels=1), show_progress=False)
    assert set(rows.status) == {"ok"} and len(rows) == 4
    good = rows[rows.method == "random"]
    assert rows[rows.method == "undefined"][["gap", "l_sit_confidence_drop", "h_drop_r0.5"]].isna().all(axis=None)
    assert good[["gap", "l_sit_confidence_drop", "h_drop_r0.5"]].notna().all(axis=None)


@pytest.mark.parametrize("name", ["score-cam", "grad-cam", "occlusion", "entropy"])
def test_a_function_around_a_network_gives_the_same_maps_at_the_same_count(name):
    """The CAMs used to say that a function took no forwards."""
    net, x, regions = Encoded().eval(), torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32)
    regions[:, :8] = 0
    alone, around = (run_methods(ask_of_image(model, x, regions, grid_size=2), Budget(2), [name])[name]
                     for model in (net, lambda inputs: net(inputs)))
    assert alone.forwards == around.forwards > 0 and torch.equal(alone.maps, around.maps)


def test_a_feature_mask_as_an_array_is_what_methods_remove():
    """It used to be passed over for the grid."""
    x, regions = torch.rand(1, 3, 24, 32), torch.ones(1, 24, 32)
    mask = np.repeat([[7, 7, 20, 40]], 24, 0).repeat(8, 1)
    question = ask_of_image(small_net(), x, regions, feature_mask=mask)
    assert feature_ids(question).shape == (1, 1, 24, 32) and feature_ids(question)[0, 0, 0, ::8].tolist() == [0, 0, 1, 2]
    found = run_methods(question, BUDGET, ["random", "ablation"])
    assert all(len(heat.unique()) == 3 for each in found.values() for heat in each.maps)
    with pytest.raises(ValueError, match=r"regions \(K,H,W\) of one image, got shape \(24, 32\)"):
        ask_of_image(small_net(), x, regions[0])


@pytest.mark.slow
def test_a_method_is_known_by_its_place(tmp_path):
    """A function of a file and a class of a package, at the terminal: the maps that Python gives."""
    source = tmp_path / "mine.py"
    source.write_text("def bright(model, inputs, region):\n    return inputs.mean(1)[0]\n")
    write_scenes(tmp_path / "data/town", (2,), 128)
    try:
        done = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--methods",
                                        f"ones,{source}:bright,captum.attr:Saliency", "--grid-size", "4", "--n-samples", "2"])
    finally:
        REGISTRY.pop("bright", None), REGISTRY.pop("Saliency", None)
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    rows = read_rows((tmp_path / "run").rglob("*.parquet"))
    assert set(rows.method) == {"ones", "bright", "Saliency"} and set(rows.status) == {"ok"}
    with registered(light=lambda model, inputs, region: inputs.mean(1)[0]):
        other = evaluate(rooftop_unet(), tmp_path / "data", tmp_path / "other", Settings(("light", "random"), 4, 2),
                         show_progress=False)
    assert other.gap[other.method == "light"].item() == rows.gap[rows.method == "bright"].item()
    homes = [next((tmp_path / name).glob("*/run.json")).parent for name in ("run", "other")]
    told = differences(homes)
    assert "methods=ones,bright,Saliency" in told[homes[0]] and "own methods=bright,Saliency" in told[homes[0]]
    assert "methods=light,random" in told[homes[1]] and "own methods=light" in told[homes[1]]


def test_a_change_anywhere_in_the_file_of_a_method_makes_another_run(tmp_path):
    source, model, ids = tmp_path / "mine.py", bright(), []
    for factor in (1, -1, -1):
        source.write_text(f"K = {factor}\n\n\ndef bright(model, inputs, region):\n    return K * inputs.mean(1)[0]\n")
        try:
            ids.append(run_id(facts_of(Settings(method_names_at([f"{source}:bright"]), 2, 2), model)))
        finally:
            REGISTRY.pop("bright", None)
    assert ids[0] != ids[1] == ids[2]


@pytest.mark.parametrize("method,said", [
    ("nowhere.py:mine", "nowhere.py: no such file of Python code"), ("torch:pi", "must be a function or the class"),
    ("captum.attr:Salience", "captum.attr:Salience: cannot be imported"), ("captum.attr:", "captum.attr:: cannot be imported"),
    ("captum.attr:Saliency.attribute", "takes (self, inputs), expected a score"), ("mine.py", "unknown method 'mine.py'; known")])
def test_a_place_without_a_method_is_refused_before_the_model_is_read(method, said, tmp_path):
    write_scenes(tmp_path / "data/town", (2,), 64)
    line = ["evaluate", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--methods", method]
    done = CliRunner().invoke(app, line)
    assert done.exit_code and said in f"{done.output}{done.exception}" and not (tmp_path / "run").exists()


def test_what_is_drawn_for_a_region_does_not_depend_on_those_beside_it():
    net, x = small_net(), torch.rand(1, 3, 16, 16)
    regions = torch.zeros(2, 16, 16)
    regions[0, :6, :6], regions[1, 8:, 8:] = 1, 1

    def drawn(model, inputs, region):
        return torch.rand(16, 16) + region[0]

    with registered(drawn=drawn):
        for name in ("kernel-shap", "drawn"):
            both = run_methods(ask_of_image(net, x, regions, grid_size=4), Budget(4, 8), [name])[name].maps
            alone = run_methods(ask_of_image(net, x, regions[1:], grid_size=4), Budget(4, 8), [name])[name].maps
            assert torch.equal(both[1], alone[0])
