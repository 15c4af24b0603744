"""Means and variances of rows that arrive in blocks."""

from __future__ import annotations

import numpy as np


class Moments:
    """Count, mean and sum of squared deviations of each column, in float64.

    Blocks are merged by the update of Chan, Golub and LeVeque (1983), which loses no digits if the mean is large
    compared with the s.d. A NaN affects its own column only.

    Attributes
    ----------
    count : int
        Rows so far.
    mean : array of shape (columns,)
    """

    def __init__(self, columns: int) -> None:
        self.count = 0
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)

    def add(self, rows: np.ndarray) -> None:
        """Add rows (b, columns)."""
        if not len(rows):
            return
        block = np.asarray(rows, np.float64)
        mean = block.mean(axis=0)
        squares = np.square(block - mean).sum(axis=0)
        total = self.count + len(block)
        step = mean - self.mean
        self._squares += squares + step * step * (self.count * len(block) / total)
        self.mean += step * (len(block) / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Unbiased (n - 1); NaN for fewer than two rows. (columns,)"""
        return self._squares / (self.count - 1) if self.count > 1 else np.full(len(self.mean), np.nan)
