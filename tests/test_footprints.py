"""Footprints: the same buildings from any format, exactly placed, burned to pixels, and outlines around pixels."""
from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio.warp
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from entropy_captum.footprints import Layer, at_point, burn, by_id, numbers_by_place, outline, read_footprints

UTM, FORMATS = "EPSG:25832", ("gpkg", "geojson", "fgb", "shp", "parquet")
NORTH_UP = (0.5, 0.0, 691000.0, 0.0, -0.5, 5335000.0)


def houses(n: int = 40, seed: int = 0, **columns) -> gpd.GeoDataFrame:
    """Squares at random places, which FlatGeobuf stores in another order."""
    places = np.random.default_rng(seed).uniform((691000, 5334000), (692000, 5335000), (n, 2))
    return gpd.GeoDataFrame({"mark": np.arange(n), **columns}, geometry=[box(x, y, x + 5, y + 4) for x, y in places], crs=UTM)


def write(frame: gpd.GeoDataFrame, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no CRS
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


BOUNDS = [None, (691200, 5334300, 691700, 5334800)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=["all", "part"])
@pytest.mark.parametrize("ids", [None, "text", "numbers"])
def test_all_formats_give_the_same_rows(tmp_path, ids, bounds):
    """The ids are those that are drawn; a plain loop says which rows meet the bounds."""
    frame, names = houses(), None
    if ids is not None:
        names = [f"b{k}" for k in range(40)] if ids == "text" else list(range(100, 140))
        frame["id"] = names
    shuffled = frame.sample(frac=1, random_state=1)
    met = [k for k in range(40) if bounds is None or frame.geometry[k].intersects(box(*bounds))]
    assert bounds is None or 5 < len(met) < 35
    tables = [read_footprints(write(f, tmp_path / f"{k}.{name}"), UTM, bounds=bounds) for name in FORMATS
              for k, f in enumerate((frame, shuffled))]
    for table in tables:
        assert sorted(table.mark) == met and list(table.building) == list(tables[0].building)
        for building, mark, shape in zip(table.building, table.mark, table.geometry, strict=True):
            assert shape.equals(frame.geometry[mark]) and (names is None or building == str(names[mark]))
        assert list(table.mark) == list(tables[0].mark)
    if names is None:
        north = sorted(range(40), key=lambda k: -frame.geometry[k].bounds[3])
        assert dict(zip(tables[0].mark, tables[0].building, strict=True)) == {k: f"n{1 + north.index(k)}" for k in met}
    else:
        assert list(tables[0].mark) == met  # sorted by id, b2 before b10


def test_flatgeobuf_does_store_another_order(tmp_path):
    assert gpd.read_file(write(houses(), tmp_path / "a.fgb")).mark.tolist() != list(range(40))


def test_numbers_by_place_go_from_north_to_south_then_west_to_east_and_rounding_does_not_count():
    boxes = np.array([[5, 0, 6, 1 + 1e-9], [0, 0, 1, 1], [0, 5, 1, 6], [np.nan] * 4, [0, 0, 0, 0], [0, 0, 2, 1]])
    assert numbers_by_place(boxes) == ["n4", "n2", "n1", "n5", "n6", "n3"]


@pytest.mark.parametrize("bounds", [(2, 0, 1, 1), (0, 1, 1, 0), (0, 0, math.nan, 1)])
def test_bounds_are_left_bottom_right_top(tmp_path, bounds):
    with pytest.raises(ValueError, match="expected bounds as left, bottom, right, top, got"):
        read_footprints(write(houses(2), tmp_path / "a.gpkg"), UTM, bounds=bounds)


def test_only_what_meets_the_bounds_is_read(tmp_path):
    for name in FORMATS[:4]:
        layer = Layer(str(write(houses(), tmp_path / f"a.{name}")), None)
        assert len(layer.rows((691200, 5334300, 691700, 5334800))) < 25 and len(layer.rows(None)) == 40


def test_an_id_column_is_taken_by_name_a_geopackage_has_its_own(tmp_path):
    frame = houses(4, osm=["w1", "w2", "w10", "w3"])
    path = write(frame, tmp_path / "a.gpkg")
    assert list(read_footprints(path, UTM, id_column="osm").building) == ["w1", "w2", "w3", "w10"]
    assert list(read_footprints(path, UTM, id_column="fid").building) == ["1", "2", "3", "4"]
    with pytest.raises(ValueError, match=r"a\.gpkg: has no column 'nr' of ids; known are mark, osm"):
        read_footprints(path, UTM, id_column="nr")
    with pytest.raises(ValueError, match="no column 'fid'"):
        read_footprints(write(frame, tmp_path / "a.geojson"), UTM, id_column="fid")


@pytest.mark.parametrize("name", FORMATS)
def test_ids_that_are_not_unique_are_an_error_where_asked_for(tmp_path, name):
    frame = houses(5, id=["a", "b", "a", "c", "b"])
    path = write(frame, tmp_path / f"twice.{name}")
    with pytest.raises(ValueError, match=rf"twice\.{name}: the column 'id' has 2 ids more than once: a, b"):
        read_footprints(path, UTM, id_column="id", bounds=frame.geometry[3].bounds)  # where the window has none of them, too
    assert sorted(read_footprints(path, UTM).building) == ["n1", "n2", "n3", "n4", "n5"]
    missing = write(houses(3, id=["a", None, "c"]), tmp_path / f"missing.{name}")
    with pytest.raises(ValueError, match="'id' has no id in 1 rows"):
        read_footprints(missing, UTM, id_column="id")
    assert sorted(read_footprints(missing, UTM).building) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("name", FORMATS)
def test_whole_numbers_are_no_decimals(tmp_path, name):
    frame = houses(3, nr=np.array([7.0, 8.0, 9.0]))
    assert list(read_footprints(write(frame, tmp_path / f"a.{name}"), UTM, id_column="nr").building) == ["7", "8", "9"]


def utm_32(longitude: float, latitude: float) -> tuple[float, float]:
    """UTM zone 32 north on GRS 80 by Krüger's series, to the fourth order: a millimetre at most near the zone."""
    a, f = 6378137.0, 1 / 298.257222101
    n = f / (2 - f)
    radius = a / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    series = (n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16, 13 * n**2 / 48 - 3 * n**3 / 5, 61 * n**3 / 240)
    phi, lam = math.radians(latitude), math.radians(longitude - 9)
    s = 2 * math.sqrt(n) / (1 + n)
    t = math.sinh(math.atanh(math.sin(phi)) - s * math.atanh(s * math.sin(phi)))
    xi, eta = math.atan2(t, math.cos(lam)), math.atanh(math.sin(lam) / math.hypot(1, t))
    north = xi + sum(c * math.sin(2 * j * xi) * math.cosh(2 * j * eta) for j, c in enumerate(series, 1))
    east = eta + sum(c * math.cos(2 * j * xi) * math.sinh(2 * j * eta) for j, c in enumerate(series, 1))
    return 500000 + 0.9996 * radius * east, 0.9996 * radius * north


@pytest.mark.parametrize("name", FORMATS)
def test_another_crs_is_transformed_exactly(tmp_path, name):
    """Against Krüger's formula, and against GDAL's own PROJ, which is not pyproj's."""
    corners = [(11.5701, 48.1402), (11.5704, 48.1402), (11.5703, 48.1406)]
    path = write(gpd.GeoDataFrame({"id": ["x"]}, geometry=[Polygon(corners)], crs=4258), tmp_path / f"a.{name}")
    made = read_footprints(path, UTM).geometry[0]
    found = {tuple(xy) for xy in shapely.get_coordinates(made).tolist()}
    gdal = list(zip(*rasterio.warp.transform("EPSG:4258", UTM, *zip(*corners, strict=True)), strict=True))
    for corner, other in zip(corners, gdal, strict=True):
        nearest = min(found, key=lambda xy: math.dist(xy, other))
        assert math.dist(nearest, utm_32(*corner)) < 1e-3 and math.dist(nearest, other) < 1e-6
    around = read_footprints(path, rasterio.crs.CRS.from_epsg(25832).to_wkt(), bounds=made.buffer(1).bounds)
    assert len(around) == 1 and around.crs.to_epsg() == 25832
    assert not len(read_footprints(path, UTM, bounds=shapely.transform(made, lambda xy: xy + 500).bounds))


def test_a_raster_in_degrees_takes_footprints_in_metres(tmp_path):
    path = write(houses(), tmp_path / "a.gpkg")
    back = read_footprints(path, "EPSG:4326", bounds=(11.57, 48.13, 11.59, 48.15))
    whole = read_footprints(path, "EPSG:4326")
    west, south, east, north = whole.geometry.bounds.to_numpy().T
    assert set(back.building) == set(whole.building[(east >= 11.57) & (west <= 11.59) & (north >= 48.13) & (south <= 48.15)])
    assert len(back) > 0
    for shape, mark in zip(back.geometry, back.mark, strict=True):
        x, y = np.array([utm_32(*xy) for xy in shapely.get_coordinates(shape)]).mean(0) - shapely.get_coordinates(
            houses().geometry[mark]).mean(0)
        assert math.hypot(x, y) < 1e-3


def test_a_raster_crs_that_is_none_is_not_the_footprints_fault(tmp_path):
    with pytest.raises(ValueError, match=r"^the CRS 'EPSG:0': not a coordinate reference system"):
        read_footprints(write(houses(2), tmp_path / "a.gpkg"), "EPSG:0")


def test_heights_of_a_crs_and_of_corners_do_not_count(tmp_path):
    frame = gpd.GeoDataFrame({"id": [1]}, geometry=[Polygon([(0, 0, 5), (9, 0, 5), (9, 9, 5)])], crs=UTM)
    found = read_footprints(write(frame, tmp_path / "a.gpkg"), "EPSG:25832+5783")
    made = found.geometry[0]
    assert found.crs.to_epsg() == 25832 and not made.has_z and made.equals(shapely.force_2d(frame.geometry[0]))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "geojson"])
def test_a_crs_that_is_missing_on_one_side_is_an_error(tmp_path, name):
    without = write(houses(4).set_crs(None, allow_override=True), tmp_path / f"without.{name}")
    with pytest.raises(ValueError, match=rf"without\.{name}: does not say in which CRS it is, and the raster is in ETRS89 / UTM"):
        read_footprints(without, UTM)
    with pytest.raises(ValueError, match=r"is in ETRS89 / UTM zone 32N, and the raster does not say in which CRS it is"):
        read_footprints(write(houses(4), tmp_path / f"with.{name}"), None)
    both = read_footprints(without, None, bounds=houses(4).geometry[0].bounds)
    assert both.crs is None and both.geometry[0].equals(houses(4).geometry[0])


def test_a_geojson_that_says_nothing_is_in_wgs84(tmp_path):
    path = write(houses(4).set_crs(None, allow_override=True), tmp_path / "without.geojson")
    with pytest.raises(ValueError, match="is in WGS 84, and the raster does not say"):
        read_footprints(path, None)


@pytest.mark.parametrize(("crs", "at", "words"), [
    (31468, (4468000, 5334000), r"Gauss-Kruger zone 4 .* off by 1 m: the best transformation needs de_adv_BETA2007"),
    (4277, (-1, 52), "off by an unknown distance: the best transformation needs uk_os_OSTN15"),
    (4267, (-100, 20), "from NAD27 .* off by 12 m: nothing better is known")])
def test_a_coarse_transformation_is_told(tmp_path, crs, at, words):
    """Of what holds where the footprints lie: from NAD 27 there are better ones for the north of America than for Mexico."""
    frame = gpd.GeoDataFrame({"id": [1]}, geometry=[box(*at, at[0] + 1e-3, at[1] + 1e-3)], crs=crs)
    with pytest.warns(UserWarning, match=words) as told:
        read_footprints(write(frame, tmp_path / "a.gpkg"), "EPSG:4258" if crs == 4277 else UTM if crs == 31468 else "EPSG:4326")
    assert told[0].filename == __file__


def test_a_fine_transformation_is_no_news(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for crs in (4326, 4258, 3857, 32632, 25833):
            read_footprints(write(houses(3).to_crs(crs), tmp_path / f"{crs}.gpkg"), UTM)


def test_what_cannot_be_transformed_is_kept_and_marked(tmp_path):
    frame = gpd.GeoDataFrame({"id": [1, 2]}, geometry=[box(100, 89, 200, 95), box(9, 48, 9.001, 48.001)], crs=4326)
    made = read_footprints(write(frame, tmp_path / "a.gpkg"), UTM)
    assert list(made["flags"]) == ["beyond the CRS", ""] and made.geometry[0].is_empty


ODD = {"bow": Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]), "overlap": MultiPolygon([box(20, 0, 23, 3), box(21, 1, 24, 4)]),
       "two": MultiPolygon([box(30, 0, 32, 2), box(34, 0, 36, 2)]), "one": MultiPolygon([box(40, 0, 42, 2)]), "none": None,
       "empty": Polygon(), "point": Point(50, 0), "line": LineString([(60, 0), (61, 1)]),
       "mixed": GeometryCollection([Point(0, 0), box(70, 0, 71, 1)]), "ring": Polygon([(80, 0), (84, 0), (84, 4), (80, 4)], [
           [(81, 1), (83, 1), (83, 3), (81, 3)]])}
SAID = {"bow": ("repaired;multipart", 50), "overlap": ("repaired", 14), "two": ("multipart", 8), "one": ("", 4),
        "none": ("empty", 0), "empty": ("empty", 0), "point": ("no polygon", 0), "line": ("no polygon", 0),
        "mixed": ("", 1), "ring": ("", 12)}


@pytest.mark.parametrize("name", ["gpkg", "geojson", "parquet", "shp", "fgb"])
def test_odd_geometries_are_kept_mended_and_marked(tmp_path, name):
    """Areas by hand. A Shapefile holds polygons alone; FlatGeobuf refuses rows without a geometry."""
    left_out = {"shp": {"point", "line", "mixed"}, "fgb": {"none", "empty"}}.get(name, set())
    shapes = {key: shape for key, shape in ODD.items() if key not in left_out}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(gpd.GeoDataFrame({"id": list(shapes)}, geometry=list(shapes.values()), crs=UTM), tmp_path / f"a.{name}")
    made = read_footprints(path, UTM)
    assert sorted(made.building) == sorted(shapes) and set(made.geom_type) <= {"Polygon", "MultiPolygon"} and made.is_valid.all()
    for row in made.itertuples():
        assert (row.flags, pytest.approx(row.geometry.area)) == SAID[row.building], row.building


@pytest.mark.parametrize("name", ["gpkg", "geojson", "fgb", "shp", "parquet"])
def test_a_file_without_a_polygon_is_one_clear_sentence(tmp_path, name):
    path = write(gpd.GeoDataFrame({"id": [1, 2]}, geometry=[Point(0, 0), Point(1, 1)], crs=UTM), tmp_path / f"points.{name}")
    with pytest.raises(ValueError, match=rf"points\.{name}: holds no polygon"):
        read_footprints(path, UTM)


def test_layers_are_chosen_by_name_tables_and_points_do_not_count(tmp_path):
    path = write(houses(3), tmp_path / "a.gpkg")
    gpd.GeoDataFrame({"a": [1]}, geometry=[Point(0, 0)], crs=UTM).to_file(path, layer="trees")
    pyogrio.write_dataframe(gpd.pd.DataFrame({"style": ["red"]}), path, layer="layer_styles")
    assert len(read_footprints(path, UTM)) == 3
    houses(5).to_file(path, layer="new")
    with pytest.raises(ValueError, match=r"a\.gpkg: holds several layers, say.*a \(Polygon\), trees \(Point\), new"):
        read_footprints(path, UTM)
    assert len(read_footprints(path, UTM, layer="new")) == 5
    with pytest.raises(ValueError, match="has no layer 'old'; known are a, trees"):
        read_footprints(path, UTM, layer="old")


def test_columns_of_the_file_stay_beside_ours(tmp_path):
    path = write(houses(2, building=["yes", "church"], flags=[1, 2], height=[3.5, None]), tmp_path / "osm.gpkg")
    made = read_footprints(path, UTM).sort_values("mark")
    assert list(made.columns) == ["building", "mark", "building_in_file", "flags_in_file", "height", "flags", "geometry"]
    assert list(made.building_in_file) == ["yes", "church"] and set(made.building) == {"n1", "n2"}


def test_a_geoparquet_may_have_another_geometry_and_a_named_index(tmp_path):
    frame = houses(3).rename_geometry("outline").set_index(gpd.pd.Index(["a", "b", "c"], name="id"))
    frame["door"] = frame.geometry.centroid
    made = read_footprints(write(frame, tmp_path / "a.parquet"), UTM)
    assert list(made.columns) == ["building", "id", "mark", "flags", "geometry"] and list(made.building) == ["a", "b", "c"]
    assert made.geometry.geom_equals(houses(3).geometry).all()


@pytest.mark.parametrize("path", ["/vsicurl/http://nowhere/a.gpkg", "https://nowhere/a.geojson", "s3://bucket/a.parquet",
                                  "PG:dbname=city", "MYSQL:city", "/vsizip/a.zip/a.gpkg", "zip://a.zip!a.gpkg",
                                  '{"type": "Feature"}'])
def test_what_is_elsewhere_is_not_opened(path, monkeypatch):
    monkeypatch.setattr("pyogrio.read_info", lambda *a, **k: pytest.fail("opened"))
    monkeypatch.setattr("pyogrio.list_layers", lambda *a, **k: pytest.fail("opened"))
    with pytest.raises(ValueError, match="is no file on this machine; if it is to be fetched, say so") as said:
        read_footprints(path, UTM)
    assert path in str(said.value)


def test_what_is_elsewhere_is_opened_when_asked_for(tmp_path):
    write(houses(3), tmp_path / "a.geojson")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.geojson", "a.geojson")
    assert len(read_footprints(f"/vsizip/{tmp_path}/a.zip/a.geojson", UTM, remote=True)) == 3
    with pytest.raises(ValueError, match=r"nothing\.zip"):
        read_footprints(f"/vsizip/{tmp_path}/nothing.zip/a.geojson", UTM, remote=True)


def test_a_small_file_that_sends_gdal_elsewhere_is_no_footprints(tmp_path):
    (tmp_path / "a.gpkg").write_text('<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/http://nowhere/a.gpkg'
                                     "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>")
    with pytest.raises(ValueError, match=r"a\.gpkg: begins with b'<OGRVRTD'; expected a GeoPackage"):
        read_footprints(tmp_path / "a.gpkg", UTM)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_named(tmp_path, name, share):
    path = write(houses(60, id=range(60)), tmp_path / f"cut.{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cut\.{name}: "):
        read_footprints(path, UTM)


def test_what_is_not_there_or_no_file_of_outlines_is_named(tmp_path):
    table = write(houses(2), tmp_path / "a.shp").with_suffix(".dbf")
    for path in (tmp_path / "nothing.gpkg", tmp_path, table):
        with pytest.raises(ValueError, match=rf"^{path}: .*expected a GeoPackage"):
            read_footprints(path, UTM)
    gpd.pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match=r"plain\.parquet: cannot be read"):
        read_footprints(tmp_path / "plain.parquet", UTM)
    with pytest.raises(ValueError, match="has a ! in its name"):
        read_footprints(tmp_path / "old!a.shp", UTM)


def test_a_building_is_found_by_its_place(tmp_path):
    frame = gpd.GeoDataFrame({"id": ["block", "yard", "far", "gone"]}, geometry=[box(0, 0, 100, 100), box(40, 40, 60, 60), box(
        200, 0, 230, 50), None], crs=UTM)
    found = read_footprints(write(frame, tmp_path / "a.gpkg"), UTM)
    assert at_point(found, 10, 10).building == "block" and at_point(found, 50, 50).building == "yard"
    assert at_point(found, 230, 50).building == "far"
    with pytest.raises(ValueError, match=r"no building at \(160, 30\); the nearest is 'far', 40\.0 m away"):
        at_point(found, 160, 30)
    with pytest.raises(ValueError, match=r"no building at \(nan, 30\)"):
        at_point(found, math.nan, 30)
    with pytest.raises(ValueError, match="nor anywhere else"):
        at_point(found[:0], 1, 1)


def test_the_nearest_is_told_in_metres_also_in_degrees_and_feet():
    """East by 0.0015 degrees is nearer than north by 0.001 at 60 degrees; a degree of latitude has 111.4 km there."""
    shapes = [box(10.0015, 60, 10.002, 60.0001), box(10, 60.001, 10.0001, 60.0015)]
    degrees = gpd.GeoDataFrame({"building": ["east", "north"]}, geometry=shapes, crs=4326)
    with pytest.raises(ValueError, match=r"the nearest is 'east', 83\.\d m away"):
        at_point(degrees, 10, 60)
    feet = gpd.GeoDataFrame({"building": ["a"]}, geometry=[box(1000, 0, 1100, 100)], crs=2263)
    with pytest.raises(ValueError, match=r"'a', 30\.5 m away"):
        at_point(feet, 900, 50)
    nowhere = gpd.GeoDataFrame({"building": ["a"]}, geometry=[box(1000, 0, 1100, 100)])
    with pytest.raises(ValueError, match=r"'a', 100 away, in the units of its coordinates"):
        at_point(nowhere, 900, 50)


def test_a_building_is_found_by_its_id():
    found = gpd.GeoDataFrame({"building": ["7", "house12", "house13"]}, geometry=[box(k, 0, k + 1, 1) for k in range(3)])
    assert by_id(found, 7).building == "7" and by_id(found, "house13").geometry.equals(found.geometry[2])
    with pytest.raises(ValueError, match=r"no building 'house21'; alike are house1.*; known are 7, house12, house13"):
        by_id(found, "house21")
    with pytest.raises(ValueError, match="nor any other"):
        by_id(found[:0], "x")


def test_numbers_by_place_are_not_offered_for_an_id_of_the_file(tmp_path):
    """What looks like the id would be another building: the third of a file need not be the third from the north."""
    shapes = [shapely.box(0, 10 * k, 5, 10 * k + 5) for k in range(3)]
    frame = gpd.GeoDataFrame({"number": ["a1", "a2", "a3"]}, geometry=shapes, crs=25832)
    frame.to_file(tmp_path / "houses.gpkg")
    found = read_footprints(tmp_path / "houses.gpkg", "EPSG:25832", bounds=(0, 0, 100, 100))
    assert found.building.tolist() == ["n1", "n2", "n3"] and found["number"].tolist() == ["a3", "a2", "a1"]
    for asked in ("a2", "3"):
        with pytest.raises(ValueError, match=rf"no building '{asked}': .*houses.gpkg has no column `id` .* numbered by place, n1 "
                                             r"the northernmost; its columns are number; .*--id-column.*; known are n1, n2, n3"):
            by_id(found, asked)
    named = read_footprints(tmp_path / "houses.gpkg", "EPSG:25832", id_column="number")
    assert by_id(named, "a2").geometry.equals(shapes[1])
    with pytest.raises(ValueError, match="no building 'a22'; alike are a2"):
        by_id(named, "a22")


def test_a_file_that_lies_elsewhere_says_where(tmp_path):
    frame = gpd.GeoDataFrame({"id": [1, 2]}, geometry=[shapely.box(0, 0, 5, 5), shapely.box(20, 10, 30, 40)], crs=25832)
    frame.to_file(tmp_path / "far.gpkg")
    found = read_footprints(tmp_path / "far.gpkg", "EPSG:25832", bounds=(900, 900, 1000, 1000))
    words = "far.gpkg reach from (0, 0) to (30, 40) in ETRS89 / UTM zone 32N: is that its CRS?"
    assert not len(found) and found.attrs["reach"].endswith(words)


angles, scales = st.floats(0, 360), st.sampled_from([1e-6, 0.3, 1.0, 30.0])


@st.composite
def transforms(draw):
    """North-up, south-up, turned and sheared, of pixels that are square or not, anywhere."""
    turn, scale = math.radians(draw(st.sampled_from([0.0, 90.0]) | angles)), draw(scales)
    a, b, d, e = math.cos(turn), -math.sin(turn) * draw(st.sampled_from([1.0, 1.5])), math.sin(turn), math.cos(turn)
    sign = draw(st.sampled_from([1, -1]))
    at = draw(st.sampled_from([(0.0, 0.0), (691000.0, 5335000.0)])) if scale > 1e-3 else (11.5, 48.1)
    return (a * scale, b * scale * sign, at[0], d * scale, e * scale * sign, at[1])


def world(transform, points):
    a, b, c, d, e, f = transform
    return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]


star = st.lists(st.floats(0.3, 9.0), min_size=3, max_size=9)


@settings(deadline=None, max_examples=80)
@given(transforms(), star, st.floats(-4, 14), st.floats(-4, 12), st.booleans())
def test_burning_takes_the_pixels_whose_centres_lie_inside(transform, radii, x, y, holed):
    """Against a loop over the centres, in the raster's coordinates; centres within rounding of an edge may go either way."""
    height, width = 8, 10
    turns = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    ring = [(x + r * math.cos(t), y + r * math.sin(t)) for r, t in zip(radii, turns, strict=True)]
    inner = [[(x + r * 0.4 * math.cos(t), y + r * 0.4 * math.sin(t)) for r, t in zip(radii, turns, strict=True)]] if holed else []
    shape = Polygon(world(transform, ring), [world(transform, hole) for hole in inner])
    mask, flags = burn(shape, transform, (height, width))
    scale = math.hypot(transform[0], transform[3])
    inside, edge = np.zeros((2, height, width), bool)
    for row in range(height):
        for column in range(width):
            centre = Point(world(transform, [(column + 0.5, row + 0.5)])[0])
            inside[row, column] = shape.contains(centre)
            edge[row, column] = shape.boundary.distance(centre) < 1e-6 * scale
    if (inside & ~edge).any():
        assert np.array_equal(mask | edge, inside | edge)
    elif not edge.any():
        assert not mask.any() or "smaller than a pixel" in flags
    window = Polygon(world(transform, [(0, 0), (width, 0), (width, height), (0, height)]))
    if mask.any():
        over = shape.difference(window).area / scale**2
        assert "across the border" in flags or over < 1e-4
        assert "across the border" not in flags or not window.covers(shape)


@settings(deadline=None, max_examples=80)
@given(transforms(), st.floats(0.01, 9.9), st.floats(0.01, 7.9), st.floats(1e-3, 6), st.floats(1e-3, 0.3), angles)
def test_what_holds_no_centre_is_the_pixels_that_it_touches(transform, x, y, length, width, turn):
    """A thin wall at any angle, against a loop over the pixels."""
    t = math.radians(turn)
    along, across = (length * math.cos(t), length * math.sin(t)), (-width * math.sin(t), width * math.cos(t))
    corners = [(x + i * along[0] + j * across[0], y + i * along[1] + j * across[1]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    mask, flags = burn(Polygon(world(transform, corners)), transform, (8, 10))
    if "smaller than a pixel" not in flags:
        return
    thin = Polygon(corners)
    for row in range(8):
        for column in range(10):
            shared = thin.intersection(box(column, row, column + 1, row + 1)).area
            assert mask[row, column] == (shared > 0) or shared < 1e-12


def test_a_pixel_that_is_only_bordered_on_is_not_touched():
    """A triangle whose long side goes through the corner of a pixel."""
    mask, flags = burn(Polygon(world(NORTH_UP, [(1.75, 3.25), (2.25, 2.75), (2.25, 3.25)])), NORTH_UP, (8, 10))
    assert np.argwhere(mask).tolist() == [[2, 2], [3, 1], [3, 2]] and flags == ("smaller than a pixel",)


def test_small_ones_are_found_wherever_they_lie():
    for x, y in np.random.default_rng(0).uniform(0.05, (9.9, 7.9), (200, 2)):
        shape = Polygon(world(NORTH_UP, [(x, y), (x + 0.04, y), (x + 0.04, y + 0.04), (x, y + 0.04)]))
        mask, flags = burn(shape, NORTH_UP, (8, 10))
        assert mask[int(y + 0.02), int(x + 0.02)] and mask.sum() <= 4
        assert flags == ("smaller than a pixel",) or (mask.sum() == 1 and not flags)


@pytest.mark.parametrize("e", [-0.5, 0.5], ids=["north-up", "south-up"])
def test_flags_of_place(e):
    transform = (0.5, 0.0, 100.0, 0.0, e, 200.0)
    def at(left, top, right, bottom):
        return Polygon(world(transform, [(left, top), (right, top), (right, bottom), (left, bottom)]))
    whole, flags = burn(at(0, 0, 10, 8), transform, (8, 10))
    assert whole.all() and not flags
    mask, flags = burn(at(-3, 2, 4, 5), transform, (8, 10))
    assert flags == ("across the border",) and mask.sum() == 12 and mask[2:5, :4].all()
    mask, flags = burn(at(9.8, 2, 30, 5), transform, (8, 10))  # a strip without a centre, of what is large
    assert flags == ("outside",) and not mask.any()
    mask, flags = burn(at(9.9, 2.1, 10.1, 2.3), transform, (8, 10))
    assert flags == ("across the border", "smaller than a pixel") and mask.sum() == 1 and mask[2, 9]
    assert burn(at(10, 0, 12, 3), transform, (8, 10))[1] == ("outside",)
    assert burn(at(50, 0, 52, 3), transform, (8, 10))[1] == ("outside",)
    far = burn(at(-1e10, -1e10, 1e10, 1e10), transform, (8, 10))
    assert far[0].all() and far[1] == ("across the border",)
    apart = burn(MultiPolygon([at(1, 1, 3, 3), at(70, 1, 73, 3)]), transform, (8, 10))
    assert apart[0].sum() == 4 and apart[1] == ("across the border",)


def test_pixels_without_data_are_left_out_and_that_is_said():
    shape, valid = Polygon(world(NORTH_UP, [(1, 1), (5, 1), (5, 5), (1, 5)])), np.ones((8, 10), bool)
    valid[7] = False
    assert burn(shape, NORTH_UP, (8, 10), valid) [1] == ()
    valid[:3] = False
    mask, flags = burn(shape, NORTH_UP, (8, 10), valid)
    assert flags == ("on nodata",) and mask.sum() == 8 and not (mask & ~valid).any()
    assert burn(shape, NORTH_UP, (8, 10), np.zeros((8, 10), bool))[1] == ("on nodata",)
    with pytest.raises(ValueError, match=r"valid has the shape \(3, 3\), but the window \(8, 10\)"):
        burn(shape, NORTH_UP, (8, 10), np.ones((3, 3), bool))


def test_no_geometry_and_no_transform():
    assert burn(None, NORTH_UP, (4, 4))[1] == ("empty",) and burn(Point(0, 0), NORTH_UP, (4, 4))[1] == ("no polygon",)
    with pytest.raises(ValueError, match="pixels without an area"):
        burn(box(0, 0, 1, 1), (1.0, 1.0, 0.0, 1.0, 1.0, 0.0), (4, 4))


def test_neighbours_share_no_pixel_and_leave_none_out():
    """Edges that go through centres: each centre belongs to one of the two."""
    left, right = box(0.0, 0.0, 2.5, 4.0), box(2.5, 0.0, 5.0, 4.0)
    burnt = [burn(shape, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (4, 5))[0] for shape in (left, right)]
    assert (burnt[0] ^ burnt[1]).all()


masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans())


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(masks, transforms())
def test_an_outline_burned_again_is_the_mask(mask, transform):
    """For each object of 8 neighbours; the area, holes and parts are counted by scipy."""
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    for k in range(1, n + 1):
        one = labels == k
        shape = outline(one, transform)
        a, b, _, d, e, _ = transform
        assert shape.is_valid and shape.area == pytest.approx(one.sum() * abs(a * e - b * d), rel=1e-6)
        parts = getattr(shape, "geoms", [shape])
        assert len(parts) == ndimage.label(one)[1]  # parts share corners at most
        again, flags = burn(shape, transform, mask.shape)
        assert np.array_equal(again, one) and not flags


def test_an_outline_has_no_corner_that_is_none():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 2:7] = True
    assert len(shapely.get_coordinates(outline(mask, NORTH_UP))) == 5
    mask[3, 3] = False
    assert shapely.get_num_interior_rings(outline(mask, NORTH_UP)) == 1
    assert outline(np.zeros((3, 3), bool), NORTH_UP).is_empty


def test_an_outline_is_of_one_object():
    ids = np.zeros((4, 4), np.int64)
    ids[1], ids[3] = 1, 2
    with pytest.raises(ValueError, match=r"got int64 of shape \(4, 4\) with values from 0 to 2: take ids == 2"):
        outline(ids, NORTH_UP)
    assert outline(np.where(ids == 2, 1, 0), NORTH_UP).equals(outline(ids == 2, NORTH_UP))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        outline(np.zeros((2, 4, 4), bool), NORTH_UP)
