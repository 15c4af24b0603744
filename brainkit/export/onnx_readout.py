"""The readout of an encoder file: its arrays, sorted by the cells that vertices read, and its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from brainkit.model.factor_topy import Folded


FORMS = {"cpu": "cells", "gpu": "padded"}
BIN = 128  # rows of a group in the padded form


@dataclass(frozen=True)
class Readout:
    """The arrays of the readout as the file holds them; G groups, R rows, L layers, D channels, V vertices.

    With T the token table (P + 1 rows, row P the global token), vertex v at row s = order[v], in group g:
    ``y[v] = bias[v] + sum_kl coefficients[s, k*L + l] * (weight[s] . T[cells[g, k], :, l])``. In the form "cells" there
    is a group for each four cells that are read, and R = V. In the form "padded" all groups have BIN rows, the last of
    each four cells filled up with rows of zeros, which no vertex names.
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
        """Of all arrays."""
        arrays = (self.weight, self.coefficients, self.cells, self.counts, self.order, self.bias)
        return sum(array.nbytes for array in arrays)


def sort_readout(folded: Folded) -> Readout:
    """Group the vertices by the grid cells they read, and fold their selectors into coefficients.

    Computed in float64, rounded to float32 once. A tap outside the image has coefficient zero and names a cell
    inside, so no zero padding is needed.
    """
    H, W = folded.grid
    V, L = folded.layer_weights.shape
    D = folded.weight.shape[1]
    columns, column_shares = _taps(np.asarray(folded.locations, np.float64)[:, 0], W)  # (V,), (V, 2)
    rows, row_shares = _taps(np.asarray(folded.locations, np.float64)[:, 1], H)

    cell = (rows + 1) * (W + 1) + (columns + 1)  # 0 .. (H+1)*(W+1)-1
    by_cell = np.argsort(cell, kind="stable")
    cells, counts = np.unique(cell[by_cell], return_counts=True)
    order = np.empty(V, np.int64)
    order[by_cell] = np.arange(V)

    first_row, first_column = cells // (W + 1) - 1, cells % (W + 1) - 1
    taps = [
        np.clip(first_row + down, 0, H - 1) * W + np.clip(first_column + right, 0, W - 1)
        for down in (0, 1)
        for right in (0, 1)
    ]
    taps.append(np.full(len(cells), H * W))

    layer_weights = np.asarray(folded.layer_weights, np.float64)
    scale = np.asarray(folded.scale, np.float64)[:, None]
    shares = (row_shares[:, :, None] * column_shares[:, None, :]).reshape(V, 4)
    local = (1 - scale)[:, :, None] * shares[:, :, None] * layer_weights[:, None, :]  # (V, 4, L)
    coefficients = np.concatenate([local.reshape(V, 4 * L), scale * layer_weights], 1)
    return Readout(
        weight=(np.asarray(folded.weight, np.float64)[by_cell] / D).astype(np.float32),
        coefficients=coefficients[by_cell].astype(np.float32),
        cells=np.stack(taps, 1).astype(np.int64),
        counts=counts.astype(np.int64),
        order=order,
        bias=np.asarray(folded.bias, np.float32),
    )


def pad_readout(readout: Readout) -> Readout:
    """The same readout in groups of BIN rows each, for one product of many equal matrices."""
    bins = -(-readout.counts // BIN)  # of each group
    first_row = np.cumsum(readout.counts) - readout.counts
    first_bin = np.cumsum(bins) - bins
    group = np.repeat(np.arange(len(bins)), readout.counts)
    rows = first_bin[group] * BIN + np.arange(len(group)) - first_row[group]  # where each sorted row goes

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


def _taps(location: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First of two neighbouring cells along an axis of n (-1 .. n-1), and both shares, zero outside the image."""
    place = ((location + 1) * n - 1) / 2
    first = np.clip(np.floor(place), -1, n - 1)
    cell = np.stack([first, first + 1], 1)
    share = np.stack([first + 1 - place, place - first], 1)
    inside = (cell >= 0) & (cell <= n - 1) & (place > -1)[:, None] & (place < n)[:, None]
    return first.astype(np.int64), np.where(inside, share, 0.0)


def append_readout(proto: onnx.ModelProto, readout: Readout, grid: tuple[int, int], n_layers: int) -> None:
    """Add tokens (B, L, D, P + 1) -> fmri (B, V) to the graph: a product for each group, or for all groups at once."""
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    G, K, V = len(readout.counts), 5 * n_layers, len(readout.bias)
    D = readout.weight.shape[1]

    def constant(name: str, array: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), f"readout.{name}"))
        return f"readout.{name}"

    def node(kind: str, inputs: list[str], outputs: str | list[str], **attributes: Any) -> None:
        names = [outputs] if isinstance(outputs, str) else outputs
        names = [name if name == "fmri" else f"readout/{name}" for name in names]
        inputs = [name if name == "tokens" or name.startswith("readout.") else f"readout/{name}" for name in inputs]
        graph.node.append(helper.make_node(kind, inputs, names, name=f"readout/{kind}/{names[0]}", **attributes))

    def each(name: str) -> list[str]:
        return [f"{name}/{group}" for group in range(G)]

    weight, coefficients = constant("weight", readout.weight), constant("coefficients", readout.coefficients)
    cells, counts = constant("cells", readout.cells), constant("counts", readout.counts)
    order, bias = constant("order", readout.order), constant("bias", readout.bias)
    by_token = constant("by_token", np.array([G, D, -1], np.int64))

    # The taps of every group side by side: (G, D, B * 5L).
    node("Transpose", ["tokens"], "table", perm=[3, 2, 0, 1])  # (P + 1, D, B, L)
    node("Gather", ["table", cells], "taps", axis=0)  # (G, 5, D, B, L)
    node("Transpose", ["taps"], "taps_by_channel", perm=[0, 2, 3, 1, 4])  # (G, D, B, 5, L)
    node("Reshape", ["taps_by_channel", by_token], "taps_flat")
    one, last = constant("one", np.array([1], np.int64)), constant("last", np.array([-1], np.int64))
    if readout.form == "padded":
        # (G, BIN, D) x (G, D, B * 5L); the shapes are worked out at load time, as the splits below are.
        bins, channels = constant("bins", np.array([G], np.int64)), constant("channels", np.array([D], np.int64))
        taps, first = constant("taps", np.array([K], np.int64)), constant("first", np.array([0], np.int64))
        node("Gather", [counts, first], "rows", axis=0)
        node("Concat", [bins, "rows", channels], "shape/weight", axis=0)
        node("Concat", [bins, "rows", last, taps], "shape/by_tap", axis=0)
        node("Concat", [bins, "rows", one, taps], "shape/coefficients", axis=0)
        node("Reshape", [weight, "shape/weight"], "weight")
        node("Reshape", [coefficients, "shape/coefficients"], "coefficients")
        node("MatMul", ["weight", "taps_flat"], "product")
        node("Reshape", ["product", "shape/by_tap"], "by_tap")  # (G, BIN, B, 5L)
        node("Mul", ["by_tap", "coefficients"], "weighted")
        node("ReduceSum", ["weighted", last], "sum", keepdims=0)  # (G, BIN, B)
        joined = constant("joined", np.array([G * BIN, -1], np.int64))
        node("Reshape", ["sum", joined], "sorted")
    else:
        # Constants split at load time by ONNX Runtime's constant folding, so each array keeps one documented name.
        node("Split", [weight, counts], each("weight"), axis=0)
        node("Split", [coefficients, counts], each("coefficients"), axis=0)
        for group, count in enumerate(readout.counts):
            at = constant(f"group.{group}", np.array(group, np.int64))
            shape = constant(f"shape.{group}", np.array([count, -1, K], np.int64))
            node("Gather", ["taps_flat", at], f"tap/{group}", axis=0)  # (D, B * 5L)
            node("MatMul", [f"weight/{group}", f"tap/{group}"], f"product/{group}")
            node("Reshape", [f"product/{group}", shape], f"by_tap/{group}")  # (n, B, 5L)
            node("Unsqueeze", [f"coefficients/{group}", one], f"coefficient/{group}")  # (n, 1, 5L)
            node("Mul", [f"by_tap/{group}", f"coefficient/{group}"], f"weighted/{group}")
            node("ReduceSum", [f"weighted/{group}", last], f"sum/{group}", keepdims=0)  # (n, B)
        node("Concat", each("sum"), "sorted", axis=0)
    node("Gather", ["sorted", order], "responses", axis=0)  # (V, B), in the order of the vertices
    node("Transpose", ["responses"], "by_image", perm=[1, 0])
    node("Add", ["by_image", bias], "fmri")

    # Declared anew, so that names and shapes are what docs/encoder-file.md says.
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3]))
    graph.output.extend(
        [
            helper.make_tensor_value_info("fmri", TensorProto.FLOAT, ["batch", V]),
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", n_layers, D, grid[0] * grid[1] + 1]),
        ]
    )
