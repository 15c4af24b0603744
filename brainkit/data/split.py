"""A split into training, validation and test images, and its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.config import is_half
from brainkit.errors import DataError
from brainkit.utils.files import read_json, write_json
from brainkit.utils.text import plural

_VERSION = 1
SIDES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """The images used for training, for model selection and for scoring.

    Attributes
    ----------
    train, validation, test : arrays of int64
        Row numbers, increasing; no row on two sides, no side empty.
    seed : int
    notes : tuple of str
        Exceptions: groups moved so that no side is empty or too large, images left out.
    names_hash : str
        SHA-256 over the images' names in order; "" if they were not given.
    half : str
        Which half of the training stimuli `train` is, see `halve_training`; "" if it is all of them.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    seed: int
    notes: tuple[str, ...] = ()
    names_hash: str = ""
    half: str = ""

    def __repr__(self) -> str:
        sides = ", ".join(f"{side} {len(getattr(self, side)):,}" for side in SIDES)
        return f"Split({sides}, seed {self.seed})"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        value: dict[str, Any] = {"version": _VERSION, "seed": self.seed, "names_sha256": self.names_hash}
        value["notes"] = list(self.notes)
        if self.half:
            value["half"] = self.half
        value.update({side: getattr(self, side).tolist() for side in SIDES})
        write_json(path, value)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> Split:
        """Read a file written by `write`.

        Parameters
        ----------
        path : path-like
        names : sequence of str, optional
            The images' names; they must be those that were split.

        Raises
        ------
        DataError
            If the file is missing or not a split, or the images are different ones.
        """
        value = read_json(path)
        if not isinstance(value, dict) or value.get("version") != _VERSION:
            found = value.get("version") if isinstance(value, dict) else type(value).__name__
            raise DataError(f"{path}: expected a split of version {_VERSION}, found {found}")
        sides = {side: _read_rows(path, side, value.get(side)) for side in SIDES}
        rows = np.concatenate(list(sides.values()))
        if len(np.unique(rows)) != len(rows):
            raise DataError(f"{path}: expected every row on one side, found some on two")
        notes, seed, names_hash = value.get("notes", []), value.get("seed"), value.get("names_sha256", "")
        texts = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
        if not texts or type(seed) is not int or not isinstance(names_hash, str):
            raise DataError(f"{path}: expected a seed, notes and a hash of names, found something else")
        half = value.get("half", "")
        if not is_half(half):
            raise DataError(f"{path}: expected a half of the training stimuli (a:N or b:N), found {half!r}")
        if names is not None:
            if names_hash and names_hash != hash_names(names):
                raise DataError(
                    f"{path}: expected the images that were split, found others ({plural(len(names), 'image')}); "
                    "restore the images that the run started with, or start a new run"
                )
            if rows.max() >= len(names):
                raise DataError(f"{path}: expected rows below {len(names)}, found {rows.max()}")
        return cls(**sides, seed=seed, notes=tuple(notes), names_hash=names_hash, half=half)


def hash_names(names: Sequence[str]) -> str:
    """SHA-256 over names in order, in hexadecimal."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def _read_rows(path: str | os.PathLike[str], side: str, value: Any) -> npt.NDArray[np.int64]:
    integers = isinstance(value, list) and all(type(row) is int and 0 <= row < 2**62 for row in value)
    if not integers or not value:
        raise DataError(f"{Path(path)}: expected row numbers for {side}, found {'none' if value == [] else 'others'}")
    return np.array(value, np.int64)
