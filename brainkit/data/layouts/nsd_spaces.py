"""The spaces of the Natural Scenes Dataset: what the columns are, on surfaces and in volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import SPACES as FSAVERAGES
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.layouts.nifti import SAME_AFFINE, Grid
from brainkit.data.layouts.nsd_betas import Betas
from brainkit.data.layouts.nsd_rois import FREESURFER, HEMISPHERES, read_surface_map, surface_rois, volume_rois
from brainkit.errors import DataError
from brainkit.utils.text import one_line, plural

VOLUMES = ("func1pt8mm", "func1mm")
SURFACES = ("fsaverage", "nativesurface")
SPACES = ("fsaverage", *VOLUMES, "nativesurface")  # the first that is there is the default
_SPHERES = ("sphere.reg", "sphere")
_APART = 1.5  # widths of the left hemisphere's sphere, between the leftmost points of both

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """What one file of a session has: a hemisphere (``lh`` or ``rh``), or the volume (``""``).

    Attributes
    ----------
    hemisphere : str
    shape : tuple of int
        Of a trial.
    positions : array of shape (k,)
        Of the columns in a trial, increasing; the first axis of a volume is the fastest.
    axes : array of shape (3, 3), or None
        Of a volume, its affine without the origin.
    """

    hemisphere: str
    shape: tuple[int, ...]
    positions: Integers
    axes: npt.NDArray[np.float64] | None = None

    def check(self, betas: Betas) -> None:
        """Raise DataError unless a file has trials of this shape and, of a volume, in this orientation."""
        if betas.shape != self.shape:
            expected, found = (" x ".join(map(str, shape)) for shape in (self.shape, betas.shape))
            what = "voxels" if len(self.shape) > 1 else "vertices"
            raise DataError(
                f"{betas.path}: expected {expected} {what}, found {found}; it is of another space or subject"
            )
        if (
            self.axes is not None
            and betas.axes is not None
            and not np.allclose(betas.axes, self.axes, atol=SAME_AFFINE)
        ):
            raise DataError(
                f"{betas.path}: expected the axes of the brain mask, found others (affine {betas.axes.tolist()}, mask "
                f"{self.axes.tolist()}); take the file as it was released"
            )


@dataclass(frozen=True, eq=False)
class Space:
    """What the V columns are; see `brainkit.data.trials.Trials`."""

    parts: tuple[Part, ...]
    vertices: Vertices
    rois: dict[str, Integers]
    coordinates: npt.NDArray[np.float32] | None = None
    volume: Volume | None = None
    grid: Grid | None = None
    notes: tuple[str, ...] = ()

    def read(self, betas: Sequence[Betas], columns: Integers) -> npt.NDArray[np.float32]:
        """Responses at some columns, increasing, of a session's files in the order of the parts."""
        values = np.empty((betas[0].n_trials, len(columns)), np.float32)
        start = 0
        for part, file in zip(self.parts, betas, strict=True):
            first, last = np.searchsorted(columns, [start, start + len(part.positions)])
            file.read(part.positions[columns[first:last] - start], values[:, first:last])
            start += len(part.positions)
        return values

    def read_ncsnr(self, folder: Path) -> npt.NDArray[np.float64] | None:
        """The published ncsnr in a folder of responses, (V,); None if it is not there."""
        maps = []
        for part in self.parts:
            names = (f"{part.hemisphere}.ncsnr.mgh",) if part.hemisphere else ("ncsnr.nii.gz", "ncsnr.nii")
            path = next((folder / name for name in names if (folder / name).is_file()), None)
            if path is None:
                return None
            if self.grid is None:
                values = read_surface_map(path, part.shape[0])
            else:
                values = self.grid.read(path).ravel(order="F")
            if (values < 0).any():
                raise DataError(f"{path}: expected ncsnr of 0 or above, found {np.nanmin(values):g}")
            maps.append(values[part.positions])
        return np.concatenate(maps)


def open_space(root: Path, subject: int, space: str, sizes: Sequence[int], stems: Sequence[str]) -> Space:
    """Describe a space.

    Parameters
    ----------
    root : Path
        Of the data set.
    subject : int
    space : str
        One of `SPACES`.
    sizes : sequence of int
        Of surfaces, vertices of each hemisphere's files.
    stems : sequence of str
        What the maps of valid voxels are called after each session: ``session01``.

    Raises
    ------
    DataError
        If a file that describes the space is missing, or does not fit.
    """
    if space in VOLUMES:
        return _open_volume(root, subject, space, stems)
    if space == "fsaverage":
        size = FSAVERAGES["fsaverage"]
        counts = dict.fromkeys(HEMISPHERES, size)
        rois, notes = surface_rois(root, subject, counts, average=True)
        return Space(_surface_parts(counts), Vertices("fsaverage", np.arange(2 * size)), rois, notes=notes)
    counts = dict(zip(HEMISPHERES, sizes, strict=True))
    rois, notes = surface_rois(root, subject, counts, average=False)
    coordinates = _spheres(root / FREESURFER / f"subj{subject:02d}" / "surf", counts)
    vertices = Vertices.custom(len(coordinates))
    return Space(_surface_parts(counts), vertices, rois, coordinates=coordinates, notes=notes)


def _surface_parts(counts: dict[str, int]) -> tuple[Part, ...]:
    return tuple(Part(side, (count,), np.arange(count)) for side, count in counts.items())


def _open_volume(root: Path, subject: int, space: str, stems: Sequence[str]) -> Space:
    """Voxels of the brain mask that are valid in all sessions."""
    folder = root / "nsddata" / "ppdata" / f"subj{subject:02d}" / space
    mask_file = next((p for p in (folder / "brainmask.nii.gz", folder / "brainmask.nii") if p.is_file()), None)
    if mask_file is None:
        raise DataError(f"{folder / 'brainmask.nii.gz'}: file not found; expected the brain mask: download this folder")
    grid = Grid(mask_file)
    brain = grid.read(mask_file) > 0
    mask = brain.copy()
    for stem in stems:
        valid = folder / f"valid_{stem}.nii.gz"
        if valid.is_file():
            mask &= grid.read(valid) > 0
    if not mask.any():
        raise DataError(f"{mask_file}: expected voxels that are valid in all sessions, found none")
    positions = np.flatnonzero(mask.ravel(order="F"))
    voxels = np.stack(np.unravel_index(positions, grid.shape, order="F"), axis=1).astype(np.int32)
    out = int(brain.sum()) - len(positions)
    note = f"{plural(out, 'voxel')} of the brain mask left out, which were not measured in some session"
    return Space(
        parts=(Part("", grid.shape, positions, grid.affine[:3, :3]),),
        vertices=Vertices.custom(len(positions)),
        rois=volume_rois(root, subject, space, grid, positions),
        coordinates=(voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]).astype(np.float32),
        volume=Volume(grid.shape, grid.affine, voxels),
        grid=grid,
        notes=(note,) if out else (),
    )


def _spheres(folder: Path, counts: dict[str, int]) -> npt.NDArray[np.float32]:
    """Coordinates on the subject's spheres, the right one beside the left: (V, 3), mm."""
    sides: list[npt.NDArray[Any]] = []
    for side, count in counts.items():
        path = next((folder / f"{side}.{name}" for name in _SPHERES if (folder / f"{side}.{name}").is_file()), None)
        if path is None:
            raise DataError(
                f"{folder / f'{side}.{_SPHERES[0]}'}: file not found; expected the subject's FreeSurfer surfaces, "
                "which say where the vertices of nativesurface lie: download this folder, or use another --space"
            )
        points = _read_points(path)
        if len(points) != count:
            raise DataError(f"{path}: expected {count:,} vertices, as in the responses, found {len(points):,}")
        sides.append(points)
    left, right = sides
    low, high = left[:, 0].min(), left[:, 0].max()
    shift = max(0.0, low + _APART * (high - low) - right[:, 0].min())
    return np.concatenate([left, right + [shift, 0.0, 0.0]]).astype(np.float32)


def _read_points(path: Path) -> npt.NDArray[Any]:
    from nibabel.freesurfer import read_geometry

    try:
        return np.asarray(read_geometry(path)[0])
    except Exception as error:  # damaged files make nibabel raise many kinds
        raise DataError(f"{path}: expected a surface of FreeSurfer, which cannot be read: {one_line(error)}") from None
