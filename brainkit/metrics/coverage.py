"""Which part of the image a group of vertices reads."""

from __future__ import annotations

import numpy as np

from brainkit.errors import UsageError


def image_coverage(
    locations: np.ndarray, weights: np.ndarray | None = None, *, side: int = 64, bandwidth: float = 0.12
) -> np.ndarray:
    """Density of locations over the image, relative to an even one.

    Each vertex is a Gaussian, of which what falls outside of the image is reflected at its edge.

    Parameters
    ----------
    locations : array of shape (n, 2)
        In [-1, 1], x right and y down.
    weights : array of shape (n,), optional
        Non-negative; such as the accuracy, so that vertices that are not predicted do not count.
    side : int
        Rows and columns of the result.
    bandwidth : float
        Standard deviation of the Gaussians; the image has a width of 2.

    Returns
    -------
    array of shape (side, side)
        Rows from top to bottom; 1 is what vertices spread evenly over the image would give, and the mean is 1. NaN
        if no vertex has a weight.

    Raises
    ------
    UsageError
        If a shape does not fit or a weight is negative.
    """
    locations = np.asarray(locations, np.float64)
    weights = np.ones(len(locations)) if weights is None else np.asarray(weights, np.float64)
    if locations.ndim != 2 or locations.shape[1] != 2 or weights.shape != (len(locations),):
        raise UsageError(f"locations must be (n, 2) and weights (n,), got {locations.shape} and {weights.shape}")
    known = np.isfinite(locations).all(axis=1) & np.isfinite(weights)
    locations, weights = locations[known], weights[known]
    if (weights < 0).any():
        raise UsageError("weights must not be negative")
    if not weights.sum() > 0:
        return np.full((side, side), np.nan)
    centres = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = (_reflected_gaussians(centres, np.clip(axis, -1, 1), bandwidth) for axis in locations.T)  # (side, n)
    density = (y * weights) @ x.T
    return density / density.mean()


def _reflected_gaussians(centres: np.ndarray, at: np.ndarray, bandwidth: float) -> np.ndarray:
    images = np.stack([at, 2 - at, -2 - at])  # the point, and its reflections at both edges
    return np.exp(-((centres[:, None, None] - images) ** 2) / (2 * bandwidth**2)).sum(axis=1)
