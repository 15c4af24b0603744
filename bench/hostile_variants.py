"""Hostile variants of an encoder file: damaged, or with a valid digest and malicious content.

Each kind is a function of a seeded generator and the parts of a good file. Most get a valid digest, so that they reach
the JSON reader, the graph's checks, or ONNX Runtime.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from brainkit.encoder_file.container import DIGEST_KEY, METADATA_KEY, metadata_entry

INTEGERS = (0, 1, -1, 2, 3, 7, 64, 255, -7, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**31))
FLOATS = (0.0, -1.0, 1e30, -1e30, float("nan"), float("inf"), 1e-30)
ATOMS = [None, True, -1, 0, 2.5, 1e308, 10**300, "", "x", "\n\x1b[2J", "custom", [], {}, [[]], {"": 0}, [0] * 99]


@dataclass(frozen=True)
class Parts:
    """A good encoder file: all its bytes, its model, and its JSON."""

    whole: bytes
    model: bytes
    text: str

    @classmethod
    def of(cls, whole: bytes) -> Parts:
        proto = onnx.load_from_string(whole)
        (text,) = (entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY)
        del proto.metadata_props[:]
        return cls(whole, proto.SerializeToString(), text)


def sealed(model: bytes, text: bytes) -> bytes:
    """A file with a valid digest, whatever its content."""
    body = model + metadata_entry(METADATA_KEY.encode(), text)
    return body + metadata_entry(DIGEST_KEY.encode(), hashlib.sha256(body).hexdigest().encode())


def variant(parts: Parts, number: int, seed: int, only: str = "") -> tuple[str, bytes]:
    """Kind and bytes of the `number`-th variant; always the same for the same arguments."""
    kind = kind_of(number, only)
    return kind, KINDS[kind](random.Random(f"{seed} {number}"), parts)


def kind_of(number: int, only: str = "") -> str:
    """Kind of the `number`-th variant: the kinds whose names contain `only` take turns."""
    kinds = [kind for kind in KINDS if only in kind]
    return kinds[number % len(kinds)]


# --- the bytes --------------------------------------------------------------------------------------------------


def _truncated(rng: random.Random, parts: Parts) -> bytes:
    return parts.whole[: rng.randrange(len(parts.whole))]


def _flipped(rng: random.Random, parts: Parts) -> bytes:
    data = bytearray(parts.whole)
    for _ in range(rng.choice((1, 1, 3, 50))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _noise(rng: random.Random, parts: Parts) -> bytes:
    head = parts.whole[: rng.choice((0, 2, 20, 200))]
    return head + rng.randbytes(rng.choice((0, 1, 10, 1000, 100_000)))


def _mutated(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(4)
        if how == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 1:
            del out[at : at + rng.randrange(1, 60)]
        elif how == 2:
            out[at:at] = rng.choice((b"\xff" * rng.randrange(1, 12), rng.randbytes(rng.randrange(1, 40))))
        else:
            other = rng.randrange(len(out) + 1)
            out[at:at] = out[other : other + rng.randrange(1, 300)]
    return bytes(out)


def _mutated_model(rng: random.Random, parts: Parts) -> bytes:
    return sealed(_mutated(rng, parts.model), parts.text.encode())


def _mutated_text(rng: random.Random, parts: Parts) -> bytes:
    return sealed(parts.model, _mutated(rng, parts.text.encode()))


# --- the metadata -----------------------------------------------------------------------------------------------


def _json(change: Callable[[random.Random, Any], Any]) -> Callable[[random.Random, Parts], bytes]:
    def make(rng: random.Random, parts: Parts) -> bytes:
        value = json.loads(parts.text)
        changed = change(rng, value)
        text = changed if isinstance(changed, str) else json.dumps(value)
        return sealed(parts.model, text.encode("utf-8", "surrogatepass"))

    return make


def _replaced(rng: random.Random, value: Any) -> None:
    parent, key, inside = None, None, value
    while isinstance(inside, dict | list) and inside and (parent is None or rng.random() < 0.8):
        parent, key = inside, rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
        inside = parent[key]
    if rng.random() < 0.2 and isinstance(parent, dict):
        del parent[key]
    elif isinstance(inside, int) and not isinstance(inside, bool) and rng.random() < 0.5:
        parent[key] = inside + rng.choice((-1, 1, 2**31, 2**63))
    else:
        parent[key] = copy.deepcopy(rng.choice(ATOMS))


def _an_array(rng: random.Random, value: Any) -> dict[str, Any]:
    sections = [value, value["rois"], value["selectors"], value["scores"]]
    found = [each for part in sections for each in part.values() if isinstance(each, dict) and "data" in each]
    return rng.choice(found)


def _wrong_size(rng: random.Random, value: Any) -> None:
    array = _an_array(rng, value)
    array["shape"] = rng.choice(([], [0], [2**31], [2**63, 2**63], [-1], [1, 2, 3], [len(array["data"])], [1e9]))


def _zlib_bomb(rng: random.Random, value: Any) -> None:
    array = _an_array(rng, value)
    array["data"] = base64.b64encode(zlib.compress(bytes(rng.choice((1 << 20, 100 << 20))), 9)).decode()
    if rng.random() < 0.5:
        array["shape"] = [rng.choice((100 << 20, 1 << 29))]


def _deep(rng: random.Random, value: Any) -> str:
    depth = rng.choice((100, 10_000, 1_000_000))
    deep = rng.choice(("[" * depth + "]" * depth, '{"a":' * depth + "0" + "}" * depth))
    return json.dumps(value)[:-1] + f',"provenance":{deep}}}'


# --- the graph --------------------------------------------------------------------------------------------------

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})


def _graph(change: Callable[[random.Random, onnx.ModelProto], None]) -> Callable[[random.Random, Parts], bytes]:
    def make(rng: random.Random, parts: Parts) -> bytes:
        proto = onnx.load_from_string(parts.model)
        for _ in range(rng.choice((1, 1, 2))):
            change(rng, proto)
        return sealed(proto.SerializeToString(), parts.text.encode())

    return make


def _some_node(rng: random.Random, proto: onnx.ModelProto) -> onnx.NodeProto:
    return rng.choice(proto.graph.node)


def _operator(rng: random.Random, proto: onnx.ModelProto) -> None:
    _some_node(rng, proto).op_type = rng.choice((*OPERATORS, *OPERATORS, "", "x" * 10_000, "Fusion\n"))


def _attribute(rng: random.Random, proto: onnx.ModelProto) -> None:
    nodes = [node for node in proto.graph.node if node.attribute]
    if not nodes:
        return
    attribute = rng.choice(rng.choice(nodes).attribute)
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice(INTEGERS)
    elif attribute.type == onnx.AttributeProto.INTS:
        if attribute.ints and rng.random() < 0.7:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
        else:
            attribute.ints.extend([rng.choice(INTEGERS)] * rng.choice((1, 100)))
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    else:
        attribute.s = rng.choice((b"", b"\xff\xfe", b"x" * 100_000, b"SAME_UPPER"))
    if rng.random() < 0.2:
        attribute.type = rng.randrange(0, 15)


def _new_attribute(rng: random.Random, proto: onnx.ModelProto) -> None:
    name = rng.choice(("axis", "group", "strides", "pads", "dilations", "kernel_shape", "to", "perm", "equation", "k"))
    value = rng.choice((rng.choice(INTEGERS), [rng.choice(INTEGERS)] * 2, rng.choice(FLOATS), "x", "ij,jk->ik"))
    node = _some_node(rng, proto)
    if name not in {attribute.name for attribute in node.attribute}:
        node.attribute.append(helper.make_attribute(name, value))


def _dimensions(rng: random.Random, proto: onnx.ModelProto) -> None:
    tensor = rng.choice(proto.graph.initializer)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTEGERS)
    else:
        tensor.dims.extend([rng.choice(INTEGERS)] * rng.choice((1, 5, 100)))


def _constant_bytes(rng: random.Random, proto: onnx.ModelProto) -> None:
    tensor = rng.choice(proto.graph.initializer)
    if rng.random() < 0.5:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)] + rng.randbytes(rng.choice((0, 9)))
    else:
        tensor.data_type = rng.choice((*range(30), -1, 2**31 - 1))
    if rng.random() < 0.2:
        tensor.int64_data.extend([1, 2, 3])


def _constant_values(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Change integers that other operators use: shapes, indices, counts, axes."""
    whole = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.INT64]
    tensor = rng.choice(whole)
    values = numpy_helper.to_array(tensor).copy().reshape(-1)
    if values.size:
        values[rng.randrange(values.size)] = rng.choice(INTEGERS)
    tensor.raw_data = values.astype("<i8").tobytes()


def _external(rng: random.Random, proto: onnx.ModelProto) -> None:
    tensor = rng.choice(proto.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    location = rng.choice(
        ("/etc/passwd", "../x", "/dev/zero", "/proc/self/mem", "encoder.onnx", "", "x\0y", "*/_ORT_MEM_ADDR_/*")
    )
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=rng.choice(("0", "-1", "9" * 30, "x")))
    tensor.external_data.add(key="length", value=rng.choice(("0", "-1", "9" * 30, "1024")))


def _wiring(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Cycles, missing values, values with two producers."""
    names = [name for node in proto.graph.node for name in (*node.input, *node.output)] + ["", "nowhere", "\n"]
    node = _some_node(rng, proto)
    side = node.input if rng.random() < 0.7 and node.input else node.output
    if rng.random() < 0.8 and side:
        side[rng.randrange(len(side))] = rng.choice(names)
    else:
        side.extend([rng.choice(names)] * rng.choice((1, 200)))


def _order(rng: random.Random, proto: onnx.ModelProto) -> None:
    nodes = list(proto.graph.node)
    how = rng.randrange(4)
    if how == 0:
        rng.shuffle(nodes)
    elif how == 1:
        del nodes[rng.randrange(len(nodes))]
    elif how == 2:
        nodes.insert(rng.randrange(len(nodes)), copy.deepcopy(rng.choice(nodes)))
    else:
        nodes.reverse()
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _foreign(rng: random.Random, proto: onnx.ModelProto) -> None:
    domain = rng.choice(("com.microsoft", "ai.onnx.ml", "com.example", "ai.onnx.training", "\n"))
    node = _some_node(rng, proto)
    node.domain = domain
    if rng.random() < 0.5:
        node.op_type = rng.choice(("FusedMatMul", "QAttention", "EPContext", "Inverse", "TreeEnsemble", "BeamSearch"))
    proto.opset_import.append(helper.make_opsetid(domain, rng.choice((1, 2, 10**6))))


def _nested(rng: random.Random, proto: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "inner", [], [])
    for _ in range(rng.choice((0, 5, 20, 30))):
        node = helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=helper.make_graph([], "e", [], []))
        inner = helper.make_graph([node], "outer", [], [])
    node = _some_node(rng, proto)
    node.op_type = rng.choice(("If", "Loop", "Scan", node.op_type))
    node.attribute.append(helper.make_attribute(rng.choice(("body", "then_branch", "x")), inner))


def _signature(rng: random.Random, proto: onnx.ModelProto) -> None:
    value = rng.choice((*proto.graph.input, *proto.graph.output))
    how = rng.randrange(4)
    if how == 0:
        value.type.tensor_type.elem_type = rng.choice((0, 1, 6, 7, 8, 16, 99))
    elif how == 1 and (dims := value.type.tensor_type.shape.dim):
        dims[rng.randrange(len(dims))].dim_value = rng.choice(INTEGERS)
    elif how == 2:
        value.name = rng.choice(("", "x", "images", "fmri"))
    else:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def _inner_shapes(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Declare shapes of inner values."""
    for node in rng.sample(list(proto.graph.node), min(5, len(proto.graph.node))):
        sizes = [rng.choice((*INTEGERS, "batch", 4, 8)) for _ in range(rng.choice((0, 2, 3, 4, 5)))]
        kind = rng.choice((1, 1, 1, 7, 8, 99))
        proto.graph.value_info.append(helper.make_tensor_value_info(node.output[0], kind, sizes))


def _model_parts(rng: random.Random, proto: onnx.ModelProto) -> None:
    how = rng.randrange(5)
    if how == 0:
        proto.ir_version = rng.choice(INTEGERS)
    elif how == 1:
        del proto.opset_import[:]
        proto.opset_import.append(helper.make_opsetid(rng.choice(("", "ai.onnx")), rng.choice(INTEGERS)))
    elif how == 2:
        proto.functions.append(helper.make_function("d", "Add", ["a"], ["b"], [], [helper.make_opsetid("", 20)]))
    elif how == 3:
        values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
        indices = helper.make_tensor("i", TensorProto.INT64, [1], [rng.choice(INTEGERS)])
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [rng.choice((4, 2**40))]))
    else:
        del proto.opset_import[:]


def _long_chain(rng: random.Random, proto: onnx.ModelProto) -> None:
    count = rng.choice((10, 2000, 20_000))
    first = proto.graph.node[0].input[0]
    nodes = [helper.make_node("Identity", [first if k == 0 else f"c{k}"], [f"c{k + 1}"]) for k in range(count)]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])


def _giant(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Huge values from a few bytes."""
    name = f"giant{rng.randrange(1 << 30)}"
    sizes = rng.choice(([2**40], [2**20, 2**20], [-1], [2**31, 4], [0, 2**62], [2**29]))
    shape = numpy_helper.from_array(np.array(sizes, np.int64), f"{name}.shape")
    proto.graph.initializer.append(shape)
    kind = rng.choice(("ConstantOfShape", "Expand", "RandomNormal", "Range", "Tile", "EyeLike"))
    inputs = {"ConstantOfShape": [shape.name], "RandomNormal": [], "EyeLike": [shape.name]}.get(kind)
    node = helper.make_node(kind, [shape.name, shape.name] if inputs is None else inputs, [name])
    if kind == "RandomNormal":
        node.attribute.append(helper.make_attribute("shape", sizes))
    if kind == "Range":
        node.input.append(shape.name)
    used = rng.choice(proto.graph.node)
    proto.graph.node.insert(0, node)
    if used.input:
        used.input[0] = name


KINDS: dict[str, Callable[[random.Random, Parts], bytes]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "random bytes": _noise,
    "model's bytes mutated, sealed": _mutated_model,
    "metadata's bytes mutated, sealed": _mutated_text,
    "metadata: a value replaced": _json(_replaced),
    "metadata: an array of a wrong size": _json(_wrong_size),
    "metadata: a zlib bomb": _json(_zlib_bomb),
    "metadata: nested deeply": _json(_deep),
    "graph: another operator": _graph(_operator),
    "graph: an attribute's value": _graph(_attribute),
    "graph: an attribute too many": _graph(_new_attribute),
    "graph: a constant's dimensions": _graph(_dimensions),
    "graph: a constant's bytes or kind": _graph(_constant_bytes),
    "graph: a constant's values": _graph(_constant_values),
    "graph: data outside the file": _graph(_external),
    "graph: cycles and loose ends": _graph(_wiring),
    "graph: nodes moved, lost, doubled": _graph(_order),
    "graph: foreign domains": _graph(_foreign),
    "graph: graphs within nodes": _graph(_nested),
    "graph: inputs and outputs": _graph(_signature),
    "graph: shapes of inner values": _graph(_inner_shapes),
    "graph: versions, functions, sparse": _graph(_model_parts),
    "graph: a long chain": _graph(_long_chain),
    "graph: giant values": _graph(_giant),
}
