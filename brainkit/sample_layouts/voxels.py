"""Voxels for simulated vertices, so that they can be written as volumes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import CUSTOM
from brainkit.sample_layouts.simulated import Simulated

_MARGIN = 2  # empty voxels around


def place_in_volume(
    subject: Simulated, size: float
) -> tuple[Simulated, npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """A voxel of its own for each vertex, where it lies on the pial surface or next to it.

    Parameters
    ----------
    subject : Simulated
    size : float
        Edge of a voxel in mm.

    Returns
    -------
    subject : Simulated
        With the vertices in C order of their voxels, and the truth of a custom space.
    voxels : array of shape (V, 3), int32
    affine : array of shape (4, 4)
        Voxels to mm: axes to the right, front and top.
    """
    vertices = subject.vertices
    pial = [mesh(vertices.space, side, "pial")[0] for side in ("left", "right")]
    points = np.concatenate([pial[0][vertices.left], pial[1][vertices.right]])
    origin = points.min(axis=0) - _MARGIN * size
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = origin
    near = np.array(sorted(itertools.product(range(-3, 4), repeat=3), key=lambda step: (np.dot(step, step), step)))
    taken: set[tuple[int, int, int]] = set()
    voxels = []
    for point in np.rint((points - origin) / size).astype(int):
        voxel = next(each for each in map(tuple, point + near) if each not in taken)
        taken.add(voxel)
        voxels.append(voxel)
    found = np.array(voxels, np.int32)
    low = found.min(axis=0)  # a vertex may have moved below the margin
    found -= low
    affine[:3, 3] += size * low
    order = np.lexsort(found.T[::-1])
    return reorder(subject, order, CUSTOM, np.arange(len(order))), found[order], affine


def reorder(subject: Simulated, order: npt.NDArray[np.intp], space: str, ids: npt.NDArray[np.integer]) -> Simulated:
    """The subject with its vertices in another order, each as often as `order` has it, at `ids` of another space.

    The truth says these; `Simulated.vertices` stay those of fsaverage5 and have no meaning any more.
    """
    count = len(subject.vertices)
    truth = {
        name: array[order] if np.ndim(array) and len(array) == count and name != "layers" else array
        for name, array in subject.truth.items()
    }
    truth |= {"space": np.array(space), "vertices": np.asarray(ids, np.int32)}
    return dataclasses.replace(
        subject,
        coordinates=subject.coordinates[order],
        streams=subject.streams[order],
        trials=subject.trials[:, :, order],
        responses=subject.responses[:, order],
        noise_ceiling=subject.noise_ceiling[order],
        truth=truth,
    )


def save_volume(
    path: Path, values: npt.NDArray[np.generic], voxels: npt.NDArray[np.int32], affine: npt.NDArray[np.float64]
) -> None:
    """Write a map (V,) as NIfTI (X, Y, Z), or trials (n, V) as (X, Y, Z, n); 0 outside the voxels."""
    import nibabel

    volume = np.zeros((*(voxels.max(axis=0) + 1 + _MARGIN), *values.shape[:-1]), values.dtype, order="F")
    volume[tuple(voxels.T)] = values.T
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
