"""Accuracy of an encoder on held-out images: per vertex, then summarised over all vertices and by ROI."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.evaluation.evaluate import ALL, evaluate
from brainkit.evaluation.evaluation import Evaluation
from brainkit.metrics.scores import explained_share, official_score
from brainkit.utils.files import atomic_write
from brainkit.utils.table import Table, number
from brainkit.utils.text import plural

_MEASURES = {"r": "r", "R2": "R2", "share": "explained"}  # names here -> of an Evaluation
FEW_IMAGES = 30  # with fewer test images, scores are shown with a remark


@dataclass(frozen=True)
class Scores:
    """Accuracy per vertex on held-out images.

    Attributes
    ----------
    r : array of shape (V,)
        Pearson correlation.
    R2 : array of shape (V,)
        1 - residual / total sum of squares.
    noise_ceiling : array of shape (V,)
        The largest r^2 that the noise allows; NaN where unknown.
    images : int
        Number of test images.
    evaluation : Evaluation, optional
        Has the intervals of medians over vertices.
    """

    r: np.ndarray
    R2: np.ndarray
    noise_ceiling: np.ndarray
    images: int
    evaluation: Evaluation | None = None

    def __repr__(self) -> str:
        vertices = plural(len(self.r), "vertex", "vertices")
        return f"Scores({vertices}, {plural(self.images, 'test image')}, median r {number(_median(self.r), '.3f')})"

    @property
    def share(self) -> np.ndarray:
        """Explained share of the explainable variance (V,), see :func:`brainkit.metrics.scores.explained_share`."""
        return explained_share(self.r, self.noise_ceiling)

    def write(self, path: Path, vertices: Vertices) -> None:
        """Write ``scores.npz``."""
        with atomic_write(path) as temporary:
            np.savez(
                temporary,
                r=self.r.astype(np.float32),
                R2=self.R2.astype(np.float32),
                noise_ceiling=self.noise_ceiling.astype(np.float32),
                vertices=vertices.ids,
                space=np.array(vertices.space),
                images=np.array(self.images),
            )


def add_intervals(
    scores: Scores, predictions: np.ndarray, responses: np.ndarray, rois: RoiTable, groups: Iterable[Any]
) -> Scores:
    """The same scores, with intervals for the medians that `summarise` takes; of one image there are none.

    Parameters
    ----------
    scores : Scores
    predictions, responses : arrays of shape (n, V)
        For the test images.
    rois : RoiTable
    groups : n labels
        The stimulus of each test image.
    """
    if len(predictions) < 2:
        return scores
    named = {name: members for name, members in rois.items() if name != ALL}
    options: dict[str, Any] = {"noise_ceiling": scores.noise_ceiling, "groups": groups, "permutations": 0}
    return replace(scores, evaluation=evaluate(predictions, responses, rois=named, **options))


def summarise(scores: Scores, rois: RoiTable) -> dict[str, Any]:
    """Medians over all vertices and by ROI.

    Returns
    -------
    dict
        ``images``; ``stimuli`` (groups of images, over which intervals are taken); ``all`` and ``rois`` -> name ->
        ``vertices``, ``r``, ``R2``, ``share`` (of the noise ceiling) and ``r_interval``, ``R2_interval``,
        ``share_interval`` (95 %); ``official``: the official score's ``mean`` and ``median`` in percent, None without
        noise ceilings. Other unknown numbers are None too.
    """
    ceiling = np.nan_to_num(scores.noise_ceiling)
    official = None
    if (ceiling > 0).any() and np.isfinite(scores.r).any():
        found = official_score(np.nan_to_num(scores.r), ceiling)
        official = {"mean": found.mean, "median": found.median, "vertices": found.n}
    return {
        "images": scores.images,
        "stimuli": scores.evaluation.n_groups if scores.evaluation else None,
        "all": _medians(scores, ALL, np.arange(len(scores.r))),
        "rois": {name: _medians(scores, name, members) for name, members in rois.items()},
        "official": official,
    }


def score_table(summary: dict[str, Any]) -> Table:
    """What `summarise` returns, for people; ROIs without vertices are left out."""
    named = [("all", summary["all"]), *summary["rois"].items()]
    notes = []
    if any(row.get("r_interval") for _, row in named):
        notes.append(f"in brackets: 95 % intervals over {plural(summary['stimuli'], 'stimulus', 'stimuli')}")
    if official := summary["official"]:
        notes.append(
            f"official score: mean {official['mean']:.1f} %, median {official['median']:.1f} % of the noise ceiling"
        )
    if 1 < summary["images"] < FEW_IMAGES:
        chance = min(1.96 / math.sqrt(summary["images"] - 1), 1.0)
        notes.append(
            f"{summary['images']} test images are few: a correlation of up to {chance:.2f} at a vertex may be chance"
        )
    return Table(
        title=f"test scores on {plural(summary['images'], 'image')} (medians over vertices)",
        header=("ROI", "vertices", "r", "R2", "r2/ceiling"),
        rows=tuple(
            (name, f"{row['vertices']:,}", *(_with_interval(row, key) for key in _MEASURES))
            for name, row in named
            if row["vertices"]
        ),
        notes=tuple(notes),
        bold=0,
    )


def json_ready(table: dict[str, Any]) -> dict[str, Any]:
    """A table of results as JSON holds it: plain numbers, and None for NaN and infinity."""
    plain: dict[str, Any] = json.loads(json.dumps(table, default=float), parse_constant=lambda _: None)
    return plain


def _medians(scores: Scores, name: str, members: np.ndarray) -> dict[str, Any]:
    row: dict[str, Any] = {"vertices": len(members)}
    intervals = scores.evaluation.groups.get(name) if scores.evaluation else None
    for key, measure in _MEASURES.items():
        row[key] = _median(_finite(getattr(scores, key)[members]))
        ends = [intervals[measure][end] for end in ("low", "high")] if intervals else [np.nan]
        row[f"{key}_interval"] = ends if np.isfinite(ends).all() else None
    return row


def _with_interval(row: dict[str, Any], key: str) -> str:
    ends = row.get(f"{key}_interval")
    return number(row[key], ".3f") + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
