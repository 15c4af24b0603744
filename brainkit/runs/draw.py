"""The maps of a finished run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file import locate
from brainkit.errors import DataError
from brainkit.maps import draw
from brainkit.maps.draw_predictions import PUBLISHED_GAUGE, draw_encoder_file
from brainkit.runs.folder import finished_run, read_maps, run_folders
from brainkit.runs.latest import default_encoder, has_latest
from brainkit.utils.files import read_json
from brainkit.utils.progress import Say


def draw_all(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of a finished run; of a run of several subjects, those of each; or those of an encoder file.

    Parameters
    ----------
    run : path-like, optional
        A run folder or an encoder file; by default the run that ``runs/latest`` names, else the only encoder file in
        the working folder.
    say
        See `draw_run`.
    out : path-like, optional
        See `draw_run`; for several subjects, each gets a folder in it.
    """
    if run is None and not has_latest():
        run = default_encoder(say, "a run or an encoder file")
    if run is not None and not (Path(run) / "run.json").is_file():
        return draw_encoder_file(locate(run), out, say=say)
    folders = run_folders(run)
    if len(folders) == 1:
        return draw_run(folders[0], out=out, say=say)
    if out is not None:
        Path(out).mkdir(exist_ok=True)
    figures = []
    for folder in folders:
        figures += draw_run(folder, out=None if out is None else Path(out) / folder.name, say=say)
    return figures


def draw_run(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of a finished run: accuracy, explained share, layer, location, scale.

    Parameters
    ----------
    run : path-like, optional
        A run folder or an encoder file; by default the run that ``runs/latest`` names.
    out : path-like, optional
        Folder for the figures; by default ``maps/`` in the run, or next to the encoder file.
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        The figures.
    """
    if run is not None and Path(run).is_file():
        return draw_encoder_file(run, out, say=say)
    folder, summary = finished_run(run)
    target = Path(out) if out is not None else folder / "maps"
    if not target.parent.is_dir():
        raise DataError(f"{target}: its folder {target.parent} does not exist; create it first")
    target.mkdir(exist_ok=True)
    layer_note = PUBLISHED_GAUGE if summary["gauge"] == "published" else None
    title, maps = summary["backbone"]["name"], read_maps(folder, summary)
    figures = draw.draw_maps(target, title=title, layer_note=layer_note, **maps)
    say(f"{target}: {', '.join(figure.name for figure in figures)}")
    return figures


def draw_if_possible(folder: Path, say: Say) -> None:
    """Draw the maps of a run, or report why they cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("nilearn") is None:
        say("no maps drawn: run pip install 'brainkit[maps]', then brainkit map")
    elif read_json(folder / "run.json")["space"] == CUSTOM:
        say("no maps drawn: the vertices are not on a surface that brainkit knows")
    else:
        draw_run(folder, say=say)
