"""Banded ridge regression: a penalty for each layer's local tokens and for its global token, at every vertex.

Nunez-Elizalde, Huth & Gallant (2019), NeuroImage 197; Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022),
NeuroImage 264: random search over the relative weights of the bands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from brainkit.evaluation.baselines.kernels import Kernel, Side, TokenKernels
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.evaluation.baselines.ridge import choose_alphas, dual_weights
from brainkit.utils.progress import Progress

ALPHAS = np.logspace(-4, 4, 9, dtype=np.float32)
SAMPLES = 30  # random weightings, besides equal weights and each layer alone


def banded_ridge(
    problem: Problem, kernels: TokenKernels, *, samples: int = SAMPLES, progress: Progress | None = None
) -> Result:
    """Fit every vertex with the weights of bands, and the penalty, that predict held-out training stimuli best.

    Parameters
    ----------
    problem : Problem
    kernels : TokenKernels
    samples : int
        Random weightings that are tried.
    progress : callable, optional
        Called with (done, total) weightings.

    Returns
    -------
    Result
        ``arrays["layer_predictions"]`` (L, n_test, V), float16: the parts of the predictions that come from each layer,
        in units of the vertex, ``arrays["unit"]`` (V,), which float16 holds whatever the responses' are; times the unit
        and with the mean response, ``arrays["mean"]`` (V,), they add up to the predictions. ``arrays["band_weights"]``
        (V, L, 2): local, global.
    """
    pairs = [kernels.layer(layer) for layer in problem.tokens.layers]
    sides, vertices = Side.of(problem), len(problem.mean)
    weightings = candidate_weights(len(pairs), samples)
    scores = np.full(vertices, -np.inf)
    chosen, alphas = np.zeros(vertices, np.int64), np.ones(vertices, np.float32)
    for number, weights in enumerate(weightings):
        alpha, score = choose_alphas(_weighted(pairs, weights, sides.train, sides.train), problem, ALPHAS)
        better = score > scores
        scores[better], chosen[better], alphas[better] = score[better], number, alpha[better]
        if progress is not None:
            progress(number + 1, len(weightings))

    parts = np.empty((len(pairs), len(problem.split.test), vertices), np.float16)
    predictions = np.tile(problem.mean, (len(problem.split.test), 1))
    spread = problem.targets.std(0, dtype=np.float64).astype(np.float32)
    unit = np.where(spread > 0, spread, 1).astype(np.float32)
    for number in np.unique(chosen):
        weights, here = weightings[number], np.flatnonzero(chosen == number)
        train = _weighted(pairs, weights, sides.train, sides.train)
        dual = dual_weights(train, problem.targets[:, here], alphas[here])
        for layer, (pair, pair_weights) in enumerate(zip(pairs, weights, strict=True)):
            part = _weighted([pair], pair_weights[None], sides.test, sides.train) @ dual
            parts[layer][:, here] = part / unit[here]
            predictions[:, here] += part
    features = sum(kernel.features for pair in pairs for kernel in pair)
    return Result(
        predictions,
        (features + 1) * vertices,
        {
            "layer_predictions": parts,
            "mean": problem.mean,
            "unit": unit,
            "band_weights": weightings[chosen].astype(np.float32),
            "alphas": alphas,
        },
        sum(kernel.seconds for pair in pairs for kernel in pair),
    )


def candidate_weights(layers: int, samples: int) -> np.ndarray:
    """Weights of the bands to try (k, L, 2), with sum 1: equal, each layer alone, and random ones.

    Of a random one, the layers' weights are drawn from a Dirichlet distribution (concentration 0.1 and 1 in turn), and
    the local tokens' share of each layer evenly between 0 and 1.
    """
    from himalaya.kernel_ridge import generate_dirichlet_samples

    halves = np.concatenate([np.full((1, layers), 1 / layers), np.eye(layers)])[:, :, None] * [0.5, 0.5]
    if not samples:
        return halves
    drawn = np.asarray(generate_dirichlet_samples(samples, layers, concentration=[0.1, 1.0], random_state=0))
    local = np.random.default_rng(0).uniform(size=drawn.shape)
    return np.concatenate([halves, np.stack([drawn * local, drawn * (1 - local)], 2)])


def _weighted(pairs: list[tuple[Kernel, Kernel]], weights: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """The weighted sum of kernels, in place: all of them together take gigabytes."""
    total: np.ndarray | None = None
    for weight, kernel in _terms(pairs, weights):
        part = kernel.values[rows, columns] * np.float32(weight)
        total = part if total is None else np.add(total, part, out=total)
    return np.zeros_like(pairs[0][0].values[rows, columns]) if total is None else total


def _terms(pairs: list[tuple[Kernel, Kernel]], weights: np.ndarray) -> Iterator[tuple[float, Kernel]]:
    for pair, pair_weights in zip(pairs, weights, strict=True):
        for kernel, weight in zip(pair, pair_weights, strict=True):
            if weight > 0:
                yield weight, kernel
