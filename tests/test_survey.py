"""Many buildings of a scene: the same numbers in any order, by any number of workers, after any stop."""
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from geopandas import GeoDataFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely import Point, Polygon, box, from_wkb
from typer.testing import CliRunner

from entropy_captum.cli import app, print_survey
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import prediction_flags
from entropy_captum.footprints import outline
from entropy_captum.predicted import Found, as_footprints, cells_of, find_objects
from entropy_captum.question import Budget
from entropy_captum.run import Quantity, answer
from entropy_captum.scene import Scene
from entropy_captum.survey import (
    SurveySettings,
    arrays_of,
    ask_window,
    kept_of,
    load_survey,
    plan,
    predicted_buildings,
    survey,
    survey_map,
)
from entropy_captum.survey_report import make_survey_report, survey_figure
from entropy_captum.zoo import Padded, predict_mask, rooftop_unet

PLACE = (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
QUICK = SurveySettings(grid_size=4, n_samples=2, window=128)
NUMBERS = ["confidence", "entropy", "iou", "context_reliance", "context_reliance_error", "distance_half_m", "distance_90_m", "gap",
           "strongest_bearing_deg", "strongest_distance_m"]


@pytest.fixture(scope="module")
def network():
    return Padded(rooftop_unet())


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A scene of 256 x 256 pixels and its houses as polygons."""
    drawn, path = procedural_scene(2), tmp_path_factory.mktemp("street") / "scene.tif"
    pixels = drawn.image.copy()
    pixels[200:, :60] = 0
    with rasterio.open(path, "w", driver="GTiff", height=256, width=256, count=3, dtype="uint8", crs="EPSG:25832", nodata=0,
                       transform=rasterio.Affine(*PLACE), photometric="RGB") as file:
        file.write(np.moveaxis(pixels, -1, 0))
    shapes = [outline(drawn.instances == k, PLACE) for k in range(1, drawn.instances.max() + 1)]
    return path, GeoDataFrame({"building": [f"h{k:02d}" for k in range(1, len(shapes) + 1)], "storeys": range(len(shapes))},
                              geometry=shapes, crs="EPSG:25832")


def same(found, wanted):
    said = ["building", "window", "status", "flags"]
    pd.testing.assert_frame_equal(found[said], wanted[said])
    np.testing.assert_allclose(found[NUMBERS].astype(float), wanted[NUMBERS].astype(float), atol=1e-6)


@pytest.fixture(scope="module")
def surveyed(network, street, tmp_path_factory):
    out = tmp_path_factory.mktemp("survey")
    return survey(Scene(street[0], network, street[1]), out, QUICK, show_progress=False), out


@pytest.mark.slow
def test_the_order_of_buildings_changes_no_number(network, street, surveyed, tmp_path):
    path, houses = street
    turned = survey(Scene(path, network, houses.iloc[::-1].reset_index(drop=True)), tmp_path, QUICK, show_progress=False)
    assert turned.building.tolist() == houses.building.tolist()[::-1]
    same(turned.iloc[::-1].reset_index(drop=True), surveyed[0])


@pytest.mark.slow
def test_a_building_of_a_survey_has_the_scores_of_its_window_alone(network, street, surveyed):
    path, houses = street
    scene = Scene(path, network, houses)
    jobs, outside = plan(houses, scene.picture, QUICK.window)
    asked = [(job, *ask_window(network, job, scene.picture, QUICK)) for job in jobs]
    job, question, extent, _ = max((each for each in asked if each[1] is not None), key=lambda each: len(each[1].regions))
    assert not outside and len(question.regions) > 1
    (run,) = (Path(surveyed[1]) / name for name in os.listdir(surveyed[1]) if (surveyed[1] / name / "rows").is_dir())
    with np.load(run / f"arrays/{job.key}.npz") as stored:
        where = next(building for building, _ in job.buildings)
        kept = survey_map(scene, surveyed[1], where)
        k = int(load_survey(surveyed[1]).set_index("building").k[where])
        np.testing.assert_array_equal(kept.score.values, stored["scores"][k][stored["patches"]].astype(np.float32))
        assert tuple(kept.rio.transform())[:6] == pytest.approx(extent.window_transform)
        for k, one in enumerate(question.each()):
            (alone,) = answer(one, Budget(2, 3), [Quantity("entropy")])
            np.testing.assert_allclose(stored["scores"][k], alone.scores[0], atol=1e-6)
            np.testing.assert_allclose(stored["errors"][k], alone.standard_error[0], atol=1e-6)
    assert (extent.rows, extent.columns) == (job.rows, job.columns)


@pytest.mark.slow
def test_the_map_of_every_building_and_its_patches_lie_in_their_place(network, street, tmp_path):
    (path, houses), own = street, {"h04": "h04", "h05": "Haus/5", "h06": "haus/5"}  # which a disk would not tell apart
    chosen = houses[houses.building.isin(own)].assign(building=lambda t: t.building.map(own))
    scene = Scene(path, network)
    table = survey(scene, tmp_path, QUICK, chosen, with_patches=True, show_progress=False).set_index("building")
    assert table["map"].str.lower().nunique() == 3
    cells = geopandas.read_file(tmp_path / "buildings.gpkg", layer="patches").set_index("building")
    for name, row in table.iterrows():
        wanted, where = survey_map(scene, tmp_path, name), tmp_path / row["map"]
        with rasterio.open(where) as file:
            found, tags = file.read(masked=True), file.tags()
            assert file.crs == "EPSG:25832" and file.units == ("bit", "bit")
            middles = [file.sample([(shape.centroid.x, shape.centroid.y)]) for shape in cells.loc[name].geometry]
            np.testing.assert_allclose([next(each)[0] for each in middles], cells.loc[name].score, rtol=1e-6)
        np.testing.assert_array_equal(found[0].filled(np.nan), wanted["score"].values.astype(np.float32))
        assert (tags["building"], tags["grid_size"], tags["n_samples"]) == (name, "4", str(row.n_samples))
        assert where.with_suffix(".qml").is_file()
    buildings_alone = survey(scene, tmp_path, QUICK, chosen, show_progress=False)  # all rows are there; the layer goes
    assert len(buildings_alone) == 3
    assert geopandas.list_layers(tmp_path / "buildings.gpkg").name.tolist() == ["buildings", "layer_styles"]


@pytest.mark.slow
def test_a_report_says_what_is_in_the_table_and_does_without_the_raster(network, street, tmp_path):
    path = Path(shutil.copy(street[0], tmp_path / "scene.tif"))
    table = survey(Scene(path, network, street[1]), tmp_path / "run", QUICK, show_progress=False)
    page = make_survey_report(tmp_path / "run")
    done = table[table.status == "ok"]
    beside = [1 - row.pixels / (kept.place >= 0).sum() for row in done.itertuples()
              for kept in [kept_of(arrays_of(tmp_path / "run" / row.run, row.window), row._asdict(), Scene(path, network).raster)]]
    assert done.area_outside.tolist() == pytest.approx(beside)
    assert (f"In the median building {done.context_reliance.median():.0%} of the score lies outside the building (a map without "
            f"preference would have {np.median(beside):.0%})") in page
    assert (f"In {(done.context_reliance > 0.5).sum()} of {len(done)} buildings it is more than half, in "
            f"{(done.context_reliance > beside).sum()} more than such a map would have") in page
    assert f"that of a map without preference: {np.median(beside):.0%} in the median building" in page
    assert f"costs {done.gap.mean():.1f} points" in page and page.count("<img") == 3 and "not at hand" not in page
    extremes = done.sort_values("context_reliance").building
    assert page.index(f"<td>{extremes.iloc[-1]}</td>") < page.index(f"<td>{extremes.iloc[0]}</td>")
    assert len(page) < 5_000_000
    path.unlink()
    bare = make_survey_report(tmp_path / "run")
    assert "<img" not in bare and "not at hand" in bare and f"costs {done.gap.mean():.1f} points" in bare
    with pytest.raises(ValueError, match=r"no column 'colour' of numbers; known are .*context_reliance"):
        survey_figure(Scene(street[0], network).raster, table, "colour")


@pytest.mark.slow
def test_the_table_is_written_for_a_gis_with_the_buildings_own_columns(street, surveyed):
    table, out = surveyed
    found = load_survey(out)
    assert found.building.tolist() == street[1].building.tolist() and found.storeys.tolist() == list(range(len(found)))
    assert (found.geometry.area - street[1].geometry.area).abs().max() < 1e-6 and found.crs == street[1].crs
    np.testing.assert_allclose(found.context_reliance.astype(float), table.context_reliance.astype(float))
    ok = table[table.status == "ok"]
    assert len(ok) > 10 and ok.context_reliance.between(0, 1).all() and (ok.distance_half_m <= ok.distance_90_m).all()
    assert table["flags"].str.contains("at the scene's border").sum() >= 3 and table["flags"].str.contains("nodata").any()
    with pytest.raises(ValueError, match="no survey's table"):
        load_survey(out / "nowhere")


@pytest.mark.slow
def test_odd_buildings_are_rows_that_say_what_they_are(network, street, tmp_path):
    path, _ = street
    west, north = PLACE[2], PLACE[5]
    shapes = {"far": box(west + 1000, north, west + 1010, north + 10), "hole": box(west + 1, north - 76, west + 5, north - 72),
              "tiny": Point(west + 30.05, north - 30.05).buffer(0.05), "none": Polygon(),
              "over": box(west - 5, north - 10, west + 6, north + 5), "grass": box(west + 12, north - 26, west + 15, north - 23),
              "edge": box(west + 18, north - 70, west + 22, north - 66)}
    # A house of which next to nothing is in a footprint of its own size beside it, and a corner of one.
    left, bottom, right, top = street[1].geometry.iloc[7].bounds
    shapes |= {"beside": box(right - 0.7, bottom, 2 * right - left, top), "corner": box(left + 7, bottom + 7, left + 8, bottom + 8)}
    odd = GeoDataFrame({"building": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:25832")
    table = survey(Scene(path, network, odd), tmp_path, QUICK, show_progress=False).set_index("building")
    assert table.status.tolist() == ["outside", "no pixel", "ok", "outside", *["ok"] * 5]
    for building, words in (("edge", "beside nodata"), ("tiny", "smaller than a pixel"), ("over", "across the border"),
                            ("over", "at the scene's border"), ("hole", "nodata"), ("grass", "not predicted"),
                            ("beside", "hardly predicted"), ("corner", "predicted far beyond it")):
        assert words in table["flags"][building], (building, table["flags"][building])
    assert table.iou["grass"] == 0 and table.pixels["tiny"] == 1 and table.iou[["beside", "corner"]].between(0, 0.25).all()
    assert "predict" not in "".join(survey_flags(street, network, tmp_path / "good", [7]))


def survey_flags(street, network, out, rows):
    return survey(Scene(street[0], network, street[1].iloc[rows]), out, QUICK, show_progress=False)["flags"]


def test_the_terminal_counts_what_is_marked(capsys):
    measured = dict.fromkeys(["confidence", *NUMBERS, "area_outside", "gap_error"], 0.5)
    flags = ["hardly predicted", "at the scene's border; hardly predicted", "", "not predicted"]
    table = pd.DataFrame([{"building": k, "status": "ok", **measured, "flags": each} for k, each in enumerate(flags)])
    print_survey(table, Path("city"))
    assert "\nflags: 2 x hardly predicted, 1 x at the scene's border, 1 x not predicted\n" in capsys.readouterr().out
    print_survey(table.assign(flags=""), Path("city"))
    assert "flags:" not in capsys.readouterr().out


@pytest.mark.parametrize("covered,beyond,flags", [(0, 0, ["not predicted"]), (24, 0, ["hardly predicted"]), (25, 0, []),
                                                  (100, 0, []), (100, 290, []), (100, 310, ["predicted far beyond it"]),
                                                  (24, 400, ["hardly predicted"])])
def test_how_much_of_a_building_is_predicted(covered, beyond, flags):
    mask, found = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    mask[:10, :10] = True
    found[:10, :10].flat[:covered] = True
    rest = np.argwhere(~mask)
    touching = rest[np.argsort(np.abs(rest - (0, 9)).max(1), kind="stable")][:beyond]
    found[tuple(touching.T)] = True
    assert prediction_flags(mask, found) == flags


def test_every_building_has_one_window_with_room_around_it(network, street):
    picture = Scene(street[0], network, street[1]).picture
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-5, 80, (2, 60))
    boxes = [box(691000 + a, 5335000 - b, 691000 + a + 4, 5335000 - b + 4) for a, b in zip(x, y, strict=True)]
    frame = GeoDataFrame({"building": [f"b{k}" for k in range(60)]}, geometry=boxes, crs="EPSG:25832")
    jobs, left_out = plan(frame, picture, 128)
    held = [building for job in jobs for building, _ in job.buildings]
    assert sorted([*held, *left_out]) == sorted(frame.building)
    assert jobs == plan(frame.sample(frac=1, random_state=1), picture, 128)[0]
    for job in jobs:
        assert 0 <= job.rows[0] < job.rows[1] <= 256 and job.rows[1] - job.rows[0] == 128
        for _, shape in job.buildings:
            middle = (5335000 - from_wkb(shape).centroid.y) / 0.3
            assert job.rows[0] + 31 <= middle <= job.rows[1] - 31 or job.rows[0] == 0 or job.rows[1] == 256
    long = GeoDataFrame({"building": ["hall"]}, geometry=[box(691006, 5334950, 691072, 5334960)], crs="EPSG:25832")
    (job,), _ = plan(long, picture, 128)
    assert job.columns == (0, 256) and job.rows[0] <= (5335000 - 5334960) / 0.3 and job.rows[1] >= (5335000 - 5334950) / 0.3


SCRIPT = """
import sys
import geopandas
from entropy_captum.scene import Scene
from entropy_captum.survey import SurveySettings, survey
from entropy_captum.zoo import Padded, rooftop_unet
houses = geopandas.read_file(sys.argv[2])
survey(Scene(sys.argv[1], Padded(rooftop_unet()), houses), sys.argv[3], SurveySettings(grid_size=4, n_samples=2, window=128),
       show_progress=False)
"""


@pytest.mark.slow
def test_a_survey_that_is_killed_goes_on_and_has_the_same_rows(network, street, surveyed, tmp_path):
    path, houses = street
    houses.to_file(tmp_path / "houses.gpkg")
    houses = geopandas.read_file(tmp_path / "houses.gpkg")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path), str(tmp_path / "houses.gpkg"), str(tmp_path / "out")]
    for wanted in (1, 3, 6):
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        end = time.monotonic() + 120
        while len(list((tmp_path / "out").glob("*/rows/*.parquet"))) < wanted and time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/rows/*.parquet")}
    assert len(there) >= 6
    same(survey(Scene(path, network, houses), tmp_path / "out", QUICK, show_progress=False), surveyed[0])
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in there.items())  # what was done was not done again


@pytest.mark.slow
def test_workers_find_the_same_rows(network, street, surveyed, tmp_path):
    from distributed import Client
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        found = survey(Scene(street[0], network, street[1]), tmp_path, QUICK, cluster=client, show_progress=False)
    same(found, surveyed[0])


def test_a_window_that_fails_is_rows_that_say_why_and_is_tried_again(network, street, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise KeyError("out of order")

    table = survey(Scene(street[0], Broken(), street[1]), tmp_path, QUICK, show_progress=False)
    failed = table[table.status != "no pixel"]
    assert len(failed) > 10 and set(failed.status) == {"error"}
    assert failed.error.str.contains("KeyError: 'out of order'").all()
    again = survey(Scene(street[0], Broken(), street[1]), tmp_path, QUICK, show_progress=False)
    assert again.status.equals(table.status)


@pytest.mark.slow
def test_buildings_in_another_crs_are_the_same_and_ids_are_told_apart(network, street, tmp_path):
    path, houses = street
    three = houses.iloc[3:6]
    wanted = survey(Scene(path, network), tmp_path / "a", QUICK, three, show_progress=False)
    found = survey(Scene(path, network), tmp_path / "b", QUICK, three.to_crs(4326).assign(building=[4, 5, 6]), show_progress=False)
    assert found.building.tolist() == ["4", "5", "6"] and set(found.status) == {"ok"}
    np.testing.assert_allclose(found[NUMBERS].astype(float), wanted[NUMBERS].astype(float), atol=1e-6)
    for wrong, words in ((three.assign(building="h"), "the id 'h' stands for several buildings"),
                         (three.set_crs(None, allow_override=True), "the buildings do not say in which CRS")):
        with pytest.raises(ValueError, match=words):
            survey(Scene(path, network), tmp_path / "c", QUICK, wrong, show_progress=False)


def test_a_building_that_would_need_the_whole_scene_is_a_row(tmp_path):
    path = tmp_path / "large.tif"
    with rasterio.open(path, "w", driver="GTiff", height=2000, width=2000, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=rasterio.Affine(*PLACE), tiled=True, sparse_ok=True):
        pass
    fence = GeoDataFrame({"building": ["fence"]}, geometry=[box(691001, 5334990, 691599, 5334991)], crs="EPSG:25832")
    jobs, left_out = plan(fence, Scene(path, Padded(rooftop_unet())).picture, 128)
    assert not jobs and left_out == {"fence": "too large"}


def test_areas_are_those_of_the_ellipsoid_where_an_object_lies():
    mask = np.zeros((1200, 4), bool)
    mask[10, 1] = mask[1100, 2] = True
    degrees = (1e-3, 0.0, 11.5, 0.0, -1e-3, 49.0)
    found = as_footprints([Found(10, 1, mask[10:11, 1:2]), Found(1100, 2, mask[1100:1101, 2:3])], degrees, "EPSG:4326")
    a, e2 = 6378137.0, 0.00669437999014  # WGS 84: the sides of a pixel along parallel and meridian
    for area, latitude in zip(found.area_m2, np.radians((48.9895, 47.8995)), strict=True):
        w = np.sqrt(1 - e2 * np.sin(latitude)**2)
        sides = np.radians(1e-3)**2 * a / w * np.cos(latitude) * a * (1 - e2) / w**3
        assert area == pytest.approx(sides, rel=0.006)  # that of a pixel at most 256 rows away


@pytest.mark.parametrize("options", [{"method": "grad-cam"}, {"window": 8}, {"n_samples": 1}, {"baseline": "red"}, {"seed": -1}])
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        SurveySettings(**options)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.4, 0.55]), st.sampled_from([8, 12, 64]))
def test_objects_found_by_cells_are_those_of_the_whole(seed, density, window):
    mask = np.random.default_rng(seed).random((37, 29)) < density
    found = find_objects((cell, mask[slice(*cell.rows), slice(*cell.columns)]) for cell in cells_of(mask.shape, window))
    labelled, n = ndimage.label(mask, np.ones((3, 3)))  # numbered by the first pixel in reading order
    assert len(found) == n
    for number, one in enumerate(found, 1):
        drawn = np.zeros(mask.shape, bool)
        drawn[one.row:one.row + one.mask.shape[0], one.column:one.column + one.mask.shape[1]] = one.mask
        assert (drawn == (labelled == number)).all()


def test_cells_cover_a_scene_once_and_lie_inside_their_windows():
    for size, window in (((256, 300), 128), ((100, 90), 128), ((130, 64), 64)):
        counted = np.zeros(size, int)
        for cell in cells_of(size, window):
            counted[slice(*cell.rows), slice(*cell.columns)] += 1
            for (low, high), (start, end), whole in zip((cell.rows, cell.columns), cell.window, size, strict=True):
                assert start <= low < high <= end <= whole and end - start == min(window, whole)
        assert (counted == 1).all()


@pytest.mark.slow
def test_all_that_a_network_predicts_are_buildings(network, street, tmp_path):
    scene = Scene(street[0], network)
    big = SurveySettings(window=512, grid_size=4, n_samples=2)
    found = predicted_buildings(scene, tmp_path, big, 10.0, show_progress=False)
    image, valid = scene.picture.read(None)[:2]
    image = np.where(valid[..., None], image, 128).astype(np.uint8)
    labelled, n = ndimage.label(predict_mask(network, image) & valid, np.ones((3, 3)))
    areas = np.array([(labelled == k).sum() for k in range(1, n + 1)]) * np.prod(scene.raster.metres)
    np.testing.assert_allclose(sorted(found.area_m2), sorted(areas[areas >= 10]), rtol=0.02)
    (cell,) = (tmp_path / "prediction").glob("*/cells/*.npz")
    cell.write_bytes(cell.read_bytes()[:40])  # as a crash of the machine may leave it
    pd.testing.assert_frame_equal(predicted_buildings(scene, tmp_path, big, 10.0, show_progress=False), found)
    stamp = cell.stat().st_mtime_ns
    assert len(predicted_buildings(scene, tmp_path, big, 0, show_progress=False)) >= len(found) and cell.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="the network predicts no building of 9000 square metres"):
        predicted_buildings(scene, tmp_path, big, 9000, show_progress=False)
    again = as_footprints([], PLACE, "EPSG:25832")
    with pytest.raises(ValueError, match="there are no buildings to explain"):
        survey(scene, tmp_path, big, again, show_progress=False)


@pytest.mark.slow
def test_the_command_explains_all_footprints_or_all_predictions(street, tmp_path):
    path, houses = street
    houses.rename(columns={"building": "id"}).iloc[3:6].to_file(tmp_path / "houses.gpkg")
    common = ["explain", str(path), "--n-samples", "2", "--grid-size", "2", "--window", "128"]
    run = functools.partial(CliRunner().invoke, app, catch_exceptions=False)
    done = run([*common, "--footprints", str(tmp_path / "houses.gpkg"), "--out", str(tmp_path / "a")])
    assert done.exit_code == 0 and "3 buildings: 3 ok" in done.output and "Those that lean most on" in done.output
    assert "area_outside: that of a map without preference" in done.output
    assert load_survey(tmp_path / "a").building.tolist() == ["h04", "h05", "h06"]
    page = (tmp_path / "a/report.html").read_text(encoding="utf-8")
    assert "3 buildings of scene.tif" in page and page.count("<img") == 3 and not (tmp_path / "a/buildings.parquet").exists()
    (tmp_path / "a/report.html").unlink()
    assert run(["report", str(tmp_path / "a"), "--out", str(tmp_path / "page.html")]).exit_code == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert "is about one scene" in str(CliRunner().invoke(app, ["report", str(tmp_path / "a"), "--data", str(tmp_path)]).exception)
    done = run([*common, "--all", "--min-area", "60", "--patches", "--parquet", "--out", str(tmp_path / "b")])
    patches = geopandas.read_parquet(tmp_path / "b/patches.parquet")
    assert len(patches) == 4 * (load_survey(tmp_path / "b").status == "ok").sum()
    assert done.exit_code == 0 and (load_survey(tmp_path / "b").area_m2 >= 60).all()
    both = CliRunner().invoke(app, [*common, "--all", "--footprints", str(tmp_path / "houses.gpkg")])
    assert "--all are those that the model predicts" in str(both.exception)
