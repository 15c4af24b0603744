"""The readouts of an ensemble: one per member, then their mean and s.d."""

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
        Ends in tokens; the channels of member m are m*D..(m+1)*D. Its constants are named ``readout.m.*``.
    members : sequence of M Readout
    append : callable
        Adds the readout of a single model, from ``tokens`` (B, L, D, P + 1) to ``fmri``.
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
        begin = constant(f"{m}.begin", np.array([m * D], np.int64))
        end = constant(f"{m}.end", np.array([(m + 1) * D], np.int64))
        node("Slice", ["tokens", begin, end, axis], f"readout/{m}/tokens")
        # Built in a model of its own and renamed, so that the names of members cannot collide.
        single = onnx.ModelProto()
        single.graph.input.extend(graph.input)
        append(single, member)
        for tensor in single.graph.initializer:
            tensor.name = _member_name(tensor.name, m)
            graph.initializer.append(tensor)
        for part in single.graph.node:
            part.name = _member_name(part.name, m)
            part.input[:] = [_member_name(name, m) for name in part.input]
            part.output[:] = [_member_name(name, m) for name in part.output]
            graph.node.append(part)
        predictions.append(_member_name("fmri", m))

    mean = node("Mean", predictions, "fmri")
    squares = []
    for m, prediction in enumerate(predictions):
        deviation = node("Sub", [prediction, mean], f"readout/{m}/miss")
        squares.append(node("Mul", [deviation, deviation], f"readout/{m}/square"))
    total = node("Sum", squares, "readout/squares")
    freedom = constant("freedom", np.array(len(members) - 1, np.float32))
    node("Sqrt", [node("Div", [total, freedom], "readout/variance")], "fmri_sd")

    # The input as the readout of a single model declares it.
    V, P = len(members[0].bias), grid[0] * grid[1]
    shapes = {"fmri": [V], "fmri_sd": [V], "tokens": [n_layers, len(members) * D, P + 1]}
    del graph.input[:], graph.output[:]
    graph.input.extend(single.graph.input)
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in shapes.items()
    )


def _member_name(name: str, m: int) -> str:
    """Member m's name for a constant, node or value of a single model's readout."""
    if name in ("tokens", "fmri"):
        return f"readout/{m}/{name}"
    for separator in "./":
        if name.startswith(f"readout{separator}"):
            return name.replace(f"readout{separator}", f"readout{separator}{m}{separator}", 1)
    return name
