"""Dynamic int8: the backbone's large products multiply bytes; bottlenecks and readout stay float32."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import BrainkitError
from brainkit.export.onnx_graph import check_operators, quiet, tidy
from brainkit.utils.text import root_cause

if TYPE_CHECKING:
    import onnx

# Constants of the encoder itself, as token_module and the readout name them.
_OURS = ("local_weight_", "global_weight_", "grid_", "readout.")


def quantised(plain: str | os.PathLike[str], scratch: str | os.PathLike[str], name: str) -> tuple[onnx.ModelProto, int]:
    """The model in a file with the backbone's products in int8, and how many of them there are.

    Weights are int8 per output channel, once and for all; activations are uint8 with one range for the whole batch,
    found anew in each run. Convolutions stay float32: integer ones are several times slower in ONNX Runtime on a CPU,
    and lose most of what a small network predicts.

    Parameters
    ----------
    plain : path-like
        The float32 model; the file is changed.
    scratch : path-like
        A file to write, beside it.
    name : str
        The backbone's, for errors.

    Returns
    -------
    ModelProto
        Of standard operators alone.
    int

    Raises
    ------
    BrainkitError
        If there is no such product, or ONNX Runtime cannot change them.
    """
    import onnx
    from onnxruntime import quantization

    model = onnx.load(plain)
    chosen = backbone_products(model.graph)
    if not chosen:
        raise BrainkitError(
            f"backbone {name}: cannot be stored as int8: it has no products (MatMul, Gemm) with constant weights, and "
            "its convolutions would gain nothing; --fp16 halves the file"
        )
    _split_gemms(model.graph, set(chosen))
    onnx.save(model, plain)
    try:
        with quiet():
            quantization.quantize_dynamic(
                plain,
                scratch,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,  # 7 bits: processors without VNNI add products in pairs, in 16 bits
                weight_type=quantization.QuantType.QInt8,
            )
            found = onnx.load(scratch)
    except Exception as error:  # whatever a graph leads the quantiser to
        raise BrainkitError(
            f"backbone {name}: ONNX Runtime cannot store it as int8: {root_cause(error)}; store it with --fp16"
        ) from error
    tidy(found)
    check_operators(found, name)
    count = sum(node.op_type == "MatMulInteger" for node in found.graph.node)
    if count != len(chosen):
        raise BrainkitError(
            f"backbone {name}: ONNX Runtime changed {count} of {len(chosen)} products to int8; store it with --fp16"
        )
    return found, count


def backbone_products(graph: onnx.GraphProto) -> list[str]:
    """Names of the backbone's products with constant weights: neither bottlenecks nor the readout."""
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if (node.op_type == "MatMul" or (node.op_type == "Gemm" and _is_plain(node)))
        and node.input[1] in constants
        and not any(name.startswith(_OURS) for name in node.input)
        and not node.name.startswith("readout/")
    ]


def _split_gemms(graph: onnx.GraphProto, chosen: set[str]) -> None:
    """Write each chosen Gemm as a MatMul of the same name and a sum: the dynamic quantiser knows no Gemm."""
    from onnx import helper, numpy_helper

    if not any(node.op_type == "Gemm" and node.name in chosen for node in graph.node):
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "Gemm" or node.name not in chosen:
            nodes.append(node)
            continue
        weight, (output,) = node.input[1], node.output
        if _attributes(node).get("transB"):
            transposed = np.ascontiguousarray(numpy_helper.to_array(constants[weight]).T)
            weight = f"{weight}/transposed"
            if weight not in constants:
                graph.initializer.append(numpy_helper.from_array(transposed, weight))
                constants[weight] = graph.initializer[-1]
        product = output if len(node.input) < 3 else f"{output}/product"
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if product != output:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [output], name=f"{node.name}/bias"))
    used = {name for node in nodes for name in node.input}
    held = [tensor for tensor in graph.initializer if tensor.name in used or tensor.name.startswith(_OURS)]
    for field, content in (("node", nodes), ("initializer", held)):
        copies = [type(item).FromString(item.SerializeToString()) for item in content]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)


def _is_plain(gemm: onnx.NodeProto) -> bool:
    """Whether a Gemm is a product and a sum, but for a transposed weight."""
    given = _attributes(gemm)
    return given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0 and not given.get("transA")


def _attributes(node: onnx.NodeProto) -> dict[str, float]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
