"""What `brainkit compare` writes: JSON, CSV, arrays, figures."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.cortex.vertices import CUSTOM
from brainkit.errors import DataError
from brainkit.evaluation.compare import Summary
from brainkit.evaluation.hierarchy import layers_by_roi
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.images import content_hash
from brainkit.metrics.depth import relative_depth
from brainkit.runs.compare import RunComparison, Settings, SubjectResult, headline_measure
from brainkit.runs.compare_tables import MEASURES, leaderboard
from brainkit.runs.compared import OpenedRun
from brainkit.runs.predictions import FILE
from brainkit.utils.file_names import file_stem, file_stems
from brainkit.utils.files import atomic_write, check_folder, check_new, create_folder, write_json
from brainkit.utils.text import plural

_LONGEST = 30  # groups of vertices in a chart
_MOST_MODELS = 8  # in a chart by group: as many as there are colours


def check_output(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder of the results, if it can be made: checked before any work is done.

    Raises
    ------
    UsageError
        If it exists, and must not be overwritten.
    DataError
        If it is a file, its folder does not exist, or nothing can be written into it.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the results, found a file")
    if folder.is_dir() and any(folder.iterdir()):
        check_new(folder, overwrite)
    if not folder.resolve().parent.is_dir():
        raise DataError(f"{folder}: its folder {folder.parent} does not exist; create it first")
    return check_folder(folder)


def write_comparison(result: RunComparison, folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``comparison.csv``, ``comparison.npz`` and figures; of a leaderboard also its CSV.

    Arrays and maps of several subjects are in a folder for each.

    Returns
    -------
    list of Path
        The files.
    """
    create_folder(folder)
    files = [folder / "comparison.json", folder / "comparison.csv"]
    write_json(files[0], to_json(result))
    _write_csv(files[1], ("a", "b", "group", "measure", "difference", "low", "high", "p", "q", "n"), _rows(result))
    if result.settings.leaderboard:
        files.append(folder / "leaderboard.csv")
        rows = leaderboard(result)
        _write_csv(files[-1], tuple(rows[0]), [tuple(row.values()) for row in rows])
    for name, found in result.subjects.items():
        place = create_folder(_folder_of(name, result, folder))
        files.append(place / "comparison.npz")
        _write_arrays(files[-1], result, found)
    if importlib.util.find_spec("matplotlib") is not None:
        files += _draw(result, folder)
    return files


def _folder_of(subject: str, result: RunComparison, folder: Path) -> Path:
    """The folder of a subject's files; that of the results if there is one subject."""
    if result.single is not None:
        return folder
    return folder / dict(zip(result.subjects, file_stems(result.subjects), strict=True))[subject]


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
        runs = [_provenance(run) for runs in model.runs.values() for run in runs]
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
            "command": _command(result),
            "brainkit": __version__,
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy")},
        },
    }


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
    from brainkit.maps import comparison_charts

    figures = []
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
        path = folder / "leaderboard.png"
        detail = _detail(result, "filled: p < 0.05")
        figures.append(comparison_charts.draw_leaderboard(path, rows=rows, title="Leaderboard", detail=detail, **about))
    if len(result.models) <= _MOST_MODELS:
        figures.append(_draw_by_group(result, folder / "accuracy-by-roi.png", measure, about))
    for name, found in result.subjects.items():
        of_subject = "" if result.single is not None else f"{name}: "
        figures += _draw_subject(result, found, _folder_of(name, result, folder), of_subject)
    return figures


def _draw_by_group(result: RunComparison, path: Path, measure: str, about: dict[str, Any]) -> Path:
    """Accuracy of all models, and the differences of the first model (of a leaderboard, the best) from the others."""
    from brainkit.maps import comparison_charts

    first = result.models[0].name
    place = 1 if result.settings.leaderboard else 0
    pairs = [pair for pair in result.pairs if pair[place] == first]
    other = pairs[0][1 - place] if len(pairs) == 1 else "each other model"
    return comparison_charts.draw_by_group(
        path,
        accuracy={model.name: _points(result.accuracy(model.name), measure, "mean") for model in result.models},
        differences={
            pair[1 - place]: _points(result.pair(pair), measure, "difference", -1 if place else 1) for pair in pairs
        },
        difference=f"{first} minus {other}",
        title=f"Accuracy and differences of {plural(len(result.models), 'model')}",
        detail=_detail(result, f"filled: {'q' if result.single is not None else 'p'} < 0.05"),
        **about,
    )


def _draw_subject(result: RunComparison, found: SubjectResult, folder: Path, start: str) -> list[Path]:
    from brainkit.maps import comparison_charts
    from brainkit.maps.brain_map import MapSet
    from brainkit.maps.definitions import difference
    from brainkit.maps.draw import draw_maps
    from brainkit.maps.limits import same_limits

    figures = []
    note = found.shared.note
    if found.hierarchy:
        path = folder / "hierarchy.png"
        level = f"{100 * result.settings.level:g} %"
        over = any(each["interval_over"] for each in found.hierarchy.values())
        parts = [f"bars: {level} intervals over runs"] if over else []
        parts += [f"grey: {level} of maps as smooth, rotated on the sphere"] if found.no_spin is None else []
        title = f"{start}preferred depth along the cortex" if start else "Preferred depth along the cortex"
        figures.append(
            comparison_charts.draw_hierarchy(
                path, hierarchies=found.hierarchy, title=title, detail="; ".join(parts), note=note
            )
        )
    groups = vertex_groups(found.shared.vertices, found.shared.rois)
    groups = {name: members for name, members in groups.items() if len(members)}
    weights = {model.name: _layer_weights(result, found, model.name) for model in result.models}
    shares = {name: layers_by_roi(each, groups) for name, (each, _) in weights.items() if each is not None}
    if shares and groups:
        layers = {name: weights[name][1] for name in shares}
        path = folder / "layers-by-roi.png"
        title = f"{start}mean layer weights by ROI" if start else "Mean layer weights by ROI"
        figures.append(
            comparison_charts.draw_layers_by_roi(
                path, shares=shares, layers=layers, rois=list(groups), title=title, note=note
            )
        )
    if found.shared.vertices.space != CUSTOM and importlib.util.find_spec("nilearn") is not None:
        drawn = [
            difference(each.difference["r"], each.q, names=pair, images=each.n_images)
            for pair, each in found.pairs.items()
        ]
        names = [
            "difference" if len(found.pairs) == 1 else f"difference-{file_stem('-'.join(pair))}" for pair in found.pairs
        ]
        named = tuple(replace(each, name=name) for each, name in zip(same_limits(drawn), names, strict=True))
        figures += draw_maps(folder, MapSet("", found.shared.vertices, found.shared.rois, named, note))
    return figures


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


def _command(result: RunComparison) -> str:
    """The call, without paths, dates and defaults."""
    words = ["brainkit", "compare"]
    for model in result.models:
        words += [f"{model.name}={run.folder.resolve().name}" for runs in model.runs.values() for run in runs]
    defaults = asdict(Settings())
    for name, value in asdict(result.settings).items():
        if value != defaults[name]:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _provenance(run: OpenedRun) -> dict[str, Any]:
    summary, checkpoint = run.summary, run.folder / "checkpoints" / "best.ckpt"
    backbone, data = summary["backbone"], summary["data"]
    own = {
        "run": run.folder.resolve().name,
        "subject": data["name"],
        "data_hash": data["hash"],
        "predictions": content_hash(run.folder / FILE),
    }
    if run.is_baseline:  # its network, seed and settings may be others than those of the run
        return own | {
            "baseline_of": run.run.resolve().name,
            "split": summary["split"],
            "brainkit": summary["brainkit"],
        }
    return own | {
        "encoder": content_hash(checkpoint) if checkpoint.is_file() else None,
        "backbone": backbone["name"],
        "weights_hash": backbone["weights_hash"],
        "pretrained": backbone["pretrained"],
        "split": summary["split"],
        "seed": summary["seed"],
        "brainkit": summary["brainkit"],
    }
