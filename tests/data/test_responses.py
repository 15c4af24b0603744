"""Responses on disk: rows, columns, pickling."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from subject_folders import refused, save, write_algonauts, write_own

from brainkit.data import Algonauts, Folder
from brainkit.data.responses import Responses
from brainkit.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "subj01"
    write_algonauts(folder)
    return folder


def test_rows_come_in_the_order_asked_for(root):
    subject = Algonauts(root)
    everything = subject.responses.rows(np.arange(9))
    index = np.array([8, 0, 5, 6, 0])
    np.testing.assert_array_equal(subject.responses.rows(index), everything[index])
    assert subject.responses.rows(np.array([], int)).shape == (0, 12)
    np.testing.assert_array_equal(np.concatenate(list(subject.responses.blocks())), everything)
    for bad in ([9], [-1], [0.5], [[0]]):
        with pytest.raises(UsageError, match="index must"):
            subject.responses.rows(bad)


def test_responses_stay_on_disk_also_when_pickled(root):
    subject = Algonauts(root)
    assert all(isinstance(part, np.memmap) for block in subject.responses._arrays for part in block)
    left = pickle.loads(pickle.dumps(subject.responses.take(np.array([7, 2])).keep(np.array([3, 4, 9]))))
    expected = subject.responses.rows([7, 2])[:, [3, 4, 9]]
    np.testing.assert_array_equal(left.rows(np.arange(2)), expected)
    assert left.rows([]).shape == (0, 3) and left.shape == (2, 3)
    content = pickle.dumps(subject.responses)
    assert len(content) < 3000
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.rows([7, 1]), subject.responses.rows([7, 1]))
    assert pickle.loads(pickle.dumps(subject)).describe() == subject.describe()


def test_blocks_that_do_not_fit_together(tmp_path):
    save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    save(tmp_path / "b.npy", np.zeros((4, 2), np.float32))
    save(tmp_path / "c.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(DataError, match="expected 3 rows"):
        Responses([[tmp_path / "a.npy", tmp_path / "b.npy"]])
    with pytest.raises(DataError, match="expected 2 columns"):
        Responses([[tmp_path / "a.npy"], [tmp_path / "c.npy"]])


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(600)


@pytest.mark.parametrize(
    "name",
    [
        "training_split/training_fmri/rh_training_fmri.npy",
        "test_split/test_fmri/lh_test_fmri.npy",
        "noise_ceiling/lh_noise_ceiling.npy",
        "roi_masks/lh.all-vertices_fsaverage_space.npy",
        "roi_masks/rh.streams_challenge_space.npy",
        "roi_masks/mapping_streams.npy",
    ],
)
def test_another_kind_of_file_is_named_in_an_algonauts_folder(root, name):
    for side, count in (("lh", 7), ("rh", 5)):
        save(root / f"noise_ceiling/{side}_noise_ceiling.npy", np.full(count, 0.5))
    (root / name).write_bytes(HDF5)
    refused(Algonauts, root, name.rpartition("/")[2], "HDF5", "numpy.save")


@pytest.mark.parametrize("name", ["responses.npy", "noise_ceiling.npy", "coordinates.npy"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [(HDF5, "HDF5"), (b"MATLAB 5.0 MAT-file" + bytes(600), "MATLAB"), (b"1,2\n3,4\n", "text"), (b"", "empty file")],
)
def test_another_kind_of_file_is_named_in_an_own_folder(tmp_path, name, content, kind):
    write_own(tmp_path)
    (tmp_path / name).write_bytes(content)
    refused(Folder, tmp_path, name, kind)
    with pytest.raises(DataError) as caught:
        Folder(tmp_path)
    assert "pickle" not in str(caught.value)
