"""A run of a new subject that starts from a finished run: what it takes from it, and what both must have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config, DataConfig
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import CUSTOM, FSAVERAGE, SPACES, Vertices
from brainkit.data.stimuli import short_hashes
from brainkit.errors import DataError, UsageError
from brainkit.runs.export import check_reloadable
from brainkit.runs.folder import finished_run, load_model, read_settings
from brainkit.runs.image_hashes import read_image_hashes
from brainkit.utils.progress import Say
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from torch import nn

    from brainkit.data.split import Split
    from brainkit.data.subject import Subject
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.runs.subjects import SubjectRun
    from brainkit.training.module import EncodingModule
    from brainkit.training.transfer import Beginning

# Farther than this from any vertex of the old run, in mm on the sphere, a vertex has no neighbour there: about two
# vertices of fsaverage5.
NEAR = 10.0
# Of the old run's data, for the new run's licence and references: its bottlenecks were fitted to them.
_DATA = ("name", "hash", "kind", "dataset")
# Settings of the model that do not change what it is.
_FREE = ("backend", "precision")


@dataclass(frozen=True, eq=False)
class Start:
    """A finished run that another one starts from.

    Attributes
    ----------
    folder : Path
    summary : dict
        Its ``run.json``.
    digest : str
        SHA-256 of its checkpoint, in hexadecimal.
    model : FactorTopy
    vertices : Vertices
    """

    folder: Path
    summary: dict[str, Any]
    digest: str
    model: FactorTopy
    vertices: Vertices

    def facts(self, began: Beginning) -> dict[str, Any]:
        """The section ``start`` of ``run.json``."""
        data = self.summary["data"]
        return {
            "run": self.folder.name,
            "checkpoint": self.digest,
            "data": [{key: data.get(key) for key in _DATA}, *self.summary.get("start", {}).get("data", ())],
            "resize": self.model.resize,
            "selectors": "transferred" if began.transferred else "neutral",
            "validation_r": began.validation_r,
        }

    def describe(self, subject: str, began: Beginning) -> str:
        """A line on how a subject's training begins."""
        r = {name: f"{value:.3f}" for name, value in began.validation_r.items()}
        if "transferred" not in r:
            return f"start: {subject} begins with the bottlenecks of {self.folder.name} alone"
        what = "the selectors and readout" if began.transferred else "the bottlenecks alone"
        return (
            f"start: {subject} begins with {what} of {self.folder.name}: validation r {r['transferred']} with its "
            f"selectors, {r['neutral']} with neutral ones"
        )


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a new subject's vertices are among those of the run it starts from.

    Attributes
    ----------
    coordinates : array of shape (V, 3), float32
        In the frame of the old run's, if the spaces are shared.
    nearest : array of shape (V,), int64, or None
        For each vertex, the nearest one of the old run; -1 if none is near. None: the spaces have no common frame.
    notes : tuple of str
        What a user must know, in lines.
    """

    coordinates: np.ndarray
    nearest: np.ndarray | None
    notes: tuple[str, ...]


def open_start(run: str | os.PathLike[str], backbone: nn.Module | str | None = None) -> Start:
    """Open the run to start from.

    Raises
    ------
    DataError
        If it is not a finished run of one subject, or its network cannot be had: says what to give.
    """
    path = Path(run)
    if path.is_file():
        around = next((folder for folder in path.absolute().parents[:2] if (folder / "run.json").is_file()), None)
        raise DataError(
            f"{path}: expected a run folder, found a file; an encoder file has what each vertex selects, a run the "
            f"networks that decide it; give {around or 'the run folder that it was exported from'}"
        )
    folder, summary = finished_run(path)
    check_reloadable(folder, summary, None if isinstance(backbone, str) else backbone)
    model = load_model(folder)
    with np.load(folder / "selectors.npz") as file:
        vertices = Vertices(str(file["space"]), file["vertices"])
    digest = _digest(folder / "checkpoints" / "best.ckpt")
    return Start(folder.absolute(), summary, digest, model, vertices)


def settings_to_start_from(run: str | os.PathLike[str]) -> Config:
    """The settings that a run takes from the one it starts from: backbone, model, preprocessing, seed of the split.

    With the seed of the split, a stimulus that both subjects saw is on the same side for both.
    """
    if Path(run).is_file():
        open_start(run)  # raises, and says what to give
    folder, summary = finished_run(run)
    old = read_settings(folder)
    weights_seed = old.seed if old.backbone.weights_seed < 0 else old.backbone.weights_seed
    split_seed = (summary.get("split") or {}).get("seed", -1)
    data = DataConfig(fit=old.data.fit, preset=old.data.preset, token_dtype=old.data.token_dtype, split_seed=split_seed)
    return replace(
        Config(),
        backbone=replace(old.backbone, weights_seed=weights_seed),
        model=replace(old.model, gauge=summary["gauge"], **{name: getattr(Config().model, name) for name in _FREE}),
        data=data,
        train=replace(Config().train, start=str(folder)),
    )


def check_settings(settings: Config, base: Config) -> None:
    """Refuse settings that are not those of the run to start from.

    Raises
    ------
    UsageError
        Names the first that differs.
    """
    given, expected = settings.to_dict(), base.to_dict()
    shared = [("backbone", key) for key in expected["backbone"] if key != "weights"]
    shared += [("model", key) for key in expected["model"] if key not in _FREE]
    shared += [("data", key) for key in ("fit", "preset")]
    for section, key in shared:
        if given[section][key] != expected[section][key]:
            raise UsageError(
                f"{section}.{key} must be that of the run to start from, {base.train.start}: "
                f"{expected[section][key]!r}, got {given[section][key]!r}"
            )


def place(start: Start, subject: Subject) -> Placed:
    """Find the vertices of a subject among those of the run to start from.

    Raises
    ------
    UsageError
        If the run has one hemisphere, and the subject another one.
    """
    from scipy.spatial import cKDTree

    old = start.model.coordinates.cpu().numpy()
    coordinates, notes = subject.coordinates, []
    spaces = start.vertices.space, subject.vertices.space
    is_one_sphere = set(spaces) <= set(FSAVERAGE) or (spaces[0] == spaces[1] and spaces[0] in SPACES)
    if is_one_sphere and subject.own_coordinates is None and _is_spherical(old, start.vertices):
        for side in ("left", "right"):
            if len(getattr(subject.vertices, side)) and not len(getattr(start.vertices, side)):
                raise UsageError(
                    f"{start.folder}: has no vertices of the {side} hemisphere, and {subject.name} has; start from a "
                    "run of both, or train without --from"
                )
        coordinates = sphere_coordinates(subject.vertices, frame=start.vertices)
    elif spaces[0] != spaces[1] or (subject.own_coordinates is None) != _is_spherical(old, start.vertices):
        note = (
            f"start: {start.folder.name} is in {spaces[0]}, {subject.name} in {spaces[1]}, with no common coordinates: "
            "only the bottlenecks are kept"
        )
        return Placed(coordinates, None, (note,))
    elif spaces[0] == CUSTOM:
        notes.append("start: the coordinates of both subjects are taken to be in one frame, such as MNI's")
    distance, nearest = cKDTree(old.astype(np.float64)).query(coordinates.astype(np.float64))
    is_near = distance <= NEAR
    if far := int((~is_near).sum()):
        notes.append(
            f"start: {plural(far, 'vertex is', 'vertices are')} over {NEAR:g} mm from those of {start.folder.name}: "
            "no readout to start from"
        )
    return Placed(coordinates, np.where(is_near, nearest, -1), tuple(notes))


def begin_from(
    start: Start, subjects: Sequence[SubjectRun], module: EncodingModule, data: Any, device: str, say: Say
) -> list[dict[str, Any]]:
    """Let each subject's model begin where the old run's ends, as far as its validation images say that this helps.

    Returns
    -------
    list of dict
        For each subject, the section ``start`` of ``run.json``.
    """
    from brainkit.training.transfer import choose_start

    facts = []
    if line := seen_before(start, [(each.subject, each.split) for each in subjects]):
        say(line)
    module.to(device)
    for (model, part), each in zip(module.parts(data), subjects, strict=True):
        placed = place(start, each.subject)
        began = choose_start(model, start.model, placed.nearest, part)
        module.priors.append(began.prior)
        facts.append(start.facts(began))
        for line in (*placed.notes, start.describe(each.name, began)):
            say(line)
    module.cpu()
    return facts


def seen_before(start: Start, subjects: Sequence[tuple[Subject, Split]]) -> str | None:
    """A line about test images on which the old run was trained: what it knows of them may reach the new subject."""
    hashes = read_image_hashes(start.folder)
    if hashes is None:
        return f"start: the training images of {start.folder.name} are unknown: test images may be among them"
    known = np.union1d(hashes["train"], hashes["validation"])
    seen = sum(int(np.isin(short_hashes(subject.pixel_hashes)[split.test], known).sum()) for subject, split in subjects)
    if not seen:
        return None
    return (
        f"WARNING: {start.folder.name} was trained on {plural(seen, 'test image')}, with another subject's responses: "
        f"the test scores may be too high; use data.split_seed={start.summary['split']['seed']}, its own"
    )


def _is_spherical(coordinates: np.ndarray, vertices: Vertices) -> bool:
    """Whether coordinates are those that the vertices have on the sphere of their space."""
    return vertices.space in SPACES and np.allclose(coordinates, sphere_coordinates(vertices), atol=1e-3)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
