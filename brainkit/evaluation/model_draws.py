"""One model or two in many draws: bootstrap samples and the jackknife's, and after exchanges of predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from brainkit.evaluation.resampled import DRAWN, Column, drawn_centres, resample, steps
from brainkit.metrics.paired import Scores, draw_runs, exchanged_scores, resampled_scores
from brainkit.metrics.resampling import LEAST_GROUPS, bootstrap_weights, jackknife_weights

EVERY = slice(None)


class Difference(NamedTuple):
    """The difference of two models in many draws.

    Attributes
    ----------
    centres : array of shape (draws, columns, 2), float64
        Of medians and means over vertices.
    r_of : callable
        Gives the difference of r in a block of vertices, (draws, k).
    """

    centres: np.ndarray
    r_of: Callable[[slice], np.ndarray]


@dataclass(frozen=True, eq=False)
class ModelDraws:
    """One model or two, and how often each image counts in every draw: bootstrap samples, then the jackknife's."""

    models: Sequence[Sequence[np.ndarray]]
    responses: np.ndarray
    ceiling: np.ndarray
    weights: np.ndarray
    shares: Sequence[np.ndarray]
    bootstrap: int

    def measure(self, model: int) -> Scores:
        """A model's r and R2 of all images, (1, V) each."""
        return resampled_scores(self.models[model], self.responses, np.ones((1, len(self.responses)), np.float32))

    def centres(self, columns: Sequence[Column]) -> np.ndarray:
        """The first model's medians and means over vertices in every draw, (draws, columns, 2)."""
        draws, vertices = len(self.weights), self.responses.shape[1]
        return resample(lambda rows: self._score(0, rows), draws, vertices, self.ceiling, columns)[0]

    def bootstrap_difference(self, columns: Sequence[Column]) -> Difference:
        """The difference of two models in every draw."""
        return self._difference(
            lambda rows, block: (self._score(0, rows, block), self._score(1, rows, block)), len(self.weights), columns
        )

    def exchange_difference(self, exchanges: np.ndarray, columns: Sequence[Column]) -> Difference:
        """The difference of two models after every exchange, (exchanges, n)."""

        def score(rows: slice, block: slice) -> tuple[Scores, Scores]:
            one, other = ([predictions[:, block] for predictions in model] for model in self.models)
            return exchanged_scores(one, other, self.responses[:, block], exchanges[rows])

        return self._difference(score, len(exchanges), columns)

    def _score(self, model: int, rows: slice, block: slice = EVERY) -> Scores:
        runs = [predictions[:, block] for predictions in self.models[model]]
        return resampled_scores(runs, self.responses[:, block], self.weights[rows], self.shares[model][rows])

    def _difference(
        self, score: Callable[[slice, slice], tuple[Scores, Scores]], draws: int, columns: Sequence[Column]
    ) -> Difference:
        vertices = self.responses.shape[1]
        centres = np.empty((draws, len(columns), 2))
        kept = np.empty((draws, vertices), np.float32) if draws * vertices <= DRAWN else None
        for rows in steps(draws, vertices, DRAWN // 6):  # scores of two models, beside the differences that are kept
            one, other = score(rows, EVERY)
            centres[rows] = drawn_centres(*one, self.ceiling, columns) - drawn_centres(*other, self.ceiling, columns)
            if kept is not None:
                np.subtract(one[0], other[0], out=kept[rows])
            del one, other  # before the next step takes as much memory

        def r_of(block: slice) -> np.ndarray:
            if kept is not None:
                return kept[:, block]
            (r, _), (other_r, _) = score(EVERY, block)
            return r - other_r

        return Difference(centres, r_of)


def draw(
    models: Sequence[Sequence[np.ndarray]],
    responses: np.ndarray,
    codes: np.ndarray,
    ceiling: np.ndarray,
    bootstrap: int,
    seed: int,
) -> ModelDraws:
    """Draw stimuli, and the runs of each model: the same stimuli for all models and vertices.

    Parameters
    ----------
    models : sequence of sequences of arrays of shape (n, V)
        The predictions of each model's runs.
    responses : array of shape (n, V)
    codes : int array of shape (n,)
        The stimulus of each image, see `brainkit.metrics.resampling.group_codes`.
    ceiling : array of shape (V,)
    bootstrap : int
        Nothing is drawn of fewer than 10 stimuli.
    seed : int
    """
    bootstrap = bootstrap if codes.max() + 1 >= LEAST_GROUPS else 0
    weights = np.concatenate([bootstrap_weights(codes, bootstrap, seed), jackknife_weights(codes)])
    shares = []
    for index, model in enumerate(models):
        # In the jackknife, all runs alike.
        rest = np.full((len(weights) - bootstrap, len(model)), 1 / len(model))
        shares.append(np.concatenate([draw_runs(len(model), bootstrap, (seed, 1 + index)), rest]))
    return ModelDraws(models, responses, ceiling, weights if bootstrap else weights[:0], shares, bootstrap)
