"""The difference between scores on two sets of images, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from brainkit.evaluation.evaluation import Evaluation
from brainkit.evaluation.resampled import ALL, MEASURES, Column, biased_centres, centres, resample
from brainkit.metrics.resampling import (
    LEAST_GROUPS,
    bootstrap_weights,
    group_codes,
    interval,
    jackknife_weights,
    weighted_scores,
)
from brainkit.utils.table import Table, number


class Difference(TypedDict):
    """First minus second set, of the medians and of the means over n vertices, each with its interval."""

    difference: float
    low: float
    high: float
    mean_difference: float
    mean_low: float
    mean_high: float
    n: int


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """A set of images that was scored: predictions and responses (n, V), the n images' stimuli, and the scores."""

    name: str
    predictions: np.ndarray
    responses: np.ndarray
    groups: Sequence[Any]
    evaluation: Evaluation


@dataclass(frozen=True, eq=False)
class SetDifference:
    """Scores on a first set of images minus those on a second.

    Attributes
    ----------
    first, second : str
        Names of the sets.
    groups : dict
        Group of vertices -> "r", "R2", "explained" -> `Difference`; over the vertices that have the measure in both.
    method : {"percentile", None}
        Of the intervals. None if one of the sets has too few stimuli.
    level : float
    """

    first: str
    second: str
    groups: dict[str, dict[str, Difference]]
    method: str | None
    level: float

    def table(self) -> Table:
        """Differences of medians with intervals, by group; groups without vertices are left out."""
        rows = [
            (name, f"{measures['r']['n']:,}", *(_cell(measures[measure]) for measure in MEASURES))
            for name, measures in self.groups.items()
            if measures["r"]["n"]
        ]
        how = f"in brackets: {self.level:.0%} percentile intervals over stimuli"
        return Table(
            title=f"{self.first} minus {self.second} (medians over vertices)",
            header=("group", "vertices", *MEASURES),
            rows=tuple(rows),
            notes=(how if self.method else f"no intervals: each set needs {LEAST_GROUPS} stimuli",),
            bold=0,
        )


def set_difference(first: ScoredSet, second: ScoredSet, rois: Mapping[str, np.ndarray]) -> SetDifference:
    """Compare the scores on two sets of images of the same vertices.

    The sets are resampled each for itself, and stimuli that are in both are resampled together for both.

    Parameters
    ----------
    first, second : ScoredSet
        With the same noise ceilings, level, seed and number of draws.
    rois : mapping of str to int array
        Positions among the V vertices of every group of vertices.
    """
    one, other = first.evaluation, second.evaluation
    members = {ALL: np.arange(len(one.r)), **rois}
    columns = []
    for name, positions in members.items():
        for measure in MEASURES:
            both = np.isfinite(getattr(one, measure)) & np.isfinite(getattr(other, measure))
            columns.append((name, measure, positions[both[positions]]))
    estimate = _centres(one, columns) - _centres(other, columns)
    ends, method = np.full((2, *estimate.shape), np.nan), None
    fewest = min(one.n_groups, other.n_groups)  # the smaller set decides how well its spread is known
    if one.bootstrap and fewest >= LEAST_GROUPS:
        drawn, jackknife = _resampled(first, second, columns)
        low, high, method = interval(
            drawn.reshape(len(drawn), -1),
            estimate.ravel(),
            jackknife.reshape(len(jackknife), -1),
            one.level,
            corrected=False,
            biased=biased_centres(columns).ravel(),
            groups=fewest,
        )
        ends = np.reshape([low, high], ends.shape)
    groups: dict[str, dict[str, Difference]] = {name: {} for name in members}
    for k, (name, measure, chosen) in enumerate(columns):
        groups[name][measure] = {
            "difference": float(estimate[k, 0]),
            "low": float(ends[0, k, 0]),
            "high": float(ends[1, k, 0]),
            "mean_difference": float(estimate[k, 1]),
            "mean_low": float(ends[0, k, 1]),
            "mean_high": float(ends[1, k, 1]),
            "n": len(chosen),
        }
    return SetDifference(first.name, second.name, groups, method, one.level)


def _resampled(first: ScoredSet, second: ScoredSet, columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray]:
    """The differences under the bootstrap and under the jackknife, (draws, columns, 2) each."""
    evaluation, n = first.evaluation, len(first.groups)
    codes = group_codes([*first.groups, *second.groups], n + len(second.groups))
    stratum = 2 * np.isin(codes, codes[:n]) + np.isin(codes, codes[n:])  # in one set, in the other, in both
    weights = np.empty((evaluation.bootstrap, len(codes)), np.float32)
    for part in np.unique(stratum):
        inside = stratum == part
        own = group_codes(codes[inside], int(inside.sum()))
        # Sets are drawn independently: each part has a seed of its own.
        weights[:, inside] = bootstrap_weights(own, evaluation.bootstrap, 4 * evaluation.seed + int(part))
    weights = np.concatenate([weights, jackknife_weights(codes)])
    drawn = _drawn(first, weights[:, :n], columns) - _drawn(second, weights[:, n:], columns)
    return drawn[: evaluation.bootstrap], drawn[evaluation.bootstrap :]


def _drawn(scored: ScoredSet, weights: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    p, y = scored.predictions, scored.responses
    ceiling = scored.evaluation.noise_ceiling
    return resample(lambda rows: weighted_scores(p, y, weights[rows]), len(weights), p.shape[1], ceiling, columns)[0]


def _centres(evaluation: Evaluation, columns: Sequence[Column]) -> np.ndarray:
    """Median and mean of each column, (columns, 2)."""
    return np.array([centres(getattr(evaluation, measure), chosen) for _, measure, chosen in columns])


def _cell(row: Difference) -> str:
    if not row["n"]:
        return "-"
    ends = "" if np.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return number(row["difference"], "+.3f") + ends
