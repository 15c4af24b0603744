"""Correlation and R2 per vertex over batches, without storing them: for NumPy arrays, and for tensors on any device."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainkit.errors import UsageError


class StreamingCorrelation:
    """Pearson correlation and R2 per vertex over batches of any size.

    Sums are taken over values relative to the first row, and batches are merged by their means (Chan et al. 1983), so
    neither large offsets nor the order of the batches do harm. A NaN makes its own vertex NaN and no other.

    Parameters
    ----------
    n_vertices : int
        V.
    zeros : array or tensor of shape (V,), optional
        Zeros of the kind, dtype and device of the state; default: a NumPy array of float64. For tensors pass
        ``torch.zeros(V, dtype=torch.float64, device=device)``, or float32 where the device has no float64.

    Attributes
    ----------
    n : int
        Rows so far.

    References
    ----------
    Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    """

    def __init__(self, n_vertices: int, zeros: Any = None) -> None:
        self.n = 0
        self._n_vertices = int(n_vertices)
        zeros = np.zeros(self._n_vertices) if zeros is None else zeros
        if tuple(zeros.shape) != (self._n_vertices,):
            raise UsageError(f"zeros must have shape ({self._n_vertices},), got {tuple(zeros.shape)}")
        # First row, means relative to it, and sums of squares and products about the means. (V,) each
        self._first_p, self._first_y = zeros, zeros
        self._mean_p, self._mean_y = zeros * 1, zeros * 1
        self._pp, self._yy, self._py, self._sse = zeros * 1, zeros * 1, zeros * 1, zeros * 1

    def update(self, prediction: Any, response: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction, response : arrays or tensors of shape (b, V)
            Tensors must be on the state's device.

        Raises
        ------
        UsageError
            If the shapes differ, or are not (b, V).
        """
        p, y = self._converted(prediction), self._converted(response)
        if p.shape != y.shape or p.ndim != 2 or p.shape[1] != self._n_vertices:
            raise UsageError(
                f"prediction and response must both have shape (b, {self._n_vertices}), "
                f"got {tuple(p.shape)} and {tuple(y.shape)}"
            )
        if not len(p):
            return
        with np.errstate(invalid="ignore", over="ignore"):
            sse = ((y - p) ** 2).sum(0)
            if not self.n:
                self._first_p, self._first_y = p[0] * 1, y[0] * 1
            # Relative to a row of the data a constant column is exactly zero, so "constant" needs no tolerance.
            p, y = p - self._first_p, y - self._first_y
            mean_p, mean_y = p.mean(0), y.mean(0)
            p, y = p - mean_p, y - mean_y
            self._merge(len(p), mean_p, mean_y, (p * p).sum(0), (y * y).sum(0), (p * y).sum(0), sse)

    def merge(self, other: StreamingCorrelation) -> None:
        """Add the rows of another state of the same kind and device."""
        self.merge_array(other.to_array())

    def to_array(self) -> Any:
        """The state as one array or tensor, (9, V), to send to another process; see `from_array` and `merge_array`."""
        rows = (self._first_p, self._first_y, self._mean_p, self._mean_y, self._pp, self._yy, self._py, self._sse)
        shape = (1 + len(rows), self._n_vertices)
        state = np.empty(shape, rows[0].dtype) if isinstance(rows[0], np.ndarray) else rows[0].new_empty(shape)
        state[0] = self.n
        for index, row in enumerate(rows, start=1):
            state[index] = row
        return state

    @classmethod
    def from_array(cls, state: Any) -> StreamingCorrelation:
        """The state that gave this array or tensor, (9, V), by `to_array`."""
        correlation = cls(state.shape[1], zeros=state[0] * 0)
        correlation.merge_array(state)
        return correlation

    def merge_array(self, state: Any) -> None:
        """Add the rows of another state, given as its `to_array`, (9, V)."""
        n = int(state[0, 0]) if self._n_vertices else 0
        if not n:
            return
        first_p, first_y, mean_p, mean_y, pp, yy, py, sse = state[1:]
        if not self.n:
            self._first_p, self._first_y = first_p * 1, first_y * 1
        with np.errstate(invalid="ignore", over="ignore"):
            # The other state's means are relative to its own first row.
            mean_p, mean_y = mean_p + (first_p - self._first_p), mean_y + (first_y - self._first_y)
            self._merge(n, mean_p, mean_y, pp, yy, py, sse)

    @property
    def r(self) -> Any:
        """Pearson correlation, (V,), in [-1, 1]; NaN where prediction or response is constant."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            r = self._py / (self._pp**0.5 * self._yy**0.5)
        r[(self._pp == 0) | (self._yy == 0)] = np.nan
        return r.clip(-1.0, 1.0)

    @property
    def constant(self) -> tuple[Any, Any]:
        """Where the prediction, and where the response, is constant: (V,) bool each."""
        return self._pp == 0, self._yy == 0

    @property
    def responds(self) -> Any:
        """Where the response varies, and every value of it is known: (V,) bool."""
        return (self._yy > 0) & (self._yy < float("inf"))

    @property
    def is_predicted(self) -> Any:
        """Where every value of the prediction is known: (V,) bool."""
        return self._pp < float("inf")

    @property
    def R2(self) -> Any:
        """Share of variance predicted, (V,): 1 - SSE/SST; negative where the mean would predict better."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            value = 1.0 - self._sse / self._yy
        value[self._yy == 0] = np.nan
        return value

    def _converted(self, values: Any) -> Any:
        """Values in the kind and dtype of the state, without their gradient."""
        if isinstance(self._pp, np.ndarray):
            return np.asarray(values, self._pp.dtype)
        return values.detach().to(self._pp.dtype)

    def _merge(self, b: int, mean_p: Any, mean_y: Any, pp: Any, yy: Any, py: Any, sse: Any) -> None:
        """Add `b` rows, given by their means relative to the first row, and their sums about the means."""
        total = self.n + b
        step_p, step_y = mean_p - self._mean_p, mean_y - self._mean_y
        weight = self.n * b / total
        self._pp += pp + weight * step_p * step_p
        self._yy += yy + weight * step_y * step_y
        self._py += py + weight * step_p * step_y
        self._sse += sse
        self._mean_p += step_p * (b / total)
        self._mean_y += step_y * (b / total)
        self.n = total
