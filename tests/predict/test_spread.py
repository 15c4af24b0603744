"""An ensemble's spread next to its predictions, in every format that holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import expected_rows, write_ensemble

from brainkit.errors import UsageError
from brainkit.predict import load, predict_to_file
from brainkit.predict.outputs.formats import FORMATS


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file of three members."""
    return write_ensemble(tmp_path_factory.mktemp("ensemble"), members=3)


@pytest.fixture(scope="module")
def expected(readable: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the s.d. over the members, from the definition."""
    members = np.stack([expected_rows(readable, seed) for seed in range(3)])
    return members.mean(0), members.std(0, ddof=1)


def predict(ensemble: Path, photos: Path, out: Path, **options: Any) -> Any:
    return predict_to_file(photos, out, ensemble, device="cpu", batch_size=3, spread=True, **options)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_mean_and_sd_are_those_of_the_members(ensemble: Path, readable: list[Path], expected: Any) -> None:
    for found, one in zip(load(ensemble, "cpu").predict_with_spread(readable), expected, strict=True):
        same(found, one)


def test_two_files_of_the_same_rows(ensemble: Path, photos: Path, expected: Any, tmp_path: Path) -> None:
    result = predict(ensemble, photos, tmp_path / "fmri.npy")
    assert result.n == 10
    assert result.files == (tmp_path / "fmri.npy", tmp_path / "fmri-sd.npy")
    same(np.load(tmp_path / "fmri.npy"), expected[0])
    same(np.load(tmp_path / "fmri-sd.npy"), expected[1])
    assert json.loads((tmp_path / "fmri.npy.json").read_text())["spread"]["file"] == "fmri-sd.npy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fmri-sd.npy", "fmri.npy", "fmri.npy.json"]


def test_some_vertices_come_from_the_members_readouts(
    ensemble: Path, photos: Path, expected: Any, tmp_path: Path
) -> None:
    predict(ensemble, photos, tmp_path / "fmri.npy", rois=["PPA"], top=2)
    same(np.load(tmp_path / "fmri.npy"), expected[0][:, [1, 19]])
    same(np.load(tmp_path / "fmri-sd.npy"), expected[1][:, [1, 19]])
    assert (tmp_path / "fmri-top-PPA.png").is_file()


def test_other_formats(ensemble: Path, photos: Path, expected: Any, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    predict(ensemble, photos, tmp_path / "fmri.npz")
    with np.load(tmp_path / "fmri-sd.npz") as file:
        same(file["fmri"], expected[1])
    predict(ensemble, photos, tmp_path / "z.zarr")
    same(np.asarray(zarr.open_array(tmp_path / "z-sd.zarr", mode="r")), expected[1])


def test_an_interrupted_run_is_resumed_with_both(ensemble: Path, photos: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stopped

    predict(ensemble, photos, tmp_path / "whole.npy")
    with pytest.raises(Stopped):
        predict(ensemble, photos, tmp_path / "fmri.npy", progress=stop)
    assert not (tmp_path / "fmri-sd.npy").exists()
    seen: list[int] = []
    predict(ensemble, photos, tmp_path / "fmri.npy", progress=lambda done, total: seen.append(done))
    assert seen[0] == 9
    for ending in ("", "-sd"):
        assert (tmp_path / f"fmri{ending}.npy").read_bytes() == (tmp_path / f"whole{ending}.npy").read_bytes()


def test_requests_that_cannot_be(ensemble: Path, path: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ensemble"):
        predict_to_file(photos, tmp_path / "fmri.npy", path, spread=True)
    for suffix in (suffix for suffix, each in FORMATS.items() if each.means):
        with pytest.raises(UsageError, match=suffix):
            predict(ensemble, photos, tmp_path / f"fmri{suffix}")
    (tmp_path / "fmri-sd.npy").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"fmri-sd\.npy"):
        predict(ensemble, photos, tmp_path / "fmri.npy")
    assert (tmp_path / "fmri-sd.npy").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fmri-sd.npy"]
