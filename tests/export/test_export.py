"""One ONNX file that predicts what torch predicts, and that others can read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
onnx = pytest.importorskip("onnx", reason="export needs brainkit[train]")
onnxruntime = pytest.importorskip("onnxruntime")

from small_encoders import (  # noqa: E402
    PREPROCESSING,
    Branching,
    Counting,
    Drifting,
    in_torch,
    make_backbone,
    make_images,
    make_info,
    make_model,
)

from brainkit import encoder_file, export, predict  # noqa: E402
from brainkit.cortex.rois import RoiTable  # noqa: E402
from brainkit.cortex.vertices import Vertices  # noqa: E402
from brainkit.errors import BrainkitError, EncoderFileError, UsageError  # noqa: E402
from brainkit.export import onnx_readout  # noqa: E402
from brainkit.export.export import _check_request  # noqa: E402
from brainkit.export.torch_forms import readout_module  # noqa: E402
from brainkit.images import normalise  # noqa: E402
from brainkit.model.factor_topy import FactorTopy  # noqa: E402
from brainkit.ops.reference import factor_readout  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model, backbone, images = make_model(), make_backbone(), make_images()
    path = tmp_path_factory.mktemp("export") / "encoder.onnx"
    result = export.export_onnx(model, backbone, path, info=make_info(model), images=images)
    return SimpleNamespace(model=model, backbone=backbone, images=images, path=path, result=result)


@pytest.fixture(scope="module")
def padded(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same encoder with the readout for GPUs."""
    path = tmp_path_factory.mktemp("padded") / "encoder.onnx"
    options = {"info": make_info(exported.model), "images": exported.images, "target": "gpu"}
    result = export.export_onnx(exported.model, exported.backbone, path, **options)
    return SimpleNamespace(**{**vars(exported), "path": path, "result": result})


def test_the_certificate_is_in_the_file(exported: Any) -> None:
    certificate = exported.result.certificate
    assert exported.result.path == exported.path
    assert exported.result.bytes == exported.path.stat().st_size
    assert certificate["largest"] < 1e-4
    assert certificate["median"] <= certificate["largest"]
    assert certificate["images"] == 7
    assert certificate["batches"] == [1, 3]
    assert certificate["bound"] == 1e-4
    assert certificate["enforced"] is True
    assert set(certificate["versions"]) == {"brainkit", "torch", "onnxruntime"}
    assert encoder_file.read(exported.path).certificate == certificate
    assert os.listdir(exported.path.parent) == ["encoder.onnx"]


def test_predictions_are_those_of_torch_at_every_batch_size(exported: Any) -> None:
    encoder = predict.load(exported.path, "cpu")
    for batch in (1, 2, 3, 7):
        expected = in_torch(exported.model, exported.backbone, exported.images[:batch])
        found = encoder.run(exported.images[:batch])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5 * expected.std(), rtol=1e-5)


def test_tokens_are_those_of_torch(exported: Any) -> None:
    with torch.no_grad():
        raw = exported.backbone.get_tokens(torch.from_numpy(normalise(exported.images, PREPROCESSING)))
        local, whole = exported.model.bottlenecked(*raw)
    expected = torch.cat([local.flatten(3), whole[..., None]], -1).numpy()
    found = predict.load(exported.path, "cpu").tokens(exported.images)
    assert found.shape == (7, 2, 6, 21)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std(), rtol=1e-4)


def test_only_standard_operators_and_nothing_of_this_machine(exported: Any) -> None:
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(entry.domain, entry.version >= 20) for entry in model.opset_import] == [("", True)]
    assert not model.functions
    assert (model.producer_name, model.ir_version) == ("brainkit", 10)
    content = exported.path.read_bytes()
    for trace in (str(Path(export.__file__).parent), str(Path(__file__).parent), "get_tokens", ".py"):
        assert trace.encode() not in content


def test_the_metadata_survives_another_reader(exported: Any) -> None:
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    value = json.loads(session.get_modelmeta().custom_metadata_map["brainkit"])
    assert value["layers"] == ["fine", "coarse"]
    info, folded = encoder_file.read(exported.path), exported.model.folded()
    np.testing.assert_allclose(info.layer_weights, folded.layer_weights, atol=5e-4)
    np.testing.assert_array_equal(info.locations, folded.locations.astype(np.float32))
    np.testing.assert_array_equal(info.scale, folded.scale.astype(np.float32))
    assert info.rois.to_json() == make_info(exported.model).rois.to_json()
    assert np.isnan(info.noise_ceiling).all()
    assert (info.grid, info.bottleneck) == ((4, 5), 6)


@pytest.mark.parametrize("target", ["exported", "padded"])
def test_a_reader_written_from_the_document_scores_a_subset(
    target: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = request.getfixturevalue(target)
    page = (Path(__file__).parents[2] / "docs" / "encoder-file.md").read_text(encoding="utf-8")
    code = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "readout" in code)
    monkeypatch.chdir(exported.path.parent)
    namespace: dict[str, Any] = {"images": exported.images}
    exec(code, namespace)
    expected = in_torch(exported.model, exported.backbone, exported.images)[:, namespace["wanted"]]
    np.testing.assert_allclose(namespace["fmri"], expected, atol=1e-5 * expected.std(), rtol=1e-5)


def test_a_changed_byte_is_found_before_onnx_runtime_sees_it(exported: Any, tmp_path: Path) -> None:
    content = bytearray(exported.path.read_bytes())
    content[len(content) // 3] ^= 1
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(EncoderFileError, match="digest"):
        predict.load(tmp_path / "x.onnx")


@pytest.mark.slow
def test_training_mode_is_put_back(tmp_path: Path) -> None:
    model, backbone = make_model(1), make_backbone()  # one vertex, one group
    backbone.fine.train()
    before = in_torch(model, backbone.eval(), make_images(3))
    backbone.train()
    backbone.fine.eval()
    export.export_onnx(model, backbone, tmp_path / "x.onnx", info=make_info(model), images=make_images(3))
    assert backbone.training
    assert not backbone.fine.training
    found = predict.load(tmp_path / "x.onnx").run(make_images(3))
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found, before, rtol=1e-4, atol=1e-4 * before.std())


@pytest.mark.slow
def test_a_file_that_differs_from_torch_is_not_written(tmp_path: Path) -> None:
    model, backbone, out = make_model(), make_backbone(Drifting), tmp_path / "x.onnx"
    with pytest.raises(BrainkitError, match="differs from torch by") as caught:
        export.export_onnx(model, backbone, out, info=make_info(model), images=make_images())
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)

    backbone.pretrained = False  # random weights: reported only
    certificate = export.export_onnx(model, backbone, out, info=make_info(model), images=make_images()).certificate
    assert certificate["largest"] > 1e-4
    assert certificate["enforced"] is False


@pytest.mark.slow
def test_a_backbone_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(BrainkitError, match=r"backbone tiny: torch\.onnx\.export cannot export it") as caught:
        export.export_onnx(
            model, make_backbone(Branching), tmp_path / "x.onnx", info=make_info(model), images=make_images()
        )
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_a_batch_size_that_is_part_of_the_graph_is_one_line(tmp_path: Path) -> None:
    model = make_model()
    path = tmp_path / "e.onnx"
    with pytest.raises(BrainkitError, match=r"the exported network .*len\(images\)") as caught:
        export.export_onnx(model, make_backbone(Counting), path, info=make_info(model), images=make_images())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_over_two_gigabytes_names_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    monkeypatch.setattr("brainkit.encoder_file.container.MAX_FILE", encoder_file.MAX_METADATA + 1000)
    with pytest.raises(BrainkitError, match="--fp16"):
        export.export_onnx(model, make_backbone(), tmp_path / "x.onnx", info=make_info(model), images=make_images())
    assert not os.listdir(tmp_path)


def test_requests_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, backbone, out = make_model(), make_backbone(), tmp_path / "x.onnx"
    info = make_info(model)
    for images in (make_images(2), make_images()[:, :20], make_images().astype(np.float32)):
        with pytest.raises(UsageError, match="images must be uint8"):
            export.export_onnx(model, backbone, out, info=info, images=images)
    with pytest.raises(UsageError, match="60 vertices"):
        export.export_onnx(model, backbone, out, info=make_info(make_model(5)), images=make_images())
    with torch.no_grad():
        model.bias[3] = torch.nan
    with pytest.raises(BrainkitError, match="bias is not finite at 1 of 60 vertices, the first is 3"):
        export.export_onnx(model, backbone, out, info=info, images=make_images())
    folded = SimpleNamespace(**{**vars(make_model().folded()), "locations": np.full((60, 2), np.nan)})
    with pytest.raises(BrainkitError, match="locations"):
        _check_request(folded, info, make_images())  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


# --- the readout against the spec -------------------------------------------------------------------------------

EDGES = [-5.0, -1.5, -1.25, -1.2, -1.0, -0.9, -0.75, -0.25, 0.0, 0.1, 0.75, 0.9, 1.0, 1.2, 1.25, 1.5, 5.0]


def random_folded(grid: tuple[int, int], n_layers: int, n_channels: int, locations: np.ndarray) -> Any:
    rng = np.random.default_rng(3)
    V = len(locations)
    return SimpleNamespace(
        grid=grid,
        layer_weights=rng.dirichlet(np.ones(n_layers), V),
        locations=locations,
        scale=np.linspace(0, 1, V) if V > 1 else np.array([0.3]),
        weight=rng.normal(size=(V, n_channels)),
        bias=rng.normal(size=V),
    )


def run_readout(folded: Any, tokens: np.ndarray, readout: onnx_readout.Readout) -> np.ndarray:
    """The readout's nodes alone, on tokens given."""
    from onnx import TensorProto, helper

    L = tokens.shape[1]
    H, W = folded.grid
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", *tokens.shape[1:]])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["tokens"])], "g", [given], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx_readout.append_readout(model, readout, (H, W), L)
    model.graph.input[0].CopyFrom(given)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fmri, again = session.run(["fmri", "tokens"], {"images": tokens})
    np.testing.assert_array_equal(again, tokens)
    return fmri


CASES = {
    "edges": ((4, 5), 3, 7, np.array([(x, y) for x in EDGES for y in EDGES])),
    "outside": ((4, 4), 2, 3, np.array([(-2.0, 0.0), (0.0, 2.0), (3.0, 3.0)])),
    "single vertex": ((8, 8), 1, 1, np.array([(0.3, -0.2)])),
    "single cell": ((1, 1), 2, 5, np.array([(0.0, 0.0), (1.0, 1.0), (-0.4, 0.6)])),
    "one group": ((8, 8), 2, 5, np.zeros((65, 2))),
    "many": ((8, 8), 4, 16, np.random.default_rng(0).uniform(-1, 1, (500, 2))),
}


def readout_of(folded: Any, form: str) -> onnx_readout.Readout:
    readout = onnx_readout.sort_readout(folded)
    return readout if form == "cells" else onnx_readout.pad_readout(readout)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["cells", "padded"])
def test_the_readout_matches_the_spec(case: str, batch: int, form: str) -> None:
    grid, L, D, locations = CASES[case]
    folded = random_folded(grid, L, D, locations)
    P = grid[0] * grid[1]
    tokens = np.random.default_rng(4).normal(size=(batch, L, D, P + 1)).astype(np.float32)
    double = torch.from_numpy(tokens.astype(np.float64))
    arrays = (folded.locations, folded.layer_weights, folded.scale, folded.weight, folded.bias)
    expected = factor_readout(
        double[..., :P].unflatten(-1, grid), double[..., P], *(torch.from_numpy(np.asarray(a)) for a in arrays)
    ).numpy()
    readout = readout_of(folded, form)
    for found in (run_readout(folded, tokens, readout), torch_readout(readout, tokens)):
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=2e-6)
    assert readout.form == form
    assert readout.counts.sum() == len(readout.weight) == len(readout.coefficients)
    assert readout.cells.min() >= 0
    assert (readout.cells[:, 4] == P).all()
    assert (readout.cells[:, :4] < P).all()
    if form == "cells":
        assert readout.counts.sum() == len(locations)
        assert len(readout.cells) <= (grid[0] + 1) * (grid[1] + 1)


def torch_readout(readout: onnx_readout.Readout, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return readout_module(readout)(torch.from_numpy(tokens)).numpy()


@pytest.mark.parametrize("case", CASES)
def test_the_padded_form_holds_the_same_rows_in_bins_of_128(case: str) -> None:
    folded = random_folded(*CASES[case])
    plain, padded = readout_of(folded, "cells"), readout_of(folded, "padded")
    assert set(padded.counts) == {128} and len(padded.weight) == 128 * len(padded.cells)
    assert len(padded.cells) == sum(-(-count // 128) for count in plain.counts)
    assert len(np.unique(padded.order)) == len(plain.order)
    for name in ("weight", "coefficients"):
        rows = getattr(padded, name)
        np.testing.assert_array_equal(rows[padded.order], getattr(plain, name)[plain.order])
        assert not np.delete(rows, padded.order, axis=0).any()
    group = np.repeat(np.arange(len(plain.counts)), plain.counts)[plain.order]
    np.testing.assert_array_equal(padded.cells[padded.order // 128], plain.cells[group])


@pytest.mark.parametrize(("target", "form"), [("exported", "cells"), ("padded", "padded")])
def test_a_target_is_a_form_and_has_its_weights_once(target: str, form: str, request: pytest.FixtureRequest) -> None:
    file = request.getfixturevalue(target)
    assert file.result.certificate["largest"] < 1e-4
    assert encoder_file.read(file.path).form == form
    graph = onnx.load(file.path).graph
    readout = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.name.startswith("readout.")}
    rows = readout["readout.weight"][0]
    assert readout["readout.weight"] == (rows, 6) and readout["readout.coefficients"] == (rows, 10)
    assert readout["readout.order"] == readout["readout.bias"] == (60,)
    assert (rows == 60) if form == "cells" else (rows == 128 * readout["readout.cells"][0])
    large = [name for name, shape in readout.items() if np.prod(shape) > rows * 5]
    assert sorted(large) == ["readout.coefficients", "readout.weight"]


def test_targets_are_checked(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(UsageError, match="target must be one of cpu, gpu, got 'tpu'"):
        export.export_onnx(
            model, make_backbone(), tmp_path / "x.onnx", info=make_info(model), images=make_images(), target="tpu"
        )


@pytest.mark.slow
def test_a_timm_transformer_exports(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from brainkit.backbones import load_backbone

    backbone = load_backbone("test_vit", random_weights=True)
    rng = np.random.default_rng(0)
    model = FactorTopy(backbone.widths, rng.normal(0, 40, (50, 3)), bottleneck=8, backend="reference")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    size = backbone.preprocessing.size
    info = export.describe(
        model.folded(),
        vertices=Vertices.custom(50),
        rois=RoiTable({}, 50),
        preprocessing=backbone.preprocessing,
        backbone={"name": backbone.name, "pretrained": backbone.pretrained},
    )
    images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    result = export.export_onnx(model, backbone, tmp_path / "vit.onnx", info=info, images=images)
    assert result.certificate["enforced"] is False
    assert result.certificate["largest"] < 1e-3
