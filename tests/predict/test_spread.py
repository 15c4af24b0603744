"""An ensemble's spread beside its predictions, in every format that holds it."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
for needed in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

import tiny_encoders as tiny
from PIL import Image

from brainkit.predict import load, predict_to_file
from brainkit.errors import UsageError
from brainkit.model.ensemble import Ensemble


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two, one of its members, and photographs."""
    folder = tmp_path_factory.mktemp("spread")
    models = [tiny.make_model(seed) for seed in (1, 2)]
    tiny.export_tiny(folder / "two.onnx", Ensemble(models), ensemble={"members": 2})
    tiny.export_tiny(folder / "one.onnx", models[0])
    (folder / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(11):
        Image.fromarray(draw.integers(0, 256, (30, 50, 3), np.uint8)).save(folder / "photos" / f"{number:02d}.png")
    (folder / "photos" / "05.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(place: Path) -> tuple[np.ndarray, np.ndarray]:
    encoder = load(place / "two.onnx", "cpu")
    readable = [path for path in sorted((place / "photos").iterdir()) if path.name != "05.png"]
    mean, sd = encoder.predict_with_spread(readable)
    assert sd.min() > 0
    return mean, sd


def predict(place: Path, out: Path, **options: Any) -> Any:
    return predict_to_file(
        place / "photos", out, place / "two.onnx", device="cpu", batch_size=3, spread=True, **options
    )


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_two_files_of_the_same_rows(place: Path, expected: Any, tmp_path: Path) -> None:
    result = predict(place, tmp_path / "fmri.npy")
    assert result.n == 10
    assert result.files == (tmp_path / "fmri.npy", tmp_path / "fmri-sd.npy")
    same(np.load(tmp_path / "fmri.npy"), expected[0])
    same(np.load(tmp_path / "fmri-sd.npy"), expected[1])
    said = json.loads((tmp_path / "fmri.json").read_text())["spread"]
    assert said["file"] == "fmri-sd.npy"
    assert "2 members" in said["what"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fmri-sd.npy", "fmri.json", "fmri.npy"]


def test_some_vertices_come_from_the_members_readouts(place: Path, expected: Any, tmp_path: Path) -> None:
    encoder = load(place / "two.onnx", "cpu")
    name = encoder.rois.names[0]
    columns = np.unique(encoder.rois.members(name))
    predict(place, tmp_path / "fmri.npy", rois=[name], top=2)
    same(np.load(tmp_path / "fmri.npy"), expected[0][:, columns])
    same(np.load(tmp_path / "fmri-sd.npy"), expected[1][:, columns])
    assert (tmp_path / f"fmri-top-{name}.png").is_file()


def test_other_formats(place: Path, expected: Any, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    predict(place, tmp_path / "fmri.npz")
    with np.load(tmp_path / "fmri-sd.npz") as file:
        same(file["fmri"], expected[1])
    predict(place, tmp_path / "z.zarr")
    same(np.asarray(zarr.open_array(tmp_path / "z-sd.zarr", mode="r")), expected[1])


def test_what_was_interrupted_goes_on_with_both(place: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stopped

    predict(place, tmp_path / "whole.npy")
    with pytest.raises(Stopped):
        predict(place, tmp_path / "fmri.npy", progress=stop)
    assert not (tmp_path / "fmri-sd.npy").exists()
    said: list[str] = []
    predict(place, tmp_path / "fmri.npy", say=said.append)
    assert any("goes on after 6 of 11" in line for line in said)
    for ending in ("", "-sd"):
        assert (tmp_path / f"fmri{ending}.npy").read_bytes() == (tmp_path / f"whole{ending}.npy").read_bytes()


def test_requests_that_cannot_be(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a spread needs an ensemble, and this encoder is a single model"):
        predict_to_file(place / "photos", tmp_path / "fmri.npy", place / "one.onnx", spread=True)
    with pytest.raises(UsageError, match=r"\.csv has means by region"):
        predict(place, tmp_path / "fmri.csv")
    (tmp_path / "fmri-sd.npy").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"fmri-sd\.npy: exists already"):
        predict(place, tmp_path / "fmri.npy")
    assert (tmp_path / "fmri-sd.npy").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fmri-sd.npy"]
