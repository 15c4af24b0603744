"""What a graph must be before ONNX Runtime sees it.

The digest proves that a file is intact, not who made it: a stranger can seal a hostile graph too. ONNX Runtime reads
files that a graph points to, runs control flow, and divides by whatever an attribute says. So a graph that is more than
plain tensor arithmetic on constants in the file itself is refused, in one sentence, by its structure alone.

Convolutions and poolings whose windows do not fit their input are refused too: ONNX Runtime infers a negative size for
them, on which some of its operators end the whole process. To find them, the sizes of values are inferred from the
input on, as far as the file fixes them; an unknown size is not checked.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from brainkit.encoder_file.graph import ELEMENT_TYPES, Graph, Node, Tensor, read_graph
from brainkit.errors import EncoderFileError

MAX_NODES = 200_000
MAX_ELEMENTS = 1 << 28  # of a value whose size is a constant in the file

Shape = tuple[int | None, ...]  # None: unknown, as the number of images
Numbers = Callable[[str], Sequence[float] | None]  # the values of a small constant, by its name

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
# Operators whose output has the size that some of their inputs name: which inputs.
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
# Operators whose output has the shape of their first input; then those that broadcast, and those that slide a window.
_ELEMENTWISE = frozenset(
    name
    for line in (
        "Abs BatchNormalization Cast Ceil Celu Clip Cos Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid",
        "HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Log LogSoftmax Mish Neg PRelu",
        "Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh ThresholdedRelu",
    )
    for name in line.split()
)
_ARITHMETIC = frozenset(("Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "Sub", "Sum", "Where"))
_POOLING = frozenset(("AveragePool", "LpPool", "MaxPool"))

_ITEM_SIZES = {kind: 1 if kind == "?" else int(kind[-1]) for kind in ELEMENT_TYPES.values()}
# Element types of constants that hold sizes, as struct reads them, and how many: a shape's rank, or twice that.
_NUMBERS = {"<i8": "q", "<i4": "i", "<f4": "f"}
_MAX_SIZES = 64


def check_graph(path: str | os.PathLike[str]) -> None:
    """Refuse a graph that is more than tensor arithmetic on the file's own constants.

    It must have the one input ``images``; operators of the standard set that compute with numbers; every value computed
    once and before it is used; constants whose bytes fit their shape; windows that fit their input; no data outside the
    file, no functions of its own, no graphs within nodes, no sparse constants.

    Parameters
    ----------
    path : path-like
        An ONNX file whose digest was checked.

    Raises
    ------
    EncoderFileError
        In one sentence.
    """
    graph = read_graph(path)
    size = Path(path).stat().st_size
    try:
        _check_kind(graph)
        for tensor in _tensors(graph):
            _check_tensor(tensor, size)
        _check_names(graph)
        with open(path, "rb") as stream:
            numbers = _small_constants(graph, stream)
            _check_sizes(graph, numbers)
            infer_shapes(graph, numbers)
    except ValueError as error:
        raise EncoderFileError(f"{path}: its graph is not one that brainkit writes: {error}") from None


def _check_kind(graph: Graph) -> None:
    if graph.functions:
        raise ValueError("it defines functions of its own")
    if graph.sparse:
        raise ValueError("it has sparse constants")
    if graph.inputs != ("images",):
        raise ValueError(f"it must have the single input 'images', found {len(graph.inputs)} inputs")
    if len(graph.nodes) > MAX_NODES:
        raise ValueError(f"it has {len(graph.nodes)} nodes; at most {MAX_NODES} are allowed")
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
        raise ValueError(f"constant {name} has the element type {tensor.element_type}, which is not allowed")
    count = math.prod(tensor.shape)
    if tensor.start >= 0 and tensor.typed:
        raise ValueError(f"constant {name} holds its values twice")
    if tensor.start >= 0:
        fits = tensor.length == count * _ITEM_SIZES[kind]
    else:
        # Stored one by one, each value takes a byte or more; without any, the constant must be empty.
        fits = count <= (file_size if tensor.typed else 0)
    if not fits:
        raise ValueError(f"constant {name} must hold {count} values, found {tensor.length} bytes")


def _check_names(graph: Graph) -> None:
    """Every value is computed once, and before it is used: so the graph has no cycle and no undefined value."""
    computed = set(graph.inputs)

    def add(name: str) -> None:
        if not name or name in computed:
            raise ValueError(f"value {_short(name)} is computed twice" if name else "a value has no name")
        computed.add(name)

    for tensor in graph.initializers:
        add(tensor.name)
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in computed:
                raise ValueError(f"value {_short(name)} is used before it is computed")
        for name in node.outputs:
            if name:  # an unused output has none
                add(name)
    if len(set(graph.outputs)) != len(graph.outputs):
        raise ValueError("an output is named twice")
    for name in graph.outputs:
        if name not in computed:
            raise ValueError(f"output {_short(name)} is never computed")


def _check_sizes(graph: Graph, numbers: Numbers) -> None:
    """No constant asks for a giant value, which ONNX Runtime would allocate while it opens the file."""
    for node in graph.nodes:
        for name in (node.inputs[index] for index in _SIZED_BY.get(node.op, ()) if index < len(node.inputs)):
            sizes = numbers(name) or ()
            if not math.prod(max(1, abs(size)) for size in sizes) <= MAX_ELEMENTS:  # NaN is refused too
                raise ValueError(f"constant {_short(name)} asks for a value of more than {MAX_ELEMENTS} elements")


def _small_constants(graph: Graph, stream: BinaryIO) -> Numbers:
    """A function that reads constants of a few numbers, by their names."""
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


def infer_shapes(graph: Graph, numbers: Numbers) -> dict[str, Shape]:
    """The shapes of values, as far as they can be inferred; a window that is larger than its input is refused.

    Raises
    ------
    ValueError
        Naming the operator with that window.
    """
    shapes: dict[str, Shape] = {tensor.name: tensor.shape for tensor in graph.initializers}
    for name, shape in zip(graph.inputs, graph.input_shapes, strict=True):
        shapes[name] = tuple(None if size < 0 else size for size in shape)
    for node in graph.nodes:
        output = _output_shape(node, [shapes.get(name) for name in node.inputs], numbers)
        if output is None or not node.outputs:
            continue
        if any(size is not None and size < 0 for size in output):
            raise ValueError(f"the window of a node {node.op} does not fit its input")
        shapes[node.outputs[0]] = output
    return shapes


def _output_shape(node: Node, inputs: list[Shape | None], numbers: Numbers) -> Shape | None:
    """The shape of a node's first output, if it can be inferred."""
    if node.op in _ARITHMETIC:
        return _broadcast(inputs)
    if not inputs or (first := inputs[0]) is None:
        return None
    if node.op in _ELEMENTWISE:
        return first
    if node.op == "Transpose":
        order = node.attributes.get("perm") or tuple(range(len(first)))[::-1]
        return tuple(first[axis] for axis in order) if sorted(order) == list(range(len(first))) else None
    if node.op == "Conv" and len(inputs) > 1 and (kernel := inputs[1]) is not None and len(kernel) == len(first) > 2:
        return (first[0], kernel[0], *_positions(node, first[2:], kernel[2:]))
    if node.op in _POOLING and len(first) > 2:
        return (*first[:2], *_positions(node, first[2:], node.attributes.get("kernel_shape", ())))
    if node.op in ("Pad", "Resize", "Reshape"):
        constants = [
            numbers(node.inputs[index]) if index < len(node.inputs) else None
            for index in {"Pad": (1,), "Reshape": (1,), "Resize": (2, 3)}[node.op]
        ]
        return _resized(node, first, constants)
    return None


def _positions(node: Node, sizes: Shape, kernel: Shape) -> list[int | None]:
    """How many positions a window has along each axis; negative if it does not fit."""
    n = len(sizes)
    strides, dilations = (node.attributes.get(name) or (1,) * n for name in ("strides", "dilations"))
    pads = node.attributes.get("pads") or (0,) * (2 * n)
    if "auto_pad" in node.attributes or (len(kernel), len(strides), len(dilations), len(pads)) != (n, n, n, 2 * n):
        return [None] * n
    positions: list[int | None] = []
    for axis, (size, width) in enumerate(zip(sizes, kernel, strict=True)):
        if size is None or width is None or strides[axis] < 1:
            positions.append(None)
            continue
        room = size + pads[axis] + pads[n + axis] - ((width - 1) * dilations[axis] + 1)
        positions.append(-1 if room < 0 else room // strides[axis] + 1)
    return positions


def _resized(node: Node, shape: Shape, constants: list[Sequence[float] | None]) -> Shape | None:
    """The shape that a Reshape, Pad or Resize gives, if its sizes are constants."""
    values = constants[0]
    if node.op == "Reshape":
        if values is None or "allowzero" in node.attributes:
            return None
        copied = [shape[axis] if size == 0 and axis < len(shape) else int(size) for axis, size in enumerate(values)]
        return tuple(None if size is None or size < 0 else size for size in copied)
    n = len(shape)
    if node.op == "Pad":
        if values is None or len(values) != 2 * n or len(node.inputs) > 3:
            return None
        sizes = zip(shape, values[:n], values[n:], strict=True)
        return tuple(None if size is None else int(size + before + after) for size, before, after in sizes)
    if "axes" in node.attributes:
        return None
    if len(constants) > 1 and constants[1] is not None and len(constants[1]) == n:
        return tuple(int(size) for size in constants[1])
    if values is None or len(values) != n or not all(map(math.isfinite, values)):
        return None
    return tuple(None if size is None else math.floor(size * scale) for size, scale in zip(shape, values, strict=True))


def _broadcast(inputs: list[Shape | None]) -> Shape | None:
    known = [shape for shape in inputs if shape is not None]
    if not known or len(known) < len(inputs):
        return None
    rank = max(map(len, known))
    out: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True):
        others = [size for size in sizes if size != 1]
        out.append(1 if not others else next((size for size in others if size is not None), None))
    return tuple(out)


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
