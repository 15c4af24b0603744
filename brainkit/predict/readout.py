"""The readout of some vertices, computed from an encoder file's ``tokens``: a subset without a new export.

The rows of those vertices are read straight from the file, and the C++ operator does the rest; NumPy if it is missing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.encoder_file.graph import Tensor, read_graph, read_rows
from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import EncoderFileError
from brainkit.utils.system import cores

try:
    import brainkit._C as _C
except ImportError:  # installed without it; `brainkit doctor` says so
    _C: Any = None  # type: ignore[no-redef]

_ARRAYS = ("weight", "coefficients", "cells", "counts", "order", "bias")


@dataclass(frozen=True)
class _Rows:
    """The arrays of n vertices sorted by group; for an ensemble, those of one member."""

    weight: np.ndarray  # (n, D) float32, divided by D
    coefficients: np.ndarray  # (n, 5, L) float32
    bias: np.ndarray  # (n,) float32
    taps: np.ndarray  # (G, 5) int64
    starts: np.ndarray  # (G + 1,) int64
    order: np.ndarray  # (n,) the row of each requested vertex


class SubsetReadout:
    """Responses of some vertices from tokens.

    Parameters
    ----------
    path : path-like
        An encoder file whose digest was checked.
    info : EncoderInfo
        Its metadata.
    columns : array of shape (n,), int
        Positions of the vertices in 0..V-1, in the order of the results.
    threads : int, optional
        By default one for each core this process may use.

    Raises
    ------
    EncoderFileError
        If the file lacks the arrays that its format promises, or they have other dtypes or sizes.
    """

    def __init__(
        self, path: str | os.PathLike[str], info: EncoderInfo, columns: np.ndarray, *, threads: int | None = None
    ) -> None:
        found = {tensor.name: tensor for tensor in read_graph(path, nodes=False).initializers}
        names = ["readout"] if "readout.weight" in found else []
        while f"readout.{len(names)}.weight" in found:
            names.append(f"readout.{len(names)}")
        if not names:
            raise EncoderFileError(f"{path}: expected the readout's arrays (readout.weight ...), found none")
        self._threads = threads
        chosen = np.asarray(columns, np.int64)
        self._members = [_read_member(path, info, found, name, chosen, len(names)) for name in names]

    @property
    def weights(self) -> np.ndarray:
        """How strongly each vertex reads each channel of the tokens: (n, D) float32, (n, M*D) for an ensemble."""
        return np.concatenate([rows.weight[rows.order] for rows in self._members], axis=1)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Responses (B, n) float32 from tokens (B, L, D, P + 1) float32; for an ensemble, the mean over its members."""
        if len(self._members) == 1:
            return self._respond(tokens, self._members[0])
        return self.members(tokens).mean(0)

    def members(self, tokens: np.ndarray) -> np.ndarray:
        """Responses of each of M members, (M, B, n) float32, from tokens (B, L, M*D, P + 1)."""
        parts = np.split(tokens, len(self._members), axis=2)
        return np.stack([self._respond(part, rows) for part, rows in zip(parts, self._members, strict=True)])

    def _respond(self, tokens: np.ndarray, rows: _Rows) -> np.ndarray:
        tokens = np.ascontiguousarray(tokens)
        if _C is None:
            sorted_responses = _in_numpy(tokens, rows)
        else:
            constants = (rows.weight, rows.coefficients, rows.bias, rows.taps, rows.starts)
            sorted_responses = _C.token_readout(tokens, *constants, threads=self._threads or cores())
        return np.ascontiguousarray(sorted_responses[:, rows.order])


def _in_numpy(tokens: np.ndarray, rows: _Rows) -> np.ndarray:
    """The same with one matrix product per group: (B, n) in the order of the rows."""
    B, L, D, _ = tokens.shape
    out = np.empty((B, len(rows.bias)), np.float32)
    for group, (first, end) in enumerate(zip(rows.starts[:-1], rows.starts[1:], strict=True)):
        taps = tokens[..., rows.taps[group]]  # (B, L, D, 5)
        table = taps.transpose(2, 0, 3, 1).reshape(D, -1)
        products = (rows.weight[first:end] @ table).reshape(end - first, B, 5, L)
        out[:, first:end] = np.einsum("nbkl,nkl->bn", products, rows.coefficients[first:end])
    return out + rows.bias


def _read_member(
    path: str | os.PathLike[str],
    info: EncoderInfo,
    found: dict[str, Tensor],
    name: str,
    columns: np.ndarray,
    members: int,
) -> _Rows:
    V, L = info.layer_weights.shape
    missing = [f"{name}.{part}" for part in _ARRAYS if f"{name}.{part}" not in found]
    if missing:
        raise EncoderFileError(f"{path}: expected the readout's array {missing[0]}, found none")
    weight, coefficients, cells, counts, order, bias = (found[f"{name}.{part}"] for part in _ARRAYS)
    row_of = read_rows(path, order, kinds=("<i8",))
    taps = read_rows(path, cells, kinds=("<i8",))
    every_count = read_rows(path, counts, kinds=("<i8",))
    n_rows = weight.shape[0] if weight.shape else 0
    fits = (
        row_of.shape == bias.shape == (V,)
        and weight.shape == (n_rows, info.bottleneck // members)
        and coefficients.shape == (n_rows, 5 * L)
        and every_count.ndim == 1
        and taps.shape == (len(every_count), 5)
        and bool(((every_count >= 0) & (every_count <= n_rows)).all())
        and int(every_count.sum()) == n_rows
        and bool(((taps >= 0) & (taps <= info.grid[0] * info.grid[1])).all())
        and bool(((row_of >= 0) & (row_of < n_rows)).all())
    )
    if not fits:
        raise EncoderFileError(f"{path}: the readout's arrays do not fit each other or the metadata")
    by_row = np.argsort(row_of[columns], kind="stable")
    rows = row_of[columns][by_row]
    groups, sizes = np.unique(np.repeat(np.arange(len(every_count)), every_count)[rows], return_counts=True)
    halves = ("<f4", "<f2")
    return _Rows(
        weight=read_rows(path, weight, rows, kinds=halves).astype(np.float32),
        coefficients=read_rows(path, coefficients, rows, kinds=halves).astype(np.float32).reshape(-1, 5, L),
        bias=read_rows(path, bias, columns[by_row], kinds=("<f4",)),
        taps=np.ascontiguousarray(taps[groups]),
        starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        order=np.argsort(by_row),
    )
