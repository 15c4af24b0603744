"""How much groups of vertices read each layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainkit.metrics.resampling import bootstrap_weights


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """Mean layer weights of a group of n vertices.

    Parameters
    ----------
    mean : array of shape (L,)
        Sums to 1; NaN without vertices.
    low, high : array of shape (L,)
        95 % of the means of vertices drawn anew. Neighbours are alike, so this is less than how much another subject
        or other images would differ.
    vertices : int
        n.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    vertices: int


def layer_profile(layer_weights: np.ndarray, *, draws: int = 1000, seed: int = 0) -> LayerProfile:
    """Mean layer weights of a group of vertices, with percentile bootstrap intervals over the vertices.

    Parameters
    ----------
    layer_weights : array of shape (n, L)
        Non-negative, rows sum to 1; rows with NaN are left out.
    draws : int
        Bootstrap samples.
    seed : int
    """
    weights = np.asarray(layer_weights, np.float64)
    weights = weights[np.isfinite(weights).all(axis=1)]
    count, layers = weights.shape
    if not count:
        unknown = np.full(layers, np.nan)
        return LayerProfile(unknown, unknown, unknown, 0)
    means = bootstrap_weights(np.arange(count), draws, seed) @ weights / count  # (draws, L)
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return LayerProfile(weights.mean(axis=0), low, high, count)
