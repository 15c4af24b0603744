"""Surfaces, regions and transforms of the simulated subject of NSD, whose own surface is fsaverage5."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.surface import mesh, scalar
from brainkit.sample_layouts.nsd_files import write_mgh
from brainkit.utils.files import create_folder

NATIVE = "fsaverage5"
_SHAPES = {"white": "white", "pial": "pial", "inflated": "infl", "sphere": "sphere", "sphere.reg": "sphere"}
_STAMP = "created by brainkit"  # in place of a name and a date


@functools.cache
def nearest_native(side: str) -> npt.NDArray[np.int64]:
    """For each vertex of fsaverage, the nearest vertex of the subject's surface, from 0."""
    from scipy.spatial import cKDTree

    tree = cKDTree(mesh(NATIVE, side, "sphere")[0])
    return np.asarray(tree.query(mesh("fsaverage", side, "sphere")[0])[1], np.int64)


def write_transforms(folder: Path, hemispheres: Mapping[str, str]) -> None:
    """``white-to-fsaverage`` and ``fsaverage-to-white``: the vertex to take the value of, from 1."""
    for short, side in hemispheres.items():
        native = len(mesh(NATIVE, side, "sphere")[0])
        write_mgh(folder / f"{short}.white-to-fsaverage.mgz", nearest_native(side) + 1)
        # The first vertices of fsaverage are those of fsaverage5.
        write_mgh(folder / f"{short}.fsaverage-to-white.mgz", np.arange(1, native + 1))


def write_surfaces(folder: Path, short: str, side: str, space: str) -> None:
    """A hemisphere in the files of FreeSurfer."""
    from nibabel.freesurfer import write_geometry, write_morph_data

    create_folder(folder)
    for name, kind in _SHAPES.items():
        points, faces = mesh(space, side, kind)
        write_geometry(folder / f"{short}.{name}", points, faces, create_stamp=_STAMP)
    for name in ("curv", "sulc"):
        write_morph_data(folder / f"{short}.{name}", scalar(space, side, name))


def write_labels(folder: Path, short: str, name: str, labels: npt.NDArray[Any], names: Sequence[str]) -> None:
    """A set of regions of a hemisphere, and its table of names."""
    write_mgh(folder / f"{short}.{name}.mgz", labels)
    lines = [f"{label} {region}" for label, region in enumerate(("Unknown", *names))]
    (folder / f"{name}.mgz.ctab").write_text("\n".join(lines) + "\n", encoding="utf-8")
