"""Own data whose responses are CIFTI files: the cortex by the files' own brain models, onto fsLR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.fs_lr import FS_LR_SIZE, STRUCTURES
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import FS_LR, Vertices
from brainkit.data.dataset import Dataset, in_row_order, read_dataset
from brainkit.data.layouts.tables import read_table
from brainkit.data.noise_ceiling import read_noise_ceiling
from brainkit.data.subject import read_groups, read_note
from brainkit.data.trials.images import StimulusImages
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError, UsageError
from brainkit.images import find_images
from brainkit.utils.files import read_json
from brainkit.utils.text import one_line, plural

SUFFIXES = (".dscalar.nii", ".dtseries.nii")
_PASSED_ON = ("simulated.json", "truth.npz", "splits.json")
_WINDOW = 4096  # grayordinates read at once: all maps of a grayordinate lie together


@dataclass(frozen=True, eq=False)
class CiftiFile:
    """A CIFTI file of maps (or time points) by grayordinates.

    Attributes
    ----------
    path : Path
    names : tuple of str
        Of the maps; empty for time points.
    maps, grayordinates : int
    vertices : Vertices
        Of the cortex, on fsLR.
    columns : array of shape (V,), int64
        The grayordinate of each of these vertices.
    """

    path: Path
    names: tuple[str, ...]
    maps: int
    grayordinates: int
    vertices: Vertices
    columns: npt.NDArray[np.int64]

    def read(self, maps: slice, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Some maps at some of the vertices, increasing: (n, k), float32."""
        image = _open(self.path)
        wanted = self.columns[columns]
        values = np.empty((maps.stop - maps.start, len(wanted)), np.float32)
        for window in np.unique(wanted // _WINDOW).tolist():
            here = np.flatnonzero(wanted // _WINDOW == window)
            first, last = int(wanted[here].min()), int(wanted[here].max()) + 1
            try:
                block = np.asarray(image.dataobj[maps, first:last])
            except (OSError, EOFError, ValueError) as error:
                raise DataError(f"{self.path}: expected all its values, cannot be read: {one_line(error)}") from None
            values[:, here] = block[:, wanted[here] - first]
        return values


def open_cifti(path: Path) -> CiftiFile:
    """Read what the maps and columns of a CIFTI file are; the order of its columns is whatever its axis says.

    Raises
    ------
    DataError
        If the file cannot be read, has parcels instead of grayordinates, another mesh than fs_LR 32k, or no cortex.
    """
    from nibabel.cifti2.cifti2_axes import BrainModelAxis, ScalarAxis

    image = _open(path)
    rows, axis = (image.header.get_axis(index) for index in (0, 1))
    if not isinstance(axis, BrainModelAxis):
        raise DataError(f"{path}: expected grayordinates, found {type(axis).__name__}; parcels have no vertices")
    ids: list[npt.NDArray[np.int64]] = []
    columns: list[npt.NDArray[np.int64]] = []
    for structure, where, model in axis.iter_structures():
        for index, (side, name) in enumerate(STRUCTURES.items()):
            if structure == name:
                size = model.nvertices.get(structure)
                if size != FS_LR_SIZE:
                    raise DataError(f"{path}: expected {FS_LR_SIZE:,} vertices of the {side} mesh (32k), found {size}")
                ids.append(np.asarray(model.vertex, np.int64) + index * FS_LR_SIZE)
                start = where.start or 0
                columns.append(np.arange(start, start + len(model.vertex)))
    if not ids:
        raise DataError(f"{path}: expected cortex of {' or '.join(STRUCTURES.values())}, found none")
    found, places = np.concatenate(ids), np.concatenate(columns)
    order = np.argsort(found, kind="stable")
    try:
        vertices = Vertices(FS_LR, found[order])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    names = tuple(str(name) for name in rows.name) if isinstance(rows, ScalarAxis) else ()
    return CiftiFile(path, names, len(rows), len(axis), vertices, places[order])


def cifti_folder(path: Path) -> Trials:
    """Describe a folder of own data whose responses are CIFTI files.

    As `brainkit.data.Folder`, with ``responses.dscalar.nii``, ``responses.dtseries.nii`` or a folder ``responses`` of
    such files in place of ``responses.npy`` and ``vertices.json``. Each map is the response to an image, by the maps'
    names if all are names of images, else in the order of the images; or a trial of the image that ``trials.csv`` says
    (columns ``image`` and, to standardise within sessions, ``session``).

    Raises
    ------
    DataError
        If a file is missing or does not fit.
    """
    dataset = read_dataset(path)
    files = [open_cifti(file) for file in _files(path, dataset)]
    first = files[0]
    for file in files[1:]:
        if file.vertices != first.vertices:
            raise DataError(f"{file.path}: expected the vertices of {first.path.name}, found others")
    for name in ("vertices.json", "coordinates.npy"):
        if (path / name).exists():
            raise DataError(f"{path / name}: expected no such file beside CIFTI responses, which say their vertices")
    images = _images(path / "images", dataset)
    groups = read_groups(path / "stimuli.json", set(images))
    table = path / "trials.csv"
    rows, sessions, how = _trials(table, images) if table.exists() else _in_order(path, files, images)
    total = sum(file.maps for file in files)
    if len(rows) != total:
        raise DataError(f"{table}: expected {plural(total, 'trial')}, one a map, found {len(rows)}")
    names = tuple(sorted(images))
    position = {name: row for row, name in enumerate(names)}
    shown = np.array([position[name] for name in rows], np.int64)
    left_out = first.grayordinates - len(first.columns)
    notes = [how, *([f"left out: {left_out:,} grayordinates that are not cortex"] if left_out else [])]
    ceiling = path / "noise_ceiling.npy"
    return Trials(
        name=path.resolve().name,
        layout=f"own data, CIFTI of {first.grayordinates:,} grayordinates",
        root=path,
        sessions=_sessions(files, shown, sessions),
        images=StimulusImages(
            names,
            lambda row: path / "images" / names[row],
            tuple(groups.get(name) for name in names),
            tuple(path / "images" / name for name in names),
        ),
        vertices=first.vertices,
        rois=_rois(path / "rois.json", first),
        standardise=bool(sessions),
        stated=_stated(ceiling, first, shown if table.exists() else None),
        units="z-scored by session" if sessions else "as in the CIFTI files",
        dataset=dataset,
        note=read_note(path),
        notes=tuple(notes),
        extra_files=tuple(path / name for name in _PASSED_ON if (path / name).is_file()),
    )


def _open(path: Path) -> Any:
    import nibabel

    try:
        image = nibabel.load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a CIFTI file") from None
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise DataError(f"{path}: expected a CIFTI file, which cannot be read: {one_line(error)}") from None
    if not isinstance(image, nibabel.Cifti2Image):
        raise DataError(f"{path}: expected CIFTI-2, found another NIfTI file")
    return image


def _files(path: Path, dataset: Dataset) -> list[Path]:
    single = [path / f"responses{suffix}" for suffix in SUFFIXES if (path / f"responses{suffix}").is_file()]
    folder = path / "responses"
    several = [file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")]
    kinds = sorted({suffix for file in (*single, *several) for suffix in SUFFIXES if file.name.endswith(suffix)})
    if len(single) + bool(several) != 1 or len(kinds) != 1:
        found = ", ".join(file.name for file in single) or "none"
        raise DataError(
            f"{path}: expected responses{SUFFIXES[0]}, responses{SUFFIXES[1]} or a folder responses of one of both, "
            f"found {found}{f' and {len(several)} files in responses' if several else ''}"
        )
    if others := [file.name for file in path.glob("responses.*") if file not in single and file.suffix != ".json"]:
        raise DataError(f"{path}: expected responses in one format, found CIFTI and {others[0]}; keep one of them")
    return single or [folder / name for name in in_row_order(sorted(Path(f.name) for f in several), folder, dataset)]


def _images(folder: Path, dataset: Dataset) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with images, found {'a file' if folder.exists() else 'nothing'}")
    try:
        found = [image.relative_to(folder) for image in find_images([folder])]
    except UsageError as error:  # the request is right, the folder is not
        raise DataError(str(error)) from None
    return [name.as_posix() for name in in_row_order(found, folder, dataset)]


def _trials(path: Path, images: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The image of each map, and its session if the table says it."""
    table = read_table(path, ("image",))
    known = set(images)
    if wrong := next((name for name in table["image"] if name not in known), None):
        raise DataError(f"{path}: expected names of files in images, found {wrong!r:.60}")
    if unseen := sorted(known - set(table["image"])):
        raise DataError(f"{path}: expected a trial of each image, found none of {unseen[0]}")
    sessions = table.get("session", [])
    return (
        table["image"],
        sessions,
        "maps are trials, as trials.csv says"
        + (", z-scored within its sessions" if sessions else ", as they are: it has no sessions"),
    )


def _in_order(path: Path, files: Sequence[CiftiFile], images: Sequence[str]) -> tuple[list[str], list[str], str]:
    total = sum(file.maps for file in files)
    if total != len(images):
        raise DataError(f"{path}: expected {len(images)} maps, one for each image in images, found {total}")
    by_name = {**{Path(name).stem: name for name in images}, **{name: name for name in images}}
    of_maps = [name for file in files for name in file.names]
    of_files = [file.path.name.removesuffix(SUFFIXES[0]).removesuffix(SUFFIXES[1]) for file in files]
    for labels, what in ((of_maps, "names"), (of_files, "files' names")):
        named = [by_name.get(label) for label in labels]
        if len(named) == len(images) and None not in named and len(set(named)) == len(named):
            return [name for name in named if name is not None], [], f"maps belong to images by their {what}"
    if len(files) == len(images) > 1:
        raise DataError(
            f"{path / 'responses'}: expected a file named after each image, found {files[0].path.name} for "
            f"{images[0]}; rename them, or say the image of each in trials.csv"
        )
    return list(images), [], "maps belong to images in their order"


def _sessions(files: Sequence[CiftiFile], shown: npt.NDArray[np.int64], sessions: Sequence[str]) -> tuple[Session, ...]:
    paths = tuple(file.path for file in files)
    starts = np.cumsum([0, *(file.maps for file in files)])

    def read(trials: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        values = np.empty((len(trials), len(columns)), np.float32)
        for file, start in zip(files, starts[:-1].tolist(), strict=True):
            here = np.flatnonzero((trials >= start) & (trials < start + file.maps))
            if len(here):
                maps = trials[here] - start
                first, stop = int(maps.min()), int(maps.max()) + 1  # a session's maps mostly follow each other
                values[here] = file.read(slice(first, stop), columns)[maps - first]
        return values

    def session(name: str, trials: npt.NDArray[np.int64]) -> Session:
        return Session(name, paths, shown[trials], lambda columns: read(trials, columns))

    if not sessions:
        return (session("all maps", np.arange(len(shown))),)
    of = np.array(sessions)
    return tuple(session(f"session {name}", np.flatnonzero(of == name)) for name in dict.fromkeys(sessions))


def _rois(path: Path, file: CiftiFile) -> dict[str, npt.NDArray[np.int32]]:
    """Regions of the file's columns, as positions among its cortical ones."""
    if not path.exists():
        return {}
    value = read_json(path)
    try:
        return dict(RoiTable.from_json(value, file.grayordinates).subset(file.columns))
    except DataError as error:
        raise DataError(f"{path}: {error}; regions are lists of columns of the CIFTI file, counted from 0") from None


def _stated(path: Path, file: CiftiFile, trials: npt.NDArray[np.int64] | None) -> dict[str, npt.NDArray[Any]] | None:
    """Noise ceilings of the file's columns, as fractions, of its cortical ones; without them, those of trials."""
    if not path.exists():
        return {} if trials is None else None
    ceiling = {"noise_ceiling": read_noise_ceiling([(path, file.grayordinates)]).values[file.columns]}
    return ceiling if trials is None else {**ceiling, "repetitions": np.bincount(trials).astype(np.int32)}
