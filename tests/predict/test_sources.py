"""What can be scored: folders, patterns, lists, shards and addresses, honest and hostile."""

from __future__ import annotations

import glob
import io
import itertools
import json
import os
import pickle
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import make_graph, make_info

from brainkit import encoder_file
from brainkit.predict import load, predict_to_file, Encoder
from brainkit.errors import BrainkitError, DataError, MissingDependency, UsageError
from brainkit.images import find_images
from brainkit.predict.inputs import finding, image_list, image_source, remote
from brainkit.predict.inputs.sources import list_images

no_odd_names = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not take such names")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    encoder_file.write(path, make_graph(), make_info())
    return load(path, "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images in it that all differ."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(
        (
            "photos/b.png",
            "photos/a.jpg",
            "photos/B.png",
            "photos/sub/a.png",
            "photos/sub/deep/c.png",
            "photos/sub2/x.png",
        )
    ):
        save(Path(name), number)
    Path("photos/readme.txt").write_text("no image")
    Path("photos/.hidden.png").write_bytes(b"")
    return tmp_path


def save(path: Path, seed: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))
    return path.read_bytes()


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def names(*given: Any) -> list[str]:
    return list(list_images(given).names())


def notes(*given: Any) -> dict[str, str]:
    return dict(list_images(given).notes())


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def predicted(encoder: Encoder, *given: Any) -> tuple[np.ndarray, dict[str, Any]]:
    out = Path("result.npy")
    predict_to_file(given, out, encoder, overwrite=True)
    return np.load(out), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


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
def test_files_and_folders_come_as_find_images_has_them(place: Path, given: tuple[str, ...]) -> None:
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


def test_what_is_left_out_is_noted(place: Path, encoder: Encoder) -> None:
    rows, told = predicted(encoder, "photos", "photos/b.png")
    assert len(rows) == 6
    found = {note["path"]: note["note"] for note in told["notes"]}
    assert "named more than once" in found["photos/b.png"]
    assert "1 file left out, no images by their names; the first: photos/readme.txt" in found["photos"]


def test_what_is_missing_is_said(place: Path) -> None:
    Path("photos/empty").mkdir()
    os.mkfifo("photos/pipe.png")
    for given, words in (
        ("nowhere", "nowhere: no such file or folder"),
        ("photos/*.gif", "no file matches"),
        ("nowhere/**/*.png", "no file matches"),
        ("@absent.txt", "absent.txt: no such list"),
        ("shard-{0..2}.tar", "shard-0.tar: no such file"),
        ("photos/empty", "no images found"),
        ("photos/pipe.png", "found neither"),
        ("x" * 5000, "no such file or folder"),
        ("a\0b", "no such file or folder"),
    ):
        with pytest.raises(UsageError, match=words):
            list_images(given)
    with pytest.raises(UsageError, match="no images given"):
        list_images([])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_said(place: Path) -> None:
    Path("photos/sub").chmod(0)
    try:
        with pytest.raises(DataError, match="photos/sub: cannot be listed"):
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
def test_patterns_find_what_a_shell_would(place: Path, pattern: str) -> None:
    expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    assert expected
    # A folder that a pattern names is looked into; with "**" that would be done twice.
    folders = [] if "**" in pattern else [path for path in glob.glob(pattern) if os.path.isdir(path)]
    below = {str(path) for folder in folders for path in find_images(folder)}
    assert set(names(pattern)) == expected | below
    assert names(pattern) == [str(path) for path in find_images(names(pattern))]


def test_a_pattern_with_a_loop_ends(place: Path) -> None:
    Path("photos/sub/up").symlink_to("..", target_is_directory=True)
    assert len(names("photos/**/*.png")) == 5


def test_a_name_that_looks_like_a_pattern_is_a_name_first(place: Path) -> None:
    save(Path("photos/[b].png"), 9)
    save(Path("photos/{0..3}.png"), 10)
    assert names("photos/[b].png") == ["photos/[b].png"]
    assert names("photos/{0..3}.png") == ["photos/{0..3}.png"]


def test_braces_are_written_out_in_order() -> None:
    assert list(finding.expand_braces("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert list(finding.expand_braces("{b,a}{1..0}")) == ["b1", "b0", "a1", "a0"]
    assert list(finding.expand_braces("{8..11}")) == ["8", "9", "10", "11"]
    # A range nobody could hold in memory.
    assert next(finding.expand_braces("{000000000000..999999999999}")) == "0" * 12


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_list_keeps_its_order_and_lies_beside_its_images(place: Path, encoder: Encoder) -> None:
    Path("photos/list.txt").write_bytes(
        b"\xef\xbb\xbfsub/a.png\r\nb.png\n\nabsent.png\nb.png\n" + os.fsencode(place) + b"/photos/B.png"
    )
    expected = ["photos/sub/a.png", "photos/b.png", "photos/absent.png", f"{place}/photos/B.png"]
    assert names("photos/list.txt") == names("@photos/list.txt") == expected
    rows, told = predicted(encoder, "photos/list.txt")
    assert told["images"] == [name for name in expected if "absent" not in name]
    assert [(entry["path"], entry["reason"]) for entry in told["skipped"]] == [("photos/absent.png", "file not found")]
    assert told["notes"] == [{"path": "photos/b.png", "note": "named more than once; scored once"}]
    np.testing.assert_allclose(rows, encoder.predict(told["images"]), atol=1e-5)
    # What has no order of its own comes first.
    assert names("photos/list.txt", "photos/sub2")[0] == "photos/sub2/x.png"


def test_a_list_on_standard_input(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"photos/b.png\nphotos/a.jpg\n", b"photos/b.png\0photos/a.jpg\0", b"photos/b.png\nphotos/a.jpg"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert names("-") == ["photos/b.png", "photos/a.jpg"]


@no_odd_names
def test_names_with_newlines_travel_by_zero_bytes(place: Path, encoder: Encoder) -> None:
    odd = os.fsdecode(b"photos/a\nb \xff.png")
    save(Path(odd), 20)
    Path("list.txt").write_bytes(os.fsencode(odd) + b"\0photos/a.jpg\0")
    rows, told = predicted(encoder, "@list.txt")
    assert told["images"] == ["photos/a\nb \\xff.png", "photos/a.jpg"]
    assert len(rows) == 2


def test_a_file_that_is_no_list_is_refused(place: Path) -> None:
    Path("list.txt").write_bytes(b"x" * 300_000)
    with pytest.raises(DataError, match=r"list.txt: expected one path a line"):
        list_images("list.txt")


def test_lines_do_not_depend_on_how_they_are_read() -> None:
    wanted = [f"{'x' * (number % 300)}{number}.png" for number in range(3000)]
    text = "\n".join(wanted).encode()
    assert list(finding.lines(io.BytesIO(text), "list")) == wanted
    assert list(finding.lines(io.BytesIO(text.replace(b"\n", b"\r\n")), "list")) == wanted
    assert list(finding.lines(io.BytesIO(text.replace(b"\n", b"\0")), "list")) == wanted


# --- tar shards ---------------------------------------------------------------------------------------------------


def test_shards_are_read_in_the_archives_order(place: Path, encoder: Encoder) -> None:
    write_shard(Path("s-0.tar"), {"z.png": png(1), "z.cls": b"3", "a.png": png(2), "z.json": b"{}"})
    write_shard(Path("s-1.tar"), {"k/b.png": png(3)})
    rows, told = predicted(encoder, "s-{0..1}.tar", "photos/b.png")
    assert told["images"] == ["photos/b.png", "s-0.tar/z.png", "s-0.tar/a.png", "s-1.tar/k/b.png"]
    pictures = [Image.open("photos/b.png"), *(Image.open(io.BytesIO(png(seed))) for seed in (1, 2, 3))]
    np.testing.assert_allclose(rows, encoder.predict(pictures), atol=1e-5)
    assert "2 members left out, no images by their names; the first: z.cls" in told["notes"][0]["note"]
    assert names("s-1.tar", "s-0.tar")[0] == "s-1.tar/k/b.png"
    assert names("s-*.tar") == told["images"][1:]
    assert list(notes("s-0.tar", "./s-0.tar").values()).count("named more than once; scored once") == 1


def hostile_members() -> dict[str, bytes]:
    """Tar files, and what must be said of them."""

    def header(**values: Any) -> bytes:
        member = tarfile.TarInfo("a.png")
        for name, value in values.items():
            setattr(member, name, value)
        return member.tobuf(tarfile.GNU_FORMAT)

    def with_size(size: bytes) -> bytes:
        block = bytearray(header())
        block[124:136] = size.ljust(12, b"\0")
        block[148:156] = b" " * 8
        block[148:155] = f"{sum(block):06o}\0".encode()
        return bytes(block)

    good = write_bytes({"good.png": png(1)})
    huge_name = bytearray(with_size(b"77777777777"))
    huge_name[156:157] = b"L"
    huge_name[148:156] = b" " * 8
    huge_name[148:155] = f"{sum(huge_name):06o}\0".encode()
    first = good[: 512 + -(-len(png(1)) // 512) * 512]
    return {
        "link": first + header(type=tarfile.SYMTYPE, linkname="/etc/passwd") + bytes(1024),
        "hard link": first + header(type=tarfile.LNKTYPE, linkname="good.png") + bytes(1024),
        "device": first + header(type=tarfile.CHRTYPE, devmajor=1, devminor=5) + bytes(1024),
        "absurd size": first + with_size(b"77777777777") + bytes(1024),
        "negative size": first + with_size(b"\xff" * 11 + b"\x00") + bytes(1024),
        "a name of 8 GB": first + bytes(huge_name) + bytes(1024),
        "garbage behind": first + bytes(range(256)) * 8,
        "cut off": first[:600],
        "no tar": b"not a tar file" * 100,
        "empty": b"",
        "compressed": b"\x1f\x8b\x08\x00" + bytes(600),
        "names in names": first + long_name() * 3000,
    }


def write_bytes(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def long_name() -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type = tarfile.GNUTYPE_LONGNAME
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", sorted(hostile_members()))
def test_hostile_shards_are_reported_and_nothing_is_unpacked(place: Path, encoder: Encoder, kind: str) -> None:
    Path("shard.tar").write_bytes(hostile_members()[kind])
    before = sorted(place.rglob("*"))
    rows, told = predicted(encoder, "photos/b.png", "shard.tar")
    whole = kind not in ("cut off", "no tar", "empty", "compressed")
    assert told["images"] == ["photos/b.png", *(["shard.tar/good.png"] if whole else [])]
    assert len(rows) == len(told["images"])
    assert told["skipped"]
    for entry in told["skipped"]:
        assert entry["path"].startswith("shard.tar")
        assert entry["reason"]
        assert "\n" not in entry["reason"]
    assert sorted(path for path in place.rglob("*") if not path.name.startswith("result.")) == before


def test_a_shard_that_changes_is_reported(place: Path, encoder: Encoder) -> None:
    write_shard(Path("shard.tar"), {"a.png": png(1), "b.png": png(2)})
    listed = list_images("shard.tar")
    os.truncate("shard.tar", 600)
    first, second = listed.entries(0, 2)
    for entry in (first, second):
        with pytest.raises(DataError, match="cut off"):
            entry.open()
    Path("shard.tar").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        first.open()


def test_two_members_of_one_name_are_noted(place: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for seed in (1, 2):
            member = tarfile.TarInfo("a.png")
            member.size = len(png(seed))
            archive.addfile(member, io.BytesIO(png(seed)))
    Path("shard.tar").write_bytes(stream.getvalue())
    assert names("shard.tar") == ["shard.tar/a.png"] * 2
    assert "several of that name" in notes("shard.tar")["shard.tar/a.png"]


def test_images_too_large_for_any_memory_are_not_read(place: Path) -> None:
    source = image_source.ImageSource("a", "/dev/zero", 0, image_source.MAX_BYTES + 1)
    with pytest.raises(DataError, match="expected at most"):
        source.open()


# --- images that are none -----------------------------------------------------------------------------------------


def test_odd_images_are_rows_or_reported(place: Path, encoder: Encoder) -> None:
    """Zero bytes, one pixel, a long line of pixels, a bomb, a wrong suffix, text."""
    odd = Path("odd")
    odd.mkdir()
    (odd / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(odd / "one.png")
    Image.new("L", (30_000, 2)).save(odd / "wide.png")
    bomb = bytearray(png(1))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (odd / "bomb.png").write_bytes(bomb)
    Image.new("RGB", (4, 4)).save(odd / "gif", "GIF")
    (odd / "gif").rename(odd / "wrong.jpg")
    (odd / "text.png").write_text("no image")
    (odd / "vector.svg").write_text("<svg/>")
    rows, told = predicted(encoder, "odd", "odd/vector.svg")
    assert [Path(name).name for name in told["images"]] == ["one.png", "wide.png", "wrong.jpg"]
    assert {Path(entry["path"]).name for entry in told["skipped"]} == {
        "empty.png",
        "bomb.png",
        "text.png",
        "vector.svg",
    }
    assert len(rows) == 3
    assert np.isfinite(rows).all()


# --- elsewhere ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(place: Path) -> Any:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for name, seed in (("b.png", 1), ("a.png", 2), ("sub/c.png", 3)):
        system.pipe(f"/bucket/{name}", png(seed))
    system.pipe("/bucket/readme.md", b"text")
    system.pipe("/bucket/s.tar", write_bytes({"m.png": png(4), "n.png": png(5)}))
    system.pipe("/bucket/list.txt", b"b.png\nmemory://bucket/sub/c.png\n")
    yield system
    system.store.clear()


def test_addresses_give_what_their_files_give(bucket: Any, encoder: Encoder) -> None:
    rows, told = predicted(encoder, "memory://bucket", "memory://bucket/s.tar")
    expected = ["a.png", "b.png", "sub/c.png", "s.tar/m.png", "s.tar/n.png"]
    assert [name.split("bucket/")[1] for name in told["images"]] == expected
    pictures = [Image.open(io.BytesIO(png(seed))) for seed in (2, 1, 3, 4, 5)]
    np.testing.assert_allclose(rows, encoder.predict(pictures), atol=1e-5)
    assert "3 files left out" in told["notes"][0]["note"]


def test_remote_patterns_lists_and_single_files(bucket: Any) -> None:
    ends = {
        "memory://bucket/*.png": ["a.png", "b.png"],
        "memory://bucket/{b,a}.png": ["a.png", "b.png"],
        "memory://bucket/b.png": ["b.png"],
        "memory://bucket/list.txt": ["b.png", "sub/c.png"],
    }
    for given, expected in ends.items():
        assert [name.split("bucket/")[1] for name in names(given)] == expected, given
    for given in ("memory://bucket/nothing.png", "memory://bucket/*.gif", "nosuch://bucket/a.png"):
        with pytest.raises(BrainkitError) as caught:
            list_images(given)
        assert "\n" not in str(caught.value)


def test_a_local_address_is_a_path(place: Path) -> None:
    assert names(f"file://{place}/photos/b.png") == [f"{place}/photos/b.png"]


def test_a_network_that_fails_for_a_moment_is_asked_again(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0)
    (entry,) = list_images("memory://bucket/b.png").entries(0, 1)
    read = type(bucket).cat_file
    for failures in (2, 3):
        asked = itertools.count()

        def flaky(self: Any, path: str, failures: int = failures, asked: Any = asked, **part: Any) -> bytes:
            if next(asked) < failures:
                raise TimeoutError("no answer")
            return bytes(read(self, path, **part))

        monkeypatch.setattr(type(bucket), "cat_file", flaky)
        if failures == 2:
            assert entry.open().read() == png(1)  # type: ignore[union-attr]
        else:
            with pytest.raises(DataError, match="tried 3 times: no answer"):
                entry.open()


def test_addresses_without_fsspec_name_the_pip_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[remote\]"):
        list_images("s3://bucket/a.png")


def test_maps_are_drawn_of_images_in_shards_and_elsewhere(
    bucket: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw as static
    from brainkit.maps import draw_predictions as predicted

    drawn: list[tuple[str, np.ndarray]] = []
    monkeypatch.setattr(
        static, "draw_response", lambda path, **given: drawn.append((path.name, np.asarray(given["image"])))
    )
    write_shard(Path("s.tar"), {"k/m.png": png(7)})
    done = predict_to_file(["s.tar", "memory://bucket/b.png", "photos/b.png"], "out.npy", encoder)
    predicted.draw_prediction_file("out.npy", encoder.info, "figures", images=done.sources, max_maps=3)
    assert [name for name, _ in drawn] == ["0000-b.png", "0001-b.png", "0002-m.png"]
    for (_, image), seed in zip(drawn, (1, 0, 7), strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(png(seed)))))


# --- the list itself ----------------------------------------------------------------------------------------------


def test_a_list_is_read_by_ranges_in_other_processes(place: Path) -> None:
    write_shard(Path("s.tar"), {"m.png": png(4)})
    listed = list_images(["photos", "s.tar"])
    parts = [pickle.loads(pickle.dumps(listed.entries(at, at + 3))) for at in (0, 3, 6)]
    assert [entry.name for part in parts for entry in part] == list(listed.names())
    assert [len(part) for part in parts] == [3, 3, 1]
    assert list(listed.names(5)) == list(listed.names())[5:]
    assert parts[2][0].open().read() == png(4)


def test_the_digest_changes_with_names_order_sizes_and_times(place: Path) -> None:
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


def test_long_lists_are_read_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_list, "_MANY", 7)
    listed = image_list.ImageList()
    for number in range(50):
        listed.add(0, f"{99 - number}".encode(), image_source.ImageSource(f"{number}.png", f"/{number}.png"))
    listed.settle()
    assert len(listed) == 50
    assert list(listed.names()) == [f"{number}.png" for number in reversed(range(50))]
    listed.skip([(0, "a"), (20, "b"), (49, "c")])
    assert list(listed.skipped()) == [("49.png", "a"), ("29.png", "b"), ("0.png", "c")]
    assert len(list(listed.readable())) == 47
    assert listed.skipped_count() == 3


def test_no_room_for_the_list_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = image_list.ImageList()
    listed._execute("PRAGMA max_page_count = 20")

    def fill() -> None:
        for number in range(5000):
            listed.add(0, b"", image_source.ImageSource("x" * 200, f"/{number}"))

    with pytest.raises(BrainkitError, match="full") as caught:
        fill()
    assert "\n" not in str(caught.value)
