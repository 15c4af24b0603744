"""Files with values of vertices, read as rows: .npy, GIFTI, FreeSurfer's overlays and annotations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainkit.errors import DataError
from brainkit.utils.text import first_line

SUFFIXES = (".npy", ".gii", ".mgz", ".mgh", ".annot")
LEFT, RIGHT = "left", "right"
_SIDE = re.compile(r"(?:^|(?<=[^a-z]))(?:hemi-)?(lh|rh|left|right|l|r)(?=[^a-z]|$)", re.IGNORECASE)
_LABELS = 1002  # NIFTI_INTENT_LABEL


@dataclass(frozen=True, eq=False)
class Values:
    """What a file holds, before it is known which vertices they are.

    Parameters
    ----------
    path : Path
    rows : array of shape (n, k)
        May be a memory map.
    names : tuple of n str
        Of the rows; empty if the file has none.
    hemisphere : {"left", "right", ""}
        As the file or its name says.
    labels : tuple, optional
        Names and colours (c, 3) of classes, whose numbers the rows then hold.
    """

    path: Path
    rows: np.ndarray
    names: tuple[str, ...] = ()
    hemisphere: str = ""
    labels: tuple[tuple[str, ...], np.ndarray] | None = None


def read_values(path: Path) -> Values:
    """Read a file; of ``.npy``, rows are read as they are needed.

    Raises
    ------
    DataError
        If it does not exist, cannot be read, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: expected values of vertices in {', '.join(SUFFIXES)}, found {suffix or 'no suffix'}")
    reader = {".npy": _read_npy, ".gii": _read_gifti, ".annot": _read_annot}.get(suffix, _read_overlay)
    try:
        return reader(path)
    except DataError:
        raise
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise DataError(f"{path}: expected values of vertices, cannot be read: {first_line(error)}") from None


def without_side(name: str) -> str:
    """A file's name without the word that says its hemisphere."""
    return _SIDE.sub("", name)


def _read_npy(path: Path) -> Values:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Values(path, _as_rows(path, array), hemisphere=_side(path))


def _read_overlay(path: Path) -> Values:
    from nibabel.freesurfer import MGHImage

    image = np.asarray(MGHImage.from_filename(path).dataobj)
    grid = image.reshape(int(np.prod(image.shape[:3])), -1, order="F")
    return Values(path, _as_rows(path, grid.T), hemisphere=_side(path))


def _read_gifti(path: Path) -> Values:
    from nibabel.gifti import GiftiImage

    image = GiftiImage.from_filename(path)
    arrays = [array for array in image.darrays if np.ndim(array.data) == 1]
    if not arrays:
        raise DataError(f"{path}: expected GIFTI data of one value a vertex, found none; is it a surface?")
    rows = _as_rows(path, np.stack([np.asarray(array.data) for array in arrays]))
    parts = [image.meta, *(array.meta for array in arrays)]
    structure = next((text for part in parts if (text := str(part.get("AnatomicalStructurePrimary", "")))), "")
    side = LEFT if "Left" in structure else RIGHT if "Right" in structure else _side(path)
    names = tuple(str(array.meta.get("Name", "")) for array in arrays)
    if arrays[0].intent != _LABELS:
        return Values(path, rows, names, side)
    table = image.labeltable.labels
    numbers = np.select([rows == label.key for label in table], range(len(table)), -1)
    colours = np.array([label.rgba[:3] for label in table], dtype=float).reshape(-1, 3)
    return Values(path, numbers, names, side, (tuple(label.label for label in table), colours))


def _read_annot(path: Path) -> Values:
    from nibabel.freesurfer import read_annot

    numbers, colours, names = read_annot(path)
    decoded = tuple(name.decode("utf-8", "replace") for name in names)
    return Values(path, numbers[None], (), _side(path), (decoded, colours[:, :3] / 255))


def _as_rows(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        raise DataError(
            f"{path}: expected numbers of shape (vertices,) or (rows, vertices), found {array.dtype} of {array.shape}"
        )
    return array.reshape(1, -1) if array.ndim == 1 else array


def _side(path: Path) -> str:
    found = {word[0] for word in _SIDE.findall(path.name.lower())}
    return {"l": LEFT, "r": RIGHT}[found.pop()] if len(found) == 1 else ""
