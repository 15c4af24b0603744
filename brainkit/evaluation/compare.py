"""Two models' predictions of the same responses compared: per vertex, per group of vertices, and over subjects."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.errors import UsageError
from brainkit.evaluation.model_draws import draw
from brainkit.evaluation.resampled import (
    ALL,
    MEASURES,
    Column,
    centre_intervals,
    drawn_centres,
    known_columns,
    summaries,
    vertex_intervals,
)
from brainkit.metrics.paired import Scores, draw_exchanges, paired_test, sign_flip_p
from brainkit.metrics.resampling import group_codes
from brainkit.metrics.scores import explained_share
from brainkit.metrics.significance import false_discovery_rate

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
        Group of vertices -> measure -> ``difference`` of the means over vertices, ``low``, ``high``, ``p``, ``q`` (over
        the groups); ``a``, ``b``: these means; the same of the medians, as ``median_difference`` and so on, without
        q; ``n``: vertices with a value.
    n_images, n_groups : int
        Images, and stimuli that they show.
    exchanges : int
        How many p is over; all ways, if the stimuli are few.
    method : {"BCa", "percentile"} or None
        Of the intervals of vertices. Those of groups of vertices are always percentile intervals, which for
        the mean explained share allow for its bias.
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
    models = [_runs(each) for each in (a, b)]
    n, vertices = responses.shape
    for predictions in itertools.chain(*models):
        if predictions.shape != (n, vertices):
            raise UsageError(f"predictions: expected shape {(n, vertices)} as the responses, found {predictions.shape}")
    if n < 2:
        raise UsageError(f"images: expected at least 2, found {n}; a correlation needs more")
    codes = group_codes(groups, n)
    draws = draw(models, responses, codes, _ceiling(noise_ceiling, responses, models), bootstrap, seed)

    scores = [draws.measure(model) for model in range(2)]
    a_values, b_values = (_values(each, draws.ceiling) for each in scores)
    difference = {measure: a_values[measure] - b_values[measure] for measure in MEASURES}
    columns = known_columns(_with_all(rois, vertices), difference)
    estimates = np.array([drawn_centres(*each, draws.ceiling, columns)[0] for each in scores])
    observed = estimates[0] - estimates[1]

    drawn, drawn_r = draws.bootstrap_difference(columns)
    ends = centre_intervals(drawn, observed, columns, draws.bootstrap, level)
    low, high, method = vertex_intervals(drawn_r, difference["r"], len(drawn), draws.bootstrap, level)
    del drawn, drawn_r  # as large as what follows

    exchanges = draw_exchanges(codes, permutations, seed)
    null, null_r = draws.exchange_difference(exchanges, columns)
    p, p_max = paired_test(difference["r"], null_r, len(exchanges))
    return PairedComparison(
        difference=difference,
        low=low,
        high=high,
        p=p,
        q=false_discovery_rate(p),
        p_max=p_max,
        groups=_summarise(columns, estimates, *ends, sign_flip_p(observed, null)),
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
    codes, ceiling = group_codes(groups, n), _ceiling(noise_ceiling, responses, [_runs(model)])
    draws = draw([_runs(model)], responses, codes, ceiling, bootstrap, seed)
    scores = draws.measure(0)
    columns = known_columns(_with_all(rois, vertices), _values(scores, ceiling))
    estimates = drawn_centres(*scores, ceiling, columns)[0]
    drawn = draws.centres(columns)
    found = summaries(columns, estimates, *centre_intervals(drawn, estimates, columns, draws.bootstrap, level))
    return {
        name: {
            measure: {key: value if key == "n" else _or_none(value) for key, value in line.items()}
            for measure, line in lines.items()
        }
        for name, lines in found.items()
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
        fewer than 2 subjects, or where all have the same value), and ``values``: those of the subjects.
    """
    from scipy.stats import t

    known = np.array([value for value in values.values() if value is not None and np.isfinite(value)])
    n = len(known)
    found: dict[str, Any] = {"n": n, "difference": float(known.mean()) if n else None}
    found |= {"low": None, "high": None, "p": None}
    error = known.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    if error > 0:
        mean, reach = float(known.mean()), float(t.ppf((1 + level) / 2, n - 1) * error)
        found |= {"low": mean - reach, "high": mean + reach, "p": float(2 * t.sf(abs(mean) / error, n - 1))}
    return found | {"values": {name: _or_none(_or_nan(value)) for name, value in values.items()}}


def _runs(model: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    return [model] if isinstance(model, np.ndarray) else list(model)


def _with_all(rois: Mapping[str, np.ndarray] | None, vertices: int) -> dict[str, np.ndarray]:
    return {ALL: np.arange(vertices)} | {name: np.asarray(members) for name, members in (rois or {}).items()}


def _ceiling(
    noise_ceiling: np.ndarray | None, responses: np.ndarray, models: Sequence[Sequence[np.ndarray]]
) -> np.ndarray:
    """(V,); NaN where responses are constant or missing, or a prediction is missing: then no share is explained."""
    if noise_ceiling is None:
        return np.full(responses.shape[1], np.nan)
    with np.errstate(invalid="ignore"):
        spread = np.ptp(responses, axis=0)
    known = (spread > 0) & np.isfinite(spread)
    for predictions in itertools.chain(*models):
        known &= np.isfinite(predictions).all(axis=0)
    return np.where(known, np.asarray(noise_ceiling, np.float64), np.nan)


def _values(scores: Scores, ceiling: np.ndarray) -> dict[str, np.ndarray]:
    """The measures of all images, (V,) each."""
    r, R2 = (each[0].astype(np.float64) for each in scores)
    return {"r": r, "R2": R2, "explained": explained_share(r, ceiling)}


def _summarise(
    columns: Sequence[Column], estimates: np.ndarray, low: np.ndarray, high: np.ndarray, p: np.ndarray
) -> Summary:
    """`PairedComparison.groups`. `estimates`: (2 models, columns, 2); the others are of the difference."""
    difference = estimates[0] - estimates[1]
    found: Summary = {}
    for k, (name, measure, chosen) in enumerate(columns):
        line: dict[str, Any] = {}
        for start, centre in (("", 1), ("median_", 0)):
            for key, values in (("difference", difference), ("low", low), ("high", high), ("p", p)):
                line[start + key] = _or_none(values[k, centre])
            for key, values in zip("ab", estimates, strict=True):
                line[start + key] = _or_none(values[k, centre])
        found.setdefault(name, {})[measure] = line | {"n": len(chosen)}
    for measure in MEASURES:
        tested = np.array([p[k, 1] for k, column in enumerate(columns) if column[1] == measure])
        for lines, q in zip(found.values(), false_discovery_rate(tested), strict=True):
            lines[measure]["q"] = _or_none(q)
    return found


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
