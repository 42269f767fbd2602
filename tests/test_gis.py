"""What a GIS opens: places, values, styles and rows, read back by other programs than those that wrote them."""
import math
import sqlite3
import warnings
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from conftest import largest_file

from entropy_captum.files import Extent
from entropy_captum.footprints import burn
from entropy_captum.gis import (
    graduated_style,
    map_dataset,
    map_style,
    outlined,
    patches,
    reach,
    write_buildings,
    write_layers,
    write_map,
    write_styled_map,
)
from entropy_captum.raster import open_raster
from entropy_captum.tiff import read_pages

NORTH_UP = (0.3, 0.0, 691000.0, 0.0, -0.3, 5335000.0)
TURNED = tuple(rasterio.Affine(*NORTH_UP) * rasterio.Affine.rotation(30))[:6]
PLACES = {"north-up": ("EPSG:25832", NORTH_UP), "south-up": ("EPSG:25832", (0.3, 0.0, 691000.0, 0.0, 0.3, 5334000.0)),
          "turned": ("EPSG:25832", TURNED), "geographic": ("EPSG:4326", (3e-6, 0.0, 11.5, 0.0, -2e-6, 48.1)),
          "no CRS": (None, NORTH_UP)}
RNG = np.random.default_rng(0)
SCORE, ERROR = RNG.random((48, 64)).astype(np.float32), RNG.random((48, 64)).astype(np.float32)
INDEX = np.kron(np.arange(12).reshape(3, 4), np.ones((16, 16), int))


def extent_at(place):
    crs, transform = PLACES[place]
    return Extent("scene.tif", "", (500, 600), (100, 148), (40, 104), crs and rasterio.CRS.from_string(crs).to_wkt(), transform)


def test_maps_whose_names_have_dots_keep_a_style_each(tmp_path):
    for name in ("map_x0.25", "map_x0.50.tif"):
        write_styled_map(tmp_path / name, SCORE, ERROR, extent_at("no CRS"))
    assert {path.name for path in tmp_path.glob("*.qml")} == {"map_x0.25.qml", "map_x0.50.qml"}


@pytest.mark.parametrize("place", PLACES)
def test_a_map_lies_on_the_pixels_of_its_window(tmp_path, place):
    extent, score = extent_at(place), SCORE.copy()
    score[:5, :7] = np.nan
    write_map(tmp_path / "map.tif", score, ERROR, extent, "bit", {"method": "entropy", "n_samples": 32})
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), score)
        np.testing.assert_array_equal(file.read(2), ERROR)
        scene = rasterio.Affine(*PLACES[place][1])
        for column, row in ((0, 0), (64, 48), (10.5, 3.25)):  # a tenth of a pixel would be 0.03 m, or 2e-7 degrees
            np.testing.assert_allclose(file.transform * (column, row), scene * (column + 40, row + 100), rtol=0, atol=1e-9 * 5e6)
        assert file.descriptions == ("score", "standard error") and file.units == ("bit", "bit") and math.isnan(file.nodata)
        assert file.tags()["method"] == "entropy" and file.tags()["n_samples"] == "32" and not file.overviews(1)
        assert (file.crs is None) == (place == "no CRS") and (file.crs is None or file.crs.to_wkt() == extent.crs)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.read_masks(1)[:5, :7] == 0).all() and (file.read_masks(1)[5:] == 255).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif"]


@pytest.mark.parametrize("place", PLACES)
def test_patches_are_polygons_of_exactly_their_pixels(place):
    extent = extent_at(place)
    scores, errors = RNG.random(13), RNG.random(13)
    index = INDEX.copy()
    index[3:9, 3:9] = -1  # nothing is held there: patch 0 is no rectangle
    index[40:, 60:] = 12
    table = patches(scores, errors, index, extent)
    assert table.patch.tolist() == list(range(13)) and np.array_equal(table.score, scores)
    for patch, shape in zip(table.patch, table.geometry, strict=True):
        mask, flags = burn(shape, extent.window_transform, index.shape)
        assert (mask == (index == patch)).all() and not flags
        assert shape.area == pytest.approx((index == patch).sum() * abs(np.linalg.det(np.array(
            extent.transform).reshape(2, 3)[:, :2])), rel=1e-6)
    assert len(table.geometry[1].exterior.coords) == 5
    assert table.crs == (extent.crs and rasterio.CRS.from_wkt(extent.crs).to_wkt())


def test_patches_that_no_pixel_has_are_no_rows_and_a_place_is_needed():
    table = patches(np.ones(14), np.ones(14), INDEX, extent_at("north-up"))
    assert table.patch.tolist() == list(range(12))
    nowhere = Extent("scene.png", "", (48, 64), (0, 48), (0, 64))
    with pytest.raises(ValueError, match=r"scene.png: does not say where on Earth it lies"):
        patches(np.ones(12), np.ones(12), INDEX, nowhere)
    with pytest.raises(ValueError, match=r"scene.png: does not say where on Earth it lies"):
        outlined([{}], INDEX == 0, nowhere)


@pytest.mark.parametrize("place", ["north-up", "south-up", "geographic"])
def test_a_data_set_finds_a_pixel_by_its_coordinates(place):
    extent = extent_at(place)
    found = map_dataset(SCORE, ERROR, extent, "bit", {"method": "entropy"})
    x, y = rasterio.Affine(*extent.transform) * (40 + 9.5, 100 + 30.5)
    assert found.sel(x=x, y=y, method="nearest")["score"].item() == SCORE[30, 9]
    assert found["standard_error"].units == "bit" and found.attrs["method"] == "entropy"
    assert tuple(found.rio.transform())[:6] == pytest.approx(extent.window_transform) and found.rio.crs is not None


def test_a_turned_data_set_and_one_without_a_place_keep_what_is_known(tmp_path):
    turned, place = map_dataset(SCORE, None, extent_at("turned")), extent_at("turned").window_transform
    assert tuple(turned.rio.transform())[:6] == pytest.approx(place) and "standard_error" not in turned
    assert "spatial_ref" not in map_dataset(SCORE, None, Extent("a.png", "", (48, 64), (0, 48), (0, 64))).coords


def test_buildings_and_patches_come_back_with_all_columns_and_styles(tmp_path):
    extent = extent_at("north-up")
    region = (INDEX == 5) | (INDEX == 6)
    rows = [{"building": "h1", "context_reliance": 0.25, "n_samples": 32, "flags": ""},
            {"building": "h2", "context_reliance": math.nan, "n_samples": 64, "flags": "on nodata"}]
    cells = patches(np.linspace(0, 0.1, 12), np.full(12, 0.01), INDEX, extent)
    write_buildings(tmp_path / "buildings.gpkg", outlined(rows, region, extent), [cells, cells])
    found = geopandas.read_file(tmp_path / "buildings.gpkg", layer="buildings")
    assert found.building.tolist() == ["h1", "h2"] and found.n_samples.tolist() == [32, 64] and found["flags"][1] == "on nodata"
    assert found.context_reliance[0] == 0.25 and math.isnan(found.context_reliance[1])
    west, north = rasterio.Affine(*NORTH_UP) * (40 + 16, 100 + 16)
    assert found.geometry[0].symmetric_difference(shapely.box(west, north - 4.8, west + 9.6, north)).area < 1e-6
    assert len(geopandas.read_file(tmp_path / "buildings.gpkg", layer="patches")) == 24
    with sqlite3.connect(tmp_path / "buildings.gpkg") as file:
        styles = dict(file.execute("SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault").fetchall())
    file.close()
    assert set(styles) == {"buildings", "patches"}
    renderer = ElementTree.fromstring(styles["buildings"]).find("renderer-v2")
    assert renderer.get("attr") == 'coalesce("context_reliance", -1.0)' and len(renderer.findall("ranges/range")) == 6
    write_buildings(tmp_path / "buildings.gpkg", outlined(rows[:1], region, extent))  # written anew, not added to
    assert len(geopandas.read_file(tmp_path / "buildings.gpkg", layer="buildings")) == 1


def test_styles_reach_from_the_lowest_to_the_highest_value():
    items = ElementTree.fromstring(map_style(-0.01, 0.08)).findall(".//item")
    assert float(items[0].get("value")) == -0.01 and float(items[-1].get("value")) == 0.08
    unknown, *ranges = ElementTree.fromstring(graduated_style("score", 0.0, 0.5)).findall(".//range")
    assert unknown.get("lower") == unknown.get("upper") == "-1.0"  # outside the others: QGIS draws no polygon of no class
    assert [float(r.get("lower")) for r in ranges[1:]] == [float(r.get("upper")) for r in ranges[:-1]]
    assert float(ranges[-1].get("upper")) == 0.5
    assert {s.get("name") for s in ElementTree.fromstring(graduated_style("score", 0.0, 0.5)).findall(".//symbol")} == set("012345")


def many(n):
    """A table of n buildings, with what tables have: whole numbers and words that are missing, truths."""
    return geopandas.GeoDataFrame({"building": [f"h{k}" for k in range(n)], "n": pd.array([None, *range(1, n)], dtype="Int64"),
                                   "flags": [None, *["on nodata"] * (n - 1)], "lossy": [True, *[False] * (n - 1)],
                                   "context_reliance": 0.5}, geometry=[shapely.box(k, 0, k + 1, 1) for k in range(n)])


@pytest.mark.parametrize("size", [5_000, 100_000, 250_000])
def test_what_the_disk_does_not_take_leaves_nothing_and_names_the_file(tmp_path, size):
    noise, extent = RNG.random((300, 300)), Extent("a.tif", "", (300, 300), (0, 300), (0, 300), *PLACES["north-up"])
    for name, write in (("map.tif", lambda path: write_map(path, noise, noise, extent)),
                        ("buildings.gpkg", lambda path: write_layers(path, {"buildings": many(3000)}))):
        with largest_file(size), pytest.raises(ValueError, match=rf"{name}: could not be written"):
            write(tmp_path / name)
        assert not list(tmp_path.iterdir())


def test_a_file_that_could_not_be_written_again_is_as_it_was(tmp_path):
    write_layers(tmp_path / "buildings.gpkg", {"buildings": many(2)})
    with largest_file(100_000), pytest.raises(ValueError, match=r"buildings\.gpkg"):
        write_layers(tmp_path / "buildings.gpkg", {"buildings": many(3000)})
    assert len(geopandas.read_file(tmp_path / "buildings.gpkg", layer="buildings")) == 2 and len(list(tmp_path.iterdir())) == 1


def test_no_place_is_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_map(tmp_path / "map.tif", SCORE, None, Extent("a.png", "", (48, 64), (0, 48), (0, 64)))
        write_buildings(tmp_path / "buildings.gpkg", many(3))


def test_columns_keep_their_kinds_and_rows_their_order(tmp_path):
    table = many(300).iloc[::-1]
    write_buildings(tmp_path / "buildings.gpkg", table, parquet=True)
    with sqlite3.connect(tmp_path / "buildings.gpkg") as file:
        kinds = {name: kind for _, name, kind, *_ in file.execute("PRAGMA table_info(buildings)")}
        rows = file.execute("SELECT building, n, flags, lossy FROM buildings ORDER BY fid").fetchall()
        version, = file.execute("PRAGMA user_version").fetchone()
    file.close()
    assert (kinds["n"], kinds["flags"], kinds["lossy"], kinds["context_reliance"]) == ("INTEGER", "TEXT", "BOOLEAN", "REAL")
    assert [row[0] for row in rows] == table.building.tolist() and rows[-1] == ("h0", None, None, 1) and rows[0][1] == 299
    assert version == 10300  # which QGIS 3.22 and later read without a doubt
    again = geopandas.read_parquet(tmp_path / "buildings.parquet")
    pd.testing.assert_frame_equal(pd.DataFrame(again.drop(columns="geometry")),
                                  pd.DataFrame(table.drop(columns="geometry")).reset_index(drop=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["buildings.gpkg", "buildings.parquet"]


@pytest.mark.parametrize("tag", ["Area", "Point"])
def test_a_map_lies_on_its_scene_where_coordinates_are_of_corners_or_middles(tmp_path, tag):
    """By the tie point as it is written in the file, read without GDAL: of the pixel's middle if it is a point."""
    transform = rasterio.Affine(0.5, 0, 691000, 0, -0.5, 5335000)
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", width=90, height=80, count=1, dtype="uint8", crs="EPSG:25832",
                       transform=transform) as file:
        file.update_tags(AREA_OR_POINT=tag)
        file.write(np.zeros((80, 90), np.uint8), 1)
    tie = read_pages(tmp_path / "scene.tif")[0].tags[33922]
    assert tie[3:5] == ((691000.25, 5334999.75) if tag == "Point" else (691000, 5335000))
    raster, window = open_raster(tmp_path / "scene.tif"), (slice(8, 56), slice(20, 84))
    write_map(tmp_path / "map.tif", SCORE, ERROR, raster.extent(window, raster.read(window)))
    tie = read_pages(tmp_path / "map.tif")[0].tags[33922]
    assert tie[3:5] == (691000 + 20 * 0.5, 5335000 - 8 * 0.5)


def test_scores_that_are_not_known_have_a_style_that_qgis_can_read(tmp_path):
    assert reach(np.array([0.2, np.nan, 0.5])) == (0.0, 0.5) and reach(np.array([-0.1, 0.3])) == (-0.1, 0.3)
    cells = patches(np.full(12, np.nan), np.full(12, np.nan), INDEX, extent_at("north-up"))
    unknown = outlined([{"context_reliance": math.nan}], INDEX == 5, extent_at("north-up"))
    write_buildings(tmp_path / "buildings.gpkg", unknown, [cells])
    with sqlite3.connect(tmp_path / "buildings.gpkg") as file:
        (style,) = file.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'patches'").fetchone()
    file.close()
    edges = [float(each.get("upper")) for each in ElementTree.fromstring(style).findall(".//range")]
    assert np.isfinite(edges).all() and edges == sorted(edges)
