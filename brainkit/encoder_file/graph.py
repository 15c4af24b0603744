"""The graph inside an encoder file, read without an ONNX package: its nodes, and the byte range of each initializer.

Weights are not read: an initializer is its name, element type, shape and byte range, so that a reader can take the rows
it needs. Every count and length is bounded before it is used. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainkit.encoder_file.wire import BYTES, VARINT, Buffer, fields, varint, varints
from brainkit.errors import EncoderFileError

MAX_PARTS = 1_000_000  # nodes, initializers and values; the largest backbones have some ten thousand
_MAX_DIMENSIONS = 16
_MAX_NAME = 4096  # bytes
# TensorProto.DataType of the types whose elements are whole bytes.
ELEMENT_TYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4",
    13: "<u8",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph.

    Parameters
    ----------
    name : str
    element_type : int
        ``TensorProto.DataType``.
    shape : tuple of int
    start, length : int
        Its bytes in the file (``raw_data``); -1 and 0 if its values are stored one by one.
    typed : bool
        Its values are (also) stored one by one, in a field of their own type.
    external : bool
        It points to another file.
    """

    name: str
    element_type: int
    shape: tuple[int, ...]
    start: int
    length: int
    typed: bool
    external: bool


@dataclass(frozen=True)
class Node:
    """One operation of the graph: what it computes, from and into which named values.

    Parameters
    ----------
    op, domain, name : str
    inputs, outputs : tuple of str
    tensors : tuple of Tensor
        Constants among its attributes.
    has_graph : bool
        Whether an attribute is a graph of its own, as in ``If`` and ``Loop``.
    attributes : dict of str to tuple of int
        Attributes by name; those that are whole numbers with their values.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    has_graph: bool
    attributes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Graph:
    """What the file computes.

    Parameters
    ----------
    nodes : tuple of Node
        Empty if only the initializers were requested.
    initializers : tuple of Tensor
    inputs, outputs : tuple of str
    opsets : tuple of (str, int)
        Operator sets as (domain, version).
    functions : int
        How many functions the model defines.
    sparse : bool
        Whether there are sparse initializers.
    input_shapes : tuple of tuple of int
        Declared shapes of the inputs; -1 for a size that is not fixed.
    """

    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: tuple[tuple[str, int], ...]
    functions: int
    sparse: bool
    input_shapes: tuple[tuple[int, ...], ...]


def read_graph(path: str | os.PathLike[str], *, nodes: bool = True) -> Graph:
    """Read the structure of an ONNX file.

    Parameters
    ----------
    path : path-like
        An ONNX file; its digest is not checked here.
    nodes : bool
        Whether to read the nodes too; reading arrays does not need them.

    Returns
    -------
    Graph

    Raises
    ------
    EncoderFileError
        If the file cannot be read, or is not an ONNX file, in one sentence.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _model(data, nodes)
    except ValueError as error:
        raise EncoderFileError(f"{source}: not an ONNX file, or truncated or damaged ({error})") from None
    except OSError as error:
        raise EncoderFileError(f"{source}: cannot be read: {error.strerror or error}") from None


def read_rows(
    path: str | os.PathLike[str], tensor: Tensor, rows: np.ndarray | None = None, *, kinds: tuple[str, ...]
) -> np.ndarray:
    """Some rows of an initializer, straight from the file.

    Parameters
    ----------
    path : path-like
        The file that `tensor` was read from.
    tensor : Tensor
    rows : array of int, optional
        Indices along the first axis; all by default.
    kinds : tuple of str
        The dtypes expected, for example ``("<f4", "<f2")``.

    Returns
    -------
    array
        In its own memory, with the dtype that is stored.

    Raises
    ------
    EncoderFileError
        If the initializer has another dtype, or its bytes do not fit its shape.
    """
    kind = ELEMENT_TYPES.get(tensor.element_type, "")
    if kind not in kinds:
        raise EncoderFileError(f"{path}: {tensor.name} must be {' or '.join(kinds)}, found {kind or 'another dtype'}")
    size = math.prod(tensor.shape) * np.dtype(kind).itemsize
    if tensor.external or tensor.typed or tensor.start < 0 or tensor.length != size:
        raise EncoderFileError(f"{path}: {tensor.name} must hold {size} bytes, found {tensor.length}")
    if size == 0:
        return np.empty(tensor.shape, kind)
    stored = np.memmap(path, dtype=kind, mode="r", offset=tensor.start, shape=tensor.shape)
    return np.array(stored if rows is None else stored[rows])


def _model(data: Buffer, want_nodes: bool) -> Graph:
    found: Graph | None = None
    opsets: list[tuple[str, int]] = []
    functions = 0
    for count, (number, wire, start, length) in enumerate(fields(data, 0, len(data))):
        _bounded(count)
        if number == 7 and wire == BYTES:
            # Protobuf would merge a second one into the first.
            if found is not None:
                raise ValueError("two graphs")
            found = _graph(data, start, start + length, want_nodes)
        elif number == 8 and wire == BYTES:
            opsets.append(_opset(data, start, start + length))
        elif number == 25:
            functions += 1
    if found is None:
        raise ValueError("no graph")
    return dataclasses.replace(found, opsets=tuple(opsets), functions=functions)


def _graph(data: Buffer, start: int, end: int, want_nodes: bool) -> Graph:
    nodes: list[Node] = []
    initializers: list[Tensor] = []
    inputs: list[str] = []
    shapes: list[tuple[int, ...]] = []
    outputs: list[str] = []
    sparse = False
    for count, (number, wire, at, length) in enumerate(fields(data, start, end)):
        _bounded(count)
        if wire != BYTES:
            continue
        if number == 1:
            if want_nodes:
                nodes.append(_node(data, at, at + length))
        elif number == 5:
            initializers.append(_tensor(data, at, at + length))
        elif number == 11:
            inputs.append(_value_name(data, at, at + length))
            shapes.append(_value_shape(data, at, at + length))
        elif number == 12:
            outputs.append(_value_name(data, at, at + length))
        elif number == 15:
            sparse = True
    return Graph(tuple(nodes), tuple(initializers), tuple(inputs), tuple(outputs), (), 0, sparse, tuple(shapes))


def _node(data: Buffer, start: int, end: int) -> Node:
    texts = {3: "", 4: "", 7: ""}
    inputs: list[str] = []
    outputs: list[str] = []
    tensors: list[Tensor] = []
    attributes: dict[str, tuple[int, ...]] = {}
    has_graph = False
    for number, wire, at, length in fields(data, start, end):
        if wire != BYTES:
            continue
        if number == 1:
            inputs.append(_text(data, at, length))
        elif number == 2:
            outputs.append(_text(data, at, length))
        elif number in texts:
            texts[number] = _text(data, at, length)
        elif number == 5:
            name, numbers = "", []
            for field, kind, inner, size in fields(data, at, at + length):
                if kind == BYTES and field in (5, 10):
                    tensors.append(_tensor(data, inner, inner + size))
                elif field in (6, 11):
                    has_graph = True
                elif field == 1 and kind == BYTES:
                    name = _text(data, inner, size)
                elif field in (3, 8):
                    numbers += [_signed(value) for value in varints(data, kind, inner, size)]
            if name in attributes:
                raise ValueError("an attribute is given twice")
            attributes[name] = tuple(numbers)
    return Node(texts[4], texts[7], texts[3], tuple(inputs), tuple(outputs), tuple(tensors), has_graph, attributes)


def _tensor(data: Buffer, start: int, end: int) -> Tensor:
    name, element_type, shape = "", 0, []
    at_byte, size, typed, external = -1, 0, False, False
    for number, wire, at, length in fields(data, start, end):
        if number == 1:
            if length > 10 * _MAX_DIMENSIONS:
                raise ValueError("a tensor of an impossible shape")
            shape += varints(data, wire, at, length)
            if len(shape) > _MAX_DIMENSIONS or any(n >= 1 << 40 for n in shape):
                raise ValueError("a tensor of an impossible shape")
        elif number == 2 and wire == VARINT:
            element_type = varint(data, at, end)[0]
        elif number == 8 and wire == BYTES:
            name = _text(data, at, length)
        elif number == 9 and wire == BYTES:
            at_byte, size = at, length
        elif number in (4, 5, 6, 7, 10, 11):
            typed = True
        elif number == 13 or (number == 14 and varints(data, wire, at, length) != [0]):
            external = True
    return Tensor(name, element_type, tuple(shape), at_byte, size, typed, external)


def _opset(data: Buffer, start: int, end: int) -> tuple[str, int]:
    domain, version = "", 0
    for number, wire, at, length in fields(data, start, end):
        if number == 1 and wire == BYTES:
            domain = _text(data, at, length)
        elif number == 2 and wire == VARINT:
            version = varint(data, at, end)[0]
    return domain, version


def _value_name(data: Buffer, start: int, end: int) -> str:
    names = [_text(data, at, length) for number, wire, at, length in fields(data, start, end) if number == 1]
    return names[-1] if names else ""


def _value_shape(data: Buffer, start: int, end: int) -> tuple[int, ...]:
    """ValueInfoProto -> TypeProto -> Tensor -> TensorShapeProto -> its dimensions, -1 for sizes that are not fixed."""
    ranges = [(start, end)]
    for wanted in (2, 1, 2, 1):
        ranges = [
            (at, at + length)
            for begin, stop in ranges
            for number, wire, at, length in fields(data, begin, stop)
            if number == wanted and wire == BYTES
        ]
    sizes = []
    for begin, stop in ranges:
        found = [
            _signed(varint(data, at, stop)[0])
            for number, wire, at, _ in fields(data, begin, stop)
            if number == 1 and wire == VARINT
        ]
        sizes.append(found[-1] if found else -1)
    return tuple(sizes)


def _signed(value: int) -> int:
    """64 bits as a signed number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(data: Buffer, at: int, length: int) -> str:
    if length > _MAX_NAME:
        raise ValueError("a name is too long")
    return data[at : at + length].decode("utf-8", "backslashreplace")


def _bounded(count: int) -> None:
    if count >= MAX_PARTS:
        raise ValueError("too many parts")
