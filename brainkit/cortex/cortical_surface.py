"""A cortical surface that maps are drawn on: both hemispheres, each in several shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.surface import HEMISPHERES, mesh, scalar

SHAPES = ("pial", "white", "inflated", "sphere", "flat")
_FILE_NAMES = {"inflated": "infl"}  # of nilearn's wheel


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """One hemisphere.

    Parameters
    ----------
    points : mapping of str to array of shape (n, 3), float32
        Shape (one of `SHAPES`) -> coordinates in mm: x to the right, y to the front, z up. ``flat`` lies in the x-y
        plane; vertices that are on none of `flat_faces` have no meaningful point there.
    faces : array of shape (m, 3), int32
        Of the closed mesh; seen from outside, corners run counter-clockwise.
    flat_faces : array of shape (k, 3), int32
        Faces of the flatmap: a subset of `faces`, without the medial wall and the cuts. Empty without a flatmap.
    curvature : array of shape (n,), float32
        Positive in sulci.
    """

    points: Mapping[str, np.ndarray]
    faces: np.ndarray
    flat_faces: np.ndarray
    curvature: np.ndarray

    def __len__(self) -> int:
        return len(self.curvature)


@dataclass(frozen=True, eq=False)
class CorticalSurface:
    """Both hemispheres of one brain.

    Parameters
    ----------
    name : str
        For captions: ``"fsaverage5"``, or the name of the subject.
    space : str
        Space of the vertices: a key of ``SPACES``, or ``"custom"``.
    left, right : Hemisphere
        Vertices of the right hemisphere are numbered after those of the left, as in `Vertices`.
    """

    name: str
    space: str
    left: Hemisphere
    right: Hemisphere

    def hemisphere(self, name: str) -> Hemisphere:
        """``"left"`` or ``"right"``."""
        return self.left if name == "left" else self.right

    @property
    def shapes(self) -> tuple[str, ...]:
        """Shapes that both hemispheres have, in the order of `SHAPES`."""
        return tuple(shape for shape in SHAPES if shape in self.left.points and shape in self.right.points)


def average_surface(space: str) -> CorticalSurface:
    """The average brain that comes with nilearn, in any of the fsaverage spaces.

    Raises
    ------
    UsageError
        If the space is unknown.
    MissingDependency
        If nilearn is not installed.
    """
    left, right = (_average_hemisphere(space, name) for name in HEMISPHERES)
    return CorticalSurface(space, space, left, right)


def _average_hemisphere(space: str, name: str) -> Hemisphere:
    points = {shape: mesh(space, name, _FILE_NAMES.get(shape, shape))[0].astype(np.float32) for shape in SHAPES}
    return Hemisphere(
        points,
        faces=mesh(space, name, "sphere")[1],
        flat_faces=mesh(space, name, "flat")[1],
        curvature=scalar(space, name, "curv").astype(np.float32),
    )
