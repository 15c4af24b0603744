"""Pillow's images and arrays given to an encoder: the rows of their files, however many threads decode them."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import exif, saved
from PIL import Image, ImageDraw, ImageSequence

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import save_images

import brainkit
from brainkit.errors import ImageError, UsageError
from brainkit.predict import Encoder, pipeline, predict_to_file

LARGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
FORMS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}


@pytest.fixture(autouse=True)
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "cores", lambda: 8)


@pytest.mark.parametrize("suffix", FORMS)
def test_one_object_many_times(encoder: Encoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(saved(LARGE, FORMS[suffix]))
    right = encoder.predict([path])[0]
    for _ in range(5):
        with Image.open(path) as image:
            rows = encoder.predict([image] * 12, 3)
        assert np.abs(rows - right).max() < 1e-5


@pytest.mark.parametrize("suffix", FORMS)
def test_objects_that_share_a_file(encoder: Encoder, suffix: str) -> None:
    file = io.BytesIO(saved(LARGE, FORMS[suffix]))
    right = encoder.predict([Image.open(io.BytesIO(file.getvalue()))])[0]
    for _ in range(5):
        rows = encoder.predict([Image.open(file) for _ in range(12)])
        assert np.abs(rows - right).max() < 1e-5


def test_one_object_in_calls_of_several_threads(encoder: Encoder) -> None:
    image = Image.open(io.BytesIO(saved(LARGE, "PNG")))
    right = encoder.predict([LARGE])[0]
    found: list[Any] = []

    def call() -> None:
        found.append(encoder.predict([image] * 4))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.abs(rows - right).max() < 1e-5 for rows in found)


def test_every_method_takes_them(encoder: Encoder, readable: list[Path]) -> None:
    images = [Image.open(path) for path in readable]
    twice = images + images
    np.testing.assert_array_equal(encoder.roi_means(twice)["PPA"], np.tile(encoder.roi_means(readable)["PPA"], 2))
    best = encoder.top(images, "PPA", k=3)
    assert [one.row for one in best] == [one.row for one in encoder.top(readable, "PPA", k=3)]
    assert best[0].image is images[best[0].row]


def test_what_takes_paths_only_says_so(encoder: Encoder, readable: list[Path], tmp_path: Path) -> None:
    image = Image.open(readable[0])
    for given in (image, [image], [readable[0], image], [np.zeros((4, 4, 3), np.uint8)], np.zeros((2, 4, 4, 3)), [3]):
        with pytest.raises(UsageError, match="path"):
            brainkit.contrast(given, readable[1:], encoder)
        with pytest.raises(UsageError, match="path"):
            predict_to_file(given, tmp_path / "fmri.npy", encoder)
    assert not (tmp_path / "fmri.npy").exists()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_path_and_its_image_give_one_answer(encoder: Encoder, tmp_path: Path, form: str) -> None:
    path = tmp_path / "turned"
    stored = Image.new("RGB", (16, 8), "black")
    stored.paste("white", (0, 0, 8, 8))
    told = Image.Exif()
    told.load(exif(6))
    path.write_bytes(saved(stored, form, exif=told))
    by_path = encoder.predict([path])
    np.testing.assert_array_equal(encoder.predict([Image.open(path)]), by_path)
    np.testing.assert_array_equal(encoder.predict([Image.open(path).convert("RGB")]), by_path)
    assert np.abs(encoder.predict([np.asarray(stored)]) - by_path).max() > 0.1  # an array is what it is


def test_an_unreadable_image_is_named_by_its_index(encoder: Encoder, readable: list[Path]) -> None:
    whole = saved(LARGE, "JPEG")
    with Image.open(readable[0]) as closed:
        pass
    for bad in (Image.open(io.BytesIO(whole[: len(whole) // 2])), closed, Image.new("F", (4, 4))):
        for images in ([LARGE, readable[0], LARGE, bad], iter([LARGE, readable[0], LARGE, bad])):
            with pytest.raises(ImageError, match=r"images\[3\]: ") as caught:
                encoder.predict(images, 2)
            assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_pillow_is_not_heard_and_loses_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What an image says of itself is no news for the terminal, and no reason to leave it out under -W error."""
    photos = tmp_path / "photos"
    photos.mkdir()
    damaged = b"Exif\0\0II*\0\xff\xff\0\0" + b"\7" * 9
    for name, form, options in (
        ("exif.jpg", "JPEG", {"exif": damaged}),
        ("exif.webp", "WEBP", {"exif": damaged}),
        ("large.png", "PNG", {}),
        ("large.tif", "TIFF", {"compression": "tiff_lzw"}),
    ):
        (photos / name).write_bytes(saved(LARGE, form, **options))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LARGE.width * LARGE.height - 1)
    done = predict_to_file(photos, tmp_path / "fmri.npy", encoder)
    assert (done.n, list(done.skipped)) == (4, [])
    assert encoder.predict(photos).shape[0] == 4
    assert capfd.readouterr() == ("", "")


# ---- iterators


def test_an_iterator_is_read_as_it_goes(encoder: Encoder, readable: list[Path], rows: np.ndarray) -> None:
    opened = 0

    def images() -> Iterator[Image.Image]:
        nonlocal opened
        for path in readable * 10:
            opened += 1
            with Image.open(path) as image:  # closed when the next is asked for
                yield image

    results = encoder._rows(images(), 2, False, encoder.run)
    first = next(results)
    assert opened <= 2 * (2 + 8)
    np.testing.assert_allclose(np.concatenate([first, *results]), np.tile(rows, (10, 1)), atol=1e-5)
    assert opened == 100
    assert encoder.predict(iter([])).shape == (0, rows.shape[1])


def test_what_an_iterator_draws_over_was_seen_before(encoder: Encoder) -> None:
    canvas, buffer = Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), np.uint8)

    def drawn(kind: str) -> Iterator[Any]:
        for grey in range(0, 250, 10):
            ImageDraw.Draw(canvas).rectangle((0, 0, 9, 9), fill=(grey,) * 3)
            buffer[:] = grey
            yield canvas if kind == "canvas" else buffer

    right = encoder.predict([Image.new("RGB", (9, 9), (grey,) * 3) for grey in range(0, 250, 10)])
    for kind in ("canvas", "buffer"):
        np.testing.assert_allclose(encoder.predict(drawn(kind)), right, atol=1e-6)


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_frames_of_an_animation(encoder: Encoder, form: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("#ff0000", "#0000ff", "#00ff00")]
    options = {"lossless": True} if form == "WEBP" else {}
    animation = Image.open(io.BytesIO(saved(frames[0], form, save_all=True, append_images=frames[1:], **options)))
    np.testing.assert_allclose(
        encoder.predict(ImageSequence.Iterator(animation), 1), encoder.predict(frames), atol=1e-6
    )


def test_the_frames_of_an_iterable(encoder: Encoder) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("#ff0000", "#0000ff", "#00ff00")]
    animation = Image.open(io.BytesIO(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])))

    class Video:
        def __iter__(self) -> Iterator[Image.Image]:
            yield from ImageSequence.Iterator(animation)

    right = encoder.predict(frames)
    np.testing.assert_allclose(encoder.predict(Video()), right, atol=1e-6)
    roi = next(iter(encoder.rois))
    expected = [(one.row, pytest.approx(one.mean, abs=1e-5)) for one in encoder.top(frames, roi, 3)]
    for images in (Video(), ImageSequence.Iterator(animation)):
        found = encoder.top(images, roi, 3)
        assert [(one.row, one.mean) for one in found] == expected
        assert found[0].image.getpixel((0, 0)) == frames[found[0].row].getpixel((0, 0))


def test_an_error_of_an_iterator_reaches_its_caller(encoder: Encoder) -> None:
    before = threading.active_count()

    def broken() -> Iterator[Image.Image]:
        yield LARGE
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match="database"):
        encoder.predict(broken(), 1)
    with pytest.raises(UsageError, match=r"images\[1\]"):
        encoder.predict(iter([LARGE, 3]))
    assert threading.active_count() == before


# ---- arrays


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 8, 8), np.float32),  # of a tensor
        np.zeros((2, 8, 8, 3), np.float64),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.int16),
        [np.zeros((8, 8, 3), np.float32)],
        [np.zeros((3, 8, 8), np.uint8)],
        [np.zeros((8, 8), np.uint8)],
        np.array(["a.png"]),
    ],
)
def test_arrays_of_another_range_or_order_are_refused(encoder: Encoder, images: Any) -> None:
    with pytest.raises(UsageError, match=r"uint8") as caught:
        encoder.predict(images)
    assert "shape" in str(caught.value)


def test_a_tensor_is_refused(encoder: Encoder) -> None:
    torch = pytest.importorskip("torch")
    for images in (torch.zeros(2, 3, 8, 8), [torch.zeros(3, 8, 8)]):
        with pytest.raises(UsageError, match="Tensor"):
            encoder.predict(images)


def test_an_array_without_pixels_is_one_line(encoder: Encoder) -> None:
    for shape in ((1, 0, 5, 3), (1, 5, 0, 3)):
        with pytest.raises(ImageError, match=r"images\[0\]: .*pixel"):
            encoder.predict(np.zeros(shape, np.uint8))


def test_paths_are_not_read_in_the_thread_that_asks(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding stays in threads, for paths and for images that were only opened."""
    from brainkit.predict.inputs import decode as decoding

    paths = save_images(tmp_path, 6)
    seen: set[str] = set()

    def noted(*given: Any) -> Image.Image:
        seen.add(threading.current_thread().name)
        return brainkit_decode(*given)

    brainkit_decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", noted)
    with contextlib.ExitStack() as stack:
        encoder.predict(paths)
        encoder.predict([stack.enter_context(Image.open(path)) for path in paths])
    assert seen and all(name.startswith("decode") for name in seen)
