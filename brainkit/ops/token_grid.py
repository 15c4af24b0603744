"""Resize token maps to the common grid: interpolation as a constant matrix."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor


def to_grid(tokens: Tensor, grid: tuple[int, int], resize: str = "area") -> Tensor:
    """Resize token maps (B, C, H, W) to `grid`, see :func:`grid_matrix`."""
    height, width = tokens.shape[-2:]
    if (height, width) == tuple(grid):
        return tokens
    matrix = torch.tensor(grid_matrix(height, width, *grid, resize), dtype=tokens.dtype, device=tokens.device)
    return (tokens.flatten(2) @ matrix).unflatten(2, tuple(grid))


@functools.lru_cache(maxsize=64)
def grid_matrix(height: int, width: int, to_height: int, to_width: int, resize: str = "area") -> np.ndarray:
    """Interpolation from one token grid to another, as a constant matrix.

    Bilinear (``align_corners=False``) as published, up to a factor of 2 per side. Beyond that, the average over the
    area of each new cell, because bilinear would read a few cells of many. ``resize="bilinear"`` is bilinear for any
    factor, as the published weights need.

    Returns
    -------
    array of shape (height * width, to_height * to_width), float64
        New tokens are old tokens (..., H*W) @ matrix; columns sum to 1. Read-only, because it is cached.
    """
    max_ratio = 2.0 if resize == "area" else math.inf
    rows, columns = _interpolation(height, to_height, max_ratio), _interpolation(width, to_width, max_ratio)
    matrix = np.einsum("hi,wj->hwij", rows, columns).reshape(height * width, to_height * to_width)
    matrix.flags.writeable = False
    return matrix


def _interpolation(n: int, to: int, max_ratio: float) -> np.ndarray:
    """One axis of :func:`grid_matrix`: (n, to), columns sum to 1; area averages beyond `max_ratio`."""
    matrix = np.zeros((n, to))
    ratio = n / to
    for j in range(to):
        if ratio > max_ratio:
            low, high = j * ratio, (j + 1) * ratio
            cells = np.arange(n)
            matrix[:, j] = np.clip(np.minimum(cells + 1, high) - np.maximum(cells, low), 0, None) / ratio
        else:
            position = max((j + 0.5) * ratio - 0.5, 0.0)
            first = min(int(position), n - 1)
            second = min(first + 1, n - 1)
            matrix[first, j] += 1 - (position - first)
            matrix[second, j] += position - first
    return matrix
