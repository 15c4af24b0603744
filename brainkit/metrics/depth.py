"""The depth in a network that a vertex prefers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def relative_depth(layer_weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The expected layer of each vertex: 0 if all weight is on the first layer, 1 if on the last.

    Parameters
    ----------
    layer_weights : array of shape (V, L)
        Non-negative, each row summing to 1.

    Returns
    -------
    array of shape (V,), in [0, 1]
        ``sum_l l * weight_l / (L - 1)``; NaN for a single layer.
    """
    weights = np.asarray(layer_weights, np.float64)
    steps = weights.shape[1] - 1
    return np.asarray(weights @ np.arange(steps + 1) / steps) if steps else np.full(len(weights), np.nan)
