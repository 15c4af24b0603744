"""Maps of voxels as maps of a surface's vertices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.voxel_projection import VoxelProjection, project_voxels
from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, MapSet


def project_maps(maps: MapSet, surface: CorticalSurface) -> MapSet:
    """The maps of a volume's voxels on a surface in the same coordinates.

    Parameters
    ----------
    maps : MapSet
        With a volume.
    surface : CorticalSurface

    Raises
    ------
    UsageError
        If the maps are of no volume.
    DataError
        As `project_voxels`.
    """
    if maps.volume is None:
        raise UsageError("maps: expected those of voxels, with a volume, got none; nothing is to be projected")
    projection = project_voxels(maps.volume, surface)
    return replace(
        maps,
        vertices=projection.vertices,
        rois=projection.rois(maps.rois),
        maps=tuple(_projected(each, projection) for each in maps.maps),
        volume=None,
        surface=surface,
        ids=projection.ids,
    )


def _projected(brain_map: BrainMap, projection: VoxelProjection) -> BrainMap:
    reliable, strength = brain_map.reliable, brain_map.strength
    return replace(
        brain_map,
        values=projection.values(brain_map.values),
        # Of a vertex between voxels, as most of what it takes is.
        reliable=None if reliable is None else projection.values(np.asarray(reliable, np.float64)) > 0.5,
        strength=None if strength is None else projection.values(strength),
    )
