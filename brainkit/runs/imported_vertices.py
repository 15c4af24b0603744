"""Where the vertices of an imported model lie, and which of a subject's vertices they are."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.surface import CUSTOM, RoiTable, Vertices, sphere_coordinates
from brainkit.cortex.vertex_lookup import vertices_on_sphere
from brainkit.data.folder import read_coordinates, read_listed
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Where:
    """Where the model's V vertices are, and which of the subject's vertices they are."""

    coordinates: np.ndarray  # (V, 3)
    vertices: Vertices
    in_subject: np.ndarray  # (V,) position among the subject's vertices, -1 for none


def find_places(
    count: int,
    source: Path,
    coordinates: str | os.PathLike[str] | None,
    listed: str | os.PathLike[str] | None,
    subject: Subject | None,
    say: Callable[[str], None],
) -> Where:
    """Coordinates and vertices from what was given, each checked against the number of vertices in the file."""
    places = None if coordinates is None else _read(Path(coordinates), count)
    vertices = None if listed is None else read_listed(Path(listed), count, has_coordinates=places is not None)
    if vertices is None and places is not None:
        vertices = vertices_on_sphere(places)
        if vertices is not None:
            right = len(vertices) - vertices.n_left
            say(f"vertices: {vertices.space}, found by their coordinates ({vertices.n_left:,} left, {right:,} right)")
    if vertices is None and subject is not None:
        if len(subject.vertices) != count:
            raise DataError(
                f"{source}: predicts {count:,} vertices, and {subject.root} has {len(subject.vertices):,}; say which "
                "they are with --vertices, or by --coordinates on fsaverage's sphere"
            )
        vertices = subject.vertices
    if places is None and vertices is not None:
        own = subject is not None and subject.own_coordinates is not None and subject.vertices == vertices
        if own and subject is not None:
            places = subject.coordinates
        elif vertices.space != CUSTOM:
            places = sphere_coordinates(vertices)
            say("coordinates: none given, so fsaverage's sphere, made anew to 0.01 mm: nearly the published ones")
    if places is None:
        raise UsageError(
            f"{source}: holds no coordinates, and the model needs those it was trained with: give --coordinates FILE, "
            "of shape (V, 3) in mm"
        )
    if vertices is None:
        say(
            "vertices: of no surface that brainkit knows, so there are no maps; --vertices FILE or --data DIR name them"
        )
        vertices = Vertices.custom(count)
    return Where(places, vertices, _positions(vertices, subject))


def _positions(vertices: Vertices, subject: Subject | None) -> np.ndarray:
    if subject is None:
        return np.full(len(vertices), -1)
    if subject.vertices.space != vertices.space:
        raise DataError(
            f"{subject.root}: its vertices are of {subject.vertices.space}, and the model's of {vertices.space}"
        )
    if vertices.space == CUSTOM and len(subject.vertices) != len(vertices):
        raise DataError(f"{subject.root}: expected the model's {len(vertices)} vertices, found {len(subject.vertices)}")
    at = np.searchsorted(subject.vertices.ids, vertices.ids).clip(max=len(subject.vertices) - 1)
    found = np.where(subject.vertices.ids[at] == vertices.ids, at, -1)
    if not (found >= 0).any():
        raise DataError(f"{subject.root}: has none of the model's {len(vertices):,} vertices")
    return found


def _read(path: Path, count: int) -> np.ndarray:
    if path.suffix not in (".pt", ".pth"):
        return read_coordinates(path, count)
    values = _read_tensor(path)
    if tuple(values.shape) != (count, 3) or not values.is_floating_point() or not bool(values.isfinite().all()):
        raise DataError(
            f"{path}: expected finite coordinates of shape ({count}, 3), found {values.dtype} "
            f"of shape {tuple(values.shape)}"
        )
    return np.asarray(values.detach().float().numpy())


def _read_tensor(path: Path) -> torch.Tensor:
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected coordinates") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError):
        raise DataError(f"{path}: expected a tensor of coordinates, found a damaged or different file") from None
    if not isinstance(value, torch.Tensor):
        raise DataError(f"{path}: expected a tensor of coordinates, found {type(value).__name__}")
    return value


def rois_of(subject: Subject | None, where: Where) -> RoiTable:
    """The subject's regions, as positions among the model's vertices."""
    if subject is None:
        return RoiTable({}, len(where.vertices))
    here = np.full(len(subject.vertices), -1)
    known = where.in_subject >= 0
    here[where.in_subject[known]] = np.flatnonzero(known)
    found = {name: here[positions] for name, positions in subject.rois.items()}
    return RoiTable({name: positions[positions >= 0] for name, positions in found.items()}, len(where.vertices))
