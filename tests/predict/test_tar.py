"""Tar shards: read in place, honest and hostile."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from image_inputs import names, notes, picture, png, predict, tar_bytes

from brainkit.errors import ImageError
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
