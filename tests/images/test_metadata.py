"""Metadata of any size and damage decide neither whether an image is read nor what is on the terminal; only which side
is up."""

from __future__ import annotations

import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import chunk, exif, grey_tiff, png, png_of, saved, tiff, writes
from PIL import Image, PngImagePlugin

from brainkit.errors import DataError, ImageError
from brainkit.images import decode, verify

pytestmark = pytest.mark.filterwarnings("error")  # as under python -W error

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))
LARGE = zlib.compress(b"x" * 3_000_000)
NO_END = (b"", b"\0\0\0", chunk(b"IEND", b"")[:-2])


def same(tmp_path: Path, data: bytes, expected: Image.Image = PICTURE) -> None:
    """Decoding gives the pixels, in any door, and verifying agrees."""
    path = tmp_path / "image"
    path.write_bytes(data)
    np.testing.assert_array_equal(np.asarray(decode(path)), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(data))), np.asarray(expected))
    assert set(verify(path)) == set(expected.size)


# ---- PNG


ANCILLARY = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LARGE),
    "tEXt": chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
    "iCCP": chunk(b"iCCP", b"display\0\0" + LARGE),
    "all text together": 70 * chunk(b"zTXt", b"part\0\0" + zlib.compress(b"x" * 1_000_000)),
    "EXIF as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    "EXIF as text, broken": chunk(b"tEXt", b"Raw profile type exif\0\n\n\nno hexadecimal"),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "XMP, broken": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE[:50] + b"\xff" * 9),
    "XMP, empty": chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    "compressed in an unknown way": chunk(b"zTXt", b"a\0\7abc") + chunk(b"iCCP", b"a\0\7abc"),
    "not latin": chunk(b"iTXt", b"\xff\xfe\0\0\0\0\0\xff\xfe"),
    "too short": b"".join(chunk(kind, b"") for kind in (b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"tIME", b"iCCP", b"zTXt")),
    "wrong checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"!",
    "private": chunk(b"abCd", b"\0" * 100_000),
    "EXIF broken": chunk(b"eXIf", b"II*\0\xff\xff\0\0" + b"\7" * 9),
    "EXIF without end": chunk(b"eXIf", exif(1)[:-9]),
    "animation broken": chunk(b"acTL", b"\0" * 8) + chunk(b"fcTL", b"\0" * 26) + chunk(b"acTL", b"\0"),
    "animation of wrong order": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fdAT", b"\0\0\0\7abc"),
}


@pytest.mark.parametrize("extra", ANCILLARY.values(), ids=ANCILLARY)
def test_png_with_anything_that_is_no_pixel(tmp_path: Path, extra: bytes) -> None:
    same(tmp_path, png_of(PICTURE, before=extra))
    same(tmp_path, png_of(PICTURE, after=extra))


@pytest.mark.parametrize("end", [*NO_END, chunk(b"IEND", b"") + b"appended" * 1000], ids=["none", "3", "cut", "more"])
def test_png_whose_end_is_missing_or_exceeded(tmp_path: Path, end: bytes) -> None:
    same(tmp_path, png_of(PICTURE, end=end))


def test_png_whose_pixels_are_damaged_is_refused(tmp_path: Path) -> None:
    whole = png_of(PICTURE, before=ANCILLARY["tEXt"])
    at = whole.index(b"IDAT")
    for damaged in (whole[: at + 200], whole[: at + 100] + b"\0\0\0" + whole[at + 103 :], whole[:20]):
        path = tmp_path / "image.png"
        path.write_bytes(damaged)
        for read in (decode, verify):
            with pytest.raises(ImageError, match=r"image\.png: "):
                read(path)


def test_unpacking_is_bounded() -> None:
    """100 MB of a text that would have to be read take the memory of 1 MB."""
    bomb = zlib.compress(b"\0" * 100_000_000, 1)
    file = png_of(PICTURE, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb))
    tracemalloc.start()
    decode(io.BytesIO(file))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_directories_that_claim_much_are_bounded() -> None:
    """4,000 tags of a megabyte each, all the same one, do not take 4 GB."""
    records = b"".join(struct.pack("<HHII", 40_000 + number, 1, 1_000_000, 8) for number in range(4_000))
    data = b"II*\0" + struct.pack("<IH", 8, 4_000) + records + bytes(1_000_000)
    tracemalloc.start()
    file = png_of(PICTURE, before=chunk(b"eXIf", data))
    decode(io.BytesIO(file))
    with pytest.raises(ImageError):
        decode(io.BytesIO(data))
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def upright() -> tuple[Image.Image, Image.Image]:
    """A picture as it is stored with orientation 6, and upright."""
    return PICTURE, PICTURE.transpose(Image.Transpose.ROTATE_270)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
TEXT_EXIF = b"\nexif\n      26\n" + exif(6, ">").hex().encode() + b"\n"


@pytest.mark.parametrize(
    "told",
    [
        chunk(b"eXIf", exif(6)),
        chunk(b"eXIf", exif(6, ">")),
        chunk(b"eXIf", b"Exif\0\0" + exif(6)),
        chunk(b"eXIf", exif(6)[:-4]),  # whole up to the orientation
        chunk(b"tEXt", b"Raw profile type exif\0" + TEXT_EXIF),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(TEXT_EXIF)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        chunk(b"eXIf", exif(6)) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.replace(b"6", b"3")),
    ],
)
def test_png_is_turned(tmp_path: Path, told: bytes) -> None:
    stored, turned = upright()
    same(tmp_path, png_of(stored, before=told), turned)
    same(tmp_path, png_of(stored, after=told), turned)


@pytest.mark.parametrize("orientation", [0, 1, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    same(tmp_path, png_of(PICTURE, before=chunk(b"eXIf", exif(orientation))))


# ---- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


SEGMENTS = {
    "EXIF damaged": segment(0xE1, b"Exif\0\0II*\0\xff\xff\0\0" + b"\7" * 9),
    "EXIF of another length": segment(0xE1, b"Exif\0\0" + exif(1)[:-9]),
    "EXIF of many parts": 200 * segment(0xE1, b"Exif\0\0" + b"\0" * 65_000),
    "profile damaged": segment(0xE2, b"ICC_PROFILE\0\7\1" + b"\xff" * 99) * 3,
    "profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "several images, damaged": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + b"\x99" * 40),
    "photoshop damaged": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0"),
    "comments": 300 * segment(0xFE, b"c" * 65_000),
    "Adobe's, cut off": segment(0xEE, b"Ad"),
    "filled up": b"\xff" * 1000,
    "zeros between segments": b"\0" * 100,
}


@pytest.mark.parametrize("extra", SEGMENTS.values(), ids=SEGMENTS)
def test_jpeg_with_anything_that_is_no_pixel(tmp_path: Path, extra: bytes) -> None:
    plain = saved(PICTURE, "JPEG")
    expected = Image.open(io.BytesIO(plain)).convert("RGB")
    at = 4 + struct.unpack_from(">H", plain, 4)[0]  # after JFIF's segment
    same(tmp_path, plain[:at] + extra + plain[at:], expected)
    if extra.startswith(b"\xff"):
        same(tmp_path, plain[:2] + extra + plain[2:], expected)
    same(tmp_path, plain + extra, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "progressive", "without JFIF"])
def test_the_pixels_of_jpeg_are_those_of_pillow(tmp_path: Path, mode: str) -> None:
    """What says which colours the components are is not lost with the metadata."""
    image = PICTURE.convert(mode if mode in ("L", "CMYK") else "RGB")
    options = {"progressive": True} if mode == "progressive" else {}
    data = saved(image, "JPEG", exif=b"Exif\0\0" + exif(1), comment=b"a comment", **options)
    if mode == "without JFIF":
        at = 4 + struct.unpack_from(">H", data, 4)[0]
        data = data[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + data[at:]  # components are red, green and blue
        assert np.abs(np.asarray(decode(io.BytesIO(data))).astype(int) - np.asarray(PICTURE)).mean() > 20
    same(tmp_path, data, Image.open(io.BytesIO(data)).convert("RGB"))


def test_jpeg_is_turned_by_xmp_if_exif_say_nothing(tmp_path: Path) -> None:
    plain = saved(PICTURE, "JPEG")
    expected = Image.open(io.BytesIO(plain)).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    same(tmp_path, plain[:2] + xmp + plain[2:], expected)
    no_orientation = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    same(tmp_path, plain[:2] + no_orientation + xmp + plain[2:], expected)


def test_jpeg_of_a_kind_that_cannot_be_read_says_so() -> None:
    data = bytearray(saved(PICTURE, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # bits
    with pytest.raises(ImageError, match="12-bit"):
        decode(io.BytesIO(bytes(data)))


# ---- TIFF, WebP, AVIF, GIF


def tags(**more: tuple[int, list[int]]) -> dict[int, tuple[int, list[int]]]:
    size = {256: (3, [24]), 257: (3, [16]), 258: (3, [8, 8, 8]), 262: (3, [2]), 277: (3, [3]), 278: (3, [16])}
    return {**size, **{int(name[1:]): value for name, value in more.items()}}


OUTSIDE = struct.pack("<HHII", 305, 2, 1000, 4_000_000_000)
LONG = struct.pack("<HHII", 65_000, 2, 4_000_000_000, 8)


@pytest.mark.parametrize(
    "file",
    [
        tiff(PICTURE.tobytes(), tags(), extra=OUTSIDE + LONG),
        tiff(PICTURE.tobytes(), tags(), extra=struct.pack("<HHII", 700, 99, 1, 8)),
        tiff(PICTURE.tobytes(), tags(t34665=(4, [4_000_000]), t34853=(4, [8]), t330=(4, [8, 8]))),
        tiff(PICTURE.tobytes(), tags(t282=(3, [1, 2, 3]), t259=(3, [1, 1, 1]), t284=(3, [1, 7]))),
        tiff(PICTURE.tobytes(), tags(t34675=(1, list(range(200))), t700=(1, list(b"<x:xmpmeta>")))),
        tiff(PICTURE.tobytes(), tags())[:-4],  # no next directory, and no end
    ],
    ids=["outside the file", "of no known type", "other directories", "too many values", "profile", "cut"],
)
def test_tiff_with_damaged_tags(tmp_path: Path, file: bytes) -> None:
    same(tmp_path, file)


def test_tiff_is_turned(tmp_path: Path) -> None:
    stored, turned = upright()
    same(tmp_path, tiff(stored.tobytes(), tags(t274=(3, [6]))), turned)
    same(tmp_path, tiff(stored.tobytes(), tags(t274=(3, [6, 7]))), turned)
    same(tmp_path, tiff(stored.tobytes(), tags(t700=(1, list(XMP)))), turned)
    for compression in ("raw", "tiff_lzw", "jpeg"):
        exif_of_pillow = Image.Exif()
        exif_of_pillow[274] = 6
        data = saved(stored, "TIFF", compression=compression, exif=exif_of_pillow)
        expected = Image.open(io.BytesIO(data))
        expected.load()  # Pillow turns it
        same(tmp_path, data, expected.convert("RGB"))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def test_webp_with_damaged_exif(tmp_path: Path) -> None:
    plain = saved(PICTURE, "WEBP", lossless=True)
    frame = (b"VP8L", plain[20:])
    canvas = (b"VP8X", struct.pack("<I", 0b1000) + (23).to_bytes(3, "little") + (15).to_bytes(3, "little"))
    for damaged in (b"Exif\0\0II*\0\xff\xff\0\0", b"no EXIF", b"II*\0\x08\0\0\0\xff\xff" + b"\x99" * 40):
        same(tmp_path, riff(canvas, frame, (b"EXIF", damaged)))
    same(tmp_path, riff(canvas, frame, (b"EXIF", exif(6))), upright()[1])


def test_avif_with_damaged_exif(tmp_path: Path) -> None:
    if not writes("AVIF"):
        pytest.skip("this Pillow has no AVIF")
    exif_of_pillow = Image.Exif()
    exif_of_pillow[274], exif_of_pillow[271] = 6, "a camera"
    data = saved(PICTURE, "AVIF", quality=100, exif=exif_of_pillow)
    turned = Image.open(io.BytesIO(saved(PICTURE, "AVIF", quality=100))).transpose(Image.Transpose.ROTATE_270)
    same(tmp_path, data, turned)
    at = data.rindex(b"MM\0*")
    same(tmp_path, data[:at] + b"XXXX" + data[at + 4 :], turned)
    same(tmp_path, data[: at + 4] + b"\xff" * 8 + data[at + 12 :], turned)


def test_gif_with_a_long_comment(tmp_path: Path) -> None:
    data = saved(PICTURE.convert("P"), "GIF", comment=b"x" * 100_000)
    same(tmp_path, data, PICTURE.convert("P").convert("RGB"))


# ---- the user's process


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "tiff_lzw", "GIF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000"])
def test_limits_of_the_process_are_not_those_of_brainkit(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """108 million pixels are accepted, and Pillow does not speak of an attack. (Here: its limit, scaled down.)"""
    if form != "tiff_lzw" and not writes(form):
        pytest.skip(f"this Pillow has no {form}")
    options = {"compression": "tiff_lzw"} if form == "tiff_lzw" else {}
    data = saved(PICTURE, "TIFF" if form == "tiff_lzw" else form, **options)
    expected = decode(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PICTURE.width * PICTURE.height - 1)
    same(tmp_path, data, expected)


def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        settings = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
        return (*settings, list(warnings.filters), warnings.showwarning, id(warnings.filters))

    files = [png_of(PICTURE, before=extra) for extra in ANCILLARY.values()]
    before = state()
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(decode(io.BytesIO(file)) for file in files)) for _ in "1234"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert state() == before
    assert len(seen) == 4 * len(files)
    assert state() == before


def test_a_subject_with_such_pictures_is_read(tmp_path: Path) -> None:
    """Training refused the whole subject because of one."""
    from brainkit.data.subject import check_images

    class Subject(list[Path]):
        @property
        def images(self) -> list[Path]:
            return self

    paths = []
    for number, extra in enumerate(ANCILLARY.values()):
        paths.append(tmp_path / f"{number:02d}.png")
        paths[-1].write_bytes(png_of(PICTURE, before=extra))
    for full in (False, True):
        check_images(Subject(paths), full=full)  # type: ignore[arg-type]
    (tmp_path / "bad.png").write_bytes(png(24, [b"\0" * 72], end=b"")[:-30])
    with pytest.raises(DataError, match=r"bad\.png"):
        check_images(Subject([*paths, tmp_path / "bad.png"]))  # type: ignore[arg-type]


def test_damaged_tags_give_an_image_or_one_line() -> None:
    file = grey_tiff(bytes(8), (4, 1), 16)
    for at in range(8, len(file)):
        for value in (0, 1, 255):
            text = ""
            try:
                decode(io.BytesIO(file[:at] + bytes([value]) + file[at + 1 :]))
            except ImageError as error:
                text = str(error)
            assert "\n" not in text
