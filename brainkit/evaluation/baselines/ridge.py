"""Ridge regression in kernels, with a penalty for each vertex: from one layer, from the best, from all tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from brainkit.evaluation.baselines.kernels import Kernel, Side, TokenKernels
from brainkit.evaluation.baselines.problem import Problem, Result

# Kernels are scaled to a mean diagonal of 1.
ALPHAS = np.logspace(-4, 4, 17, dtype=np.float32)
_VERTICES = 2000  # of a batch
_ALPHAS = 4  # of a batch


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """Kernel ridge regression of every vertex.

    Attributes
    ----------
    alphas : array of shape (V,)
        The penalty of each vertex.
    dual : array of shape (n_train, V), float32
        ``kernel @ dual + mean`` predicts.
    """

    alphas: np.ndarray
    dual: np.ndarray


def fit_ridge(kernel: np.ndarray, problem: Problem) -> RidgeFit:
    """Fit every vertex with the penalty that predicts held-out training stimuli best.

    Parameters
    ----------
    kernel : array of shape (n, n)
        Of all images.
    problem : Problem
    """
    train = Side.of(problem).train
    alphas, _ = choose_alphas(kernel[train, train], problem, ALPHAS)
    return RidgeFit(alphas, dual_weights(kernel[train, train], problem.targets, alphas))


def choose_alphas(kernel: np.ndarray, problem: Problem, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best penalty of each vertex by cross-validation over stimuli, with himalaya.

    Parameters
    ----------
    kernel : array of shape (n_train, n_train)
    problem : Problem
    alphas : array
        The penalties to choose from.

    Returns
    -------
    best : array of shape (V,), float32
    scores : array of shape (V,)
        The negative mean squared error with it.
    """
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

    # Features and targets are centred, so there is no intercept.
    _, _, scores, best = solve_multiple_kernel_ridge_random_search(
        kernel[None],
        problem.targets,
        n_iter=np.ones((1, 1), kernel.dtype),
        alphas=alphas,
        cv=problem.folds,
        n_targets_batch=_VERTICES,
        n_alphas_batch=_ALPHAS,
        progress_bar=False,
        return_alphas=True,
    )
    return best, scores[0]


def dual_weights(kernel: np.ndarray, targets: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Solve ``(kernel + alpha) dual = targets`` for every vertex (n_train, V), by one decomposition."""
    import scipy.linalg

    values, vectors = scipy.linalg.eigh(kernel)
    values = np.maximum(values, 0)[:, None]
    dual = np.empty_like(targets)
    for start in range(0, targets.shape[1], _VERTICES):
        part = slice(start, start + _VERTICES)
        dual[:, part] = vectors @ ((vectors.T @ targets[:, part]) / (values + alphas[part]))
    return dual


def predict(kernel: np.ndarray, fit: RidgeFit, problem: Problem, side: slice) -> np.ndarray:
    """Responses (k, V) predicted to the images of one side of the split."""
    return np.asarray(kernel[side, : len(fit.dual)] @ fit.dual + problem.mean)


def ridge_result(kernel: Kernel, problem: Problem) -> Result:
    """Ridge regression in one kernel."""
    fit = fit_ridge(kernel.values, problem)
    predictions = predict(kernel.values, fit, problem, Side.of(problem).test)
    return Result(predictions, _parameters(kernel.features, problem), {"alphas": fit.alphas}, kernel.seconds)


def layer_ridge(layer: str, problem: Problem, kernels: TokenKernels) -> Result:
    """Ridge regression from one layer: its local tokens and its global token weigh the same.

    The arrays hold what `best_layer` and stacking need: the penalties, and r on the validation images.
    """
    local, whole = kernels.layer(layer)
    kernel, sides = (local.values + whole.values) / 2, Side.of(problem)
    fit = fit_ridge(kernel, problem)
    validation = problem.responses.rows(problem.split.validation)
    arrays = {
        "alphas": fit.alphas,
        "validation_r": column_correlation(predict(kernel, fit, problem, sides.validation), validation),
    }
    return Result(
        predict(kernel, fit, problem, sides.test),
        _parameters(local.features + whole.features, problem),
        arrays,
        local.seconds + whole.seconds,
    )


def best_layer(layers: Sequence[Callable[[], Result]], seconds: float) -> Result:
    """For each vertex the layer whose ridge predicts the validation images best.

    Parameters
    ----------
    layers : sequence of callables
        Give the layers' results; called one after another, so that one at a time is in memory.
    seconds : float
        CPU seconds of these.
    """
    first = layers[0]()
    best, predictions, parameters = first.arrays["validation_r"].copy(), first.predictions.copy(), 0
    chosen = np.zeros(len(best), np.int32)
    for number, load in enumerate(layers):
        result = load()
        better = np.nan_to_num(result.arrays["validation_r"], nan=-2) > np.nan_to_num(best, nan=-2)
        best[better], chosen[better] = result.arrays["validation_r"][better], number
        predictions[:, better] = result.predictions[:, better]
        parameters = max(parameters, result.parameters)
    return Result(predictions, parameters, {"layer": chosen}, seconds)


def global_ridge(problem: Problem, kernels: TokenKernels) -> Result:
    """Ridge regression from the global tokens of all layers."""
    return ridge_result(_mean([kernels.layer(layer)[1] for layer in problem.tokens.layers]), problem)


def all_ridge(problem: Problem, kernels: TokenKernels) -> Result:
    """Ridge regression from all tokens of all layers, each layer's local and global ones weighing the same."""
    return ridge_result(all_tokens(problem, kernels), problem)


def all_tokens(problem: Problem, kernels: TokenKernels) -> Kernel:
    """The mean of all layers' kernels."""
    return _mean([kernel for layer in problem.tokens.layers for kernel in kernels.layer(layer)])


def column_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns of two arrays (n, V), in float64; NaN where one is constant."""
    from brainkit.metrics.correlation import StreamingCorrelation

    streamed = StreamingCorrelation(a.shape[1])
    streamed.update(a, b)
    return np.asarray(streamed.r)


def _mean(kernels: Sequence[Kernel]) -> Kernel:
    total = np.zeros_like(kernels[0].values)
    for kernel in kernels:
        total += kernel.values
    total /= len(kernels)
    return Kernel(total, sum(kernel.features for kernel in kernels), sum(kernel.seconds for kernel in kernels))


def _parameters(features: int, problem: Problem) -> int:
    return (features + 1) * len(problem.mean)
