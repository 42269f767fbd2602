"""One building of a raster: the same numbers wherever its pixels lie, and clear words where they cannot be read."""
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.warp
import torch
from geopandas import GeoDataFrame, read_file
from PIL import Image
from shapely.geometry import box
from typer.testing import CliRunner

from entropy_captum.adapter import adapt
from entropy_captum.card import ModelCard, to_inputs
from entropy_captum.cli import app
from entropy_captum.drawn import procedural_scene
from entropy_captum.explanation import ask, largest_object, object_of
from entropy_captum.footprints import outline
from entropy_captum.question import Budget
from entropy_captum.raster import Band, moved, to_world
from entropy_captum.request import bands_for, in_numbers, read_request
from entropy_captum.run import Quantity, answer
from entropy_captum.scene import Scene, window_side
from entropy_captum.zoo import Padded, predict_mask, rooftop_unet

PLACE = rasterio.Affine(0.3, 0, 691000, 0, -0.3, 5335000)
SIZE = 128


@pytest.fixture(scope="module")
def network():
    return Padded(rooftop_unet())


@pytest.fixture(scope="module")
def tile():
    return procedural_scene(2, 256).image[40:168, 100:228].copy()


def write(path, values, transform=PLACE, descriptions=("red", "green", "blue"), crs="EPSG:25832", **options):
    with rasterio.open(path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=values.shape[2],
                       dtype=values.dtype, crs=crs, transform=transform, **options) as file:
        file.write(np.moveaxis(values, -1, 0))
        file.descriptions = descriptions
    return path


def roof(network, image):
    """A pixel (column, row) of a predicted roof of an image."""
    rows, columns = np.nonzero(largest_object(predict_mask(network, image)))
    k = len(rows) // 2
    return int(columns[k]), int(rows[k])


def scores(network, request):
    (estimate,) = answer(ask(network, request, grid_size=4), Budget(4, 8), [Quantity("entropy")])
    return estimate.scores.numpy()


@pytest.mark.slow
def test_a_building_has_the_same_scores_in_a_tile_a_raster_a_mosaic_and_at_any_offset(network, tile, tmp_path):
    Image.fromarray(tile).save(tmp_path / "tile.png")
    point = roof(network, tile)
    expected = scores(network, read_request(tmp_path / "tile.png", point=point))
    assert expected.max() > 0.001
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (400, 500, 3), np.uint8)
    for top, left in ((0, 0), (131, 257), (272, 372)):
        city = large.copy()
        city[top:top + SIZE, left:left + SIZE] = tile
        path = write(tmp_path / "city.tif", city, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
        # A window whose middle is the tile's, and the point that was meant.
        request = Scene(path, network).request(point=(left + SIZE // 2, top + SIZE // 2), window=SIZE)
        assert request.extent.rows == (top, top + SIZE) and request.extent.columns == (left, left + SIZE)
        assert (request.image == tile).all()
        found = scores(network, replace(request, point=(left + point[0], top + point[1])))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    alone = Scene(write(tmp_path / "alone.tif", tile), network)
    np.testing.assert_allclose(scores(network, alone.request(point=point)), expected, atol=1e-6)
    x, y = to_world(tuple(PLACE)[:6], point[0] + 0.5, point[1] + 0.5)
    (longitude,), (latitude,) = rasterio.warp.transform("EPSG:25832", "EPSG:4326", [x], [y])
    by_place = alone.request(at=(longitude, latitude))
    assert by_place.point == point
    np.testing.assert_allclose(scores(network, by_place), expected, atol=1e-6)


@pytest.mark.slow
def test_twelve_bits_in_other_bands_are_the_same_building(network, tile, tmp_path):
    Image.fromarray(tile).save(tmp_path / "tile.png")
    point = roof(network, tile)
    expected = scores(network, read_request(tmp_path / "tile.png", point=point))
    four = np.concatenate([tile[..., ::-1], tile[..., :1]], -1).astype(np.uint16) * 16
    path = write(tmp_path / "four.tif", four, descriptions=("blue", "green", "red", "nir"))
    np.testing.assert_allclose(scores(network, Scene(path, network, scale=(0, 4080)).request(point=point)), expected, atol=1e-6)
    by_number = Scene(path, network, bands="3,2,1", scale=(0, 4080)).request(point=point)
    assert (by_number.image == tile).all() and by_number.image.dtype == np.uint8
    words = r"holds 3 bands of uint16, here from \d+ to \d+, and the model takes 0 to 255.*--scale 0 4095"
    with pytest.raises(ValueError, match=words):
        Scene(path, network).request(point=point)
    with pytest.raises(ValueError, match="expected the lower number first"):
        Scene(path, network, scale=(4095, 0))
    with pytest.raises(ValueError, match="--bands 1,2: the model takes 3: red, green, blue"):
        Scene(path, network, bands="1,2")


@pytest.mark.slow
def test_pixels_without_data_are_neither_explained_nor_used(network, tile, tmp_path):
    point, held = roof(network, tile), np.ones((SIZE, SIZE), bool)
    held[:, :20] = held[:9] = False
    expected = None
    for garbage in (0, 9999):
        values = np.where(held[..., None], tile.astype(np.int32), -1 if garbage == 0 else garbage)
        path = write(tmp_path / f"holes{garbage}.tif", values, nodata=-1 if garbage == 0 else garbage)
        request = Scene(path, network, scale=(0, 255)).request(point=point)
        assert (request.valid == held).all()
        question = ask(network, request, grid_size=4)
        assert not (question.regions[0].bool().numpy() & ~held).any()
        found = scores(network, request)
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, atol=1e-6)  # what stands where nothing is does not matter
    with pytest.raises(ValueError, match="no pixel of this window holds anything"):
        Scene(write(tmp_path / "empty.tif", np.zeros((64, 64, 3), np.uint8), nodata=0), network).request()


def test_bands_are_found_by_their_names_or_not_at_all():
    card = ModelCard(bands=("nir", "red", "green"))
    known = [Band(1, "Red"), Band(2, "Green"), Band(3, "Blue"), Band(4, "NIR", 842.0)]
    assert [b.index for b in bands_for(known, card, "a.tif")] == [4, 1, 2]
    numbered = [Band(k, f"band {k}") for k in (1, 2, 3)]
    assert [b.index for b in bands_for(numbered, card, "a.tif")] == [1, 2, 3]
    unnamed = [*numbered, Band(4, "band 4")]
    for others in (known[:3], unnamed, [Band(1, "red"), Band(2, "green"), Band(3, "swir")]):
        # What is advised can be typed: a raster without names has no band of that name.
        advised = "1,2,3 if band 1 is nir" if others is unnamed else "nir,red,green"
        words = rf"which bands are the model's nir, red, green\? The raster has 1 .*--bands {advised}"
        with pytest.raises(ValueError, match=words):
            bands_for(others, card, "a.tif")


def test_numbers_are_spread_over_the_models_range_and_cut_off_beyond():
    values = np.array([[[-5.0], [0.0], [0.25], [1.0], [7.0]]], np.float32)
    assert in_numbers(values, ModelCard(), (0, 1), "a").ravel().tolist() == [0, 0, 64, 255, 255]
    reflectance = ModelCard(bands=("a",), value_range=(0, 10000), scale=1e-4, mean=(0,), std=(1,))
    np.testing.assert_allclose(in_numbers(values, reflectance, (0, 1), "a").ravel(), [0, 0, 2500, 10000, 10000])
    assert in_numbers(values, reflectance, None, "a") is values


def test_a_network_of_other_numbers_reads_them_as_they_are(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 10000, (64, 64, 2)).astype(np.uint16)
    path = write(tmp_path / "s2.tif", values, descriptions=("nir", "red"))
    weights = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    card = ModelCard(bands=("red", "nir"), value_range=(0, 10000), scale=1e-4, mean=(0.0, 0.0), std=(1.0, 1.0))
    scene = Scene(path, adapt(lambda x: (x * weights).sum(1, keepdim=True), card))
    request = scene.request()
    assert (request.image == values[..., ::-1]).all()


def test_a_window_is_given_in_pixels_or_metres(network, tile, tmp_path):
    raster = Scene(write(tmp_path / "a.tif", tile), network).raster
    assert [window_side(text, raster) for text in (64, "64", "30m", "30 m", None)] == [64, 64, 100, 100, None]
    bare = Scene(write(tmp_path / "b.tif", tile, crs=None, transform=None), network).raster
    for text, words in (("60m", "does not say how long a pixel is"), ("far", "expected pixels, as 512, or metres, as 60m"),
                        ("-5m", "expected pixels"), ("nanm", "expected pixels")):
        with pytest.raises(ValueError, match=words):
            window_side(text, bare)


@pytest.mark.slow
def test_a_footprint_is_what_is_explained_by_its_id_at_a_pixel_or_a_coordinate(network, tile, tmp_path):
    mask = largest_object(predict_mask(network, tile))
    shape = outline(mask, tuple(PLACE)[:6])
    frame = GeoDataFrame({"id": ["a", "b"]}, geometry=[shape, box(691030, 5334990, 691034, 5334994)], crs="EPSG:25832")
    frame.to_crs(4326).to_file(tmp_path / "houses.gpkg")
    scene = Scene(write(tmp_path / "scene.tif", tile), network, tmp_path / "houses.gpkg")
    inside = shape.representative_point()
    column, row = scene.raster.pixel_at(inside.x, inside.y)
    for place in ({"building": "a"}, {"point": (column, row)}, {"at": (inside.x, inside.y), "crs": "EPSG:25832"}):
        assert (scene.request(**place).region == mask).all()
    assert scene.request().region is None
    with pytest.raises(ValueError, match="expected one place, got at and building"):
        scene.request(at=(1, 2), building="a")
    with pytest.raises(ValueError, match=r"there is no building 'c'.*known are a, b"):
        scene.request(building="c")
    with pytest.raises(ValueError, match=r"there is no building at .*; the nearest is '[ab]', [\d.]+ m away"):
        scene.request(point=(0, 127) if not mask[127, 0] else (127, 127))
    plain = Scene(tmp_path / "scene.tif", network)
    np.testing.assert_allclose(scores(network, scene.request(building="a")),
                               scores(network, replace(plain.request(), region=mask)), atol=1e-6)
    with pytest.raises(ValueError, match="there are no footprints to look it up in"):
        plain.request(building="a")


@pytest.mark.slow
def test_the_command_explains_a_footprint(network, tile, tmp_path):
    path, houses = write(tmp_path / "scene.tif", tile), tmp_path / "houses.geojson"
    GeoDataFrame({"id": ["a"]}, geometry=[box(691009, 5334979, 691015, 5334985)], crs="EPSG:25832").to_file(houses)
    asked = ["explain", str(path), "--footprints", str(houses), "--id", "a", "--n-samples", "2", "--grid-size", "4",
             "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "out/entropy.npy").is_file()
    with rasterio.open(tmp_path / "out/entropy.tif") as file:
        assert file.tags()["building"] == "a"
    assert read_file(tmp_path / "out/buildings.gpkg").building.tolist() == ["a"], "by which it is joined to the file's own columns"
    for footprints in (None, read_file(houses).rename(columns={"id": "building"})):
        with pytest.raises(ValueError, match="--id-column number: is of a file of footprints"):
            Scene(path, network, footprints, id_column="number")
    asked[asked.index("a")] = "b"
    assert "there is no building 'b'" in str(CliRunner().invoke(app, asked).exception)


def test_a_large_scene_asks_for_a_place_and_takes_a_window(network, tmp_path):
    path = tmp_path / "large.tif"
    with rasterio.open(path, "w", driver="GTiff", height=20000, width=20000, count=3, dtype="uint8", crs="EPSG:25832",
                       transform=PLACE, tiled=True, sparse_ok=True, compress="deflate"):
        pass
    scene = Scene(path, network)
    with pytest.raises(ValueError, match=r"400,000,000 pixels would be read at once.*--at LON LAT"):
        scene.request()
    request = scene.request(point=(19999, 10000))
    assert request.image.shape == (512, 512, 3) and request.extent.columns == (19488, 20000)
    with pytest.raises(ValueError, match="expected one place"):
        scene.request(at=(11.5, 48.1), point=(3, 4))


@pytest.mark.slow
def test_the_command_explains_at_a_coordinate_and_says_where_the_map_lies(network, tile, tmp_path):
    point = roof(network, tile)
    path = write(tmp_path / "scene.tif", tile)
    x, y = to_world(tuple(PLACE)[:6], point[0] + 0.5, point[1] + 0.5)
    asked = ["explain", str(path), "--at", str(x), str(y), "--crs", "EPSG:25832", "--window", "30m", "--n-samples", "2",
             "--grid-size", "4", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    pixels = json.loads((tmp_path / "out/pixels.json").read_text())
    assert np.diff(pixels["columns"]) == 100 and pixels["transform"] == list(PLACE)[:6] and "25832" in pixels["crs"]
    with rasterio.open(tmp_path / "out/entropy.tif") as file:
        tags = file.tags()
        assert file.shape == (100, 100) and tuple(file.transform)[:6] == pytest.approx((
            0.3, 0, 691000 + 0.3 * pixels["columns"][0], 0, -0.3, 5335000 - 0.3 * pixels["rows"][0]))
    assert (tags["method"], tags["n_samples"], tags["grid_size"]) == ("entropy", "2", "4") and "entropy_captum" in tags["software"]
    outside = CliRunner().invoke(app, ["explain", str(path), "--at", "11.5", "48.1"])
    assert "lies outside; the raster reaches from" in str(outside.exception)
    outside = CliRunner().invoke(app, ["explain", str(path), "--at", "691003", "5334996"])
    assert "(691003, 5334996) lies outside" in str(outside.exception) and "; --crs EPSG:25832 takes" in str(outside.exception)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:25832", "EPSG:3857"])
@pytest.mark.parametrize(("column", "row", "words"), [(5, 60, "holds nothing (nodata)"), (60, 5, "on no object")])
def test_a_place_without_an_object_is_answered_in_the_coordinates_that_were_typed(network, tmp_path, crs, column, row, words):
    """And so is the nearest: what is typed in its place finds it."""
    pixels = np.full((128, 128, 3), 90, np.uint8)
    pixels[50:70, :10] = 0
    write(tmp_path / "scene.tif", pixels, nodata=0)
    scene, mask = Scene(tmp_path / "scene.tif", network), np.zeros((128, 128), bool)
    mask[40:60, 60:80] = True
    extent = scene.raster
    at = moved(*to_world(extent.transform, column + 0.5, row + 0.5), extent.crs, crs)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        object_of(scene.request(at, crs=crs), mask)
    said = str(caught.value)
    assert said.startswith(f"({at[0]:.10g}, {at[1]:.10g}) in {crs}, the pixel ({column}, {row}), lies ")
    numbers = re.search(r"nearest object is at \((.*), (.*)\), its pixel \((.*), (.*)\)$", said).groups()
    near, pixel = tuple(map(float, numbers[:2])), tuple(map(int, numbers[2:]))
    assert mask[pixel[::-1]] and scene.raster.pixel_at(*near, crs) == pixel
    houses = GeoDataFrame({"building": ["h"]}, geometry=[box(691030, 5334970, 691035, 5334975)], crs="EPSG:25832")
    words = f"there is no building at ({at[0]:.10g}, {at[1]:.10g}) in {crs}; the nearest is 'h'"
    with pytest.raises(ValueError, match=re.escape(words)):
        Scene(tmp_path / "scene.tif", network, houses).request(at, crs=crs)


@pytest.mark.parametrize(("options", "words"), [
    (["--at", "11.5", "48.1"], "does not say where on Earth it lies"),
    (["--window", "60m", "--point", "5", "5"], "how long a pixel is"),
    (["--window", "far", "--point", "5", "5"], "--window far: expected a number of pixels"),
    (["--bands", "1,2,9"], "there is no band '9'")])
def test_a_picture_without_a_place_says_what_it_lacks(tile, tmp_path, options, words):
    Image.fromarray(tile).save(tmp_path / "tile.png")
    assert words in str(CliRunner().invoke(app, ["explain", str(tmp_path / "tile.png"), *options]).exception)


@pytest.mark.slow
def test_a_world_file_places_a_picture(network, tile, tmp_path):
    path = tmp_path / "tile.png"
    Image.fromarray(tile).save(path)
    path.with_suffix(".pgw").write_text("0.3\n0\n0\n-0.3\n691000.15\n5334999.85\n")
    point = roof(network, tile)
    asked = ["explain", str(path), "--point", *map(str, point), "--n-samples", "2", "--grid-size", "2", "--method", "grad-cam",
             "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "out/pixels.json").read_text())["transform"] == pytest.approx(list(PLACE)[:6])


def test_what_lies_elsewhere_is_fetched_only_if_asked_for():
    done = CliRunner().invoke(app, ["explain", "https://example.org/scene.tif", "--point", "5", "5"])
    assert "https://example.org/scene.tif: is no file on this machine; if it is to be fetched, say so" in str(done.exception)


def test_a_network_of_blue_green_and_red_sees_these(tmp_path):
    """Its adapter turns images of red, green and blue round; a raster is read as such an image, or its bands were turned twice."""
    values = np.stack([np.full((40, 40), v, np.uint8) for v in (10, 20, 30)])  # red, green, blue
    seen = []

    def network(x):
        seen.append(x[0, :, 0, 0].tolist())
        return x[:, :1] * 0 + 5

    card = ModelCard(bands=("blue", "green", "red"), scale=1.0, mean=0, std=1)
    names = ("red", "green", "blue")
    for name, order in (("rgb", (0, 1, 2)), ("bgr", (2, 1, 0))):
        path = tmp_path / f"{name}.tif"
        with rasterio.open(path, "w", driver="GTiff", width=40, height=40, count=3, dtype="uint8",
                           transform=rasterio.Affine(1, 0, 0, 0, -1, 40)) as file:
            file.write(values[list(order)])
            for k, which in enumerate(order, 1):
                file.set_band_description(k, names[which])
        own = [order.index(which) + 1 for which in (2, 1, 0)]  # the numbers of blue, green and red
        for bands in (None, own):
            picture = Scene(path, adapt(network, card), bands=bands).picture
            image = picture.read(None)[0]
            assert image[0, 0].tolist() == [10, 20, 30] and [band.name for band in picture.bands] == [*names]
            adapt(network, card)(to_inputs(image, card))
            assert np.allclose(seen[-1], [30, 20, 10])


def test_a_picture_of_a_palette_is_explained_by_its_colours(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = (200, 100, 50)
    Image.fromarray(image).quantize(2).save(tmp_path / "palette.tif")
    scene = Scene(tmp_path / "palette.tif", rooftop_unet())
    assert np.array_equal(scene.picture.read(None)[0], image)
    with pytest.raises(ValueError, match=r"palette.tif: holds colours of a palette.*the model takes red, nir"):
        Scene(tmp_path / "palette.tif", adapt(lambda x: x[:, :1], ModelCard(bands=("red", "nir"), mean=0, std=1)))
