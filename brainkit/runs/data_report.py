"""What a subject's data are, what is wrong with them and what training on them takes: the work of ``brainkit data``."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.cortex.surface import sphere_coordinates
from brainkit.data.inspection import Inspection, inspect_subject, inspect_trials
from brainkit.data.readers import find_layout, locate, open_subject, open_trials
from brainkit.data.subject import Subject
from brainkit.data.trials.prepare import prepare_subject
from brainkit.data.trials.prepared import find_prepared
from brainkit.errors import DataError, UsageError
from brainkit.images import decode
from brainkit.utils.data_uri import data_uri
from brainkit.utils.files import atomic_write
from brainkit.utils.progress import Say, duration
from brainkit.utils.table import Table
from brainkit.utils.text import format_bytes

if TYPE_CHECKING:
    from brainkit.maps.brain_map import BrainMap, MapSet
    from brainkit.page.blocks import Section

_EXAMPLES, _COLUMNS = 24, 8  # images shown on the page
_SIDE = 160  # pixels of an example
_DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class DataReport:
    """What was found.

    Attributes
    ----------
    inspection : Inspection
        With what training takes among its facts.
    subject : Subject or None
        None if the data are trials that have not been prepared.
    """

    inspection: Inspection
    subject: Subject | None


def inspect_data(
    path: str | os.PathLike[str], *, rois: Sequence[str] = (), backbone: str | None = None, say: Say = print
) -> DataReport:
    """Look at a subject's data, in any known layout. Data of trials are not prepared for it.

    Parameters
    ----------
    path : path-like
        A folder, or ``layout:folder?option=value``.
    rois : sequence of str
        Look at these ROIs only.
    backbone : str, optional
        The network whose training is estimated; by default one that needs no download.
    say : callable
        Called with each line of progress.
    """
    location = locate(path)
    layout = find_layout(location)
    subject: Subject | None
    if layout.trials:
        trials = open_trials(path)
        trials = trials.restrict(rois) if rois else trials
        found, subject = inspect_trials(trials, layout.title), find_prepared(trials)
        if subject is not None:
            prepared = inspect_subject(subject, f"{layout.title}, prepared")
            found = found.completed_by(prepared)
        coordinates = trials.coordinates
        if coordinates is None:
            coordinates = sphere_coordinates(trials.vertices)
        images = len(trials.images)
    else:
        subject = open_subject(path, say=say)
        subject = subject.restrict(rois) if rois else subject
        found, coordinates, images = inspect_subject(subject, layout.title), subject.coordinates, len(subject)
    training = len(found.split.train) if found.split is not None else round(0.8 * images)
    return DataReport(found.with_facts(_training_facts(coordinates, images, training, backbone)), subject)


def prepare_data(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, rois: Sequence[str] = (), say: Say = print
) -> Path:
    """Write a subject's trials as a folder of own data: averaged responses, noise ceilings, images, ROIs, splits.

    Raises
    ------
    DataError
        If the data are not trials, or cannot be read.
    UsageError
        If `out` exists.
    """
    trials = open_trials(path)
    folder = prepare_subject(trials.restrict(rois) if rois else trials, out, say=say)
    for note in trials.notes:
        say(f"note: {note}")
    return folder


def write_data_page(report: DataReport, file: Path, *, overwrite: bool = False) -> Path:
    """Write what was found as one HTML file, with example images and maps of noise ceilings and ROIs.

    Raises
    ------
    UsageError
        If the file exists, and `overwrite` is false.
    DataError
        If the data are trials that have not been prepared.
    """
    if report.subject is None:
        raise DataError("a page shows images and maps of prepared data: run brainkit data prepare first, or train")
    if file.exists() and not overwrite:
        raise UsageError(f"{file}: exists already; give another --out, or --overwrite")
    from brainkit.page.document import render

    found = report.inspection
    values = {
        "kind": "brainkit data",
        "title": found.title,
        "lead": f"{found.facts[0][1]}: {len(report.subject):,} images, {len(report.subject.vertices):,} vertices.",
        "note": report.subject.note,
        "cards": [],
        "sections": _sections(found, report.subject),
        "footer": f"Made with brainkit {__version__}.",
    }
    page = render("report.html.j2", values)
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file


def _training_facts(
    coordinates: np.ndarray, images: int, training_images: int, backbone: str | None
) -> list[tuple[str, str]]:
    if importlib.util.find_spec("torch") is None:
        return [("training", "not estimated: install brainkit[train]")]
    from brainkit.runs.training_estimate import estimate_training

    settings = Config().replace((f"backbone.name={backbone or _DEFAULT_BACKBONE}",))
    found = estimate_training(coordinates, images, training_images, settings)
    fits = "" if found.memory < found.free else "; WARNING: more than is free, choose ROIs or a smaller network"
    return [
        (
            "training",
            f"{found.backbone} on {found.device}: {format_bytes(found.memory)} of memory "
            f"({format_bytes(found.free)} free), {format_bytes(found.disk)} of disk for tokens{fits}",
        ),
        (
            "",
            f"about {duration(found.extraction)} for tokens, once, and {duration(found.training)} for "
            f"{settings.train.epochs} epochs, as this machine is now",
        ),
    ]


def _sections(found: Inspection, subject: Subject) -> list[Section]:
    from brainkit.page import blocks
    from brainkit.page.blocks import Section

    sections = [Section("data", "Data", [blocks.facts((name or " ", text) for name, text in found.facts)])]
    if found.problems:
        sections.append(Section("problems", "What to look at", [blocks.text(problem) for problem in found.problems]))
    sections.append(Section("images", "Images", [_examples(subject)]))
    maps = _maps(subject)
    if maps is not None:
        from brainkit.runs.report_figures import MapPictures

        pictures = MapPictures(maps)
        shown = [blocks.figure(pictures.source(each), f"Map: {each.title}") for each in maps.maps]
        sections.append(Section("maps", "Maps", shown))
    tables = [
        block for table in found.tables for block in (blocks.heading(table.title), blocks.table(_without_bars(table)))
    ]
    sections.append(Section("numbers", "Numbers", tables))
    return sections


def _without_bars(table: Table) -> Table:
    """A histogram without the bars of characters, which are for a terminal."""
    if table.header[-1].strip():
        return table
    return replace(table, header=table.header[:-1], rows=tuple(row[:-1] for row in table.rows))


def _examples(subject: Subject) -> dict[str, object]:
    """Images from all over the data, on one sheet."""
    from brainkit.page import blocks

    rows = np.unique(np.linspace(0, len(subject) - 1, min(len(subject), _EXAMPLES)).astype(int)).tolist()
    height = -(-len(rows) // _COLUMNS) * _SIDE
    sheet = Image.new("RGB", (_COLUMNS * _SIDE, height), "white")
    for place, row in enumerate(rows):
        small = decode(subject.images[row]).convert("RGB")
        small.thumbnail((_SIDE - 4, _SIDE - 4))
        sheet.paste(small, (place % _COLUMNS * _SIDE, place // _COLUMNS * _SIDE))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=85)
    names = f"{subject.names[rows[0]]} to {subject.names[rows[-1]]}"
    return blocks.figure(
        data_uri(buffer.getvalue()), f"{len(rows)} images", f"{len(rows)} of {len(subject):,} images: {names}"
    )


def _maps(subject: Subject) -> MapSet | None:
    """Maps of noise ceilings and ROIs; None where no surface or volume is known."""
    from brainkit.maps import definitions
    from brainkit.maps.brain_map import MapSet

    maps: list[BrainMap] = []
    if subject.noise_ceiling is not None:
        maps.append(definitions.noise_ceiling(subject.noise_ceiling))
    if len(subject.rois):
        maps.append(definitions.rois(subject.rois))
    drawn = MapSet(subject.name, subject.vertices, subject.rois, tuple(maps), note=subject.note, volume=subject.volume)
    return drawn if maps and drawn.is_drawable else None
