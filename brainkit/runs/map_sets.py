"""The maps of runs, encoder files and evaluations, as data: what `brainkit map`, the page and the report show."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit import encoder_file
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.cortex.volume import Volume
from brainkit.maps.brain_map import MapSet
from brainkit.maps.catalog import encoder_maps, evaluation_maps, trained_maps
from brainkit.maps.limits import share_limits
from brainkit.runs.folder import (
    figure_note,
    finished_run,
    read_rois,
    read_uncertainty,
    read_volume,
    run_folders,
)
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import read_json

EVALUATION = "evaluation.npz"


def open_map_sets(source: str | os.PathLike[str] | None = None) -> dict[str, MapSet]:
    """All maps of a run, of an encoder file or of an evaluation's folder.

    Parameters
    ----------
    source : path-like, optional
        By default the newest finished run.

    Returns
    -------
    dict of str to MapSet
        By subject for a run of several, whose maps then share their limits; else one, under an empty name.

    Raises
    ------
    DataError, EncoderFileError
        If it is none of these, damaged, or a run that is not finished.
    """
    path = None if source is None else Path(source)
    if path is not None and is_evaluation(path):
        return {"": evaluation_map_set(path)}
    if path is not None and (path.is_file() or (path.is_dir() and not is_run_folder(path))):
        return {"": encoder_maps(encoder_file.read(encoder_file.locate(path)))}
    folders = run_folders(path)
    if len(folders) == 1:
        return {"": run_map_set(folders[0])}
    sets = share_limits([run_map_set(folder) for folder in folders])
    return {
        folder.name: replace(each, title=f"{each.title}, {folder.name}")
        for folder, each in zip(folders, sets, strict=True)
    }


def is_evaluation(path: Path) -> bool:
    """Whether a folder holds an evaluation."""
    return (path / EVALUATION).is_file()


def is_run_folder(path: Path) -> bool:
    """Whether a folder is a run's, finished or not."""
    return (path / "run.json").is_file() or (path / "config.yaml").is_file()


def run_map_set(run: str | os.PathLike[str] | None = None) -> MapSet:
    """All maps of a finished run of one subject, by default the newest.

    Raises
    ------
    DataError
        If there is no such run, it is not finished, or a file of it is missing or damaged.
    """
    folder, summary = finished_run(run)
    selectors = read_arrays(
        folder / "selectors.npz", ("layer_weights", "locations", "scale", "layers", "vertices", "space")
    )
    scores: dict[str, Any] = {}
    if (folder / "scores.npz").is_file():
        scores = read_arrays(folder / "scores.npz", ("r", "R2", "noise_ceiling"))
    vertices = Vertices(str(selectors["space"]), selectors["vertices"])
    maps = trained_maps(
        layers=tuple(selectors["layers"].tolist()),
        **{name: selectors[name] for name in ("layer_weights", "locations", "scale")},
        **scores,
        test_images=summary.get("scores", {}).get("images"),
        uncertainty=read_uncertainty(folder, vertices),
        gauge=summary["gauge"],
    )
    rois, volume = read_rois(folder, len(vertices)), read_volume(folder / "volume.npz")
    return MapSet(summary["backbone"]["name"], vertices, rois, maps, figure_note(summary), volume)


def evaluation_map_set(folder: Path) -> MapSet:
    """The maps of an evaluation's folder; in a run folder, with the ROIs and the volume of the run.

    Raises
    ------
    DataError
        If a file is missing or damaged, or does not say which vertices were scored.
    """
    arrays = read_arrays(folder / EVALUATION, ("r", "p", "q", "noise_ceiling", "vertices", "space"))
    facts = read_json(folder / "evaluation.json")
    vertices = Vertices(str(arrays["space"]), arrays["vertices"])
    maps = evaluation_maps(arrays["r"], arrays["p"], arrays["q"], arrays["noise_ceiling"], facts["n_images"])
    about = facts.get("provenance", {})
    title = ", ".join(filter(None, (about.get("encoder", {}).get("file"), about.get("split", {}).get("name"))))
    note = "; ".join(facts.get("notes", ())) or None
    rois, volume = _of_run_around(folder, vertices)
    return MapSet(title, vertices, rois, maps, note, volume)


def _of_run_around(folder: Path, vertices: Vertices) -> tuple[RoiTable, Volume | None]:
    """ROIs and volume of the vertices, of the run whose folder is around."""
    run = next((parent for parent in list(folder.absolute().parents)[:2] if (parent / "run.json").is_file()), None)
    if run is None or not (run / "rois.json").is_file():
        return RoiTable({}, len(vertices)), None
    ids = read_arrays(run / "selectors.npz", ("vertices",))["vertices"]
    scored = np.isin(ids, vertices.ids)
    # Some vertices of the custom space are numbered anew, so which they are is not known.
    if scored.sum() != len(vertices) or (vertices.space == CUSTOM and not scored.all()):
        return RoiTable({}, len(vertices)), None
    volume = read_volume(run / "volume.npz")
    return read_rois(run, len(ids)).subset(scored), volume and volume.select(np.flatnonzero(scored))
