"""Run folders: what is none, and the volume of its voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from brainkit.cortex.volume import Volume
from brainkit.errors import DataError
from brainkit.runs.folder import finished_run, read_volume, write_volume


def test_a_run_keeps_its_volume(tmp_path: Path) -> None:
    affine = np.array([[2.0, 0, 0, -10], [0, 0, 2.0, 4], [0, -2.0, 0, 7], [0, 0, 0, 1]])
    volume = Volume((4, 5, 6), affine, np.array([[0, 0, 0], [1, 2, 3], [3, 4, 5]]))
    assert read_volume(tmp_path / "volume.npz") is None
    write_volume(tmp_path / "volume.npz", volume)
    kept = read_volume(tmp_path / "volume.npz")
    assert kept is not None and kept.shape == volume.shape
    np.testing.assert_array_equal(kept.affine, volume.affine)
    np.testing.assert_array_equal(kept.voxels, volume.voxels)


def test_a_file_in_a_run_is_told_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "encoder.onnx").write_bytes(b"")
    (tmp_path / "run" / "config.yaml").write_text("")
    with pytest.raises(DataError, match=r"encoder\.onnx: .*found a file; its folder is .*run$"):
        finished_run(tmp_path / "run" / "encoder.onnx")
    with pytest.raises(DataError, match="nowhere: no such run folder"):
        finished_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds the runs run: name one"):
        finished_run(tmp_path)
    (tmp_path / "encoder.onnx").write_bytes(b"")
    with pytest.raises(DataError, match=r"found a file$"):
        finished_run(tmp_path / "encoder.onnx")
