"""Token maps brought to the common grid: interpolation as a constant matrix."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor


def to_grid(tokens: Tensor, grid: tuple[int, int], resize: str = "area") -> Tensor:
    """Bring token maps (B, C, H, W) to the common grid, see :func:`grid_matrix`."""
    height, width = tokens.shape[-2:]
    if (height, width) == tuple(grid):
        return tokens
    matrix = torch.tensor(grid_matrix(height, width, *grid, resize), dtype=tokens.dtype, device=tokens.device)
    return (tokens.flatten(2) @ matrix).unflatten(2, tuple(grid))


@functools.lru_cache(maxsize=64)
def grid_matrix(height: int, width: int, to_height: int, to_width: int, resize: str = "area") -> np.ndarray:
    """The interpolation from one token grid to another, as a constant matrix.

    Bilinear (cell edges not aligned) as published up to a factor of 2 a side; beyond it the average over the area
    each new cell covers, because bilinear would read a few cells of many. Published weights were trained on that all
    the same: with ``resize="bilinear"`` it is bilinear throughout.

    Returns
    -------
    array of shape (height * width, to_height * to_width), float64
        Columns sum to 1; new tokens = old tokens (..., H*W) @ matrix. Read-only, because it is kept.
    """
    most = 2.0 if resize == "area" else math.inf
    rows, columns = _interpolation(height, to_height, most), _interpolation(width, to_width, most)
    matrix = np.einsum("hi,wj->hwij", rows, columns).reshape(height * width, to_height * to_width)
    matrix.flags.writeable = False
    return matrix


def _interpolation(n: int, to: int, most: float) -> np.ndarray:
    """One axis of :func:`grid_matrix`: (n, to), columns sum to 1; area means beyond a ratio of `most`."""
    matrix = np.zeros((n, to))
    ratio = n / to
    for j in range(to):
        if ratio > most:
            low, high = j * ratio, (j + 1) * ratio
            cells = np.arange(n)
            matrix[:, j] = np.clip(np.minimum(cells + 1, high) - np.maximum(cells, low), 0, None) / ratio
        else:
            place = max((j + 0.5) * ratio - 0.5, 0.0)
            first = min(int(place), n - 1)
            second = min(first + 1, n - 1)
            matrix[first, j] += 1 - (place - first)
            matrix[second, j] += place - first
    return matrix
