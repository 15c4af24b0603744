"""Tar shards: read in place, honest and hostile."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from image_inputs import listed, names, notes, picture, png, predict, tar_bytes

from brainkit.cli import group
from brainkit.errors import BrainkitError, ImageError
from brainkit.predict import Encoder, list_images


def test_shards_are_read_in_the_archives_order(working_folder: Path, encoder: Encoder) -> None:
    members = [("z.png", png(1)), ("z.cls", b"3"), ("a.png", png(2)), ("z.json", b"{}")]
    Path("s-0.tar").write_bytes(tar_bytes(members))
    Path("s-1.tar").write_bytes(tar_bytes([("k/b.png", png(3))]))
    rows, description = predict(encoder, "s-{0..1}.tar", "photos/b.png")
    assert description["images"] == ["photos/b.png", "s-0.tar/z.png", "s-0.tar/a.png", "s-1.tar/k/b.png"]
    np.testing.assert_allclose(rows, encoder.predict([picture(seed) for seed in (0, 1, 2, 3)]), atol=1e-5)
    note = description["notes"][0]["note"]
    assert note.startswith("2 non-image members ") and note.endswith("z.cls")
    assert names("s-1.tar", "s-0.tar")[0] == "s-1.tar/k/b.png"
    assert names("s-*.tar") == description["images"][1:]
    assert names("s-0.tar", "./s-0.tar") == names("s-0.tar")  # the shard is listed once


def hostile_members() -> dict[str, bytes]:
    """Tar files that are damaged, or want harm."""

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

    good = tar_bytes([("good.png", png(1))])
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


def long_name() -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type = tarfile.GNUTYPE_LONGNAME
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", sorted(hostile_members()))
def test_hostile_shards_are_reported_and_nothing_is_unpacked(working_folder: Path, encoder: Encoder, kind: str) -> None:
    Path("shard.tar").write_bytes(hostile_members()[kind])
    before = sorted(working_folder.rglob("*"))
    rows, description = predict(encoder, "photos/b.png", "shard.tar")
    whole = kind not in ("cut off", "no tar", "empty", "compressed")
    assert description["images"] == ["photos/b.png", *(["shard.tar/good.png"] if whole else [])]
    assert len(rows) == len(description["images"])
    assert description["skipped"]
    for entry in description["skipped"]:
        assert entry["path"].startswith("shard.tar")
        assert entry["reason"]
        assert "\n" not in entry["reason"]
    assert sorted(path for path in working_folder.rglob("*") if not path.name.startswith("result.")) == before


# --- what else may be in the file -----------------------------------------------------------------------------------


def joined(*archives: bytes) -> bytes:
    return b"".join(archives)


@pytest.mark.parametrize("padding", [0, 512, 3 * 512, 10_240, 100_000])
def test_archives_that_were_joined_are_read_to_the_end(working_folder: Path, encoder: Encoder, padding: int) -> None:
    """As ``cat a.tar b.tar`` makes them, with any number of zeros between and behind."""
    members = [[(f"{name}.png", png(seed))] for seed, name in enumerate("abc")]
    parts = [tar_bytes(part) + bytes(padding) for part in members]
    parts[1] = tar_bytes([("x.txt", b"text"), *members[1]], format=tarfile.PAX_FORMAT) + bytes(padding)
    Path("shard.tar").write_bytes(joined(*parts))
    rows, description = predict(encoder, "shard.tar")
    assert description["images"] == [f"shard.tar/{name}.png" for name in "abc"]
    np.testing.assert_allclose(rows, encoder.predict([picture(seed) for seed in range(3)]), atol=1e-5)
    assert not description["skipped"] and len(description["notes"]) == 1  # of x.txt
    assert not listed("shard.tar").remarks()


def test_what_of_a_shard_is_not_read_is_said(working_folder: Path, encoder: Encoder) -> None:
    whole = tar_bytes([("a.png", png(1)), ("b.png", png(2))])
    end = len(whole.rstrip(b"\0")) + -len(whole.rstrip(b"\0")) % 512  # behind the last member
    damaged = bytearray(joined(whole, tar_bytes([("c.png", png(3)), ("d.png", png(4)), ("e.png", png(5))])))
    header = damaged.rindex(b"d.png")
    damaged[header + 130] ^= 1
    for name, content, rows, note, problem in (
        ("padded", whole + bytes(777), 2, "", ""),
        ("trailing", whole + b"checksum: 1234", 2, "14 bytes", ""),
        ("unfinished", whole[:end], 2, "end-of-archive", ""),
        ("lone zero block", whole[:end] + bytes(512) + whole, 4, "", ""),
        ("cut off", whole[: end - 300], 1, "", "truncated"),
        ("cut off in a header", whole[: end - 600], 1, "", "cut off"),
        ("second cut off", joined(whole, whole[: end - 300]), 3, "", "truncated"),
        ("damaged in the second", bytes(damaged), 3, "", "no header"),
    ):
        Path("shard.tar").write_bytes(content)
        predictions, description = predict(encoder, "shard.tar")
        assert len(predictions) == rows, name
        notes = " ".join(entry["note"] for entry in description["notes"] if "end" in entry["note"])
        assert note in notes and bool(note) == bool(notes), (name, notes)
        assert len(listed("shard.tar").remarks()) == bool(note), name
        reasons = " ".join(entry["reason"] for entry in description["skipped"])
        assert problem in reasons and bool(problem) == bool(reasons), (name, reasons)


def test_the_terminal_says_what_is_not_read(path: Path, working_folder: Path) -> None:
    for number in range(8):
        Path(f"{number}.tar").write_bytes(tar_bytes([("a.png", png(number))]) + b"more")
    done = CliRunner().invoke(group, ["predict", "{0..7}.tar", "--encoder", str(path), "--out", "out.npy"])
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 6 and lines[0].startswith("0.tar: 4 bytes") and lines[-1].startswith("3 more")


def test_links_and_sparse_files_are_skipped_with_the_reason(working_folder: Path, encoder: Encoder) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind in (("a.png", tarfile.REGTYPE), ("hard.png", tarfile.LNKTYPE), ("soft.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png" if kind != tarfile.REGTYPE else ""
            member.size = len(png(1)) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(png(1)) if member.size else None)
        sparse = tarfile.TarInfo("sparse.png")
        sparse.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(sparse)
    Path("shard.tar").write_bytes(stream.getvalue())
    _, description = predict(encoder, "shard.tar")
    assert description["images"] == ["shard.tar/a.png"]
    skipped = [entry["path"] for entry in description["skipped"]]
    assert skipped == [f"shard.tar/{name}.png" for name in ("hard", "soft", "sparse")]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_whole(working_folder: Path, form: int) -> None:
    name = f"{'x' * 90}/{'y' * 150}/{'ü' * 60}.png"
    Path("shard.tar").write_bytes(tar_bytes([(name, png(1)), ("b.png", png(2))], format=form))
    assert names("shard.tar") == [f"shard.tar/{name}", "shard.tar/b.png"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_with_the_name_of_a_plain_one(working_folder: Path, encoder: Encoder, mode: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a.png"))
    Path("shard.tar").write_bytes(stream.getvalue())
    _, description = predict(encoder, "photos/b.png", "shard.tar")
    (skipped,) = description["skipped"]
    assert skipped["path"] == "shard.tar" and "decompress" in skipped["reason"]
    with pytest.raises(BrainkitError, match="decompress"):
        predict(encoder, "shard.tar")


def test_a_shard_that_changes_is_reported(working_folder: Path, encoder: Encoder) -> None:
    Path("shard.tar").write_bytes(tar_bytes([("a.png", png(1)), ("b.png", png(2))]))
    listed = list_images("shard.tar")
    os.truncate("shard.tar", 600)
    first, second = listed.entries(0, 2)
    for entry in (first, second):
        with pytest.raises(ImageError, match="truncated"):
            entry.open()
    Path("shard.tar").unlink()
    with pytest.raises(ImageError):
        first.open()


def test_two_members_of_one_name_are_noted(working_folder: Path) -> None:
    Path("shard.tar").write_bytes(tar_bytes([("a.png", png(1)), ("a.png", png(2))]))
    assert names("shard.tar") == ["shard.tar/a.png"] * 2
    assert list(notes("shard.tar")) == ["shard.tar/a.png"]
