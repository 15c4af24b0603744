"""Pillow's images give the same as their files, and keep their own state."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import chunk, exif, grey_tiff, png, png_of, saved, writes
from PIL import Image, ImageOps, ImageSequence

from brainkit.errors import ImageError
from brainkit.images import PUBLISHED, decode, detach, prepare

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))
COLOURS = ((255, 0, 0), (0, 0, 255), (0, 255, 0))


def files() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[274] = 6
    palette = PICTURE.convert("P")
    found = {
        "jpg": saved(PICTURE, "JPEG", exif=turned),
        "png": saved(PICTURE, "PNG", exif=turned),
        "tif": saved(PICTURE, "TIFF", exif=turned),
        "tif, compressed": saved(PICTURE, "TIFF", exif=turned, compression="tiff_lzw"),
        "webp": saved(PICTURE, "WEBP", exif=turned),
        "gif": saved(palette, "GIF", transparency=3),
        "bmp": saved(PICTURE, "BMP"),
        "ppm": saved(PICTURE, "PPM"),
        "cmyk.jpg": saved(PICTURE.convert("CMYK"), "JPEG"),
        "palette.png": saved(palette, "PNG", transparency=bytes(range(256))),
        "12.tif": grey_tiff(bytes(range(12)), (4, 2), 12),
        "16.png": saved(Image.fromarray(np.array([[0, 300], [40_000, 65_535]], np.uint16)), "PNG"),
        "2 bits.png": png(4, [b"\x1b"], depth=2, colour=0, before=chunk(b"tRNS", b"\0\1")),
        "text.png": png_of(PICTURE, after=chunk(b"tEXt", b"a\0" + b"x" * 3_000_000)),
    }
    if writes("AVIF"):
        found["avif"] = saved(PICTURE, "AVIF", exif=turned)
    if writes("JPEG2000"):
        found["jp2"] = saved(PICTURE, "JPEG2000")
    return found


FILES = files()


def pixels(image: Any) -> np.ndarray:
    return np.asarray(decode(image))


@pytest.mark.parametrize("name", FILES)
def test_an_opened_image_gives_what_its_file_gives(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name])
    right = pixels(path)
    with Image.open(path) as opened:
        for _ in range(2):
            np.testing.assert_array_equal(pixels(opened), right)
        np.testing.assert_array_equal(prepare(opened, PUBLISHED), prepare(decode(path), PUBLISHED))
        if name in ("2 bits.png", "text.png"):
            return  # Pillow itself cannot load them, or loses the transparency
        opened.load()
        np.testing.assert_array_equal(pixels(opened), right)
        np.testing.assert_array_equal(pixels(opened.copy()) if opened.mode[0] != "I" else right, right)


@pytest.mark.parametrize("name", ["jpg", "png", "tif", "webp"])
def test_exif_turn_an_image_once(name: str) -> None:
    right = pixels(io.BytesIO(FILES[name]))
    assert right.shape == (24, 16, 3)

    def opened() -> Image.Image:
        return Image.open(io.BytesIO(FILES[name]))

    for image in (opened().convert("RGB"), opened().copy(), ImageOps.exif_transpose(opened()), decode(opened())):
        np.testing.assert_array_equal(pixels(image), right)
    assert pixels(opened().resize((48, 32))).shape in ((48, 32, 3), (32, 48, 3) if name == "tif" else None)


@pytest.mark.parametrize("name", FILES)
def test_objects_over_one_file_do_not_disturb_each_other(name: str) -> None:
    file = io.BytesIO(FILES[name])
    right = pixels(io.BytesIO(FILES[name]))
    first, second = Image.open(file), Image.open(file)
    at = file.tell()
    for image in (first, second, first):
        np.testing.assert_array_equal(pixels(image), right)
    if name != "webp":
        assert file.tell() == at and first.tile  # still not loaded


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_frame_that_was_sought(form: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in COLOURS]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    animation = Image.open(io.BytesIO(data))
    for at in (0, 2, 1, 0):
        animation.seek(at)
        assert pixels(animation)[0, 0].tolist() == list(COLOURS[at])
        assert animation.tell() == at
    shown = [detach(frame) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]
    assert [pixels(frame)[0, 0].tolist() for frame in shown] == [list(colour) for colour in COLOURS]


def test_what_was_done_to_an_image_counts() -> None:
    draft = Image.open(io.BytesIO(saved(PICTURE.resize((240, 160)), "JPEG")))
    draft.draft("RGB", (60, 40))
    assert decode(draft).size == (60, 40)
    painted = Image.open(io.BytesIO(FILES["bmp"]))
    painted.paste((1, 2, 3), (0, 0, 2, 2))
    assert pixels(painted)[0, 0].tolist() == [1, 2, 3]
    copy = detach(painted)
    painted.paste((9, 9, 9), (0, 0, 2, 2))
    assert pixels(copy)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", FILES)
def test_a_closed_image_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name])
    with Image.open(path) as left:
        pass
    closed = Image.open(path)
    closed.close()
    file = io.BytesIO(FILES[name])
    without_file = Image.open(file)
    file.close()
    for image in (left, closed, without_file) if name != "webp" else (closed,):
        with pytest.raises(ImageError, match=r"image 3: .*close") as caught:
            decode(image, "image 3")
        assert "\n" not in str(caught.value)
    if name not in ("2 bits.png", "text.png"):
        with Image.open(path) as loaded:
            loaded.load()
        np.testing.assert_array_equal(pixels(loaded), pixels(path))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM"])
def test_an_image_that_is_cut_off_is_one_line(form: str) -> None:
    data = saved(PICTURE.resize((240, 160)), form)
    for tried_before in (False, True):
        image = Image.open(io.BytesIO(data[: len(data) * 2 // 3]))
        if tried_before:
            with pytest.raises(OSError, match="truncated"):
                image.load()
        with pytest.raises(ImageError, match=r"image 3: "):
            decode(image, "image 3")


def test_what_decoding_returns_holds_nothing_else() -> None:
    for image in (io.BytesIO(FILES["jpg"]), Image.open(io.BytesIO(FILES["jpg"])), PICTURE):
        got = decode(image)
        assert (type(got), got.mode, got.info) == (Image.Image, "RGB", {})
        assert got is not PICTURE


def test_exif_that_an_image_carries_may_be_damaged() -> None:
    for damaged in (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(3)[:12], "no bytes", None):
        image = PICTURE.copy()
        image.info["exif"] = damaged
        np.testing.assert_array_equal(pixels(image), np.asarray(PICTURE))
