"""The reader of own data."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from subject_folders import refused, save, save_image, write_own

from brainkit.data import Folder


def test_own_data_on_a_surface(tmp_path):
    pytest.importorskip("nilearn")
    values = write_own(tmp_path)
    (tmp_path / "rois.json").write_text(json.dumps({"A": [0, 2], "nothing": []}))
    (tmp_path / "stimuli.json").write_text(json.dumps({"a0.png": "x", "b0.png": "x"}))
    save(tmp_path / "noise_ceiling.npy", np.array([10.0, 20, 30, 40]))
    subject = Folder(tmp_path)
    assert [path.name for path in subject.images] == ["a0.png", "b0.png", "c0.png", "d0.png", "e0.png"]
    assert subject.groups == ("x", "x", "c0.png", "d0.png", "e0.png")
    np.testing.assert_array_equal(subject.responses.rows(np.arange(5)), values.astype(np.float32))
    assert subject.vertices.ids.tolist() == [3, 10, 10_242, 20_000]
    assert subject.rois.to_json() == {"A": [0, 2], "nothing": []}
    np.testing.assert_allclose(subject.noise_ceiling, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert subject.coordinates.shape == (4, 3)
    assert not subject.official_test.any()


def test_own_data_with_coordinates_alone(tmp_path):
    values = write_own(tmp_path, space=False)
    values[:, 1] = 3
    save(tmp_path / "responses.npy", values)
    subject = Folder(tmp_path)
    assert subject.vertices.space == "custom"
    assert subject.vertices.ids.tolist() == [0, 1, 2]
    assert subject.excluded["constant"] == [1]
    np.testing.assert_allclose(subject.coordinates, np.load(tmp_path / "coordinates.npy")[[0, 2, 3]], rtol=1e-6)
    assert "3 vertices" in subject.describe()


def test_own_data_with_both(tmp_path):
    write_own(tmp_path)
    save(tmp_path / "coordinates.npy", np.arange(12).reshape(4, 3))
    subject = Folder(tmp_path)
    assert subject.vertices.space == "fsaverage5"
    np.testing.assert_array_equal(subject.coordinates, np.arange(12).reshape(4, 3))
    (tmp_path / "vertices.json").write_text('{"space": "custom"}')
    assert Folder(tmp_path).vertices.space == "custom"


def test_own_images_in_subfolders(tmp_path):
    write_own(tmp_path)
    (tmp_path / "images/z").mkdir()
    (tmp_path / "images/a0.png").rename(tmp_path / "images/z/a0.png")
    subject = Folder(tmp_path)
    assert subject.groups[-1] == "z/a0.png"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2]}, ("expected 4 ids", "found 2")),
        ("vertices.json", {"space": "mni", "ids": [1, 2, 3, 4]}, ("fsaverage5", "'mni'")),
        ("vertices.json", {"space": "fsaverage5", "ids": [4, 3, 2, 1]}, ("increasing",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 20_484]}, ("20483",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 10**30]}, ("20483",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 4.0]}, ("whole numbers",)),
        ("vertices.json", {"space": ["x"], "ids": []}, ("fsaverage5",)),
        ("vertices.json", {"space": "custom", "ids": [0, 1, 2, 3]}, ("fsaverage5",)),
        ("vertices.json", [1, 2], ("no space",)),
        ("rois.json", {"A": [4]}, ("0 .. 3", "counted from 0")),
        ("rois.json", {"A": [0, 1, 1, 0]}, ("mask",)),
        ("rois.json", {"A": [10**30]}, ("vertex positions",)),
        ("rois.json", {"A": "x"}, ("whole numbers",)),
        ("rois.json", [1], ("object",)),
        ("stimuli.json", {"zzz.png": "x"}, ("zzz.png",)),
    ],
)
def test_json_files_of_own_data_that_do_not_fit(tmp_path, name, content, words):
    write_own(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    refused(Folder, tmp_path, name, *words)


def test_own_data_that_does_not_fit(tmp_path):
    write_own(tmp_path)
    save(tmp_path / "noise_ceiling.npy", np.zeros(5))
    refused(Folder, tmp_path, "noise_ceiling.npy", "4 vertices")
    (tmp_path / "noise_ceiling.npy").unlink()
    (tmp_path / "images/a0.png").unlink()
    refused(Folder, tmp_path, "responses.npy", "expected 4 rows", "found 5")
    (tmp_path / "vertices.json").unlink()
    save_image(tmp_path / "images/a0.png", 0)
    refused(Folder, tmp_path, "vertices.json or coordinates.npy, found neither")
    for wrong, words in [
        (np.zeros((4, 2)), ("(4, 3)", "(4, 2)")),
        (np.full((4, 3), np.nan), ("finite", "4 rows")),
        (np.ones((4, 3)), ("same for all 4",)),
        (np.full((4, 3), "a"), ("numbers",)),
    ]:
        save(tmp_path / "coordinates.npy", wrong)
        refused(Folder, tmp_path, "coordinates.npy", *words)
    (tmp_path / "responses.npy").unlink()
    refused(Folder, tmp_path, "responses.npy: file not found")
    shutil.rmtree(tmp_path / "images")
    refused(Folder, tmp_path, "images: expected a folder with images, found nothing")
    (tmp_path / "images").mkdir()
    refused(Folder, tmp_path, "no images found")
