"""A user's own data in a plain folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.dataset import OWN, in_row_order, read_dataset
from brainkit.data.noise_ceiling import read_noise_ceiling
from brainkit.data.responses import Responses, open_array, open_matrix
from brainkit.data.subject import Subject, assemble, read_groups, read_note
from brainkit.errors import DataError, UsageError
from brainkit.images import find_images
from brainkit.utils.files import read_json

PREPARED = "prepared.json"  # in a folder that was made from trials: how


def Folder(root: str | os.PathLike[str]) -> Subject:
    """Read a folder of own data.

    The folder has

    - ``images/``: images, also in subfolders; in the order of their names, they are the rows of the responses; where
      text order and numeric order of the names differ, ``dataset.json`` must state which it is
    - ``responses.npy``: (n, V), float32 or float64
    - ``vertices.json``: ``{"space": "fsaverage5" | "fsaverage6" | "fsaverage" | "fsLR", "ids": [V whole numbers]}``,
      increasing, the left hemisphere first, the right offset by the size of the space; or ``coordinates.npy``: (V, 3)
      in mm, for vertices or voxels on none of these surfaces; with both, the selectors use the coordinates
    - optional, for responses that are means over trials: ``repetitions.npy`` (n,), the trials of each image, and
      ``ncsnr.npy`` (V,), the s.d. of the signal over that of a single trial's noise, from which the noise ceilings of
      any images follow
    - optional: ``rois.json`` ``{name: [columns, 0 to V-1]}``, ``noise_ceiling.npy`` (V,) as fractions or percent,
      ``stimuli.json`` ``{image file name: group}`` (a split never separates images of one group, nor images with the
      same pixels), ``dataset.json`` ``{"name": text, "licence": text, "citation": text or list of texts,
      "image_order": "text" | "numeric"}``, ``simulated.json`` ``{"note": text}``, and, if the coordinates are the
      centres of voxels, ``volume.json`` ``{"shape": [X, Y, Z], "affine": 4 rows of 4}``, for predictions as NIfTI

    Parameters
    ----------
    root : path-like

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If a file is missing or wrong: the message names the file, what was expected and what was found.
    """
    folder = Path(root)
    dataset = read_dataset(folder)
    names = [name.as_posix() for name in in_row_order(list_images(folder / "images"), folder / "images", dataset)]
    images = [folder / "images" / name for name in names]
    file = folder / "responses.npy"
    rows, columns = open_matrix(file).shape
    if rows != len(images):
        raise DataError(f"{file}: expected {len(images)} rows, one for each image in images, found {rows}")
    vertices, coordinates = read_space(folder, columns)
    groups = read_groups(folder / "stimuli.json", set(names))
    ceiling = folder / "noise_ceiling.npy"
    prepared = read_json(folder / PREPARED) if (folder / PREPARED).exists() else {}
    return assemble(
        name=prepared.get("subject", folder.resolve().name),
        root=folder,
        images=images,
        responses=Responses([[file]]),
        names=names,
        groups=[groups.get(name) for name in names],
        official_test=np.zeros(len(images), bool),
        vertices=vertices,
        rois=read_rois(folder / "rois.json", columns),
        noise_ceiling=read_noise_ceiling([(ceiling, columns)]) if ceiling.exists() else None,
        own_coordinates=coordinates,
        volume=read_volume(folder / "volume.json", vertices, coordinates),
        units=prepared.get("units", "as in responses.npy"),
        note=read_note(folder) or prepared.get("note"),
        kind=prepared.get("kind", OWN),
        ncsnr=read_numbers(folder / "ncsnr.npy", columns, "ratios of signal to noise"),
        repetitions=read_repetitions(folder / "repetitions.npy", rows),
        dataset=dataset,
    )


def read_numbers(path: Path, count: int, what: str) -> npt.NDArray[np.float32] | None:
    """An array (count,) of numbers that are not negative, or NaN; None without the file."""
    if not path.exists():
        return None
    raw = open_array(path, f"{what} ({count},)")
    if raw.shape != (count,) or raw.dtype.kind not in "fiu" or (np.asarray(raw) < 0).any():
        raise DataError(f"{path}: expected {count} {what}, 0 or above, found {raw.dtype} of shape {raw.shape}")
    return np.asarray(raw, np.float32)


def read_repetitions(path: Path, rows: int) -> npt.NDArray[np.int32] | None:
    """Numbers of trials (rows,); None without the file."""
    counts = read_numbers(path, rows, "numbers of trials")
    if counts is None:
        return None
    if not (counts >= 1).all() or not (counts == np.round(counts)).all():
        raise DataError(f"{path}: expected whole numbers of trials from 1, found {counts.min():g} to {counts.max():g}")
    return counts.astype(np.int32)


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
        raise DataError(f"{path}: expected different coordinates, found the same for all {columns} vertices")
    return coordinates


def read_vertices(path: Path, columns: int, *, has_coordinates: bool) -> Vertices:
    """Read ``vertices.json`` of V `columns`; the custom space is allowed for vertices with coordinates."""
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


def list_images(folder: Path) -> list[Path]:
    """The images' paths in the folder, in text order."""
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with images, found {'a file' if folder.exists() else 'nothing'}")
    try:
        return [image.relative_to(folder) for image in find_images([folder])]
    except UsageError as error:  # the request is right, the folder is not
        raise DataError(str(error)) from None


def read_space(folder: Path, columns: int) -> tuple[Vertices, npt.NDArray[np.float32] | None]:
    """The columns' vertices, and their coordinates if the folder has them."""
    listed, measured = folder / "vertices.json", folder / "coordinates.npy"
    coordinates = read_coordinates(measured, columns) if measured.exists() else None
    if listed.exists():
        return read_vertices(listed, columns, has_coordinates=coordinates is not None), coordinates
    if coordinates is None:
        raise DataError(f"{folder}: expected vertices.json or coordinates.npy, found neither")
    return Vertices.custom(columns), coordinates


def read_volume(path: Path, vertices: Vertices, coordinates: npt.NDArray[np.float32] | None) -> Volume | None:
    """Read ``volume.json``; None without the file."""
    if not path.exists():
        return None
    if vertices.space != CUSTOM or coordinates is None:
        raise DataError(f"{path}: expected coordinates.npy with the voxels' centres and no fsaverage vertices")
    value = read_json(path)
    entries = value if isinstance(value, dict) else {}
    try:
        return Volume.at_coordinates(entries.get("shape"), entries.get("affine"), coordinates)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_rois(path: Path, columns: int) -> RoiTable:
    """Read ``rois.json``; an empty table without the file."""
    if not path.exists():
        return RoiTable({}, columns)
    value = read_json(path)
    try:
        return RoiTable.from_json(value, columns)
    except DataError as error:
        raise DataError(f"{path}: {error}; regions are lists of columns of responses.npy, counted from 0") from None
