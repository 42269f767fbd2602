"""What fuzzing found: odd files, arguments and run folders, threads that share a network, and the tool's own networks."""
import json
import shutil
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import load_tool, small_net
from PIL import Image

from entropy_captum import EntropyCentric, rooftop_unet
from entropy_captum.cli import main
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.files import look
from entropy_captum.labels import LabelValues, read_label
from entropy_captum.report import write_report
from entropy_captum.study import evaluate, read_facts
from entropy_captum.tiles import Settings
from entropy_captum.training import Recipe, train
from entropy_captum.zoo import new_unet

SMALL = Settings(("random",), 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_networks_are_explained_alike_in_full_and_incrementally(seed):
    assert not load_tool("fuzz").fault(seed)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_two_threads_that_share_a_network_get_what_one_gets(kind):
    torch.manual_seed(0)
    inputs, regions = torch.randn(2, 1, 3, 32, 28), torch.zeros(2, 1, 32, 28)
    regions[0, :, 5:12, 5:12] = regions[1, :, 20:30, 10:20] = 1

    def scores(net, k):
        return EntropyCentric(net, inference=kind).estimate(inputs[k], region=regions[k], n_samples=4, grid_size=4).scores

    want = [scores(small_net(), k) for k in range(2)]
    net, found, together = small_net(), {}, threading.Barrier(2)
    before = [value.clone() for value in net.state_dict().values()]

    def work(k):
        together.wait()
        found[k] = [scores(net, k) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(each, want[k]) for k in range(2) for each in found[k])
    assert all(module.training for module in net.modules())
    assert all(map(torch.equal, net.state_dict().values(), before))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    drawn = procedural_scene(2, 64)
    Image.fromarray(drawn.image).save(tmp_path / "scene.png")
    Image.fromarray(drawn.label.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    return tmp_path / "scene.png"


@pytest.mark.parametrize("arguments,message", [
    (["--nodata", "²"], "--nodata '²': expected a number"),
    (["--label-values", "building=1"], "--label-values 'building=1' says what a label's values mean; give --label too"),
    (["--label", "mask.png", "--label-values", "building=-1"], "no pixel can have the value -1"),
    (["--mask", "mask.png", "--grid-size", "2", "--n-samples", "2", "--out", "scene.png"],
     "scene.png: could not be written (File exists); a file is in the way"),
    (["--mask", "mask.png", "--grid-size", "2", "--n-samples", "2", "--out", "scene.png/out"],
     "could not be written (Not a directory); a file is in the way"),
    (["--mask", "no\nmask.png"], "no mask.png: no such file")])
def test_odd_arguments_are_one_line_and_exit_code_2(scene, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(scene.parent)
    monkeypatch.setattr(sys, "argv", ["entropy-captum", "explain", "scene.png", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 2 and message in shown.err and len(shown.err.strip().splitlines()) == 1 and not shown.out
    assert {path.name for path in scene.parent.iterdir()} == {"scene.png", "mask.png"}


def tiff(kind: int, width: int) -> bytes:
    """The tags of a grey TIFF of 8 rows, whose width is written in a type of its own."""
    tags = [(256, kind, 1, width), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200),
            (279, 4, 1, 64)]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(300)


@pytest.mark.parametrize("kind,width", [(2, ord("A")), (11, 0x7FC00000)])
def test_a_tiff_whose_tags_are_no_numbers_is_named(tmp_path, kind, width):
    (tmp_path / "odd.tif").write_bytes(tiff(kind, width))
    with pytest.raises(ValueError, match=r"odd\.tif: a damaged file"):
        look(tmp_path / "odd.tif")


@pytest.mark.parametrize("dtype,value,fits", [(np.uint8, 255, True), (np.uint8, 256, False), (bool, 1, True), (bool, 255, False)])
def test_a_building_value_must_be_one_that_the_label_can_hold(tmp_path, dtype, value, fits):
    Image.fromarray(np.eye(8).astype(dtype)).save(tmp_path / "label.png")
    if fits:
        assert read_label(tmp_path / "label.png", LabelValues({"building": ((value,),)})).mask.any() == (value == 1)
    else:
        with pytest.raises(ValueError, match=f"label.png: holds 1 band .* no pixel can have the value {value}"):
            read_label(tmp_path / "label.png", LabelValues({"building": ((value,),)}))


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: t.to(torch.complex64)])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, change):
    state = rooftop_unet().state_dict()
    torch.save({name: change(value) if value.is_floating_point() else value for name, value in state.items()}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: has no plain real numbers in \d+ tensors, the first: encoder"):
        rooftop_unet(tmp_path / "odd.pth")


@pytest.mark.parametrize("encoder", ["nonsense", "", "tu-nonsense"])
def test_an_unknown_encoder_is_named(encoder):
    with pytest.raises(ValueError, match=f"has no encoder '{encoder}'"):
        new_unet(encoder)


def test_seeds_below_zero_are_refused_before_anything_is_run(tmp_path):
    with pytest.raises(ValueError, match=r"seeds must be at least 0, got \(0, -1\)"):
        Settings(seeds=(0, -1))
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    for seed in (-1, 2**70):
        with pytest.raises(ValueError, match=f"the seed of a training must be from 0 .* got {seed}"):
            train([tmp_path / "toy"], tmp_path / "out", Recipe(encoder="resnet18", seed=seed), show_progress=False)
    assert not (tmp_path / "out").exists()


def test_training_looks_for_labels_to_validate_on_before_it_starts(tmp_path):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    shutil.rmtree(tmp_path / "toy/val/label")
    with pytest.raises(ValueError, match="toy/val: none of its 1 tiles has a label"):
        train([tmp_path / "toy"], tmp_path / "out", Recipe(encoder="resnet18", steps=1), show_progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [{"a": 1}, {"recipe": {"odd": 1}}, {"recipe": {"encoder": "resnet18", "steps": 1}}])
def test_a_training_state_that_is_none_is_named(tmp_path, content):
    for split in ("train", "val"):
        write_scenes(tmp_path / "toy" / split, (1,), 64)
    (tmp_path / "out").mkdir()
    torch.save(content, tmp_path / "out" / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: not a readable weights file"):
        train([tmp_path / "toy"], tmp_path / "out", Recipe(encoder="resnet18", steps=1), show_progress=False)


@pytest.mark.slow
def test_a_damaged_row_file_is_named_and_written_anew(tmp_path):
    write_scenes(tmp_path / "data/a", (1, 2), 64)
    net, run = small_net(), tmp_path / "run"
    evaluate(net, tmp_path / "data", run, SMALL, show_progress=False)
    rows = sorted(run.rglob("*.parquet"))[0]
    for damage in (lambda: rows.write_bytes(b""), lambda: rows.write_bytes(rows.read_bytes()[:-50]),
                   lambda: pd.DataFrame({"a": [1]}).to_parquet(rows)):
        damage()
        with pytest.raises(ValueError, match=rf"{rows.name}: not .* rows"):
            write_report(run)
        assert len(evaluate(net, tmp_path / "data", run, SMALL, show_progress=False)) == 2
        write_report(run)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"settings": {}}), "\0"])
def test_a_run_without_its_settings_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json: not the settings of a run"):
        read_facts(tmp_path)
