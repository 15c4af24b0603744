"""Dynamic int8: the backbone's matrix products are computed in int8; bottlenecks and readout stay float32."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import BrainkitError
from brainkit.export.onnx_graph import check_operators, quiet, tidy
from brainkit.utils.text import root_cause

if TYPE_CHECKING:
    import onnx

# Prefixes of the constants of bottlenecks, grid and readout, as token_module and onnx_readout name them.
_NOT_BACKBONE = ("local_weight_", "global_weight_", "grid_", "readout.")


def to_int8(float32: str | os.PathLike[str], scratch: str | os.PathLike[str], name: str) -> tuple[onnx.ModelProto, int]:
    """The model of a file with the backbone's matrix products in int8, and the number of these products.

    Weights are int8 with a constant scale per output channel; activations are uint8 with one range for the batch,
    computed at each run. Convolutions stay float32: in int8 they are several times slower in ONNX Runtime on a CPU, and
    most of what a small network predicts is lost.

    Parameters
    ----------
    float32 : path-like
        The float32 model; the file is changed.
    scratch : path-like
        A temporary file to write.
    name : str
        Of the backbone, for errors.

    Returns
    -------
    ModelProto
        With standard operators only.
    int

    Raises
    ------
    BrainkitError
        If there is no such product, or ONNX Runtime cannot convert them.
    """
    import onnx
    from onnxruntime import quantization

    model = onnx.load(float32)
    chosen = backbone_products(model.graph)  # names
    if not chosen:
        raise BrainkitError(
            f"backbone {name}: cannot be stored as int8: it has no matrix products (MatMul, Gemm) with constant "
            "weights, and int8 convolutions are slower; use --fp16, which halves the file"
        )
    _split_gemms(model.graph, set(chosen))
    onnx.save(model, float32)
    try:
        with quiet():
            quantization.quantize_dynamic(
                float32,
                scratch,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,  # 7 bits: processors without VNNI add pairs of products in 16 bits
                weight_type=quantization.QuantType.QInt8,
            )
            found = onnx.load(scratch)
    except Exception as error:  # the quantiser raises errors of any class
        raise BrainkitError(
            f"backbone {name}: ONNX Runtime cannot convert it to int8: {root_cause(error)}; use --fp16"
        ) from error
    tidy(found)
    check_operators(found, name)
    count = sum(node.op_type == "MatMulInteger" for node in found.graph.node)
    if count != len(chosen):
        raise BrainkitError(
            f"backbone {name}: ONNX Runtime converted {count} of {len(chosen)} matrix products to int8; use --fp16"
        )
    return found, count


def backbone_products(graph: onnx.GraphProto) -> list[str]:
    """Names of the backbone's matrix products with constant weights; not those of bottlenecks and readout."""
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if (node.op_type == "MatMul" or (node.op_type == "Gemm" and _is_plain(node)))
        and node.input[1] in constants
        and not any(name.startswith(_NOT_BACKBONE) for name in node.input)
        and not node.name.startswith("readout/")
    ]


def _split_gemms(graph: onnx.GraphProto, chosen: set[str]) -> None:
    """Replace each chosen Gemm by a MatMul of the same name and an Add: the dynamic quantiser supports no Gemm."""
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
    kept = [tensor for tensor in graph.initializer if tensor.name in used or tensor.name.startswith(_NOT_BACKBONE)]
    for field, content in (("node", nodes), ("initializer", kept)):
        copies = [type(item).FromString(item.SerializeToString()) for item in content]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)


def _is_plain(gemm: onnx.NodeProto) -> bool:
    """Whether a Gemm is a MatMul and an Add, apart from a transposed weight."""
    attributes = _attributes(gemm)
    return attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")


def _attributes(node: onnx.NodeProto) -> dict[str, float]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
