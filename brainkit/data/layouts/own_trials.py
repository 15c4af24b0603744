"""Own data that are prepared first: single trials, and responses or images in other formats than the plain folder's."""

from __future__ import annotations

import collections
import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import CUSTOM, SPACES, Vertices
from brainkit.data.dataset import read_dataset
from brainkit.data.folder import read_numbers, read_repetitions, read_rois, read_space, read_volume
from brainkit.data.layouts.own_images import OwnImages, open_images
from brainkit.data.layouts.own_matrix import Matrix
from brainkit.data.layouts.own_responses import open_responses
from brainkit.data.layouts.tables import Table, read_table
from brainkit.data.noise_ceiling import read_noise_ceiling
from brainkit.data.responses import open_array
from brainkit.data.split_files import FILE as OWN_SPLIT
from brainkit.data.split_files import FOLDER as SPLITS
from brainkit.data.split_files import read_split
from brainkit.data.subject import read_groups, read_note
from brainkit.data.trials.images import StimulusImages
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

TABLE = "trials.csv"
_EXTRA = (OWN_SPLIT, "truth.npz", "simulated.json", "SIMULATED.txt")  # copied as they are


def own_trials(path: Path) -> Trials:
    """Read a folder of own data with single trials, or with responses or images in other formats.

    The folder is that of :func:`brainkit.data.Folder`, except that

    - ``trials.csv`` says what each row of the responses is: columns ``image`` (the name of an image; of an array of
      images without names, its row from 0) and, optionally, ``session`` and ``run``. Each column of the responses is
      z-scored within each session; without sessions, it is left as it is. Without ``trials.csv``, row i is of image i
    - ``responses`` are ``.npy`` of any float or integer type, ``.npz``, ``.h5``, ``.zarr``, CIFTI (``.dscalar.nii``,
      ``.dtseries.nii``), whose cortex is taken, or a folder of CIFTI files or of GIFTI or MGZ files of hemispheres;
      ``responses.json`` ``{"scale": 300}`` states what they are divided by
    - images are a folder, ``images.h5`` (encoded, or pixels) or ``images.npy``, pixels (n, height, width, 3);
      ``image_names.json``, a list, names the images of an array

    Raises
    ------
    DataError
        If a file is missing or wrong: the message names the file, what was expected and what was found.
    """
    dataset = read_dataset(path)
    images = open_images(path, dataset)
    matrix = open_responses(path, dataset)
    matrix, vertices, coordinates = _place(path, matrix)
    table = read_table(path / TABLE, ("image",)) if (path / TABLE).exists() else None
    notes = list(matrix.notes)
    if table is None:
        shown, how = _images_in_order(path, matrix, images)
        notes += how
    else:
        shown = _images_of(path / TABLE, table, matrix, images)
    used = sorted(set(shown.tolist()), key=lambda row: images.names[row])
    position = np.full(len(images.names), -1, np.int64)
    position[used] = np.arange(len(used))
    names = tuple(images.names[row] for row in used)
    groups = read_groups(path / "stimuli.json", set(images.names))
    ceiling = _read_ceiling(path / "noise_ceiling.npy", matrix)
    stated = _stated(path, used, matrix, ceiling) if table is None else _with_ceiling(position[shown], ceiling)
    volume = read_volume(path / "volume.json", vertices, coordinates)
    unseen = len(images.names) - len(used)
    notes += [f"{plural(unseen, 'image')} of {Path(images.where).name} in no trial"] if unseen else []
    rois = read_rois(path / "rois.json", matrix.stored_columns)
    return Trials(
        name=path.resolve().name,
        layout=f"own data, {matrix.name}" + (f", {TABLE}" if table is not None else ""),
        root=path,
        sessions=_sessions(path / TABLE, table, matrix, position[shown]),
        images=StimulusImages(
            names, lambda row: images.get(used[row]), tuple(groups.get(name) for name in names), images.files
        ),
        vertices=vertices,
        rois=dict(rois if matrix.kept is None else rois.subset(matrix.kept)),
        standardise=table is not None and "session" in table,
        coordinates=coordinates,
        volume=volume,
        stated=stated,
        splits={file.stem: read_split(file).lists for file in sorted((path / SPLITS).glob("*.json"))},
        units="z-scored responses" if table is not None and "session" in table else f"as in {matrix.name}",
        dataset=replace(dataset, image_order=""),
        note=read_note(path),
        notes=tuple(notes),
        extra_files=tuple(path / name for name in _EXTRA if (path / name).is_file()),
        reads_columns=matrix.reads_columns,
    )


def _place(path: Path, matrix: Matrix) -> tuple[Matrix, Vertices, npt.NDArray[np.float32] | None]:
    """Where the columns lie; those of whole hemispheres are the vertices that are listed, or all."""
    listed, sides = path / "vertices.json", matrix.hemispheres
    if matrix.vertices is not None:
        if other := next((file for file in (listed, path / "coordinates.npy") if file.exists()), None):
            raise DataError(f"{other}: expected no such file beside {matrix.name}, which says its vertices itself")
        return matrix, matrix.vertices, None
    if sides is None or ((path / "coordinates.npy").exists() and not listed.exists()):
        return matrix, *read_space(path, matrix.shape[1])
    space = next((space for space, count in SPACES.items() if set(sides) <= {0, count}), CUSTOM)
    if space == CUSTOM:
        raise DataError(
            f"{path / matrix.name}: expected hemispheres of {', '.join(f'{n:,}' for n in SPACES.values())} vertices, "
            f"or coordinates.npy, found {sides[0]:,} and {sides[1]:,}"
        )
    size = SPACES[space]
    there = np.concatenate([np.arange(sides[0]), size + np.arange(sides[1])])
    if not listed.exists():
        return matrix, Vertices(space, there), None
    value = read_json(listed)
    ids = value.get("ids") if isinstance(value, dict) else None
    vertices, coordinates = read_space(path, len(ids) if isinstance(ids, list) else len(there))
    if vertices.space != space or not np.isin(vertices.ids, there).all():
        raise DataError(
            f"{listed}: expected vertices of {space} that {matrix.name} has, found some of {vertices.space}"
        )
    columns = np.searchsorted(there, vertices.ids).astype(np.int64)
    chosen = replace(
        matrix,
        shape=(matrix.shape[0], len(columns)),
        read=lambda rows, wanted: matrix.read(rows, columns[wanted]),
        hemispheres=None,
    )
    return chosen, vertices, coordinates


def _images_in_order(path: Path, matrix: Matrix, images: OwnImages) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The image of each row: the one of its name, if the files name the rows after images; else row i is of image i.

    Also what is to be said of it.
    """
    if matrix.shape[0] != len(images.names):
        raise DataError(
            f"{path / matrix.name}: expected {len(images.names)} rows, one for each image in "
            f"{Path(images.where).name}, found {matrix.shape[0]}; of single trials, {TABLE} says which image each row "
            "is of"
        )
    row_of = _rows_by_name(images)
    for names in matrix.row_names:
        named = [row_of[name] for name in names if name in row_of]
        if len(set(named)) == len(images.names):
            return np.array(named, np.int64), [f"rows of {matrix.name} belong to the images that they are named after"]
    if matrix.must_be_named:
        raise DataError(
            f"{path / matrix.name}: expected a file named after each image in {Path(images.where).name}, such as "
            f"{images.names[0]}, found {matrix.files[0].name}; rename them, or say the image of each in {TABLE}"
        )
    return np.arange(matrix.shape[0]), []


def _images_of(file: Path, table: Table, matrix: Matrix, images: OwnImages) -> npt.NDArray[np.int64]:
    """The image of each trial."""
    wanted = table["image"]
    if len(wanted) != matrix.shape[0]:
        raise DataError(
            f"{file}: expected {plural(matrix.shape[0], 'trial')}, one for each row of {matrix.name}, found "
            f"{len(wanted)}"
        )
    row_of = _rows_by_name(images)
    unknown = [k for k, name in enumerate(wanted) if name not in row_of]
    if unknown:
        name = wanted[unknown[0]]
        if images.numbered:
            what = f"row numbers of images, 0 to {len(images.names) - 1}"
        else:
            near = difflib.get_close_matches(name, images.names, n=1)
            what = f"names of images in {Path(images.where).name}" + (f" such as {near[0]}" if near else "")
        more = f" and in {plural(len(unknown) - 1, 'other')}" if len(unknown) > 1 else ""
        raise DataError(f"{file}: expected {what}, found {name!r:.80} in trial {unknown[0]}, counted from 0{more}")
    return np.array([row_of[name] for name in wanted], np.int64)


def _rows_by_name(images: OwnImages) -> dict[str, int]:
    """The row of each image by its name, in full or without suffix; by its number, if it has no other name."""
    if images.numbered:
        return {str(row): row for row in range(len(images.names))}
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in images.names]
    counts = collections.Counter(stems)
    single = {stem: row for row, stem in enumerate(stems) if counts[stem] == 1}
    return {**single, **{name: row for row, name in enumerate(images.names)}}


def _sessions(file: Path, table: Table | None, matrix: Matrix, shown: npt.NDArray[np.int64]) -> tuple[Session, ...]:
    """Trials by session, in the order of their first trial; all in one without sessions."""
    names: Sequence[str] = [""] * len(shown) if table is None else table.get("session", [""] * len(shown))
    sessions = []
    for name in dict.fromkeys(names):
        rows = np.flatnonzero([each == name for each in names])
        if table is not None and "session" in table:
            if not name.strip():
                raise DataError(
                    f"{file}: expected a session of every trial, found none in trial {rows[0]}, counted from 0"
                )
            if len(rows) < 2:
                raise DataError(
                    f"{file}: expected at least 2 trials of each session, which are z-scored together, found one of "
                    f"session {name}"
                )

        def read(columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64] = rows) -> npt.NDArray[np.float32]:
            return matrix.values(rows, columns)

        sessions.append(Session(f"session {name}" if name else "all trials", matrix.files, shown[rows], read))
    return tuple(sessions)


def _read_ceiling(file: Path, matrix: Matrix) -> npt.NDArray[Any] | None:
    """The noise ceilings as the file has them, checked; None without it."""
    if not file.exists():
        return None
    read_noise_ceiling([(file, matrix.stored_columns)])
    values = np.asarray(open_array(file, "noise ceilings")).ravel()
    return values if matrix.kept is None else values[matrix.kept]


def _stated(
    path: Path, used: Sequence[int], matrix: Matrix, ceiling: npt.NDArray[Any] | None
) -> dict[str, npt.NDArray[Any]]:
    """What a folder of averaged responses says of them, in the order of the images' names."""
    repetitions = read_repetitions(path / "repetitions.npy", len(used))
    ncsnr = read_numbers(path / "ncsnr.npy", matrix.stored_columns, "ratios of signal to noise")
    found = {
        "noise_ceiling": ceiling,
        "ncsnr": ncsnr if ncsnr is None or matrix.kept is None else ncsnr[matrix.kept],
        "repetitions": None if repetitions is None else repetitions[used],
    }
    return {name: values for name, values in found.items() if values is not None}


def _with_ceiling(shown: npt.NDArray[np.int64], ceiling: npt.NDArray[Any] | None) -> dict[str, npt.NDArray[Any]] | None:
    """Noise ceilings that come with trials are used; without them, they are estimated."""
    if ceiling is None:
        return None
    return {"noise_ceiling": ceiling, "repetitions": np.bincount(shown).astype(np.int32)}
