"""Where the vertices of an imported model are on the cortex, and which of a subject's vertices they are."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertex_lookup import vertices_on_sphere
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.data.folder import read_coordinates, read_vertices
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelVertices:
    """The V vertices of an imported model.

    Attributes
    ----------
    coordinates : array of shape (V, 3)
        In mm.
    vertices : Vertices
    in_subject : int array of shape (V,)
        Position among the subject's vertices; -1 if the subject does not have the vertex.
    """

    coordinates: np.ndarray
    vertices: Vertices
    in_subject: np.ndarray

    def rois(self, subject: Subject | None) -> RoiTable:
        """The subject's ROIs, as positions among the model's vertices; empty without a subject."""
        if subject is None:
            return RoiTable({}, len(self.vertices))
        in_model = np.full(len(subject.vertices), -1)
        known = self.in_subject >= 0
        in_model[self.in_subject[known]] = np.flatnonzero(known)
        found = {name: in_model[positions] for name, positions in subject.rois.items()}
        return RoiTable({name: positions[positions >= 0] for name, positions in found.items()}, len(self.vertices))


def locate_vertices(
    count: int,
    source: Path,
    *,
    coordinates: str | os.PathLike[str] | None,
    vertices: str | os.PathLike[str] | None,
    subject: Subject | None,
    say: Say,
) -> ModelVertices:
    """Find coordinates and ids of the model's vertices.

    Parameters
    ----------
    count : int
        V, vertices of the model.
    source : Path
        The file of the weights, for messages.
    coordinates : path-like, optional
        ``.npy`` or a saved tensor, (V, 3) in mm; by default those of `subject`, or of fsaverage's sphere.
    vertices : path-like, optional
        ``vertices.json``; by default found by the coordinates, else those of `subject`.
    subject : Subject, optional
    say : callable
        Called with each line of progress.

    Raises
    ------
    DataError, UsageError
        If these do not determine the vertices, or contradict each other.
    """
    xyz = None if coordinates is None else _read_coordinates(Path(coordinates), count)
    found = None if vertices is None else read_vertices(Path(vertices), count, has_coordinates=xyz is not None)
    if found is None and xyz is not None:
        found = vertices_on_sphere(xyz)
        if found is not None:
            right = len(found) - found.n_left
            say(f"vertices: {found.space}, found by their coordinates ({found.n_left:,} left, {right:,} right)")
    if found is None and subject is not None:
        if len(subject.vertices) != count:
            raise DataError(
                f"{source}: predicts {count:,} vertices, and {subject.root} has {len(subject.vertices):,}; name the "
                "model's with --vertices, or give their --coordinates on fsaverage's sphere"
            )
        found = subject.vertices
    if xyz is None and found is not None:
        xyz = _default_coordinates(found, subject, say)
    if xyz is None:
        raise UsageError(
            f"{source}: holds no coordinates, and the model needs those it was trained with: give --coordinates FILE, "
            "of shape (V, 3) in mm"
        )
    if found is None:
        say("vertices: on no surface that brainkit knows, so there are no maps; name them with --vertices or --data")
        found = Vertices.custom(count)
    return ModelVertices(xyz, found, _positions(found, subject))


def _default_coordinates(vertices: Vertices, subject: Subject | None, say: Say) -> np.ndarray | None:
    if subject is not None and subject.own_coordinates is not None and subject.vertices == vertices:
        return np.asarray(subject.coordinates)
    if vertices.space == CUSTOM:
        return None
    say("coordinates: none given, using fsaverage's sphere, computed to 0.01 mm: nearly the published ones")
    return np.asarray(sphere_coordinates(vertices))


def _positions(vertices: Vertices, subject: Subject | None) -> np.ndarray:
    """Positions among the subject's vertices, -1 for none. (V,)"""
    if subject is None:
        return np.full(len(vertices), -1)
    if subject.vertices.space != vertices.space:
        raise DataError(
            f"{subject.root}: expected vertices of the model's space {vertices.space}, found {subject.vertices.space}"
        )
    if vertices.space == CUSTOM and len(subject.vertices) != len(vertices):
        raise DataError(f"{subject.root}: expected the model's {len(vertices)} vertices, found {len(subject.vertices)}")
    nearest = np.searchsorted(subject.vertices.ids, vertices.ids).clip(max=len(subject.vertices) - 1)
    positions = np.where(subject.vertices.ids[nearest] == vertices.ids, nearest, -1)
    if not (positions >= 0).any():
        raise DataError(f"{subject.root}: has none of the model's {len(vertices):,} vertices")
    return positions


def _read_coordinates(path: Path, count: int) -> np.ndarray:
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
