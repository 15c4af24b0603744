"""What can be predicted on this machine: files, folders, patterns and lists; and the list of images itself."""

from __future__ import annotations

import glob
import io
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from image_inputs import names, picture, png, predict, save, tar_bytes

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.images import find_images
from brainkit.predict import Encoder, list_images
from brainkit.predict.inputs import image_list
from brainkit.predict.inputs.braces import expand_braces
from brainkit.predict.inputs.image_source import MAX_BYTES, ImageSource
from brainkit.predict.inputs.lines import read_lines

no_odd_names = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")


# --- files and folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ("photos",),
        ("./photos/sub", "photos"),
        ("photos/sub2", "photos/b.png", "photos/sub", "photos/readme.md"),
        ("photos/sub", "photos/sub/a.png", "photos"),
    ],
)
def test_files_and_folders_come_as_find_images_has_them(working_folder: Path, given: tuple[str, ...]) -> None:
    Path("photos/readme.md").write_text("named outright")
    Path("photos/loop").symlink_to("../photos", target_is_directory=True)
    Path("photos/link.png").symlink_to("b.png")
    Path("photos/nowhere.png").symlink_to("absent.png")
    Path("photos/itself.png").symlink_to("itself.png")
    expected = [str(path) for path in find_images(given)]
    assert len(expected) >= 4
    assert names(*given) == expected


@no_odd_names
def test_order_is_that_of_find_images_for_any_name(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    letters = [b"a", b"B", b" ", b".", b"-", b"\n", b"\x01", b"\xff", b"\xe9", "ü".encode(), "😀".encode(), b"~", b"0"]
    for _ in range(150):
        parts = [b"x" + b"".join(draw.choice(letters, draw.integers(1, 5))) for _ in range(draw.integers(1, 4))]
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), *parts)) + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = find_images(tmp_path)
    assert len(expected) > 100
    assert names(tmp_path) == [str(path) for path in expected]


def test_what_is_left_out_is_noted(working_folder: Path, encoder: Encoder) -> None:
    rows, description = predict(encoder, "photos", "photos/b.png")
    assert len(rows) == 6
    found = {note["path"]: note["note"] for note in description["notes"]}
    assert found.keys() == {"photos/b.png", "photos"}
    assert found["photos"].startswith("1 non-image file ") and found["photos"].endswith("photos/readme.txt")


def test_what_is_missing_is_an_error(working_folder: Path) -> None:
    Path("photos/empty").mkdir()
    os.mkfifo("photos/pipe.png")
    for given, named in (
        ("nowhere", "nowhere"),
        ("photos/*.gif", "photos/*.gif"),
        ("nowhere/**/*.png", "nowhere/**/*.png"),
        ("@absent.txt", "absent.txt"),
        ("shard-{0..2}.tar", "shard-0.tar"),
        ("photos/empty", "photos/empty"),
        ("photos/pipe.png", "photos/pipe.png"),
        ("x" * 5000, "x" * 5000),
        ("a\0b", "a\0b"),
    ):
        with pytest.raises(UsageError) as caught:
            list_images(given)
        assert str(caught.value).startswith(f"{named}: ")
    with pytest.raises(UsageError):
        list_images([])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(working_folder: Path) -> None:
    Path("photos/sub").chmod(0)
    try:
        with pytest.raises(DataError, match="photos/sub"):
            list_images("photos")
    finally:
        Path("photos/sub").chmod(0o755)


# --- patterns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "photos/*.png",
        "photos/**/*.png",
        "photos/*/a.png",
        "photos/sub*/*",
        "photos/[ab].*",
        "photos/**/deep/*",
        "p*/?.jpg",
    ],
)
def test_patterns_find_what_a_shell_would(working_folder: Path, pattern: str) -> None:
    expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    assert expected
    # A folder that a pattern names is looked into; with "**" that would be done twice.
    folders = [] if "**" in pattern else [path for path in glob.glob(pattern) if os.path.isdir(path)]
    below = {str(path) for folder in folders for path in find_images(folder)}
    assert set(names(pattern)) == expected | below
    assert names(pattern) == [str(path) for path in find_images(names(pattern))]


def test_a_pattern_with_a_loop_ends(working_folder: Path) -> None:
    Path("photos/sub/up").symlink_to("..", target_is_directory=True)
    assert len(names("photos/**/*.png")) == 5


def test_a_name_that_looks_like_a_pattern_is_a_name_first(working_folder: Path) -> None:
    save(Path("photos/[b].png"), 9)
    save(Path("photos/{0..3}.png"), 10)
    assert names("photos/[b].png") == ["photos/[b].png"]
    assert names("photos/{0..3}.png") == ["photos/{0..3}.png"]


def test_braces_are_written_out_in_order() -> None:
    assert list(expand_braces("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert list(expand_braces("{b,a}{1..0}")) == ["b1", "b0", "a1", "a0"]
    assert list(expand_braces("{8..11}")) == ["8", "9", "10", "11"]
    # A range nobody could hold in memory.
    assert next(expand_braces("{000000000000..999999999999}")) == "0" * 12


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_list_keeps_its_order_and_is_relative_to_its_folder(working_folder: Path, encoder: Encoder) -> None:
    Path("photos/list.txt").write_bytes(
        b"\xef\xbb\xbfsub/a.png\r\nb.png\n\nabsent.png\nb.png\n" + os.fsencode(working_folder) + b"/photos/B.png"
    )
    again = f"{working_folder}/photos/B.png"
    expected = ["photos/sub/a.png", "photos/b.png", "photos/absent.png", "photos/b.png", again]
    assert names("photos/list.txt") == names("@photos/list.txt") == expected
    rows, description = predict(encoder, "photos/list.txt")
    assert description["images"] == [name for name in expected if "absent" not in name]
    assert [entry["path"] for entry in description["skipped"]] == ["photos/absent.png"]
    assert {entry["path"] for entry in description["notes"]} == {"photos/list.txt"}
    np.testing.assert_allclose(rows, encoder.predict(description["images"]), atol=1e-5)
    # What has no order of its own comes first.
    assert names("photos/list.txt", "photos/sub2")[0] == "photos/sub2/x.png"


def test_a_list_on_standard_input(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"photos/b.png\nphotos/a.jpg\n", b"photos/b.png\0photos/a.jpg\0", b"photos/b.png\nphotos/a.jpg"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert names("-") == ["photos/b.png", "photos/a.jpg"]


@no_odd_names
def test_names_with_newlines_travel_by_zero_bytes(working_folder: Path, encoder: Encoder) -> None:
    odd = os.fsdecode(b"photos/a\nb \xff.png")
    save(Path(odd), 20)
    Path("list.txt").write_bytes(os.fsencode(odd) + b"\0photos/a.jpg\0")
    rows, description = predict(encoder, "@list.txt")
    assert description["images"] == ["photos/a\nb \\xff.png", "photos/a.jpg"]
    assert len(rows) == 2


def test_a_file_that_is_no_list_is_refused(working_folder: Path) -> None:
    Path("list.txt").write_bytes(b"x" * 300_000)
    with pytest.raises(DataError, match=r"list\.txt"):
        list_images("list.txt")


def test_lines_do_not_depend_on_how_they_are_read() -> None:
    wanted = [f"{'x' * (number % 300)}{number}.png" for number in range(3000)]
    text = "\n".join(wanted).encode()
    for content in (text, text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\0"), text.decode().encode("utf-16")):
        assert list(read_lines(io.BytesIO(content).read, "list")) == list(enumerate(wanted, 1))


# --- odd and hostile images -------------------------------------------------------------------------------------


def grey_png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that claims a size, and holds so many rows of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (width + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_odd_images_are_rows_and_hostile_ones_reported(working_folder: Path, encoder: Encoder) -> None:
    odd = Path("odd")
    odd.mkdir()
    picture(3).save(odd / "jpeg in truth.png", format="JPEG")  # the content decides, not the name
    picture(3).save(odd / "gif in truth.jpg", format="GIF")
    Image.new("RGB", (1, 1), "red").save(odd / "one pixel.png")
    (odd / "wide.png").write_bytes(grey_png(30_000, 40, 40))
    (odd / "tall.png").write_bytes(grey_png(3, 30_000, 30_000))
    (odd / "bomb.png").write_bytes(grey_png(30_000, 30_000, 1))
    (odd / "huge.png").write_bytes(grey_png(2**31 - 1, 2**31 - 1, 0))
    (odd / "empty.png").write_bytes(b"")
    (odd / "text.jpg").write_text("no image")
    (odd / "truncated.png").write_bytes(png(3)[:100])
    (odd / "vector.svg").write_text("<svg/>")
    (odd / "loop").symlink_to(odd.resolve())
    rows, description = predict(encoder, "odd", "odd/vector.svg")
    readable = ["gif in truth.jpg", "jpeg in truth.png", "one pixel.png", "tall.png", "wide.png"]
    assert [Path(name).name for name in description["images"]] == readable
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in description["skipped"]}
    assert reasons.keys() == {"bomb.png", "huge.png", "empty.png", "text.jpg", "truncated.png", "vector.svg"}
    assert "pixels" in reasons["bomb.png"] and "pixels" in reasons["huge.png"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert len(rows) == 5 and np.isfinite(rows).all()


# --- the list itself ----------------------------------------------------------------------------------------------


def test_a_list_is_read_by_ranges_in_other_processes(working_folder: Path) -> None:
    Path("s.tar").write_bytes(tar_bytes([("m.png", png(4))]))
    listed = list_images(["photos", "s.tar"])
    parts = [pickle.loads(pickle.dumps(listed.entries(at, at + 3))) for at in (0, 3, 6)]
    assert [entry.name for part in parts for entry in part] == list(listed.names())
    assert [len(part) for part in parts] == [3, 3, 1]
    assert list(listed.names(5)) == list(listed.names())[5:]
    assert parts[2][0].open().read() == png(4)


def test_the_digest_changes_with_names_order_sizes_and_times(working_folder: Path) -> None:
    first = list_images("photos").digest
    assert list_images("photos").digest == first
    os.utime("photos/b.png", ns=(0, 12345))
    touched = list_images("photos").digest
    save(Path("photos/new.png"), 3)
    added = list_images("photos").digest
    Path("one.txt").write_text("photos/b.png\nphotos/a.jpg\n")
    Path("two.txt").write_text("photos/a.jpg\nphotos/b.png\n")
    ordered = {list_images(name).digest for name in ("one.txt", "two.txt")}
    assert len({first, touched, added} | ordered) == 5


def test_long_lists_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_list, "_CHUNK", 7)
    listed = image_list.ImageList()
    for number in range(50):
        listed.add(0, f"{99 - number}".encode(), ImageSource(f"{number}.png", f"/{number}.png"))
    listed.sort()
    assert len(listed) == 50
    assert list(listed.names()) == [f"{number}.png" for number in reversed(range(50))]
    listed.skip([(0, "a"), (20, "b"), (49, "c")])
    assert list(listed.skipped()) == [("49.png", "a"), ("29.png", "b"), ("0.png", "c")]
    assert len(list(listed.readable())) == 47
    assert listed.skipped_count() == 3


def test_a_full_disk_for_the_list_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = image_list.ImageList()
    listed._execute("PRAGMA max_page_count = 20")

    def fill() -> None:
        for number in range(5000):
            listed.add(0, b"", ImageSource("x" * 200, f"/{number}"))

    with pytest.raises(BrainkitError) as caught:
        fill()
    assert "\n" not in str(caught.value)


def test_images_too_large_for_any_memory_are_not_read() -> None:
    with pytest.raises(DataError, match=f"{MAX_BYTES:,}"):
        ImageSource("a", "/dev/zero", 0, MAX_BYTES + 1).open()
