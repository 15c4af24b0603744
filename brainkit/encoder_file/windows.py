"""Whether the windows of convolutions and poolings fit what they slide over.

Where one does not, ONNX Runtime infers a negative size, and some of its operators end the whole process on that. So the
sizes of values are followed here from the input on, as far as the file itself fixes them: through arithmetic, and
through the operators that networks are made of. Where a size cannot be followed, nothing is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from brainkit.encoder_file.graph import Graph, Node

Shape = tuple[int | None, ...]  # None: not known, as the number of images
Numbers = Callable[[str], Sequence[float] | None]  # a constant's few values, where it is one

_KEEPING = frozenset(
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


def check_windows(graph: Graph, numbers: Numbers) -> dict[str, Shape]:
    """Refuse a window that is larger than what it slides over.

    Returns
    -------
    dict of str to tuple
        The shapes of those values that could be followed.

    Raises
    ------
    ValueError
        Saying which operator's.
    """
    shapes: dict[str, Shape] = {tensor.name: tensor.shape for tensor in graph.initializers}
    for name, shape in zip(graph.inputs, graph.input_shapes, strict=True):
        shapes[name] = tuple(None if size < 0 else size for size in shape)
    for node in graph.nodes:
        made = _made(node, [shapes.get(name) for name in node.inputs], numbers)
        if made is None or not node.outputs:
            continue
        if any(size is not None and size < 0 for size in made):
            raise ValueError(f"the window of a node {node.op} does not fit what it slides over")
        shapes[node.outputs[0]] = made
    return shapes


def _made(node: Node, given: list[Shape | None], numbers: Numbers) -> Shape | None:
    """The shape of a node's first output, where it is known."""
    if node.op in _ARITHMETIC:
        return _broadcast(given)
    if not given or (first := given[0]) is None:
        return None
    if node.op in _KEEPING:
        return first
    if node.op == "Transpose":
        order = node.attributes.get("perm") or tuple(range(len(first)))[::-1]
        return tuple(first[axis] for axis in order) if sorted(order) == list(range(len(first))) else None
    if node.op == "Conv" and len(given) > 1 and (kernel := given[1]) is not None and len(kernel) == len(first) > 2:
        return (first[0], kernel[0], *_slid(node, first[2:], kernel[2:]))
    if node.op in _POOLING and len(first) > 2:
        return (*first[:2], *_slid(node, first[2:], node.attributes.get("kernel_shape", ())))
    if node.op in ("Pad", "Resize", "Reshape"):
        places = {"Pad": (1,), "Reshape": (1,), "Resize": (2, 3)}[node.op]
        constants = [numbers(node.inputs[place]) if place < len(node.inputs) else None for place in places]
        return _resized(node, first, constants)
    return None


def _slid(node: Node, sizes: Shape, kernel: Shape) -> list[int | None]:
    """The places of a window along each axis; below zero where it does not fit."""
    n = len(sizes)
    strides, dilations = (node.attributes.get(name) or (1,) * n for name in ("strides", "dilations"))
    pads = node.attributes.get("pads") or (0,) * (2 * n)
    if "auto_pad" in node.attributes or (len(kernel), len(strides), len(dilations), len(pads)) != (n, n, n, 2 * n):
        return [None] * n
    places: list[int | None] = []
    for axis, (size, width) in enumerate(zip(sizes, kernel, strict=True)):
        if size is None or width is None or strides[axis] < 1:
            places.append(None)
            continue
        room = size + pads[axis] + pads[n + axis] - ((width - 1) * dilations[axis] + 1)
        # Fewer than one place: said as less than zero, since no network means it.
        places.append(-1 if room < 0 else room // strides[axis] + 1)
    return places


def _resized(node: Node, shape: Shape, constants: list[Sequence[float] | None]) -> Shape | None:
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


def _broadcast(given: list[Shape | None]) -> Shape | None:
    known = [shape for shape in given if shape is not None]
    if not known or len(known) < len(given):
        return None
    rank = max(map(len, known))
    out: list[int | None] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True):
        others = [size for size in sizes if size != 1]
        out.append(1 if not others else next((size for size in others if size is not None), None))
    return tuple(out)
