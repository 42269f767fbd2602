"""Rasters of any size, numbers and bands: windows, holes, places, and what is refused."""
import pickle
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_gcps
from rasterio.warp import transform as warp_points

from entropy_captum.card import RGB8
from entropy_captum.drawn import procedural_scene
from entropy_captum.files import read_image
from entropy_captum.raster import open_raster, pixel_metres, stretched, to_pixel, to_world
from entropy_captum.request import ImageFile, picture_of

NORTH_UP = rasterio.Affine(0.3, 0, 691000, 0, -0.3, 5335000)
WHOLE = (slice(0, 40), slice(0, 50))


def stack(dtype="uint16", bands=4):
    """Numbers (H,W,C) that all differ, as far as the kind can hold."""
    values = np.arange(40 * 50 * bands).reshape(40, 50, bands)
    return (values % np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else values).astype(dtype)


@pytest.fixture
def write(tmp_path):
    def write(values, name="scene.tif", descriptions=(), tags=(), **options):
        options = {"driver": "GTiff", "crs": "EPSG:25832", "transform": NORTH_UP} | options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(tmp_path / name, "w", height=values.shape[0], width=values.shape[1], count=values.shape[2],
                               dtype=values.dtype, **options) as file:
                file.write(np.moveaxis(values, -1, 0))
                if descriptions:
                    file.descriptions = descriptions
                for band, entries in tags:
                    file.update_tags(band, **entries)
        return tmp_path / name

    return write


@contextmanager
def says(words):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    assert (not said and not words) or any(words and words in str(one.message) for one in said), [str(s.message) for s in said]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_a_window_holds_the_numbers_of_the_file(write, dtype):
    values = stack(dtype)
    path = write(values, tiled=True, blockxsize=16, blockysize=16, photometric="MINISBLACK")
    found = open_raster(path).read((slice(3, 21), slice(30, 50)))
    assert found.valid is None and found.values.dtype == values.dtype and (found.values == values[3:21, 30:50]).all()


def test_a_window_that_is_not_inside_is_refused_not_cut(write):
    raster = open_raster(write(stack()))
    for window in ((slice(0, 41), slice(0, 10)), (slice(-1, 10), slice(0, 10)), (slice(5, 5), slice(0, 10))):
        with pytest.raises(ValueError, match="are not inside 50 x 40 pixels"):
            raster.read(window)


def test_bands_are_chosen_by_number_or_name_in_any_order(write):
    values = stack()
    path = write(values, descriptions=("blue", "green", "red", "nir"))
    assert [band.name for band in open_raster(path).bands] == ["blue", "green", "red", "nir"]
    assert (open_raster(path, ["red", 2, "BLUE"]).read(WHOLE).values == values[..., [2, 1, 0]]).all()
    for chosen in (["swir"], [5], [0], []):
        with pytest.raises(ValueError, match="it has 1 blue, 2 green, 3 red, 4 nir"):
            open_raster(path, chosen)


def test_names_come_from_colours_where_no_description_says_them_and_twins_are_told_apart(write):
    assert [b.name for b in open_raster(write(stack("uint8", 3), photometric="RGB")).bands] == ["red", "green", "blue"]
    assert [b.name for b in open_raster(write(stack(), "plain.tif")).bands] == ["band 1", "band 2", "band 3", "band 4"]
    twins = open_raster(write(stack(), "twins.tif", descriptions=("a", "b", "a", "c")))
    assert [b.name for b in twins.bands] == ["a (1)", "b", "a (3)", "c"]


def test_wavelengths_are_read_as_gdal_and_as_envi_write_them(write, tmp_path):
    path = write(stack(bands=2))
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="0.4925")
        file.update_tags(2, wavelength="0.842", wavelength_units="Micrometers")
    assert [b.wavelength for b in open_raster(path).bands] == [492.5, 842.0]
    envi = write(stack(bands=2), "cube.img", driver="ENVI")
    header = envi.with_suffix(".hdr")
    header.write_text(header.read_text() + "wavelength units = Nanometers\nwavelength = {665.0, 842.0}\n")
    assert [b.wavelength for b in open_raster(envi).bands] == [665.0, 842.0]
    assert [b.wavelength for b in open_raster(write(stack(bands=1), "bare.tif", tags=[(1, {"wavelength": "665"})])).bands] == [None]


@pytest.mark.parametrize(("dtype", "nodata", "hole", "row"), [
    ("uint8", 0, (0, 0, 0), "nothing"), ("uint8", 0, (9, 0, 0), "reading"), ("uint8", 255, (255, 255, 9), "reading"),
    ("uint16", 0, (0, 7, 7), "reading"), ("uint16", 65535, (65535, 7, 7), "nothing"), ("int16", -9999, (5, -9999, 5), "nothing"),
    ("int16", 0, (0, 5, 5), "nothing"), ("float32", -9999, (-9999, 0.1, 0.2), "nothing"),
    ("float32", float("nan"), (0.1, float("nan"), 0.2), "nothing"), ("float32", None, (0.1, float("inf"), 0.2), "nothing")])
def test_a_nodata_number_marks_pixels_unless_it_may_be_a_reading(write, dtype, nodata, hole, row):
    values = np.full((40, 50, 3), 3, dtype)
    values[4, 5] = hole
    valid = open_raster(write(values, nodata=nodata)).read(WHOLE).valid
    expected = np.ones((40, 50), bool)
    expected[4, 5] = False
    assert valid is None if row == "reading" else (valid == expected).all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_in_the_file_or_beside_it_marks_pixels(write, tmp_path, inside):
    path, held = write(stack("uint8", 3)), np.ones((40, 50), bool)
    held[:7, :9] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
        file.write_mask(held)
    assert (tmp_path / "scene.tif.msk").exists() != inside
    assert (open_raster(path).read(WHOLE).valid == held).all()
    assert (open_raster(path).read((slice(5, 15), slice(5, 15))).valid == held[5:15, 5:15]).all()


def test_alpha_marks_pixels_unless_it_is_chosen_as_a_band(write):
    values = stack("uint8", 4)
    values[..., 3] = 255
    values[:5, :6, 3] = 0
    path = write(values, photometric="RGB", alpha="YES")
    raster = open_raster(path)
    assert [b.name for b in raster.bands] == ["red", "green", "blue"]
    held = raster.read(WHOLE)
    assert (held.values == values[..., :3]).all() and (held.valid == (values[..., 3] > 0)).all()
    four = open_raster(path, [1, 2, 3, 4]).read(WHOLE)
    assert (four.values == values).all() and four.valid is None


def test_an_alpha_that_looks_like_infrared_is_refused_by_every_door(write):
    values = stack("uint8", 4)
    path = write(values, photometric="RGB", alpha="YES")
    doors = (lambda: open_raster(path).read(WHOLE), lambda: open_raster(path).overview(), lambda: read_image(path),
             lambda: picture_of(path, RGB8).read(None), lambda: ImageFile(path).read(None))
    said = set()
    for door in doors:
        with pytest.raises(ValueError, match=r"scene\.tif: its band 4, called alpha, .*infrared.*--bands.*-b 1 -b 2 -b 3") as told:
            door()
        said.add(str(told.value))
    assert len(said) == 1, "in one way"
    assert (open_raster(path, [1, 2, 3, 4]).read(WHOLE).values == values).all()
    values[..., 3] = np.where(values[..., 3] > 100, 255, 0)
    with says(""):
        open_raster(write(values, "clear.tif", photometric="RGB", alpha="YES")).read(WHOLE)


def test_scale_and_offset_are_applied_unless_the_stored_numbers_are_wanted(write):
    values = stack(bands=2)
    values[0, 0] = 0
    path = write(values, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    found, stored = open_raster(path).read(WHOLE), open_raster(path, stored=True).read(WHOLE)
    np.testing.assert_allclose(found.values, values * 1e-4 - 0.1, atol=1e-6)
    assert found.values.dtype == np.float32 and (stored.values == values).all()
    assert not found.valid[0, 0] and found.valid.sum() == 1999 and (found.valid == stored.valid).all()


def test_a_palette_is_looked_up(write):
    values = (stack("uint8", 1) % 2).astype(np.uint8)
    path = write(values, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 50, 255)})
    found = open_raster(path).read(WHOLE)
    assert (found.values == np.array([(10, 20, 30), (200, 100, 50)], np.uint8)[values[..., 0]]).all() and found.valid is None


def test_overviews_are_never_read_for_a_window_and_always_small_to_look_at(write):
    values = stack("uint8", 3)
    path = write(values)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    raster = open_raster(path)
    assert (raster.read(WHOLE).values == values).all()
    assert raster.overview(10).values.shape == (8, 10, 3) and raster.overview().values.shape == values.shape


def test_a_mosaic_of_files_is_one_raster(write, tmp_path):
    values = stack("uint8", 3)
    for name, rows, columns in (("a", slice(0, 20), slice(0, 25)), ("b", slice(0, 20), slice(25, 50)),
                                ("c", slice(20, 40), slice(0, 25)), ("d", slice(20, 40), slice(25, 50))):
        write(values[rows, columns], f"{name}.tif", transform=NORTH_UP * rasterio.Affine.translation(columns.start, rows.start))
    from rasterio.shutil import copy
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{band}">' + "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="25" ySize="20"/><DstRect xOff="{x}" yOff="{y}" xSize="25" ySize="20"/></SimpleSource>'
        for name, x, y in (("a", 0, 0), ("b", 25, 0), ("c", 0, 20), ("d", 25, 20))) + "</VRTRasterBand>" for band in (1, 2, 3))
    mosaic = tmp_path / "city.vrt"
    mosaic.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40"><SRS>EPSG:25832</SRS>'
                      f'<GeoTransform>691000, 0.3, 0, 5335000, 0, -0.3</GeoTransform>{bands}</VRTDataset>')
    window = (slice(13, 29), slice(20, 31))
    assert (open_raster(mosaic).read(window).values == values[window]).all()
    copy(mosaic, tmp_path / "city.jp2", driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100")
    whole = open_raster(tmp_path / "city.jp2")
    assert (whole.read(window).values == values[window]).all() and whole.transform == pytest.approx(tuple(NORTH_UP)[:6])
    (tmp_path / "c.tif").unlink()
    with pytest.raises(ValueError, match=r"c.tif: no such file.*, named by .*city.vrt"):
        open_raster(mosaic)


@pytest.mark.parametrize("path", ["https://example.org/scene.tif", "/vsicurl/https://example.org/scene.tif", "s3://bucket/a.tif",
                                  "/vsizip/scene.zip/scene.tif", "<VRTDataset/>"])
def test_what_is_no_file_here_is_not_opened_unasked(path):
    with pytest.raises(ValueError, match="is no file on this machine; if it is to be fetched, say so: --remote"):
        open_raster(path)


@pytest.mark.parametrize("inside", ["<SourceFilename>https://example.org/a.tif</SourceFilename>",
                                    "<SourceDataset>/vsicurl/example.org/a.tif</SourceDataset>",
                                    "<A><SourceFilename relativeToVRT='1'>/vsis3/b/a.tif</SourceFilename></A>",
                                    "<OverviewFile>https://example.org/a.ovr</OverviewFile>"])
def test_a_vrt_that_names_what_is_elsewhere_is_not_opened_unasked(tmp_path, inside):
    (tmp_path / "inner.vrt").write_text(f"<VRTDataset rasterXSize='4' rasterYSize='4'>{inside}</VRTDataset>")
    (tmp_path / "outer.vrt").write_text("<VRTDataset rasterXSize='4' rasterYSize='4'>"
                                        "<SourceFilename relativeToVRT='1'>inner.vrt</SourceFilename></VRTDataset>")
    for name in ("inner.vrt", "outer.vrt"):
        with pytest.raises(ValueError, match=r"inner.vrt: names '.*', which is no file on this machine"):
            open_raster(tmp_path / name)


def test_a_file_that_names_a_service_or_itself_is_not_opened(tmp_path):
    (tmp_path / "service.xml").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")
    (tmp_path / "names.vrt").write_text("<VRTDataset><SourceFilename relativeToVRT='1'>service.xml</SourceFilename></VRTDataset>")
    (tmp_path / "loop.vrt").write_text("<VRTDataset><SourceFilename relativeToVRT='1'>loop.vrt</SourceFilename></VRTDataset>")
    (tmp_path / "cut.vrt").write_text("<VRTDataset><SourceFilename")
    for name, words in (("service.xml", "ask a service"), ("names.vrt", "ask a service"), ("loop.vrt", "names itself"),
                        ("cut.vrt", "a damaged VRT"), ("nowhere.tif", "no such file")):
        with pytest.raises(ValueError, match=words):
            open_raster(tmp_path / name)


def test_files_that_are_no_raster_are_refused_by_name(tmp_path, write):
    (tmp_path / "notes.txt").write_text("not a raster")
    whole = write(stack()).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match=r"notes.txt: GDAL cannot read it"):
        open_raster(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"cut.tif: GDAL cannot read it"):
        open_raster(tmp_path / "cut.tif").read(WHOLE)
    with pytest.raises(ValueError, match="holds complex64 numbers"):
        open_raster(write(stack("float32").astype(np.complex64), "radar.tif")).read(WHOLE)


def test_several_pictures_in_a_file_are_refused(tmp_path):
    pages = [Image.fromarray(stack("uint8", 3)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"holds 2 pictures .*save the one that is meant"):
        open_raster(tmp_path / "pages.tif")


@pytest.mark.parametrize("affine", [
    NORTH_UP, rasterio.Affine(0.3, 0, 691000, 0, 0.3, 5334000), NORTH_UP * rasterio.Affine.rotation(30),
    rasterio.Affine(0.3, 0.1, 691000, -0.05, -0.3, 5335000)])
@pytest.mark.parametrize("meaning", ["Area", "Point"])
def test_a_pixel_lies_where_rasterio_says(write, affine, meaning):
    path = write(stack(), transform=affine)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=meaning)
    raster = open_raster(path)
    with rasterio.open(path) as file:
        x, y = file.xy(11, 23)  # the middle of row 11, column 23
        corners = np.array([file.transform * corner for corner in ((0, 0), (50, 0), (0, 40), (50, 40))])
    assert to_world(raster.transform, 23.5, 11.5) == pytest.approx((x, y), abs=1e-6)
    assert to_pixel(raster.transform, x, y) == pytest.approx((23.5, 11.5), abs=1e-6) and raster.pixel_at(x, y) == (23, 11)
    assert raster.bounds() == pytest.approx((*corners.min(0), *corners.max(0)), abs=1e-6)
    lon, lat = (v[0] for v in warp_points("EPSG:25832", "EPSG:4326", [x], [y]))
    assert raster.pixel_at(lon, lat, "EPSG:4326") == (23, 11)


def test_a_place_outside_is_refused_with_where_the_raster_lies(write):
    raster = open_raster(write(stack()))
    with pytest.raises(ValueError, match=r"lies outside; the raster reaches from \(11[.]56"):
        raster.pixel_at(48.1, 11.5, "EPSG:4326")  # latitude first
    with pytest.raises(ValueError, match="not a coordinate reference system"):
        raster.pixel_at(48.1, 11.5, "EPSG:99999999")


def test_a_raster_without_a_place_says_so(write):
    bare = open_raster(write(stack(), crs=None, transform=None))
    assert bare.crs is None and bare.transform is None and bare.metres is None
    with pytest.raises(ValueError, match="does not say where on Earth it lies"):
        bare.pixel_at(11.5, 48.1, "EPSG:4326")
    corners = [(column, row) for row in (0, 40) for column in (0, 50)]
    points = [rasterio.control.GroundControlPoint(row, column, *(NORTH_UP * (column, row))) for column, row in corners]
    assert from_gcps(points).almost_equals(NORTH_UP, 1e-6)
    with says("4 control points"):
        assert open_raster(write(stack(), "gcps.tif", transform=None, gcps=points)).transform is None


def test_pixels_are_measured_on_the_ellipsoid():
    # Meridian and parallel of WGS 84 at 48.1 degrees, by the closed forms.
    a, e2, latitude = 6378137.0, 0.00669437999014, np.radians(48.1)
    w = np.sqrt(1 - e2 * np.sin(latitude)**2)
    width, height = pixel_metres("EPSG:4326", (1e-5, 0, 11.5, 0, -1e-5, 48.1), 0, 0)
    assert width == pytest.approx(np.radians(1e-5) * a / w * np.cos(latitude), rel=1e-6)
    assert height == pytest.approx(np.radians(1e-5) * a * (1 - e2) / w**3, rel=1e-6)
    north = 6124000.0  # about 48.1 degrees in Web Mercator, where a metre of the map is 0.67 m
    scale = np.cos(2 * np.arctan(np.exp(north / a)) - np.pi / 2)
    assert pixel_metres("EPSG:3857", (1, 0, 1280000, 0, -1, north), 0, 0)[0] == pytest.approx(scale / w, rel=1e-4)
    assert pixel_metres("EPSG:2263", (1, 0, 984000, 0, -1, 200000), 0, 0)[0] == pytest.approx(0.3048006, rel=2e-4)  # US feet
    site = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["E",EAST],AXIS["N",NORTH]]'
    assert pixel_metres(site, (2, 0, 0, 0, -2, 0), 3, 3) == pytest.approx((0.6096, 0.6096))


def test_an_extent_says_where_the_window_lies_and_tells_other_pixels(write):
    values = stack()
    raster = open_raster(write(values))
    window = (slice(8, 24), slice(16, 48))
    extent = raster.extent(window, raster.read(window))
    assert to_world(extent.window_transform, 0, 0) == pytest.approx(to_world(raster.transform, 16, 8), abs=1e-9)
    values[10, 20, 0] += 1
    other = open_raster(write(values, "other.tif"))
    assert extent.checksum != other.extent(window, other.read(window)).checksum and extent.size == (40, 50)


@pytest.mark.parametrize(("name", "options", "words"), [
    ("a.tif", {"compress": "JPEG", "photometric": "YCBCR"}, "JPEG"), ("b.tif", {"compress": "deflate"}, None),
    ("c.tif", {"compress": "WEBP"}, "WEBP"), ("d.tif", {"compress": "WEBP", "webp_lossless": True}, None),
    ("e.jp2", {"driver": "JP2OpenJPEG"}, "JPEG 2000"),
    ("f.jp2", {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"}, None)])
def test_compression_with_loss_is_known(write, name, options, words):
    assert open_raster(write(procedural_scene(2, 64).image, name, **options)).lossy == words


def test_a_jpeg_file_is_decoded_as_a_tile_of_that_format_is(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(procedural_scene(2, 64).image).save(path, quality=75)
    path.with_suffix(".jgw").write_text("0.3\n0\n0\n-0.3\n691000.15\n5334999.85\n")
    raster = open_raster(path)
    assert (raster.read((slice(0, 64), slice(8, 40))).values == read_image(path)[:, 8:40]).all()
    assert raster.transform == pytest.approx((0.3, 0, 691000, 0, -0.3, 5335000)) and raster.lossy == "JPEG"


def test_a_jpeg_in_a_tiff_is_decoded_alike_as_a_tile_and_as_a_scene(write):
    path = write(procedural_scene(2, 64).image, compress="JPEG", photometric="YCBCR")
    window = (slice(5, 60), slice(8, 40))
    with rasterio.open(path) as file:
        expected = np.moveaxis(file.read(), 0, -1)[window]
    assert (read_image(path, window) == expected).all() and (open_raster(path).read(window).values == expected).all()


def test_a_raster_travels_to_another_process_without_its_pixels(write):
    raster = open_raster(write(stack()), [4, 1])
    sent = pickle.dumps(raster)
    assert len(sent) < 4000 and (pickle.loads(sent).read(WHOLE).values == stack()[..., [3, 0]]).all()


def test_a_picture_to_look_at_is_stretched_between_percentiles_and_white_where_nothing_is(write):
    values = np.linspace(0, 4000, 2000).reshape(40, 50, 1).astype(np.uint16)
    values[:, :10] = 0
    shown = stretched(open_raster(write(values, nodata=0)).read(WHOLE), (0, 100))
    assert shown.shape == (40, 50, 3) and (shown[:, :10] == 255).all() and shown[0, 10:].max() < 5 and shown[-1, -1, 0] == 255


def test_a_band_called_alpha_among_colours_is_no_band(write):
    path = write(stack("uint8", 2))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    assert [band.index for band in open_raster(path).bands] == [1]


def test_a_picture_that_lies_on_its_side_by_its_tag_is_refused_as_other_images_are(tmp_path):
    Image.fromarray(stack("uint8", 3)).save(tmp_path / "turned.tif", tiffinfo={274: 6})
    with pytest.raises(ValueError, match="orientation tag"):
        open_raster(tmp_path / "turned.tif")
