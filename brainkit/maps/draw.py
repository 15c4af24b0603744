"""Maps as files: any map of a set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import UsageError, require
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.figure import MapFigure
from brainkit.maps.style import DEFAULT, FORMATS, Style
from brainkit.utils.file_names import file_stems


def draw_maps(
    folder: str | os.PathLike[str], maps: MapSet, *, style: Style = DEFAULT, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw all maps of a set, each as a figure of its own.

    Parameters
    ----------
    folder : path-like
        Folder of the files; it must exist.
    maps : MapSet
    style : Style
    formats : sequence of {"png", "pdf", "svg"}

    Returns
    -------
    list of Path
        The files, named by their maps: ``layer.png``.

    Raises
    ------
    UsageError
        If the space is custom, a shape does not fit, or two maps would have the same file.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    check_drawable_set(maps)
    return [
        path
        for stem, brain_map in zip(file_stems(maps.names), maps.maps, strict=True)
        for path in draw_map_file(Path(folder) / stem, maps, brain_map, style=style, formats=formats)
    ]


def draw_map_file(
    stem: str | os.PathLike[str],
    maps: MapSet,
    brain_map: BrainMap,
    *,
    style: Style = DEFAULT,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Draw one map, in one file per format.

    Parameters
    ----------
    stem : path-like
        The files' path without the suffix; their folder must exist.
    maps : MapSet
        Whose vertices, ROIs, title and note the figure has.
    brain_map : BrainMap
    style, formats
        As for `draw_maps`.

    Returns
    -------
    list of Path

    Raises
    ------
    UsageError, MissingDependency
        As `draw_maps`.
    """
    check_drawable_set(maps, brain_map)
    paths = []
    figures: dict[int, MapFigure] = {}
    for kind in formats:
        dpi = style.dpi or FORMATS[kind]
        if dpi not in figures:
            figures[dpi] = MapFigure(maps, brain_map, style, dpi)
        paths.append(figures[dpi].write(Path(f"{os.fspath(stem)}.{kind}")))
    return paths


def check_drawable_set(maps: MapSet, *others: BrainMap) -> None:
    """Check that maps can be drawn.

    Raises
    ------
    UsageError
        If the vertices have no surface, or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    if maps.vertices.space == CUSTOM and maps.surface is None and maps.volume is None:
        raise UsageError("maps of the custom space need a surface or a volume, got neither; give a surface")
    count = len(maps.vertices)
    if maps.rois.n_vertices != count:
        raise UsageError(f"rois must be of the {count} vertices drawn, got a table of {maps.rois.n_vertices}")
    for brain_map in (*maps.maps, *others):
        for name in ("values", "reliable", "strength"):
            values = getattr(brain_map, name)
            if values is not None and len(values) != count:
                raise UsageError(f"{brain_map.name}: {name} must be of {count} vertices, got {np.shape(values)}")
    require("matplotlib", extra="maps", purpose="drawing brain maps")  # nilearn is checked with the surfaces
