"""Hostile encoder files: each is refused in one line before ONNX Runtime sees it, or harmless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("resource", reason="bench.hostile bounds its workers' memory, which Windows cannot")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bench.hostile import small_encoder  # noqa: E402
from brainkit import encoder_file  # noqa: E402
from brainkit.encoder_file.file import unchanged_while  # noqa: E402
from brainkit.encoder_file.graph import read_graph  # noqa: E402
from brainkit.encoder_file.graph_check import check_graph, infer_shapes  # noqa: E402
from brainkit.errors import BrainkitError, EncoderFileError  # noqa: E402
from brainkit.predict import load  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_hundred_hostile_files_are_answered(tmp_path: Path) -> None:
    """The first hundred and more of `python -m bench.hostile`, which has thousands; in processes of their own."""
    command = [sys.executable, "-m", "bench.hostile", "--variants", "120", "--no-export", "--seed", "7"]
    done = subprocess.run([*command, "--name", str(tmp_path / "hostile")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "hostile.json").read_text())
    assert report["variants"] == 120
    assert report["bad"] == 0
    assert len(report["kinds"]) >= 25
    # They come as far as each of the defences, and some are harmless.
    assert {"metadata and digest", "graph check", "predicted"} <= set(report["stopped by"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good encoder file whose graph has what exported networks have."""
    path = tmp_path_factory.mktemp("base") / "base.onnx"
    small_encoder(path)
    return path


def resealed(base: Path, path: Path, change: Callable[[Any], None]) -> Path:
    proto, info = onnx.load(base), encoder_file.read(base)
    del proto.metadata_props[:]
    change(proto)
    encoder_file.write(path, proto.SerializeToString(), info)
    return path


def external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def typed_and_huge(proto: Any) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "readout.bias")
    tensor.ClearField("raw_data")
    tensor.dims[0] = 2**39
    tensor.float_data.append(1.0)


def add_constant(proto: Any, values: Any, name: str = "extra") -> str:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def insert(proto: Any, node: Any) -> None:
    proto.graph.node.insert(0, node)


INNER = helper.make_graph([], "inner", [], [])
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "external data": (external, "outside"),
    "a foreign domain": (lambda p: setattr(p.graph.node[1], "domain", "com.microsoft"), "com.microsoft.Div"),
    "control flow": (lambda p: insert(p, helper.make_node("Loop", [], ["x"], body=INNER)), "Loop"),
    "a graph in a node": (
        lambda p: insert(p, helper.make_node("Identity", ["images"], ["x"], body=INNER)),
        "Identity",
    ),
    "random numbers": (lambda p: insert(p, helper.make_node("RandomNormal", [], ["x"], shape=[9])), "RandomNormal"),
    "dimensions that lie": (lambda p: p.graph.initializer[1].dims.append(7), "must hold"),
    "few values of many": (typed_and_huge, "549755813888"),
    "values given twice": (lambda p: p.graph.initializer[0].float_data.append(1.0), "twice"),
    "an unknown element type": (lambda p: setattr(p.graph.initializer[0], "data_type", 77), "type 77"),
    "text": (lambda p: setattr(p.graph.initializer[0], "data_type", TensorProto.STRING), "type 8"),
    "a constant twice": (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "twice"),
    "a value twice": (lambda p: p.graph.node.append(p.graph.node[0]), "twice"),
    "a cycle": (lambda p: p.graph.node[3].input.__setitem__(0, "tokens"), "tokens"),
    "a loose end": (lambda p: p.graph.node[3].input.__setitem__(0, "nowhere"), "nowhere"),
    "an output never computed": (lambda p: setattr(p.graph.output[0], "name", "nowhere"), "nowhere"),
    "two inputs": (lambda p: p.graph.input.append(p.graph.output[0]), "2 inputs"),
    "functions": (
        lambda p: p.functions.append(helper.make_function("d", "F", [], [], [], [helper.make_opsetid("", 20)])),
        "functions",
    ),
    "a giant": (
        lambda p: insert(p, helper.make_node("ConstantOfShape", [add_constant(p, [2**40])], ["x"])),
        "extra",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_graph_that_is_not_plain_arithmetic_is_refused(base: Path, tmp_path: Path, case: str) -> None:
    change, named = HOSTILE[case]
    path = resealed(base, tmp_path / "x.onnx", change)
    with pytest.raises(EncoderFileError) as caught:
        load(path, "cpu")
    message = str(caught.value)
    assert named in message
    assert message.startswith(f"{path}: its graph ")
    assert "\n" not in message


@pytest.mark.parametrize("width", [1, 2, 6, 7, 255, 2**31 - 1, 2**40])
@pytest.mark.parametrize("op", ["MaxPool", "Conv"])
def test_windows_fit_their_input(base: Path, tmp_path: Path, op: str, width: int) -> None:
    """ONNX Runtime would end the process on some of them. The pooling sees 6 x 6 cells, the convolution 16 x 16."""

    def change(proto: Any) -> None:
        (node,) = (node for node in proto.graph.node if node.op_type == op)
        name = {"MaxPool": "kernel_shape", "Conv": "dilations"}[op]
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, [width, width])])

    path = resealed(base, tmp_path / "x.onnx", change)
    if width <= {"MaxPool": 6, "Conv": 5}[op]:
        check_graph(path)
    else:
        with pytest.raises(EncoderFileError, match=f"window.* {op}"):
            load(path, "cpu")


def test_shapes_are_those_that_onnx_infers(base: Path) -> None:
    """Up to the first operator that is not known, every shape is the one that ONNX's own inference gives."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(base), strict_mode=True, data_prop=True)
    expected = {
        value.name: tuple(size.dim_value or None for size in value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
    }
    graph = read_graph(base)
    numbers = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in inferred.graph.initializer}
    found = infer_shapes(graph, numbers.get)
    names = ("float", "scaled", "pixels", "patches", "padded", "pooled", "larger")
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_a_good_graph_passes(base: Path) -> None:
    check_graph(base)
    size = encoder_file.read(base).preprocessing.size
    assert load(base, "cpu").run(np.zeros((2, size, size, 3), np.uint8)).shape == (2, 20)


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(base: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.onnx", tmp_path / "other.onnx"
    for place in (path, other):
        place.write_bytes(base.read_bytes())
    with unchanged_while(path):
        pass
    with pytest.raises(EncoderFileError, match="changed"), unchanged_while(path):
        os.replace(other, path)

    def rewrite() -> None:
        times = path.stat()
        path.write_bytes(base.read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its change time cannot be set back

    with pytest.raises(EncoderFileError, match="changed"), unchanged_while(path):
        rewrite()
    with pytest.raises(EncoderFileError, match=r"gone\.onnx"):
        load(tmp_path / "gone.onnx", "cpu")


def test_predictions_of_another_shape_are_refused(base: Path, tmp_path: Path) -> None:
    """The shape of an output is known when the graph has run; until then it is only declared."""

    def lie(proto: Any) -> None:
        (add,) = (node for node in proto.graph.node if "fmri" in node.output)
        add.output[:] = ["all"]
        rows = add_constant(proto, np.array([0, 0, 1]), "rows of images")
        proto.graph.node.append(helper.make_node("Gather", ["all", rows], ["fmri"], axis=0))

    path = resealed(base, tmp_path / "x.onnx", lie)
    encoder = load(path, "cpu")
    with pytest.raises(BrainkitError, match="3 rows"):
        encoder.run(np.zeros((2, 16, 16, 3), np.uint8))
