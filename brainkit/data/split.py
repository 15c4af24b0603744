"""A split into training, validation and test images, and its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    name : str
        Of the lists that the sides are from, see `brainkit.data.split_files`; "" if they follow from hashes.
    sha256 : str
        Of the content of these lists.
    sets : mapping of str to array of int64
        Further test sets.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    seed: int
    notes: tuple[str, ...] = ()
    names_hash: str = ""
    half: str = ""
    name: str = ""
    sha256: str = ""
    sets: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Split({self.counts()}, {self.name or f'seed {self.seed}'})"

    def counts(self) -> str:
        """How many images each side and each further test set has."""
        sides = {**{side: getattr(self, side) for side in SIDES}, **self.sets}
        return ", ".join(f"{side} {len(rows):,}" for side, rows in sides.items())

    def facts(self) -> dict[str, Any]:
        """For ``run.json``: numbers of images, the seed, and where the lists come from."""
        return {
            **{side: len(getattr(self, side)) for side in SIDES},
            "seed": self.seed,
            **({"half": self.half} if self.half else {}),
            **({"name": self.name, "sha256": self.sha256} if self.name else {}),
            **({"sets": {name: len(rows) for name, rows in self.sets.items()}} if self.sets else {}),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        value: dict[str, Any] = {"version": _VERSION, "seed": self.seed, "names_sha256": self.names_hash}
        value["notes"] = list(self.notes)
        if self.half:
            value["half"] = self.half
        if self.name:
            value.update(name=self.name, sha256=self.sha256)
        value.update({side: getattr(self, side).tolist() for side in SIDES})
        if self.sets:
            value["sets"] = {name: rows.tolist() for name, rows in self.sets.items()}
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
        notes, seed, lists = value.get("notes", []), value.get("seed"), value.get("sets", {})
        name, sha256, names_hash = (value.get(key, "") for key in ("name", "sha256", "names_sha256"))
        texts = isinstance(notes, list) and all(isinstance(text, str) for text in (*notes, name, sha256, names_hash))
        if not texts or type(seed) is not int or not isinstance(lists, dict):
            raise DataError(f"{path}: expected a seed, notes and a hash of names, found something else")
        half = value.get("half", "")
        if not is_half(half):
            raise DataError(f"{path}: expected a half of the training stimuli (a:N or b:N), found {half!r}")
        sets = {str(each): _read_rows(path, str(each), rows) for each, rows in lists.items()}
        if names is not None:
            if names_hash and names_hash != hash_names(names):
                raise DataError(
                    f"{path}: expected the images that were split, found others ({plural(len(names), 'image')}); "
                    "restore the images that the run started with, or start a new run"
                )
            if (last := max(each.max() for each in (rows, *sets.values()))) >= len(names):
                raise DataError(f"{path}: expected rows below {len(names)}, found {last}")
        return cls(
            **sides,
            seed=seed,
            notes=tuple(notes),
            names_hash=names_hash,
            half=half,
            name=name,
            sha256=sha256,
            sets=sets,
        )


def hash_names(names: Sequence[str]) -> str:
    """SHA-256 over names in order, in hexadecimal."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def _read_rows(path: str | os.PathLike[str], side: str, value: Any) -> npt.NDArray[np.int64]:
    integers = isinstance(value, list) and all(type(row) is int and 0 <= row < 2**62 for row in value)
    if not integers or not value:
        raise DataError(f"{Path(path)}: expected row numbers for {side}, found {'none' if value == [] else 'others'}")
    return np.array(value, np.int64)
