"""What `brainkit compare` writes: JSON, CSV, arrays, figures."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.errors import DataError
from brainkit.evaluation.hierarchy import layers_by_roi
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.images import content_hash
from brainkit.metrics.depth import relative_depth
from brainkit.runs.compare import RunComparison, Settings, SubjectResult
from brainkit.runs.compare_figures import comparison_figures, mean_layer_weights, subject_folder
from brainkit.runs.compare_tables import leaderboard
from brainkit.runs.compared import OpenedRun
from brainkit.runs.predictions import FILE
from brainkit.utils.files import atomic_write, check_folder, check_new, create_folder, write_json


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
        place = create_folder(folder / subject_folder(name, result))
        files.append(place / "comparison.npz")
        _write_arrays(files[-1], result, found)
    if importlib.util.find_spec("matplotlib") is not None:
        files += [figure.write(folder / f"{name}.png") for name, figure in comparison_figures(result)]
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
        weights, layers = mean_layer_weights(result, found, model.name)
        if weights is not None:
            arrays[f"depth.{model.name}"] = relative_depth(weights).astype(np.float32)
            arrays[f"layers_by_roi.{model.name}"] = layers_by_roi(weights, groups).astype(np.float32)
            arrays[f"layers.{model.name}"] = np.array(layers)
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


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
