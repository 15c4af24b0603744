"""Encoder files smaller than float32: what is stored, what stays as it is, and how far predictions move."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
onnx = pytest.importorskip("onnx", reason="export needs brainkit[train]")
pytest.importorskip("onnxscript", reason="export needs brainkit[train]")
pytest.importorskip("onnxruntime")

import tiny_encoders as tiny
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper
from torch import nn

from brainkit import encoder_file, predict
from brainkit.cli import group
from brainkit.encoder_file.describe import describe
from brainkit.encoder_file.metadata import from_json, to_json
from brainkit.errors import BrainkitError, EncoderFileError, UsageError
from brainkit.export import int8, onnx_graph
from brainkit.export.half_storage import fits_float16, stored_bytes, to_float16
from brainkit.export.storage import drift

KINDS = ("float32", "float16", "int8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One model stored in each way: path, what export returned, the ONNX model and its constants."""
    folder = tmp_path_factory.mktemp("compact")
    found = {}
    for kind in KINDS:
        result = tiny.export_tiny(folder / f"{kind}.onnx", storage=kind)
        model = onnx.load(result.path)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        found[kind] = SimpleNamespace(path=result.path, result=result, model=model, constants=constants)
    assert sorted(os.listdir(folder)) == sorted(f"{kind}.onnx" for kind in KINDS)
    return found


def predictions(path: Path, batch: int = 7) -> np.ndarray:
    encoder, images = predict.load(path, "cpu"), tiny.make_images()
    return np.concatenate([encoder.run(images[at : at + batch]) for at in range(0, len(images), batch)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_is_an_encoder_file_of_standard_operators(files: dict[str, Any], kind: str) -> None:
    file = files[kind]
    onnx.checker.check_model(file.model, full_check=True)
    assert {node.domain for node in file.model.graph.node} <= {"", "ai.onnx"}
    assert [(entry.domain, entry.version) for entry in file.model.opset_import] == [("", 20)]
    assert (file.model.producer_name, file.model.ir_version) == ("brainkit", 10)
    assert [entry.key for entry in file.model.metadata_props] == ["brainkit", "brainkit_sha256"]
    certificate = encoder_file.read(file.path).certificate
    assert certificate is not None and certificate["enforced"] is True
    assert certificate["largest"] < 1e-4  # of the float32 graph, however the file is stored
    assert predict.load(file.path).tokens(tiny.make_images()).shape == (7, 2, 6, 21)


def test_float16_halves_large_constants_and_leaves_the_rest(files: dict[str, Any]) -> None:
    half, whole = files["float16"], files["float32"]
    assert half.constants.keys() == whole.constants.keys()
    stored = {name for name, tensor in half.constants.items() if tensor.data_type == TensorProto.FLOAT16}
    assert {"readout.weight", "readout.coefficients", "backbone.patches.weight"} < stored
    for name, tensor in whole.constants.items():
        array, found = numpy_helper.to_array(tensor), numpy_helper.to_array(half.constants[name])
        matrix = array.dtype == np.float32 and sum(n > 1 for n in array.shape) >= 2 and array.size >= 1024
        assert (name in stored) == matrix
        np.testing.assert_array_equal(found, array.astype(np.float16) if matrix else array)
    casts = {node.input[0]: node.output[0] for node in half.model.graph.node if node.op_type == "Cast"}
    assert {name: casts[name] for name in stored} == {name: f"{name}/float32" for name in stored}
    read = {name for node in half.model.graph.node if node.op_type != "Cast" for name in node.input}
    assert not read & stored  # nothing computes with float16

    def bytes_of(constants: dict[str, Any]) -> int:
        return sum(len(constants[name].raw_data) for name in stored)

    assert bytes_of(half.constants) == bytes_of(whole.constants) / 2


@pytest.mark.parametrize(("kind", "least", "most"), [("float16", 1e-5, 5e-3), ("int8", 1e-3, 0.2)])
def test_the_drift_is_measured_and_recorded(files: dict[str, Any], kind: str, least: float, most: float) -> None:
    file = files[kind]
    info = encoder_file.read(file.path)
    recorded = info.quantised["drift"] if kind == "int8" else info.certificate["drift"]  # type: ignore[index]
    assert recorded == file.result.drift
    reference = predictions(files["float32"].path).astype(float)
    miss = np.stack([predictions(file.path, batch) for batch in (1, 3)]) - reference
    spread = reference.std(0)
    by_vertex = np.sqrt((miss**2).mean((0, 1))) / spread
    expected = {
        "rms": np.sqrt((miss**2).mean() / (spread**2).mean()),
        "median": np.median(by_vertex),
        "largest": by_vertex.max(),
        "difference": (np.abs(miss) / spread).max(),
    }
    for name, value in expected.items():
        assert recorded[name] == pytest.approx(value, rel=0.05), name
    assert least < recorded["median"] <= recorded["largest"] <= recorded["difference"]
    assert recorded["median"] < most
    assert (recorded["images"], recorded["batches"]) == (7, [1, 3])


def test_what_a_file_says_of_its_storage(files: dict[str, Any]) -> None:
    infos = {kind: encoder_file.read(files[kind].path) for kind in KINDS}
    assert [infos[kind].storage for kind in KINDS] == ["float32", "float16", "float32"]
    assert infos["float32"].quantised is infos["float16"].quantised is None
    assert files["float32"].result.drift is None
    assert infos["int8"].quantised["products"] == 3  # type: ignore[index]
    assert infos["float16"].certificate["kept_float32"] == []  # type: ignore[index]
    facts = {kind: dict(describe(files[kind].path).facts) for kind in KINDS}
    assert "storage" not in facts["float32"]
    for kind, words in (("float16", "large constants as float16"), ("int8", "int8 products of the backbone")):
        assert words in facts[kind]["storage"]
        assert f"{files[kind].result.drift['median']:.1e} of a vertex's s.d." in facts[kind]["storage"]
    value = json.loads(to_json(infos["float32"]))
    assert not {"storage", "quantised", "ensemble"} & value.keys()  # most files have no need of them


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": "float8"}, "storage must be float32 or float16, found 'float8'"),
        ({"storage": ["float16"]}, "storage must be float32 or float16, found a list of 1"),
        ({"quantised": 3}, "quantised must be an object, found 3"),
        ({"ensemble": []}, "ensemble must be an object, found a list of 0"),
        ({"ensemble": {"members": 1}}, "ensemble.members must be 2 to 1024"),
        ({"ensemble": {"members": 4}}, "6 channels evenly, found 4"),
        ({"ensemble": {"members": 10**400}}, "found a huge number"),
        ({"ensemble": {}}, "found None"),
    ],
)
def test_metadata_that_is_wrong_is_refused(files: dict[str, Any], change: dict[str, Any], message: str) -> None:
    value = json.loads(to_json(encoder_file.read(files["float32"].path))) | change
    with pytest.raises(EncoderFileError) as caught:
        from_json(json.dumps(value), source="x.onnx")
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- float16 ------------------------------------------------------------------------------------------------------


def test_what_float16_can_stand_for() -> None:
    draw = np.random.default_rng(0)
    array = draw.normal(size=(40, 50)).astype(np.float32)
    for fitting in (array, array * 1e4, array * 1e-3, np.zeros((4, 4), np.float32)):
        assert fits_float16(fitting)
    assert not fits_float16(array * 1e5)  # overflows
    assert not fits_float16(array * 1e-6)  # denormals
    assert not fits_float16(array * 1e-30)  # nothing left, and squares that vanish in float32
    for value in (np.nan, np.inf, 65520.0):
        assert not fits_float16(np.where(np.arange(50) == 3, np.float32(value), array))
    assert fits_float16(np.where(np.arange(50) == 3, np.float32(65504.0), array))
    for axis in (0, 1):  # a row, a column of numbers that float16 rounds to a few levels
        factor = np.ones(array.shape[axis], np.float32)
        factor[7] = 1e-3
        small = np.float32(1e-3) * array * np.expand_dims(factor, 1 - axis)
        assert not fits_float16(small), axis
        factor[7] = 0
        assert fits_float16(np.float32(1e-3) * array * np.expand_dims(factor, 1 - axis))
    assert fits_float16(draw.normal(size=(8, 4, 3, 3)).astype(np.float32))  # a convolution's


@pytest.mark.slow
def test_what_float16_cannot_hold_stays_float32_and_is_listed(tmp_path: Path) -> None:
    model = tiny.make_model()
    with torch.no_grad():
        model.weight.mul_(1e6)
    result = tiny.export_tiny(tmp_path / "large.onnx", model, storage="float16")
    assert result.certificate["kept_float32"] == ["readout.weight"]
    constants = {tensor.name: tensor.data_type for tensor in onnx.load(result.path).graph.initializer}
    assert constants["readout.weight"] == TensorProto.FLOAT
    assert constants["readout.coefficients"] == TensorProto.FLOAT16
    assert result.drift is not None and result.drift["median"] < 5e-3


def test_constants_of_norms_biases_and_inner_graphs_stay_float32() -> None:
    from onnx import helper

    wide = np.ones((40, 40), np.float32)
    constants = [numpy_helper.from_array(wide, name) for name in ("scale", "shift", "inside", "both", "free")]
    inner = helper.make_graph([helper.make_node("Identity", ["inside"], ["y"])], "inner", [], [])
    inner.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [40, 40]))
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["a"], name="norm"),
        helper.make_node("Gemm", ["a", "free", "both"], ["b"], name="gemm"),
        helper.make_node("MatMul", ["b", "both"], ["c"], name="product"),
        helper.make_node("If", ["c"], ["d"], name="if", then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(nodes, "g", [], [], initializer=constants)
    half, kept = to_float16(helper.make_model(graph))
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert [name for name, kind in kinds.items() if kind == TensorProto.FLOAT16] == ["free"]
    assert kept == ()
    assert [tensor.data_type for tensor in graph.initializer] == [TensorProto.FLOAT] * 5  # the model is left alone


@pytest.mark.slow
def test_a_model_that_only_fits_in_half_precision(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = stored_bytes(files["float16"].model)
    whole = sum(len(tensor.raw_data) for tensor in files["float32"].constants.values())
    assert half < 0.9 * whole
    large: list[str] = []
    save = onnx.save_model

    def saved(proto: Any, place: Any, **options: Any) -> None:
        large.append(options["location"])
        save(proto, place, **options)
        assert (Path(place).parent / options["location"]).stat().st_size > 20_000  # its constants lie beside

    monkeypatch.setattr(onnx, "save_model", saved)
    monkeypatch.setattr("brainkit.encoder_file.container.MAX_FILE", encoder_file.MAX_METADATA + (half + whole) // 2)
    with pytest.raises(BrainkitError, match=r"at most 2 GB.*--fp16"):
        tiny.export_tiny(tmp_path / "x.onnx", storage="int8")
    assert not large and not os.listdir(tmp_path)
    result = tiny.export_tiny(tmp_path / "x.onnx", storage="float16")
    assert large == ["constants.bin"]  # the float32 graph, for the comparison alone
    assert os.listdir(tmp_path) == ["x.onnx"]
    assert result.certificate["largest"] < 1e-4
    np.testing.assert_array_equal(predictions(result.path), predictions(files["float16"].path))
    monkeypatch.setattr("brainkit.encoder_file.container.MAX_FILE", encoder_file.MAX_METADATA + half // 3)
    with pytest.raises(BrainkitError, match=r"at most 2 GB.*--roi"):
        onnx_graph.check_size(half, "float16")


@pytest.mark.slow
def test_a_graph_that_differs_from_torch_is_not_stored_smaller(tmp_path: Path) -> None:
    class Drifting(tiny.Mixer):
        def get_tokens(self, images: Any) -> tuple[dict, dict]:
            local, whole = super().get_tokens(images)
            return {name: t * (1.01 if torch.compiler.is_compiling() else 1) for name, t in local.items()}, whole

    with pytest.raises(BrainkitError, match="differs from torch by"):
        tiny.export_tiny(tmp_path / "x.onnx", backbone=Drifting().eval(), storage="float16")
    assert not os.listdir(tmp_path)


# --- int8 ---------------------------------------------------------------------------------------------------------


def test_int8_changes_the_backbones_products_and_nothing_else(files: dict[str, Any]) -> None:
    small, whole = files["int8"], files["float32"]
    kinds = [node.op_type for node in small.model.graph.node]
    assert kinds.count("MatMulInteger") == 3  # wide, narrow, and the Gemm
    assert "Gemm" not in kinds and kinds.count("Conv") == 1
    ours = ("readout.", "local_", "global_", "grid_", "mean", "std", "backbone.patches")
    kept = {name: tensor for name, tensor in whole.constants.items() if name.startswith(ours)}
    assert len(kept) > 20
    for name, tensor in kept.items():
        np.testing.assert_array_equal(
            numpy_helper.to_array(small.constants[name]), numpy_helper.to_array(tensor), err_msg=name
        )
    weights = [numpy_helper.to_array(t) for t in small.constants.values() if t.data_type == TensorProto.INT8]
    matrices = [array for array in weights if array.ndim == 2]
    assert sorted(array.shape for array in matrices) == [(32, 64), (48, 48), (64, 48)]
    for array in matrices:  # one scale per output channel, and no sum of two products beyond 16 bits
        assert (np.abs(array.astype(int)).max(0) == 63).all() or (np.abs(array.astype(int)).max(0) == 64).all()
    scales = [t for name, t in small.constants.items() if name.endswith("_scale") and len(t.dims)]
    assert sorted(tuple(t.dims) for t in scales) == [(48,), (48,), (64,)]
    assert small.path.stat().st_size < whole.path.stat().st_size


@pytest.mark.slow
def test_exporters_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    tiny.export_tiny(tmp_path / "x.onnx", storage="int8")
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


@pytest.mark.slow
def test_a_network_of_convolutions_gains_nothing_by_int8(tmp_path: Path) -> None:
    class Convolutions(tiny.Mixer):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Conv2d(32, 48, 1)  # type: ignore[assignment]

        def get_tokens(self, images: Any) -> tuple[dict, dict]:
            patches = self.patches(images)
            mixed = self.narrow(patches)
            return {"patches": patches, "mixed": mixed}, {"patches": patches.mean((2, 3)), "mixed": mixed.mean((2, 3))}

    with pytest.raises(BrainkitError, match="mixer: cannot be stored as int8") as caught:
        tiny.export_tiny(tmp_path / "x.onnx", backbone=Convolutions().eval(), storage="int8")
    assert "--fp16" in str(caught.value) and "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


def test_what_the_quantiser_raises_is_one_line(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime import quantization

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(quantization, "quantize_dynamic", fails)
    plain, scratch = shutil.copy(files["float32"].path, tmp_path / "plain.onnx"), tmp_path / "scratch.onnx"
    with pytest.raises(BrainkitError, match=r"int8: RuntimeError: first; .*--fp16$"):
        int8.to_int8(plain, scratch, "mixer")
    monkeypatch.setattr(
        quantization, "quantize_dynamic", lambda plain, scratch, **_: onnx.save(onnx.load(plain), scratch)
    )
    with pytest.raises(BrainkitError, match="0 of 3 matrix products"):
        int8.to_int8(plain, scratch, "mixer")


def test_a_gemm_with_more_than_a_product_and_a_sum_is_left_alone() -> None:
    from onnx import helper

    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    ours = numpy_helper.from_array(np.ones((4, 4), np.float32), "global_weight_0")
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="plain"),
        helper.make_node("Gemm", ["x", "w"], ["b"], name="turned", transB=1),
        helper.make_node("Gemm", ["x", "w"], ["c"], name="doubled", alpha=2.0),
        helper.make_node("Gemm", ["x", "w"], ["d"], name="sideways", transA=1),
        helper.make_node("MatMul", ["x", "x"], ["e"], name="attention"),
        helper.make_node("MatMul", ["x", "global_weight_0"], ["f"], name="bottleneck"),
        helper.make_node("MatMul", ["x", "w"], ["g"], name="readout/MatMul/readout/x"),
    ]
    graph = helper.make_graph(nodes, "g", [], [], initializer=[weight, ours])
    assert int8.backbone_products(graph) == ["plain", "turned"]


# --- requests -----------------------------------------------------------------------------------------------------


def test_drift_is_in_units_of_the_vertices_own_spread() -> None:
    exact = np.array([[0.0, 0.0, 5.0], [2.0, 20.0, 5.0]], np.float32)  # s.d. 1, 10 and none
    found = drift(exact, [exact + np.float32(0.1), exact])
    floor = 1e-3 * np.sqrt(np.mean(exact**2))
    per_vertex = np.sqrt(0.005) / np.array([1, 10, floor])
    assert found["median"] == pytest.approx(np.median(per_vertex), rel=1e-4)
    assert found["largest"] == pytest.approx(per_vertex[2], rel=1e-4)
    assert found["difference"] == pytest.approx(0.1 / floor, rel=1e-4)
    assert found["rms"] == pytest.approx(np.sqrt(0.005 / (101 / 3)), rel=1e-4)


def test_unknown_storage_and_both_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="storage must be one of float32, float16, int8, got 'half'"):
        tiny.export_tiny(tmp_path / "x.onnx", storage="half")
    found = CliRunner().invoke(group, ["export", "--fp16", "--int8"])
    assert found.exit_code == 2 and "exclude each other" in found.output
