"""Opening runs that are compared: which runs are one model, which images they share, and the responses to these."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.data.split import Split
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.runs.folder import finished_run, read_rois, repeat_folders, run_folders
from brainkit.runs.predictions import FILE, Predictions, align_responses, read_predictions
from brainkit.utils.arrays import read_arrays
from brainkit.utils.text import plural


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A finished run of one subject, or one of its baselines.

    Attributes
    ----------
    folder : Path
        With the predictions.
    run : Path
        The run folder: for a baseline, the one it is in.
    summary : dict
        ``run.json``.
    """

    folder: Path
    run: Path
    summary: dict[str, Any]

    @property
    def subject(self) -> str:
        return str(self.summary["data"]["name"])

    @property
    def is_baseline(self) -> bool:
        return self.folder != self.run


@dataclass(frozen=True, eq=False)
class Selectors:
    """What a run's vertices read: layer_weights (V, L), the layers, and the rows of the data it was trained on."""

    layer_weights: np.ndarray
    layers: tuple[str, ...]
    training_rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Model:
    """What is compared: runs of one name, by subject; several of a subject differ in seeds or images."""

    name: str
    runs: dict[str, tuple[OpenedRun, ...]]

    def selectors(self, subject: str) -> list[Selectors]:
        """Those of each run of a subject; of a run with repeats, those of the repeats. A baseline has none."""
        folders = []
        for each in self.runs[subject]:
            if not each.is_baseline and (each.run / "selectors.npz").is_file():
                folders += repeat_folders(each.run) or [each.run]
        found = []
        for folder in folders:
            arrays = read_arrays(folder / "selectors.npz", ("layer_weights", "layers"))
            layers = tuple(arrays["layers"].tolist())
            found.append(Selectors(arrays["layer_weights"], layers, Split.read(folder / "split.json").train))
        if len({each.layers for each in found}) > 1:
            raise DataError(f"{self.name}: expected runs of one network, found runs with other layers; name them apart")
        return found


@dataclass(frozen=True, eq=False)
class Shared:
    """The test images of one subject that all models share: n images and V vertices.

    Attributes
    ----------
    subject : str
    predictions : dict
        Model -> predictions (n, V) of each of its runs.
    responses : array of shape (n, V)
    groups : array of shape (n,), str
        The stimulus that each image shows.
    vertices : Vertices
    rois : RoiTable
    noise_ceiling : array of shape (V,)
        NaN where unknown.
    data : Subject
    images : dict
        Model -> number of its test images.
    note : str or None
        For figures, for example that the subject is simulated.
    """

    subject: str
    predictions: dict[str, list[np.ndarray]]
    responses: np.ndarray
    groups: np.ndarray
    vertices: Vertices
    rois: RoiTable
    noise_ceiling: np.ndarray
    data: Subject
    images: dict[str, int]
    note: str | None

    def describe(self) -> str:
        """The images, in words."""
        n, largest = len(self.responses), max(self.images.values())
        part = "" if n == largest else f" of {largest:,}"
        stimuli = plural(len(set(self.groups.tolist())), "stimulus", "stimuli")
        vertices = plural(len(self.vertices), "vertex", "vertices")
        return f"{self.subject}: {n:,}{part} test images in common ({stimuli}), {vertices}"


def open_models(runs: Sequence[str | os.PathLike[str]]) -> tuple[Model, ...]:
    """Open runs given as a path or as ``NAME=PATH``, and put those of one name together.

    Raises
    ------
    UsageError
        If there are fewer than two names.
    DataError
        If a folder is not a finished run.
    """
    found: dict[str, dict[str, list[OpenedRun]]] = {}
    for name, path in _named(runs):
        by_subject = found.setdefault(name, {})
        for opened in _open(path):
            if any(each.folder.resolve() == opened.folder.resolve() for each in by_subject.get(opened.subject, ())):
                raise UsageError(f"{path}: given twice; compare different runs")
            by_subject.setdefault(opened.subject, []).append(opened)
    if len(found) < 2:
        raise UsageError(
            f"compare: expected at least two runs to compare, found {plural(len(found), 'model')} "
            f"({', '.join(found) or 'none'}); give another RUN, or another NAME=RUN"
        )
    return tuple(Model(name, {key: tuple(each) for key, each in by.items()}) for name, by in found.items())


def open_rois(models: Sequence[Model], subject: str) -> RoiTable:
    """The ROIs of a subject: those of the first run."""
    run = models[0].runs[subject][0].run
    return read_rois(run, len(read_arrays(run / "scores.npz", ("vertices",))["vertices"]))


def open_shared(models: Sequence[Model], subject: str, data: Sequence[str | os.PathLike[str]] = ()) -> Shared:
    """Read the predictions of models for the test images of a subject that all of their runs share.

    Images are the same if their pixels are. Responses are read from the data of the first run.

    Parameters
    ----------
    models : sequence of Model
        All have the subject.
    subject : str
    data : sequence of path-like
        See :func:`brainkit.runs.compare.compare`.

    Raises
    ------
    DataError
        If the runs have other vertices, no image in common, or were given other responses.
    """
    runs = [(model, each) for model in models for each in model.runs[subject]]
    stored = [read_predictions(each.folder, data=_data_of(subject, data)) for _, each in runs]
    first = stored[0]
    for other in stored[1:]:
        if other.space != first.space or not np.array_equal(other.vertices, first.vertices):
            raise DataError(
                f"{other.folder}: expected the {len(first.vertices):,} vertices of {first.space} as in {first.folder}, "
                f"found {_difference(first, other)}; compare runs on the same vertices"
            )
    rows = match_images([each.pixels for each in stored])
    if not len(rows[0]):
        counts = ", ".join(f"{each.folder} {len(each.pixels):,}" for each in stored)
        raise DataError(
            f"{subject}: expected test images that all runs share, found 0 ({counts}); train the runs with the same "
            "data.split_seed"
        )
    vertices = Vertices(first.space, first.vertices)
    opened = first.open_data(_data_of(subject, data))
    responses = align_responses(opened, vertices)[rows[0]]
    _check_responses(runs, stored, rows, responses, data, subject)
    predictions: dict[str, list[np.ndarray]] = {}
    images: dict[str, int] = {}
    for (model, _), each, own in zip(runs, stored, rows, strict=True):
        predictions.setdefault(model.name, []).append(each.predictions[own])
        images[model.name] = max(images.get(model.name, 0), len(each.pixels))
    run = runs[0][1]
    ceiling = read_arrays(run.run / "scores.npz", ("noise_ceiling",))["noise_ceiling"].astype(np.float64)
    notes = dict.fromkeys(note for _, each in runs if (note := each.summary["note"]))
    untrained = (model.name for model, each in runs if each.summary["backbone"]["pretrained"] is False)
    notes |= dict.fromkeys(f"{name}: network with RANDOM weights" for name in untrained)
    return Shared(
        subject=subject,
        predictions=predictions,
        responses=responses,
        groups=first.groups[rows[0]],
        vertices=vertices,
        rois=read_rois(run.run, len(vertices)),
        noise_ceiling=ceiling,
        data=opened,
        images=images,
        note="; ".join(notes) or None,
    )


def match_images(pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rows of the images that several lists have in common, in the order of the first list.

    Parameters
    ----------
    pixels : sequence of arrays of shape (n,), str
        Hashes of the images' pixels. An image that a list has twice is matched as often as all lists have it.

    Returns
    -------
    list of int arrays of shape (k,)
        Row i of each array is the same image.
    """
    rows = []
    for hashes in pixels:
        seen: Counter[str] = Counter()
        keys = {}
        for row, value in enumerate(hashes.tolist()):
            keys[value, seen[value]] = row
            seen[value] += 1
        rows.append(keys)
    common = [key for key in rows[0] if all(key in each for each in rows)]
    return [np.array([each[key] for key in common], np.int64) for each in rows]


def _named(runs: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Name and path of each run; two runs of one folder name are told apart by the folders they are in."""
    given: list[tuple[str | None, Path]] = []
    for run in runs:
        name, equals, path = os.fspath(run).partition("=")
        explicit = bool(equals) and not Path(run).exists()
        if explicit and not (name.strip() and path):
            raise UsageError(f"{run}: expected NAME=RUN, found no {'run' if name.strip() else 'name'}")
        given.append((name.strip(), Path(path)) if explicit else (None, Path(run)))
    paths = [path for name, path in given if name is None]
    return [(_folder_name(path, paths) if name is None else name, path) for name, path in given]


def _folder_name(path: Path, others: Sequence[Path]) -> str:
    """The last parts of a path, as many as tell it from the others."""
    parts = path.resolve().parts
    all_parts = [other.resolve().parts for other in others]
    for count in range(1, len(parts)):
        alike = [each for each in all_parts if each[-count:] == parts[-count:] and each != parts]
        if not alike:
            return "/".join(parts[-count:])
    return str(path)


def _open(path: Path) -> list[OpenedRun]:
    """A run; each subject of a run of several; or a baseline, whose facts are those of the run it is in."""
    if (path / FILE).is_file() and not (path / "run.json").is_file():
        run = path.resolve().parents[1] if len(path.resolve().parts) > 2 else path
        return [OpenedRun(path, *finished_run(run))]
    return [OpenedRun(folder, *finished_run(folder)) for folder in run_folders(path)]


def _data_of(subject: str, data: Sequence[str | os.PathLike[str]]) -> Path | None:
    if not data:
        return None
    paths = [Path(each) for each in data]
    if len(paths) == 1:
        return paths[0]
    named = [path for path in paths if path.resolve().name == subject]
    if len(named) != 1:
        raise UsageError(f"--data: expected one folder named {subject}, found {len(named)}")
    return named[0]


def _check_responses(
    runs: Sequence[tuple[Model, OpenedRun]],
    stored: Sequence[Predictions],
    rows: Sequence[np.ndarray],
    responses: np.ndarray,
    data: Sequence[str | os.PathLike[str]],
    subject: str,
) -> None:
    """Refuse runs that were trained on other responses to the same images."""
    checked = {runs[0][1].summary["data"]["hash"]}
    for (_, run), predictions, own in zip(runs, stored, rows, strict=True):
        value = run.summary["data"]["hash"]
        if value in checked:
            continue
        checked.add(value)
        if not np.allclose(predictions.responses(_data_of(subject, data))[own], responses, equal_nan=True):
            raise DataError(
                f"{run.folder}: expected the responses of {runs[0][1].folder} to the images in common, found others; "
                "compare runs on the same data"
            )


def _difference(first: Predictions, other: Predictions) -> str:
    if other.space != first.space:
        return f"{len(other.vertices):,} of {other.space}"
    common = len(np.intersect1d(first.vertices, other.vertices))
    return f"{len(other.vertices):,} of {other.space}, {common:,} of them in common"
