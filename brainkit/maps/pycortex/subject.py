"""A pycortex subject of a surface: the files of one folder of pycortex's filestore. pycortex itself is not needed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere
from brainkit.cortex.surface import HEMISPHERES
from brainkit.errors import DataError

_SIDES = {"left": "lh", "right": "rh"}
_SHAPES = {"pial": "pia", "white": "wm", "inflated": "inflated"}  # ours -> pycortex's
_FOLDERS = ("surfaces", "surface-info", "transforms", "anatomicals", "cache", "views")


def write_subject(filestore: Path, surface: CorticalSurface) -> str:
    """Write a subject named after the surface, unless the filestore has one of that name.

    Parameters
    ----------
    filestore : Path
        Folder of pycortex's subjects; created if it does not exist.
    surface : CorticalSurface

    Returns
    -------
    str
        The subject's name.

    Raises
    ------
    OSError
        If the filestore cannot be written.
    DataError
        If it has a subject of that name with other vertices.
    """
    folder = filestore / surface.name
    if not folder.is_dir():
        filestore.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=filestore))
        try:
            _write(made, surface)
            made.chmod(0o755)
            _move(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    _check(folder, surface)
    return surface.name


def _write(folder: Path, surface: CorticalSurface) -> None:
    for name in _FOLDERS:
        (folder / name).mkdir()
    for name in HEMISPHERES:
        side = surface.hemisphere(name)
        for ours, theirs in _SHAPES.items():
            _write_mesh(folder / "surfaces" / f"{theirs}_{_SIDES[name]}.gii", side.points[ours], side.faces)
        faces = _without_slivers(side)
        flat = np.zeros((len(side), 3), np.float32)  # pycortex takes the flatmap's extent from all points
        on = np.unique(faces)
        flat[on, :2] = side.points["flat"][on, :2]
        _write_mesh(folder / "surfaces" / f"flat_{_SIDES[name]}.gii", flat, faces)
    curvature = {name: -surface.hemisphere(name).curvature for name in HEMISPHERES}  # positive on gyri there
    np.savez(folder / "surface-info" / "curvature.npz", left=curvature["left"], right=curvature["right"])


def _write_mesh(path: Path, points: np.ndarray, faces: np.ndarray) -> None:
    from nibabel.gifti import GiftiDataArray, GiftiImage

    arrays = [
        GiftiDataArray(points.astype(np.float32), intent="NIFTI_INTENT_POINTSET", datatype="NIFTI_TYPE_FLOAT32"),
        GiftiDataArray(faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE", datatype="NIFTI_TYPE_INT32"),
    ]
    GiftiImage(darrays=arrays).to_filename(path)


def _without_slivers(side: Hemisphere) -> np.ndarray:
    """The flatmap's faces, without some vertices at its edges: (k, 3).

    pycortex's viewer draws every face of the closed mesh whose three corners are on the flatmap, also those across a
    cut. Of these, vertices are left out until none is drawn.
    """
    whole, flat = (np.sort(faces, axis=1) for faces in (side.faces, side.flat_faces))
    keys = [np.ravel_multi_index(tuple(faces.T), (len(side),) * 3) for faces in (whole, flat)]
    across = whole[~np.isin(*keys)]
    used = np.zeros(len(side), bool)
    used[flat] = True
    while len(across := across[used[across].all(axis=1)]):
        used[np.bincount(across.ravel()).argmax()] = False
    return side.flat_faces[used[side.flat_faces].all(axis=1)]


def _move(made: Path, folder: Path) -> None:
    try:
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process has written it meanwhile
            raise


def _check(folder: Path, surface: CorticalSurface) -> None:
    from nibabel.gifti import GiftiImage

    for name in HEMISPHERES:
        path = folder / "surfaces" / f"flat_{_SIDES[name]}.gii"
        if not path.is_file():
            raise DataError(f"{path}: not found, so the subject {folder.name} cannot be drawn; name another filestore")
        found, expected = len(GiftiImage.from_filename(path).darrays[0].data), len(surface.hemisphere(name))
        if found != expected:
            raise DataError(
                f"{folder}: expected {expected} vertices in the {name} hemisphere, found {found}; "
                "name another filestore"
            )
