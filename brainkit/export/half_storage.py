"""Float16 storage: large constants of an ONNX graph as float16, each followed by a Cast; computation is float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

SMALL = 1024  # elements; rounding smaller arrays saves nothing
# Rounding to 11 bits changes an array by 2e-4 of its rms; more means that values became float16 denormals.
ROUNDING = 1e-3
# Rows below this share of the array's rms are judged on its scale: the others outweigh them.
ROW_FLOOR = 0.01
# Constants of these, and the third input of those, shift and scale: few numbers that affect every prediction.
_NORMALISATIONS = {"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
_WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}


def to_float16(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of a model whose large float32 constants are float16, each followed by a Cast.

    The float16 initializer keeps its documented name; the Cast's output is ``NAME/float32``. Vectors, biases, constants
    of normalisation layers and small arrays stay float32.

    Parameters
    ----------
    proto : ModelProto
        In memory; it may be larger than protobuf can serialise. It is not changed.

    Returns
    -------
    ModelProto
    tuple of str
        Large arrays that stay float32 because their values are too large, or too small, for float16.
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
    excluded = _kept_float32(proto.graph)
    casts, unsuited = {}, []
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in excluded and _is_large(tensor):
            array = numpy_helper.to_array(tensor)
            if fits_float16(array):
                graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), tensor.name))
                casts[tensor.name] = f"{tensor.name}/float32"
                continue
            unsuited.append(tensor.name)
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
    return half, tuple(unsuited)


def fits_float16(array: np.ndarray) -> bool:
    """Whether a float32 array can be stored as float16: nothing overflows, and no row or column loses its digits.

    The rounding error of each slice along the first and the last axis must be at most 1e-3 of the slice's rms, or of a
    hundredth of the array's rms if that is larger.
    """
    if not np.isfinite(array).all() or np.abs(array).max() > np.finfo(np.float16).max:
        return False
    # By blocks, since arrays may take gigabytes; in float64, since squares of 1e-30 vanish in float32.
    rows = array.reshape(len(array), -1)
    size = array.shape[-1]
    row_sums = np.zeros((2, len(rows)))  # of squares: of the values, of the errors
    column_sums = np.zeros((2, size))
    for start in range(0, len(rows), step := max(1, (1 << 22) // rows.shape[1])):
        exact = rows[start : start + step].astype(np.float64)
        for index, part in enumerate((exact, exact - exact.astype(np.float16))):
            squares = np.square(part)
            row_sums[index, start : start + step] = squares.sum(1)
            column_sums[index] += squares.reshape(-1, size).sum(0)
    mean = row_sums[0].sum() / array.size
    return all(
        bool((error <= ROUNDING**2 * np.maximum(values, ROW_FLOOR**2 * mean * count)).all())
        for (values, error), count in ((row_sums, rows.shape[1]), (column_sums, array.size / size))
    )


def stored_bytes(proto: onnx.ModelProto) -> int:
    """Size of a model in bytes, also of one that is too large for protobuf to tell."""
    from onnx import helper

    total = 0
    for tensor in proto.graph.initializer:
        numbers = int(np.prod(tensor.dims, dtype=np.int64))
        total += numbers * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize + len(tensor.name) + 40
    return total + sum(node.ByteSize() for node in proto.graph.node)


def _is_large(tensor: onnx.TensorProto) -> bool:
    matrix = sum(length > 1 for length in tensor.dims) >= 2
    return matrix and int(np.prod(tensor.dims, dtype=np.int64)) >= SMALL


def _kept_float32(graph: onnx.GraphProto) -> set[str]:
    """Names of constants that stay float32 because of how they are used."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type in _NORMALISATIONS:
            names.update(node.input[1:])
        elif node.op_type in _WITH_BIAS:
            names.update(node.input[2:])
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names.update(_names_read(inner))
    return names


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """All names that a subgraph reads, which may be those of the graph around it."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_read(inner)
