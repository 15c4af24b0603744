"""All kinds of image files and of damage, and equality with timm's transform."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from brainkit import images
from brainkit.errors import DataError, UsageError
from brainkit.images import (
    PUBLISHED,
    Preprocessing,
    content_hash,
    decode,
    find_images,
    normalise,
    prepare,
    to_rgb,
    verify,
)


def photograph(width=60, height=40, seed=0):
    """A smooth image with some noise, so that every interpolation gives different values."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / random.uniform(3, 9) + y / random.uniform(3, 9)) for _ in range(3)]
    values = 128 + 80 * np.stack(waves, -1) + random.normal(0, 15, (height, width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def pixels(image):
    return np.asarray(image)


# ---- equality with timm


@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_equals_timm_bit_for_bit(crop, interpolation):
    timm_data = pytest.importorskip("timm.data")
    for size, (width, height) in [
        (224, (425, 425)),
        (224, (501, 333)),
        (224, (333, 502)),
        (224, (100, 37)),
        (224, (256, 256)),
        (97, (640, 481)),
        (98, (131, 131)),
        (112, (113, 257)),
    ]:
        image = photograph(width, height, seed=width)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        theirs = timm_data.create_transform(
            (3, size, size), interpolation=interpolation, mean=mean, std=std, crop_pct=crop, crop_mode="center"
        )(image).numpy()
        ours = Preprocessing(size, mean, std, interpolation, "crop", crop)
        mine = normalise(prepare(image, ours)[None], ours)[0]
        np.testing.assert_array_equal(mine, theirs, err_msg=f"{size} {width}x{height}")
        assert mine.dtype == np.float32
        assert mine.flags.c_contiguous


@pytest.mark.parametrize("interpolation", list(images.INTERPOLATIONS))
def test_whole_shows_the_whole_image(interpolation):
    image = photograph(301, 77)
    preprocessing = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, interpolation)
    got = prepare(image, preprocessing)
    assert got.shape == (64, 64, 3)
    assert got.dtype == np.uint8
    assert got.flags.writeable
    np.testing.assert_array_equal(got, pixels(image.resize((64, 64), images.INTERPOLATIONS[interpolation])))


def test_normalise_by_hand_and_its_checks():
    batch = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    got = normalise(batch, PUBLISHED)
    assert got.shape == (2, 3, 4, 4)
    expected = (batch[1, 2, 3, 1] / 255 - 0.456) / 0.224
    assert got[1, 1, 2, 3] == pytest.approx(expected, rel=1e-6)
    for bad in (batch.astype(np.float32), batch[0], batch.transpose(0, 3, 1, 2)):
        with pytest.raises(UsageError, match="uint8 of shape"):
            normalise(bad, PUBLISHED)


def test_an_elongated_image_is_refused_only_for_crop():
    line = Image.new("RGB", (1, 20000), "red")
    crop = Preprocessing(224, (0.5,) * 3, (0.5,) * 3, fit="crop", crop_fraction=0.9)
    with pytest.raises(DataError, match="1 x 20000"):
        prepare(line, crop)
    assert prepare(line, PUBLISHED).shape == (224, 224, 3)


# ---- the configuration


def test_preprocessing_json_round_trip():
    original = Preprocessing(384, (0.1, 0.2, 0.3), (1, 2, 3), "bicubic", "crop", 0.875)
    assert Preprocessing.from_json(original.to_json()) == original
    assert original.to_json()["mean"] == [0.1, 0.2, 0.3]
    assert hash(original) == hash(Preprocessing.from_json(original.to_json()))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": 2.5},
        {"size": True},
        {"mean": (1, 2)},
        {"mean": (1, 2, float("nan"))},
        {"mean": "abc"},
        {"std": (0, 1, 1)},
        {"interpolation": "magic"},
        {"fit": "squash"},
        {"crop_fraction": 0},
        {"crop_fraction": 1.5},
        {"crop_fraction": "1"},
    ],
)
def test_preprocessing_refuses_values_out_of_range(change):
    value = {**PUBLISHED.to_json(), **change}
    with pytest.raises(UsageError, match=next(iter(change))):
        Preprocessing(**value)
    with pytest.raises(DataError, match="preprocessing: "):
        Preprocessing.from_json(value)


def test_preprocessing_refuses_unknown_and_missing_keys():
    for value in ({**PUBLISHED.to_json(), "extra": 1}, {"size": 224}, [], None):
        with pytest.raises(DataError, match="expected the keys"):
            Preprocessing.from_json(value)


# ---- modes


def test_an_rgb_png_is_read_unchanged(tmp_path):
    image = photograph()
    image.save(tmp_path / "a.png")
    got = decode(tmp_path / "a.png")
    assert got.mode == "RGB"
    assert type(got) is Image.Image
    np.testing.assert_array_equal(pixels(got), pixels(image))
    assert verify(tmp_path / "a.png") == (60, 40)


def test_opaque_alpha_changes_nothing_and_transparent_is_white(tmp_path):
    image = photograph()
    rgba = image.convert("RGBA")
    rgba.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(decode(tmp_path / "a.png")), pixels(image))
    rgba.putalpha(0)
    rgba.save(tmp_path / "b.png")
    assert (pixels(decode(tmp_path / "b.png")) == 255).all()
    rgba = Image.new("RGBA", (2, 2), (0, 0, 0, 51))  # a fifth black, so four fifths white
    rgba.save(tmp_path / "c.webp", lossless=True, exact=True)
    assert (pixels(decode(tmp_path / "c.webp")) == 204).all()


def test_grey_and_grey_with_alpha(tmp_path):
    grey = photograph().convert("L")
    grey.save(tmp_path / "l.png")
    np.testing.assert_array_equal(pixels(decode(tmp_path / "l.png")), np.stack([pixels(grey)] * 3, -1))
    both = grey.convert("LA")
    both.putpixel((0, 0), (10, 0))
    both.save(tmp_path / "la.png")
    got = pixels(decode(tmp_path / "la.png"))
    assert (got[0, 0] == 255).all()
    assert (got[1, 1] == grey.getpixel((1, 1))).all()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png")
    got = pixels(decode(tmp_path / "p.png"))
    assert got[0, 0].tolist() == [255, 0, 0]
    assert got[1, 1].tolist() == [0, 255, 0]
    image.save(tmp_path / "pt.png", transparency=0)
    got = pixels(decode(tmp_path / "pt.png"))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[1, 1].tolist() == [0, 255, 0]


def test_a_transparent_colour_in_rgb_and_grey(tmp_path):
    image = Image.new("RGB", (2, 1), (9, 8, 7))
    image.putpixel((1, 0), (50, 60, 70))
    image.save(tmp_path / "rgb.png", transparency=(9, 8, 7))
    assert pixels(decode(tmp_path / "rgb.png")).tolist() == [[[255] * 3, [50, 60, 70]]]
    image.convert("L").save(tmp_path / "l.png", transparency=image.convert("L").getpixel((0, 0)))
    assert pixels(decode(tmp_path / "l.png"))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257 * 7, 30000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    got = pixels(decode(tmp_path / f"a.{suffix}"))
    assert got.shape == (1, 4, 3)
    assert got[0, :, 0].tolist() == [0, 7, round(30000 * 255 / 65535), 255]


def test_integer_and_float_images_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(DataError, match=r"i\.tiff: .*signed"):
        decode(tmp_path / "i.tiff")
    Image.fromarray(np.array([[0, 0.5]], np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(DataError, match=r"f\.tiff: .*floating-point"):
        decode(tmp_path / "f.tiff")


def test_one_bit_and_cmyk(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "one.png")
    assert set(pixels(decode(tmp_path / "one.png")).ravel().tolist()) == {0, 255}
    image = photograph()
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    got = decode(tmp_path / "cmyk.jpg")
    assert got.mode == "RGB"
    assert np.abs(pixels(got).astype(float) - pixels(image)).mean() < 8


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "PA", "La", "RGBa", "I;16"]
)
def test_every_mode_becomes_rgb(mode):
    got = to_rgb(Image.new(mode, (3, 2)))
    assert got.mode == "RGB"
    assert got.size == (3, 2)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    got = decode(tmp_path / f"a.{suffix}")
    assert got.size == (20, 10)
    assert (pixels(got) == [255, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = [255, 0, 0]  # red at the top left, blue at the bottom right
    upright[8:, 16:] = [0, 0, 255]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    got = pixels(decode(tmp_path / f"a.{suffix}")).astype(int)
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 6


@pytest.mark.filterwarnings("error")
def test_damaged_exif_does_not_make_an_image_unreadable(tmp_path):
    photograph().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff" + b"\x99" * 40)
    assert decode(tmp_path / "a.jpg").size == (60, 40)


# ---- files that cannot be read


def one_line(path, *words):
    for read in (decode, verify):
        with pytest.raises(DataError) as caught:
            read(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        for word in words:
            assert word in text, text


def test_unreadable_files_get_one_line_that_names_them(tmp_path):
    (tmp_path / "empty.png").touch()
    one_line(tmp_path / "empty.png", "empty file (0 bytes)")
    (tmp_path / "text.png").write_text("this is a text")
    one_line(tmp_path / "text.png", "PNG, JPEG")
    one_line(tmp_path / "missing.png", "file not found")
    (tmp_path / "folder.png").mkdir()
    one_line(tmp_path / "folder.png", "found a folder")
    (tmp_path / "code.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    one_line(tmp_path / "code.eps", "PNG, JPEG")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_truncated_files(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    photograph(200, 150).save(whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(len(content) * 0.6)])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: "):
        decode(path)


def test_verify_finds_a_truncated_png(tmp_path):
    photograph(200, 150).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    one_line(tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for width, height in ((13_100, 13_000), (50_000, 50_000)):  # above our limit, and above Pillow's
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        (tmp_path / "bomb.png").write_bytes(content + chunk(b"IEND", b""))
        one_line(tmp_path / "bomb.png", "170,000,000 pixels")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs file permissions that bind this user")
def test_a_file_without_permission(tmp_path):
    photograph().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    one_line(tmp_path / "a.png", "Permission denied")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded")
    small = photograph(24, 16)
    for suffix in ("png", "jpg", "gif", "webp", "tiff", "bmp"):
        small.save(folder / f"a.{suffix}")
    small.convert("P").save(folder / "b.png", transparency=0)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_one_line(encoded, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(encoded)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (decode, verify):
        text = ""
        try:
            read(path)
        except DataError as error:
            text = str(error)
        assert text == "" or (text.startswith(str(path)) and "\n" not in text)


def test_content_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert content_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        content_hash(tmp_path / "b")


# ---- finding


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_find_images_walks_sorts_and_skips(tmp_path):
    touch(tmp_path, "b.png", "a.JPG", "sub/c.webp", "sub/.hidden.png", ".git/d.png", "notes.txt", "a-b/e.png", "B.png")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["B.png", "a-b/e.png", "a.JPG", "b.png", "sub/c.webp"]
    assert find_images(str(tmp_path / "sub")) == [tmp_path / "sub" / "c.webp"]


def test_find_images_includes_named_files_and_lists_nothing_twice(tmp_path):
    touch(tmp_path, "a.png", "notes.txt", "sub/b.png", ".hidden.png")
    given_paths = [tmp_path / "notes.txt", tmp_path, tmp_path / "a.png", tmp_path / "sub", tmp_path / ".hidden.png"]
    names = [path.name for path in find_images(given_paths)]
    assert names == [".hidden.png", "a.png", "notes.txt", "b.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_find_images_follows_links_without_looping(tmp_path):
    touch(tmp_path, "x/a.png", "y/b.png")
    (tmp_path / "x" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "x" / "self").symlink_to(tmp_path / "x", target_is_directory=True)
    (tmp_path / "y" / "gone.png").symlink_to(tmp_path / "nothing")
    found = [path.name for path in find_images([tmp_path])]
    assert found == ["a.png", "b.png", "gone.png"]
    os.mkfifo(tmp_path / "pipe.png")
    assert len(find_images([tmp_path])) == 3
    with pytest.raises(UsageError, match=r"pipe\.png"):
        find_images([tmp_path / "pipe.png"])


def test_the_errors_of_find_images(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"no images found.*\.png"):
        find_images([tmp_path])
    with pytest.raises(UsageError, match="no images given"):
        find_images([])
