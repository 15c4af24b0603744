"""Vertices that are left out, the data hash, and the check of images."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from subject_folders import refused, save, save_image, write_algonauts, write_own

from brainkit.data import Algonauts, Folder, check_images
from brainkit.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "subj01"
    write_algonauts(folder)
    return folder


def test_constant_and_not_finite_vertices_leave_every_axis_together(tmp_path):
    pytest.importorskip("nilearn")
    folder = tmp_path / "s"
    values = write_algonauts(folder)
    clean = Algonauts(folder)
    save(folder / "noise_ceiling/lh_noise_ceiling.npy", np.arange(7) / 20)
    save(folder / "noise_ceiling/rh_noise_ceiling.npy", np.arange(7, 12) / 20)
    values[:6, 1] = 0.1  # constant over training, whatever the test rows say
    values[6:, 3] = 2.0  # constant over the test rows alone: kept
    values[2, 4] = np.nan
    values[8, 9] = np.inf
    values[:, 10] = np.nan
    for side, columns in (("lh", slice(0, 7)), ("rh", slice(7, 12))):
        save(folder / f"training_split/training_fmri/{side}_training_fmri.npy", values[:6, columns])
        save(folder / f"test_split/test_fmri/{side}_test_fmri.npy", values[6:, columns])
    subject = Algonauts(folder)
    kept = [0, 2, 3, 5, 6, 7, 8, 11]
    ids = clean.vertices.ids
    assert subject.excluded == {"constant": [ids[1]], "nan": ids[[4, 9, 10]].tolist()}
    assert all(type(vertex) is int for vertex in subject.excluded["nan"])
    np.testing.assert_array_equal(subject.responses.rows([7, 2]), values[[7, 2]][:, kept])
    np.testing.assert_array_equal(subject[3][1], values[3, kept])
    np.testing.assert_array_equal(subject.vertices.ids, ids[kept])
    np.testing.assert_allclose(subject.noise_ceiling, np.array(kept) / 20, rtol=1e-6)
    assert subject.coordinates.shape == (8, 3)
    for name, positions in clean.rois.items():
        assert subject.rois[name].tolist() == [kept.index(i) for i in positions if i in kept]
    assert "left out: 1 constant vertex and 3 with missing values" in subject.describe()
    # Further columns are counted among those kept.
    np.testing.assert_array_equal(subject.responses.keep(np.array([1, 7])).rows([0])[0], values[0, [2, 11]])


def test_a_constant_that_differs_only_in_a_late_row_is_kept(tmp_path):
    folder = tmp_path / "s"
    values = write_algonauts(folder, images=300, test=0)
    values[:, 2] = 1.5
    values[299, 2] = 1.25
    values[:, 3] = -1.5
    save(folder / "training_split/training_fmri/lh_training_fmri.npy", values[:, :7])
    subject = Algonauts(folder)
    assert [len(subject.excluded["constant"]), subject.responses.shape[1]] == [1, 11]


def test_no_usable_vertex(tmp_path):
    write_algonauts(tmp_path / "s")
    for side, count in (("lh", 7), ("rh", 5)):
        save(tmp_path / f"s/training_split/training_fmri/{side}_training_fmri.npy", np.ones((6, count), np.float32))
    refused(Algonauts, tmp_path / "s", "training_fmri: expected", "constant (12)", "not finite (0)")


def test_float64_is_read_and_values_beyond_float32_are_excluded(tmp_path):
    values = write_algonauts(tmp_path / "s", dtype=np.float64, test=0)
    values[0, 0] = 1e300
    save(tmp_path / "s/training_split/training_fmri/lh_training_fmri.npy", values[:, :7])
    subject = Algonauts(tmp_path / "s")
    assert len(subject.excluded["nan"]) == 1
    assert subject.responses.rows([1]).dtype == np.float32


# ---- the hash


def test_the_data_hash_follows_contents_and_not_places(tmp_path):
    write_algonauts(tmp_path / "a")
    first = Algonauts(tmp_path / "a").data_hash
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Algonauts(tmp_path / "b").data_hash == first
    save_image(tmp_path / "b/training_split/training_images/train-0001_nsd-00007.png", 77)
    second = Algonauts(tmp_path / "b").data_hash
    values = np.load(tmp_path / "b/test_split/test_fmri/rh_test_fmri.npy")
    values[0, 0] += 1
    save(tmp_path / "b/test_split/test_fmri/rh_test_fmri.npy", values)
    assert len({first, second, Algonauts(tmp_path / "b").data_hash}) == 3
    assert len(first) == 64


def test_check_images(root):
    subject = Algonauts(root)
    seen = []
    check_images(subject, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)
    check_images(subject, full=True)
    for image in subject.images[3:5]:
        image.write_bytes(image.read_bytes()[:200])
    for full in (False, True):
        with pytest.raises(DataError, match=r"train-0004.*2 of 9 images.*--skip-unreadable") as caught:
            check_images(subject, full=full)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="train-0004"):
        subject[3]


def test_a_subject_of_some_rois_has_their_vertices_on_every_axis(tmp_path):
    pytest.importorskip("nilearn")
    folder = tmp_path / "s"
    values = write_algonauts(folder)
    save(folder / "noise_ceiling/lh_noise_ceiling.npy", np.arange(7) / 20)
    save(folder / "noise_ceiling/rh_noise_ceiling.npy", np.arange(7, 12) / 20)
    ids = Algonauts(folder).vertices.ids
    # Labels, left | right. Faces (OFA, FFA-1): 0 1 2 0 1 2 0 | 0 1 2 0 1. Streams (early): 0 1 0 1 0 1 0 | 0 1 0 1 0.
    values[:6, 1] = 0.1  # constant, in OFA and early
    values[2, 2] = np.nan  # in FFA-1
    values[2, 10] = np.nan  # in early
    values[:6, 6] = 0.1  # constant, in no ROI
    for side, columns in (("lh", slice(0, 7)), ("rh", slice(7, 12))):
        save(folder / f"training_split/training_fmri/{side}_training_fmri.npy", values[:6, columns])
        save(folder / f"test_split/test_fmri/{side}_test_fmri.npy", values[6:, columns])
    whole = Algonauts(folder)
    subject = whole.restrict(["ffa", "early"])  # a common name, in lower case
    kept = [3, 5, 8, 9]
    assert subject.chosen_rois == ("ffa", "early")
    np.testing.assert_array_equal(subject.responses.rows([7, 2]), values[[7, 2]][:, kept])
    np.testing.assert_array_equal(subject.vertices.ids, ids[kept])
    np.testing.assert_allclose(subject.noise_ceiling, np.array(kept) / 20, rtol=1e-6)
    assert {name: members.tolist() for name, members in subject.rois.items()} == {
        "OFA": [2],
        "FFA-1": [1, 3],
        "early": [0, 1, 2],
    }
    # Of the vertices left out, those in the ROIs: not the constant one outside.
    assert whole.excluded == {"constant": ids[[1, 6]].tolist(), "nan": ids[[2, 10]].tolist()}
    assert subject.excluded == {"constant": [ids[1]], "nan": ids[[2, 10]].tolist()}
    assert subject.data_hash != whole.data_hash
    assert "4 vertices of fsaverage5 (only ffa, early)" in subject.describe()
    again = subject.restrict("FFA-1")
    np.testing.assert_array_equal(again.vertices.ids, ids[[5, 9]])
    assert again.excluded == {"constant": [], "nan": [ids[2]]}
    for names, expected in ((["FFA-2", "V9"], "FFA-1"), (["aTL-faces"], "aTL-faces")):
        with pytest.raises(UsageError, match=rf"^s: ROI .*{expected}"):
            whole.restrict(names)


def test_voxels_of_some_rois_keep_their_places(tmp_path):
    write_own(tmp_path / "own", space=False)
    (tmp_path / "own" / "rois.json").write_text('{"back": [1, 3], "front": [0]}')
    coordinates = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], np.float32)
    save(tmp_path / "own" / "coordinates.npy", coordinates)
    volume = {"shape": [4, 4, 4], "affine": np.diag([2, 2, 2, 1]).tolist()}
    (tmp_path / "own" / "volume.json").write_text(json.dumps(volume))
    subject = Folder(tmp_path / "own").restrict(["back"])
    np.testing.assert_array_equal(subject.coordinates, coordinates[[1, 3]])
    np.testing.assert_array_equal(subject.volume.voxels, [[1, 0, 0], [0, 0, 1]])
    assert subject.noise_ceiling is None and len(subject.vertices) == 2


def test_a_subject_opened_by_a_relative_path_is_read_in_another_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subject = Algonauts(root.relative_to(tmp_path))
    pickled, (image, responses) = pickle.dumps(subject), subject[2]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again[2][1], responses)
    assert again[2][0].tobytes() == image.tobytes()
    assert again.root == root


def test_a_roi_whose_name_has_commas_can_be_trained_on(tmp_path):
    write_own(tmp_path)
    (tmp_path / "rois.json").write_text('{"V1, ventral": [0, 2], "V1": [1], "ventral": [3]}')
    subject = Folder(tmp_path)
    for given, columns in (("V1, ventral", [0, 2]), (("V1,ventral",), [1, 3]), (("V1, ventral,V1",), [0, 1, 2])):
        restricted = subject.restrict(given)
        assert restricted.responses.columns.tolist() == columns, given
    assert subject.restrict("V1, ventral").chosen_rois == ("V1, ventral",)
