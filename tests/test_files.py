"""What real files hold: bits, bands, pages, turns, colours and places are taken from the file, or refused with their name."""
from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import small_net
from PIL import Image
from typer.testing import CliRunner

import entropy_captum
from entropy_captum import Estimate, labels, request
from entropy_captum.cli import app, main
from entropy_captum.data import find_tiles, read_image, read_mask
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.files import read_stored
from entropy_captum.labels import LabelValues
from entropy_captum.study import evaluate
from entropy_captum.tiles import Settings, find_sources
from entropy_captum.training import Recipe, train
from entropy_captum.zoo import Padded

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 56, 3), np.uint8)
DEEP = RNG.integers(0, 3000, (40, 56, 3)).astype(np.uint16)
FIVE = np.dstack([RGB, RGB[..., :2]])
SMALL = Settings(methods=("random",), grid_size=2, n_samples=2)


def tiff_page(values, order="<", planar=1, tile=0, deflate=False, big=False, at=0, **tags) -> tuple[bytes, bytes, int]:
    """A page of values (H,W,C): its pixels, which begin `at` bytes from the file's start, its tags without the next page's place,
    and where they begin. By the specification of TIFF 6.0, with nothing of the package."""
    height, width, bands = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored] if planar == 1 else [stored[..., k] for k in range(bands)]
    blocks = []
    for plane in planes:
        if tile:
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    part = plane[y:y + tile, x:x + tile]
                    pad = [(0, tile - part.shape[0]), (0, tile - part.shape[1])] + [(0, 0)] * (part.ndim - 2)
                    blocks.append(np.pad(part, pad).tobytes())
        else:
            blocks += [plane[y:y + 16].tobytes() for y in range(0, height, 16)]
    blocks = [zlib.compress(block) for block in blocks] if deflate else blocks
    places = np.cumsum([at] + [len(block) for block in blocks])
    entries = {256: [width], 257: [height], 258: [values.itemsize * 8] * bands, 259: [8 if deflate else 1], 262: [2], 277: [bands],
               284: [planar], 339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * bands}
    entries |= {322: [tile], 323: [tile], 324: places[:-1], 325: [len(b) for b in blocks]} if tile else {
        278: [16], 273: places[:-1], 279: [len(b) for b in blocks]}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    start = int(places[-1])
    word, room = ("Q", 8) if big else ("I", 4)
    beyond, listed = start + (8 if big else 2) + len(entries) * (20 if big else 12) + room, b""
    later = b""
    for number, value in sorted(entries.items()):
        kind, letter = (12, "d") if isinstance(value[0], float) else (4, "I")
        data = struct.pack(f"{order}{len(value)}{letter}", *value)
        listed += struct.pack(f"{order}HH{word}", number, kind, len(value))
        listed += data.ljust(room, b"\0") if len(data) <= room else struct.pack(order + word, beyond + len(later))
        later += b"" if len(data) <= room else data
    return b"".join(blocks), struct.pack(order + ("Q" if big else "H"), len(entries)) + listed + b"\1\1\1\1" + later, start


def write_tiff(path: Path, *pages: dict) -> Path:
    """A TIFF of pages, each the arguments of `tiff_page`."""
    order, big = pages[0].get("order", "<"), pages[0].get("big", False)
    word, room = ("Q", 8) if big else ("I", 4)
    at, made = 16 if big else 8, []
    for page in pages:
        data, tags, start = tiff_page(**page, at=at)
        made.append((data, tags, start))
        at = start + len(tags) + room - 4
    text = b"II" if order == "<" else b"MM"
    text += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), made[0][2])
    for k, (data, tags, _) in enumerate(made):
        follows = struct.pack(order + word, made[k + 1][2] if k + 1 < len(made) else 0)
        text += data + tags.replace(b"\1\1\1\1", follows, 1)
    path.write_bytes(text)
    return path


def write_png(path: Path, values, depth: int, colour: int, **chunks: bytes) -> Path:
    """A PNG of values (H,W,C) of so many bits, whole bytes a pixel."""
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    listed = [(b"IHDR", header), *((name.encode(), data) for name, data in chunks.items()), (b"IDAT", zlib.compress(rows))]
    listed.append((b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in listed))
    return path


def with_sof(path: Path, bits: int) -> Path:
    """A JPEG that says that it has so many bits."""
    Image.fromarray(RGB).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = bits
    path.write_bytes(data)
    return path


def opaque(values, fill=255):
    return np.concatenate([values, np.full((*values.shape[:2], 1), fill, values.dtype)], -1)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[274] = orientation
    return made.tobytes()


# Each: how the file is made, and what the error must say.
REFUSED = {
    "16-bit RGB PNG": (lambda p: write_png(p / "a.png", DEEP, 16, 2), "3 bands of 16 bits"),
    "16-bit RGBA PNG": (lambda p: write_png(p / "a.png", opaque(DEEP, 65535), 16, 6), "4 bands of 16 bits"),
    "16-bit RGB TIFF": (lambda p: write_tiff(p / "a.tif", dict(values=DEEP)), "3 bands of 16 bits"),
    "16-bit RGB TIFF, band after band": (lambda p: write_tiff(p / "a.tif", dict(values=DEEP, planar=2)), "3 bands of 16 bits"),
    "16-bit, compressed, big-endian": (lambda p: write_tiff(p / "a.tif", dict(values=DEEP, order=">", deflate=True)), "16 bits"),
    "a wide 16-bit band": (lambda p: write_tiff(p / "a.tif", dict(values=DEEP[..., :1], t262=[1])), "1 band of 16 bits"),
    "32-bit floats": (lambda p: write_tiff(p / "a.tif", dict(values=DEEP.astype(np.float32))), "32 float bits"),
    "signed 8 bits": (lambda p: write_tiff(p / "a.tif", dict(values=RGB.view(np.int8))), "8 signed bits"),
    "12-bit JPEG": (lambda p: with_sof(p / "a.jpg", 12), "12 bits"),
    "RGB and infrared, unspecified": (lambda p: write_tiff(p / "a.tif", dict(values=opaque(RGB), t338=[0])), "4 bands.*and others"),
    "RGB and infrared, called alpha": (
        lambda p: write_tiff(p / "a.tif", dict(values=np.dstack([RGB, RGB[..., 1]]), t338=[2])),
        "band 4, called alpha.*infrared.*--bands"),
    "five bands": (lambda p: write_tiff(p / "a.tif", dict(values=FIVE, t338=[0, 0])), "5 bands of 8"),
    "five bands, one alpha": (lambda p: write_tiff(p / "a.tif", dict(values=FIVE, t338=[2, 0])), "5 bands"),
    "three bands that are no colours": (lambda p: write_tiff(p / "a.tif", dict(values=RGB, t262=[1], t338=[0, 0])), "not called"),
    "grey": (lambda p: write_png(p / "a.png", RGB[..., :1], 8, 0), "1 band of 8 bits .grey"),
    "CMYK": (lambda p: write_tiff(p / "a.tif", dict(values=opaque(RGB), t262=[5])), "CMYK"),
    "volume": (lambda p: write_tiff(p / "a.tif", dict(values=RGB, t32997=[16])), "a volume of 16 slices"),
    "turned TIFF": (lambda p: write_tiff(p / "a.tif", dict(values=RGB, t274=[6])), "orientation tag .6.*QGIS"),
    "turned JPEG": (lambda p: Image.fromarray(RGB).save(p / "a.jpg", exif=exif(3)) or p / "a.jpg", "orientation tag .3"),
    "turned PNG": (lambda p: write_png(p / "a.png", RGB, 8, 2, eXIf=exif(8)[6:] if exif(8)[:4] == b"Exif" else exif(8)),
                   "orientation tag .8"),
    "two pages": (lambda p: write_tiff(p / "a.tif", dict(values=RGB[::4, ::4]), dict(values=RGB)), "2 pictures .pages.*14 x 10"),
    "an animated PNG": (lambda p: Image.fromarray(RGB).save(p / "a.png", save_all=True, append_images=[Image.new("RGB", (56, 40))])
                        or p / "a.png", "2 pictures"),
    "internal mask": (lambda p: write_tiff(p / "a.tif", dict(values=RGB), dict(
        values=(RGB[..., :1] > 99).astype(np.uint8), t254=[4], t262=[4])), "transparency hides"),
    "transparent entries of a palette": (lambda p: write_png(p / "a.png", RGB[..., :1] % 2, 8, 3, PLTE=bytes(6), tRNS=b"\0\xff"),
                                         "transparency hides"),
    "a transparent colour": (lambda p: write_png(p / "a.png", RGB // 128, 8, 2, tRNS=bytes(6)), "transparency hides"),
    "compressed by LERC": (lambda p: write_tiff(p / "a.tif", dict(values=RGB, t259=[34887])), "LERC"),
    "sparse": (lambda p: write_tiff(p / "a.tif", dict(values=RGB, t279=[0, 0, 0], t259=[8])), "never written.*sparse"),
    "cut off": (lambda p: (p / "a.tif").write_bytes(write_tiff(p / "b.tif", dict(values=RGB, t273=[9000] * 3)).read_bytes())
                and p / "a.tif", "ends before its pixels do"),
    "JPEG 2000": (lambda p: (p / "a.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n") and p / "a.jp2", "TIFF or JPEG.*gdal_translate"),
    "no image": (lambda p: (p / "a.png").write_bytes(b"no image") and p / "a.png", "PNG, TIFF or JPEG"),
    "nothing": (lambda p: (p / "a.png").touch() or p / "a.png", "it is empty"),
    "damaged tags": (lambda p: (p / "a.tif").write_bytes(b"II*\0\xff\xff\0\0") and p / "a.tif", "a damaged TIFF"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_rgb_is_refused_by_what_it_holds(tmp_path, kind):
    make, message = REFUSED[kind]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=f"(?s)^{re.escape(str(path))}: .*{message}") as raised:
        read_image(path)
    assert "not a readable image" not in str(raised.value) and "\n" not in str(raised.value)


READ = {
    "plain": dict(values=RGB), "band after band": dict(values=RGB, planar=2), "tiled": dict(values=RGB, tile=16),
    "big-endian, deflated, tiled, band after band": dict(values=RGB, order=">", deflate=True, tile=16, planar=2),
    "BigTIFF": dict(values=RGB, big=True), "big-endian BigTIFF": dict(values=RGB, big=True, order=">", deflate=True),
    "opaque alpha": dict(values=opaque(RGB), t338=[2]), "opaque premultiplied alpha": dict(values=opaque(RGB), t338=[1], planar=2),
}


@pytest.mark.parametrize("kind", READ)
def test_plain_rgb_is_read_as_it_is_stored_whole_and_in_windows(tmp_path, kind):
    path = write_tiff(tmp_path / "a.tif", READ[kind])
    assert np.array_equal(read_image(path), RGB)
    for rows, columns in ((slice(0, 1), slice(0, 1)), (slice(15, 33), slice(17, 49)), (slice(39, 40), slice(0, 56))):
        assert np.array_equal(read_image(path, (rows, columns)), RGB[rows, columns])


def test_overviews_and_full_masks_are_no_pages_and_no_loss(tmp_path):
    small, full = dict(values=RGB[::2, ::2], t254=[1]), dict(values=np.full((40, 56, 1), 255, np.uint8), t254=[4], t262=[4])
    for pages in ((dict(values=RGB), small), (small, dict(values=RGB)), (dict(values=RGB), full, small)):
        assert np.array_equal(read_image(write_tiff(tmp_path / "a.tif", *pages)), RGB)


def test_png_palettes_are_looked_up(tmp_path):
    palette = RNG.integers(0, 256, (7, 3), np.uint8)
    numbers = RGB[..., :1] % 7
    path = write_png(tmp_path / "a.png", numbers, 8, 3, PLTE=palette.tobytes())
    assert np.array_equal(read_image(path), palette[numbers[..., 0]])
    path = write_png(tmp_path / "b.png", numbers + 1, 8, 3, PLTE=palette.tobytes())
    with pytest.raises(ValueError, match=r"b\.png: .*no colour 7 in its palette"):
        read_image(path)


def test_image_and_label_lie_alike_or_are_refused_alike(tmp_path):
    """An orientation tag turned a TIFF and not a JPEG: of one scene, image and label lay differently."""
    label = np.zeros((40, 56, 1), np.uint8)
    label[3:9, 5:20] = 255
    plain = write_tiff(tmp_path / "plain.tif", dict(values=label, t262=[1], t274=[1]))
    assert np.array_equal(read_mask(plain), label[..., 0] > 0)
    with pytest.raises(ValueError, match=r"orientation tag .3"):
        read_mask(write_tiff(tmp_path / "label.tif", dict(values=label, t262=[1], t274=[3])))


def run(monkeypatch, capsys, *arguments) -> str:
    """What the command says of arguments that it refuses with exit code 2, in one line."""
    monkeypatch.setattr(sys, "argv", ["entropy-captum", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and len(said.strip().splitlines()) == 1 and said.startswith("error: "), said
    return said


@pytest.mark.slow
def test_depth_is_looked_at_by_every_command(tmp_path, monkeypatch, capsys):
    deep = write_tiff(tmp_path / "deep.tif", dict(values=DEEP))
    assert "3 bands of uint16" in run(monkeypatch, capsys, "explain", deep, "--out", tmp_path / "out")
    for split in ("train", "val"):
        for kind in ("image", "label"):
            (tmp_path / f"town/{split}/{kind}").mkdir(parents=True)
        write_tiff(tmp_path / f"town/{split}/image/a.tif", dict(values=DEEP))
        Image.new("L", (56, 40), 255).save(tmp_path / f"town/{split}/label/a.png")
    with pytest.raises(ValueError, match=r"a\.tif: .*3 bands of 16 bits"):
        train([tmp_path / "town"], tmp_path / "trained", Recipe(encoder="resnet18", steps=1), show_progress=False)
    rows = evaluate(Padded(small_net()).eval(), tmp_path / "town", tmp_path / "run", SMALL, show_progress=False)
    assert list(rows.status) == ["error"] * 2 and rows.error.str.contains("16 bits").all()


# --- labels

ISPRS = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], np.uint8)
CLASSES = np.repeat(np.repeat(np.arange(6).reshape(2, 3), 10, 0), 10, 1)  # (20,30), 100 pixels of each


def test_a_label_in_many_colours_is_refused_with_their_shares(tmp_path):
    Image.fromarray(ISPRS[CLASSES]).save(tmp_path / "isprs.png")
    with pytest.raises(ValueError, match=r"isprs\.png: .*found .*0,0,255 \(16\.7%\).*--label-values building="):
        read_mask(tmp_path / "isprs.png")
    palette = Image.fromarray(CLASSES.astype(np.uint8) % 2, "P")
    palette.putpalette([200, 200, 200, 255, 0, 0])
    palette.save(tmp_path / "palette.png")
    with pytest.raises(ValueError, match=r"200,200,200 \(50\.0%\), 255,0,0 \(50\.0%\)"):
        read_mask(tmp_path / "palette.png")
    grey = np.dstack([np.where(CLASSES > 2, 255, 0), np.full(CLASSES.shape, 255)]).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey_alpha.png")
    assert np.array_equal(read_mask(tmp_path / "grey_alpha.png"), CLASSES > 2)
    grey[0, 0, 1] = 0
    Image.fromarray(grey).save(tmp_path / "hidden.png")
    with pytest.raises(ValueError, match=r"transparency hides 0\.2%"):
        read_mask(tmp_path / "hidden.png")


def test_codes_name_building_and_what_does_not_count(tmp_path):
    from entropy_captum.labels import LabelValues, parse_values, read_label
    Image.fromarray(ISPRS[CLASSES]).save(tmp_path / "isprs.png")
    Image.fromarray(CLASSES.astype(np.uint8)).save(tmp_path / "numbers.png")
    indexed = Image.fromarray(CLASSES.astype(np.uint8), "P")
    indexed.putpalette(ISPRS.ravel().tolist())
    indexed.save(tmp_path / "indexed.png")
    colours, numbers = "building=0,0,255; ignore=255,0,0", "building=1;ignore=5"
    for name, code in (("isprs", colours), ("numbers", numbers), ("indexed", numbers), ("indexed", colours)):
        building, valid = read_label(tmp_path / f"{name}.png", parse_values([code]))
        assert np.array_equal(building, CLASSES == 1) and np.array_equal(valid, CLASSES != 5), (name, code)
    assert read_label(tmp_path / "numbers.png", LabelValues({"building": ((1,), (4,))})).mask.sum() == 200
    three = np.where(CLASSES == 5, 255, CLASSES % 2).astype(np.uint8)
    Image.fromarray(three).save(tmp_path / "three.png")
    with pytest.raises(ValueError, match=r"found .*255 \(16.7%\)"):
        read_label(tmp_path / "three.png")
    building, valid = read_label(tmp_path / "three.png", parse_values(["ignore=255"]))
    assert np.array_equal(building, three == 1) and np.array_equal(valid, three != 255)
    with pytest.raises(ValueError, match="no pixel can have the colour 0,0,255"):
        read_label(tmp_path / "numbers.png", parse_values(["building=0,0,255"]))


@pytest.mark.parametrize("text", ["building", "=1", "building=red", "building=1,2", "building=1;ignore=1"])
def test_a_code_that_means_nothing_is_quoted(tmp_path, text, monkeypatch, capsys):
    write_scenes(tmp_path, (2,), 64)
    said = run(monkeypatch, capsys, "evaluate", "--data", tmp_path, "--out", tmp_path / "run", "--label-values", text)
    assert text.split(";")[0].partition("=")[2] in said


DOUBLE = np.where(CLASSES > 2, 255, 0)[..., None]  # (20,30,1)
PLAIN = {
    "2 bits": lambda p: write_packed(p / "a.png", 2), "4 bits": lambda p: write_packed(p / "a.png", 4),
    "1 bit": lambda p: Image.fromarray(CLASSES > 2).save(p / "a.png"),
    "16 bits, 0 and 65535": lambda p: write_png(p / "a.png", (DOUBLE * 257).astype(np.uint16), 16, 0),
    "16 bits, 0 and 255": lambda p: write_tiff(p / "a.tif", dict(values=DOUBLE.astype(np.uint16), t262=[1])),
    "floats": lambda p: write_tiff(p / "a.tif", dict(values=(DOUBLE / 255).astype(np.float32), t262=[1])),
    "32 bits, big-endian": lambda p: write_tiff(p / "a.tif", dict(values=(DOUBLE // 255).astype(np.int32), t262=[1], order=">")),
    "black and a colour": lambda p: Image.fromarray((DOUBLE // 255 * [255, 0, 128]).astype(np.uint8)).save(p / "a.png"),
    "grey as RGB": lambda p: Image.fromarray(DOUBLE.repeat(3, -1).astype(np.uint8)).save(p / "a.png"),
}


def write_packed(path: Path, bits: int) -> Path:
    """A grey PNG of 0 and 1 in so many bits."""
    set_ = (CLASSES > 2).astype(np.uint8)
    wide = (np.unpackbits(set_[..., None], axis=-1)[..., -bits:]).reshape(20, -1)
    packed = np.packbits(wide, axis=1)
    return fix_width(write_png(path, packed[..., None], bits, 0), 30)


def fix_width(path: Path, width: int) -> Path:
    data = bytearray(path.read_bytes())
    data[16:20] = struct.pack(">I", width)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", PLAIN)
def test_two_valued_labels_of_every_depth_need_no_code(tmp_path, kind):
    PLAIN[kind](tmp_path)
    assert np.array_equal(read_mask(next(tmp_path.glob("a.*"))), CLASSES > 2)


UNCLEAR = {
    "one number": lambda p: Image.new("L", (8, 8), 7).save(p / "a.png"),
    "one colour": lambda p: Image.new("RGB", (8, 8), (0, 0, 255)).save(p / "a.png"),
    "interpolated": lambda p: Image.fromarray(np.eye(8, dtype=np.uint8) * 255).resize((15, 15)).save(p / "a.png"),
    "JPEG": lambda p: Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(p / "a.jpg"),
    "white is zero": lambda p: write_tiff(p / "a.tif", dict(values=np.eye(8, dtype=np.uint8)[..., None] * 255, t262=[0])),
    "one band a class": lambda p: write_tiff(p / "a.tif", dict(values=RGB[..., :2], t262=[1], t338=[0])),
    "palette with white as 0": lambda p: write_png(p / "a.png", RGB[..., :1] % 2, 8, 3, PLTE=b"\xff\xff\xff\0\0\0"),
    "palette without colours": lambda p: write_png(p / "a.png", RGB[..., :1] % 2, 8, 3, PLTE=bytes(6)),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_a_label_that_can_be_read_two_ways_is_read_in_none(tmp_path, kind):
    UNCLEAR[kind](tmp_path)
    with pytest.raises(ValueError, match=r"a\.\w+: .*label"):
        read_mask(next(tmp_path.glob("a.*")))


@pytest.mark.slow
def test_a_study_of_coloured_labels(tmp_path, monkeypatch, capsys):
    """The code reaches the tiles, another code makes the run do the tile again, and the report shows them."""
    write_scenes(tmp_path / "town", (2,), 64)
    label = tmp_path / "town/label/scene_2.png"
    truth = read_mask(label)
    coloured = np.where(truth[..., None], np.uint8([0, 0, 255]), np.uint8([255, 255, 255]))
    coloured[:8] = 255, 0, 0
    Image.fromarray(coloured).save(label)
    asked = ["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--methods", "random", "--grid-size", "2",
             "--n-samples",
             "2"]
    failed = CliRunner().invoke(app, asked)
    assert "255,255,255" in str(failed.exception)
    code = ["--label-values", "building=0,0,255", "--label-values", "ignore=255,0,0"]
    done = CliRunner().invoke(app, [*asked, *code])
    assert done.exit_code == 0, done.output
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "run").rglob("*.parquet")))
    assert (rows.labelled_pixels == (truth & ~(np.arange(64) < 8)[:, None]).sum()).all()
    source, = find_sources(tmp_path)
    assert source.checksum() not in set(rows.checksum)
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--data", str(tmp_path), *code])
    assert shown.exit_code == 0, shown.output


# --- folders

def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


@pytest.mark.parametrize(("image", "label"), [
    ("images/a.png", "masks/a.png"), ("images/a.png", "labels/a.tif"), ("image/a.png", "mask/a.png"), ("img/a.png", "labels/a.png"),
    ("images/a.png", "masks/a_mask.png"), ("images/a.png", "images/a_mask.png"), ("a.png", "a_mask.png"),
    ("a_sat.jpg", "a_mask.png"),
    ("Images/a.png", "Masks/a.png"), ("images_png/a.png", "masks_png/a.png"), ("images/image_a.png", "masks/mask_a.png"),
    ("image/a_RGB.tif", "label/a_label.tif")])
def test_labels_are_found_where_people_keep_them(tmp_path, image, label):
    put(tmp_path, image, label)
    tile, = find_tiles(tmp_path)
    assert (tile.image, tile.label) == (tmp_path / image, tmp_path / label)
    assert [(s.tile.image, s.tile.label) for s in find_sources(tmp_path)] == [(tmp_path / image, tmp_path / label)]


def test_what_a_system_leaves_is_no_tile(tmp_path):
    put(tmp_path, "town/image/a.png", "town/label/a.png", "town/image/._a.png", "__MACOSX/town/image/a.png", ".cache/image/a.png")
    for name in ("Thumbs.db", ".DS_Store"):
        (tmp_path / "town/image" / name).write_bytes(b"\0")
    assert [source.key for source in find_sources(tmp_path)] == ["town/a.png"]


@pytest.mark.parametrize(("names", "both"), [
    (("image/a.png", "image/a.tif"), ("a.png", "a.tif")), (("image/a.png", "label/a.png", "label/a.tif"), ("a.png", "a.tif")),
    (("image/a.png", "label/a.png", "masks/a.png"), ("label", "masks")), (("image/a.png", "images/b.png"), ("image", "images")),
    (("image/a.png", "image/a_sat.png", "label/a_mask.png"), ("a.png", "a_sat.png")),
    (("images/a.png", "images/a_mask.png", "masks/a.png"), ("a_mask.png", "masks"))])
def test_what_may_belong_to_two_is_named(tmp_path, names, both):
    put(tmp_path, *names)
    for find in (find_tiles, find_sources):
        with pytest.raises(ValueError) as raised:
            find(tmp_path)
        assert all(name in str(raised.value) for name in both)


@pytest.mark.slow
def test_a_study_says_how_many_labels_it_found(tmp_path, monkeypatch, capsys):
    write_scenes(tmp_path / "data/town", (2, 3), 64)
    (tmp_path / "data/town/label").rename(tmp_path / "data/town/truth")
    asked = ["evaluate", "--data", str(tmp_path / "data"), "--methods", "random", "--grid-size", "2", "--n-samples", "2"]
    blind = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "blind")])
    assert blind.exit_code == 0 and all(words in blind.output for words in ("none of 2 tiles has a label", "masks", "--labels"))
    named = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "named"), "--labels", "truth"])
    assert named.exit_code == 0 and "2 of 2 tiles have a label (in truth)" in named.output
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "named").rglob("*.parquet")))
    assert rows[rows.status == "ok"].clean_iou.notna().any()
    for wrong in ("truht", tmp_path / "nowhere"):
        said = run(monkeypatch, capsys, *asked, "--out", tmp_path / "none", "--labels", wrong)
        assert "no label for any of 2 tiles" in said and str(wrong) in said
    assert not (tmp_path / "none").exists()


# --- size and place

def test_only_what_a_window_touches_is_decoded(tmp_path, monkeypatch):
    from entropy_captum import tiff
    decoded, real = [], tiff.decode
    monkeypatch.setattr(tiff, "decode", lambda page, size, *rest, **more: decoded.append(size) or real(page, size, *rest, **more))
    window = slice(20, 30), slice(17, 31)
    for options, size in ((dict(tile=16), (16, 16)), (dict(), (10, 56)), (dict(deflate=True), (16, 56))):
        path = write_tiff(tmp_path / "a.tif", dict(values=RGB, **options))
        decoded.clear()
        assert np.array_equal(read_image(path, window), RGB[window]) and decoded == [size], options
    with pytest.raises(ValueError, match=r"rows 30 to 50 .* not inside an image of 56 x 40"):
        read_image(path, (slice(30, 50), slice(0, 8)))


@pytest.mark.slow
def test_above_the_limit_there_are_windows_or_one_line(tmp_path, monkeypatch, capsys):
    scene = procedural_scene(3, 256)
    write_tiff(tmp_path / "large.tif", dict(values=scene.image, tile=16))
    Image.fromarray(scene.image).save(tmp_path / "large.png")
    y, x = np.argwhere(scene.instances == 3).mean(0).astype(int)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)
    for name, extra in (("large.tif", []), ("large.png", []), ("large.png", ["--point", x, y, "--window", 96])):
        said = run(monkeypatch, capsys, "explain", tmp_path / name, *extra, "--out", tmp_path / "out")
        assert "65,536" in said and "16,000" in said and "--window" in said and "MAX_IMAGE_PIXELS" in said
    monkeypatch.setattr("entropy_captum.explanation.choose_region", lambda request, model, target: np.ones((96, 96), bool))
    asked = ["explain", str(tmp_path / "large.tif"), "--point", str(x), str(y), "--window", "96", "--grid-size", "2",
             "--n-samples", "2"]
    done = CliRunner().invoke(app, [*asked, "--method", "random", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    # A file that claims to be huge costs nothing.
    huge = bytearray(write_png(tmp_path / "huge.png", RGB, 8, 2).read_bytes())
    huge[16:24] = struct.pack(">II", 100_000, 100_000)
    (tmp_path / "huge.png").write_bytes(huge)
    assert "100000 x 100000" in run(monkeypatch, capsys, "explain", tmp_path / "huge.png", "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_window_keeps_its_place(tmp_path, monkeypatch, capsys):
    scene = procedural_scene(3, 256)
    path = tmp_path / "scene.png"
    Image.fromarray(scene.image).save(path)
    Image.fromarray(scene.label.astype(np.uint8) * 255).save(tmp_path / "label.png")
    monkeypatch.setattr("entropy_captum.explanation.predict_mask", lambda model, image, target, valid: (
        (np.arange(image.shape[1]) < 40) & np.ones((image.shape[0], 1), bool)))
    asked = ["explain", str(path), "--point", "150", "170", "--window", "64", "--grid-size", "2", "--n-samples", "2", "--label",
             str(tmp_path / "label.png"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    saved = json.loads((tmp_path / "out/pixels.json").read_text())
    rows, columns = slice(*saved["rows"]), slice(*saved["columns"])
    assert (rows, columns) == (slice(138, 202), slice(118, 182)) and saved["size"] == [256, 256] and saved["file"] == str(path)
    assert np.load(tmp_path / "out/entropy.npy").shape == scene.image[rows, columns].shape[:2]
    about = {name: saved.pop(name) for name in ("explained", "made", "files")}  # of the explanation, not of the pixels
    assert Estimate.load(tmp_path / "out/entropy-estimate").settings["pixels"] == saved and "entropy.npy" in about["files"]
    # The same numbers as from the crop, made by hand.
    Image.fromarray(scene.image[rows, columns]).save(tmp_path / "crop.png")
    alone = CliRunner().invoke(app, ["explain", str(tmp_path / "crop.png"), "--point", "32", "32", "--grid-size", "2",
                                     "--n-samples", "2",
                                     "--out", str(tmp_path / "alone")])
    assert alone.exit_code == 0 and np.array_equal(*(np.load(tmp_path / f"{name}/entropy.npy") for name in ("out", "alone")))


def test_errors_speak_of_the_image_not_of_the_window(tmp_path, monkeypatch, capsys):
    Image.fromarray(procedural_scene(3, 256).image).save(tmp_path / "scene.png")
    diagonal = np.eye(64, dtype=bool) & (np.arange(64) > 50)
    monkeypatch.setattr("entropy_captum.explanation.predict_mask", lambda model, image, target, valid: diagonal)
    asked = ["explain", tmp_path / "scene.png", "--point", 150, 170, "--window", 64, "--out", tmp_path / "out"]
    said = run(monkeypatch, capsys, *asked)
    # The window begins at column 118 and row 138; its pixel (51, 51) is the nearest.
    assert "the point (150, 170) lies on no object; the nearest has a pixel at (169, 189)" in said


def test_no_other_module_opens_images():
    package = Path(entropy_captum.__file__).parent
    opening = sorted(path.name for path in package.glob("*.py") if re.search(r"Image\.open|\bimread\b", path.read_text()))
    assert opening == ["files.py", "tiff.py"]


def test_a_mask_is_decoded_once_and_whole_only_if_it_says_where_to_look(tmp_path, monkeypatch):
    image, mask = RNG.integers(0, 256, (120, 160, 3), np.uint8), np.zeros((120, 160), np.uint8)
    mask[80:100, 100:140] = 255
    for name, values in (("image.png", image), ("mask.png", mask)):
        Image.fromarray(values).save(tmp_path / name)
    decoded = []
    monkeypatch.setattr(labels, "read_stored", lambda facts, window: (decoded.append(window), read_stored(facts, window))[1])
    part, whole = (slice(73, 105), slice(103, 135)), (slice(0, 120), slice(0, 160))  # 32 pixels around the point
    for point, window, want in ((None, 32, None), ((119, 89), 32, part), (None, None, whole), ((119, 89), None, whole)):
        decoded.clear()
        found = request.read_request(tmp_path / "image.png", tmp_path / "mask.png", point=point, window=window)
        place = (slice(None), slice(None)) if window is None else found.extent.window
        assert decoded == [want] and np.array_equal(found.region, mask[place] > 0) and np.array_equal(found.image, image[place])


def test_the_checksum_of_a_tile_is_of_its_files_and_what_the_label_means(tmp_path):
    write_scenes(tmp_path, (1,), 32)
    image, label = ((tmp_path / name / "scene_1.png").read_bytes() for name in ("image", "label"))
    for options, end in (({}, b""), ({"values": LabelValues({"building": ((255,),)})}, b"building=255")):
        source, = find_sources(tmp_path, **options)
        assert source.checksum() == hashlib.blake2b(image + label + end, digest_size=8).hexdigest()
    (tmp_path / "label" / "scene_1.png").unlink()
    (tmp_path / "label").rmdir()
    assert find_sources(tmp_path)[0].checksum() == hashlib.blake2b(image + b"none", digest_size=8).hexdigest()


# --- the guide's georeference

GUIDE = Path(__file__).resolve().parent.parent / "nbs/guides/own_data.ipynb"


def guide_functions() -> dict:
    names: dict = {"np": np}
    for cell in json.loads(GUIDE.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "def affine_of" in source:
            exec(source, names)
    return names


@pytest.mark.parametrize(("tags", "pixel", "place"), [
    ({33550: (0.5, 0.25, 0.0), 33922: (0.0, 0.0, 0.0, 100.0, 900.0, 0.0)}, (10, 20), (105.0, 895.0)),
    ({33550: (0.5, 0.25, 0.0), 33922: (2.0, 4.0, 0.0, 100.0, 900.0, 0.0)}, (10, 20), (104.0, 896.0)),
    # Rotated by 30 degrees, and south-up: GDAL writes a matrix instead.
    ({34264: (0.433, -0.25, 0.0, 100.0, -0.25, -0.433, 0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)}, (10, 20),
     (100 + 4.33 - 5.0, 900 - 2.5 - 8.66)),
    ({34264: (0.5, 0.0, 0.0, 100.0, 0.0, 0.5, 0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)}, (10, 20), (105.0, 910.0)),
    # The tie point is the middle of a pixel.
    ({33550: (0.5, 0.25, 0.0), 33922: (0.0, 0.0, 0.0, 100.0, 900.0, 0.0), 34735: (1, 1, 0, 1, 1025, 0, 1, 2)}, (10, 20),
     (104.75, 895.125))])
def test_the_guide_finds_pixels_in_rotated_and_south_up_rasters(tags, pixel, place):
    matrix = guide_functions()["affine_of"](tags)
    assert np.allclose(matrix @ (*pixel, 1), place)


@pytest.mark.parametrize("number", [0, 9])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path, number):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif(number))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize(("values", "example"), [
    ([0, 7, 7], "7"), ([0, 0, 7], "7"), ([0, 3, 9, 9, 9], "9"), ([2, 2, 2, 5], "5"), ([0, 0.5, 0.25, 3], "3"),
    ([1234567, 0], "1234567"), ([0, 0.5, 1], "1"), ([np.inf, np.inf, 0, 4], "4"), ([7], "7"), ([0, 0.5, 0.25], None)], ids=str)
def test_a_label_that_is_not_clear_is_answered_by_what_can_be_typed(tmp_path, values, example):
    path = write_tiff(tmp_path / "label.tif", dict(values=np.array(values, np.float32).reshape(1, -1, 1), t262=[1], t339=[3]))
    with pytest.raises(ValueError, match="only whole numbers" if example is None else f"building={example},") as told:
        read_mask(path)
    if example is not None:
        code = re.search(r"--label-values (\S+),", str(told.value))[1]
        assert read_mask(path, labels.parse_values([code])).any()


def test_what_is_not_a_number_in_a_label_is_not_known(tmp_path):
    values = np.array([[0, 1, np.nan, 1]], np.float32)
    path = write_tiff(tmp_path / "label.tif", dict(values=values[..., None], t262=[1], t339=[3]))
    for code in (None, LabelValues({"building": ((1,),)})):
        found = labels.read_label(path, code)
        assert np.array_equal(found.mask, values == 1) and np.array_equal(found.known, ~np.isnan(values))
