"""LAION-fMRI, on a simulated subject in its layout."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image
from small_simulated import small_simulated

from brainkit.data import Folder, readers
from brainkit.data.layouts import laion
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError, UsageError
from brainkit.sample_layouts.laion import SUBJECT, image_labels, session_trials, write_laion
from brainkit.sample_layouts.voxels import place_in_volume

pytest.importorskip("h5py")
GLM = f"derivatives/glmsingle-tedana/{SUBJECT}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data set's folder, and the subject whose vertices are in the order of its voxels."""
    folder = tmp_path_factory.mktemp("laion") / "data"
    subject = small_simulated(folder)
    write_laion(subject, folder)
    return folder, place_in_volume(subject, 1.778)[0]


@pytest.fixture
def data(written, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(written[0], tmp_path / "data")


def test_planted_truth_is_recovered(written, tmp_path):
    folder, subject = written
    assert readers.find_layout(readers.locate(folder)).title == "LAION-fMRI"
    trials = readers.open_trials(f"laion:{folder}?subject=3")
    prepared = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    labels = image_labels(subject)
    assert list(prepared.names) == sorted(labels)
    rows = subject.trials.reshape(-1, subject.trials.shape[-1]).astype(np.float64)
    for session in session_trials(subject):
        rows[session] = (rows[session] - rows[session].mean(0)) / rows[session].std(0)
    means = rows.reshape(subject.trials.shape).mean(0)[np.argsort(labels)]
    np.testing.assert_allclose(prepared.responses.rows(np.arange(len(labels))), means, atol=1e-4)
    assert prepared.repetitions.tolist() == [3] * len(labels)
    assert prepared.rois["laionEVC"].tolist() == np.flatnonzero(subject.streams == 1).tolist()
    ceiling = subject.noise_ceiling
    np.testing.assert_allclose(trials.ncsnr, np.sqrt(ceiling / (1 - ceiling) / 3), rtol=1e-4)
    assert prepared.volume is not None
    assert "CC0" in prepared.dataset.licence
    truth = np.load(tmp_path / "out" / "truth.npz")
    np.testing.assert_array_equal(truth["scale"], subject.truth["scale"])


def test_images_are_those_of_the_trials(written):
    folder, subject = written
    trials = readers.open_trials(folder)
    labels = image_labels(subject)
    pictures = small_simulated(folder.parent / "again").images
    transparent = trials.images.get(trials.images.names.index(labels[0]))
    assert transparent[0, 0].tolist() == [128] * 3
    with Image.open(pictures[0]) as original:
        np.testing.assert_array_equal(transparent[20:], np.asarray(original)[20:])
    trials.images.write(folder.parent / "images")
    for row in range(1, len(labels)):
        with Image.open(folder.parent / "images" / labels[row]) as image, Image.open(pictures[row]) as original:
            assert np.abs(np.asarray(image, float) - np.asarray(original, float)).mean() < 4


def test_splits_keep_their_names_and_hashes(written, data):
    trials = readers.open_trials(data)
    assert {"laion-tau", "laion-ood", "laion-cluster_k5_0", "laion-shared-tau"} <= set(trials.splits)
    assert all("_OOD_" in name for name in trials.splits["laion-ood"]["test"])
    assert not set(trials.splits["laion-tau"]["train"]) & set(trials.splits["laion-tau"]["test"])
    assert any("laion-tau " in note and "SHA-256" in note for note in trials.notes)
    file = data / f"splits/data/{SUBJECT}/tau.json"
    content = json.loads(file.read_text())
    content["variants"][0]["test_ids"].append(content["variants"][0]["train_ids"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="common"):
        readers.open_trials(data)


def test_a_missing_session_is_named(data):
    shutil.rmtree(data / GLM / "ses-07")
    with pytest.raises(DataError, match="session 7;"):
        readers.open_trials(data)
    trials = readers.open_trials(f"{data}?allow_missing_sessions")
    assert len(trials.sessions) == 29
    assert any("session 7 " in note for note in trials.notes)


def test_the_other_stored_version(data):
    (data / "derivatives/atlases" / SUBJECT / "rois").mkdir(parents=True)
    for mask in (data / "derivatives/rois").rglob("*.nii.gz"):
        roi = mask.name.split("label-")[1].split("_")[0]
        shutil.move(mask, data / f"derivatives/atlases/{SUBJECT}/rois/{roi}.nii.gz")
    new = readers.open_trials(data)
    new.images.write(data / "stimuli/images")
    with pytest.raises(DataError, match="both"):
        readers.open_trials(data)
    (data / "stimuli/task-images_stimuli.h5").unlink()
    mask = next((data / GLM).glob("*R2mean*"))
    mask.rename(mask.with_name(f"{SUBJECT}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"))
    other = readers.open_trials(data)
    assert other.images.names == new.images.names
    assert {name: columns.tolist() for name, columns in other.rois.items()} == {
        name: columns.tolist() for name, columns in new.rois.items()
    }


def test_the_index_says_which_volume_a_trial_is(data):
    before = readers.open_trials(data).sessions[0].images
    file = next((data / GLM).glob("ses-01/func/*.tsv"))
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(rows)]) + "\n")
    np.testing.assert_array_equal(readers.open_trials(data).sessions[0].images, before)


def one_based(data):
    file = next((data / GLM).glob("ses-01/func/*.tsv"))
    header, *rows = file.read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    file.write_text("\n".join([header, *("\t".join([a, b, str(int(c) + 1), d]) for a, b, c, d in cells)]) + "\n")


def two_versions(data):
    betas = next((data / GLM).glob("ses-02/func/*.nii.gz"))
    shutil.copy(betas, betas.with_name(f"{SUBJECT}_ses-02_task-images_desc-singletrial_stat-effect_statmap.nii.gz"))


def cut_short(data):
    next((data / GLM).glob("ses-03/func/*.nii.gz")).write_bytes(b"")


def other_grid(data):
    mask = next((data / GLM).glob("*R2mean*"))
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), mask)


def a_participant_is_another_subject(data):
    file = data / "stimuli/task-images_metadata.csv"
    file.write_text(file.read_text().replace(",p04,", ",sub-06,"))


def no_label(data):
    file = next((data / GLM).glob("ses-01/func/*.tsv"))
    file.write_text(file.read_text().replace("label", "name"))


def fewer_images(data):
    file = data / "stimuli/task-images_metadata.csv"
    file.write_text("\n".join([*file.read_text().splitlines(), "more.jpg,x,y,z,4rep"]) + "\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (one_based, "from 1"),
        (two_versions, "versions"),
        (cut_short, "ses-03"),
        (other_grid, "voxels as in"),
        (a_participant_is_another_subject, "sub-06"),
        (no_label, "label"),
        (fewer_images, "as many as rows"),
    ],
)
def test_what_does_not_fit_is_refused(data, spoil, words):
    spoil(data)
    with pytest.raises(DataError, match=words) as error:
        readers.open_trials(data)
    assert "\n" not in str(error.value)


def test_the_subject(data):
    with pytest.raises(UsageError, match="another numbering"):
        laion.laion_fmri(data, subject="2")
    (data / "derivatives/glmsingle-tedana/sub-05").mkdir()
    with pytest.raises(UsageError, match="sub-03, sub-05"):
        laion.laion_fmri(data)


def test_a_truncated_volume_is_found_when_it_is_read(data):
    betas = next((data / GLM).glob("ses-01/func/*.nii.gz"))
    betas.write_bytes(betas.read_bytes()[:-2000])
    session = readers.open_trials(data).sessions[0]
    with pytest.raises(DataError, match="ses-01"):
        session.read(np.arange(3))


def test_trials_of_another_session_are_refused(data):
    files = [next((data / GLM).glob(f"ses-{number:02d}/func/*.tsv")) for number in (1, 2)]
    shutil.copy(files[1], files[0])
    with pytest.raises(DataError, match="trials of session 1, found 'ses-02'"):
        readers.open_trials(data)


def test_an_image_that_the_metadata_list_twice_is_refused(data):
    file = data / "stimuli/task-images_metadata.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], rows[1], *rows[1:]]) + "\n")
    with pytest.raises(DataError, match="each image_name once"):
        readers.open_trials(data)


def test_damaged_images_are_named_by_their_row(data):
    h5py = pytest.importorskip("h5py")
    with h5py.File(data / "stimuli/task-images_stimuli.h5", "r+") as file:
        for row in range(len(file["images"])):
            file["images"][row] = np.frombuffer(b"no image", np.uint8)
    with pytest.raises(DataError, match=r"task-images_stimuli.h5, row \d+"):
        readers.open_trials(data).images.get(0)
