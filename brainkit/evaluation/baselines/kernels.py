"""Linear kernels (n, n) of tokens and other features: ridge regression in them is exact, however many features.

A layer of n images has n x 50,000 numbers and more; they are read in blocks of channels, and only their products are
kept. Images are in the order of :attr:`Problem.order`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from brainkit.evaluation.baselines.problem import Problem

_BLOCK = 2**27  # numbers of a block: 512 MB in float32


@dataclass(frozen=True, eq=False)
class Kernel:
    """The products of all images' features, centred and scaled with statistics of the training images.

    Attributes
    ----------
    values : array of shape (n, n), float32
        Scaled so that the mean of its diagonal over training images is 1.
    features : int
    seconds : float
        CPU seconds that it took, if other baselines use it too; else 0.
    """

    values: np.ndarray
    features: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Side:
    """Where training images and others are in kernels, by their order."""

    train: slice
    validation: slice
    test: slice

    @classmethod
    def of(cls, problem: Problem) -> Side:
        split = problem.split
        first, second = len(split.train), len(split.train) + len(split.validation)
        return cls(slice(0, first), slice(first, second), slice(second, second + len(split.test)))


class TokenKernels:
    """Kernels of each layer's local tokens and of its global token, computed when they are first asked for.

    Channels are z-scored over training images and cells, and every feature is centred.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    seconds : float
        CPU seconds spent so far.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.seconds = problem, 0.0
        self._found: dict[str, tuple[Kernel, Kernel]] = {}

    def layer(self, layer: str) -> tuple[Kernel, Kernel]:
        """The kernels of a layer's local and global tokens."""
        if layer not in self._found:
            self._found[layer] = self._compute(layer)
            self.seconds += sum(kernel.seconds for kernel in self._found[layer])
        return self._found[layer]

    def _compute(self, layer: str) -> tuple[Kernel, Kernel]:
        tokens, order = self.problem.tokens, self.problem.order
        width, cells = tokens.widths[layer], tokens.grid[0] * tokens.grid[1]
        sums = tuple(_Products(len(self.problem.split.train)) for _ in range(2))
        step = max(1, _BLOCK // (len(order) * cells))
        for start in range(0, width, step):
            for part, summed in zip(tokens.layer(layer, order, slice(start, start + step)), sums, strict=True):
                summed.add(part.flatten(1).unflatten(1, (part.shape[1], -1)).numpy())
        local, whole = sums
        return local.kernel(width * cells), whole.kernel(width)


def feature_kernel(features: np.ndarray, n_train: int, count: int) -> Kernel:
    """The kernel of features that no other baseline uses.

    Parameters
    ----------
    features : array of shape (n, channels, cells)
        Of training images first. Channels are z-scored over training images and cells, and every feature is centred.
    n_train : int
    count : int
        Of different features.
    """
    products = _Products(n_train)
    products.add(features)
    return replace(products.kernel(count), seconds=0.0)


class _Products:
    """Sums of products of blocks of channels."""

    def __init__(self, n_train: int) -> None:
        self.n_train, self.seconds = n_train, 0.0
        self.sum: np.ndarray | None = None

    def add(self, block: np.ndarray) -> None:
        """Add channels (n, channels, cells)."""
        started = time.process_time()
        training = block[: self.n_train]
        std = training.std((0, 2), dtype=np.float64).astype(np.float32)
        # A constant channel says nothing.
        features = (block - training.mean(0)) * np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)[:, None]
        features = features.reshape(len(features), -1)
        product = features @ features.T
        self.sum = product if self.sum is None else np.add(self.sum, product, out=self.sum)
        self.seconds += time.process_time() - started

    def kernel(self, features: int) -> Kernel:
        """The kernel, when all channels are added."""
        assert self.sum is not None
        scale = float(np.diag(self.sum)[: self.n_train].mean())
        if scale > 0:
            self.sum /= scale
        return Kernel(self.sum, features, self.seconds)
