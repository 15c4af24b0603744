"""Several models in one encoder file: their mean, their s.d., and their metadata."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
for needed in ("pytorch_lightning", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

import onnx
import tiny_encoders as tiny
from onnx import numpy_helper

from brainkit import encoder_file, predict
from brainkit.encoder_file.describe import describe
from brainkit.errors import EncoderFileError, UsageError
from brainkit.export import VertexSubset
from brainkit.images import normalise
from brainkit.model.ensemble import Ensemble

SEEDS = (0, 1, 2)


def in_torch(models: Any, backbone: Any, images: np.ndarray) -> np.ndarray:
    """Predictions (M, n, V) of each model."""
    with torch.no_grad():
        tokens = backbone.get_tokens(torch.from_numpy(normalise(images, tiny.PREPROCESSING)))
        return np.stack([model(*tokens).numpy() for model in models])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three models of one network as one file."""
    models = [tiny.make_model(seed) for seed in SEEDS]
    path = tmp_path_factory.mktemp("ensemble") / "three.onnx"
    result = tiny.export_tiny(path, Ensemble(models), ensemble={"members": 3})
    expected = in_torch(models, tiny.make_backbone(), tiny.make_images())
    return SimpleNamespace(models=models, path=path, result=result, expected=expected, onnx=onnx.load(path))


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_it_predicts_the_mean_and_the_spread_of_its_members(three: Any, batch: int) -> None:
    encoder, images = predict.load(three.path, "cpu"), tiny.make_images()
    mean, sd = encoder.predict_with_spread(images, batch, prepared=True)
    assert (mean.dtype, sd.dtype, mean.shape, sd.shape) == (np.float32, np.float32, (7, 300), (7, 300))
    scale = three.expected.std()
    np.testing.assert_allclose(mean, three.expected.mean(0), atol=2e-5 * scale)
    np.testing.assert_allclose(sd, three.expected.std(0, ddof=1), atol=2e-5 * scale)
    np.testing.assert_array_equal(encoder.predict(images, batch, prepared=True), mean)
    np.testing.assert_array_equal(encoder.run(images[:batch]), mean[:batch])
    assert three.result.certificate["enforced"] and three.result.certificate["largest"] < 1e-4


def test_no_images_have_no_spread(three: Any) -> None:
    mean, sd = predict.load(three.path, "cpu").predict_with_spread(tiny.make_images()[:0], prepared=True)
    assert mean.shape == sd.shape == (0, 300)


def test_the_network_runs_once_and_every_member_has_its_arrays(three: Any) -> None:
    kinds = [node.op_type for node in three.onnx.graph.node]
    assert kinds.count("Conv") == 1 and kinds.count("LayerNormalization") == 1
    outputs = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in three.onnx.graph.output
    }
    assert outputs == {"fmri": ["batch", 300], "fmri_sd": ["batch", 300], "tokens": ["batch", 2, 18, 21]}
    onnx.checker.check_model(three.onnx, full_check=True)
    constants = {t.name: numpy_helper.to_array(t) for t in three.onnx.graph.initializer}
    assert "readout.weight" not in constants
    # The reader of docs/encoder-file.md, on each member's channels of tokens.
    page = (Path(__file__).parents[2] / "docs" / "encoder-file.md").read_text(encoding="utf-8")
    code = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "readout" in code)
    code = code[code.index("wanted =") :]
    tokens = predict.load(three.path, "cpu").tokens(tiny.make_images())
    for m in range(3):
        start = f"readout.{m}."
        names: dict[str, Any] = {
            "np": np,
            "tokens": tokens[:, :, m * 6 : (m + 1) * 6],
            "readout": {f"readout.{n.removeprefix(start)}": a for n, a in constants.items() if n.startswith(start)},
        }
        exec(code, names)
        expected = three.expected[m][:, names["wanted"]]
        np.testing.assert_allclose(names["fmri"], expected, atol=1e-4 * three.expected.std())


def test_its_metadata_are_of_all_members(three: Any) -> None:
    info = encoder_file.read(three.path)
    assert info.ensemble == {"members": 3} and info.bottleneck == 18
    folded = [model.folded() for model in three.models]
    for name, close in (("layer_weights", 5e-4), ("locations", 1e-6), ("scale", 1e-6)):
        mean = np.mean([getattr(each, name) for each in folded], axis=0)
        np.testing.assert_allclose(getattr(info, name), mean, atol=close)
    assert "mean of 3 models" in dict(describe(three.path).facts)["ensemble"]


@pytest.mark.slow
def test_a_single_model_has_no_spread(tmp_path: Path) -> None:
    tiny.export_tiny(tmp_path / "one.onnx")
    with pytest.raises(UsageError, match="must be an ensemble to have a spread, got a single model"):
        predict.load(tmp_path / "one.onnx", "cpu").predict_with_spread(tiny.make_images(), prepared=True)
    info = encoder_file.read(tmp_path / "one.onnx")
    assert info.ensemble is None
    # And one that only says that it is an ensemble is found out.
    model = onnx.load(tmp_path / "one.onnx")
    del model.metadata_props[:]
    encoder_file.write(
        tmp_path / "x.onnx", model.SerializeToString(), dataclasses.replace(info, ensemble={"members": 2})
    )
    with pytest.raises(EncoderFileError, match="its graph must have fmri_sd"):
        predict.load(tmp_path / "x.onnx", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "storage", "kept"), [("cpu", "float16", np.arange(300)), ("gpu", "int8", np.arange(3, 290, 7))]
)
def test_storage_target_and_subset(three: Any, tmp_path: Path, target: str, storage: str, kept: np.ndarray) -> None:
    options = {"target": target, "storage": storage, "subset": VertexSubset(kept, {}), "ensemble": {"members": 3}}
    result = tiny.export_tiny(tmp_path / "x.onnx", Ensemble(three.models), **options)
    found = predict.load(result.path, "cpu").predict_with_spread(tiny.make_images(), prepared=True)
    part = three.expected[:, :, kept]
    for values, expected in zip(found, (part.mean(0), part.std(0, ddof=1)), strict=True):
        close = {"float16": 5e-3, "int8": 0.3}[storage] * expected.std()
        assert 0 < np.sqrt(np.mean((values - expected) ** 2)) < close
    info = encoder_file.read(result.path)
    assert (info.form, len(info.vertices)) == ({"gpu": "padded", "cpu": "cells"}[target], len(kept))
    if storage == "float16":
        assert result.bytes < three.result.bytes
        kinds = {tensor.name: tensor.data_type for tensor in onnx.load(result.path).graph.initializer}
        assert {kinds[f"readout.{m}.weight"] for m in range(3)} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (5, 5)}, r"grid, got \(4, 5\) and \(5, 5\)"),
        ({"gauge": "published"}, "gauge, got unit and published"),
        ({"bottleneck": 7}, r"got \(300, 6\) and \(300, 7\)"),
    ],
)
def test_models_that_differ_are_no_ensemble(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Ensemble([tiny.make_model(), tiny.make_model(1, **options)])
    with pytest.raises(UsageError, match="got 1"):
        Ensemble([tiny.make_model()])
