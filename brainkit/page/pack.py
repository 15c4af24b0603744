"""Arrays as one compressed text, small enough for a page. `assets/unpack.js` reads it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

UNKNOWN = 65_535  # of numbers stored as uint16


class Pool:
    """Collects arrays; a small description of each goes into the page's JSON."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray, *, delta: bool = False) -> dict[str, Any]:
        """Store integers of shape (n,) or (n, k).

        Parameters
        ----------
        array : array of dtype uint8, int8, uint16, int16, uint32 or int32
        delta : bool
            Store differences along the first axis, modulo the range of the dtype: small where neighbours are alike.

        Returns
        -------
        dict
            What `assets/unpack.js` needs to restore it.
        """
        columns = np.ascontiguousarray(array.reshape(len(array), -1).T)
        if delta:
            columns = np.diff(columns, axis=1, prepend=np.zeros_like(columns[:, :1]))
        # Bytes of equal weight side by side: the high ones hardly change, so they compress to little.
        little = columns.astype(columns.dtype.newbyteorder("<"))
        planes = little.view(np.uint8).reshape(*columns.shape, columns.itemsize).transpose(0, 2, 1)
        found = {
            "at": self._size,
            "count": len(array),
            "columns": len(columns),
            "type": columns.dtype.kind + str(8 * columns.itemsize),
            "delta": delta,
        }
        self._parts.append(planes.tobytes())
        self._size += columns.nbytes
        return found

    def add_numbers(self, values: np.ndarray) -> dict[str, Any]:
        """Store numbers to a 2,000th of the range of the middle 98 % of them; infinities and NaN as unknown.

        With outliers so far that 65,534 such steps do not reach them, as float32. (n,) or (n, k).
        """
        values = np.asarray(values, dtype=np.float64)
        known = np.isfinite(values)
        found = values[known] if known.any() else np.zeros(1)
        low, high = float(found.min()), float(found.max())
        inner = float(np.subtract(*np.percentile(found, [99, 1])))
        if (high - low) / (UNKNOWN - 1) > inner / 2000 > 0:
            bits = np.where(known, values, np.nan).astype(np.float32).view(np.uint32)
            return {"low": low, "step": 0, **self.add(bits)}
        step = max((high - low) / (UNKNOWN - 1), inner / 2000)
        steps = np.rint((np.where(known, values, low) - low) / step) if step > 0 else np.zeros(values.shape)
        return {"low": low, "step": step, **self.add(np.where(known, steps, UNKNOWN).astype(np.uint16))}

    def text(self) -> str:
        """All arrays, compressed with zlib, in base64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 6)).decode("ascii")
