"""What a scene gives back: objects that a notebook shows as maps, masks in their place, sums and gaps with their errors."""
import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from browser import check_page
from geopandas import GeoDataFrame, read_file
from PIL import Image
from rasterio.enums import Resampling
from rasterio.warp import reproject
from shapely import box
from typer.testing import CliRunner

from entropy_captum.cli import Place, app, check_survey
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import dataset_of, explain_question
from entropy_captum.footprints import in_pixels, outline
from entropy_captum.labels import parse_values
from entropy_captum.question import Budget
from entropy_captum.raster import open_raster, stretched
from entropy_captum.request import read_request
from entropy_captum.scene import Scene, drawn_shapes
from entropy_captum.survey import SurveySettings, ask_window, building_row, first_window, load_survey, plan, survey, survey_map
from entropy_captum.survey_report import make_survey_report
from entropy_captum.zoo import Padded, rooftop_unet

PLACE = (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
QUICK = SurveySettings(grid_size=4, n_samples=3, window=128)


@pytest.fixture(scope="module")
def network():
    return Padded(rooftop_unet())


def write(path, pixels, place=PLACE, crs="EPSG:25832", **more):
    with rasterio.open(path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=pixels.shape[2],
                       dtype=pixels.dtype, crs=crs, transform=None if place is None else rasterio.Affine(*place), **more) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


@pytest.fixture(scope="module")
def street(network, tmp_path_factory):
    """A scene of 256 x 256 pixels with three of its houses as footprints."""
    drawn, path = procedural_scene(2), tmp_path_factory.mktemp("street") / "scene.tif"
    write(path, drawn.image, photometric="RGB")
    shapes = [outline(drawn.instances == k, PLACE) for k in (4, 5, 6)]
    return Scene(path, network, GeoDataFrame({"building": ["h04", "h05", "h06"]}, geometry=shapes, crs="EPSG:25832"))


@pytest.fixture(scope="module")
def surveyed(street, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return survey(street, out, QUICK, show_progress=False), out


def pictures_in(shown):
    """The pictures (H,W,3) in what a notebook shows."""
    html = shown._repr_html_()
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall(r"base64,([^\"]+)", html)]


@pytest.mark.slow
def test_the_last_line_of_a_survey_is_its_map(street, surveyed):
    table, out = surveyed
    assert isinstance(table, GeoDataFrame) and "<table" in table._repr_html_()
    (seen,) = pictures_in(table)
    (again,) = pictures_in(load_survey(out))
    assert (seen == again).all()
    few, bare = table[table.building == "h05"], table.drop(columns="context_reliance")
    assert isinstance(few, GeoDataFrame) and not pictures_in(bare) and "h04" in bare._repr_html_()
    (alone,) = pictures_in(few)  # of which the other two houses are missing, and nothing else
    rows, columns = np.nonzero(np.abs(seen.astype(int) - alone).max(-1) > 60)
    shapes = [in_pixels(shape, PLACE) for shape in street.footprints.geometry]
    scale = np.array([(0.85 * seen.shape[1]) / 256, seen.shape[0] / 256])  # dots for a pixel, about
    away = [np.hypot(*(np.stack([columns, rows], -1) / scale - shapes[k].centroid.coords[0]).T) for k in (0, 2)]
    assert len(rows) > 50 and np.minimum(*away).max() < 40 and min(each.min() for each in away) < 8


@pytest.mark.slow
def test_a_survey_without_its_raster_is_a_table_and_a_folder_that_was_moved_finds_it(network, street, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/scene.tif").write_bytes(Path(street.raster.path).read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    survey(Scene("scene.tif", network, street.footprints), "run", QUICK, show_progress=False)
    monkeypatch.chdir(tmp_path)
    assert len(pictures_in(load_survey("here/run"))) == 1  # a relative path, from another folder
    (tmp_path / "here").rename(tmp_path / "there")
    table = load_survey(tmp_path / "there/run")
    assert len(pictures_in(table)) == 1
    (tmp_path / "there/scene.tif").unlink()
    assert not pictures_in(table) and not pictures_in(load_survey(tmp_path / "there/run")) and "h04" in table._repr_html_()


@pytest.mark.slow
def test_maps_are_xarray_and_shown_in_their_place(street, surveyed):
    told = street.explain(building="h04", window=128, budget=Budget(3, 8, seed=QUICK.seed), grid_size=4)
    mine = dataset_of(told)
    assert isinstance(mine, xr.Dataset) and mine.rio.crs == "EPSG:25832" and mine.attrs["method"] == "entropy"
    np.testing.assert_array_equal(mine.score.values, told.found["entropy"].maps[0].numpy().astype(np.float32))
    np.testing.assert_array_equal(mine.standard_error.values, told.error("entropy").astype(np.float32))
    rows, columns = told.request.extent.rows, told.request.extent.columns
    assert mine.rio.bounds() == pytest.approx((PLACE[2] + 0.3 * columns[0], PLACE[5] - 0.3 * rows[1],
                                               PLACE[2] + 0.3 * columns[1], PLACE[5] - 0.3 * rows[0]))
    for shown in (mine, survey_map(street, surveyed[1], "h04")):
        assert len(pictures_in(shown)) == 1 and "xr-wrap" in shown._repr_html_()
        assert not pictures_in(shown.mean()) and len(pictures_in(shown.isel(x=slice(0, 64)))) == 1


def test_a_map_is_not_shown_upside_down(street):
    """With coordinates or without, the first row is above; seen by the picture of a map whose upper half is bright."""
    from entropy_captum.files import Extent
    from entropy_captum.gis import map_dataset
    score = np.zeros((40, 40))
    score[:20] = 1.0
    turned = (0.2, 0.1, 691000.0, 0.1, -0.2, 5335000.0)
    for transform in (PLACE, turned, None):
        extent = Extent("a.tif", "", (40, 40), (0, 40), (0, 40), None if transform is None else "EPSG:25832", transform)
        (seen,) = pictures_in(map_dataset(score, None, extent))
        left = seen[:, :seen.shape[1] // 2].astype(int)  # the colour bar stands on the right
        yellow = (left[..., 0] - left[..., 2] > 100).nonzero()[0]
        blue = (left[..., 2] - left[..., 0] > 50).nonzero()[0]
        assert yellow.mean() < blue.mean(), transform


@pytest.mark.slow
def test_the_gap_of_a_building_has_the_error_that_explain_gives_it(street, surveyed):
    """And takes the rows that are said."""
    table = surveyed[0].set_index("building")
    jobs, _ = plan(street.footprints, street.picture, QUICK.window)
    question, _, _ = ask_window(street.model, jobs[0], street.picture, QUICK)
    rows = list[int]()
    for (name, _), one in zip(jobs[0].buildings, question.each(), strict=True):
        told = explain_question(street.request(building=name), one, Budget(3, 8), ["entropy"])  # of this question alone
        wanted = told.table.set_index("map").loc["entropy"]
        assert table.gap[name] == pytest.approx(wanted["gap_r0.5"], abs=1e-4)
        assert table.gap_error[name] == pytest.approx(wanted["gap_r0.5_se"], abs=1e-4) and table.gap_error[name] > 0
        rows.clear()
        counting = street.model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        found = building_row(one, told.found["entropy"].estimate, 0, one.regions[0].numpy() > 0, told.request.extent, 3)
        counting.remove()
        assert sum(rows) == 28 and max(rows) <= 3 and found["gap_error"] == pytest.approx(table.gap_error[name], abs=1e-3)


@pytest.mark.slow
def test_the_gaps_error_is_in_the_layer_and_in_the_report(surveyed):
    table, out = surveyed
    np.testing.assert_allclose(load_survey(out).gap_error, table.gap_error)
    page = make_survey_report(out)
    assert "the gap&#39;s standard error (points)" in page and "<th>±</th>" in page.replace("<th >", "<th>")


@pytest.mark.browser
def test_in_a_browser_the_report_of_a_survey_fits_and_is_accessible(surveyed, tmp_path):
    (tmp_path / "report.html").write_text(make_survey_report(surveyed[1]))
    check_page(tmp_path / "report.html")


def to_disk(path, mask, place, crs="EPSG:25832"):
    return write(path, np.where(mask, 255, 0).astype(np.uint8)[..., None], place, crs)


def ellipse(size, middle, axes):
    rows, columns = np.mgrid[:size[0], :size[1]] + 0.5
    return ((rows - middle[0]) / axes[0]) ** 2 + ((columns - middle[1]) / axes[1]) ** 2 < 1


GRIDS = {"a part of it": ((120, 140), (0.3, 0, 691000 + 0.3 * 40, 0, -0.3, 5335000 - 0.3 * 60), "EPSG:25832"),
         "more than it": ((300, 320), (0.3, 0, 691000 - 0.3 * 20, 0, -0.3, 5335000 + 0.3 * 10), "EPSG:25832"),
         "twice as coarse": ((128, 128), (0.6, 0, 691000, 0, -0.6, 5335000), "EPSG:25832"),
         "finer, and between": ((700, 700), (0.11, 0, 691000.075, 0, -0.11, 5334999.915), "EPSG:25832"),
         "south up": ((256, 256), (0.3, 0, 691000, 0, 0.3, 5335000 - 0.3 * 256), "EPSG:25832"),
         "of its own size, elsewhere": ((256, 256), (0.3, 0, 691000 + 0.3 * 30, 0, -0.3, 5335000 - 0.3 * 50), "EPSG:25832"),
         "in degrees": ((400, 400), (3e-6, 0, 11.5669, 0, -2.2e-6, 48.13985), "EPSG:4326"),
         "without a CRS": ((120, 140), (0.3, 0, 691000 + 0.3 * 40, 0, -0.3, 5335000 - 0.3 * 60), None)}


@pytest.mark.parametrize("name", GRIDS)
def test_a_mask_of_another_grid_lies_where_it_says(street, tmp_path, name):
    """As GDAL's own warp to the nearest pixel lays it on the scene."""
    size, place, crs = GRIDS[name]
    mask = ellipse(size, (size[0] * 0.55, size[1] * 0.5), (size[0] * 0.2, size[1] * 0.15))
    path, wanted = to_disk(tmp_path / "mask.tif", mask, place, crs), np.zeros((256, 256), np.uint8)
    reproject(mask.astype(np.uint8), wanted, src_transform=rasterio.Affine(*place), src_crs=crs or "EPSG:25832",
              dst_transform=rasterio.Affine(*PLACE), dst_crs="EPSG:25832", resampling=Resampling.nearest, tolerance=0)
    assert wanted.any()
    with pytest.warns(UserWarning, match=r"mask\.tif: has other pixels than .*scene\.tif; each of these takes the value of"):
        whole = street.request(mask=path)
    assert np.count_nonzero(whole.region != (wanted == 1)) <= 2  # GDAL's places in degrees are good to 1e-3 of a pixel
    with pytest.warns(UserWarning, match="other pixels"):
        part = street.request(mask=path, window=64)
    np.testing.assert_array_equal(part.region, whole.region[part.extent.window])
    middle = np.argwhere(wanted).mean(0)
    assert np.abs([sum(part.extent.rows) / 2, sum(part.extent.columns) / 2] - middle.clip(32, 224)).max() <= 3
    with pytest.warns(UserWarning, match="other pixels"):
        at = Scene(street.raster.path, street.model).request(mask=path, point=(int(middle[1]), int(middle[0])), window=64)
    np.testing.assert_array_equal(at.region, whole.region[at.extent.window])


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_mask_on_the_scenes_own_grid_is_read_pixel_by_pixel_without_a_word(street, tmp_path, recwarn):
    mask = ellipse((256, 256), (140, 128), (50, 40))
    for name, place in (("own.tif", PLACE), ("bare.tif", None)):
        request = street.request(mask=to_disk(tmp_path / name, mask, place, "EPSG:25832" if place else None))
        np.testing.assert_array_equal(request.region, mask)
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(street.request(mask=tmp_path / "mask.png").region, mask)
    assert not [one for one in recwarn if "pixels" in str(one.message)]


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_mask_that_cannot_be_laid_is_refused_in_a_sentence(street, tmp_path):
    mask, far = np.ones((100, 120), bool), (0.3, 0, 700000.0, 0, -0.3, 5335000.0)
    with pytest.raises(ValueError, match=r"bare\.tif: a mask of 120 x 100 for an image of 256 x 256 pixels"):
        street.request(mask=to_disk(tmp_path / "bare.tif", mask, None, None))
    with (pytest.warns(UserWarning, match="other pixels"),
          pytest.raises(ValueError, match=r"far\.tif: none of its pixels lies in rows 0 to 256 and columns 0 to 256 of the image")):
        street.request(mask=to_disk(tmp_path / "far.tif", mask, far))
    with pytest.warns(UserWarning, match="other pixels"), pytest.raises(ValueError, match="--window needs"):
        street.request(mask=to_disk(tmp_path / "far.tif", mask, far), window=64)


def test_a_label_of_another_grid_is_not_known_where_it_does_not_reach(street, tmp_path):
    size, place, crs = GRIDS["a part of it"]
    label = ellipse(size, (60, 70), (20, 20))
    with pytest.warns(UserWarning, match=r"label\.tif: has other pixels"):
        found = street.request(label=to_disk(tmp_path / "label.tif", label, place, crs)).labels.of()
    known = np.zeros((256, 256), bool)
    known[60:180, 40:180] = True
    np.testing.assert_array_equal(found.known, known)
    np.testing.assert_array_equal(found.mask[60:180, 40:180], label)
    assert not found.mask[~known].any()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_mosaic_of_many_files_is_lossy_where_the_last_of_them_is(tmp_path):
    """And is not by its overviews, which are not explained."""
    sources = ""
    for k in range(20):
        options = {"compress": "JPEG", "photometric": "YCBCR"} if k == 19 else {"compress": "deflate"}
        write(tmp_path / f"{k}.tif", procedural_scene(k, 64).image, (0.3, 0, 691000 + 19.2 * k, 0, -0.3, 5335000), **options)
        sources += (f'<SimpleSource><SourceFilename relativeToVRT="1">{k}.tif</SourceFilename><SourceBand>1</SourceBand>'
                    '<SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/>'
                    f'<DstRect xOff="{64 * k}" yOff="0" xSize="64" ySize="64"/></SimpleSource>')
    (tmp_path / "city.vrt").write_text('<VRTDataset rasterXSize="1280" rasterYSize="64"><SRS>EPSG:25832</SRS>'
                                       '<GeoTransform>691000, 0.3, 0, 5335000, 0, -0.3</GeoTransform>'
                                       f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>')
    assert open_raster(tmp_path / "city.vrt").lossy == "JPEG"
    write(tmp_path / "19.tif", procedural_scene(19, 64).image, (0.3, 0, 691000 + 19.2 * 19, 0, -0.3, 5335000))
    small = np.concatenate([procedural_scene(k, 64).image[::2, ::2] for k in range(20)], 1)
    write(tmp_path / "small.tif", small, None, None, compress="JPEG", photometric="YCBCR").rename(tmp_path / "city.vrt.ovr")
    with rasterio.open(tmp_path / "city.vrt") as mosaic:
        assert mosaic.overviews(1) == [2] and any(file.endswith(".ovr") for file in mosaic.files)
    assert open_raster(tmp_path / "city.vrt").lossy is None


def test_many_buildings_are_not_told_by_bands_and_no_option_of_one_is_left_unread():
    many = Place(everything=True)
    for words, given in (("--features bands is for one building", {"features": "bands"}),
                         (r"--features bands\*patches is for one", {"features": "bands*patches"}),
                         ("--inference full is for one image", {"inference": "full"}),
                         ("--groups visible: bands are told apart for one", {"groups": {"visible": ["red", "green"]}})):
        with pytest.raises(ValueError, match=words):
            check_survey(many, False, **given)
    with pytest.raises(ValueError, match="--label, its values and --mistakes are for one image"):
        check_survey(many._replace(values=parse_values(["building=1"])), False)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_mask_of_its_own_grid_lies_on_a_picture_that_a_world_file_places(street, tmp_path, kind):
    """As on the same pixels in a GeoTIFF; without a place on either side it is still one value for each pixel, or refused."""
    size, place, crs = GRIDS["finer, and between"]
    mask = ellipse(size, (size[0] * 0.55, size[1] * 0.5), (size[0] * 0.2, size[1] * 0.15))
    own = to_disk(tmp_path / "mask.tif", mask, place, crs)
    with pytest.warns(UserWarning, match="other pixels"):
        wanted = street.request(mask=own, window=64)
    picture = tmp_path / f"tile.{kind}"
    Image.fromarray(procedural_scene(2).image).save(picture)
    with pytest.raises(ValueError, match=r"a mask of 700 x 700 for an image of 256 x 256 pixels.*or both files must say where"):
        read_request(picture, mask=own)
    picture.with_suffix(f".{kind[0]}{kind[-1]}w").write_text("0.3\n0\n0\n-0.3\n691000.15\n5334999.85\n")
    for given in (own, tmp_path / "mask.png"):
        if given.suffix == ".png":
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(given)
            given.with_suffix(".pgw").write_text("\n".join(map(str, (
                place[0], 0, 0, place[4], place[2] + place[0] / 2, place[5] + place[4] / 2))))
        with pytest.warns(UserWarning, match=rf"has other pixels than .*tile\.{kind}"):
            found = read_request(picture, mask=given, label=given, window=64)
        np.testing.assert_array_equal(found.region, wanted.region)
        np.testing.assert_array_equal(found.labels.of().mask, wanted.region)
        assert (found.extent.rows, found.extent.columns) == (wanted.extent.rows, wanted.extent.columns)


@pytest.mark.slow
def test_a_survey_of_before_some_columns_were_written_is_read_and_reported_without_them(surveyed, tmp_path):
    table, out = surveyed
    share = ["context_reliance", "context_reliance_error"]
    for absent in (["gap_error"], ["area_outside"], ["entropy", "distance_90_m", "gap_error"], share, ["run"]):
        old = tmp_path / absent[0]
        shutil.copytree(out, old)
        (old / "buildings.gpkg").unlink()
        read_file(out / "buildings.gpkg", layer="buildings").drop(columns=absent).to_file(old / "buildings.gpkg", layer="buildings")
        assert load_survey(old).columns.tolist() == [name for name in load_survey(out) if name not in absent]
        if absent == ["run"]:
            with pytest.raises(ValueError, match=r"buildings\.gpkg: does not say which run it is of; run the survey again"):
                make_survey_report(old)
            continue
        page = make_survey_report(old)
        assert f"{table.gap.count()} buildings are too few to tell" in page and "nan" not in re.sub(r"base64,[^\"]+", "", page)
        assert ("the gap&#39;s standard error" in page) == ("gap_error" not in absent)
        assert ("a map without preference" in page) == (absent != ["area_outside"])
        assert ("In the median building" in page) == ("context_reliance" not in absent)


def test_windows_are_planned_once_though_a_foreign_model_looks_at_one_first(street, tmp_path, monkeypatch):
    class Ends(Exception):
        pass

    def counted(*given):
        planned.append(given)
        raise Ends

    planned, looked = [], []
    (tmp_path / "own.py").write_text("def network(x):\n    return x.mean(1, keepdim=True)\n")
    (tmp_path / "card.toml").write_text('bands = ["red", "green", "blue"]\nmean = 127.5\nstd = 127.5\nscale = 1.0\n')
    street.footprints.to_file(tmp_path / "houses.gpkg")
    monkeypatch.setattr("entropy_captum.survey.plan", counted)
    monkeypatch.setattr("entropy_captum.cli.look_at_one", lambda network, read: looked.append(read().shape))
    done = CliRunner().invoke(app, ["explain", street.raster.path, "--footprints", str(tmp_path / "houses.gpkg"), "--model",
                                    f"{tmp_path / 'own.py'}:network", "--model-card", str(tmp_path / "card.toml"), "--window",
                                    "64", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, Ends) and len(planned) == 1 and looked == [(64, 64, 3)]


def test_the_first_window_is_that_of_the_first_building_that_has_one(street):
    far, wide = box(1, 1, 2, 2), box(691001, 5334990, 691075, 5334991)
    shapes = [None, far, wide, street.footprints.geometry.iloc[0]]
    frame = GeoDataFrame({"building": list("abcd")}, geometry=shapes, crs="EPSG:25832")
    (job,), left_out = plan(frame, street.picture, 48)
    assert left_out == {"a": "outside", "b": "outside", "c": "too large"}
    assert first_window(frame, street.picture, 48) == (slice(*job.rows), slice(*job.columns))
    assert first_window(frame.head(3), street.picture, 48) is None


def test_buildings_lie_where_they_are_on_a_copy_of_any_shape(tmp_path):
    """A copy's sides are rounded each by itself; what ends at the scene's right and lower border ends there."""
    for height, width in ((20, 3000), (50, 3000), (3000, 100)):
        path = write(tmp_path / f"{height}.tif", np.zeros((height, width, 3), np.uint8), (0.5, 0, 500000, 0, -0.5, 5300000))
        right, low = 500000 + 0.5 * width, 5300000 - 0.5 * height
        table = GeoDataFrame({"context_reliance": [0.5]}, geometry=[box(right - 10, low, right, low + 5)], crs="EPSG:25832")
        raster = open_raster(path)
        size = stretched(raster.overview(800)).shape[:2]
        _, (corners,) = drawn_shapes(table, raster, size)
        assert corners.max(0) == pytest.approx(size[::-1])
