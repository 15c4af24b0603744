"""Two sets of predictions of the same responses: their accuracies over resampled images, and after an exchange.

Everything is a sum over images, so all resamples and all exchanges of a block of vertices are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from brainkit.metrics.resampling import weighted_scores

_BLOCK = 512  # vertices at a time
_CONSTANT = 1e-10  # share of the variance below which a mixture of predictions is constant

Scores = tuple[np.ndarray, np.ndarray]
"""r and R2, (draws, V) float32 each; r is NaN where a prediction or a response is constant."""


def resampled_scores(
    model: Sequence[np.ndarray], responses: np.ndarray, weights: np.ndarray, shares: np.ndarray | None = None
) -> Scores:
    """The accuracy of a model, where each row of weights says how often each image counts.

    Parameters
    ----------
    model : sequence of arrays of shape (n, V)
        The predictions of each of its runs; its accuracy is the mean of theirs.
    responses : array of shape (n, V)
    weights : array of shape (draws, n)
    shares : array of shape (draws, runs), optional
        The share of each run in the mean, rows summing to 1; by default all the same.
    """
    if len(model) == 1:
        return weighted_scores(model[0], responses, weights)
    r, R2 = (np.zeros((len(weights), responses.shape[1]), np.float32) for _ in range(2))
    for start in range(0, responses.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        for run, predictions in enumerate(model):
            share = np.full(len(weights), 1 / len(model)) if shares is None else shares[:, run]
            scores = weighted_scores(predictions[:, columns], responses[:, columns], weights)
            for total, part in zip((r, R2), scores, strict=True):
                part *= share[:, None].astype(np.float32)
                total[:, columns] += part
    return r, R2


def exchanged_scores(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], responses: np.ndarray, exchanges: np.ndarray
) -> tuple[Scores, Scores]:
    """The accuracies of two models after they have exchanged their predictions of some images.

    If both are equally accurate, it does not matter which of the two made which prediction. For r, the predictions of
    each vertex are standardised first: else those with the larger variance would weigh more in the mixture. Where the
    models have several runs, run k of the one is exchanged with run k of the other, beginning again where one has
    fewer.

    Parameters
    ----------
    a, b : sequences of arrays of shape (n, V)
        The predictions of each model's runs.
    responses : array of shape (n, V)
    exchanges : array of shape (draws, n), bool
        Which images' predictions are exchanged; equal within a stimulus, see `draw_exchanges`.
    """
    pairs, swapped = max(len(a), len(b)), np.asarray(exchanges, np.float64)
    # model, measure, draws, V
    found = np.zeros((2, 2, len(exchanges), responses.shape[1]), np.float32)
    for start in range(0, responses.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        for pair in range(pairs):
            first, second = (model[pair % len(model)][:, columns] for model in (a, b))
            for total, scores in zip(found, _exchange(first, second, responses[:, columns], swapped), strict=True):
                for measure, values in zip(total, scores, strict=True):
                    measure[:, columns] += values / pairs
    return (found[0, 0], found[0, 1]), (found[1, 0], found[1, 1])


def _exchange(a: np.ndarray, b: np.ndarray, responses: np.ndarray, swapped: np.ndarray) -> list[list[np.ndarray]]:
    """r and R2 of each of two sets of predictions (n, columns) after exchanges (draws, n)."""
    (p, p_mean), (q, q_mean), (y, y_mean) = (_centred(each) for each in (a, b, responses))
    squares = _positive((y**2).sum(0), 0)
    errors = [(y - each + y_mean - mean) ** 2 for each, mean in ((p, p_mean), (q, q_mean))]
    moved_errors = swapped @ (errors[0] - errors[1])
    p, q = (each / np.where(sd := each.std(0), sd, 1) for each in (p, q))
    moved, moved_squares, moved_products = swapped @ (p - q), swapped @ (p**2 - q**2), swapped @ ((p - q) * y)
    scores = []
    # After the exchange a has its own sum less what it gave away; the sums of p and q are 0.
    for own, own_errors, sign in ((p, errors[0], -1), (q, errors[1], 1)):
        own_squares = (own**2).sum(0) + sign * moved_squares - moved**2 / len(y)
        product = (own * y).sum(0) + sign * moved_products
        r = product / np.sqrt(_positive(own_squares, _CONSTANT * len(y)) * squares)
        scores.append([r, 1 - (own_errors.sum(0) + sign * moved_errors) / squares])
    return scores


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


def paired_test(
    observed: np.ndarray, null: Callable[[slice], np.ndarray], exchanges: int
) -> tuple[np.ndarray, np.ndarray]:
    """Test the difference of every vertex, two-sided.

    Parameters
    ----------
    observed : array of shape (V,)
    null : callable
        Gives the differences of a block of vertices after every exchange, (exchanges, k).
    exchanges : int

    Returns
    -------
    p : array of shape (V,)
        See `sign_flip_p`.
    p_max : array of shape (V,)
        Corrected for all vertices by the largest difference after each exchange. Differences are in units of their
        s.d. over the exchanges, so that no vertex decides for all by its noise.
    """
    p, size = np.full((2, len(observed)), np.nan)
    largest = np.zeros(exchanges)
    for start in range(0, len(observed), _BLOCK):
        block = slice(start, start + _BLOCK)
        exchanged = null(block)
        p[block] = sign_flip_p(observed[block], exchanged)
        scale = np.sqrt(np.mean(np.square(exchanged, dtype=np.float64), axis=0))
        known = np.isfinite(observed[block]) & (scale > 0)
        largest = np.maximum(largest, (np.abs(exchanged[:, known]) / scale[known]).max(1, initial=0))
        size[block][known] = np.abs(observed[block][known]) / scale[known]
    below = np.searchsorted(np.sort(largest), size * (1 - 1e-5), side="left")
    return p, np.where(np.isfinite(size), (1 + exchanges - below) / (1 + exchanges), np.nan)


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns less their means, and the means; a constant column is exactly 0."""
    relative = np.asarray(values, np.float64) - np.float64(values[0])
    mean = relative.mean(0)
    return relative - mean, np.asarray(mean + values[0])


def _positive(squares: np.ndarray, least: float) -> np.ndarray:
    """Sums of squares, NaN where nothing varies."""
    return np.where(squares > least, squares, np.nan)
