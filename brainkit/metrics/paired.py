"""Two sets of predictions of the same responses: how their accuracies differ, over resampled and over exchanged images.

Everything is a sum over images, so all resamples and all exchanges of a block of vertices are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from brainkit.metrics.resampling import weighted_scores
from brainkit.metrics.scores import LEAST_CEILING

MEASURES = ("r", "R2", "explained")
_BLOCK = 512  # vertices at a time
_CONSTANT = 1e-10  # share of the variance below which a mixture of predictions is constant


def resampled_differences(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    responses: np.ndarray,
    weights: np.ndarray,
    noise_ceiling: np.ndarray,
    runs_a: np.ndarray | None = None,
    runs_b: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Accuracy of model a minus that of model b, where each row of weights says how often each image counts.

    Parameters
    ----------
    a, b : sequences of arrays of shape (n, V)
        The predictions of each model's runs; a model's accuracy is the mean of its runs'.
    responses : array of shape (n, V)
    weights : array of shape (draws, n)
        The same for both models, and for all vertices.
    noise_ceiling : array of shape (V,)
        Of r squared, in [0, 1]; NaN where unknown.
    runs_a, runs_b : arrays of shape (draws, runs), optional
        The share of each run in a model's accuracy, rows summing to 1; by default all the same.

    Returns
    -------
    dict of str to array of shape (draws, V), float32
        ``r``, ``R2``, ``explained`` (max(r, 0)^2 / noise ceiling, not clipped); of a alone if b has no run. NaN where
        a prediction or a response is constant, and ``explained`` where the ceiling is unknown or below
        `LEAST_CEILING`.
    """
    found = {name: np.zeros((len(weights), responses.shape[1]), np.float32) for name in MEASURES}
    for sign, model, shares in ((1, a, runs_a), (-1, b, runs_b)):
        for run, predictions in enumerate(model):
            share = np.full(len(weights), 1 / len(model)) if shares is None else shares[:, run]
            weight = (sign * share[:, None]).astype(np.float32)
            for columns, ceiling in _blocks(noise_ceiling, 4096):
                r, R2 = weighted_scores(predictions[:, columns], responses[:, columns], weights)
                found["r"][:, columns] += weight * r
                found["R2"][:, columns] += weight * R2
                found["explained"][:, columns] += weight * (np.maximum(r, 0) ** 2 / ceiling)
    return found


def exchanged_differences(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    responses: np.ndarray,
    exchanges: np.ndarray,
    noise_ceiling: np.ndarray,
) -> dict[str, np.ndarray]:
    """Accuracy of model a minus that of model b after the two have exchanged their predictions of some images.

    If both are equally accurate, it does not matter which of the two made which prediction. For r, and what is
    explained, the predictions of each vertex are standardised first: else those with the larger variance would weigh
    more in the mixture. Where the models have several runs, run k of the one is exchanged with run k of the other,
    beginning again where one has fewer.

    Parameters
    ----------
    a, b, responses, noise_ceiling
        As for `resampled_differences`.
    exchanges : array of shape (draws, n), bool
        Which images' predictions are exchanged; equal within a stimulus, see `draw_exchanges`.

    Returns
    -------
    dict of str to array of shape (draws, V), float32
        As `resampled_differences`.
    """
    n, pairs = len(responses), max(len(a), len(b))
    swapped = np.asarray(exchanges, np.float64)
    found = {name: np.zeros((len(exchanges), responses.shape[1]), np.float32) for name in MEASURES}
    for columns, ceiling in _blocks(noise_ceiling, _BLOCK):
        y, y_mean = _centred(responses[:, columns])
        total_squares = _positive((y**2).sum(0), 0)
        for pair in range(pairs):
            first, second = (_centred(model[pair % len(model)][:, columns]) for model in (a, b))
            errors = (y - first[0] + y_mean - first[1]) ** 2 - (y - second[0] + y_mean - second[1]) ** 2
            with np.errstate(invalid="ignore", divide="ignore"):
                p, q = (each / each.std(0) for each, _ in (first, second))
            moved, moved_squares, moved_products = swapped @ (p - q), swapped @ (p**2 - q**2), swapped @ ((p - q) * y)
            # After the exchange a has its own sum less what it gave away; sums of p and q are 0, of their squares n.
            r_a, r_b = (
                ((each * y).sum(0) + sign * moved_products)
                / np.sqrt(_positive(n + sign * moved_squares - moved**2 / n, _CONSTANT * n) * total_squares)
                for each, sign in ((p, -1), (q, 1))
            )
            explained = (np.maximum(r_a, 0) ** 2 - np.maximum(r_b, 0) ** 2) / ceiling
            found["r"][:, columns] += (r_a - r_b) / pairs
            found["R2"][:, columns] -= (errors.sum(0) - 2 * (swapped @ errors)) / total_squares / pairs
            found["explained"][:, columns] += explained / pairs
    return found


def draw_exchanges(codes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Draw which images' predictions are exchanged: each stimulus with probability a half.

    Parameters
    ----------
    codes : array of shape (n,), int
        The stimulus of each image, from 0.
    draws : int
    seed : int

    Returns
    -------
    array of shape (draws, n), bool
        With few stimuli, instead all ways but the one that exchanges nothing: fewer than `draws` rows.
    """
    count = int(codes.max()) + 1
    if count < 31 and 2**count - 1 <= draws:
        all_ways = np.arange(1, 2**count)[:, None] >> np.arange(count) & 1
        return all_ways.astype(bool)[:, codes]
    return np.random.default_rng(seed).random((draws, count))[:, codes] < 0.5


def draw_runs(runs: int, draws: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Resample the runs of a model: the share of each in each draw, (draws, runs), rows summing to 1.

    One run fewer is drawn than there are, so that the mean of few runs has the right variance (Rao and Wu 1988).
    """
    if runs == 1:
        return np.ones((draws, 1))
    counts = np.random.default_rng(seed).multinomial(runs - 1, np.full(runs, 1 / runs), size=draws)
    return counts / (runs - 1)


def sign_flip_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p of differences (k,) from those after exchanges (draws, k), +1-smoothed; NaN where there is none."""
    # A difference that an exchange leaves as it is differs by rounding only.
    as_large = np.abs(null) >= np.abs(observed) * (1 - 1e-5)
    return np.where(np.isfinite(observed), (1 + as_large.sum(0)) / (1 + len(null)), np.nan)


def max_statistic_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p of differences (k,), corrected for all of them by the largest difference after each exchange.

    Differences are in units of their s.d. over the exchanges, so that no vertex decides for all by its noise.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.mean(np.square(null, dtype=np.float64), axis=0))
        known = np.isfinite(observed) & (scale > 0)
        if not known.any():
            return np.full(len(observed), np.nan)
        largest = np.abs(null[:, known] / scale[known]).max(1)
        size = np.abs(observed) / scale
    below = np.searchsorted(np.sort(largest), size * (1 - 1e-5), side="left")
    return np.where(known, (1 + len(largest) - below) / (1 + len(largest)), np.nan)


def _blocks(noise_ceiling: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Columns, and their noise ceilings: NaN where they say nothing."""
    usable = np.where(np.nan_to_num(noise_ceiling) >= LEAST_CEILING, noise_ceiling, np.nan).astype(np.float32)
    for start in range(0, len(usable), size):
        columns = slice(start, start + size)
        yield columns, usable[columns]


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns less their means, and the means; a constant column is exactly 0."""
    relative = np.asarray(values, np.float64) - np.float64(values[0])
    mean = relative.mean(0)
    return relative - mean, np.asarray(mean + values[0])


def _positive(squares: np.ndarray, least: float) -> np.ndarray:
    """Sums of squares, NaN where nothing varies."""
    return np.where(squares > least, squares, np.nan)
