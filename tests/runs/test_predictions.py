"""Predictions that runs keep: what they hold, which data they are compared with, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from subject_folders import write_own

from brainkit.cortex.vertices import Vertices
from brainkit.data import open_subject
from brainkit.errors import DataError
from brainkit.runs.predictions import open_predictions, read_predictions, write_predictions


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A folder of predictions for three images of a small subject, the subject's folder, and the predictions."""
    write_own(tmp_path / "data", n=5)
    subject = open_subject(tmp_path / "data")
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    write_predictions(tmp_path, values, subject, np.array([0, 2, 3]), subject.vertices)
    return tmp_path, tmp_path / "data", values


def test_what_is_written_is_read(written: tuple[Path, Path, np.ndarray]) -> None:
    folder, data, values = written
    subject, found = open_subject(data), read_predictions(folder)
    np.testing.assert_allclose(found.predictions, values, atol=2e-3)
    assert found.images.tolist() == [subject.names[row] for row in (0, 2, 3)]
    assert found.pixels.tolist() == [subject.pixel_hashes[row] for row in (0, 2, 3)]
    assert found.groups.tolist() == [subject.groups[row] for row in (0, 2, 3)]
    assert (found.space, found.side) == ("fsaverage5", "test")
    np.testing.assert_array_equal(found.vertices, subject.vertices.ids)


def test_the_same_predictions_give_the_same_bytes(written: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    folder, data, values = written
    subject = open_subject(data)
    (tmp_path / "again").mkdir()
    with open_predictions(tmp_path / "again", subject, np.array([0, 2, 3]), subject.vertices) as add:
        add(values)
    assert (folder / "predictions.npz").read_bytes() == (tmp_path / "again" / "predictions.npz").read_bytes()


@pytest.mark.parametrize(("offset", "unit"), [(0.0, 1.0), (1e4, 30.0), (0.0, 1e8), (0.0, 1e-9), (5.0, 0.0)])
def test_responses_of_any_unit_keep_their_digits(tmp_path: Path, offset: float, unit: float) -> None:
    write_own(tmp_path / "data", n=5)
    subject = open_subject(tmp_path / "data")
    values = (offset + unit * np.random.default_rng(1).normal(size=(5, 4))).astype(np.float32)
    with open_predictions(tmp_path, subject, np.arange(5), subject.vertices) as add:
        add(values[:2])
        add(values[2:])
    found = read_predictions(tmp_path).predictions
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=unit * 1e-2)


def test_a_prediction_that_is_not_a_number_stays_one(tmp_path: Path) -> None:
    write_own(tmp_path / "data", n=5)
    subject = open_subject(tmp_path / "data")
    values = np.ones((5, 4), np.float32)
    values[1, 2] = np.nan
    write_predictions(tmp_path, values, subject, np.arange(5), subject.vertices)
    np.testing.assert_array_equal(read_predictions(tmp_path).predictions, values)


def test_a_run_keeps_its_test_predictions(finished, tiny_sample: Path, tmp_path: Path) -> None:
    found = read_predictions(finished.path)
    responses = found.responses()
    r = [np.corrcoef(found.predictions[:, v], responses[:, v])[0, 1] for v in range(responses.shape[1])]
    with np.load(finished.path / "scores.npz") as scores:
        np.testing.assert_allclose(r, scores["r"], atol=2e-3)
        np.testing.assert_array_equal(found.vertices, scores["vertices"])
    moved = tmp_path / "moved"
    shutil.copytree(tiny_sample, moved)
    np.testing.assert_array_equal(found.responses(moved), responses)


def test_of_other_data_there_are_no_responses(finished, own_data: Path) -> None:
    with pytest.raises(DataError, match="found others"):
        read_predictions(finished.path).responses(own_data)


def test_a_folder_in_the_run_has_the_runs_responses(finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    baseline = run / "baselines" / "mean"
    baseline.mkdir(parents=True)
    read_predictions(run).write(baseline)
    np.testing.assert_array_equal(read_predictions(baseline).responses(), read_predictions(run).responses())


def test_vertices_that_the_data_lack_have_no_responses(tmp_path: Path) -> None:
    from brainkit.runs.predictions import align_responses

    values = write_own(tmp_path / "data", n=5)
    subject = open_subject(tmp_path / "data")
    aligned = align_responses(subject, Vertices("fsaverage5", np.array([3, 4, 20_000])))
    np.testing.assert_allclose(aligned[:, [0, 2]], values[:, [0, 3]].astype(np.float32))
    assert np.isnan(aligned[:, 1]).all()
    with pytest.raises(DataError, match="fsaverage6"):
        align_responses(subject, Vertices("fsaverage6", np.array([3])))


def test_a_run_without_predictions_says_how_to_get_them(finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    (run / "predictions.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="damaged"):
        read_predictions(run)
    (run / "predictions.npz").unlink()
    with pytest.raises(DataError, match="brainkit evaluate"):
        read_predictions(run)
    with pytest.raises(DataError, match="no such run folder"):
        read_predictions(tmp_path / "nothing")
