"""What strangers send: hostile encoder files and hostile images, answered by one line each."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from brainkit import encoder_file  # noqa: E402
from brainkit.encoder_file import windows  # noqa: E402
from brainkit.encoder_file.graph import read_graph  # noqa: E402
from brainkit.encoder_file.graph_check import check_graph  # noqa: E402
from brainkit.encoder_file.steady import steady  # noqa: E402
from brainkit.errors import BrainkitError, EncoderFileError  # noqa: E402
from brainkit.predict import load, predict_to_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def test_a_hundred_hostile_files_are_answered(tmp_path: Path) -> None:
    """The first hundred and more of `python -m bench.hostile`, which has thousands; in processes of their own."""
    pytest.importorskip("resource", reason="the workers' memory is bounded by what Windows lacks")
    command = [sys.executable, "-m", "bench.hostile", "--variants", "120", "--no-export", "--seed", "7"]
    done = subprocess.run(
        [*command, "--name", str(tmp_path / "hostile")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
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
    code = f"from pathlib import Path; from bench.hostile import small_encoder; small_encoder(Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
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
    "external data": (external, "points outside the file"),
    "a foreign domain": (lambda p: setattr(p.graph.node[1], "domain", "com.microsoft"), "'com.microsoft.Div' is not"),
    "control flow": (lambda p: insert(p, helper.make_node("Loop", [], ["x"], body=INNER)), "operator 'Loop' is not"),
    "a graph in a node": (
        lambda p: insert(p, helper.make_node("Identity", ["images"], ["x"], body=INNER)),
        "holds a graph of its own",
    ),
    "random numbers": (lambda p: insert(p, helper.make_node("RandomNormal", [], ["x"], shape=[9])), "RandomNormal"),
    "dimensions that lie": (lambda p: p.graph.initializer[1].dims.append(7), "must hold"),
    "few values of many": (typed_and_huge, "must hold 549755813888 values"),
    "values given twice": (lambda p: p.graph.initializer[0].float_data.append(1.0), "holds its values twice"),
    "a kind nobody knows": (lambda p: setattr(p.graph.initializer[0], "data_type", 77), "of kind 77"),
    "text": (lambda p: setattr(p.graph.initializer[0], "data_type", TensorProto.STRING), "of kind 8"),
    "a constant twice": (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "is made twice"),
    "a value twice": (lambda p: p.graph.node.append(p.graph.node[0]), "is made twice"),
    "a cycle": (lambda p: p.graph.node[3].input.__setitem__(0, "tokens"), "used before it is made"),
    "a loose end": (lambda p: p.graph.node[3].input.__setitem__(0, "nowhere"), "used before it is made"),
    "an output never made": (lambda p: setattr(p.graph.output[0], "name", "nowhere"), "is never made"),
    "two inputs": (lambda p: p.graph.input.append(p.graph.output[0]), "found 2 inputs"),
    "functions": (
        lambda p: p.functions.append(helper.make_function("d", "F", [], [], [], [helper.make_opsetid("", 20)])),
        "functions of its own",
    ),
    "a giant": (
        lambda p: insert(p, helper.make_node("ConstantOfShape", [add_constant(p, [2**40])], ["x"])),
        "asks for a value of more than",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_graph_that_is_not_plain_arithmetic_is_refused(base: Path, tmp_path: Path, case: str) -> None:
    change, words = HOSTILE[case]
    path = resealed(base, tmp_path / "x.onnx", change)
    with pytest.raises(EncoderFileError) as caught:
        load(path, "cpu")
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"{path}: its graph is not one that brainkit writes: ")
    assert "\n" not in message


@pytest.mark.parametrize("width", [1, 2, 6, 7, 255, 2**31 - 1, 2**40])
@pytest.mark.parametrize("op", ["MaxPool", "Conv"])
def test_windows_fit_what_they_slide_over(base: Path, tmp_path: Path, op: str, width: int) -> None:
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
        with pytest.raises(EncoderFileError, match=f"the window of a node {op} does not fit"):
            load(path, "cpu")


def test_sizes_are_followed_as_onnx_infers_them(base: Path) -> None:
    """Up to the first operator that is not followed, every size is the one that ONNX's own inference gives."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(base), strict_mode=True, data_prop=True)
    expected = {
        value.name: tuple(size.dim_value or None for size in value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
    }
    graph = read_graph(base)
    numbers = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in inferred.graph.initializer}
    found = windows.check_windows(graph, numbers.get)
    followed = [
        name for name in ("float", "scaled", "pixels", "patches", "padded", "pooled", "larger") if name in found
    ]
    assert len(followed) == 7
    assert {name: found[name] for name in followed} == {name: expected[name] for name in followed}


def test_a_good_graph_passes(base: Path) -> None:
    check_graph(base)
    size = encoder_file.read(base).preprocessing.size
    assert load(base, "cpu").run(np.zeros((2, size, size, 3), np.uint8)).shape == (2, 20)


def test_a_file_that_is_swapped_while_it_is_opened_is_found(base: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.onnx", tmp_path / "other.onnx"
    for place in (path, other):
        place.write_bytes(base.read_bytes())
    with steady(path):
        pass
    with pytest.raises(EncoderFileError, match="changed while it was being opened"), steady(path):
        os.replace(other, path)

    def rewrite() -> None:
        times = path.stat()
        path.write_bytes(base.read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its change time cannot be set back

    with pytest.raises(EncoderFileError, match="changed while it was being opened"), steady(path):
        rewrite()
    with pytest.raises(EncoderFileError, match="file not found"):
        load(tmp_path / "gone.onnx", "cpu")


def test_predictions_of_another_shape_are_refused(base: Path, tmp_path: Path) -> None:
    """What a graph gives is known when it has run; what it declares is only what it says."""

    def lie(proto: Any) -> None:
        (add,) = (node for node in proto.graph.node if "fmri" in node.output)
        add.output[:] = ["all"]
        rows = add_constant(proto, np.array([0, 0, 1]), "rows of images")
        proto.graph.node.append(helper.make_node("Gather", ["all", rows], ["fmri"], axis=0))

    path = resealed(base, tmp_path / "x.onnx", lie)
    encoder = load(path, "cpu")
    with pytest.raises(BrainkitError, match="3 rows"):
        encoder.run(np.zeros((2, 16, 16, 3), np.uint8))


# --- images -----------------------------------------------------------------------------------------------------


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that says its size, and holds so many rows of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (width + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_hostile_images_are_reported_and_the_others_scored(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    photograph.save(folder / "a.png")
    photograph.save(folder / "jpeg in truth.png", format="JPEG")  # the content tells, not the name
    Image.new("RGB", (1, 1), "red").save(folder / "one pixel.png")
    (folder / "wide.png").write_bytes(png(30_000, 40, 40))
    (folder / "tall.png").write_bytes(png(3, 30_000, 30_000))
    (folder / "bomb.png").write_bytes(png(30_000, 30_000, 1))
    (folder / "huge.png").write_bytes(png(2**31 - 1, 2**31 - 1, 0))
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "loop").symlink_to(folder)
    result = predict_to_file(folder, tmp_path / "fmri.npy", base, device="cpu")
    assert [path.name for path in result.images] == [
        "a.png",
        "jpeg in truth.png",
        "one pixel.png",
        "tall.png",
        "wide.png",
    ]
    reasons = {Path(path).name: reason for path, reason in result.skipped}
    assert set(reasons) == {"bomb.png", "huge.png", "empty.png", "text.jpg", "cut.png"}
    assert "pixels" in reasons["bomb.png"] and "pixels" in reasons["huge.png"]
    assert "empty file" in reasons["empty.png"]
    assert all("\n" not in reason for reason in reasons.values())
    rows = np.load(tmp_path / "fmri.npy")
    assert rows.shape == (5, 20)
    assert np.isfinite(rows).all()
