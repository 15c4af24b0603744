"""Means and variances of rows that come a few at a time."""

from __future__ import annotations

import numpy as np


class Moments:
    """Count, mean and sum of squared deviations of each column, in float64.

    Blocks are merged by the update of Chan, Golub and LeVeque (1983), which loses no digits where the mean is large
    beside the spread. A NaN stays in its column.

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
        """Take rows (b, columns)."""
        if not len(rows):
            return
        exact = np.asarray(rows, np.float64)
        mean = exact.mean(axis=0)
        squares = np.square(exact - mean).sum(axis=0)
        total = self.count + len(exact)
        apart = mean - self.mean
        self._squares += squares + apart * apart * (self.count * len(exact) / total)
        self.mean += apart * (len(exact) / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Unbiased (n - 1); NaN for fewer than two rows. (columns,)"""
        return self._squares / (self.count - 1) if self.count > 1 else np.full(len(self.mean), np.nan)
