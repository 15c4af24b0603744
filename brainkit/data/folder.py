"""Own data in a plain folder, and the choice of the reader for any folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.algonauts import Algonauts
from brainkit.data.subject import (
    Responses,
    Subject,
    assemble,
    open_array,
    open_matrix,
    read_groups,
    read_noise_ceiling,
    read_note,
)
from brainkit.errors import DataError, UsageError
from brainkit.images import find_images
from brainkit.utils.files import read_json


def Folder(root: str | os.PathLike[str]) -> Subject:
    """Read own data.

    The folder holds

    - ``images/``: images (also in subfolders); sorted by path, they are the rows of the responses
    - ``responses.npy``: (n, V), float32 or float64
    - ``vertices.json``: ``{"space": "fsaverage5" | "fsaverage6" | "fsaverage", "ids": [V whole numbers]}``, increasing,
      the left hemisphere first, the right offset by the space's size; or ``coordinates.npy``: (V, 3) in mm, for
      vertices (or voxels) that lie on none of these surfaces; with both, the coordinates steer the selectors
    - optional: ``rois.json`` ``{name: [columns, 0 to V-1]}``, ``noise_ceiling.npy`` (V,) as fractions or percent,
      ``stimuli.json`` ``{image file name: group}`` (images of one group never land on two sides of a split; by
      default every image is its own), ``simulated.json`` ``{"note": text}``, and,
      where the coordinates are the centres of voxels, ``volume.json`` ``{"shape": [X, Y, Z], "affine": 4 rows of 4}``,
      for predictions as NIfTI

    Parameters
    ----------
    root : path-like

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If something is missing or does not fit: the message names the file, what was expected and what was found.
    """
    folder = Path(root)
    images = _list_images(folder / "images")
    file = folder / "responses.npy"
    rows, columns = open_matrix(file).shape
    if rows != len(images):
        raise DataError(f"{file}: expected {len(images)} rows, one for each image in images, found {rows}")
    vertices, coordinates = _read_vertices(folder, columns)
    names = [path.relative_to(folder / "images").as_posix() for path in images]
    given = read_groups(folder / "stimuli.json", set(names))
    ceiling = folder / "noise_ceiling.npy"
    return assemble(
        name=folder.resolve().name,
        root=folder,
        images=images,
        responses=Responses([[file]]),
        groups=[given.get(name, name) for name in names],
        official_test=np.zeros(len(images), bool),
        vertices=vertices,
        rois=_read_rois(folder / "rois.json", columns),
        noise_ceiling=read_noise_ceiling([(ceiling, columns)]) if ceiling.exists() else None,
        own_coordinates=coordinates,
        volume=_read_volume(folder / "volume.json", vertices, coordinates),
        units="as in responses.npy",
        note=read_note(folder),
    )


def open_subject(path: str | os.PathLike[str]) -> Subject:
    """Read a subject folder of either layout; what is in the folder tells which.

    Parameters
    ----------
    path : path-like
        An Algonauts 2023 subject folder (it holds ``training_split``), or own data (it holds ``responses.npy``).

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If the folder is missing, empty or of no known layout, or as the reader says.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a data folder, found {'a file' if folder.exists() else 'nothing'}")
    if (folder / "training_split").exists():
        return Algonauts(folder)
    if any((folder / name).exists() for name in ("responses.npy", "images")):
        return Folder(folder)
    expected = "training_split (Algonauts 2023) or responses.npy and images (own data)"
    inside = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not inside:
        raise DataError(f"{folder}: expected {expected}, found an empty folder")
    subjects = [
        name
        for name in inside
        if (folder / name / "training_split").exists() or (folder / name / "responses.npy").exists()
    ]
    if subjects:
        raise DataError(
            f"{folder}: expected one subject's folder, found several to choose from: name {folder / subjects[0]}"
        )
    shown = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
    raise DataError(f"{folder}: expected {expected}, found {shown}")


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with images, found {'a file' if folder.exists() else 'nothing'}")
    try:
        return find_images([folder])
    except UsageError as error:
        # The request was right; the folder is at fault.
        raise DataError(str(error)) from None


def _read_vertices(folder: Path, columns: int) -> tuple[Vertices, npt.NDArray[np.float32] | None]:
    listed, measured = folder / "vertices.json", folder / "coordinates.npy"
    coordinates = read_coordinates(measured, columns) if measured.exists() else None
    if listed.exists():
        return read_listed(listed, columns, has_coordinates=coordinates is not None), coordinates
    if coordinates is None:
        raise DataError(f"{folder}: expected vertices.json or coordinates.npy, found neither")
    return Vertices.custom(columns), coordinates


def read_coordinates(path: Path, columns: int) -> npt.NDArray[np.float32]:
    """Read ``coordinates.npy``, (V, 3) in mm, of V `columns`."""
    raw = open_array(path, f"coordinates of shape ({columns}, 3) in mm")
    if raw.shape != (columns, 3):
        raise DataError(f"{path}: expected coordinates of shape ({columns}, 3), found {raw.shape}")
    if raw.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers, found {raw.dtype}")
    coordinates = np.asarray(raw, np.float32)
    bad = np.flatnonzero(~np.isfinite(coordinates).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: expected finite coordinates, found {len(bad)} rows that are not, the first {bad[0]}")
    if columns > 1 and not np.ptp(coordinates, axis=0).any():
        raise DataError(f"{path}: expected vertices at different places, found all {columns} at one")
    return coordinates


def read_listed(path: Path, columns: int, *, has_coordinates: bool) -> Vertices:
    """Read ``vertices.json`` for V `columns`; the custom space is one for vertices that have coordinates."""
    value = read_json(path)
    if not isinstance(value, dict) or "space" not in value:
        raise DataError(f'{path}: expected {{"space": ..., "ids": [...]}}, found no space')
    space, ids = value["space"], value.get("ids")
    if space == CUSTOM and has_coordinates and ids is None:
        return Vertices.custom(columns)
    if not isinstance(space, str) or space not in SPACES:
        raise DataError(f"{path}: expected the space {', '.join(SPACES)}, found {space!r}")
    if not isinstance(ids, list) or not all(type(vertex) is int for vertex in ids):
        raise DataError(f'{path}: expected "ids", a list of whole numbers, found something else')
    if len(ids) != columns:
        raise DataError(f"{path}: expected {columns} ids, one for each column of responses.npy, found {len(ids)}")
    try:
        return Vertices(space, np.array(ids, np.int64))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OverflowError:
        raise DataError(f"{path}: expected ids in 0 .. {2 * SPACES[space] - 1}, found larger ones") from None


def _read_volume(path: Path, vertices: Vertices, coordinates: npt.NDArray[np.float32] | None) -> Volume | None:
    if not path.exists():
        return None
    if vertices.space != CUSTOM or coordinates is None:
        raise DataError(f"{path}: expected coordinates.npy, the voxels' centres, and no fsaverage vertices beside it")
    value = read_json(path)
    given = value if isinstance(value, dict) else {}
    try:
        return Volume.at_coordinates(given.get("shape"), given.get("affine"), coordinates)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_rois(path: Path, columns: int) -> RoiTable:
    if not path.exists():
        return RoiTable({}, columns)
    try:
        return RoiTable.from_json(read_json(path), columns)
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
