"""The bounded reader of ONNX graphs, compared with the onnx package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from brainkit.encoder_file.graph import Tensor, read_graph, read_rows  # noqa: E402
from brainkit.errors import EncoderFileError  # noqa: E402


def make_model(**changes: Any) -> Any:
    table = numpy_helper.from_array(np.arange(24, dtype=np.float32).reshape(4, 3, 2), "table")
    rows = numpy_helper.from_array(np.array([1, 3]), "rows")
    half = numpy_helper.from_array(np.array([0.5, 2.0], np.float16), "half")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1), "inside")),
        helper.make_node("Gather", ["table", "rows"], ["picked"], name="pick", axis=0),
        helper.make_node("Add", ["picked", "one"], ["more"], domain=changes.get("domain", "")),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("more", TensorProto.FLOAT, [2, 3, 2])],
        [table, rows, half],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(make_model(), path)
    return path


def test_the_structure_is_that_of_the_onnx_package(path: Path) -> None:
    graph, expected = read_graph(path), onnx.load(path).graph
    assert [node.op for node in graph.nodes] == [node.op_type for node in expected.node]
    assert [node.name for node in graph.nodes] == [node.name for node in expected.node]
    assert [list(node.inputs) for node in graph.nodes] == [list(node.input) for node in expected.node]
    assert [list(node.outputs) for node in graph.nodes] == [list(node.output) for node in expected.node]
    assert [tensor.name for tensor in graph.nodes[0].tensors] == ["inside"]
    assert [tensor.name for tensor in graph.initializers] == ["table", "rows", "half"]
    assert [tensor.shape for tensor in graph.initializers] == [(4, 3, 2), (2,), (2,)]
    assert (graph.inputs, graph.outputs, graph.opsets) == (("x",), ("more",), (("", 20),))
    assert (graph.functions, graph.sparse) == (0, False)
    assert not any(tensor.external or tensor.typed for tensor in graph.initializers)
    assert read_graph(path, nodes=False).nodes == ()


def test_rows_come_straight_from_the_file(path: Path) -> None:
    table, rows, half = read_graph(path).initializers
    whole = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.testing.assert_array_equal(read_rows(path, table, kinds=("<f4",)), whole)
    np.testing.assert_array_equal(read_rows(path, table, np.array([2, 0]), kinds=("<f4",)), whole[[2, 0]])
    np.testing.assert_array_equal(read_rows(path, rows, kinds=("<i8",)), [1, 3])
    assert read_rows(path, half, kinds=("<f4", "<f2")).dtype == np.float16
    with pytest.raises(EncoderFileError, match=r"rows must be <f4, found <i8"):
        read_rows(path, rows, kinds=("<f4",))
    lying = Tensor("table", 1, (400, 3, 2), table.start, table.length, False, False)
    with pytest.raises(EncoderFileError, match="must hold 9600 bytes, found 96"):
        read_rows(path, lying, kinds=("<f4",))


def test_what_a_graph_may_hide_is_told(tmp_path: Path) -> None:
    model = make_model(domain="com.example")
    table = model.graph.initializer[0]
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="../elsewhere")
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["one"], ["two"], then_branch=inner, else_branch=inner))
    typed = model.graph.initializer[1]
    typed.ClearField("raw_data")
    typed.int64_data.extend([1, 3])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    graph = read_graph(tmp_path / "m.onnx")
    assert graph.nodes[2].domain == "com.example"
    assert [node.has_graph for node in graph.nodes] == [False, False, False, True]
    assert [tensor.external for tensor in graph.initializers] == [True, False, False]
    assert [tensor.typed for tensor in graph.initializers] == [False, True, False]
    for tensor in graph.initializers[:2]:
        with pytest.raises(EncoderFileError, match="must hold"):
            read_rows(tmp_path / "m.onnx", tensor, kinds=("<f4", "<i8"))


def test_every_truncation_and_every_changed_byte_is_a_graph_or_one_line(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    changed_file = tmp_path / "changed.onnx"
    lines = []
    for index in range(len(whole)):
        for changed in (whole[:index], whole[:index] + bytes([whole[index] ^ 0x55]) + whole[index + 1 :]):
            changed_file.write_bytes(changed)
            try:
                graph = read_graph(changed_file)
                for tensor in graph.initializers:
                    read_rows(changed_file, tensor, kinds=("<f4", "<i8", "<f2"))
            except EncoderFileError as error:
                lines.append(str(error))
    assert len(lines) > len(whole)
    assert not any("\n" in line for line in lines)


def test_two_graphs_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(EncoderFileError, match="two graphs"):
        read_graph(path)
