"""Scenes once more: files beside files, orders of bands, tables with columns of their own, and places between pixels."""
import os
import re
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from entropy_captum.drawn import procedural_scene
from entropy_captum.raster import open_raster

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
    raster = open_raster(tmp_path / "city.vrt")
    before = raster.changed
    os.utime(path, ns=(before + 10**9, before + 10**9))
    assert raster.changed == before + 10**9
