"""What every baseline is given, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from brainkit.data.split import Split
from brainkit.errors import DataError
from brainkit.features.cache import TokenCache
from brainkit.training.datamodule import ResponseSource

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Problem:
    """The data that all baselines are fitted to: the same tokens, images, responses and split.

    Attributes
    ----------
    tokens : TokenCache
        Of all n images.
    images : sequence of Path, (n,)
    responses : ResponseSource
        ``rows(index)`` gives responses (k, V).
    groups : sequence of str, (n,)
        The stimulus of each image; cross-validation keeps its images together.
    split : Split
        Hyper-parameters are chosen on training images (the best layer: on validation images); only predictions are made
        for test images.
    """

    tokens: TokenCache
    images: Sequence[Path]
    responses: ResponseSource
    groups: Sequence[str]
    split: Split

    @cached_property
    def order(self) -> np.ndarray:
        """The rows of all images that are used: training, validation, test."""
        return np.concatenate([self.split.train, self.split.validation, self.split.test])

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean training response (V,), float32."""
        return self._training[0]

    @property
    def targets(self) -> np.ndarray:
        """Training responses without their mean (n_train, V), float32."""
        return self._training[1]

    @cached_property
    def _training(self) -> tuple[np.ndarray, np.ndarray]:
        responses = self.responses.rows(self.split.train)
        mean = responses.mean(0, dtype=np.float64).astype(np.float32)
        return mean, responses - mean

    @cached_property
    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions among the training images to fit and to validate on, for each fold.

        Raises
        ------
        DataError
            If the training images show one stimulus only.
        """
        from sklearn.model_selection import GroupKFold

        groups = np.asarray(self.groups)[self.split.train]
        stimuli = len(np.unique(groups))
        if stimuli < 2:
            raise DataError(f"training images: expected at least 2 stimuli for cross-validation, found {stimuli}")
        return list(GroupKFold(min(FOLDS, stimuli)).split(groups, groups=groups))


@dataclass(frozen=True, eq=False)
class Result:
    """A fitted baseline.

    Attributes
    ----------
    predictions : array of shape (n_test, V), float32
        In the order of ``split.test``, in the units of the responses.
    parameters : int
        Numbers that are fitted to the responses, in the form whose size does not depend on the number of images: a
        weight for each feature and vertex, and a mean for each vertex.
    arrays : mapping of str to array
        What else there is to keep, for example the layer that each vertex prefers.
    shared_seconds : float
        CPU seconds of work that other baselines use too, such as kernels; part of the baseline's cost.
    """

    predictions: np.ndarray
    parameters: int
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    shared_seconds: float = 0.0
