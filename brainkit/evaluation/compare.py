"""Two models' predictions of the same responses compared: per vertex, per group of vertices, and over subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.metrics.paired import (
    MEASURES,
    draw_exchanges,
    draw_runs,
    exchanged_differences,
    max_statistic_p,
    resampled_differences,
    sign_flip_p,
)
from brainkit.metrics.resampling import bootstrap_weights, group_codes, interval, jackknife_weights
from brainkit.metrics.significance import false_discovery_rate

ALL = "all"
_COLUMNS = 2048  # vertices whose intervals are computed at a time

Summary = dict[str, dict[str, dict[str, Any]]]
"""Group of vertices -> measure -> numbers; None where there is none."""


@dataclass(frozen=True, eq=False)
class PairedComparison:
    """Model a minus model b on the same images.

    Attributes
    ----------
    difference : dict of str to array of shape (V,)
        ``r``, ``R2`` and ``explained`` of a minus those of b.
    low, high : array of shape (V,)
        Interval of the difference in r; NaN with fewer than 10 stimuli.
    p, q, p_max : array of shape (V,)
        Of the difference in r, two-sided, by exchange of the two models' predictions; q after Benjamini and Hochberg,
        p_max corrected for all vertices by the largest difference.
    groups : dict
        Group of vertices -> measure -> ``difference`` (median over vertices), ``low``, ``high``, ``p``; ``q`` (over the
        groups); ``mean_difference``, ``mean_low``, ``mean_high``, ``mean_p``; ``a``, ``b``: the median of each model;
        ``n``: vertices with a value.
    n_images, n_groups : int
        Images, and stimuli that they show.
    exchanges : int
        How many p is over; all ways, if the stimuli are few.
    method : {"BCa", "percentile"} or None
        Of the intervals.
    """

    difference: dict[str, np.ndarray]
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    q: np.ndarray
    p_max: np.ndarray
    groups: Summary
    n_images: int
    n_groups: int
    exchanges: int
    method: str | None

    def __repr__(self) -> str:
        return f"PairedComparison({len(self.p):,} vertices, {self.n_images:,} images of {self.n_groups:,} stimuli)"

    def arrays(self) -> dict[str, np.ndarray]:
        """What is kept per vertex, (V,) float32 each."""
        found = {f"difference_{name}": values for name, values in self.difference.items()}
        found |= {name: getattr(self, name) for name in ("low", "high", "p", "q", "p_max")}
        return {name: values.astype(np.float32) for name, values in found.items()}


def compare_predictions(
    a: np.ndarray | Sequence[np.ndarray],
    b: np.ndarray | Sequence[np.ndarray],
    responses: np.ndarray,
    *,
    noise_ceiling: np.ndarray | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    bootstrap: int = 2000,
    permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same images.

    Intervals are from a bootstrap over stimuli that draws the same stimuli for both models, and for all vertices. p is
    from exchanging the predictions of the two models for random halves of the stimuli; its null is that the models are
    exchangeable: equally accurate, whatever each of them gets wrong.

    Parameters
    ----------
    a, b : array of shape (n, V), or sequence of such
        Predictions of each model; several for runs of one model with other seeds, whose accuracies are averaged, and
        which are resampled with the stimuli.
    responses : array of shape (n, V)
    noise_ceiling : array of shape (V,), optional
        Of r squared, in [0, 1]; NaN where unknown.
    rois : mapping of str to int array of shape (k,), optional
        Groups of vertices by position; the group ``all`` is added.
    groups : n labels, optional
        The stimulus that each image shows; by default each image is one of its own.
    bootstrap, permutations : int
        Number of resamples, and of exchanges.
    level : float
        Of the intervals, in (0, 1).
    seed : int

    Returns
    -------
    PairedComparison

    Raises
    ------
    UsageError
        If the shapes do not agree, or there are fewer than two images.
    """
    first, second = _runs(a), _runs(b)
    n, vertices = responses.shape
    for predictions in (*first, *second):
        if predictions.shape != (n, vertices):
            raise UsageError(f"predictions: expected shape {(n, vertices)} as the responses, found {predictions.shape}")
    if n < 2:
        raise UsageError(f"images: expected at least 2, found {n}; a correlation needs more")
    ceiling = np.full(vertices, np.nan) if noise_ceiling is None else np.asarray(noise_ceiling, np.float64)
    named = _with_all(rois, vertices)
    codes = group_codes(groups, n)

    resampled = _Resampled(first, second, responses, codes, ceiling, bootstrap, seed)
    estimate = {name: resampled.estimate(name) for name in MEASURES}
    summary = {name: resampled.summarise(members, level) for name, members in named.items()}
    low, high, method = resampled.intervals("r", level)
    del resampled

    exchanges = draw_exchanges(codes, permutations, seed)
    null = exchanged_differences(first, second, responses, exchanges, ceiling)
    p = sign_flip_p(estimate["r"], null["r"])
    own = [accuracies(model, responses, ceiling) for model in (first, second)]
    result: Summary = {}
    for name, members in named.items():
        result[name] = {}
        for measure in MEASURES:
            columns = _known(estimate[measure], members)
            found = summary[name][measure]
            numbers: dict[str, Any] = {"difference": found["median"], "low": found["low"], "high": found["high"]}
            numbers["p"] = _group_p(np.median, estimate[measure], null[measure], columns)
            numbers |= {f"mean_{end}": found[f"mean_{end}"] for end in ("low", "high")}
            numbers |= {"mean_difference": found["mean"], "n": found["n"]}
            numbers["mean_p"] = _group_p(np.mean, estimate[measure], null[measure], columns)
            numbers |= {key: _median(each[measure][columns]) for key, each in zip("ab", own, strict=True)}
            result[name][measure] = numbers
    for measure in MEASURES:
        tested = np.array([_or_nan(result[name][measure]["p"]) for name in result])
        for name, q in zip(result, false_discovery_rate(tested), strict=True):
            result[name][measure]["q"] = _or_none(q)
    return PairedComparison(
        difference=estimate,
        low=low,
        high=high,
        p=p,
        q=false_discovery_rate(p),
        p_max=max_statistic_p(estimate["r"], null["r"]),
        groups=result,
        n_images=n,
        n_groups=int(codes.max()) + 1,
        exchanges=len(exchanges),
        method=method,
    )


def summarise_accuracy(
    model: np.ndarray | Sequence[np.ndarray],
    responses: np.ndarray,
    *,
    noise_ceiling: np.ndarray | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """A model's accuracy by group of vertices, with the intervals of `compare_predictions`; parameters as there.

    Returns
    -------
    dict
        Group -> measure -> ``median``, ``low``, ``high``, ``mean``, ``mean_low``, ``mean_high``, ``n``.
    """
    n, vertices = responses.shape
    ceiling = np.full(vertices, np.nan) if noise_ceiling is None else np.asarray(noise_ceiling, np.float64)
    resampled = _Resampled(_runs(model), [], responses, group_codes(groups, n), ceiling, bootstrap, seed)
    return {name: resampled.summarise(members, level) for name, members in _with_all(rois, vertices).items()}


def accuracies(model: Sequence[np.ndarray], responses: np.ndarray, noise_ceiling: np.ndarray) -> dict[str, np.ndarray]:
    """The accuracy of a model per vertex, mean over its runs (n, V): measure -> (V,)."""
    once = np.ones((1, len(responses)), np.float32)
    return {
        name: values[0] for name, values in resampled_differences(model, [], responses, once, noise_ceiling).items()
    }


def over_subjects(values: Mapping[str, float | None], level: float = 0.95) -> dict[str, Any]:
    """A value over subjects as a random effect: the mean, its t interval, and whether it differs from 0.

    Parameters
    ----------
    values : mapping of str to float
        Subject -> value; subjects without one (None, NaN) do not count.
    level : float

    Returns
    -------
    dict
        ``n`` subjects, ``difference`` (their mean), ``low``, ``high``, ``p`` (t test, two-sided; these three None with
        fewer than 2 subjects), and ``values``: those of the subjects.
    """
    from scipy.stats import ttest_1samp

    known = np.array([value for value in values.values() if value is not None and np.isfinite(value)])
    found: dict[str, Any] = {"n": len(known), "difference": _or_none(known.mean()) if len(known) else None}
    found |= {"low": None, "high": None, "p": None}
    if len(known) > 1:
        test = ttest_1samp(known, 0.0)
        ends = test.confidence_interval(level)
        found |= {"low": _or_none(ends.low), "high": _or_none(ends.high), "p": _or_none(test.pvalue)}
    return found | {"values": {name: _or_none(_or_nan(value)) for name, value in values.items()}}


class _Resampled:
    """Differences for the data, for each stimulus (or block of them) left out, and for each bootstrap sample."""

    def __init__(
        self,
        a: Sequence[np.ndarray],
        b: Sequence[np.ndarray],
        responses: np.ndarray,
        codes: np.ndarray,
        noise_ceiling: np.ndarray,
        draws: int,
        seed: int,
    ) -> None:
        jackknife = jackknife_weights(codes)
        self._first_draw = 1 + len(jackknife)
        weights = np.concatenate(
            [np.ones((1, len(codes)), np.float32), jackknife, bootstrap_weights(codes, draws, seed)]
        )
        runs = [self._drawn_runs(len(model), draws, (seed, 1 + index)) for index, model in enumerate((a, b))]
        self._values = resampled_differences(a, b, responses, weights, noise_ceiling, *runs)

    def estimate(self, measure: str) -> np.ndarray:
        return self._values[measure][0].astype(np.float64)

    def intervals(self, measure: str, level: float) -> tuple[np.ndarray, np.ndarray, str | None]:
        """Low and high of each vertex, (V,), and the method."""
        values = self._values[measure]
        ends, method = [], None
        for start in range(0, values.shape[1], _COLUMNS):
            low, high, method = self._interval(values[:, start : start + _COLUMNS], level)
            ends.append((low, high))
        low, high = (np.concatenate(each) for each in zip(*ends, strict=True))
        return low, high, method

    def summarise(self, members: np.ndarray, level: float) -> dict[str, dict[str, Any]]:
        """Median and mean over some vertices, with intervals, for each measure."""
        found: dict[str, dict[str, Any]] = {}
        for measure in MEASURES:
            columns = _known(self._values[measure][0], members)
            numbers: dict[str, Any] = {"n": len(columns)}
            for prefix, statistic in (("median", np.median), ("mean", np.mean)):
                value = low = high = None
                if len(columns):
                    over = _over_vertices(statistic, self._values[measure], columns)[:, None]
                    value, (low, high) = _or_none(over[0, 0]), map(_or_none, np.ravel(self._interval(over, level)[:2]))
                start = "" if prefix == "median" else "mean_"
                numbers |= {prefix: value, f"{start}low": low, f"{start}high": high}
            found[measure] = numbers
        return found

    def _interval(self, values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, str | None]:
        return interval(values[self._first_draw :], values[0], values[1 : self._first_draw], level)

    def _drawn_runs(self, runs: int, draws: int, seed: tuple[int, int]) -> np.ndarray | None:
        """All runs alike for the data and the jackknife, then resampled."""
        if runs < 2:
            return None
        return np.concatenate([np.full((self._first_draw, runs), 1 / runs), draw_runs(runs, draws, seed)])


def _runs(model: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    return [model] if isinstance(model, np.ndarray) else list(model)


def _with_all(rois: Mapping[str, np.ndarray] | None, vertices: int) -> dict[str, np.ndarray]:
    return {ALL: np.arange(vertices)} | {name: np.asarray(members) for name, members in (rois or {}).items()}


def _known(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members that have a value."""
    return np.asarray(members)[np.isfinite(values[members])]


def _over_vertices(statistic: Any, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A statistic over some columns, for each row."""
    return np.asarray(statistic(values[:, columns], axis=1), np.float64)


def _group_p(statistic: Any, estimate: np.ndarray, null: np.ndarray, columns: np.ndarray) -> float | None:
    if not len(columns):
        return None
    observed = np.array([statistic(estimate[columns])])
    return _or_none(sign_flip_p(observed, _over_vertices(statistic, null, columns)[:, None])[0])


def _median(values: np.ndarray) -> float | None:
    return _or_none(np.median(values)) if len(values) else None


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
