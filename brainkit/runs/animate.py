"""A run's training as an animation: its maps from snapshots that ``brainkit train --animate`` kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import DataError, UsageError
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.draw import check_drawable_set
from brainkit.maps.figure import MapFigure
from brainkit.maps.style import DEFAULT, Style
from brainkit.runs.folder import SNAPSHOTS, finished_run
from brainkit.runs.map_sets import read_arrays, run_map_set
from brainkit.utils.files import atomic_write, create_folder
from brainkit.utils.own_figures import NAME
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ANIMATED = ("layer", "location", "scale")
_DPI = 90
_FRAME, _LAST = 140, 2500  # milliseconds


def animate_run(
    runs: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    names: Sequence[str] = ("layer",),
    style: Style = DEFAULT,
    say: Say = print,
) -> list[Path]:
    """Draw how maps of a run came about, as GIFs.

    Parameters
    ----------
    runs : sequence of path-like, optional
        At most one: a run folder of one subject, by default the newest.
    out : path-like, optional
        Folder of the files; by default ``maps/`` in the run. Created if it does not exist.
    names : sequence of {"layer", "location", "scale"}
    style : Style
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        ``layer-training.gif`` and its like.

    Raises
    ------
    UsageError
        If a map cannot be animated, or there are several runs.
    DataError
        If the run has no snapshots.
    """
    if unknown := [name for name in names if name not in ANIMATED]:
        raise UsageError(f"animation of {unknown[0]!r}: there is none; known: {', '.join(ANIMATED)}")
    if len(runs) > 1:
        raise UsageError(f"map --animate: expected one run, got {len(runs)}")
    folder, _ = finished_run(runs[0] if runs else None)
    snapshots = sorted((folder / SNAPSHOTS).glob("*.npz"))
    if not snapshots:
        raise DataError(f"{folder}: has no snapshots to animate; train with --animate")
    maps = run_map_set(folder)
    check_drawable_set(maps)
    style = replace(style, dpi=style.dpi or _DPI)
    target = folder / "maps" if out is None else Path(out)
    create_folder(target)
    paths = []
    for name in names:
        steps = [(int(path.stem), _map_at(path, maps[name])) for path in snapshots]
        # The final map is of the best epoch, after the refit.
        frames = [_frame(maps, each, f"step {step:,}", style) for step, each in steps]
        frames.append(_frame(maps, maps[name], "finished run", style))
        paths.append(target / f"{name}-training.gif")
        _write_gif(paths[-1], frames)
    say(f"{target}: {', '.join(path.name for path in paths)}")
    return paths


def _map_at(path: Path, final: BrainMap) -> BrainMap:
    """A map as it was at a snapshot, with the colours of the final one, and pale where that is."""
    arrays = read_arrays(path, ("layer_weights", "locations", "scale"))
    if len(arrays["scale"]) != len(final.values):
        raise DataError(f"{path}: expected {len(final.values)} vertices, found {len(arrays['scale'])}; remove it")
    if final.name == "layer":
        weights = arrays["layer_weights"] / np.maximum(arrays["layer_weights"].sum(axis=1, keepdims=True), 1)
        found = definitions.layer(final.coding.names, weights)  # type: ignore[union-attr]
    elif final.name == "location":
        found = definitions.location(arrays["locations"])
    else:
        found = definitions.scale(arrays["scale"])
    return replace(final, values=found.values, strength=found.strength)


def _frame(maps: MapSet, brain_map: BrainMap, when: str, style: Style) -> Picture:
    from PIL import Image

    pixels = MapFigure(maps, replace(brain_map, summary=when), style, style.dpi or _DPI).render()
    return Image.fromarray(pixels).convert("RGB")


def _write_gif(path: Path, frames: Sequence[Picture]) -> None:
    from PIL import Image

    # One palette for all, from the end of training, where there are the most colours: nothing flickers.
    palette = frames[-1].quantize(256)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(path) as temporary:
        durations = [_FRAME] * len(rest) + [_LAST]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, comment=NAME)
