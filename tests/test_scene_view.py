"""A scene in the explorer: what is shown of it, what a click means, and that no more of it is read than that."""
from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import torch
from PIL import Image
from rasterio.windows import Window

from entropy_captum.explorer import answer, explore, exported
from entropy_captum.question import Budget
from entropy_captum.scene import Scene
from entropy_captum.scene_view import MOST, SceneSubject

SIDE, CORNER = 8000, (5000, 3000)
PLACE = rasterio.Affine(0.3, 0, 691000, 0, -0.3, 5335000)


class Bright(torch.nn.Module):
    """Bright pixels are objects, as far as their row is bright."""

    def forward(self, x):
        return 4 * x.mean(1, keepdim=True) * (1 + x.mean((1, 3), keepdim=True))


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    """A sparse scene of 8000 x 8000 pixels: grey ground of 256 x 256 with two bright blocks, and nothing elsewhere."""
    folder = tmp_path_factory.mktemp("city")
    part = np.random.default_rng(0).integers(50, 70, (3, 256, 256), dtype=np.uint8)
    part[:, 100:130, 60:90], part[:, 150:160, 150:200] = 250, 240
    with rasterio.open(folder / "city.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", nodata=0,
                       crs="EPSG:25832", transform=PLACE, tiled=True, blockxsize=256, blockysize=256, sparse_ok=True) as file:
        file.write(part, window=Window(*CORNER, 256, 256))
    boxes = [shapely.box(*(PLACE * (CORNER[0] + left, CORNER[1] + bottom)), *(PLACE * (CORNER[0] + right, CORNER[1] + top)))
             for left, top, right, bottom in ((60, 100, 90, 130), (150, 150, 200, 160))]
    geopandas.GeoDataFrame({"id": ["a", "b"]}, geometry=boxes, crs="EPSG:25832").to_file(folder / "city.gpkg")
    return folder / "city.tif"


@pytest.fixture
def scene(city) -> Scene:
    return Scene(city, Bright().eval(), city.with_suffix(".gpkg"))


def test_what_is_visible_is_read_and_nothing_else(scene, monkeypatch):
    subject, windows = SceneSubject(scene.model, scene), []
    from entropy_captum import raster
    real = raster.read_dataset
    monkeypatch.setattr(raster, "read_dataset", lambda *args, **more: windows.append(more) or real(*args, **more))
    seen = subject.look((4990, 2990, 5266, 3266), 4000)
    assert seen["box"] == [4990, 2990, 5266, 3266] and len(windows) == 1
    assert windows[0]["window"] == Window(4990, 2990, 276, 276) and windows[0]["out_shape"] == (276, 276)
    picture = np.asarray(Image.open(io.BytesIO(seen["picture"]))).astype(int)
    assert picture.shape == (276, 276, 3) and picture[:8].min() > 240, "what holds nothing is white"
    assert picture[10 + 105:10 + 125, 10 + 65:10 + 85].min() > 230 > 150 > picture[12:90, 12:60].mean()
    seen = subject.look((-50, -50, 9000, 9000), 500)
    assert seen["box"] == [0, 0, SIDE, SIDE] and windows[1]["out_shape"] == (500, 500)
    assert subject.look((9000, 9000, 9100, 9100), 500) == {}


def test_a_part_has_the_colours_of_the_whole(scene):
    """Also one in which there is only ground, which its own percentiles would stretch from black to white."""
    subject = SceneSubject(scene.model, scene)
    low, high = np.percentile(subject.whole.values[subject.whole.valid].astype(float), (2, 98), axis=0)
    expected = 255 * np.clip((np.arange(50, 70) - low[0]) / (high - low)[0], 0, 1).mean()
    for box in ((5000, 3000, 5050, 3050), (5000, 3000, 5256, 3090)):
        assert np.asarray(Image.open(io.BytesIO(subject.look(box, 256)["picture"]))).mean() == pytest.approx(expected, abs=4)


def test_footprints_lie_where_they_should(scene):
    seen = SceneSubject(scene.model, scene).look((5000, 3000, 5140, 3256), 256)
    (one,) = seen["shapes"]
    corners = {(x, y) for x, y in zip(one["rings"][0][::2], one["rings"][0][1::2], strict=True)}
    assert one["id"] == "1" or one["id"] == "a"
    assert corners == {(5060, 3100), (5090, 3100), (5060, 3130), (5090, 3130)} and one["id"] == "a" and seen["hidden"] == 0
    assert one["middle"] == pytest.approx([5075, 3115], abs=1)


def test_too_many_footprints_are_counted(city):
    column, row = np.divmod(np.arange(MOST + 1), 60)
    boxes = shapely.box(*(PLACE * (column * 4, row * 4 + 2)), *(PLACE * (column * 4 + 2, row * 4)))
    many = geopandas.GeoDataFrame({"building": range(MOST + 1)}, geometry=boxes, crs="EPSG:25832")
    model = Bright().eval()
    subject = SceneSubject(model, Scene(city, model, many))
    assert subject.look((0, 0, SIDE, SIDE), 256)["hidden"] == MOST + 1 and not subject.look((0, 0, SIDE, SIDE), 256)["shapes"]
    assert len(subject.look((0, 0, 5, 5), 256)["shapes"]) == 4


def test_longitude_and_latitude_between_the_places_that_are_sent(scene):
    """By the page's own interpolation, over the whole scene, against pyproj: the error is below a tenth of a metre."""
    seen = SceneSubject(scene.model, scene).look((0, 0, SIDE, SIDE), 64)
    (left, top, right, bottom), grid = seen["box"], np.array(seen["grid"])
    n, to_lonlat = len(grid) - 1, pyproj.Transformer.from_crs("EPSG:25832", "EPSG:4326", always_xy=True)
    for x, y in np.random.default_rng(0).uniform(0, SIDE, (50, 2)):
        u, v = (x - left) / (right - left) * n, (y - top) / (bottom - top) * n
        i, j = int(u), int(v)
        a, b = u - i, v - j
        found = (1 - b) * ((1 - a) * grid[j, i] + a * grid[j, i + 1]) + b * ((1 - a) * grid[j + 1, i] + a * grid[j + 1, i + 1])
        expected = to_lonlat.transform(*(PLACE * (x, y)))
        assert pyproj.Geod(ellps="WGS84").inv(*found, *expected)[2] < 0.1


@pytest.mark.slow
def test_a_click_explains_what_scene_explains(city, scene):
    plain = Scene(city, scene.model)
    for subject, place, asked in ((scene, "a", {"building": "a"}), (plain, (5075, 3115), {"point": (5075, 3115)})):
        explorer = explore(scene.model, subject, grid_size=4, n_samples=4, window=128)
        answer(explorer, {"kind": "at", "x": 5075, "y": 3115, "reach": 1})
        told = explorer.wait(60)
        assert explorer.problem is None and explorer._places == [place]
        expected = subject.explain(**asked, budget=Budget(4, perturbations_per_eval=8), grid_size=4, window=128)
        assert torch.equal(told.found["entropy"].maps, expected.found["entropy"].maps) and told.region.sum() == 900
        assert explorer.window == [5011, 3051, 5139, 3179] and told.request.extent.columns == (5011, 5139)
        assert explorer.code.count("Scene(") == 1
        known = {"model": scene.model, "footprints": scene.footprints}
        exec(explorer.code, known)
        assert torch.equal(known["told"].found["entropy"].maps, told.found["entropy"].maps)


def test_a_click_beside_a_footprint(scene):
    subject = SceneSubject(scene.model, scene)
    assert subject.find(5092, 3115, 4) == "a" and subject.find(5170, 3149, 4) == "b"
    with pytest.raises(ValueError, match=r"there is no building at .* the nearest is 'a', .* m away"):
        subject.find(5098, 3115, 4)


def test_what_is_predicted_is_outlined_where_there_are_no_footprints(city, scene):
    subject = SceneSubject(scene.model, Scene(city, scene.model))
    assert subject.outlined((0, 0, SIDE, SIDE)) == [] and SceneSubject(scene.model, scene).outlined((5000, 3000, 5256, 3256)) == []
    first, second = subject.outlined((5000, 3000, 5256, 3256))
    corners = {(x, y) for x, y in zip(first["rings"][0][::2], first["rings"][0][1::2], strict=True)}
    assert corners == {(5060, 3100), (5090, 3100), (5060, 3130), (5090, 3130)}
    assert 5060 <= first["point"][0] < 5090 and 3100 <= first["point"][1] < 3130 and second["id"].startswith("at (51")
    assert subject.find(5093, 3110, 4) == (5089, 3110), "a click beside one means it"
    assert subject.find(5096, 3110, 4) == (5096, 3110) and subject.find(5070, 3110, 4) == (5070, 3110)
    explorer = explore(scene.model, subject.scene, window=128)
    answer(explorer, {"kind": "look", "box": [5000, 3000, 5256, 3256], "side": 256})
    for _ in range(100):
        if explorer.detail["shapes"]:
            break
        time.sleep(0.1)
    assert [one["id"] for one in explorer.detail["shapes"]] == [first["id"], second["id"]]


@pytest.mark.slow
def test_a_box_of_a_scene(city, scene):
    """What is predicted in it, or all of it; larger than the window, the window grows."""
    for subject in (scene, Scene(city, scene.model)):
        explorer = explore(scene.model, subject, grid_size=4, n_samples=4, window=128)
        answer(explorer, {"kind": "box", "box": [5050, 3090, 5080, 3200]})
        told = explorer.wait(60)
        assert explorer.problem is None and told.region.sum() == 20 * 30 and explorer.title == "box (5050, 3090, 5080, 3200)"
        left, top, right, bottom = explorer.window
        assert right - left == bottom - top == 220 and left <= 5050 and bottom >= 3200
        known = {"model": scene.model, "footprints": scene.footprints}
        exec(explorer.code, known)
        assert torch.equal(known["told"].found["entropy"].maps, told.found["entropy"].maps)
        explorer.explain((5010, 3010, 5020, 3020))
        assert explorer.wait(60).region.sum() == 100
    with pytest.raises(ValueError, match=r"holds no pixel of <Scene .*expected \(left, top, right, bottom\) inside it"):
        SceneSubject(scene.model, scene).ask((5, 5, 5, 9), 4)


def test_several_of_a_scene_each_in_its_window(scene):
    explorer = explore(scene.model, scene, grid_size=4, n_samples=4, window=128)
    explorer.explain(["a", "b"])
    explorer.wait(60)
    first, second = explorer.explanations
    assert first.request.extent.columns != second.request.extent.columns
    assert [one.region.sum() for one in (first, second)] == [900, 500]
    assert explorer.kept == ["building a: entropy", "building b: entropy"]


def test_what_cannot_be_asked_is_said(city, scene):
    explorer = explore(scene.model, city, window=128)
    wrong = {"outside the scene of 8000 x 8000": (9000, 1), "got ndarray": np.ones((8, 8), bool), "no footprints": "a"}
    for said, place in wrong.items():
        with pytest.raises(ValueError, match=said):
            explorer.explain(place)
    answer(explorer, {"kind": "at", "x": 5035, "y": 3110, "reach": 4})
    assert explorer.wait(60) is None and "lies on no object; the nearest has a pixel at (5060, 3110)" in explorer.message
    explorer._hear(None, {"kind": "at", "x": 10, "y": 10, "reach": 4}, None)
    assert explorer.wait(60) is None and "no pixel of this window holds anything" in explorer.message
    with pytest.raises(ValueError, match="opened with another model"):
        explore(Bright(), scene)
    with pytest.raises(TypeError, match="'label'; there are target, window, baseline"):
        explore(scene.model, scene, label=None)


@pytest.mark.slow
def test_the_map_of_a_scene_lies_in_its_place(scene, tmp_path):
    explorer = explore(scene.model, scene, grid_size=4, n_samples=4, window=128)
    assert explorer.formats == ["png", "npz", "tif"]
    explorer.explain("b")
    told = explorer.wait(60)
    (name, content), = exported(told, "tif").items()
    with rasterio.MemoryFile(content) as memory, memory.open() as file:
        assert name == "entropy.tif" and file.transform * (0, 0) == pytest.approx(PLACE * (explorer.window[0], explorer.window[1]))
        rows, columns = np.nonzero(np.nan_to_num(file.read(1)) == np.nanmax(file.read(1)))
        x, y = file.transform * (columns.mean(), rows.mean())
    assert abs(x - (PLACE * (5175, 3155))[0]) < 20 and abs(y - (PLACE * (5175, 3155))[1]) < 20
    explorer.save(tmp_path)
    assert {"entropy.tif", "entropy.qml", "buildings.gpkg", "table.csv"} <= {file.name for file in tmp_path.iterdir()}


PEAK = """
import resource, sys
import numpy as np, rasterio, torch
from entropy_captum.scene import Scene
from entropy_captum.scene_view import SceneSubject
side, path = int(sys.argv[1]), sys.argv[2]
with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:25832",
                   transform=rasterio.Affine(0.3, 0, 691000, 0, -0.3, 5335000), tiled=True, sparse_ok=True) as file:
    file.write(np.full((3, 256, 256), 99, np.uint8), window=rasterio.windows.Window(256, 256, 256, 256))
model = torch.nn.Conv2d(3, 1, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
subject = SceneSubject(model, Scene(path, model))
subject.face()
for k in (1, 2, 4):
    subject.look((0, 0, side // k, side // k), 768)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    """The overview and three views, in megabytes: 16 times as many pixels cost no more."""
    def peak(side: int) -> int:
        command = [sys.executable, "-c", PEAK, str(side), str(tmp_path / f"{side}.tif")]
        return int(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)

    small, large = peak(2000), peak(8000)
    assert large < small + 40, (small, large)
