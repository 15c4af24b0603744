"""The readouts of an ensemble: one for each member, then their mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from brainkit.export.onnx_readout import Readout


def append_members(
    proto: onnx.ModelProto,
    members: Sequence[Readout],
    append: Callable[[onnx.ModelProto, Readout], None],
    grid: tuple[int, int],
    n_layers: int,
) -> None:
    """Add tokens (B, L, M*D, P + 1) -> fmri (B, V), the mean over members, and fmri_sd (B, V), their s.d. (ddof 1).

    Parameters
    ----------
    proto : ModelProto
        Ends in tokens; member m's channels are m*D..(m+1)*D. The names of member m's constants are ``readout.m.*``.
    members : sequence of Readout
        M of them.
    append : callable
        Adds one member's readout, from ``tokens`` (B, L, D, P + 1) to ``fmri``, to a model.
    grid : (int, int)
        Height and width of the token grid.
    n_layers : int
        L.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    D = members[0].weight.shape[1]

    def constant(name: str, array: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), f"readout.{name}"))
        return f"readout.{name}"

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], name=f"readout/{kind}/{output}", **attributes))
        return output

    axis = constant("channels", np.array([2], np.int64))
    predictions = []
    for m, member in enumerate(members):
        ends = [constant(f"{m}.{end}", np.array([(m + at) * D], np.int64)) for at, end in enumerate(("first", "end"))]
        node("Slice", ["tokens", *ends, axis], f"readout/{m}/tokens")
        # Made in a model of its own, then renamed: whatever form the readout has, members do not meet.
        alone = onnx.ModelProto()
        alone.graph.input.extend(graph.input)
        append(alone, member)
        for tensor in alone.graph.initializer:
            tensor.name = _of_member(tensor.name, m)
            graph.initializer.append(tensor)
        for part in alone.graph.node:
            part.name = _of_member(part.name, m)
            part.input[:] = [_of_member(name, m) for name in part.input]
            part.output[:] = [_of_member(name, m) for name in part.output]
            graph.node.append(part)
        predictions.append(_of_member("fmri", m))

    mean = node("Mean", predictions, "fmri")
    squares = []
    for m, prediction in enumerate(predictions):
        miss = node("Sub", [prediction, mean], f"readout/{m}/miss")
        squares.append(node("Mul", [miss, miss], f"readout/{m}/square"))
    total = node("Sum", squares, "readout/squares")
    freedom = constant("freedom", np.array(len(members) - 1, np.float32))
    node("Sqrt", [node("Div", [total, freedom], "readout/variance")], "fmri_sd")

    # The input as a member's readout declared it.
    V, P = len(members[0].bias), grid[0] * grid[1]
    shapes = {"fmri": [V], "fmri_sd": [V], "tokens": [n_layers, len(members) * D, P + 1]}
    del graph.input[:], graph.output[:]
    graph.input.extend(alone.graph.input)
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in shapes.items()
    )


def _of_member(name: str, m: int) -> str:
    """Member m's own name for a constant, node or value of a single readout."""
    if name in ("tokens", "fmri"):
        return f"readout/{m}/{name}"
    for separator in "./":
        if name.startswith(f"readout{separator}"):
            return name.replace(f"readout{separator}", f"readout{separator}{m}{separator}", 1)
    return name
