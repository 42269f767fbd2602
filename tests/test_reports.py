"""Inputs that users of other tools report as trouble, each against a value found without the package."""
from __future__ import annotations

import struct
import zlib
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_net
from PIL import Image
from torch import nn

from entropy_captum import EntropyCentric
from entropy_captum.cam import seg_grad_cam
from entropy_captum.cli import main
from entropy_captum.data import find_tiles, read_image, read_mask
from entropy_captum.zoo import Padded

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (40, 56, 3), np.uint8)
TRUTH = np.zeros((40, 56), bool)
TRUTH[5:21, 13:43] = True
IMAGE = torch.from_numpy(RNG.normal(size=(1, 3, 24, 40)).astype(np.float32))
REGION = torch.zeros(24, 40, dtype=torch.bool)
REGION[4:12, 8:20] = True


def scores(model, inputs=IMAGE, region=REGION, **options):
    return EntropyCentric(model, **options).attribute(inputs, region=region, grid_size=2, n_samples=4)


def png(path: Path, rows: bytes, size: tuple[int, int], depth: int, colour: int, transparent: bytes = b"") -> Path:
    """A PNG from packed rows, by its specification."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))] + ([(b"tRNS", transparent)] if transparent else [])
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks))
    return path


def packed(values, depth: int) -> bytes:
    bits = (values[..., None].astype(np.uint8) >> np.arange(depth)[::-1]) & 1
    return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(len(values), -1))


def test_sides_that_do_not_divide_by_32():
    """segmentation_models.pytorch #57, #93, #617: 350 x 525 px ends in a mismatch of sizes."""
    net = nn.Sequential(nn.Conv2d(3, 4, 32, stride=32), nn.Upsample(scale_factor=32), nn.Conv2d(4, 1, 1)).eval()
    x = torch.randn(1, 3, 35, 75)
    region = torch.zeros(35, 75, dtype=torch.bool)
    region[3:9, 70:] = True
    assert Padded(net)(x).shape[-2:] == (35, 75)
    found = scores(Padded(net), x, region)
    assert found.shape == x.shape and torch.isfinite(found).all() and found.abs().max() > 0


def test_a_call_under_no_grad():
    """captum #324: gradients fail inside no_grad."""
    net = small_net().eval()
    expected = seg_grad_cam(net, IMAGE, region=REGION, layer=net[2])
    with torch.no_grad():
        assert torch.equal(seg_grad_cam(net, IMAGE, region=REGION, layer=net[2]), expected)


def test_a_call_under_inference_mode():
    """pytorch #60539: sums of large tensors fail in inference mode."""
    net, x = small_net().eval(), torch.randn(1, 3, 200, 200)
    region = torch.ones(200, 200, dtype=torch.bool)
    expected = scores(net, x, region)
    with torch.inference_mode():
        assert torch.equal(scores(net, x, region), expected)


def test_a_network_with_frozen_weights():
    """captum #226: Grad-CAM fails where no weight requires a gradient."""
    net = small_net().eval()
    expected = seg_grad_cam(net, IMAGE, region=REGION, layer=net[2])
    net.requires_grad_(False)
    assert torch.equal(seg_grad_cam(net, IMAGE, region=REGION, layer=net[2]), expected)


def test_inputs_that_require_gradients():
    """captum #8, #1346: the flag and the gradient of the caller's input change."""
    net, x = small_net().eval(), IMAGE.clone().requires_grad_()
    for call in (scores, lambda model, inputs: seg_grad_cam(model, inputs, region=REGION, layer=model[2])):
        assert torch.equal(call(net, x), call(net, IMAGE))
        assert x.requires_grad and x.grad is None and x.grad_fn is None


@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm,
                                  torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_normed_weights(norm):
    """pytorch #28594, #102981 (weight norm cannot be copied) and #13350 (spectral norm in eval mode)."""
    plain = small_net()
    normed = deepcopy(plain)
    norm(normed[0])
    normed.eval()
    normed(IMAGE)
    plain[0].weight.data = normed[0].weight.detach().clone()
    plain.eval()
    for kind in ("auto", "full"):
        assert torch.allclose(scores(normed, inference=kind), scores(plain, inference="full"), rtol=1e-4, atol=1e-6)


def test_a_call_under_autocast():
    """pytorch-grad-cam #329: maps of a network under autocast come in half precision and fail."""
    net = small_net().eval()
    expected = scores(net)
    with torch.autocast("cpu", torch.bfloat16):
        found = scores(net)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_compiled_network():
    """pytorch #110797, transformers #25155: a compiled network keeps what it knew, and answers otherwise."""
    net = small_net()
    assert torch.allclose(scores(torch.compile(net, backend="eager")), scores(net), rtol=1e-5, atol=1e-7)
    assert net.training


def test_a_bound_method_without_gradients():
    """segmentation_models.pytorch #365: `predict` is no network, runs without gradients."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_net()

        def forward(self, x):
            return self.inner(x)

        @torch.no_grad()
        def predict(self, x):
            return self(x)

    net = Net()
    assert torch.allclose(scores(net.predict, inference="full"), scores(small_net().eval(), inference="full"), atol=1e-7)


def test_the_region_stays_that_of_the_clean_input():
    """captum #380: the classes of pixels must be those of the clean output, not of the changed one."""
    net = small_net(2).eval()
    clean = net(IMAGE).argmax(1)[0] == 1
    other = torch.zeros_like(IMAGE)
    one = EntropyCentric(net, "softmax").attribute(IMAGE, other, target=1, grid_size=2, n_samples=4)
    two = EntropyCentric(net, "softmax").attribute(IMAGE, other, target=1, grid_size=2, n_samples=4, region=clean)
    assert torch.equal(one, two)


def test_images_of_several_sizes_in_a_batch():
    """mmsegmentation #3181: a list of images of unlike sizes."""
    with pytest.raises(TypeError, match="must be floating-point tensors, got list"):
        scores(small_net(), [IMAGE[0], IMAGE[0, :, :20]])


def test_a_label_of_one_bit_with_a_transparent_value(tmp_path):
    """Pillow #9281, #3379: the transparent value of a 1-bit PNG is lost."""
    path = png(tmp_path / "a.png", packed(TRUTH, 1), (56, 40), 1, 0, b"\0\0")
    with pytest.raises(ValueError, match=r"a.png: its transparency hides 78.6%"):
        read_mask(path)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_labels_of_few_bits(depth, tmp_path):
    """stb #284: grey PNGs of 1, 2 and 4 bits load with other values."""
    path = png(tmp_path / "a.png", packed(TRUTH, depth), (56, 40), depth, 0)
    assert np.array_equal(read_mask(path), TRUTH)


def test_a_transparent_colour_in_an_rgb_png(tmp_path):
    """Pillow #423, HaxeFoundation format #53: a tRNS colour of an RGB image is taken as opaque."""
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    path = png(tmp_path / "a.png", rows, (56, 40), 8, 2, struct.pack(">HHH", *RGB[3, 4]))
    with pytest.raises(ValueError, match=r"a\.png.*transparen"):
        read_image(path)


def test_a_cmyk_jpeg(tmp_path):
    """torchvision #3012, #6538: CMYK JPEGs come out inverted, or not at all."""
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg.*CMYK"):
        read_image(tmp_path / "a.jpg")


def test_a_tiff_of_jpeg_in_ycbcr(tmp_path):
    """Pillow #2926, rasterio #617: JPEG in a TIFF with thinned colours is not read, or in the wrong colours."""
    smooth = np.full((64, 64, 3), (200, 60, 30), np.uint8)
    Image.fromarray(smooth).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg", quality=95)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - smooth).max() <= 4


def test_a_plain_tiff_in_ycbcr(tmp_path):
    """Pillow #9770: an uncompressed YCbCr TIFF that Pillow wrote is not read again."""
    flat = np.full((64, 64, 3), (200, 60, 30), np.uint8)
    Image.fromarray(flat).convert("YCbCr").save(tmp_path / "a.tif", compression="raw")
    with pytest.raises(ValueError, match=r"a\.tif.*YCbCr.*convert it to RGB"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_with_a_predictor(compression, tmp_path):
    """tifffile #185, whitebox-tools #187: differences along rows are taken for values."""
    Image.fromarray(RGB).save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 2})
    assert np.array_equal(read_image(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize("ending", [".PNG", ".TIF", ".JPG", ".JPEG", ".Tiff"])
def test_endings_in_capitals(ending, tmp_path):
    """anomalib #3058, cellpose #555, suite2p #502: files with an upper-case ending are not found."""
    for folder, kind in (("images", ending), ("labels", ".PNG")):
        (tmp_path / folder).mkdir()
        Image.fromarray(RGB if folder == "images" else TRUTH.astype(np.uint8) * 255).save(tmp_path / folder / f"a{kind}")
    tile, = find_tiles(tmp_path)
    assert tile.name == "a" and np.array_equal(tile.read().label, TRUTH)


def test_a_label_saved_as_jpeg(tmp_path):
    """glasses-detector #23, HED-UNet #11: lossy labels hold many values near the edges."""
    Image.fromarray(TRUTH.astype(np.uint8) * 255).save(tmp_path / "a.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "a.jpg")))) > 2
    with pytest.raises(ValueError, match=r"a\.jpg.*JPEG and resampling blur a label: save it as PNG"):
        read_mask(tmp_path / "a.jpg")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_file_cut_short(ending, tmp_path, monkeypatch, capsys):
    """Pytorch-Wildlife #605, Remote_Sensing_Mamba #26: a truncated file ends the run with a traceback."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match=path.name):
        read_image(path)
    monkeypatch.setattr("sys.argv", ["entropy-captum", "explain", str(path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and path.name in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [1, 4])
def test_a_network_that_takes_one_image(rows):
    """segment-anything #277: a network whose shapes hold for a batch of one."""
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_net()

        def forward(self, x):
            return self.inner(x).view(1, 1, *x.shape[-2:])

    one = One()
    found, expected = (EntropyCentric(net).attribute(IMAGE, region=REGION, grid_size=2, n_samples=4, perturbations_per_eval=rows)
                       for net in (one, one.inner))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_seg_grad_cam_under_autocast_has_the_dtype_of_the_input():
    """pytorch-grad-cam #329: half-precision maps of gradients fail in what comes after."""
    net = small_net().eval()
    expected = seg_grad_cam(net, IMAGE, region=REGION, layer=net[2])
    with torch.autocast("cpu", torch.bfloat16):
        found = seg_grad_cam(net, IMAGE, region=REGION, layer=net[2])
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.03 * expected.abs().max()
