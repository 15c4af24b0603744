"""The sections of a report on several runs: what `brainkit compare` finds, with its figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.page import blocks
from brainkit.page.blocks import Block, Section
from brainkit.runs.compare import RunComparison, Settings, compare
from brainkit.runs.compare_figures import comparison_figures
from brainkit.runs.compare_tables import tables
from brainkit.runs.compared import OpenedRun
from brainkit.runs.map_sets import run_map_set
from brainkit.runs.report_figures import MapPictures, figure_source
from brainkit.utils.progress import Say
from brainkit.utils.text import plural

_MAPS = ("explained", "layer", "location", "scale")
# Start of a figure's name -> what it shows.
_CAPTIONS = {
    "accuracy-by-roi": "Accuracy by ROI, and differences between models.",
    "hierarchy": "Preferred depth along the cortex: does it rise from early to late areas?",
    "layers-by-roi": "Mean weight of each layer in each ROI.",
    "difference": "Difference in r: vertices whose difference may be chance are pale.",
}


@dataclass(frozen=True)
class Comparison:
    """A report's title, what it says first, and its sections."""

    title: str
    lead: str
    note: str | None
    sections: list[Section]


def comparison_sections(
    runs: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | None,
    surface: CorticalSurface | None,
    say: Say,
) -> Comparison:
    """Compare runs, and show what is found.

    Parameters
    ----------
    runs : sequence of path-like
        As for :func:`brainkit.runs.compare.compare`.
    data : path-like, optional
        Where the runs' data are now, if they have moved.
    surface : CorticalSurface, optional
        Of the subject's own, for the maps side by side.
    say : callable
        Called with each line of progress.
    """
    result = compare(
        [os.fspath(run) for run in runs], data=() if data is None else (data,), settings=Settings(), say=say
    )
    names = [model.name for model in result.models]
    subjects = ", ".join(result.subjects)
    sections = [
        Section("comparison", "Which is better?", _comparison(result, surface)),
        Section("side-by-side", "Maps side by side", _side_by_side(result, surface)),
        Section("runs", "What was compared", [blocks.facts(_runs(result))]),
    ]
    notes = dict.fromkeys(found.shared.note for found in result.subjects.values() if found.shared.note)
    return Comparison(
        title=" and ".join(names) if len(names) == 2 else f"{plural(len(names), 'model')} compared",
        lead=f"On the test images that they share, of {subjects}. Differences are first minus second.",
        note="; ".join(notes) or None,
        sections=[section for section in sections if section.blocks],
    )


def _comparison(result: RunComparison, surface: CorticalSurface | None) -> list[Block]:
    shown = [blocks.table(table) for table in tables(result)]
    for path, figure in comparison_figures(result, surface):
        name = path.rpartition("/")[2]
        caption = next((text for start, text in _CAPTIONS.items() if name.startswith(start)), "")
        shown.append(blocks.figure(figure_source(figure), caption or name, caption))
    return shown


def _side_by_side(result: RunComparison, surface: CorticalSurface | None) -> list[Block]:
    """The maps of each model's first run on the first subject, with the same limits."""
    subject = next(iter(result.subjects))
    drawn = {
        model.name: MapPictures(run_map_set(model.runs[subject][0].folder), surface)
        for model in result.models
        if subject in model.runs and model.selectors(subject)
    }
    drawn = {model: pictures for model, pictures in drawn.items() if pictures.possible}
    shown: list[Block] = []
    for name in _MAPS:
        having = {model: pictures for model, pictures in drawn.items() if name in pictures.maps.names}
        if not having:
            continue
        shown.append(blocks.heading(next(iter(having.values())).maps[name].title.capitalize()))
        sides = [(model, each.source(each.maps[name], small=True)) for model, each in having.items()]
        for left, right in zip(sides[::2], sides[1::2] + [("", "")] * (len(sides) % 2), strict=True):
            shown.append(blocks.pair(left, right) if right[1] else blocks.figure(left[1], left[0], left[0]))
    return shown


def _runs(result: RunComparison) -> list[tuple[str, str]]:
    return [
        (model.name, "; ".join(_run(run) for each in model.runs.values() for run in each)) for model in result.models
    ]


def _run(run: OpenedRun) -> str:
    """A run: its folder, its network, what it was trained on, its seed."""
    about = run.summary
    baseline = f", baseline of {run.run.name}" if run.is_baseline else ""
    return (
        f"run {run.folder.name}{baseline}: {about['backbone']['name']} on {run.subject}, "
        f"{plural(about['split']['train'], 'training image')}, seed {about['seed']}"
    )
