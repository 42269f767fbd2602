"""Scenes once more: files beside files, orders of bands, tables with columns of their own, and places between pixels."""
import os
import re
import time
import warnings

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import shapely
import torch
from conftest import small_net
from geopandas import GeoDataFrame
from PIL import Image
from scipy.ndimage import label
from shapely import box
from test_files import write_tiff

from entropy_captum import raster
from entropy_captum.adapter import adapt, sized
from entropy_captum.card import RGB8, ModelCard
from entropy_captum.cli import Place, Reading, check_survey, find_request
from entropy_captum.drawn import procedural_scene
from entropy_captum.files import extent_of, look, read_image
from entropy_captum.footprints import outline
from entropy_captum.forward import as_forward
from entropy_captum.question import Budget
from entropy_captum.raster import changed, located, open_raster
from entropy_captum.request import picture_of
from entropy_captum.scene import Scene
from entropy_captum.scene_view import SceneSubject
from entropy_captum.survey import SurveySettings, facts_in, load_survey, plan, raster_in, survey, survey_map
from entropy_captum.survey_report import write_survey_report
from entropy_captum.zoo import predict_mask

PLACE = rasterio.Affine(0.3, 0, 691000, 0, -0.3, 5335000)
PART = (slice(8, 40), slice(4, 60))


def written(path, values, driver="GTiff", crs="EPSG:25832", transform=PLACE, **options):
    """A raster of pixels (H,W,C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver=driver, height=values.shape[0], width=values.shape[1], count=values.shape[2],
                           dtype=values.dtype, crs=crs, transform=transform, **options) as file:
            file.write(np.moveaxis(values, -1, 0))
    return path


def test_bands_of_a_jpeg_are_taken_in_the_order_that_is_asked_for(tmp_path):
    path = written(tmp_path / "photo.jpg", procedural_scene(2, 64).image, "JPEG", crs=None, transform=None)
    as_is, turned, green = (open_raster(path, bands).read(PART).values for bands in (None, [3, 2, 1], [2]))
    np.testing.assert_array_equal(turned, as_is[..., ::-1])
    np.testing.assert_array_equal(green, as_is[..., 1:2])


REMOTE = "/vsicurl/http://127.0.0.1:9/there.tif"
ELSEWHERE = ("<VRTDataset rasterXSize='64' rasterYSize='64'><VRTRasterBand dataType='Byte' band='1'><SimpleSource>"
             f"<SourceFilename>{REMOTE}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>")
OVERVIEWS = "<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>{}</MDI></Metadata></PAMDataset>"


@pytest.mark.parametrize(("ending", "text"), [(".ovr", ELSEWHERE), (".msk", ELSEWHERE), (".aux.xml", OVERVIEWS.format(REMOTE)),
                                              (".aux.xml", OVERVIEWS.format(":::BASE:::other.vrt")),
                                              (".ovr", "<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")])
def test_what_lies_beside_a_file_fetches_nothing_unasked(tmp_path, ending, text):
    path = written(tmp_path / "scene.tif", procedural_scene(2, 64).image, photometric="RGB")
    (tmp_path / "other.vrt").write_text(ELSEWHERE)
    (tmp_path / f"scene.tif{ending}").write_text(text)
    with pytest.raises(ValueError, match=r"(names '/vsicurl.*which is no file on this machine|GDAL may ask a service)"):
        open_raster(path)
    mosaic = tmp_path / "city.vrt"
    mosaic.write_text("<VRTDataset rasterXSize='64' rasterYSize='64'><A><SourceFilename relativeToVRT='1'>scene.tif"
                      "</SourceFilename></A></VRTDataset>")
    with pytest.raises(ValueError, match=r"/vsicurl|service"):
        open_raster(mosaic)


def test_an_address_in_the_metadata_of_a_file_is_only_text(tmp_path):
    path = written(tmp_path / "scene.tif", procedural_scene(2, 64).image, photometric="RGB")
    mosaic = tmp_path / "city.vrt"
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, mosaic, driver="VRT")
    told = "<Metadata><MDI key='TIFFTAG_SOFTWARE'>https://example.org</MDI></Metadata>"
    mosaic.write_text(mosaic.read_text().replace("<VRTRasterBand", f"{told}<VRTRasterBand", 1))
    (tmp_path / "scene.tif.aux.xml").write_text(f"<PAMDataset>{told}</PAMDataset>")
    for one in (path, mosaic):
        np.testing.assert_array_equal(open_raster(one).read(PART).values, procedural_scene(2, 64).image[PART])


def test_a_palette_of_16_bits_is_looked_up(tmp_path):
    numbers = np.arange(64 * 64).reshape(64, 64, 1).astype(np.uint16) % 1100
    path = tmp_path / "palette.tif"
    with rasterio.open(path, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint16", crs="EPSG:25832",
                       transform=PLACE) as file:
        file.write(numbers[..., 0], 1)
        file.write_colormap(1, {k: (k % 256, k // 256, 7, 255) for k in range(1100)})
    pixels = open_raster(path).read((slice(0, 64), slice(0, 64)))
    np.testing.assert_array_equal(pixels.values, np.concatenate([numbers % 256, numbers // 256, 0 * numbers + 7], -1))
    assert pixels.valid is None


@pytest.mark.parametrize(("options", "lossy"), [({"compress": "LERC"}, None), ({"compress": "LERC_DEFLATE"}, None),
                                                ({"compress": "LERC", "max_z_error": 2}, "LERC"),
                                                ({"compress": "JPEG", "photometric": "YCBCR"}, "JPEG")])
def test_what_lost_nothing_is_not_called_lossy_and_a_mosaic_of_what_did_is(tmp_path, options, lossy):
    path = written(tmp_path / "scene.tif", procedural_scene(2, 64).image, **options)
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, tmp_path / "city.vrt", driver="VRT")
    mosaic = re.sub("(?s)<Metadata domain=.IMAGE_STRUCTURE.*?</Metadata>", "", (tmp_path / "city.vrt").read_text())
    (tmp_path / "city.vrt").write_text(mosaic)  # as gdalbuildvrt writes one
    assert open_raster(path).lossy == open_raster(tmp_path / "city.vrt").lossy == lossy


def test_numbers_that_stand_for_nothing_are_scaled_without_a_warning(tmp_path):
    values = procedural_scene(2, 64).image.astype(np.float32)
    values[:10] = lowest = np.finfo(np.float32).min
    path = written(tmp_path / "scene.tif", values, nodata=float(lowest))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (2.0,) * 3, (1.0,) * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        pixels = open_raster(path).read(PART)
    np.testing.assert_array_equal(pixels.values[pixels.valid], 2 * values[PART][pixels.valid] + 1)


def test_a_change_in_any_file_of_a_mosaic_is_seen(tmp_path):
    path = written(tmp_path / "scene.tif", procedural_scene(2, 64).image, photometric="RGB")
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, tmp_path / "city.vrt", driver="VRT")
    before = changed(tmp_path / "city.vrt")
    os.utime(path, ns=(before + 10**9, before + 10**9))
    assert changed(tmp_path / "city.vrt") == before + 10**9


class Bright(torch.nn.Module):
    """Bright pixels are buildings, and what is around them counts too."""

    def forward(self, x):
        return 4 * torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 5, 1, 2)


QUICK = SurveySettings(grid_size=4, n_samples=2, window=64)
CORNERS = tuple(PLACE)[:6]


@pytest.fixture(scope="module")
def network():
    return sized(adapt(Bright().eval(), ModelCard(bands=("red", "green", "blue"), mean=127.5, std=127.5, scale=1.0)))


@pytest.fixture
def street(tmp_path):
    """A raster and four of its houses."""
    drawn = procedural_scene(2, 128)
    path = written(tmp_path / "scene.tif", drawn.image, photometric="RGB")
    ids = np.unique(drawn.instances[drawn.instances > 0])[:4]
    return path, GeoDataFrame({"building": [f"h{k}" for k in ids]}, geometry=[outline(drawn.instances == k, CORNERS) for k in ids],
                              crs="EPSG:25832")


def test_columns_of_a_file_stay_beside_ours_whatever_they_are_called(network, street, tmp_path):
    path, houses = street
    odd = {"status": ["demolished"] * 4, "IoU": 5, "fid": list("aabc"), "geom": 1, "ID": 1, "id": 2, "run": "x",
           "age": pd.to_timedelta([1] * 4), "middle": houses.centroid}
    own = houses.assign(**odd).rename_geometry("shape")
    table = survey(Scene(path, network), tmp_path / "out", QUICK, own, parquet=True, show_progress=False)
    read = load_survey(tmp_path / "out")
    for found in (table, read):
        assert found["status"].tolist() == ["ok"] * 4 and found["iou"].between(0, 1).all()
        assert found["status_in_file"].tolist() == ["demolished"] * 4 and found["IoU_in_file"].tolist() == [5] * 4
        assert found["fid_in_file"].tolist() == list("aabc") and found["geom_in_file"].tolist() == [1] * 4
        assert (found["ID"].tolist(), found["id_in_file"].tolist()) == ([1] * 4, [2] * 4)
        assert found["run"].nunique() == 1 and found["run_in_file"].tolist() == ["x"] * 4 and "middle" not in found
    assert read.geometry.geom_equals(houses.geometry).all()


def test_a_map_of_a_survey_names_its_network_and_its_scene(network, street, tmp_path):
    path, houses = street
    scene = Scene(path, network)
    table = survey(scene, tmp_path / "out", QUICK, houses.head(1), show_progress=False)
    with rasterio.open(tmp_path / "out" / table["map"][0]) as file:
        tags = file.tags()
    assert (tags["source"], tags["weights"]) == (str(path), as_forward(network).key)
    assert survey_map(scene, tmp_path / "out", table["building"][0]).attrs["weights"] == as_forward(network).key


def test_buildings_that_cannot_be_laid_on_a_raster_are_one_sentence(network, street, tmp_path):
    path, houses = street
    away = houses.set_geometry(houses.translate(1e5, 0))
    away.rename(columns={"building": "id"}).to_file(tmp_path / "away.gpkg")
    scene = Scene(path, network, tmp_path / "away.gpkg")
    lies = r"no footprint meets .*scene.tif, which reaches from \(691000, 5334961.6\) to \(691038.4, 5335000\) in ETRS89"
    for asked in (lambda: scene.request(building=houses.building[0]), lambda: scene.request(point=(3, 3)),
                  lambda: survey(scene, tmp_path / "out", QUICK, show_progress=False)):
        with pytest.raises(ValueError, match=lies):
            asked()
    mixed = pd.concat([houses.head(2), away.tail(2)]).rename(columns={"building": "id"})
    mixed.to_file(tmp_path / "mixed.gpkg")
    with pytest.raises(ValueError, match=r"there is no building .*; only those that meet .*scene.tif are looked at"):
        Scene(path, network, tmp_path / "mixed.gpkg").request(building=houses.building[3])
    bare = written(tmp_path / "bare.tif", procedural_scene(2, 128).image, crs=None, transform=None, photometric="RGB")
    with pytest.raises(ValueError, match=r"bare.tif: does not say where on Earth it lies"):
        survey(Scene(bare, network), tmp_path / "out", QUICK, houses.set_crs(None, allow_override=True), show_progress=False)
    with pytest.raises(ValueError, match="expected a column building, with the ids; there are id, geometry"):
        Scene(path, network, houses.rename(columns={"building": "id"}))
    assert not (tmp_path / "out").exists()


def test_a_footprint_is_found_by_the_very_place_not_by_the_middle_of_its_pixel(network, street):
    path, _ = street
    tiny = box(691030.02, 5334969.90, 691030.08, 5334969.97)  # in a corner of its pixel
    scene = Scene(path, network, GeoDataFrame({"building": ["shed"]}, geometry=[tiny], crs="EPSG:25832"))
    with pytest.warns(UserWarning, match="building shed: holds no pixel's centre.*it is explained on what there is"):
        request = scene.request((691030.05, 5334969.94), crs="EPSG:25832", window=64)
    assert request.region.sum() == 1
    assert np.argwhere(request.region)[0].tolist() == [100 - request.extent.rows[0], 100 - request.extent.columns[0]]


def test_a_building_that_goes_on_beyond_its_window_is_named(network, street):
    path, _ = street
    hall = GeoDataFrame({"building": ["hall"]}, geometry=[box(691006, 5334970, 691024, 5334980)], crs="EPSG:25832")
    with pytest.warns(UserWarning, match="building hall: goes on beyond the window; it is explained on what there is"):
        assert Scene(path, network, hall).request(building="hall", window=32).region.all()


@pytest.mark.parametrize("side", [256, 1024])
def test_a_coarse_copy_takes_no_longer_than_all_pixels(tmp_path, side):
    pixels = np.tile(procedural_scene(2, 256).image, (8, 8, 1))
    path = written(tmp_path / "scene.tif", pixels, photometric="RGB", tiled=True, blockxsize=256, blockysize=256,
                   compress="deflate")
    raster, seconds = open_raster(path), []
    for read in (lambda: raster.read((slice(0, 2048), slice(0, 2048))), lambda: raster.overview(side)):
        start = time.process_time()
        read()
        seconds.append(time.process_time() - start)
    assert seconds[1] < 5 * seconds[0] + 0.1, seconds


def test_nodata_that_is_named_is_as_nodata_that_the_file_marks(network, street, tmp_path):
    """Of one building and of many; the numbers are those that are stored, not what the file's or a given scale makes of them."""
    path, houses = street
    with rasterio.open(path) as file:
        deep = np.moveaxis(file.read(), 0, -1).astype(np.uint16) * 16
    deep[:, 60:] = deep[40:48, 40:48] = 65535
    deep[10:14, 10:14, 0] = 65535  # one band is enough, as it is where the file says it
    bare = written(tmp_path / "bare.tif", deep, photometric="RGB")
    marked = written(tmp_path / "marked.tif", deep, photometric="RGB", nodata=65535)
    for one in (bare, marked):
        with rasterio.open(one, "r+") as file:
            file.scales, file.offsets = (0.5,) * 3, (8.0,) * 3
    said, own = (Scene(one, network, houses, scale=(8, 2048), nodata=nodata)
                 for one, nodata in ((bare, (65535.0,)), (marked, None)))
    asked, wanted = (scene.request(point=(30, 30), window=64) for scene in (said, own))
    assert not asked.valid.all() and (asked.valid == wanted.valid).all() and (asked.image == wanted.image).all()
    settings = SurveySettings(grid_size=4, n_samples=4, window=64)
    here, there = (survey(scene, tmp_path / name, settings, show_progress=False) for name, scene in (("a", said), ("b", own)))
    columns = ["building", "status", "flags", "pixels", "context_reliance", "gap"]
    pd.testing.assert_frame_equal(pd.DataFrame(here[columns]), pd.DataFrame(there[columns]))
    assert {"ok", "no pixel"} <= set(here["status"]) and "on nodata" in " ".join(here["flags"])
    assert (np.asarray(said.raster.overview(32).valid) == own.raster.overview(32).valid).all()
    facts, _ = facts_in(next((tmp_path / "a").glob("*/run.json")).parent)
    assert raster_in(facts, tmp_path).nodata == (65535.0,)
    del facts["raster"]["nodata"]  # a survey from before
    assert raster_in(facts, tmp_path).nodata is None
    with pytest.raises(ValueError, match=r"--nodata 0\.5: no pixel of this image can have this value, its numbers are uint16"):
        Scene(bare, network, houses, scale=(8, 2048), nodata=(0.5,))


def test_an_image_is_read_with_its_nodata_and_for_the_bands_that_it_has(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = procedural_scene(2, 64).image
    image[:, 30:] = 7
    Image.fromarray(image).save("photo.png")
    request = find_request("photo.png", Place(), Reading(nodata=(7.0,)))(network)
    assert (request.valid == (image != 7).all(-1)).all()
    with pytest.raises(ValueError, match=r"photo\.png: no pixel of this window holds anything"):
        find_request("photo.png", Place(point=(60, 60), window="32"), Reading(nodata=tuple(map(float, image[60, 60]))))
    infrared = adapt(Bright().eval(), ModelCard(bands=("nir", "red", "green"), mean=127.5, std=127.5, scale=1.0))
    with pytest.raises(ValueError, match=r"photo\.png: holds red, green and blue; the model takes nir, red, green; if these stand "
                                         r"in their places, say so: --bands 1,2,3"):
        find_request("photo.png", Place(), Reading())(infrared)
    assert (find_request("photo.png", Place(), Reading("1,2,3"))(infrared).image == image).all()


def test_numbers_of_bands_are_in_the_order_of_the_bands_that_are_asked_for(tmp_path):
    """Also for a network of blue, green and red, whose pictures are read as red, green and blue; and in the code that is copied."""
    turned = sized(adapt(Bright().eval(), ModelCard(bands=("blue", "green", "red"), mean=127.5, std=127.5, scale=1.0)))
    image = procedural_scene(2, 64).image
    image[:8] = 1, 2, 3
    path = written(tmp_path / "scene.tif", image, photometric="RGB")
    scene = Scene(path, turned, bands=(3, 2, 1), nodata=(3.0, 2.0, 1.0))
    pixels = scene.raster.read(PART)
    np.testing.assert_array_equal(pixels.values, image[PART])
    assert pixels.valid is None and not scene.raster.read((slice(0, 64), slice(0, 64))).valid[:8].any()
    for one in (scene, Scene(path, turned)):
        code = next(line for line in SceneSubject(turned, one).code((30, 30), ("entropy",), 4, 4).splitlines() if "Scene(" in line)
        copied = {}
        exec(code, {"Scene": Scene, "model": turned}, copied)
        assert copied["scene"].raster == one.raster, code


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(("nodata", "hidden"), [((1.0,), True), ((0.0,), False), ((0.0, 0.0, 0.0), True)])
def test_nodata_of_a_palette_is_a_number_of_it_or_a_colour(network, tmp_path, kind, nodata, hidden):
    image = Image.fromarray(np.repeat(np.repeat(np.eye(2, dtype=np.uint8), 32, 0), 32, 1), "P")
    image.putpalette([90, 100, 70, 0, 0, 0])
    image.save(tmp_path / f"pal.{kind}")
    request = find_request(str(tmp_path / f"pal.{kind}"), Place(), Reading(nodata=nodata))(network)
    assert (request.image == np.where(np.asarray(image)[..., None] == 1, 0, (90, 100, 70))).all() or kind == "tif"
    assert ((~request.valid) == (np.asarray(image) == int(hidden))).all()


def test_a_survey_of_a_palette_has_its_report(network, street, tmp_path):
    path, houses = street
    with rasterio.open(path) as file:
        colours = Image.fromarray(np.moveaxis(file.read(), 0, -1)).quantize(16)
    table = np.asarray(colours.getpalette("RGB")).reshape(-1, 3)
    with rasterio.open(tmp_path / "pal.tif", "w", driver="GTiff", height=128, width=128, count=1, dtype="uint8", crs="EPSG:25832",
                       transform=PLACE, photometric="palette") as file:
        file.write(np.asarray(colours), 1)
        file.write_colormap(1, {k: (*map(int, colour), 255) for k, colour in enumerate(table)})
    done = survey(Scene(tmp_path / "pal.tif", network, houses), tmp_path / "out", QUICK, show_progress=False)
    assert set(done["status"]) == {"ok"} and write_survey_report(tmp_path / "out").read_text().count("data:image/jpeg") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("turned", [rasterio.Affine.rotation(33) @ rasterio.Affine.scale(0.3, -0.3),
                                    rasterio.Affine.scale(0.3, 0.3), rasterio.Affine.scale(-0.3, -0.3)],
                         ids=["rotated", "south-up", "mirrored"])
def test_a_survey_has_the_same_numbers_whichever_way_the_scene_is_turned(network, street, tmp_path, turned):
    path, houses = street
    place = rasterio.Affine.translation(691000, 5335000) @ turned
    move = place @ ~PLACE
    other = houses.set_geometry(shapely.transform(houses.geometry.to_numpy(), lambda xy: np.column_stack(move @ tuple(xy.T))))
    lies = written(tmp_path / "turned.tif", procedural_scene(2, 128).image, transform=place, photometric="RGB")
    one, two = (survey(Scene(scene, network), tmp_path / scene.stem, QUICK, own, show_progress=False) for scene, own in
                ((path, houses), (lies, other)))
    same = ["confidence", "iou", "context_reliance", "context_reliance_error", "distance_half_m", "distance_90_m", "gap",
            "strongest_distance_m", "pixels"]
    np.testing.assert_allclose(two[same].astype(float), one[same].astype(float), atol=1e-5)
    assert two["window"].tolist() == one["window"].tolist() and two["flags"].tolist() == one["flags"].tolist()


def test_no_window_hangs_on_how_coordinates_round(network, street):
    picture = Scene(street[0], network).picture
    hall = box(691000 + 0.3 * 31, 5335000 - 0.3 * 74, 691000 + 0.3 * 84, 5335000 - 0.3 * 21)  # its middle lies between two pixels
    windows = {plan(GeoDataFrame({"building": ["hall"]}, geometry=[shapely.affinity.translate(hall, shift, shift)],
                                 crs="EPSG:25832"), picture, 64)[0][0].key for shift in (-1e-7, 0.0, 1e-7)}
    assert len(windows) == 1


@pytest.mark.slow
def test_one_building_is_compared_with_its_footprint_and_marked_as_one_of_many_is(network, street, tmp_path):
    path, houses = street
    told = Scene(path, network, houses).explain(building=houses.building[1], window=64, grid_size=4, budget=Budget(2, 8))
    told.save(tmp_path / "house")
    row = geopandas.read_file(tmp_path / "house/buildings.gpkg", layer="buildings").iloc[0]
    ids = label(predict_mask(network, told.request.image), np.ones((3, 3)))[0]
    touching = np.isin(ids, np.unique(ids[told.region & (ids > 0)]))
    assert row["iou"] == pytest.approx((touching & told.region).sum() / (touching | told.region).sum())
    corner = GeoDataFrame({"building": ["corner"]}, geometry=[box(690999, 5334998, 691003, 5335002)], crs="EPSG:25832")
    with pytest.warns(UserWarning, match="goes on beyond the window"):
        told = Scene(path, network, corner).explain(building="corner", window=64, grid_size=4, budget=Budget(2, 8))
    told.save(tmp_path / "corner")
    one = geopandas.read_file(tmp_path / "corner/buildings.gpkg", layer="buildings").iloc[0]
    assert one["flags"].startswith("across the border; at the scene's border") and 0 <= one["iou"] <= 1
    plain = Scene(path, network).explain(point=(59, 58), window=64, grid_size=4, budget=Budget(2, 8))
    plain.save(tmp_path / "plain")
    assert np.isnan(geopandas.read_file(tmp_path / "plain/buildings.gpkg", layer="buildings")["iou"][0])  # it is the prediction


def test_a_mask_is_not_left_out_of_account_where_something_else_is_asked_for(network, street, tmp_path):
    path, houses = street
    written(tmp_path / "mask.tif", np.ones((128, 128, 1), np.uint8))
    with pytest.raises(ValueError, match=r"expected one region, got the mask .*mask.tif and the footprint h"):
        Scene(path, network, houses).request(building=houses.building[1], mask=tmp_path / "mask.tif", window=64)
    for given, name in (({"mask": tmp_path / "mask.tif"}, "mask"), ({"point": (3, 3)}, "point"), ({"building": "4"}, "id")):
        with pytest.raises(ValueError, match=f"--all explains each building that is predicted, --{name} a single one"):
            check_survey(Place(everything=True, **given), False)


def mosaic_of(folder, count, **options):
    """A VRT of three bands over so many files side by side, which it names once for each band."""
    sources = {1: "", 2: "", 3: ""}
    for k in range(count):
        place = PLACE @ rasterio.Affine.translation(64 * k, 0)
        written(folder / f"{k}.tif", procedural_scene(k, 64).image, transform=place, **options)
        for band in sources:
            sources[band] += (f'<SimpleSource><SourceFilename relativeToVRT="1">{k}.tif</SourceFilename>'
                              f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/>'
                              f'<DstRect xOff="{64 * k}" yOff="0" xSize="64" ySize="64"/></SimpleSource>')
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{band}">{text}</VRTRasterBand>' for band, text in sources.items())
    (folder / "city.vrt").write_text(f'<VRTDataset rasterXSize="{64 * count}" rasterYSize="64"><SRS>EPSG:25832</SRS>'
                                     f'<GeoTransform>691000, 0.3, 0, 5335000, 0, -0.3</GeoTransform>{bands}</VRTDataset>')
    return folder / "city.vrt"


def test_the_files_of_a_mosaic_are_looked_at_once_not_for_every_band_and_window(tmp_path, monkeypatch):
    """Of ten thousand files each look takes seconds."""
    path, looked, opens = mosaic_of(tmp_path, 6, compress="deflate"), [], []
    walk, open_ = raster.named_files, raster._open
    monkeypatch.setattr(raster, "named_files", lambda file: looked.append(file) or walk(file))
    monkeypatch.setattr(raster, "_open", lambda *given: opens.append(given[0]) or open_(*given))
    assert [file.name for file in raster.files_of(path)] == ["city.vrt", *(f"{k}.tif" for k in range(6))]
    looked.clear()
    mosaic = open_raster(path)
    assert (mosaic.lossy, opens, looked) == (None, [str(path)], [path])  # no file of it was opened to tell that nothing is lost
    for k in range(6):
        part = mosaic.read((slice(0, 64), slice(64 * k, 64 * k + 64)))
        np.testing.assert_array_equal(part.values, procedural_scene(k, 64).image)
    assert len(looked) == 2  # and once more by the first window: in another process nobody has looked
    text = path.read_text().replace('relativeToVRT="1">3.tif', f'relativeToVRT="0">{REMOTE}')
    path.write_text(text)
    with pytest.raises(ValueError, match=r"city\.vrt: names '/vsicurl"):
        mosaic.read(PART)


@pytest.mark.parametrize(("ending", "options"), [("big", {"BIGTIFF": "YES"}), ("endian", {"ENDIANNESS": "BIG"}), ("cut", {})])
def test_a_mosaic_is_lossy_by_its_files_however_they_begin(tmp_path, ending, options):
    path = mosaic_of(tmp_path, 2, compress="JPEG", **options)
    if ending == "cut":  # one that GDAL cannot open says nothing
        (tmp_path / "0.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    assert open_raster(path).lossy == "JPEG"


def test_a_scene_of_a_lossy_file_says_so_and_one_of_a_lossless_file_does_not(network, tmp_path):
    lossy = written(tmp_path / "lossy.tif", procedural_scene(2, 64).image, compress="JPEG", photometric="YCBCR")
    with pytest.warns(UserWarning, match=r"lossy\.tif: its pixels were compressed with loss \(JPEG\), .* several per cent"):
        Scene(lossy, network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scene(written(tmp_path / "whole.tif", procedural_scene(2, 64).image, photometric="RGB"), network)


def test_an_aux_xml_places_a_picture_with_its_crs(tmp_path):
    path = tmp_path / "tile.png"
    Image.fromarray(procedural_scene(2, 64).image).save(path)
    assert located(extent_of(path)).transform is None
    (tmp_path / "tile.png.aux.xml").write_text("<PAMDataset><SRS>EPSG:25832</SRS><GeoTransform>691000, 0.3, 0, 5335000, 0, -0.3"
                                               "</GeoTransform></PAMDataset>")
    extent = located(extent_of(path))
    assert extent.transform == pytest.approx(CORNERS) and rasterio.crs.CRS.from_wkt(extent.crs) == "EPSG:25832"


def thumbnail_first(path, values, *masks):
    """A TIFF that begins with a small copy of its picture (H,W,3), placed at (100, 900)."""
    place = dict(t33550=[0.5, 0.5, 0.0], t33922=[0.0, 0.0, 0.0, 100.0, 900.0, 0.0])
    return write_tiff(path, dict(values=values[::4, ::4], t254=[1]), dict(values=values, **place), *masks)


@pytest.mark.parametrize("bits", [8, 16])
def test_of_a_tiff_that_begins_with_a_thumbnail_the_full_page_is_read_everywhere(tmp_path, bits):
    values = procedural_scene(2, 64).image.astype(f"uint{bits}")
    path = thumbnail_first(tmp_path / "t.tif", values)
    picture = picture_of(path, RGB8, scale=None if bits == 8 else (0, 255))
    assert look(path).size == picture.size == (64, 64)
    for window in (None, PART):
        pixels, _, extent = picture.read(window)
        want = values if window is None else values[window]
        assert np.array_equal(pixels, want) and extent.transform[2:6:3] == (100, 900)
        assert bits == 16 or np.array_equal(read_image(path, window), want)
    own = open_raster(path)
    assert own.bounds() == (100, 868, 132, 900) and np.array_equal(own.overview(64).values, values)
    assert located(extent_of(path)).transform == own.transform
    place = Place(point=(60, 50), window="32")
    request = find_request(str(path), place, Reading(scale=(0, 255)))(adapt(small_net(), RGB8))
    assert request.image.shape == (32, 32, 3) and np.array_equal(request.image, values[request.extent.window])


def test_where_gdal_cannot_see_the_full_page_or_its_mask_it_is_refused(tmp_path):
    values = procedural_scene(2, 64).image
    full = dict(values=np.full((64, 64, 1), 255, np.uint8), t254=[4], t262=[4])
    with pytest.raises(ValueError, match=r"m\.tif: .*mask of a later one; .*GTIFF_DIR:2"):
        open_raster(thumbnail_first(tmp_path / "m.tif", values, full))
    thumbnail_first(tmp_path / "t.tif", values)
    mosaic = tmp_path / "all.vrt"
    mosaic.write_text("<VRTDataset rasterXSize='16' rasterYSize='16'><VRTRasterBand dataType='Byte' band='1'><SimpleSource>"
                      "<SourceFilename relativeToVRT='1'>t.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>")
    with pytest.raises(ValueError, match=r"t\.tif: its first page .*all\.vrt; .*GTIFF_DIR:2"):
        open_raster(mosaic)
