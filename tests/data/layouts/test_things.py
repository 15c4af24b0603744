"""THINGS-fMRI, on a simulated subject in its layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from small_simulated import small_simulated

from brainkit.data import Folder, readers
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError, UsageError
from brainkit.sample_layouts.things import SUBJECT, image_names, responses, trial_rows, write_things
from brainkit.sample_layouts.voxels import place_in_volume

h5py = pytest.importorskip("h5py")
TABLES = f"betas_csv/{SUBJECT}_"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data set's folder, and the subject whose vertices are in the order of its voxels."""
    folder = tmp_path_factory.mktemp("things") / "data"
    subject = small_simulated(folder)
    write_things(subject, folder)
    return folder, place_in_volume(subject, 2.0)[0]


@pytest.fixture
def data(written, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(written[0], tmp_path / "data")


def test_planted_truth_is_recovered(written, tmp_path):
    folder, subject = written
    assert readers.find_layout(readers.locate(folder)).title == "THINGS-fMRI"
    trials = readers.open_trials(f"things:{folder}?subject=1")
    prepared = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    names, shown = image_names(subject), trial_rows(subject)
    assert list(prepared.names) == sorted(names)
    total, count = np.zeros((len(names), len(subject.vertices))), np.zeros(len(names))
    values = responses(subject, shown).T
    start = 0
    for part in shown:
        rows = values[start : start + len(part)]
        np.add.at(total, part % len(names), (rows - rows.mean(0)) / rows.std(0))
        np.add.at(count, part % len(names), 1)
        start += len(part)
    order = np.argsort(names)
    np.testing.assert_allclose(
        prepared.responses.rows(np.arange(len(names))), (total / count[:, None])[order], atol=1e-4
    )
    assert prepared.repetitions.tolist() == count[order].tolist()
    assert prepared.rois["V1"].tolist() == np.flatnonzero(subject.streams == 1).tolist()
    assert prepared.rois["FFA"].tolist() == np.flatnonzero(np.isin(subject.streams, [5, 6])).tolist()
    assert "prf-eccentricity" not in prepared.rois
    ceiling = subject.noise_ceiling
    np.testing.assert_allclose(trials.ncsnr, np.sqrt(ceiling / (1 - ceiling) / 3), rtol=1e-4)
    assert trials.splits["things"]["test"] == sorted(names[subject.n_training :])
    assert prepared.volume is not None


def test_some_columns_are_those_of_all(written):
    session = readers.open_trials(written[0]).sessions[3]
    whole = session.read(np.arange(42))
    np.testing.assert_array_equal(session.read(np.array([1, 5, 40])), whole[:, [1, 5, 40]])


def test_the_table_is_what_pandas_reads(written):
    pytest.importorskip("tables")
    pandas = pytest.importorskip("pandas")
    folder, subject = written
    frame = pandas.read_hdf(folder / f"{TABLES}ResponseData.h5")
    assert list(frame.columns[:3]) == ["voxel_id", 0, 1]
    np.testing.assert_array_equal(frame.to_numpy()[:, 1:], responses(subject, trial_rows(subject)))


def test_what_pandas_writes_is_read(data):
    pytest.importorskip("tables")
    pandas = pytest.importorskip("pandas")
    path = data / f"{TABLES}ResponseData.h5"
    before = readers.open_trials(data).sessions[0].read(np.arange(5))
    frame = pandas.read_hdf(path)
    frame.columns = [str(name) for name in frame.columns]
    frame.to_hdf(path, key="ResponseData", mode="w")
    np.testing.assert_array_equal(readers.open_trials(data).sessions[0].read(np.arange(5)), before)
    frame.iloc[:, [0, 2, 1, *range(3, frame.shape[1])]].to_hdf(path, key="ResponseData", mode="w")
    with pytest.raises(DataError, match="order"):
        readers.open_trials(data)


def test_images_are_found_one_folder_up(data):
    assert all(path.is_file() for path in readers.open_trials(data / "betas_csv").images.files)
    one = next((data / "images").rglob("*.jpg"))
    one.unlink()
    with pytest.raises(DataError, match=r"missing|expected the images"):
        readers.open_trials(data)
    shutil.rmtree(data / "images")
    with pytest.raises(DataError, match="object_images"):
        readers.open_trials(data)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("StimulusMetadata.csv", "\ntrain,1,1,1,0,", "\ntrain,1,1,1,1,", "trial_id"),
        ("StimulusMetadata.csv", "stimulus", "image", "columns"),
        ("StimulusMetadata.csv", "\ntrain,", "\ncatch,", "catch"),
        ("VoxelMetadata.csv", "\n0,", "\n7,", "voxel_id"),
    ],
)
def test_tables_that_do_not_fit_are_refused(data, file, old, new, words):
    replace(data / f"{TABLES}{file}", old, new)
    with pytest.raises(DataError, match=words):
        readers.open_trials(data)


def test_ceilings_that_are_fractions_are_refused(data):
    path = data / f"{TABLES}VoxelMetadata.csv"
    header, *rows = path.read_text().splitlines()
    column = header.split(",").index("nc_singletrial")
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[column] = str(float(row[column]) / 100)
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    with pytest.raises(DataError, match="percent"):
        readers.open_trials(data)


def test_a_table_of_another_size_is_refused(data):
    path = data / f"{TABLES}ResponseData.h5"
    with h5py.File(path, "r+") as file:
        values = file["ResponseData/block0_values"][:, :-1]
        del file["ResponseData/block0_values"]
        file["ResponseData/block0_values"] = values
    with pytest.raises(DataError, match="as in the tables"):
        readers.open_trials(data)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match="whole HDF5"):
        readers.open_trials(data)


def test_the_subject(data):
    with pytest.raises(UsageError, match="sub-01"):
        readers.open_trials(f"{data}?subject=2")


def test_ceilings_that_are_no_numbers_are_refused(data):
    path = data / f"{TABLES}VoxelMetadata.csv"
    header, first, *rows = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("nc_singletrial")] = "unknown"
    path.write_text("\n".join([header, ",".join(cells), *rows]) + "\n")
    with pytest.raises(DataError, match="nc_singletrial, found 'unknown'"):
        readers.open_trials(data)


def test_a_session_of_one_trial_is_refused(data):
    replace(data / f"{TABLES}StimulusMetadata.csv", "\ntrain,1,", "\ntrain,99,")
    with pytest.raises(DataError, match="at least 2 trials of session 99"):
        readers.open_trials(data)
