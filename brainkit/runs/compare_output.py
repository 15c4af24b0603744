"""What `brainkit compare` writes and prints: JSON, CSV, arrays, figures, tables."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import DataError, UsageError
from brainkit.evaluation.compare import ALL, Summary
from brainkit.evaluation.hierarchy import layers_by_roi, relative_depth
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.runs.compare import LINES, RunComparison, SubjectResult, headline_measure
from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.table import Table, number
from brainkit.utils.text import plural

_LONGEST = 30  # groups of vertices in a chart
_MEASURES = {"explained": "r² / noise ceiling", "r": "r", "R2": "R²"}


def check_output(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder of the results, if it can be made: checked before any work is done.

    Raises
    ------
    UsageError
        If it exists, and must not be overwritten.
    DataError
        If it is a file, or its folder does not exist.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the results, found a file")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder}: exists already; give --overwrite, or name another --out")
    if not folder.resolve().parent.is_dir():
        raise DataError(f"{folder}: its folder {folder.parent} does not exist; create it first")
    return folder


def write_comparison(result: RunComparison, folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``comparison.csv``, ``comparison.npz`` and figures; of a leaderboard also its CSV.

    Arrays and maps of several subjects are in a folder for each.

    Returns
    -------
    list of Path
        The files.
    """
    folder.mkdir(exist_ok=True)
    files = [folder / "comparison.json", folder / "comparison.csv"]
    write_json(files[0], to_json(result))
    _write_csv(files[1], ("a", "b", "group", "measure", "difference", "low", "high", "p", "q", "n"), _rows(result))
    if result.settings.leaderboard:
        files.append(folder / "leaderboard.csv")
        rows = leaderboard(result)
        _write_csv(files[-1], tuple(rows[0]), [tuple(row.values()) for row in rows])
    for name, found in result.subjects.items():
        place = folder if result.single is not None else folder / _file_name(name)
        place.mkdir(exist_ok=True)
        files.append(place / "comparison.npz")
        _write_arrays(files[-1], result, found)
    if importlib.util.find_spec("matplotlib") is not None:
        files += _draw(result, folder)
    return files


def to_json(result: RunComparison) -> dict[str, Any]:
    """The comparison as ``comparison.json`` holds it.

    Returns
    -------
    dict
        ``pairs``: for each pair of models ``a``, ``b`` and ``groups`` -> name -> measure -> ``difference``, ``low``,
        ``high``, ``p``, ...; with several subjects these are over subjects, and ``subjects`` has those of each.
        ``models`` -> name -> ``accuracy``, ``hierarchy``, ``runs``; ``subjects`` -> name -> its images and vertices;
        ``settings``, ``provenance``.
    """
    pairs = []
    for pair in result.pairs:
        entry: dict[str, Any] = {"a": pair[0], "b": pair[1], "groups": result.pair(pair)}
        if result.single is None:
            entry["subjects"] = {
                name: found.pairs[pair].groups for name, found in result.subjects.items() if pair in found.pairs
            }
        pairs.append(entry)
    models = {}
    for model in result.models:
        runs = [_provenance(run.folder, run.summary) for runs in model.runs.values() for run in runs]
        found = {"accuracy": result.accuracy(model.name), "hierarchy": result.hierarchy(model.name)}
        if result.single is None:
            found["subjects"] = {
                name: {"accuracy": each.accuracy[model.name], "hierarchy": each.hierarchy.get(model.name)}
                for name, each in result.subjects.items()
                if model.name in each.accuracy
            }
        models[model.name] = found | {"runs": runs}
    return {
        "schema": 1,
        "pairs": pairs,
        "models": models,
        "subjects": {name: _subject_facts(found) for name, found in result.subjects.items()},
        "settings": asdict(result.settings),
        "provenance": {
            "command": "brainkit compare",
            "brainkit": __version__,
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy")},
        },
    }


def leaderboard(result: RunComparison) -> list[dict[str, Any]]:
    """One row per model, best first: accuracy of all vertices, its difference from the best, slope of depth."""
    rows: list[dict[str, Any]] = []
    for rank, model in enumerate(result.models, 1):
        accuracy = result.accuracy(model.name)[ALL]
        row: dict[str, Any] = {"rank": rank, "model": model.name, "subjects": len(model.runs)}
        row["runs"] = sum(map(len, model.runs.values()))
        for measure, values in accuracy.items():
            row |= {measure: values["median"], f"{measure}_low": values["low"], f"{measure}_high": values["high"]}
        pair = next((each for each in result.pairs if each[0] == model.name), None)
        difference = {} if pair is None else result.pair(pair)[ALL][headline_measure(result.accuracy(model.name))]
        row |= {f"{key}_to_best": difference.get(key) for key in ("difference", "low", "high", "p")}
        hierarchy = result.hierarchy(model.name) or {}
        for line in LINES:
            row |= {f"depth_{line}": hierarchy.get(line, {}).get("value")}
        row["depth_slope_low"], row["depth_slope_high"], row["depth_p"] = (
            hierarchy.get("slope", {}).get(key) for key in ("low", "high", "p")
        )
        rows.append(row)
    return rows


def tables(result: RunComparison) -> list[Table]:
    """The comparison for people."""
    if result.settings.leaderboard:
        return [_leaderboard_table(result), *_hierarchy_table(result)]
    return [*(_pair_table(result, pair) for pair in result.pairs), *_hierarchy_table(result)]


def _pair_table(result: RunComparison, pair: tuple[str, str]) -> Table:
    summary = result.pair(pair)
    a, b = (result.accuracy(name) for name in pair)
    measure = headline_measure(a)
    single = result.single
    rows = []
    for group, measures in summary.items():
        line = measures[measure]
        if line["n"]:
            accuracy = [number(each[group][measure]["median"], ".3f") for each in (a, b)]
            difference, p, q = number(line["difference"], "+.4f"), number(line["p"], ".3g"), line.get("q")
            cells = (group, str(line["n"]), *accuracy, difference, _interval(line), p)
            rows.append((*cells, number(q, ".3g")) if single is not None else cells)
    over = "vertices" if single is not None else "subjects"
    header = ("", over, pair[0], pair[1], "difference", f"{100 * result.settings.level:g} %", "p")
    notes = []
    if single is None:
        notes.append(
            "random effects over subjects: mean, t interval, t test; comparison.json has those of each subject"
        )
    else:
        found = single.pairs[pair]
        stimuli = f"{plural(found.n_groups, 'stimulus', 'stimuli')}"
        notes.append(
            f"{plural(found.n_images, 'test image')} of {stimuli}; p: {found.exchanges:,} exchanges of stimuli"
        )
        if found.method is None:
            notes.append("no intervals: 10 stimuli are needed")
        notes.append(f"vertices that differ at q < 0.05: {_differing(found.difference['r'], found.q, pair)}")
    title = f"{pair[0]} - {pair[1]}: {_MEASURES[measure]} (medians over vertices)"
    return Table(title, header + (("q",) if single is not None else ()), tuple(rows), tuple(notes), bold=0)


def _leaderboard_table(result: RunComparison) -> Table:
    measure = headline_measure(result.accuracy(result.models[0].name))
    rows = []
    for row in leaderboard(result):
        line = {"low": row[f"{measure}_low"], "high": row[f"{measure}_high"]}
        to_best = {"low": row["low_to_best"], "high": row["high_to_best"]}
        difference = number(row["difference_to_best"], "+.4f"), _interval(to_best), number(row["p_to_best"], ".3g")
        rows.append((row["model"], str(row["subjects"]), number(row[measure], ".3f"), _interval(line), *difference))
    level = f"{100 * result.settings.level:g} %"
    header = ("", "subjects", _MEASURES[measure], level, "to the best", level, "p")
    return Table("leaderboard (medians over vertices)", header, tuple(rows))


def _hierarchy_table(result: RunComparison) -> list[Table]:
    found = {model.name: line for model in result.models if (line := result.hierarchy(model.name)) is not None}
    if not found:
        return []
    rows = []
    for name, line in found.items():
        cells = [name]
        for key in LINES:
            cells += [number(line[key]["value"], ".3f"), _interval(line[key], ".3f")]
        rows.append((*cells, number(line["slope"]["p"], ".3g")))
    order = next(each.order for each in result.subjects.values() if each.order is not None)
    notes = [each.no_spin for each in result.subjects.values() if each.no_spin is not None]
    notes = [f"no p: {notes[0]}"] if notes else []
    if result.single is not None:
        over = {line["interval_over"] for line in found.values()}
        if None in over:
            notes.append("intervals need several runs of a network: name them alike (NAME=RUN NAME=RUN2)")
        if "seeds" in over:
            notes.append("intervals are over seeds alone: the runs of a network had the same training images")
    level = f"{100 * result.settings.level:g} %"
    header = ("", "slope", level, "intercept", level, "r2", level, "p")
    return [Table(f"preferred depth (0 to 1) along {' < '.join(order.names)}", header, tuple(rows), tuple(notes))]


def _interval(line: dict[str, Any], form: str = ".4f") -> str:
    if line.get("low") is None or line.get("high") is None:
        return "-"
    return f"{line['low']:{form}} .. {line['high']:{form}}"


def _differing(difference: np.ndarray, q: np.ndarray, pair: tuple[str, str]) -> str:
    passing = q < 0.05
    better, worse = int((passing & (difference > 0)).sum()), int((passing & (difference < 0)).sum())
    return f"{better:,} better for {pair[0]}, {worse:,} better for {pair[1]}, of {int(np.isfinite(q).sum()):,}"


def _rows(result: RunComparison) -> Iterator[tuple[Any, ...]]:
    for a, b in result.pairs:
        for group, measures in result.pair((a, b)).items():
            for measure, line in measures.items():
                yield a, b, group, measure, *(line.get(key) for key in ("difference", "low", "high", "p", "q", "n"))


def _write_csv(path: Path, header: tuple[str, ...], rows: Any) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(header)
        for row in rows:
            table.writerow([f"{cell:.9g}" if isinstance(cell, float) else "" if cell is None else cell for cell in row])


def _write_arrays(path: Path, result: RunComparison, found: SubjectResult) -> None:
    """Arrays per vertex: of each pair (pairs, V), and of each model that has selectors (V,), and (L, R)."""
    shared = found.shared
    each = [comparison.arrays() for comparison in found.pairs.values()]
    arrays: dict[str, Any] = {name: np.stack([one[name] for one in each]) for name in each[0]}
    groups = vertex_groups(shared.vertices, shared.rois)
    arrays |= {
        "vertices": shared.vertices.ids,
        "space": np.array(shared.vertices.space),
        "rois": np.array(list(groups)),
    }
    arrays["pairs"] = np.array(list(found.pairs))
    for model in result.models:
        weights, layers = _layer_weights(result, found, model.name)
        if weights is not None:
            arrays[f"depth.{model.name}"] = relative_depth(weights).astype(np.float32)
            arrays[f"layers_by_roi.{model.name}"] = layers_by_roi(weights, groups).astype(np.float32)
            arrays[f"layers.{model.name}"] = np.array(layers)
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def _layer_weights(result: RunComparison, found: SubjectResult, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Mean layer weights (V, L) of a model's runs, and the layers; None where it has none."""
    model = next(each for each in result.models if each.name == name)
    subject = found.shared.subject
    selectors = model.selectors(subject) if subject in model.runs else []
    if not selectors:
        return None, ()
    return np.mean([each.layer_weights for each in selectors], axis=0), selectors[0].layers


def _draw(result: RunComparison, folder: Path) -> list[Path]:
    from brainkit.maps import charts

    figures = []
    measure = headline_measure(result.accuracy(result.models[0].name))
    about: dict[str, Any] = {"measure": _MEASURES[measure], "note": _note(result), "detail": _detail(result)}
    if result.settings.leaderboard:
        rows = [
            (
                row["model"],
                {"value": row[measure], "low": row[f"{measure}_low"], "high": row[f"{measure}_high"]},
                None if row["rank"] == 1 else _to_best(row),
            )
            for row in leaderboard(result)
        ]
        figures.append(charts.draw_leaderboard(folder / "leaderboard.png", rows=rows, title="Leaderboard", **about))
    else:
        accuracy = {model.name: _points(result.accuracy(model.name), measure, "median") for model in result.models}
        shown = (
            [pair for pair in result.pairs if pair[0] == result.models[0].name]
            if len(result.pairs) > 3
            else result.pairs
        )
        differences = {f"{a} - {b}": _points(result.pair((a, b)), measure, "difference", "q") for a, b in shown}
        path = folder / "accuracy-by-roi.png"
        title = f"Accuracy and differences of {plural(len(result.models), 'model')}"
        figures.append(charts.draw_by_group(path, accuracy=accuracy, differences=differences, title=title, **about))
    for name, found in result.subjects.items():
        place, of_subject = (folder, "") if result.single is not None else (folder / _file_name(name), f"{name}: ")
        figures += _draw_subject(result, found, place, of_subject)
    return figures


def _draw_subject(result: RunComparison, found: SubjectResult, folder: Path, start: str) -> list[Path]:
    from brainkit.maps import charts, draw

    figures = []
    note = found.shared.note
    if found.hierarchy:
        path = folder / "hierarchy.png"
        detail = (
            "bars: interval over runs; grey: maps as smooth, rotated on the sphere" if found.no_spin is None else ""
        )
        title = f"{start}preferred depth along the cortex"
        figures.append(charts.draw_hierarchy(path, hierarchies=found.hierarchy, title=title, detail=detail, note=note))
    groups = vertex_groups(found.shared.vertices, found.shared.rois)
    groups = {name: members for name, members in groups.items() if len(members)}
    weights = {model.name: _layer_weights(result, found, model.name) for model in result.models}
    shares = {name: layers_by_roi(each, groups) for name, (each, _) in weights.items() if each is not None}
    if shares and groups:
        layers = {name: weights[name][1] for name in shares}
        path = folder / "layers-by-roi.png"
        title = f"{start}mean layer weights by ROI"
        figures.append(
            charts.draw_layers_by_roi(path, shares=shares, layers=layers, rois=list(groups), title=title, note=note)
        )
    if found.shared.vertices.space != CUSTOM and importlib.util.find_spec("nilearn") is not None:
        for pair, comparison in found.pairs.items():
            names = "difference.png" if len(found.pairs) == 1 else f"difference-{_file_name('-'.join(pair))}.png"
            figures.append(
                draw.draw_difference(
                    folder / names,
                    vertices=found.shared.vertices,
                    rois=found.shared.rois,
                    difference=comparison.difference["r"],
                    q=comparison.q,
                    names=pair,
                    images=comparison.n_images,
                    note=note,
                )
            )
    return figures


def _points(summary: Summary, measure: str, value: str, tested: str | None = None) -> dict[str, dict[str, Any]]:
    """Points of a chart, of the groups that have vertices."""
    points = {}
    for group, measures in list(summary.items())[:_LONGEST]:
        line = measures[measure]
        if line["n"]:
            points[group] = {"value": line[value], "low": line["low"], "high": line["high"]}
            # Over subjects there is no q.
            points[group] |= {} if tested is None else {"q": line.get(tested, line["p"])}
    return points


def _to_best(row: dict[str, Any]) -> dict[str, Any]:
    keys = {"value": "difference", "low": "low", "high": "high", "p": "p"}
    return {key: row[f"{name}_to_best"] for key, name in keys.items()}


def _note(result: RunComparison) -> str | None:
    return "; ".join(dict.fromkeys(each.shared.note for each in result.subjects.values() if each.shared.note)) or None


def _detail(result: RunComparison) -> str:
    if result.single is None:
        return f"random effects over {plural(len(result.subjects), 'subject')}"
    comparison = next(iter(result.single.pairs.values()))
    stimuli = plural(comparison.n_groups, "stimulus", "stimuli")
    level = f"{100 * result.settings.level:g} %"
    return f"{plural(comparison.n_images, 'test image')} of {stimuli}; bars: {level} intervals, bootstrap over stimuli"


def _subject_facts(found: SubjectResult) -> dict[str, Any]:
    shared, comparison = found.shared, next(iter(found.pairs.values()))
    return {
        "images": comparison.n_images,
        "stimuli": comparison.n_groups,
        "test_images": shared.images,
        "vertices": len(shared.vertices),
        "space": shared.vertices.space,
        "exchanges": comparison.exchanges,
        "interval_method": comparison.method,
        "areas": None if found.order is None else list(found.order.names),
        "no_spin_test": found.no_spin,
    }


def _provenance(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    backbone, data = summary["backbone"], summary["data"]
    return {
        "run": folder.name,
        "subject": data["name"],
        "data_hash": data["hash"],
        "backbone": backbone["name"],
        "weights_hash": backbone["weights_hash"],
        "pretrained": backbone["pretrained"],
        "split": summary["split"],
        "seed": summary["seed"],
        "brainkit": summary["brainkit"],
    }


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)
