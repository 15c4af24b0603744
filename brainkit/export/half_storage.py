"""Float16 storage: large constants of an ONNX graph as float16, each behind a Cast; all is computed in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

SMALL = 1024  # elements; rounding what is smaller saves nothing
# Rounding to 11 bits leaves 2e-4 of an array's rms. More means that numbers fell among float16's denormals.
ROUNDING = 1e-3
# Rows below this share of the array's rms are judged on its scale: they hardly count beside the others.
ROW_FLOOR = 0.01
# Constants of these, and the third input of those, shift and scale: few numbers that every prediction rests on.
_NORMALISATIONS = {"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
_WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}


def halved(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of a model whose large float32 constants are float16, each behind a Cast; the model stays as it is.

    The float16 initializer keeps the name, so that documented names hold; the Cast's output is ``NAME/float32``.
    Vectors, biases, constants of normalisation layers and small arrays stay float32.

    Parameters
    ----------
    proto : ModelProto
        Whole in memory; it may be larger than protobuf can serialise.

    Returns
    -------
    ModelProto
    tuple of str
        Large arrays that stay float32 because float16 cannot hold them: too large, or too small to keep their digits.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    half = onnx.ModelProto(
        ir_version=proto.ir_version,
        producer_name=proto.producer_name,
        producer_version=proto.producer_version,
        opset_import=proto.opset_import,
    )
    graph = half.graph
    graph.name = proto.graph.name
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    stays = _needed_whole(proto.graph)
    casts, kept = {}, []
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in stays and _is_large(tensor):
            array = numpy_helper.to_array(tensor)
            if holds(array):
                graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), tensor.name))
                casts[tensor.name] = f"{tensor.name}/float32"
                continue
            kept.append(tensor.name)
        graph.initializer.append(tensor)
    graph.node.extend(
        helper.make_node("Cast", [name], [cast], name=f"cast/{name}", to=TensorProto.FLOAT)
        for name, cast in casts.items()
    )
    for node in proto.graph.node:
        graph.node.append(node)
        for index, name in enumerate(node.input):
            if name in casts:
                graph.node[-1].input[index] = casts[name]
    return half, tuple(kept)


def holds(array: np.ndarray) -> bool:
    """Whether float16 can stand for a float32 array: nothing overflows, and no row or column loses its digits.

    The rounding error of each slice along the first and the last axis must be at most 1e-3 of the slice's rms (or of a
    hundredth of the array's rms, where the slice is smaller than that).
    """
    if not np.isfinite(array).all() or np.abs(array).max() > np.finfo(np.float16).max:
        return False
    # A block at a time: the largest arrays take gigabytes. float32 sums would do, if squares of 1e-30 did not vanish.
    rows = array.reshape(len(array), -1)
    size = array.shape[-1]
    of_rows = np.zeros((2, len(rows)))  # sums of squares: of the values, of the errors
    of_columns = np.zeros((2, size))
    for start in range(0, len(rows), step := max(1, (1 << 22) // rows.shape[1])):
        exact = rows[start : start + step].astype(np.float64)
        for index, part in enumerate((exact, exact - exact.astype(np.float16))):
            squares = np.square(part)
            of_rows[index, start : start + step] = squares.sum(1)
            of_columns[index] += squares.reshape(-1, size).sum(0)
    mean = of_rows[0].sum() / array.size
    return all(
        bool((error <= ROUNDING**2 * np.maximum(values, ROW_FLOOR**2 * mean * count)).all())
        for (values, error), count in ((of_rows, rows.shape[1]), (of_columns, array.size / size))
    )


def stored_bytes(proto: onnx.ModelProto) -> int:
    """Bytes that a model will take; protobuf itself cannot say so of one beyond its bounds."""
    from onnx import helper

    total = 0
    for tensor in proto.graph.initializer:
        numbers = int(np.prod(tensor.dims, dtype=np.int64))
        total += numbers * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize + len(tensor.name) + 40
    return total + sum(node.ByteSize() for node in proto.graph.node)


def _is_large(tensor: onnx.TensorProto) -> bool:
    matrix = sum(length > 1 for length in tensor.dims) >= 2
    return matrix and int(np.prod(tensor.dims, dtype=np.int64)) >= SMALL


def _needed_whole(graph: onnx.GraphProto) -> set[str]:
    """Names of constants whose use says that they stay float32."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type in _NORMALISATIONS:
            names.update(node.input[1:])
        elif node.op_type in _WITH_BIAS:
            names.update(node.input[2:])
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names.update(_names_in(inner))
    return names


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a graph within a node reads, which may be one of the graph around it."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_in(inner)
