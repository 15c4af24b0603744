"""Maps on a surface that is given: of its own vertices, or of voxels that are projected on it."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.volume import Volume
from brainkit.cortex.voxel_projection import VoxelProjection, project_voxels
from brainkit.maps.brain_map import BrainMap, MapSet


def on_surface(maps: MapSet, surface: CorticalSurface) -> MapSet:
    """The maps on a surface; those of voxels as maps of the vertices that meet a voxel.

    Parameters
    ----------
    maps : MapSet
        Of vertices of the surface, or of voxels of a volume in its coordinates.
    surface : CorticalSurface

    Raises
    ------
    UsageError, DataError
        If the vertices do not fit the surface, or it meets no voxel.
    """
    if maps.volume is None:
        surface.ids_of(maps.vertices, maps.ids)  # raises if they do not fit
        return replace(maps, surface=surface)
    projection = voxel_projection(maps.volume, surface)
    return replace(
        maps,
        vertices=projection.vertices,
        rois=projection.rois(maps.rois),
        maps=tuple(_projected(each, projection) for each in maps.maps),
        volume=None,
        surface=surface,
        ids=projection.ids,
    )


@functools.lru_cache(maxsize=2)
def voxel_projection(volume: Volume, surface: CorticalSurface) -> VoxelProjection:
    """:func:`brainkit.cortex.voxel_projection.project_voxels`, kept for the next map of the same subject."""
    return project_voxels(volume, surface)


def _projected(brain_map: BrainMap, projection: VoxelProjection) -> BrainMap:
    reliable, strength = brain_map.reliable, brain_map.strength
    return replace(
        brain_map,
        values=projection.values(brain_map.values),
        # Of a vertex between voxels, as most of what it takes is.
        reliable=None if reliable is None else projection.values(np.asarray(reliable, np.float64)) > 0.5,
        strength=None if strength is None else projection.values(strength),
        summary=brain_map.summary.replace(" vertices", " voxels"),
    )
