"""The report of a run, or of several compared: one HTML file. It reads from top to bottom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.surface_files import read_surface
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.evaluation.scores import score_table
from brainkit.maps import report_charts
from brainkit.maps.brain_map import MapSet
from brainkit.page import blocks
from brainkit.page.blocks import Block, Section
from brainkit.page.document import render
from brainkit.runs.folder import finished_run, run_folders
from brainkit.runs.map_sets import run_map_set
from brainkit.runs.report_about import (
    baseline_blocks,
    cite_blocks,
    columns_in_words,
    configuration_blocks,
    data_facts,
    reproduce_blocks,
    training_blocks,
)
from brainkit.runs.report_comparison import comparison_sections
from brainkit.runs.report_figures import MapPictures, figure_source
from brainkit.runs.report_images import TestImages
from brainkit.runs.report_maps import channel_blocks, selector_blocks, uncertainty_blocks
from brainkit.runs.report_truth import truth_blocks
from brainkit.runs.report_vertices import vertex_blocks
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import atomic_write, check_new
from brainkit.utils.progress import Say
from brainkit.utils.table import number
from brainkit.utils.text import plural


def write_report(
    runs: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "report.html",
    *,
    data: str | os.PathLike[str] | None = None,
    surface: str | os.PathLike[str] | None = None,
    cortex: bool = True,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Write the report of a finished run, or of several compared, as one HTML file.

    Parameters
    ----------
    runs : sequence of path-like
        Run folders; by default the newest finished run. Of several, what `brainkit compare` finds is reported.
    out : path-like
        The file; its folder must exist.
    data : path-like, optional
        Where the runs' data are now, if they have moved.
    surface : path-like, optional
        Folder of the subject's own surface, see :func:`brainkit.cortex.surface_files.read_surface`: maps are drawn on
        it, and voxels projected. Without it, voxels are drawn as projections of their volume.
    cortex : bool
        Whether the report has a cortex to turn (not of voxels without a surface): on fsaverage5 2 MB of the file, on
        fsaverage up to 15 MB.
    overwrite : bool
        Whether `out` may exist.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If `out` exists, or a surface does not fit or is given for several subjects.
    DataError
        If a run is not finished, the folder of `out` is missing, or a file is damaged.
    MissingDependency
        If jinja2 or matplotlib is not installed.
    """
    file = Path(out)
    for run in runs:
        if not Path(run).exists():
            raise DataError(f"{run}: expected a run folder, found nothing")
    check_new(file, overwrite)
    if file.is_dir() or not file.resolve().parent.is_dir():
        raise DataError(f"{file}: expected the name of an HTML file in a folder that exists")
    if data is not None and not Path(data).exists():
        raise DataError(f"{data}: expected the folder of the data, found none")
    own = None if surface is None else read_surface(surface)
    if len(runs) > 1:
        values = _comparison_values(runs, data, own, say)
    else:
        values = _run_values(Path(runs[0]) if runs else None, data, own, cortex, say)
    page = render("report.html.j2", values)
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return file


def _run_values(
    run: Path | None, data: str | os.PathLike[str] | None, surface: CorticalSurface | None, cortex: bool, say: Say
) -> dict[str, Any]:
    folders = run_folders(run)
    several = len(folders) > 1
    if several and surface is not None:
        raise UsageError(f"report: a surface is one subject's; name one of {', '.join(map(str, folders))}")
    sections: list[Section] = []
    for folder in folders:
        say(f"report: {folder}")
        _, summary = finished_run(folder)
        found = _subject_sections(folder, summary, data, surface, cortex and folder == folders[0])
        start = f"{summary['data']['name']}-" if several else ""
        title = f"{summary['data']['name']}: " if several else ""
        sections += [Section(start + each.id, title + each.title, each.blocks) for each in found]
    _, summary = finished_run(folders[0])
    names = ", ".join(finished_run(folder)[1]["data"]["name"] for folder in folders)
    return {
        "kind": "brainkit report",
        "title": f"{summary['backbone']['name']} on {names}",
        "lead": _lead(folders[0], summary),
        "note": summary["note"],
        "cards": _cards(summary) if not several and _is_scored(summary) else [],
        "sections": sections,
        "footer": f"Made with brainkit {__version__} from the run {folders[0].resolve().name}.",
    }


def _comparison_values(
    runs: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | None,
    surface: CorticalSurface | None,
    say: Say,
) -> dict[str, Any]:
    found = comparison_sections(runs, data, surface, say)
    return {
        "kind": "brainkit report",
        "title": found.title,
        "lead": found.lead,
        "note": found.note,
        "cards": [],
        "sections": found.sections,
        "footer": f"Made with brainkit {__version__}.",
    }


def _subject_sections(
    folder: Path,
    summary: dict[str, Any],
    data: str | os.PathLike[str] | None,
    surface: CorticalSurface | None,
    cortex: bool,
) -> list[Section]:
    pictures = MapPictures(run_map_set(folder), surface)
    scored = _is_scored(summary) and (folder / "scores.npz").is_file()
    images, missing = _test_images(folder, pictures.maps, data) if scored else (None, "")
    told: list[Block] = [blocks.text(missing)] if missing else []
    sections = [
        Section("accuracy", "How accurate is it?", _accuracy(folder, summary, pictures) if scored else []),
        Section("maps", "What do vertices read?", selector_blocks(folder, pictures, cortex)),
        Section("channels", "Which channels do they share?", channel_blocks(folder, pictures, images)),
        Section("uncertainty", "How sure are the maps?", uncertainty_blocks(folder, pictures)),
        Section(
            "truth",
            "Planted truth beside what was found",
            truth_blocks(folder, summary, pictures, data) if scored else [],
        ),
        Section("baselines", "Baselines", baseline_blocks(folder)),
        Section(
            "vertices",
            "Best and worst vertices",
            told if images is None else vertex_blocks(folder, pictures.maps, images),
        ),
        Section("training", "Training", training_blocks(folder, summary)),
        Section("data", "What was trained on what", [data_facts(folder, summary), *configuration_blocks(folder)]),
        Section("reproduce", "Reproduce it", reproduce_blocks(folder, summary)),
        Section("cite", "How to cite", cite_blocks(summary)),
    ]
    return [section for section in sections if section.blocks]


def _test_images(folder: Path, maps: MapSet, data: str | os.PathLike[str] | None) -> tuple[TestImages | None, str]:
    """The test images; else None, and a sentence that says what is missing."""
    try:
        return TestImages.open(folder, maps.vertices, data), ""
    except BrainkitError as error:
        return None, f"Not shown: {str(error).rstrip('.')}."


def _is_scored(summary: dict[str, Any]) -> bool:
    """Whether there are scores: weights of others, imported without data, have none."""
    return "scores" in summary and summary["scores"]["all"]["r"] is not None


def _lead(folder: Path, summary: dict[str, Any]) -> str:
    kind = "random weights" if summary["backbone"]["pretrained"] is False else "frozen"
    data = summary["data"]
    return (
        f"An encoding model that predicts the responses of {columns_in_words(folder, summary)} of {data['name']} to an "
        f"image, from {plural(len(summary['backbone']['layers']), 'layer')} of {summary['backbone']['name']} ({kind}). "
        "Every vertex picks its own layer, location, scale and channels."
    )


def _cards(summary: dict[str, Any]) -> list[dict[str, str]]:
    scores = summary["scores"]
    every = scores["all"]
    cards = [{"value": number(every["r"], ".2f"), "label": f"median r on test images{_interval(every, 'r')}"}]
    if every["share"] is not None:
        label = f"of the noise ceiling explained, median{_interval(every, 'share')}"
        cards.append({"value": f"{100 * every['share']:.0f} %", "label": label})
    split = summary["split"]
    stimuli = "" if scores["stimuli"] is None else f" of {plural(scores['stimuli'], 'stimulus', 'stimuli')}"
    cards.append({"value": f"{split['test']:,}", "label": f"test images{stimuli}, kept apart from training"})
    if "train" in split:
        label = f"training images, {split['validation']:,} for validation"
        cards.append({"value": f"{split['train']:,}", "label": label})
    return cards


def _interval(row: dict[str, Any], name: str) -> str:
    found = row.get(f"{name}_interval")
    return "" if not found or found[0] is None else f", 95 % interval {found[0]:.2f} to {found[1]:.2f}"


def _accuracy(folder: Path, summary: dict[str, Any], pictures: MapPictures) -> list[Block]:
    scores = summary["scores"]
    named = {"all vertices": scores["all"], **{name: row for name, row in scores["rois"].items() if row["vertices"]}}
    points = {
        name: dict(zip(("value", "low", "high"), (row["r"], *(row.get("r_interval") or (None, None))), strict=True))
        for name, row in named.items()
    }
    ceiling = read_arrays(folder / "scores.npz", ("noise_ceiling",))["noise_ceiling"]
    members = {"all vertices": np.arange(len(ceiling)), **pictures.maps.rois}
    largest = {
        name: float(np.sqrt(np.nanmedian(ceiling[members[name]]))) for name in named if _known(ceiling, members[name])
    }
    source = figure_source(report_charts.accuracy_by_roi(points, largest, _interval_note(scores)))
    caption = "Median correlation of predicted and measured responses over each ROI's vertices."
    shown = [blocks.figure(source, "Accuracy by ROI", caption), blocks.table(score_table(scores))]
    return shown + pictures.figures("accuracy", "explained")


def _known(ceiling: np.ndarray, members: np.ndarray) -> bool:
    return bool(np.isfinite(ceiling[members]).any())


def _interval_note(scores: dict[str, Any]) -> str:
    if scores["stimuli"] is None or not scores["all"].get("r_interval"):
        return ""
    return f"bars: 95 % intervals over {plural(scores['stimuli'], 'stimulus', 'stimuli')}"
