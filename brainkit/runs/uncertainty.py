"""How sure the maps of a run are: from its repeats on halves of the stimuli, or from other runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.cortex.vertices import Vertices
from brainkit.data.split import Split
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.metrics.depth import relative_depth
from brainkit.metrics.significance import positive_correlation_q
from brainkit.metrics.uncertainty import (
    BASES,
    HALVES,
    MAX_SE,
    SEEDS,
    MapUncertainty,
    map_reliability,
    se_from_halves,
    se_from_repeats,
)
from brainkit.runs.folder import finished_run, read_rois, repeat_folders
from brainkit.runs.provenance import package_versions
from brainkit.utils.files import atomic_write, check_folder, write_json
from brainkit.utils.table import Table, number

FILE = "uncertainty.npz"
MAX_Q = 0.05  # false discovery rate of the test correlation, up to which a vertex is reliable
SELECTORS = ("depth", "location", "scale")


@dataclass(frozen=True)
class Uncertainty:
    """How sure the maps of a run are.

    Attributes
    ----------
    run : Path
        The run folder.
    errors : MapUncertainty
        Standard errors of each vertex.
    reliable : array of shape (V,), bool
        Vertices predicted better than chance (q below 0.05) whose depth has a standard error of at most
        ``errors.max_se``.
    summary : dict
        ``uncertainty.json``.
    """

    run: Path
    errors: MapUncertainty
    reliable: np.ndarray
    summary: dict[str, Any]

    def table(self) -> Table:
        """Median standard errors, reliable vertices and reliability by ROI."""
        groups = self.summary["groups"]
        rows = []
        for name, group in groups.items():
            errors = [number(group[f"{selector}_se"]["median"], ".3f") for selector in SELECTORS]
            reliability = number(group.get("depth_reliability", {}).get("mean"), ".3f")
            reliable = group["reliable"]
            rows.append((name, f"{reliable['n']:,}", *errors, f"{100 * reliable['mean']:.0f} %", reliability))
        return Table(
            title=f"standard errors of the maps (medians over vertices), from {self.errors.runs} runs",
            header=("ROI", "vertices", "depth", "location", "scale", "reliable", "map reliability (depth)"),
            rows=tuple(rows),
            notes=(BASES[self.errors.basis],),
            bold=0,
        )


def measure_uncertainty(
    run: str | os.PathLike[str] | None = None,
    repeats: Sequence[str | os.PathLike[str]] = (),
    *,
    max_se: float = MAX_SE,
) -> Uncertainty:
    """Measure how sure the maps of a run are, and write ``uncertainty.npz`` and ``uncertainty.json`` into its folder.

    Parameters
    ----------
    run : path-like, optional
        The run whose maps are used; by default the newest.
    repeats : sequence of path-like
        Runs that repeat it: on halves of its training stimuli (``data.half``), complementary halves of each draw; or
        on the same images with other seeds, `run` being one of them. By default those in ``RUN/repeats``.
    max_se : float
        Largest standard error of a reliable vertex, as a share of the selector's range; in (0, 1].

    Returns
    -------
    Uncertainty

    Raises
    ------
    UsageError
        If the runs cannot be compared, or a half has no complement.
    DataError
        If a run is not finished, or `run` has no repeats.
    """
    if not 0 < max_se <= 1:
        raise UsageError(f"max_se must be above 0 and at most 1, got {max_se:g}")
    folder, summary = finished_run(run)
    places = [Path(each) for each in repeats] or repeat_folders(folder)
    if not places:
        raise DataError(
            f"{folder}: has no repeats; train them with brainkit train --resume --repeats 8 --out {folder}, or name "
            "runs that repeat it"
        )
    check_folder(folder)
    main = _Maps.read(folder)
    others = [_Maps.read(place) for place in places]
    _check_comparable(main, others)
    errors, pairs = _standard_errors(main, others)
    errors = replace(errors, max_se=max_se)
    reliable = _is_reliable(folder, summary, errors)
    named = vertex_groups(main.vertices, read_rois(folder, len(main.vertices)))
    groups = {"all": np.arange(len(main.vertices))} | {name: each for name, each in named.items() if len(each)}
    found = {
        "schema": 1,
        "basis": errors.basis,
        "runs": errors.runs,
        "draws": len(pairs),
        "max_se": max_se,
        "max_q": MAX_Q,
        "groups": _by_group(errors, reliable, pairs, groups),
        "provenance": {
            "command": "brainkit uncertainty",
            "brainkit": __version__,
            "versions": package_versions("numpy", "scipy"),
            "data": summary["data"]["hash"],
            "backbone": {key: summary["backbone"][key] for key in ("name", "weights_hash")},
            "split": summary["split"],
            "run": main.facts(),
            "repeats": [each.facts() for each in others],
        },
    }
    with atomic_write(folder / FILE) as temporary:
        np.savez(
            temporary,
            depth_se=errors.depth_se.astype(np.float32),
            location_se=errors.location_se.astype(np.float32),
            scale_se=errors.scale_se.astype(np.float32),
            reliable=reliable,
            vertices=main.vertices.ids,
            space=np.array(main.vertices.space),
            basis=np.array(errors.basis),
            runs=np.array(errors.runs),
            max_se=np.array(max_se),
        )
    write_json(folder / "uncertainty.json", found)
    return Uncertainty(folder, errors, reliable, found)


def ensemble_uncertainty(runs: Sequence[Path]) -> MapUncertainty | None:
    """Standard errors of the mean of several runs' maps: what their seeds leave open; None if they differ in more."""
    try:
        main, *others = (_Maps.read(run) for run in runs)
        _check_comparable(main, others)
        errors, pairs = _standard_errors(main, others)
    except BrainkitError:
        return None
    if pairs:
        return None
    share = 1 / np.sqrt(len(runs))
    depth, location, scale = (share * each for each in (errors.depth_se, errors.location_se, errors.scale_se))
    return replace(errors, depth_se=depth, location_se=location, scale_se=scale)


def repeat_settings(settings: Config, count: int) -> list[Config]:
    """The settings of a run's repeats: both halves of each draw, with seeds of their own and the same test images.

    Raises
    ------
    UsageError
        If the count is odd or below 2, or the run itself is trained on a half.
    """
    if count < 2 or count % 2:
        raise UsageError(f"repeats must be an even number, 2 or greater (both halves of each draw), got {count}")
    if settings.data.half:
        raise UsageError(f"data.half must be empty for a run with repeats, got {settings.data.half!r}")
    split_seed = settings.seed if settings.data.split_seed < 0 else settings.data.split_seed
    weights_seed = settings.seed if settings.backbone.weights_seed < 0 else settings.backbone.weights_seed
    return [
        replace(
            settings,
            seed=settings.seed + 1 + k,
            backbone=replace(settings.backbone, weights_seed=weights_seed),
            data=replace(settings.data, split_seed=split_seed, half=f"{'ab'[k % 2]}:{k // 2}"),
            train=replace(settings.train, maps=False, snapshots=False),
        )
        for k in range(count)
    ]


@dataclass(frozen=True, eq=False)
class _Maps:
    """What the vertices of a finished run select, and what it was trained on."""

    folder: Path
    vertices: Vertices
    values: dict[str, np.ndarray]  # depth (V,), location (V, 2), scale (V,)
    identity: dict[str, Any]
    split: Split
    seed: int

    @property
    def half(self) -> str:
        return self.split.half

    def facts(self) -> dict[str, Any]:
        """Which run it is, with a hash of its selectors."""
        digest = hashlib.sha256((self.folder / "selectors.npz").read_bytes()).hexdigest()
        return {"name": self.folder.resolve().name, "seed": self.seed, "half": self.half, "selectors": digest}

    @classmethod
    def read(cls, run: Path) -> _Maps:
        folder, summary = finished_run(run)
        with np.load(folder / "selectors.npz") as file:
            stored = {key: file[key] for key in file.files}
        if "imported" in summary or not (folder / "split.json").is_file():
            raise DataError(f"{folder}: expected a run that was trained here, found one whose training is unknown")
        values = {
            "depth": np.nan_to_num(relative_depth(stored["layer_weights"])),  # a single layer leaves no choice
            "location": stored["locations"].astype(np.float64),
            "scale": stored["scale"].astype(np.float64),
        }
        identity = {
            "backbone (weights)": summary["backbone"]["weights_hash"],
            "choice of layers": stored["layers"].tolist(),
            "gauge": summary["gauge"],
            "data": summary["data"]["hash"],
            "space": str(stored["space"]),
            "number of vertices": len(stored["vertices"]),
        }
        vertices = Vertices(str(stored["space"]), stored["vertices"])
        return cls(folder, vertices, values, identity, Split.read(folder / "split.json"), summary["seed"])


def _check_comparable(main: _Maps, others: Sequence[_Maps]) -> None:
    """Refuse runs that are no repetitions of one training, and a run that is named twice."""
    folders = [main.folder.resolve()]
    for other in others:
        if other.folder.resolve() in folders:
            raise UsageError(f"the runs must be different, got {other.folder} twice")
        folders.append(other.folder.resolve())
        for name, value in main.identity.items():
            if other.identity[name] != value:
                raise UsageError(
                    f"{other.folder}: must have the {name} of {main.folder}, {str(value)[:60]}, got "
                    f"{str(other.identity[name])[:60]}"
                )
        if not np.array_equal(other.vertices.ids, main.vertices.ids):
            raise UsageError(f"{other.folder}: must have the vertices of {main.folder}, got others")


def _standard_errors(main: _Maps, others: Sequence[_Maps]) -> tuple[MapUncertainty, list[tuple[_Maps, _Maps]]]:
    """Of the main run's maps; and the complementary halves, by draw, if they are from halves."""
    if any(other.half for other in others):
        pairs = _complementary(main, others)
        first, second = zip(*pairs, strict=True)
        depth, location, scale = (se_from_halves(_stack(first, name), _stack(second, name)) for name in SELECTORS)
        return MapUncertainty(depth, location, scale, HALVES, len(others)), pairs
    for other in others:
        if main.half or not np.array_equal(other.split.train, main.split.train):
            raise UsageError(
                f"{other.folder}: must be trained on the images of {main.folder} with another seed (same "
                "data.split_seed), or on a half of them (data.half)"
            )
    runs = [main, *others]
    if len({run.seed for run in runs}) < len(runs):
        raise UsageError("runs on the same images must have different seeds, got one twice")
    depth, location, scale = (se_from_repeats(_stack(runs, name)) for name in SELECTORS)
    return MapUncertainty(depth, location, scale, SEEDS, len(runs)), []


def _stack(runs: Sequence[_Maps], selector: str) -> np.ndarray:
    return np.stack([run.values[selector] for run in runs])


def _complementary(main: _Maps, others: Sequence[_Maps]) -> list[tuple[_Maps, _Maps]]:
    """The halves of the main run's training images, two for each draw."""
    draws: dict[str, dict[str, _Maps]] = {}
    for other in others:
        side, _, draw = other.half.partition(":")
        draws.setdefault(draw, {})[side] = other
    whole = np.sort(main.split.train)
    for draw, halves in draws.items():
        if sorted(halves) != ["a", "b"] or sum(map(len, draws.values())) != len(others):
            names = ", ".join(str(half.folder) for half in halves.values())
            raise UsageError(f"draw {draw or '(all images)'}: must have both halves, a:N and b:N, once, got {names}")
        joined = np.sort(np.concatenate([half.split.train for half in halves.values()]))
        if not np.array_equal(joined, whole):
            raise UsageError(f"the halves of draw {draw} must be those of the training images of {main.folder}")
    return [(halves["a"], halves["b"]) for halves in draws.values()]


def _is_reliable(folder: Path, summary: Mapping[str, Any], errors: MapUncertainty) -> np.ndarray:
    with np.load(folder / "scores.npz") as file:
        r = file["r"]
    scores = summary["scores"]
    stimuli = scores.get("stimuli") or scores["images"]  # images of one stimulus are not independent
    q = positive_correlation_q(r, stimuli) if stimuli > 2 else np.full(len(r), np.nan)
    return np.asarray((q < MAX_Q) & (errors.depth_se <= errors.max_se))


def _by_group(
    errors: MapUncertainty,
    reliable: np.ndarray,
    pairs: Sequence[tuple[_Maps, _Maps]],
    groups: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """``groups`` of ``uncertainty.json``: name -> measure -> median, mean, n; and the reliability over draws."""
    measures = {
        "depth_se": errors.depth_se,
        "location_se": np.hypot(*errors.location_se.T),
        "scale_se": errors.scale_se,
    }
    table: dict[str, Any] = {}
    for name, members in groups.items():
        row: dict[str, Any] = {
            measure: {"median": float(np.median(values[members])), "mean": float(values[members].mean())}
            for measure, values in measures.items()
        }
        row = {measure: {**cells, "n": len(members)} for measure, cells in row.items()}
        row["reliable"] = {"mean": float(reliable[members].mean()), "n": len(members)}
        for selector in SELECTORS if len(pairs) and len(members) > 2 else ():
            found = [map_reliability(a.values[selector][members], b.values[selector][members]) for a, b in pairs]
            if np.isfinite(found).all():
                row[f"{selector}_reliability"] = {
                    "mean": float(np.mean(found)),
                    "least": min(found),
                    "largest": max(found),
                    "n": len(found),
                }
        table[name] = row
    return table
