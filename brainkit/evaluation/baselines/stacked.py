"""Stacked regression: each vertex is a convex combination of the layers' ridge regressions.

Lin, Naselaris, Kay & Wehbe (2024), Stacked regressions and structured variance partitioning for interpretable brain
maps, NeuroImage 298. The combination minimises the squared error on held-out training stimuli, with weights that are
not negative and have sum 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from brainkit.evaluation.baselines.kernels import Side, TokenKernels
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.evaluation.baselines.ridge import dual_weights

_SUM_TO_ONE = 1e4  # weight of that condition, relative to the errors


def stacked(problem: Problem, kernels: TokenKernels, layers: Sequence[Callable[[], Result]], seconds: float) -> Result:
    """Combine the layers' ridge regressions.

    Parameters
    ----------
    problem : Problem
    kernels : TokenKernels
    layers : sequence of callables
        Give the layers' results; called one after another, so that one at a time is in memory.
    seconds : float
        CPU seconds of these.

    Returns
    -------
    Result
        ``arrays["layer_weights"]`` (V, L) are the weights of the combination.
    """
    alphas = [load().arrays["alphas"] for load in layers]
    weights = convex_weights(_error_products(problem, kernels, alphas))
    predictions, parameters = np.zeros((len(problem.split.test), len(problem.mean)), np.float32), 0
    for number, load in enumerate(layers):
        result = load()
        predictions += result.predictions * weights[:, number].astype(np.float32)
        parameters += result.parameters
    return Result(predictions, parameters + weights.size, {"layer_weights": weights.astype(np.float32)}, seconds)


def _error_products(problem: Problem, kernels: TokenKernels, alphas: Sequence[np.ndarray]) -> np.ndarray:
    """Products of the layers' errors on held-out training stimuli, summed over images: (V, L, L)."""
    train, layers = Side.of(problem).train, problem.tokens.layers
    products = np.zeros((len(problem.mean), len(layers), len(layers)))
    for fit_on, held_out in problem.folds:
        errors = np.empty((len(layers), len(held_out), len(problem.mean)), np.float32)
        for number, layer in enumerate(layers):
            local, whole = kernels.layer(layer)
            kernel = (local.values[train, train] + whole.values[train, train]) / 2
            dual = dual_weights(kernel[np.ix_(fit_on, fit_on)], problem.targets[fit_on], alphas[number])
            errors[number] = problem.targets[held_out] - kernel[np.ix_(held_out, fit_on)] @ dual
        for i in range(len(layers)):
            for j in range(i, len(layers)):
                products[:, i, j] += np.einsum("nv,nv->v", errors[i], errors[j])
                products[:, j, i] = products[:, i, j]
    return products


def convex_weights(products: np.ndarray) -> np.ndarray:
    """The weights w (V, L) that minimise w' P w for each matrix of products P (V, L, L), w >= 0 with sum 1.

    By non-negative least squares: P = A' A, and a row of large equal numbers makes the sum 1.
    """
    from scipy.optimize import nnls

    layers = products.shape[1]
    found = np.empty(products.shape[:2])
    condition, target = np.full(layers, _SUM_TO_ONE), np.append(np.zeros(layers), _SUM_TO_ONE)
    for vertex, product in enumerate(products):
        values, vectors = np.linalg.eigh(product / max(np.trace(product), 1e-30))
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        found[vertex], _ = nnls(np.vstack([root, condition]), target)
    return found / found.sum(1, keepdims=True)
