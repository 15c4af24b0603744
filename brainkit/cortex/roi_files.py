"""Regions in files: labels and annotations of FreeSurfer, masks in NIfTI, lists of vertices."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.vertices import FSAVERAGE, SPACES
from brainkit.cortex.volume import Volume
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.utils.files import read_json, read_text, users_path
from brainkit.utils.text import first_line, nearest_name

_SAME_PLACE = 1e-3  # mm: how much the affines of a mask and of the data may differ
_HEMISPHERE = re.compile(r"(?:^|[._-])(?:(lh|rh)|hemi-([LR]))(?=[._-])")


@dataclass(frozen=True, eq=False)
class Columns:
    """What the V columns are, to find the region of a file among them.

    Attributes
    ----------
    space : str
    ids : array of shape (V,), int
        Vertex ids; in the custom space, numbers of the columns in the data.
    volume : Volume or None
        The voxels, if the data are volumetric.
    """

    space: str
    ids: np.ndarray
    volume: Volume | None = None

    def select(self, positions: np.ndarray) -> Columns:
        volume = None if self.volume is None else self.volume.select(positions)
        return replace(self, ids=self.ids[positions], volume=volume)


def is_region_file(text: str) -> bool:
    """Whether a text names an existing file with regions, with ``:NAME`` after it or not."""
    path, _ = _split(text)
    return _kind(path) is not None and path.is_file()


def names_file(text: str) -> bool:
    """Whether a text is the name of a file with regions by its suffix, which may exist or not."""
    return _kind(_split(text)[0]) is not None


def read_region(text: str, columns: Columns | None) -> np.ndarray:
    """Positions among the columns of the region in a file.

    Parameters
    ----------
    text : str
        ``lh.V1.label``; ``lh.aparc.annot:cuneus``; a mask ``V1.nii.gz``, or ``rois.nii.gz:3`` for one of its labels; or
        a list of vertex ids, ``.txt`` (one a line) or ``.json``.
    columns : Columns or None
        None: it is not known where the columns lie.

    Returns
    -------
    array of shape (k,), int64
        Increasing. What the file has beyond the columns is left out.

    Raises
    ------
    UsageError
        If the region is not in the file, or none is named where there are several.
    DataError
        If the file is damaged, or of another space.
    """
    path, name = _split(text)
    kind = _kind(path)
    if columns is None or kind is None:
        raise UsageError(f"ROI {text}: these columns lie on no known space; name a region of their table")
    try:
        inside = _READERS[kind](path, name, columns)
    except BrainkitError:
        raise
    except Exception as error:  # nibabel raises many kinds
        raise DataError(f"{path}: expected a region ({kind}), which cannot be read: {first_line(error)}") from None
    return np.flatnonzero(inside)


def read_vertex_list(path: Path) -> np.ndarray:
    """Vertex ids from a ``.json`` list, or from a text file with one a line: (n,), int64.

    Raises
    ------
    DataError
        If there is something else.
    """
    if path.suffix.lower() == ".json":
        value = read_json(path)
        entries = [("", each) for each in value] if isinstance(value, list) else [("", type(value).__name__)]
    else:
        lines = read_text(path, "vertex ids, one per line,").splitlines()
        entries = [(f" line {number}:", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return np.array([_vertex_id(entry, f"{path}:{where}") for where, entry in entries], np.int64)


def _vertex_id(entry: object, where: str) -> int:
    try:
        vertex = int(entry) if isinstance(entry, str) or type(entry) is int else -1
    except ValueError:
        vertex = -1
    if not 0 <= vertex < 2**31:
        raise DataError(f"{where} expected a vertex id, found {str(entry)[:40]!r}")
    return vertex


def _split(text: str) -> tuple[Path, str]:
    """The file, and what is named in it."""
    match = re.fullmatch(r"(.*\.(?:annot|nii|nii\.gz)):([^/\\]+)", text, re.IGNORECASE)
    return (users_path(match[1]), match[2].strip()) if match else (users_path(text), "")


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in _READERS if name.endswith(suffix)), None)


def _read_label(path: Path, _name: str, columns: Columns) -> np.ndarray:
    from nibabel.freesurfer import read_label

    size, offset = _hemisphere(path, columns)
    first, count, *_ = read_text(path, "a label").splitlines()
    owner = next((word for word in first.partition("from subject")[2].split() if "=" not in word), "")
    if owner and owner not in SPACES:
        raise DataError(
            f"{path}: expected a label of {columns.space}, found one of the subject {owner}; map it with "
            "mri_label2label first"
        )
    if owner:
        _check_nested(path, owner, columns.space)
    local = np.atleast_1d(np.asarray(read_label(path), np.int64))
    if len(local) != int(count):
        raise DataError(f"{path}: expected {count} vertices, as its second line says, found {len(local)}")
    limit = SPACES[owner] if owner else size
    if local.size and not 0 <= local.min() <= local.max() < limit:
        raise DataError(f"{path}: expected vertices in 0 .. {limit - 1}, found {local.min()} .. {local.max()}")
    return np.isin(columns.ids, local[local < size] + offset)


def _read_annot(path: Path, name: str, columns: Columns) -> np.ndarray:
    from nibabel.freesurfer import read_annot

    size, offset = _hemisphere(path, columns)
    labels, _, raw = read_annot(path)
    names = [each.decode("utf-8", "replace") for each in raw]
    of = next((space for space, count in SPACES.items() if count == len(labels)), f"{len(labels):,} vertices")
    _check_nested(path, of, columns.space)
    wanted = next((k for k, each in enumerate(names) if each.lower() == name.lower()), None)
    if wanted is None:
        raise UsageError(
            f"{path}: expected a region of it, as {path.name}:NAME, got {name!r}{nearest_name(name, names)}"
        )
    return np.isin(columns.ids, np.flatnonzero(labels[:size] == wanted) + offset)


def _read_mask(path: Path, name: str, columns: Columns) -> np.ndarray:
    import nibabel

    if columns.volume is None:
        raise UsageError(f"{path}: a mask is for data of voxels, which these are not: they have no volume.json")
    image: Any = nibabel.load(path)
    values = np.asarray(image.dataobj).squeeze()
    volume = columns.volume
    if values.shape != volume.shape or not np.allclose(image.affine, volume.affine, atol=_SAME_PLACE):
        raise DataError(
            f"{path}: expected a mask on the data's grid, {volume.shape} with its affine, found {values.shape}"
            f"{' with another affine' if values.shape == volume.shape else ''}; resample it first"
        )
    found = np.unique(values[np.isfinite(values) & (values > 0)])
    if name:
        if name not in (known := [f"{each:g}" for each in found]):
            raise UsageError(f"{path}: expected one of its labels, got {name!r}{nearest_name(name, known)}")
        inside = values == float(name)
    elif len(found) > 1:
        raise UsageError(
            f"{path}: expected a mask, with one value above 0, found {len(found)}, {found[0]:g} to {found[-1]:g}; name "
            f"one of its labels, as {path.name}:{found[0]:g}"
        )
    else:
        inside = values > 0  # NSD marks voxels outside the cortex with -1
    return inside[tuple(volume.voxels.T)]


def _read_list(path: Path, _name: str, columns: Columns) -> np.ndarray:
    wanted = read_vertex_list(path)
    limit = 2 * SPACES[columns.space] if columns.space in SPACES else int(columns.ids.max(initial=-1)) + 1
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < limit:
        raise DataError(f"{path}: expected ids in 0 .. {limit - 1}, found {wanted.min()} .. {wanted.max()}")
    return np.isin(columns.ids, wanted)


def _hemisphere(path: Path, columns: Columns) -> tuple[int, int]:
    """Vertices of a hemisphere of the data's space, and what its side adds to the ids."""
    if columns.space not in SPACES:
        raise UsageError(
            f"{path}: a region on a surface is for vertices of {', '.join(SPACES)}, and these columns are none"
        )
    match = _HEMISPHERE.search(path.name)
    if match is None:
        raise UsageError(f"{path}: expected a name that says the hemisphere, as lh.{path.name}")
    size = SPACES[columns.space]
    return size, size if (match[1] or match[2]) in ("rh", "R") else 0


def _check_nested(path: Path, of: str, space: str) -> None:
    """Refuse another surface: of the fsaverage family, the first vertices of a finer one are those of a coarser one."""
    family = FSAVERAGE[FSAVERAGE.index(space) :] if space in FSAVERAGE else (space,)
    if of not in family:
        raise DataError(f"{path}: expected a region of {' or '.join(family)}, found one of {of}")


_READERS: dict[str, Callable[[Path, str, Columns], np.ndarray]] = {
    ".label": _read_label,
    ".annot": _read_annot,
    ".nii.gz": _read_mask,
    ".nii": _read_mask,
    ".txt": _read_list,
    ".json": _read_list,
}
