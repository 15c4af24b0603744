"""Own volumetric data: the volume that the voxels lie in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainkit.data import Folder
from brainkit.errors import DataError

AFFINE = [[2.0, 0, 0, -10], [0, 0, 2.0, 4], [0, -2.0, 0, 7], [0, 0, 0, 1]]


def test_own_volumetric_data(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{index}.png")
    responses = rng.normal(size=(6, 5)).astype(np.float32)
    responses[:, 2] = 1.0  # constant: left out, of the volume too
    np.save(tmp_path / "responses.npy", responses)
    voxels = np.array([[0, 0, 0], [1, 2, 3], [3, 4, 5], [2, 0, 1], [0, 4, 0]])
    affine = np.array(AFFINE)
    np.save(tmp_path / "coordinates.npy", voxels @ affine[:3, :3].T + affine[:3, 3])
    file = tmp_path / "volume.json"
    file.write_text(json.dumps({"shape": [4, 5, 6], "affine": AFFINE}))
    volume = Folder(tmp_path).volume
    assert volume is not None
    np.testing.assert_array_equal(volume.voxels, voxels[[0, 1, 3, 4]])
    for value in (
        {"shape": [4, 5, 6], "affine": np.eye(4).tolist()},
        {"shape": [3, 5, 6], "affine": AFFINE},
        {"shape": [4, 5, 6], "affine": [*(np.array(AFFINE[:3]) * 1.3).tolist(), [0, 0, 0, 1]]},
        {"shape": [4, 5], "affine": AFFINE},
        {"shape": [4, 5, 6], "affine": np.zeros((4, 4)).tolist()},
        [],
    ):
        file.write_text(json.dumps(value))
        with pytest.raises(DataError) as caught:
            Folder(tmp_path)
        assert str(caught.value).startswith(str(file))
    file.write_text(json.dumps({"shape": [4, 5, 6], "affine": AFFINE}))
    (tmp_path / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": [0, 1, 2, 3, 4]}))
    with pytest.raises(DataError, match=r"vertices|fsaverage"):
        Folder(tmp_path)
