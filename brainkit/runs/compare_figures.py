"""The figures of `brainkit compare`, for its folder and for the report."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.vertices import CUSTOM
from brainkit.evaluation.compare import Summary
from brainkit.evaluation.hierarchy import layers_by_roi
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.maps.brain_map import MapSet
from brainkit.maps.chart import Chart
from brainkit.maps.figure import MapFigure
from brainkit.maps.projected import on_surface
from brainkit.maps.style import FORMATS, Style
from brainkit.maps.view import plainest_shape
from brainkit.runs.compare import RunComparison, SubjectResult, headline_measure
from brainkit.runs.compare_tables import MEASURES, leaderboard
from brainkit.runs.folder import read_volume
from brainkit.utils.file_names import file_stems
from brainkit.utils.text import plural

_LONGEST = 30  # groups of vertices in a chart
_MOST_MODELS = 8  # in a chart by group: as many as there are colours


def comparison_figures(
    result: RunComparison, surface: CorticalSurface | None = None
) -> Iterator[tuple[str, Chart | MapFigure]]:
    """The figures of a comparison, each with its file's name without the suffix, below the folder of the results.

    Parameters
    ----------
    result : RunComparison
    surface : CorticalSurface, optional
        Of the subject's own: maps are drawn on it, and voxels projected. Without it, voxels are drawn as projections.

    Raises
    ------
    MissingDependency
        If matplotlib is not installed.
    """
    from brainkit.maps import comparison_charts

    measure = headline_measure(result.accuracy(result.models[0].name))
    about: dict[str, Any] = {"measure": MEASURES[measure], "note": _note(result)}
    if result.settings.leaderboard:
        rows = [
            (
                row["model"],
                {"value": row[measure], "low": row[f"{measure}_low"], "high": row[f"{measure}_high"]},
                None if row["rank"] == 1 else _to_best(row),
            )
            for row in leaderboard(result)
        ]
        detail = _detail(result, "filled: p < 0.05")
        yield "leaderboard", comparison_charts.leaderboard_chart(rows=rows, title="Leaderboard", detail=detail, **about)
    if len(result.models) <= _MOST_MODELS:
        yield "accuracy-by-roi", _accuracy_by_roi(result, measure, about)
    for name, found in result.subjects.items():
        of_subject = "" if result.single is not None else f"{name}: "
        start = "" if result.single is not None else f"{subject_folder(name, result)}/"
        for figure_name, figure in _subject_figures(result, found, of_subject, surface):
            yield f"{start}{figure_name}", figure


def _accuracy_by_roi(result: RunComparison, measure: str, about: dict[str, Any]) -> Chart:
    """Accuracy of all models, and the differences of the first model (of a leaderboard, the best) from the others."""
    from brainkit.maps import comparison_charts

    first = result.models[0].name
    place = 1 if result.settings.leaderboard else 0
    pairs = [pair for pair in result.pairs if pair[place] == first]
    other = pairs[0][1 - place] if len(pairs) == 1 else "each other model"
    return comparison_charts.group_chart(
        accuracy={model.name: _points(result.accuracy(model.name), measure, "mean") for model in result.models},
        differences={
            pair[1 - place]: _points(result.pair(pair), measure, "difference", -1 if place else 1) for pair in pairs
        },
        difference=f"{first} minus {other}",
        title=f"Accuracy and differences of {plural(len(result.models), 'model')}",
        detail=_detail(result, f"filled: {'q' if result.single is not None else 'p'} < 0.05"),
        **about,
    )


def _subject_figures(
    result: RunComparison, found: SubjectResult, start: str, surface: CorticalSurface | None
) -> Iterator[tuple[str, Chart | MapFigure]]:
    from brainkit.maps import comparison_charts

    note = found.shared.note
    if found.hierarchy:
        level = f"{100 * result.settings.level:g} %"
        over = any(each["interval_over"] for each in found.hierarchy.values())
        parts = [f"bars: {level} intervals over runs"] if over else []
        parts += [f"grey: {level} of the same map rotated on the sphere (spin test)"] if found.no_spin is None else []
        title = f"{start}preferred depth along the cortex" if start else "Preferred depth along the cortex"
        yield (
            "hierarchy",
            comparison_charts.hierarchy_chart(
                hierarchies=found.hierarchy, title=title, detail="; ".join(parts), note=note
            ),
        )
    groups = vertex_groups(found.shared.vertices, found.shared.rois)
    groups = {name: members for name, members in groups.items() if len(members)}
    weights = {model.name: mean_layer_weights(result, found, model.name) for model in result.models}
    shares = {name: layers_by_roi(each, groups) for name, (each, _) in weights.items() if each is not None}
    if shares and groups:
        layers = {name: weights[name][1] for name in shares}
        title = f"{start}mean layer weights by ROI" if start else "Mean layer weights by ROI"
        yield (
            "layers-by-roi",
            comparison_charts.layers_by_roi_chart(
                shares=shares, layers=layers, rois=list(groups), title=title, note=note
            ),
        )
    yield from _difference_maps(result, found, surface)


def _difference_maps(
    result: RunComparison, found: SubjectResult, surface: CorticalSurface | None
) -> Iterator[tuple[str, MapFigure]]:
    """None if there is nothing to draw them on."""
    from brainkit.maps.definitions import difference
    from brainkit.maps.limits import same_limits

    shared = found.shared
    run = next(model.runs[shared.subject][0].run for model in result.models if shared.subject in model.runs)
    volume = read_volume(run / "volume.npz")
    on_average = shared.vertices.space != CUSTOM and importlib.util.find_spec("nilearn") is not None
    if not on_average and volume is None and surface is None:
        return
    drawn = [
        difference(each.difference["r"], each.q, names=pair, images=each.n_images) for pair, each in found.pairs.items()
    ]
    several = file_stems(f"difference-{'-'.join(pair)}" for pair in found.pairs)
    names = several if len(found.pairs) > 1 else ["difference"]
    maps = MapSet("", shared.vertices, shared.rois, tuple(same_limits(drawn)), shared.note, volume)
    maps = maps if surface is None else on_surface(maps, surface)
    style = Style(view=plainest_shape(surface))
    for name, brain_map in zip(names, maps.maps, strict=True):
        yield name, MapFigure(maps, brain_map, style, FORMATS["png"])


def mean_layer_weights(
    result: RunComparison, found: SubjectResult, name: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Mean layer weights (V, L) of a model's runs, and the layers; None where it has none."""
    model = next(each for each in result.models if each.name == name)
    subject = found.shared.subject
    selectors = model.selectors(subject) if subject in model.runs else []
    if not selectors:
        return None, ()
    return np.mean([each.layer_weights for each in selectors], axis=0), selectors[0].layers


def subject_folder(subject: str, result: RunComparison) -> str:
    """The folder of a subject's files in that of the results: itself if there is one subject."""
    if result.single is not None:
        return "."
    return dict(zip(result.subjects, file_stems(result.subjects), strict=True))[subject]


def _points(summary: Summary, measure: str, value: str, sign: int = 1) -> dict[str, dict[str, Any]]:
    """Points of a chart, of the groups that have vertices: of ``mean``, or of ``difference`` times `sign`."""
    points = {}
    start = "" if value == "difference" else "mean_"
    for group, measures in list(summary.items())[:_LONGEST]:
        line = measures[measure]
        if line["n"]:
            ends = [line[f"{start}{end}"] for end in ("low", "high")[::sign]]
            known = [None if each is None else sign * each for each in (line[value], *ends)]
            points[group] = dict(zip(("value", "low", "high"), known, strict=True))
            # Over subjects there is no q.
            points[group] |= {"q": line.get("q", line["p"])} if value == "difference" else {}
    return points


def _to_best(row: dict[str, Any]) -> dict[str, Any]:
    keys = {"value": "difference", "low": "low", "high": "high", "p": "p"}
    return {key: row[f"{name}_to_best"] for key, name in keys.items()}


def _note(result: RunComparison) -> str | None:
    return "; ".join(dict.fromkeys(each.shared.note for each in result.subjects.values() if each.shared.note)) or None


def _detail(result: RunComparison, filled: str) -> str:
    if result.single is None:
        return f"random effects over {plural(len(result.subjects), 'subject')}; {filled}"
    comparison = next(iter(result.single.pairs.values()))
    stimuli = plural(comparison.n_groups, "stimulus", "stimuli")
    level = f"{100 * result.settings.level:g} %"
    return f"{plural(comparison.n_images, 'test image')} of {stimuli}; bars: {level} intervals over stimuli; {filled}"
