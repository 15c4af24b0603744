"""The maps of a finished run, of an encoder file, of an evaluation or of any file of values, as figures."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.surface_files import read_surface
from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file import locate
from brainkit.errors import DataError, UsageError
from brainkit.maps import draw
from brainkit.maps.brain_map import MapSet
from brainkit.maps.changes import Changes
from brainkit.maps.files.formats import check_format, write_maps
from brainkit.maps.pycortex.run import Pycortex, check_pycortex, write_dataset, write_quickflat
from brainkit.maps.style import DEFAULT, FORMATS, Style
from brainkit.maps.value_files import is_value_file, read_value_files
from brainkit.maps.view import FLAT, plainest_shape
from brainkit.runs.latest import default_encoder, has_latest, latest_run
from brainkit.runs.map_sets import is_evaluation, is_run_folder, open_map_sets
from brainkit.utils.file_names import file_stems
from brainkit.utils.files import read_json
from brainkit.utils.progress import Say


def draw_all(
    sources: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    like: str | os.PathLike[str] | None = None,
    rows: Sequence[int] = (),
    mean: bool = False,
    own_limits: bool = False,
    surface: str | os.PathLike[str] | None = None,
    changes: Changes | None = None,
    style: Style = DEFAULT,
    formats: Sequence[str] = ("png",),
    pycortex: Pycortex | None = None,
    say: Say = print,
) -> list[Path]:
    """Draw the maps of a finished run (of several subjects: of each) or of files, or write them for other tools.

    Parameters
    ----------
    sources : sequence of path-like, optional
        A run folder, an evaluation's folder or an encoder file; or files of values (see
        :func:`brainkit.maps.value_files.read_value_files`). By default the run that ``runs/latest`` names, else the
        only encoder file in the working folder.
    out : path-like, optional
        Folder for the figures; by default ``maps/`` in the run, ``<file>-maps`` next to an encoder file, and the
        working folder for files of values. For several subjects, each gets a folder in it.
    like : path-like, optional
        A run or an encoder file whose vertices the files' values are, and whose ROIs are outlined.
    rows, mean, own_limits
        See :func:`brainkit.maps.value_files.read_value_files`.
    surface : path-like, optional
        Folder of a subject's own surface, see :func:`brainkit.cortex.surface_files.read_surface`.
    changes : Changes, optional
        Which maps, ROIs, colours and limits.
    style : Style
    formats : sequence of str
        Of pictures: png, pdf, svg; of files: keys of ``brainkit.maps.files.formats.MAP_FORMATS``.
    pycortex : Pycortex, optional
        Draw the maps with pycortex too, and write them as a dataset of pycortex, into the folder ``pycortex``.
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        The figures and files.

    Raises
    ------
    UsageError, DataError, MissingDependency
        If the sources are of several kinds or cannot be read, a change does not fit, or nothing can be drawn.
    """
    values = [is_value_file(source) for source in sources]
    if any(values):
        if not all(values):
            raise UsageError("map: expected one run or encoder file, or files of values, got both")
        known = None if like is None else next(iter(open_map_sets(like).values()))
        sets = read_value_files(sources, like=known, rows=rows, mean=mean, own_limits=own_limits)
        found = {Path(out or "."): sets}
    elif len(sources) > 1:
        raise UsageError(f"map: expected one run or encoder file, got {len(sources)}")
    elif like is not None or rows or mean or own_limits:
        raise UsageError("map: --like, --rows, --mean and --own-limits are for files of values")
    else:
        found = map_folders(default_source(say) if not sources else Path(sources[0]), out)
    changes = changes or Changes()
    if surface is not None:
        changes = replace(changes, surface=read_surface(surface))
        style = on_own_surface(style, changes.surface, say)
    changed = {folder: [changes.apply(each) for each in sets] for folder, sets in found.items()}
    pictures = tuple(format for format in formats if format in FORMATS)
    kinds = tuple(format for format in formats if format not in FORMATS)
    for each in (one for sets in changed.values() for one in sets):
        if pictures:
            draw.check_drawable_set(each)
        for kind in kinds:
            check_format(each, kind)
        if pycortex is not None:
            check_pycortex(each)
    for sets in changed.values():
        file_stems(name for each in sets for name in each.names)
    figures = []
    for folder, sets in changed.items():
        _make_folder(folder, Path(out or folder))
        for each in sets:
            drawn = draw.draw_maps(folder, each, style=style, formats=pictures) if pictures else []
            for kind in kinds:
                drawn += _write_kind(folder, each, kind, say)
            if drawn:
                say(f"{folder}: {', '.join(path.name for path in drawn)}")
            figures += drawn
            if pycortex is not None:
                figures += _draw_with_pycortex(folder / "pycortex", each, pycortex, say)
    return figures


def on_own_surface(style: Style, surface: CorticalSurface | None, say: Say) -> Style:
    """The style for a surface of the subject's own: if it has no flatmap, `view` names the shape that shows most."""
    shape = plainest_shape(surface)
    if style.view != FLAT or shape == FLAT:
        return style
    say(f"the surface has no flatmap; drawn {shape} (see --view)")
    return replace(style, view=shape)


def _write_kind(folder: Path, maps: MapSet, kind: str, say: Say) -> list[Path]:
    files, left_out = write_maps(folder, maps, kind)
    if left_out:
        say(f"{kind} holds classes only, so these maps have none: {', '.join(left_out)}")
    return files


def _draw_with_pycortex(folder: Path, maps: MapSet, pycortex: Pycortex, say: Say) -> list[Path]:
    drawn = write_quickflat(folder, maps, filestore=pycortex.filestore)
    drawn.append(write_dataset(folder / "maps.hdf", maps, subject=pycortex.subject, filestore=pycortex.filestore))
    say(f"{folder}: {', '.join(path.name for path in drawn)}")
    return drawn


def draw_run(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of one finished run, by default the newest; see `draw_all`."""
    return draw_all([] if run is None else [run], out=out, say=say)


def draw_if_possible(folder: Path, say: Say) -> None:
    """Draw the maps of a run, or report why they cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("nilearn") is None:
        say("no maps drawn: run pip install 'brainkit[maps]', then brainkit map")
    elif read_json(folder / "run.json")["space"] == CUSTOM and not (folder / "volume.npz").is_file():
        say("no maps drawn: the vertices are not on a surface that brainkit knows")
    else:
        draw_run(folder, say=say)


def default_source(say: Say) -> Path:
    """What is drawn if nothing is named: the newest run, else the only encoder file in the working folder."""
    return latest_run() if has_latest() else default_encoder(say, "a run or an encoder file")


def map_folders(source: Path, out: str | os.PathLike[str] | None) -> dict[Path, list[MapSet]]:
    """Folders for the figures of a run, an evaluation or an encoder file, and what is drawn in each."""
    found = {}
    for subject, maps in open_map_sets(source).items():
        if out is not None:
            folder = Path(out) / subject
        elif is_evaluation(source):
            folder = source
        elif is_run_folder(source):
            folder = source / subject / "maps"
        else:
            file = locate(source)
            folder = file.with_name(f"{file.stem}-maps")
        found[folder] = [maps]
    return found


def _make_folder(folder: Path, out: Path) -> None:
    """Create a folder for figures, and `out` that it may lie in."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the figures, found a file")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; create it first")
    folder.mkdir(parents=True, exist_ok=True)
