"""Tiles, scenes, weights, training and the commands, as a user meets them."""
import json
import os
import re
import subprocess
import sys
import types
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from typer.testing import CliRunner

import entropy_captum
from entropy_captum import Estimate, rooftop_unet
from entropy_captum.cli import app, main
from entropy_captum.data import LAYOUTS, find_tiles, read_mask
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.explanation import largest_object
from entropy_captum.region import iou, object_at
from entropy_captum.tiles import find_sources
from entropy_captum.training import Recipe, find_splits, initialize_encoder, shuffle_labels, train
from entropy_captum.zoo import BUNDLED_WEIGHTS, dataset_iou, paper_unet, predict_mask

ENTROPY_CAPTUM = Path(sys.executable).parent / "entropy-captum"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(tmp_path, layout):
    scene = procedural_scene(1, 64)
    for folder, pixels in zip(layout, (scene.image, scene.label.astype(np.uint8) * 255), strict=True):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    Image.fromarray(scene.image).save(tmp_path / layout[0] / "unlabelled.png")
    labelled, unlabelled = find_tiles(tmp_path)
    image, label, known, valid = labelled.read()
    assert (image == scene.image).all() and (label == scene.label).all() and known is valid is unlabelled.label is None


def test_bad_files_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "seven.png")
    for call, message in ((lambda: read_mask(tmp_path / "broken.png"), "broken.png"),
                          (lambda: read_mask(tmp_path / "seven.png"), r"0/255.* found 7 \(100.0%\)"),
                          (lambda: find_tiles(tmp_path), "no tiles found.*image/label"),
                          (lambda: find_tiles(tmp_path / "nowhere"), "no such folder"),
                          (lambda: find_tiles(tmp_path / "seven.png"), "seven.png: is a file"),
                          (lambda: find_sources(tmp_path / "seven.png"), "seven.png: is a file"),
                          (lambda: rooftop_unet(tmp_path / "none.pth"), "none.pth: no such")):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_scene_is_segmented_by_the_bundled_network():
    model = rooftop_unet()
    scenes = [procedural_scene(seed) for seed in range(8)]
    found = np.stack([predict_mask(model, scene.image) for scene in scenes])
    assert iou(found, np.stack([scene.label for scene in scenes])) >= 0.6


@pytest.mark.slow
def test_weights_load_from_every_wrapping(tmp_path):
    model, x = rooftop_unet(), torch.rand(1, 3, 64, 64)
    state = model.state_dict()
    for number, wrapped in enumerate((state, {"state_dict": state}, {"state_dict": {"model." + k: v for k, v in state.items()}})):
        torch.save(wrapped, tmp_path / f"{number}.pth")
        assert torch.equal(rooftop_unet(tmp_path / f"{number}.pth")(x), model(x))
    torch.save(paper_unet().state_dict(), tmp_path / "paper.pth")
    with pytest.raises(ValueError, match="does the architecture match"):
        rooftop_unet(tmp_path / "paper.pth")
    assert BUNDLED_WEIGHTS.stat().st_size < 12e6


@pytest.mark.data
def test_model_card_figures_hold(aerial):
    model = rooftop_unet()
    log = json.loads(BUNDLED_WEIGHTS.with_suffix(".json").read_text())
    for name in ("whu", "inria"):
        assert dataset_iou(model, find_tiles(aerial / name / "val")) == pytest.approx(log[name], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-b0"], ids=["plain", "with layers that drop at random"])
def test_interrupted_training_equals_an_undisturbed_one(encoder, tmp_path, monkeypatch):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    recipe = Recipe(encoder=encoder, steps=4, batch_size=2, crop=64, procedural=0)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # what its own network takes is known
        whole = train([tmp_path / "toy"], tmp_path / "whole", recipe, validate_every=2, show_progress=False)

    import entropy_captum.training as training
    real, calls = training.segmentation_loss, []

    def dies(logits, labels):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(logits, labels)

    monkeypatch.setattr(training, "segmentation_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train([tmp_path / "toy"], tmp_path / "cut", recipe, validate_every=2, show_progress=False)
    monkeypatch.setattr(training, "segmentation_loss", real)
    cut = train([tmp_path / "toy"], tmp_path / "cut", recipe, validate_every=2, show_progress=False)
    assert whole.read_bytes() == cut.read_bytes()
    # The file says which encoder it is for, so that no option has to.
    assert encoder != "resnet18" or rooftop_unet(whole).encoder.layer1 is not None


def test_a_short_run_averages_over_the_same_share_of_its_steps(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("entropy_captum.training.train", lambda data, out, recipe, **_: asked.append(recipe) or out)
    for arguments in ([], ["--steps", "500", "--encoder", "resnet18"], ["--shuffled", "--seed", "4"]):
        asking = ["train", str(tmp_path), "--out", str(tmp_path), "--device", "cpu", *arguments]
        assert CliRunner().invoke(app, asking).exit_code == 0
    whole, short, shuffled = asked
    assert whole == Recipe() and shuffled == Recipe(shuffled=True, seed=4) and short.encoder == "resnet18"
    assert short.averaging**500 == pytest.approx(whole.averaging**whole.steps)


@pytest.mark.slow
def test_efficientnet_b0_starts_from_every_tensor_of_lite0(monkeypatch):
    # The real weights come with the training extra; what fits where is the same for any.
    lite0 = smp.encoders.get_encoder("tu-tf_efficientnet_lite0", weights=None).state_dict()
    monkeypatch.setattr("entropy_captum.training.imagenet_lite0", lambda: lite0)
    model = smp.Unet("tu-tf_efficientnet_b0", encoder_weights=None, classes=1)
    weights, gates = (model.encoder.state_dict(), [n for n in model.encoder.state_dict() if ".se." in n])
    before = {name: value.clone() for name, value in weights.items()}
    assert "288 of the encoder's 352" in initialize_encoder(model.encoder)
    assert all(torch.equal(model.encoder.state_dict()[name], lite0[name]) for name in lite0)
    assert len(gates) == 64 and all(torch.equal(model.encoder.state_dict()[name], before[name]) for name in gates)
    assert initialize_encoder(smp.Unet("resnet18", encoder_weights=None, classes=1).encoder) == "random"


def test_shuffled_labels_belong_to_other_tiles_of_the_size():
    pairs = [(np.full((side, side, 3), k, np.uint8), np.full((side, side), k % 2 == 0)) for k, side in enumerate((4, 8, 4, 8, 4))]
    shuffled = shuffle_labels(pairs)
    assert [image[0, 0, 0] for image, _ in shuffled] == [0, 1, 2, 3, 4]
    owners = [next(k for k, (_, label) in enumerate(pairs) if label is own) for _, own in shuffled]
    assert owners == [2, 3, 4, 1, 0]


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(procedural_scene(2, 128).image).save(path)
    return path


@pytest.mark.slow
def test_explain_writes_what_it_says(scene_file, tmp_path):
    region = largest_object(predict_mask(rooftop_unet(), np.asarray(Image.open(scene_file))))
    y, x = np.argwhere(region)[len(np.argwhere(region)) // 2]
    out = tmp_path / "out"
    command = [ENTROPY_CAPTUM, "explain", scene_file, "--point", str(x), str(y), "--grid-size", "4", "--n-samples", "4", "--out",
               out]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["entropy-estimate.json", "entropy-estimate.npz", "entropy.npy", "entropy.png",
                                                     "panel.png", "pixels.json", "table.csv"]
    heat, estimate = np.load(out / "entropy.npy"), Estimate.load(out / "entropy-estimate")
    assert heat.shape == (128, 128) and np.allclose(heat, estimate.to_attribution()[0, 0]) and str(out) in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("arguments,message", [
    (["explain", "nowhere.png"], "nowhere.png"), (["explain", "SCENE", "--point", "500", "3"], "outside the image"),
    (["explain", "SCENE", "--mask", "nowhere.png"], "nowhere.png"), (["explain", "SCENE", "--n-samples", "1"], "at least 2, got 1"),
    (["explain", "SCENE", "--window", "64"], "--window needs"), (["demo", "--data", "nowhere"], "no such folder"),
    (["explain", "SCENE", "--label", "SMALL"], "a mask of 8 x 8 for an image of 128 x 128"),
    (["explain", "SCENE", "--method", "entropy,guess"], "unknown method 'guess'; known are entropy,"),
    (["explain", "SCENE", "--device", "abacus"], "abacus"), (["explain", "SCENE", "--model", "none.pth"], "none.pth"),
    (["explain", "SCENE", "--model", "JUNK.SAFETENSORS"], "junk.safetensors: not a readable weights file"),
    *((["explain", "SCENE", "--model", f"{name.upper()}.PTH"], f"{name}.pth: not a readable")
      for name in ("junk", "empty", "hello")),
    (["train", ".", "--steps", "0"], "--steps must be at least 1, got 0")])
def test_wrong_use_is_one_line_and_exit_code_2(scene_file, tmp_path, arguments, message, monkeypatch, capsys):
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(scene_file.parent / "small.png")
    files = {"SCENE": str(scene_file), "SMALL": str(scene_file.parent / "small.png")}
    for name, text in (("junk.safetensors", "no weights"), ("junk.pth", "no weights"), ("empty.pth", ""), ("hello.pth", "hello")):
        files[name.upper()] = str(scene_file.parent / name)
        Path(files[name.upper()]).write_text(text)
    command = [files.get(a, a) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["entropy-captum", *command, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 2 and message in shown.err and len(shown.err.strip().splitlines()) == 1 and not shown.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_itself_says_so_too(tmp_path):
    done = subprocess.run([str(ENTROPY_CAPTUM), "explain", "nowhere.png"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(r"error: nowhere\.png: no such file in this folder\n", done.stderr)


@pytest.mark.slow
def test_a_window_of_a_large_image(tmp_path):
    scene = procedural_scene(3, 256)
    Image.fromarray(scene.image).save(tmp_path / "large.png")
    Image.fromarray((scene.instances == 3).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "large.png"), "--mask", str(tmp_path / "mask.png"), "--window",
                                      "96", "--grid-size", "3", "--n-samples", "2", "--method", "grad-cam", "--out",
                                      str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "out" / "grad-cam.npy").shape == (96, 96)


@pytest.mark.slow
def test_any_methods_by_name_and_what_each_leaves(scene_file, tmp_path):
    command = ["explain", str(scene_file), "--method", "sobol, occlusion,random,ones", "--grid-size", "2", "--n-samples", "2",
               "--out",
               str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"table.csv", "panel.png", "pixels.json", "sobol.npy", "sobol.png", "sobol-estimate.npz",
                       "sobol-estimate.json", "occlusion.npy", "random.npy", "ones.npy"}
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert sorted(table["map"][:2]) == ["occlusion", "sobol"] and sorted(table["map"][2:]) == ["distance", "ones", "random"]


def test_public_names_are_few_and_frozen():
    assert entropy_captum.__all__ == ["EntropyCentric", "Estimate", "LayerScoreCam", "RegionScore", "SitResult", "SobolTotal",
                                      "h_sit", "l_sit", "load_model", "rooftop_unet"]
    assert all(getattr(entropy_captum, name).__doc__ for name in entropy_captum.__all__)  # imported when asked for
    public = {n for n, v in vars(entropy_captum).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    assert public == set(entropy_captum.__all__)


def test_a_point_beside_the_objects_names_the_nearest():
    mask = np.zeros((20, 30), bool)
    mask[2:4, 3:6] = mask[10:15, 20:25] = True
    with pytest.raises(ValueError, match=r"\(17, 12\) lies on no object; the nearest has a pixel at \(20, 12\)"):
        object_at(mask, 17, 12)
    assert object_at(mask, 20, 12).sum() == 25
    with pytest.raises(ValueError, match="there is none"):
        object_at(np.zeros_like(mask), 1, 1)


def test_ctrl_c_ends_at_once(monkeypatch):
    """Without the seconds that taking torch down would take. What is said of what is kept: tests/test_interrupted.py."""
    ended = []
    monkeypatch.setattr("entropy_captum.cli.app", lambda: sys.exit(130))
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["entropy-captum", "demo"])
    with suppress(SystemExit):
        main()
    assert ended == [130]


@pytest.mark.slow
def test_a_study_prints_means_of_scenes_and_says_when_all_failed(tmp_path):
    write_scenes(tmp_path / "data" / "towns", (2, 5), 64)
    arguments = ["evaluate", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--methods", "grad-cam,distance",
                 "--n-samples", "2", "--grid-size", "2", "--baselines", "grey,black"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "run").rglob("*.parquet")))
    mean = rows[(rows.method == "grad-cam") & (rows.baseline == "grey")].gap.mean()
    assert f"{mean:.2f}" in done.output and "far" in done.output and "gap on equal area" in done.output
    scenes = len(rows[["dataset", "scene"]].drop_duplicates())
    assert re.search(rf"Means over {scenes} scenes?;", done.output) and f"entropy-captum report {tmp_path / 'run'}" in done.output
    for path in (tmp_path / "data").rglob("label/*"):
        Image.fromarray(np.full((64, 64), 7, np.uint8)).save(path)
    rows = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.parquet")}
    with pytest.warns(UserWarning, match="rows from before are kept"):
        failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code != 0 and "every tile failed; the first with ValueError" in str(failed.exception), failed.output
    assert rows and rows == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.parquet")}
    arguments[4] = str(tmp_path / "other")
    failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code != 0 and "every tile failed; the first with ValueError" in str(failed.exception), failed.output


def test_two_data_sets_of_one_name_are_not_trained_on_as_one(tmp_path):
    for place in ("x1", "x2"):
        for split in ("train", "val"):
            write_scenes(tmp_path / place / "town" / split, [1], size=32)
    with pytest.raises(ValueError, match=r"x1/town and .*x2/town would both be the data set 'town'"):
        find_splits([tmp_path / "x1/town", tmp_path / "x2/town"])
    assert list(find_splits([tmp_path / "x1/town", tmp_path / "x1/town"])) == ["town"]
