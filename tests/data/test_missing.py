"""Missing trials are refused by row and image; vertices that cannot be used are left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subject_folders import refused, save, write_algonauts, write_own

from brainkit.data import Algonauts, Folder

FILES = {
    "lh": "training_split/training_fmri/lh_training_fmri.npy",
    "rh": "training_split/training_fmri/rh_training_fmri.npy",
    "lh test": "test_split/test_fmri/lh_test_fmri.npy",
    "rh test": "test_split/test_fmri/rh_test_fmri.npy",
}


@pytest.fixture
def root(tmp_path):
    write_algonauts(tmp_path / "subj01", left=40, right=30, images=8, test=4)
    return tmp_path / "subj01"


def change(root, file, index, value):
    values = np.load(root / FILES[file])
    values[index] = value
    save(root / FILES[file], values)


def test_a_missing_trial_of_an_own_folder_is_named(tmp_path):
    values = write_own(tmp_path)
    values[3] = np.nan
    save(tmp_path / "responses.npy", values)
    refused(Folder, tmp_path, "responses.npy", "1 missing trial in 5 rows", "row 3 (images/d0.png)", "remove")


@pytest.mark.parametrize("value", [np.nan, 0.0])
@pytest.mark.parametrize("columns", [slice(0, 12), slice(12, 40)])
def test_a_missing_trial_of_one_hemisphere_of_an_own_folder_is_named(tmp_path, value, columns):
    write_own(tmp_path)
    values = np.random.default_rng(0).normal(size=(5, 40))
    values[3, columns] = value
    save(tmp_path / "responses.npy", values)
    ids = [*range(12), *range(10_242, 10_270)]  # 12 left, 28 right
    (tmp_path / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": ids}))
    refused(Folder, tmp_path, "responses.npy", "1 missing trial in 5 rows", "row 3 (images/d0.png)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1.5])
@pytest.mark.parametrize(
    ("file", "row", "image"),
    [
        ("lh", 5, "training_images/train-0006_nsd-00042.png"),
        ("rh", 0, "training_images/train-0001_nsd-00007.png"),
        ("lh test", 1, "test_images/test-0002_nsd-01022.png"),
        ("rh test", 3, "test_images/test-0004_nsd-01044.png"),
    ],
)
def test_a_missing_trial_of_one_hemisphere_is_named(root, file, row, image, value):
    change(root, file, row, value)
    refused(Algonauts, root, str(root / FILES[file]), f"row {row} ({image})")


def test_a_trial_that_most_vertices_lack_is_missing(root):
    change(root, "lh", (2, slice(0, 38)), np.nan)
    refused(Algonauts, root, "lh_training_fmri.npy", "row 2 (training_images/train-0003_nsd-00021.png)")


def test_several_missing_trials_of_both_hemispheres(root):
    for file in ("lh", "rh"):
        change(root, file, slice(0, 7), np.nan)
    refused(
        Algonauts,
        root,
        "lh_training_fmri.npy, also rh_training_fmri.npy",
        "7 missing trials in 8 rows",
        "row 4 ",
        "...",
    )


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_test_responses_that_are_all_missing(root, value):
    for file in ("lh test", "rh test"):
        change(root, file, slice(None), value)
    refused(Algonauts, root, "lh_test_fmri.npy", "none", "remove")


def test_missing_trials_next_to_vertices_that_are_always_bad(root):
    for value in (0.0, np.nan):
        for file in ("lh", "lh test"):
            change(root, file, (slice(None), slice(0, 35)), value)
        assert len(Algonauts(root).vertices) == 35
    for value in (0.0, np.nan):
        write_algonauts(root, left=40, right=30, images=8, test=4)
        for file in ("lh", "lh test"):
            change(root, file, (slice(None), slice(0, 20)), value)
        change(root, "lh", 6, value)
        refused(Algonauts, root, "lh_training_fmri.npy", "row 6 (training_images/train-0007_nsd-00049.png)")


def test_a_trial_that_few_vertices_lack_costs_these_vertices_and_is_named(root):
    change(root, "lh", (2, slice(0, 10)), np.nan)
    subject = Algonauts(root)
    assert len(subject.excluded["nan"]) == 10
    assert subject.incomplete == ("train-0003_nsd-00021.png",)
    assert "10 vertices" in subject.describe() and "train-0003_nsd-00021.png" in subject.describe()
    change(root, "lh", (slice(None), slice(0, 10)), np.nan)
    change(root, "lh test", (slice(None), slice(0, 10)), np.nan)
    subject = Algonauts(root)
    assert (len(subject.excluded["nan"]), subject.incomplete) == (10, ())


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_hemisphere_that_is_left_out_is_told(root, value):
    for file in ("lh", "lh test"):
        change(root, file, slice(None), value)
    subject = Algonauts(root)
    assert (len(subject.vertices.left), len(subject.vertices.right)) == (0, 30)
    assert "all of the left hemisphere" in subject.describe()


def test_few_vertices_may_have_one_value_by_chance(tmp_path):
    values = write_own(tmp_path)  # 4 vertices
    values[2] = 0
    save(tmp_path / "responses.npy", values)
    assert len(Folder(tmp_path)) == 5


def test_missing_trials_beyond_the_first_block(tmp_path):
    write_algonauts(tmp_path, left=40, right=30, images=600, test=0)
    change(tmp_path, "rh", 599, np.nan)
    change(tmp_path, "rh", 300, 0)
    refused(Algonauts, tmp_path, "2 missing trials in 600 rows", "row 300 (", "row 599 (", "train-0600")
