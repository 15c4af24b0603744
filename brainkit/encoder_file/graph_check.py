"""What a graph must be before ONNX Runtime sees it.

The digest says that a file is whole, not who made it: a stranger seals a hostile graph as well as we do. ONNX Runtime
reads files that a graph points to, runs control flow, and divides by whatever an attribute says. So a graph that is
not made of plain tensor arithmetic on constants in the file itself is refused, in one sentence, by its structure alone.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from brainkit.encoder_file.graph import ELEMENT_TYPES, Graph, Tensor, read_graph
from brainkit.encoder_file.windows import Numbers, check_windows
from brainkit.errors import EncoderFileError

MAX_NODES = 200_000
MAX_ELEMENTS = 1 << 31  # of one value whose size the file itself names
# Tensor arithmetic: no strings, sequences, control flow, random numbers or decoders.
OPERATORS = frozenset(
    name
    for line in (
        "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift",
        "BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv",
        "ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear",
        "Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm",
        "GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization",
        "HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu",
        "Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean",
        "MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul",
        "QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean",
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round ScatterElements",
        "ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split",
        "Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor",
    )
    for name in line.split()
)
# Operators that make a value of a size that some of their inputs name: which ones.
_SIZED_BY = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Tile": (1,),
}


def check_graph(path: str | os.PathLike[str]) -> None:
    """Refuse a graph that is more than tensor arithmetic on the file's own constants.

    It must have the one input ``images``; operators of the standard set that compute with numbers; every value made
    once and before it is used; constants whose bytes fit their shape; windows that fit what they slide over; no data
    outside the file, no functions of its own, no graphs within nodes, no sparse constants.

    Parameters
    ----------
    path : path-like
        An ONNX file whose digest was checked.

    Raises
    ------
    EncoderFileError
        With one sentence.
    """
    graph = read_graph(path)
    size = Path(path).stat().st_size
    try:
        _check_kind(graph)
        for tensor in _tensors(graph):
            _check_tensor(tensor, size)
        _check_names(graph)
        with open(path, "rb") as stream:
            numbers = _few_numbers(graph, stream)
            _check_sizes(graph, numbers)
            check_windows(graph, numbers)
    except ValueError as error:
        raise EncoderFileError(f"{path}: its graph is not one that brainkit writes: {error}") from None


def _check_kind(graph: Graph) -> None:
    if graph.functions:
        raise ValueError("it defines functions of its own")
    if graph.sparse:
        raise ValueError("it has sparse constants")
    if graph.inputs != ("images",):
        raise ValueError(f"it must take 'images' alone, found {len(graph.inputs)} inputs")
    if len(graph.nodes) > MAX_NODES:
        raise ValueError(f"it has {len(graph.nodes)} nodes, at most {MAX_NODES} are read")
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or node.op not in OPERATORS:
            name = f"{node.domain}.{node.op}" if node.domain else node.op
            raise ValueError(f"operator {_short(name)} is not allowed")
        if node.has_graph:
            raise ValueError(f"a node {node.op} holds a graph of its own")


def _tensors(graph: Graph) -> Iterable[Tensor]:
    yield from graph.initializers
    for node in graph.nodes:
        yield from node.tensors


def _check_tensor(tensor: Tensor, file_size: int) -> None:
    name = _short(tensor.name)
    if tensor.external:
        raise ValueError(f"constant {name} points outside the file")
    kind = ELEMENT_TYPES.get(tensor.element_type)
    if kind is None:
        raise ValueError(f"constant {name} is of kind {tensor.element_type}, which is not read")
    count = math.prod(tensor.shape)
    if tensor.start >= 0 and tensor.typed:
        raise ValueError(f"constant {name} holds its values twice")
    if tensor.start >= 0:
        fits = tensor.length == count * _ITEM_SIZES[kind]
    else:
        # Written one by one, each value takes a byte or more; without any, the constant must be empty.
        fits = count <= (file_size if tensor.typed else 0)
    if not fits:
        raise ValueError(f"constant {name} must hold {count} values, found {tensor.length} bytes")


_ITEM_SIZES = {kind: 1 if kind == "?" else int(kind[-1]) for kind in ELEMENT_TYPES.values()}


def _check_names(graph: Graph) -> None:
    """Every value is made once, and before it is used: so the graph has no cycle and no loose end."""
    made = set(graph.inputs)

    def add(name: str) -> None:
        if not name or name in made:
            raise ValueError(f"value {_short(name)} is made twice" if name else "a value has no name")
        made.add(name)

    for tensor in graph.initializers:
        add(tensor.name)
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in made:
                raise ValueError(f"value {_short(name)} is used before it is made")
        for name in node.outputs:
            if name:  # an output that is not wanted has none
                add(name)
    if len(set(graph.outputs)) != len(graph.outputs):
        raise ValueError("an output is named twice")
    for name in graph.outputs:
        if name not in made:
            raise ValueError(f"output {_short(name)} is never made")


def _check_sizes(graph: Graph, numbers: Numbers) -> None:
    """No constant asks for a value of billions of elements: ONNX Runtime would make it while it opens the file."""
    for node in graph.nodes:
        for name in (node.inputs[place] for place in _SIZED_BY.get(node.op, ()) if place < len(node.inputs)):
            sizes = numbers(name) or ()
            if not math.prod(max(1, abs(size)) for size in sizes) <= MAX_ELEMENTS:  # NaN is refused too
                raise ValueError(f"constant {_short(name)} asks for a value of more than {MAX_ELEMENTS} elements")


def _few_numbers(graph: Graph, stream: BinaryIO) -> Numbers:
    """Reads the constants that are few numbers, by their names."""
    constants = {tensor.name: tensor for tensor in graph.initializers}
    for node in graph.nodes:
        if node.op == "Constant" and node.tensors and node.outputs:
            constants[node.outputs[0]] = node.tensors[0]

    @functools.cache
    def numbers(name: str) -> Sequence[float] | None:
        tensor = constants.get(name)
        kind = None if tensor is None else _NUMBERS.get(ELEMENT_TYPES[tensor.element_type])
        if tensor is None or kind is None or tensor.start < 0 or (count := math.prod(tensor.shape)) > _MAX_SIZES:
            return None
        stream.seek(tensor.start)
        return struct.unpack(f"<{count}{kind}", stream.read(tensor.length))

    return numbers


_NUMBERS = {"<i8": "q", "<i4": "i", "<f4": "f"}
_MAX_SIZES = 64  # of one value: its rank, or twice that


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
