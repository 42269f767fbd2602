"""A folder of results holds one thing: what is replaced is said, nothing of it stays, and many buildings are not mixed with one."""
import datetime
import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from geopandas import GeoDataFrame
from PIL import Image
from typer.testing import CliRunner

from entropy_captum.cli import app
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import ask, explain_question
from entropy_captum.files import extent_of_array
from entropy_captum.footprints import outline
from entropy_captum.question import Budget
from entropy_captum.region import objects
from entropy_captum.request import Request
from entropy_captum.writing import files_of, in_place_of, record_of
from entropy_captum.zoo import Padded, rooftop_unet

PLACE = (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
FEW = ["--n-samples", "2", "--grid-size", "2"]


@pytest.fixture(scope="module")
def drawn():
    return procedural_scene(2, 128)


@pytest.fixture(scope="module")
def told(drawn):
    request = Request(drawn.image, extent_of_array(drawn.image, "scene"), objects(drawn.label) == 3)
    question = ask(Padded(rooftop_unet()), request, grid_size=2)
    return explain_question(request, question, Budget(2, 8), ["entropy"])


@pytest.fixture
def street(drawn, tmp_path):
    """A raster and a file of two of its houses."""
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", height=128, width=128, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=rasterio.Affine(*PLACE), photometric="RGB") as file:
        file.write(np.moveaxis(drawn.image, -1, 0))
    shapes = [outline(drawn.instances == k, PLACE) for k in (2, 3)]
    GeoDataFrame({"id": ["h2", "h3"]}, geometry=shapes, crs="EPSG:25832").to_file(tmp_path / "houses.gpkg")
    return [str(tmp_path / "scene.tif"), "--footprints", str(tmp_path / "houses.gpkg")]


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_record_of_an_explanation_names_its_files_and_none_of_them_outlives_it(told, tmp_path):
    """Also those of a method that is not known when the next one is saved."""
    own = replace(told, found={"my-own": told.found["entropy"]})
    own.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    record = json.loads((tmp_path / "pixels.json").read_text())
    assert set(record["files"]) == names_in(tmp_path) - {"notes.txt"} and "my-own-estimate.npz" in record["files"]
    assert record["made"] == datetime.date.today().isoformat() and record["rows"] == [0, 128]
    said = in_place_of(tmp_path)
    pixels = f"{told.region.sum():,}"
    assert said == f"the explanation of a region of {pixels} pixels by my-own in scene, made on {record['made']}"
    told.save(tmp_path)
    assert not [name for name in names_in(tmp_path) if name.startswith("my-own")] and (tmp_path / "notes.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("record", ["", "[1]", "{", '{"files": ["../kept", "/etc/passwd", 3, "sub/kept"]}'])
def test_a_foreign_record_removes_nothing_elsewhere(told, tmp_path, record):
    (tmp_path / "kept").write_text("mine")
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub/kept").write_text("mine")
    (out / "pixels.json").write_text(record)
    assert files_of(out) == [] and in_place_of(out).startswith("the explanation of a region in an image, made on ")
    told.save(out)
    assert (tmp_path / "kept").exists() and (out / "sub/kept").exists()


@pytest.mark.slow
def test_a_second_explanation_says_what_it_replaces(drawn, tmp_path):
    Image.fromarray(drawn.image).save(tmp_path / "tile.png")
    Image.fromarray((drawn.instances == 3).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    command = ["explain", str(tmp_path / "tile.png"), "--mask", str(tmp_path / "mask.png"), *FEW, "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(app, [*command, "--method", "entropy"])
    assert first.exit_code == 0 and "replaces" not in first.output
    area = 1 - (drawn.instances == 3).sum() / 128**2
    assert f"of the score lies outside what is explained (a map without preference would have {area:.0%})" in first.output
    second = CliRunner().invoke(app, [*command, "--method", "grad-cam"])
    lines = [line for line in second.output.splitlines() if "replaces" in line]
    assert second.exit_code == 0 and len(lines) == 1 and f"in {tmp_path / 'out'}; give another --out to keep both" in lines[0]
    assert "by entropy in " in lines[0] and "tile.png, made on " in lines[0]
    assert names_in(tmp_path / "out") == {"grad-cam.npy", "panel.png", "pixels.json", "table.csv"}


@pytest.mark.slow
def test_mistakes_that_are_none_any_more_leave_no_folder_of_earlier_ones(drawn, tmp_path):
    Image.fromarray(drawn.image).save(tmp_path / "tile.png")
    for name, label in (("wrong", ~drawn.label), ("all", np.ones_like(drawn.label))):
        Image.fromarray(label.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
    command = ["explain", str(tmp_path / "tile.png"), "--mistakes", *FEW, "--out", str(tmp_path / "out"), "--method", "ones"]
    assert CliRunner().invoke(app, [*command, "--label", str(tmp_path / "wrong.png")]).exit_code == 0
    assert names_in(tmp_path / "out") == {"false-positives", "false-negatives"}
    again = CliRunner().invoke(app, [*command, "--label", str(tmp_path / "all.png")])
    assert again.exit_code == 0 and "there are no false positives\nremoves the explanation of" in again.output
    assert names_in(tmp_path / "out") == {"false-negatives"}


@pytest.mark.slow
def test_one_building_and_many_are_not_mixed_and_another_survey_says_what_it_replaces(street, tmp_path):
    one, many = str(tmp_path / "one"), tmp_path / "many"
    assert CliRunner().invoke(app, ["explain", *street, "--id", "h3", *FEW, "--out", one]).exit_code == 0
    assert "building h3 of" in in_place_of(tmp_path / "one")
    refused = CliRunner().invoke(app, ["explain", *street, *FEW, "--out", one])
    assert "many buildings need a folder of their own, give another --out" in str(refused.exception)
    first = CliRunner().invoke(app, ["explain", *street, *FEW, "--parquet", "--patches", "--out", str(many)])
    assert first.exit_code == 0 and "replaced" not in first.output
    again = CliRunner().invoke(app, ["explain", *street, *FEW, "--parquet", "--patches", "--out", str(many)])
    assert again.exit_code == 0 and "replaced" not in again.output and "patches.parquet" in names_in(many)
    other = CliRunner().invoke(app, ["explain", *street, *FEW, "--seed", "1", "--out", str(many)])
    assert other.exit_code == 0 and other.output.count("replaced: buildings.gpkg and report.html of the survey") == 1
    assert not {"buildings.parquet", "patches.parquet"} & names_in(many)
    refused = CliRunner().invoke(app, ["explain", *street, "--id", "h3", *FEW, "--out", str(many)])
    assert "one explanation needs a folder of its own" in str(refused.exception) and record_of(many) is None
