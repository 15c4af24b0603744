"""NIfTI: maps of voxels in their volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainkit.maps.brain_map import MapSet
from brainkit.maps.files.values import plain, save, stored_values, unknown_value
from brainkit.utils.file_names import file_stem


def write_nifti(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``NAME.nii.gz`` in the volume of the voxels."""
    from nibabel.nifti1 import Nifti1Image

    volume = maps.volume
    assert volume is not None  # _check
    for brain_map in maps.maps:
        columns = stored_values(brain_map)
        grid = np.full((*volume.shape, columns.shape[1]), unknown_value(brain_map), columns.dtype)
        grid[tuple(volume.voxels.T)] = columns
        image = Nifti1Image(grid if grid.shape[-1] > 1 else grid[..., 0], volume.affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = plain(brain_map.title).encode("ascii", "replace")[:79]
        yield save(image, folder / f"{file_stem(brain_map.name)}.nii.gz")
