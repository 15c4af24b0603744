"""A run folder keeps the volume of its voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from brainkit.cortex.volume import Volume
from brainkit.runs.folder import read_volume, write_volume


def test_a_run_keeps_its_volume(tmp_path: Path) -> None:
    affine = np.array([[2.0, 0, 0, -10], [0, 0, 2.0, 4], [0, -2.0, 0, 7], [0, 0, 0, 1]])
    volume = Volume((4, 5, 6), affine, np.array([[0, 0, 0], [1, 2, 3], [3, 4, 5]]))
    assert read_volume(tmp_path / "volume.npz") is None
    write_volume(tmp_path / "volume.npz", volume)
    kept = read_volume(tmp_path / "volume.npz")
    assert kept is not None and kept.shape == volume.shape
    np.testing.assert_array_equal(kept.affine, volume.affine)
    np.testing.assert_array_equal(kept.voxels, volume.voxels)
