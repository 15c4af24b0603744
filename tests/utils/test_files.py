"""Outputs appear complete or not at all, and errors take one line."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from pathlib import Path

import pytest

from brainkit.errors import BrainkitError, DataError
from brainkit.utils.files import (
    atomic_write,
    cache_folder,
    check_folder,
    create_folder,
    read_json,
    read_text,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_appear_complete(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.npz") as temporary:
        assert temporary.suffix == ".npz"  # some writers need it
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert names(tmp_path) == [temporary.name]
    with atomic_write(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("x")
    assert names(tmp_path) == ["a.npz", "folder"]
    assert (tmp_path / "folder" / "x").read_text() == "x"


def write(target: Path, error: BaseException, *, folder: bool = False) -> None:
    with atomic_write(target) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "x" if folder else temporary).write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises((type(error), BrainkitError)):
        write(target, error)
    with pytest.raises((type(error), BrainkitError)):
        write(tmp_path / "folder", error, folder=True)
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("inside", [None, "", "deep/x.npy"])
def test_the_error_of_a_full_disk_names_the_output(tmp_path: Path, inside: str | None) -> None:
    # As the system reports it: without a name, with the temporary name, or with that of a file in the folder.
    def fill() -> None:
        with atomic_write(tmp_path / "tokens") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", None if inside is None else str(temporary / inside))

    with pytest.raises(BrainkitError, match=r"tokens: cannot be written: No space left") as failure:
        fill()
    assert "\n" not in str(failure.value)
    assert names(tmp_path) == []


def test_an_error_about_another_file_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        (tmp_path / "elsewhere.txt").read_text()
    assert names(tmp_path) == []


def test_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for parent in ("missing", "file"):
        with pytest.raises(DataError, match="does not exist"), atomic_write(tmp_path / parent / "a.txt") as temporary:
            temporary.write_text("x")
    with pytest.raises(BrainkitError, match="cannot be written"), atomic_write(tmp_path) as temporary:
        temporary.write_text("x")  # a folder stands where the file should


def test_json(tmp_path: Path) -> None:
    value = {"name": "größe", "list": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"x": math.nan})
    assert names(tmp_path) == ["a.json"]


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_bytes(b"\xff\xff")
    for name, expected in (("a.json", "expected JSON"), ("b.json", "expected JSON"), ("c.json", "not found")):
        with pytest.raises(DataError, match=expected):
            read_json(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


def test_text_and_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"space": "größe"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"space": "größe"}
    assert read_text(tmp_path / "a.json").startswith("{")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{}".encode("utf-16"), "UTF-16"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"", "empty file"),
        (b"{,}", "something else"),
    ],
)
def test_json_that_is_another_kind_of_file(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=found) as failure:
        read_json(tmp_path / "a.json")
    assert "a.json: expected JSON" in str(failure.value) and "\n" not in str(failure.value)


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BRAINKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "brainkit"


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    assert create_folder(tmp_path / "a" / "b").is_dir() and create_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(DataError, match=f"^{folder}: "):
            create_folder(folder)


def test_a_folder_is_checked_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("there", "new", "new/inside"):
        assert check_folder(tmp_path / name) == tmp_path / name
    with pytest.raises(DataError, match="file/inside: "):
        check_folder(tmp_path / "file" / "inside")

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for name in ("there", "new/inside"):
        with pytest.raises(DataError, match=f"{name}: "):
            check_folder(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]
