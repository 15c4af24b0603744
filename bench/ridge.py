"""Ridge regressions from the same tokens by himalaya, in kernel form: exact, and cheap for few images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from himalaya.kernel_ridge import KernelRidgeCV, MultipleKernelRidgeCV
from sklearn.model_selection import GroupKFold

from bench.fitting import Sample
from brainkit.data.splits import Split
from brainkit.evaluation.scores import Scores
from brainkit.metrics.correlation import StreamingCorrelation

# Kernels are scaled to a mean diagonal of 1.
ALPHAS = np.logspace(-4, 4, 17)
FOLDS = 5


@dataclass(frozen=True)
class Kernels:
    """Linear kernels (n, n) of all images: one for each layer's local tokens, one for its global token."""

    local: list[np.ndarray]
    whole: list[np.ndarray]


def kernels(sample: Sample, split: Split) -> Kernels:
    """Channels are z-scored and every feature is centred, with statistics of the training images."""
    everything = np.arange(len(sample.tokens))
    found = Kernels([], [])
    for layer in sample.tokens.layers:
        local, whole = sample.tokens.batch(everything)
        for tokens, target in ((local[layer].flatten(2), found.local), (whole[layer][:, :, None], found.whole)):
            training = tokens[split.train]
            std = training.std((0, 2)).clamp(min=1e-12)  # per channel, over images and cells
            features = ((tokens - training.mean(0)) / std[None, :, None]).flatten(1).numpy()
            kernel = features @ features.T
            target.append(kernel / np.diag(kernel)[split.train].mean())
    return found


def baselines(sample: Sample, split: Split, iterations: int) -> dict[str, tuple[Scores, float]]:
    """Scores on the test images and CPU seconds, for each way to use the tokens."""
    found = {}
    for name, (predicted, seconds) in predictions(sample, split, iterations).items():
        streamed = StreamingCorrelation(predicted.shape[1])
        streamed.update(predicted, sample.responses.rows(split.test))
        scores = Scores(np.asarray(streamed.r), np.asarray(streamed.R2), sample.ceiling, len(split.test))
        found[name] = scores, seconds
    return found


def predictions(sample: Sample, split: Split, iterations: int) -> dict[str, tuple[np.ndarray, float]]:
    """Predictions (n, V) of the test images and CPU seconds, for each way to use the tokens."""
    stacks = kernels(sample, split)
    pairs = [(local + whole) / 2 for local, whole in zip(stacks.local, stacks.whole, strict=True)]
    target = sample.responses.rows(split.train)
    groups = np.asarray(sample.subject.groups)[split.train]
    folds = list(GroupKFold(FOLDS).split(target, groups=groups))  # crops of one photograph stay together

    def ridge(kernel: np.ndarray, rows: np.ndarray) -> np.ndarray:
        fitted = KernelRidgeCV(alphas=ALPHAS, kernel="precomputed", cv=folds, fit_intercept=True)
        fitted.fit(kernel[np.ix_(split.train, split.train)], target)
        return np.asarray(fitted.predict(kernel[np.ix_(rows, split.train)]))

    def best_layer() -> np.ndarray:
        both = np.concatenate([split.validation, split.test])
        predicted = np.stack([ridge(pair, both) for pair in pairs])  # (L, n, V)
        validation, test = np.split(predicted, [len(split.validation)], axis=1)
        responses = sample.responses.rows(split.validation)
        best = np.argmax([_correlation(layer, responses) for layer in validation], axis=0)
        return np.asarray(test[best, :, np.arange(len(best))].T)

    def banded() -> np.ndarray:
        stacked = np.stack(stacks.local + stacks.whole)
        fitted = MultipleKernelRidgeCV(
            kernels="precomputed",
            solver="random_search",
            solver_params={"n_iter": iterations, "alphas": ALPHAS, "progress_bar": False},
            cv=folds,
            fit_intercept=True,
            random_state=0,
        )
        fitted.fit(stacked[:, split.train[:, None], split.train], target)
        return np.asarray(fitted.predict(stacked[:, split.test[:, None], split.train]))

    regressions: dict[str, Callable[[], np.ndarray]] = {
        "ridge, global tokens of all layers": lambda: ridge(sum(stacks.whole) / len(pairs), split.test),
        "ridge, each vertex's best layer": best_layer,
        "ridge, all tokens": lambda: ridge(sum(pairs) / len(pairs), split.test),
        "banded ridge, a band for each layer's local and global tokens": banded,
    }
    found = {}
    for name, regression in regressions.items():
        started = time.process_time()
        found[name] = regression(), time.process_time() - started
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(0), b - b.mean(0)
    return np.asarray((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0) + 1e-30))
