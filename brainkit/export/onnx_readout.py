"""The readout of an encoder file: its arrays, sorted by the grid cells that vertices read, and its ONNX nodes.

`torch_forms.readout_module` is the same in torch; `docs/encoder-file.md` documents the arrays for other readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from brainkit.model.factor_topy import Folded


FORMS = {"cpu": "cells", "gpu": "padded"}  # target -> form
BIN = 128  # rows of a group in the padded form


@dataclass(frozen=True)
class Readout:
    """The arrays of the readout as they are in the file; G groups, R rows, L layers, D channels, V vertices.

    With T the token table (P + 1 rows, row P the global token), vertex v at row s = order[v], in group g:
    ``y[v] = bias[v] + sum_kl coefficients[s, k*L + l] * (weight[s] . T[cells[g, k], :, l])``. In the form "cells" all
    vertices that read the same four cells are one group, and R = V. In the form "padded" they are groups of BIN rows,
    the last one filled with rows of zeros, which no vertex refers to.
    """

    weight: np.ndarray  # (R, D) float32, sorted by group, divided by D
    coefficients: np.ndarray  # (R, 5L) float32, sorted by group: four taps by layer, then the global token by layer
    cells: np.ndarray  # (G, 5) int64, rows of the token table; the last is always P
    counts: np.ndarray  # (G,) int64, rows in each group
    order: np.ndarray  # (V,) int64, the row of vertex v
    bias: np.ndarray  # (V,) float32, in the order of the vertices
    form: str = "cells"

    @property
    def nbytes(self) -> int:
        """Total size of the arrays."""
        arrays = (self.weight, self.coefficients, self.cells, self.counts, self.order, self.bias)
        return sum(array.nbytes for array in arrays)


def sort_readout(folded: Folded) -> Readout:
    """Group the vertices by the grid cells they read, and fold their selectors into coefficients.

    Computed in float64 and rounded to float32 once. A tap outside the image has coefficient zero and refers to a cell
    inside, so no zero padding is needed.
    """
    H, W = folded.grid
    V, L = folded.layer_weights.shape
    D = folded.weight.shape[1]
    columns, column_weights = _taps(np.asarray(folded.locations, np.float64)[:, 0], W)  # (V,), (V, 2)
    rows, row_weights = _taps(np.asarray(folded.locations, np.float64)[:, 1], H)

    cell = (rows + 1) * (W + 1) + (columns + 1)  # 0 .. (H+1)*(W+1)-1
    by_cell = np.argsort(cell, kind="stable")
    cells, counts = np.unique(cell[by_cell], return_counts=True)
    order = np.empty(V, np.int64)
    order[by_cell] = np.arange(V)

    first_row, first_column = cells // (W + 1) - 1, cells % (W + 1) - 1
    tap_cells = [
        np.clip(first_row + down, 0, H - 1) * W + np.clip(first_column + right, 0, W - 1)
        for down in (0, 1)
        for right in (0, 1)
    ]
    tap_cells.append(np.full(len(cells), H * W))

    layer_weights = np.asarray(folded.layer_weights, np.float64)
    scale = np.asarray(folded.scale, np.float64)[:, None]
    taps = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(V, 4)
    local = (1 - scale)[:, :, None] * taps[:, :, None] * layer_weights[:, None, :]  # (V, 4, L)
    coefficients = np.concatenate([local.reshape(V, 4 * L), scale * layer_weights], 1)
    return Readout(
        weight=(np.asarray(folded.weight, np.float64)[by_cell] / D).astype(np.float32),
        coefficients=coefficients[by_cell].astype(np.float32),
        cells=np.stack(tap_cells, 1).astype(np.int64),
        counts=counts.astype(np.int64),
        order=order,
        bias=np.asarray(folded.bias, np.float32),
    )


def pad_readout(readout: Readout) -> Readout:
    """The same readout in groups of BIN rows, for one batched product of matrices of equal size."""
    bins = -(-readout.counts // BIN)  # of each group
    first_row = np.cumsum(readout.counts) - readout.counts
    first_bin = np.cumsum(bins) - bins
    group = np.repeat(np.arange(len(bins)), readout.counts)
    rows = first_bin[group] * BIN + np.arange(len(group)) - first_row[group]  # new position of each row

    def spread(array: np.ndarray) -> np.ndarray:
        padded = np.zeros((int(bins.sum()) * BIN, array.shape[1]), array.dtype)
        padded[rows] = array
        return padded

    return Readout(
        weight=spread(readout.weight),
        coefficients=spread(readout.coefficients),
        cells=np.repeat(readout.cells, bins, axis=0),
        counts=np.full(int(bins.sum()), BIN, np.int64),
        order=rows[readout.order],
        bias=readout.bias,
        form="padded",
    )


def append_readout(proto: onnx.ModelProto, readout: Readout, grid: tuple[int, int], n_layers: int) -> None:
    """Add the readout to a graph: tokens (B, L, D, P + 1) -> fmri (B, V)."""
    from onnx import TensorProto, helper

    graph = proto.graph
    G, D, V = len(readout.counts), readout.weight.shape[1], len(readout.bias)
    add = _Builder(graph)
    for name in ("weight", "coefficients", "cells", "counts", "order", "bias"):
        add.constant(name, getattr(readout, name))
    add.constant("by_token", np.array([G, D, -1], np.int64))

    # The taps of every group side by side: (G, D, B * 5L).
    add.node("Transpose", ["tokens"], "table", perm=[3, 2, 0, 1])  # (P + 1, D, B, L)
    add.node("Gather", ["table", "readout.cells"], "taps", axis=0)  # (G, 5, D, B, L)
    add.node("Transpose", ["taps"], "taps_by_channel", perm=[0, 2, 3, 1, 4])  # (G, D, B, 5, L)
    add.node("Reshape", ["taps_by_channel", "readout.by_token"], "taps_flat")
    add.constant("one", np.array([1], np.int64))
    add.constant("last", np.array([-1], np.int64))
    if readout.form == "padded":
        _append_padded_groups(add, readout, 5 * n_layers)
    else:
        _append_groups(add, readout, 5 * n_layers)
    add.node("Gather", ["sorted", "readout.order"], "responses", axis=0)  # (V, B), in the order of the vertices
    add.node("Transpose", ["responses"], "by_image", perm=[1, 0])
    add.node("Add", ["by_image", "readout.bias"], "fmri")

    # Declared again, with the names and shapes of docs/encoder-file.md.
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3]))
    shapes = {"fmri": [V], "tokens": [n_layers, D, grid[0] * grid[1] + 1]}
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in shapes.items()
    )


def _append_groups(add: _Builder, readout: Readout, K: int) -> None:
    """The form "cells": taps_flat (G, D, B * K) -> sorted (R, B), with one matrix product per group."""

    def each(name: str) -> list[str]:
        return [f"{name}/{group}" for group in range(len(readout.counts))]

    # Split by ONNX Runtime's constant folding when the file is loaded, so each array keeps one documented name.
    add.node("Split", ["readout.weight", "readout.counts"], each("weight"), axis=0)
    add.node("Split", ["readout.coefficients", "readout.counts"], each("coefficients"), axis=0)
    for group, count in enumerate(readout.counts):
        index = add.constant(f"group.{group}", np.array(group, np.int64))
        shape = add.constant(f"shape.{group}", np.array([count, -1, K], np.int64))
        add.node("Gather", ["taps_flat", index], f"tap/{group}", axis=0)  # (D, B * K)
        add.node("MatMul", [f"weight/{group}", f"tap/{group}"], f"product/{group}")
        add.node("Reshape", [f"product/{group}", shape], f"by_tap/{group}")  # (n, B, K)
        add.node("Unsqueeze", [f"coefficients/{group}", "readout.one"], f"coefficient/{group}")  # (n, 1, K)
        add.node("Mul", [f"by_tap/{group}", f"coefficient/{group}"], f"weighted/{group}")
        add.node("ReduceSum", [f"weighted/{group}", "readout.last"], f"sum/{group}", keepdims=0)  # (n, B)
    add.node("Concat", each("sum"), "sorted", axis=0)


def _append_padded_groups(add: _Builder, readout: Readout, K: int) -> None:
    """The form "padded": taps_flat (G, D, B * K) -> sorted (R, B), with one product (G, BIN, D) x (G, D, B * K)."""
    G, D = len(readout.counts), readout.weight.shape[1]
    for name, value in (("bins", G), ("channels", D), ("taps", K), ("first", 0)):
        add.constant(name, np.array([value], np.int64))
    # The shapes depend on constants only, so that ONNX Runtime computes them when the file is loaded.
    add.node("Gather", ["readout.counts", "readout.first"], "rows", axis=0)
    add.node("Concat", ["readout.bins", "rows", "readout.channels"], "shape/weight", axis=0)
    add.node("Concat", ["readout.bins", "rows", "readout.last", "readout.taps"], "shape/by_tap", axis=0)
    add.node("Concat", ["readout.bins", "rows", "readout.one", "readout.taps"], "shape/coefficients", axis=0)
    add.node("Reshape", ["readout.weight", "shape/weight"], "weight")
    add.node("Reshape", ["readout.coefficients", "shape/coefficients"], "coefficients")
    add.node("MatMul", ["weight", "taps_flat"], "product")
    add.node("Reshape", ["product", "shape/by_tap"], "by_tap")  # (G, BIN, B, K)
    add.node("Mul", ["by_tap", "coefficients"], "weighted")
    add.node("ReduceSum", ["weighted", "readout.last"], "sum", keepdims=0)  # (G, BIN, B)
    joined = add.constant("joined", np.array([G * BIN, -1], np.int64))
    add.node("Reshape", ["sum", joined], "sorted")


class _Builder:
    """Adds constants ``readout.NAME`` and nodes with values ``readout/NAME`` to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    def constant(self, name: str, array: Any) -> str:
        """Add a constant; its name in the graph."""
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), f"readout.{name}"))
        return f"readout.{name}"

    def node(self, kind: str, inputs: list[str], outputs: str | list[str], **attributes: Any) -> None:
        """Add a node; inputs are ``tokens``, constants by their name in the graph, and outputs of other nodes."""
        from onnx import helper

        names = [outputs] if isinstance(outputs, str) else outputs
        names = [name if name == "fmri" else f"readout/{name}" for name in names]
        inputs = [name if name == "tokens" or name.startswith("readout.") else f"readout/{name}" for name in inputs]
        self._graph.node.append(helper.make_node(kind, inputs, names, name=f"readout/{kind}/{names[0]}", **attributes))


def _taps(location: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of two neighbouring cells along an axis of n cells (-1 .. n-1), and the weights of both.

    Bilinear interpolation; a weight is zero outside the image. (V,) -> (V,), (V, 2)
    """
    position = ((location + 1) * n - 1) / 2
    first = np.clip(np.floor(position), -1, n - 1)
    cell = np.stack([first, first + 1], 1)
    weight = np.stack([first + 1 - position, position - first], 1)
    inside = (cell >= 0) & (cell <= n - 1) & (position > -1)[:, None] & (position < n)[:, None]
    return first.astype(np.int64), np.where(inside, weight, 0.0)
