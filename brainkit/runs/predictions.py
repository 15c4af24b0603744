"""The predictions that a run keeps of its test images, from which any statistic can be computed later.

The responses are not kept: they belong to the data, and are read from there.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.data.subject import Subject
from brainkit.errors import DataError
from brainkit.runs.folder import finished_run
from brainkit.runs.run_data import open_run_data
from brainkit.utils.files import atomic_write, read_json

FILE = "predictions.npz"
_STIMULI = ("rows", "images", "pixels", "groups", "vertices", "space", "side")  # besides the predictions


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for some images of a subject's data, n images and V vertices.

    Attributes
    ----------
    folder : Path
        The run folder, or a folder in it, such as that of a baseline.
    predictions : array of shape (n, V), float32
        In the units of the responses; kept with about 3 digits of each vertex's range.
    rows : array of shape (n,), int64
        The images' rows in the data, increasing.
    images : array of shape (n,), str
        Their names.
    pixels : array of shape (n,), str
        SHA-256 of their pixels, see :func:`brainkit.images.pixel_hash`.
    groups : array of shape (n,), str
        Which stimulus each image shows: see :attr:`brainkit.data.subject.Subject.groups`.
    vertices : array of shape (V,), int32
        Ids in `space`.
    space : str
    side : {"train", "validation", "test"}
        Of the split.
    """

    folder: Path
    predictions: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    images: npt.NDArray[np.str_]
    pixels: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    vertices: npt.NDArray[np.int32]
    space: str
    side: str = "test"

    def __repr__(self) -> str:
        images, vertices = self.predictions.shape
        return f"Predictions({str(self.folder)!r}, {images} {self.side} images, {vertices} vertices of {self.space})"

    def write(self, folder: Path) -> None:
        """Write ``predictions.npz``."""
        with _open_file(folder, self.predictions.shape, {name: getattr(self, name) for name in _STIMULI}) as add:
            add(self.predictions)

    def open_data(self, data: str | os.PathLike[str] | Subject | None = None) -> Subject:
        """The n images and the responses to them, in the same order, with the vertices that the data have.

        Parameters
        ----------
        data : path-like or Subject, optional
            Where the run's data are now, if they have moved.

        Raises
        ------
        DataError
            If they are not there, or have changed since the run.
        """
        run = next((each for each in (self.folder, *self.folder.resolve().parents) if _is_run(each)), self.folder)
        return open_run_data(*finished_run(run), data).take(self.rows)

    def responses(self, data: str | os.PathLike[str] | Subject | None = None) -> npt.NDArray[np.float32]:
        """The responses (n, V), float32; NaN at vertices that the data lack. Parameters and errors as `open_data`."""
        return align_responses(self.open_data(data), Vertices(self.space, self.vertices))


def align_responses(subject: Subject, vertices: Vertices) -> npt.NDArray[np.float32]:
    """All responses of a subject, (n, V) float32, in the columns of these vertices; NaN where the data lack one.

    Raises
    ------
    DataError
        If the subject has no such vertices: they are of another space.
    """
    own = subject.vertices
    if own.space != vertices.space or (own.space == CUSTOM and len(own) != len(vertices)):
        found = f"{len(own):,} of {own.space}"
        raise DataError(f"{subject.root}: expected {len(vertices):,} vertices of {vertices.space}, found {found}")
    _, here, there = np.intersect1d(vertices.ids, own.ids, assume_unique=True, return_indices=True)
    if len(here) == len(vertices) == len(own):
        return subject.responses.rows(np.arange(len(subject)))
    aligned = np.full((len(subject), len(vertices)), np.nan, np.float32)
    aligned[:, here] = subject.responses.keep(there).rows(np.arange(len(subject)))
    return aligned


@contextlib.contextmanager
def open_predictions(
    folder: Path, subject: Subject, rows: npt.NDArray[np.int64], vertices: Vertices, *, side: str = "test"
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write ``predictions.npz`` a few rows at a time, so that the memory never holds all predictions.

    Parameters
    ----------
    folder : Path
    subject : Subject
        The data that the rows are of.
    rows : array of shape (n,), int
        The images that are predicted, increasing.
    vertices : Vertices
        Of the V columns.
    side : {"train", "validation", "test"}

    Yields
    ------
    callable
        Takes the next predictions (k, V); the file is complete when all n rows were given.
    """
    chosen = subject.take(rows)
    stimuli = {
        "rows": np.asarray(rows, np.int64),
        "images": np.array(chosen.names),
        "pixels": np.array(chosen.pixel_hashes),
        "groups": np.array(chosen.groups),
        "vertices": vertices.ids,
        "space": vertices.space,
        "side": side,
    }
    with _open_file(folder, (len(rows), len(vertices)), stimuli) as add:
        yield add


def write_predictions(
    folder: Path,
    predictions: np.ndarray,
    subject: Subject,
    rows: npt.NDArray[np.int64],
    vertices: Vertices,
    *,
    side: str = "test",
) -> None:
    """Write ``predictions.npz`` of an array (n, V). Other parameters as for `open_predictions`."""
    with open_predictions(folder, subject, rows, vertices, side=side) as add:
        add(predictions)


def read_predictions(run: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None) -> Predictions:
    """The predictions that a run, or one of its baselines, has kept.

    Parameters
    ----------
    run : path-like
        The run folder, or ``RUN/baselines/NAME``.
    data : path-like, optional
        Where the run's data are now, if they have moved: for the advice what to do if there are no predictions.

    Raises
    ------
    DataError
        If it has none, or is a run of several subjects.
    """
    folder = Path(run)
    file = folder / FILE
    if not file.is_file():
        if not _is_run(folder):
            finished_run(folder)  # says what the folder is
        finished_run(folder)
        command = ["brainkit", "evaluate", str(folder), *(["--data", os.fspath(data)] if data is not None else [])]
        raise DataError(f"{file}: not found; write it with: {shlex.join(command)}")
    try:
        with np.load(file) as arrays:
            stored = {name: arrays[name] for name in ("predictions", "offset", "unit", *_STIMULI)}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: expected predictions, found a damaged file ({error})") from None
    values = stored.pop("predictions").astype(np.float32) * stored.pop("unit") + stored.pop("offset")
    texts: dict[str, Any] = {name: str(stored.pop(name)) for name in ("space", "side")}
    return Predictions(folder=folder, predictions=values, **stored, **texts)


@contextlib.contextmanager
def _open_file(folder: Path, shape: tuple[int, ...], stimuli: dict[str, Any]) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what takes the next rows; stimuli follow when all are there."""
    with atomic_write(folder / FILE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        encoding: list[np.ndarray] = []
        with archive.open("predictions.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

            def add(rows: np.ndarray) -> None:
                values = np.asarray(rows, np.float32)
                if not encoding:
                    encoding.extend(_encoding(values))
                offset, unit = encoding
                file.write(((values - offset) / unit).astype("<f2").tobytes())

            yield add
        offset, unit = encoding
        for name, value in {"offset": offset, "unit": unit, **stimuli}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def _encoding(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract and to divide by, (V,) float32, so that float16 holds responses in any unit."""
    known = np.isfinite(values)
    offset = (np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)).astype(np.float32)
    spread = np.where(known, np.abs(values - offset), 0.0).max(0)
    # Powers of two change no digit.
    unit = np.exp2(np.ceil(np.log2(np.where(spread > 0, spread, 1.0)))).astype(np.float32)
    return offset, unit


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and "subjects" not in read_json(folder / "run.json")
