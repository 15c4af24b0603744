"""Outputs appear whole or not at all, and what goes wrong is said in one line."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from brainkit.errors import BrainkitError, DataError
from brainkit.utils.files import cache_folder, read_json, write_beside, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_appear_whole(tmp_path: Path) -> None:
    with write_beside(tmp_path / "a.npz") as beside:
        assert beside.suffix == ".npz"  # some writers look at it
        assert beside.parent == tmp_path
        beside.write_text("new")
        assert names(tmp_path) == [beside.name]
    with write_beside(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "x").write_text("x")
    assert names(tmp_path) == ["a.npz", "folder"]
    assert (tmp_path / "folder" / "x").read_text() == "x"


def write(target: Path, error: BaseException, *, folder: bool = False) -> None:
    with write_beside(target) as beside:
        if folder:
            beside.mkdir()
        (beside / "x" if folder else beside).write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_after_a_failure_the_old_file_stands_and_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises((type(error), BrainkitError)):
        write(target, error)
    with pytest.raises((type(error), BrainkitError)):
        write(tmp_path / "folder", error, folder=True)
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("inside", [None, "", "deep/x.npy"])
def test_a_full_disk_is_said_with_the_name_of_the_output(tmp_path: Path, inside: str | None) -> None:
    # As the system reports it: without a name, with the temporary one, or with that of a file in a folder.
    def fill() -> None:
        with write_beside(tmp_path / "tokens") as beside:
            raise OSError(errno.ENOSPC, "No space left on device", None if inside is None else str(beside / inside))

    with pytest.raises(BrainkitError, match=r"tokens: cannot be written: No space left") as failure:
        fill()
    assert "\n" not in str(failure.value)
    assert names(tmp_path) == []


def test_a_failure_to_read_something_else_is_not_taken_for_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_beside(tmp_path / "a.txt"):
        (tmp_path / "elsewhere.txt").read_text()
    assert names(tmp_path) == []


def test_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for parent in ("missing", "file"):
        with pytest.raises(DataError, match="does not exist"), write_beside(tmp_path / parent / "a.txt") as beside:
            beside.write_text("x")
    with pytest.raises(BrainkitError, match="cannot be written"), write_beside(tmp_path) as beside:
        beside.write_text("x")  # a folder stands where the file should


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


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BRAINKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "brainkit"
