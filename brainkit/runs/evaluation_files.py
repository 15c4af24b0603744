"""What an evaluation leaves: its folders, files and maps, and where its numbers come from."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainkit._version import __version__
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.data.image_sets import ImageSet
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.evaluation.evaluation import Evaluation, plain_values
from brainkit.evaluation.set_difference import SetDifference
from brainkit.runs.predictors import Predictor
from brainkit.runs.provenance import hash_texts, package_versions
from brainkit.utils.files import atomic_write, check_folder, write_json
from brainkit.utils.progress import Say


@dataclass(frozen=True)
class Statistics:
    """How scores are resampled and tested, see :func:`brainkit.evaluate`."""

    bootstrap: int = 2000
    permutations: int = 2000
    level: float = 0.95
    seed: int = 0


class SharedVertices(NamedTuple):
    """Vertices that encoder and data have in common: their positions in both, and the data's ROIs."""

    vertices: Vertices
    in_encoder: np.ndarray
    in_data: np.ndarray
    rois: RoiTable


def output_folder(predictor: Predictor, out: str | os.PathLike[str] | None) -> Path:
    if out is not None:
        return Path(out)
    path = predictor.path
    return path / "evaluation" if path.is_dir() else path.with_name(f"{path.stem}-evaluation")


def output_folders(
    predictor: Predictor, out: str | os.PathLike[str] | None, sets: Sequence[ImageSet]
) -> dict[str, Path]:
    """The folder of each set's files: of several sets, each has one in the output folder."""
    top = output_folder(predictor, out)
    if not top.absolute().parent.is_dir():
        raise DataError(f"{top}: its folder {top.parent} does not exist; create it first")
    if top.exists() and not top.is_dir():
        raise DataError(f"{top}: expected a folder for the results, found a file; name another --out")
    check_folder(top)
    if len(sets) == 1:
        return {sets[0].name: top}
    folders = {each.name: top / (re.sub(r"[^A-Za-z0-9_-]+", "-", each.name) or "-") for each in sets}
    if len({folder.name.lower() for folder in folders.values()}) < len(sets):
        raise UsageError(f"sets of images: expected names that differ as folders, found {', '.join(folders)}")
    return folders


def provenance(
    predictor: Predictor,
    facts: dict[str, Any],
    subject: Subject,
    images: ImageSet,
    shared: SharedVertices,
    statistics: Statistics,
    split_hashes: dict[str, np.ndarray] | None,
    chosen: Sequence[str],
    *,
    allow_training_images: bool,
) -> dict[str, Any]:
    """Names and hashes, and no paths or dates: the same work gives the same bytes."""
    words = ["brainkit", "evaluate", predictor.path.resolve().name, "--data", subject.root.resolve().name]
    words += [word for name in chosen for word in ("--split", Path(name).name)]
    words += ["--allow-training-images"] if allow_training_images else []
    defaults = Statistics()
    words += [
        word
        for name, value in dataclasses.asdict(statistics).items()
        if value != getattr(defaults, name)
        for word in (f"--{name}", str(value))
    ]
    return {
        "command": shlex.join(words),
        "data": {"name": subject.name, "hash": subject.data_hash, "noise_ceiling": subject.noise_ceiling_unit},
        "encoder": facts["encoder"],
        "split": {
            "name": images.name,
            "images": len(images.rows),
            "sha256": hash_texts(subject.take(images.rows).pixel_hashes),
            "training_images_known": split_hashes is not None,
        },
        "vertices": {
            "space": shared.vertices.space,
            "scored": len(shared.vertices),
            "encoder": len(predictor.vertices),
            "data": len(subject.vertices),
        },
        "seeds": {"statistics": statistics.seed, **facts["seeds"]},
        "versions": {"brainkit": __version__, **package_versions("numpy", "scipy", "pillow"), **facts["versions"]},
    }


def draw_scores(
    folder: Path,
    predictor: Predictor,
    subject: Subject,
    evaluation: Evaluation,
    shared: SharedVertices,
    images: ImageSet,
    notes: Sequence[str],
    say: Say,
) -> None:
    volume = None if subject.volume is None else subject.volume.select(shared.in_data)
    if shared.vertices.space == CUSTOM and volume is None:
        say("no maps drawn: the vertices are not on a surface that brainkit knows")
        return
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("nilearn") is None:
        say("no maps drawn: run pip install 'brainkit[maps]'")
        return
    from brainkit.maps.brain_map import MapSet
    from brainkit.maps.catalog import evaluation_maps
    from brainkit.maps.draw import draw_maps

    own = (predictor.note, subject.note)
    note = "; ".join(dict.fromkeys(note for note in (*own, *notes) if note)) or None
    maps = evaluation_maps(
        evaluation.r, evaluation.p, evaluation.q, evaluation.noise_ceiling, images=evaluation.n_images
    )
    draw_maps(folder, MapSet(f"{predictor.title}, {images.name}", shared.vertices, shared.rois, maps, note, volume))


def write_differences(
    folder: Path, differences: Sequence[SetDifference], notes: Sequence[str], facts: dict[str, dict[str, Any]]
) -> None:
    """Write ``differences.json``, with the provenance of each set (name -> facts), and ``differences.csv``."""
    rows = [
        (each.first, each.second, name, measure, *plain_values(row).values())
        for each in differences
        for name, measures in each.groups.items()
        for measure, row in measures.items()
    ]
    keys = list(next(iter(differences[0].groups.values()))["r"])
    with atomic_write(folder / "differences.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("first", "second", "group", "measure", *keys, *(["note"] if notes else [])))
        writer.writerows((*row, "; ".join(notes)) if notes else row for row in rows)
    content = [dataclasses.asdict(each) for each in differences]
    kept = plain_values({"schema": 1, "notes": list(notes), "differences": content})
    write_json(folder / "differences.json", kept | {"provenance": facts})
