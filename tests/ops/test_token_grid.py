"""Resizing token maps: bilinear as torch's up to a factor of 2, area averages beyond."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brainkit.ops.token_grid import grid_matrix, to_grid


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (8, 8)), ((16, 16), (8, 8)), ((14, 14), (8, 8)), ((7, 7), (8, 8)), ((4, 9), (6, 5)), ((39, 15), (20, 8))],
)
def test_grids_up_to_a_factor_of_two_are_bilinear_as_published(old: tuple[int, int], new: tuple[int, int]) -> None:
    tokens = torch.randn(2, 3, *old, dtype=torch.float64)
    expected = F.interpolate(tokens, new, mode="bilinear", align_corners=False)
    torch.testing.assert_close(to_grid(tokens, new), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ratio", [3, 4, 14])
def test_grids_beyond_a_factor_of_two_are_area_means(ratio: int) -> None:
    tokens = torch.randn(2, 3, 2 * ratio, 3 * ratio, dtype=torch.float64)
    torch.testing.assert_close(to_grid(tokens, (2, 3)), F.avg_pool2d(tokens, ratio), rtol=0, atol=1e-12)


@pytest.mark.parametrize("old", [1, 5, 20, 29, 112])
def test_grid_matrix_keeps_constants_and_the_total(old: int) -> None:
    matrix = grid_matrix(old, old + 2, 8, 8)
    assert matrix.shape == (old * (old + 2), 64)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(0), 1)
