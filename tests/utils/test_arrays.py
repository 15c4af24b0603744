"""Files of arrays: read, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainkit.errors import DataError
from brainkit.utils.arrays import read_arrays


def test_all_arrays_or_those_that_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.arange(3), two=np.zeros(2))
    assert set(read_arrays(tmp_path / "a.npz")) == {"one", "two"}
    found = read_arrays(tmp_path / "a.npz", ("one",))
    assert list(found) == ["one"] and found["one"].tolist() == [0, 1, 2]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, one=np.arange(1000))
    np.save(tmp_path / "array.npy", np.zeros(2))
    np.savez(tmp_path / "objects.npz", one=np.array([None]))
    content = whole.read_bytes()
    middle = len(content) // 2
    (tmp_path / "cut.npz").write_bytes(content[:middle])
    (tmp_path / "flipped.npz").write_bytes(content[:middle] + bytes(20) + content[middle + 20 :])
    (tmp_path / "empty.npz").touch()
    for name in ("missing.npz", "array.npy", "objects.npz", "cut.npz", "flipped.npz", "empty.npz"):
        with pytest.raises(DataError, match=name):
            read_arrays(tmp_path / name, ("one",))
    with pytest.raises(DataError, match="two"):
        read_arrays(whole, ("two",))
