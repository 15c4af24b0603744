"""Files as the Natural Scenes Dataset's tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.utils.files import create_folder


def write_mgh(path: Path, values: npt.NDArray[Any]) -> None:
    """``.mgh`` or ``.mgz`` of (vertices, 1, 1) or (vertices, 1, 1, trials): big-endian float32, or int32.

    Parameters
    ----------
    path : Path
    values : array of shape (vertices,) or (vertices, trials)
    """
    from nibabel.freesurfer import MGHImage

    create_folder(path.parent)
    dtype = np.int32 if values.dtype.kind in "iu" else np.float32
    image = MGHImage(values.astype(dtype).reshape(len(values), 1, 1, *values.shape[1:]), np.eye(4))
    image.to_filename(path)


def write_columns(path: Path, values: npt.NDArray[np.int16]) -> None:
    """HDF5 with ``/betas`` (trials, ...), stored as MATLAB does it: a chunk for all trials of a vertex or voxel."""
    import h5py

    create_folder(path.parent)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=values, chunks=(len(values), *(1,) * (values.ndim - 1)))


def write_volume_columns(path: Path, trials: npt.NDArray[np.int16]) -> None:
    """HDF5 of volumes (trials, X, Y, Z), whose axes MATLAB and h5py list in opposite orders."""
    write_columns(path, np.ascontiguousarray(trials.transpose(0, 3, 2, 1)))


def write_nifti(path: Path, values: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """NIfTI in the dtype of the values, without a scale in the header."""
    from nibabel.nifti1 import Nifti1Image

    create_folder(path.parent)
    Nifti1Image(values, affine, dtype=values.dtype).to_filename(path)


def write_mat(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """A MATLAB file of doubles. Its header has no date, so that equal content gives equal bytes."""
    from scipy.io import savemat

    create_folder(path.parent)
    savemat(path, {name: array.astype(np.float64) for name, array in arrays.items()})
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, simulated by brainkit".ljust(116))


def write_brick(path: Path, count: int, pictures: dict[int, npt.NDArray[np.uint8]]) -> None:
    """HDF5 with ``/imgBrick`` (pictures, height, width, 3), uint8; rows that are not given take no space.

    Parameters
    ----------
    path : Path
    count : int
        Rows.
    pictures : dict of int to array
        Row -> picture, all of one size.
    """
    import h5py

    create_folder(path.parent)
    size = next(iter(pictures.values())).shape
    with h5py.File(path, "w") as file:
        brick = file.create_dataset("imgBrick", (count, *size), np.uint8, chunks=(1, *size))
        for row, picture in sorted(pictures.items()):
            brick[row] = picture
