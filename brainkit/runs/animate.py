"""A run's training as an animation: its maps from snapshots that ``brainkit train --animate`` kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import DataError, UsageError, require
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.changes import Changes
from brainkit.maps.draw import check_drawable_set
from brainkit.maps.figure import MapFigure
from brainkit.maps.style import DEFAULT, Style
from brainkit.runs.folder import SNAPSHOTS, finished_run, read_uncertainty
from brainkit.runs.map_sets import run_map_set
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import atomic_write, create_folder
from brainkit.utils.own_figures import NAME
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ANIMATED = ("layer", "location", "scale")
FORMATS = ("gif", "mp4")
_DPI = 90
_FRAME, _LAST = 140, 2500  # milliseconds
_QUALITY = "20"  # of H.264: constant rate factor, 18 looks as the frames do


def animate_run(
    runs: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    names: Sequence[str] = ("layer",),
    rois: Sequence[str] | None = None,
    style: Style = DEFAULT,
    formats: Sequence[str] = ("gif",),
    say: Say = print,
) -> list[Path]:
    """Draw how maps of a run came about, as GIF or MP4 (H.264).

    Parameters
    ----------
    runs : sequence of path-like, optional
        At most one: a run folder of one subject, by default the newest.
    out : path-like, optional
        Folder of the files; by default ``maps/`` in the run. Created if it does not exist.
    names : sequence of {"layer", "location", "scale"}
    rois : sequence of str, optional
        Outlined; by default all.
    style : Style
        With a light or a dark theme.
    formats : sequence of {"gif", "mp4"}
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        ``layer-training.gif`` and its like.

    Raises
    ------
    UsageError
        If a map cannot be animated, there are several runs, or the theme is transparent.
    DataError
        If the run has no snapshots.
    MissingDependency
        If a library is missing; MP4 needs PyAV.
    """
    if unknown := [name for name in names if name not in ANIMATED]:
        raise UsageError(f"animation of {unknown[0]!r}: there is none; known: {', '.join(ANIMATED)}")
    if len(runs) > 1:
        raise UsageError(f"map --animate: expected one run, got {len(runs)}")
    if style.colours.background == "none":
        raise UsageError(f"theme {style.theme}: an animation cannot be transparent; choose light or dark")
    if "mp4" in formats:
        require("av", extra="video", purpose="writing MP4")
    folder, _ = finished_run(runs[0] if runs else None)
    snapshots = sorted((folder / SNAPSHOTS).glob("*.npz"))
    if not snapshots:
        raise DataError(f"{folder}: has no snapshots to animate; train with --animate")
    maps = Changes(rois=rois).apply(run_map_set(folder))
    # Standard errors are of the finished run; without them, snapshots say how clear each preference was.
    unsure = read_uncertainty(folder, maps.vertices) is not None
    check_drawable_set(maps)
    style = replace(style, dpi=style.dpi or _DPI)
    target = folder / "maps" if out is None else Path(out)
    create_folder(target)
    paths = []
    for name in names:
        steps = [(int(path.stem), _map_at(path, maps[name], unsure)) for path in snapshots]
        # The final map is of the best epoch, after the refit.
        frames = [_frame(maps, each, f"step {step:,}", style) for step, each in steps]
        frames.append(_frame(maps, maps[name], "finished run", style))
        for kind in formats:
            paths.append(target / f"{name}-training.{kind}")
            (_write_mp4 if kind == "mp4" else _write_gif)(paths[-1], frames)
    say(f"{target}: {', '.join(path.name for path in paths)}")
    return paths


def _map_at(path: Path, final: BrainMap, unsure: bool) -> BrainMap:
    """A map as it was at a snapshot, with the colours of the final one; pale where that is, if `unsure` faded too."""
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
    return replace(final, values=found.values, strength=final.strength if unsure else found.strength)


def _frame(maps: MapSet, brain_map: BrainMap, when: str, style: Style) -> Picture:
    from PIL import Image

    pixels = MapFigure(maps, replace(brain_map, summary=when), style, style.dpi or _DPI).render()
    return Image.fromarray(pixels)


def _write_gif(path: Path, frames: Sequence[Picture]) -> None:
    from PIL import Image

    # One palette for all, from the end of training, where there are the most colours: nothing flickers.
    palette = frames[-1].quantize(256)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(path) as temporary:
        durations = [_FRAME] * len(rest) + [_LAST]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, comment=NAME)


def _write_mp4(path: Path, frames: Sequence[Picture]) -> None:
    import av

    width, height = (2 * (side // 2) for side in frames[0].size)  # the format wants even sides
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        # One thread, and x264 without its vector code, which now and then differs: the same frames give the same bytes.
        # 4:2:0 is what players can show.
        options = {"crf": _QUALITY, "threads": "1", "x264-params": "asm=0", "movflags": "+faststart"}
        video = file.add_stream("libx264", rate=Fraction(1000, _FRAME), options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for frame in (*frames, *[frames[-1]] * (_LAST // _FRAME)):
            file.mux(video.encode(av.VideoFrame.from_image(frame.crop((0, 0, width, height)))))
        file.mux(video.encode())
