"""Own data whose responses are CIFTI files."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from nibabel.cifti2.cifti2_axes import BrainModelAxis, ParcelsAxis, ScalarAxis, SeriesAxis
from PIL import Image

from brainkit.data import Folder, readers
from brainkit.data.layouts import own_cifti
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError

N = 32_492
LEFT, RIGHT = np.arange(3, 40, 2), np.arange(5, 60, 3)


def axis(*, right_first=False, mesh=N, subcortical=4):
    """Both hemispheres, and some voxels of the thalamus; in the usual order or in another one."""
    left = BrainModelAxis.from_surface(LEFT, mesh, "CIFTI_STRUCTURE_CORTEX_LEFT")
    right = BrainModelAxis.from_surface(RIGHT, mesh, "CIFTI_STRUCTURE_CORTEX_RIGHT")
    mask = np.zeros((5, 5, 5), bool)
    mask.reshape(-1)[:subcortical] = True
    voxels = BrainModelAxis.from_mask(mask, affine=np.eye(4), name="CIFTI_STRUCTURE_THALAMUS_LEFT")
    return voxels + right + left if right_first else left + right + voxels


def write(path, values, columns=None, names=None):
    rows = SeriesAxis(0, 1, len(values)) if names is None else ScalarAxis(names)
    image = nibabel.Cifti2Image(np.asarray(values, np.float32), (rows, columns or axis()))
    path.parent.mkdir(exist_ok=True)
    nibabel.save(image, path)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for row in range(6):
        Image.new("RGB", (8, 8), (40 * row, 0, 0)).save(folder / "images" / f"{row}.png")
    return folder


@pytest.fixture
def values():
    return np.random.default_rng(0).standard_normal((6, len(LEFT) + len(RIGHT) + 4)).astype(np.float32)


def open_subject(folder, out):
    return Folder(prepare_subject(readers.open_trials(folder), out, say=lambda line: None))


def test_the_cortex_is_found_by_the_axis(data, values, tmp_path, monkeypatch):
    monkeypatch.setattr(own_cifti, "_WINDOW", 7)
    write(data / "responses.dtseries.nii", values)
    trials = readers.open_trials(data)
    subject = open_subject(data, tmp_path / "out")
    ids = np.concatenate([LEFT, N + RIGHT])
    assert subject.vertices.space == "fsLR"
    np.testing.assert_array_equal(subject.vertices.ids, ids)
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), values[:, : len(ids)], atol=1e-6)
    assert any("4 grayordinates" in note for note in trials.notes)
    other = np.concatenate([values[:, -4:], values[:, len(LEFT) : -4], values[:, : len(LEFT)]], axis=1)
    write(data / "responses.dtseries.nii", other, axis(right_first=True))
    turned = open_subject(data, tmp_path / "turned")
    np.testing.assert_array_equal(turned.vertices.ids, ids)
    np.testing.assert_allclose(turned.responses.rows(np.arange(6)), values[:, : len(ids)], atol=1e-6)


def test_maps_are_joined_with_images_by_name(data, values, tmp_path):
    write(data / "responses.dscalar.nii", values, names=[f"{row}.png" for row in (5, 4, 3, 2, 1, 0)])
    subject = open_subject(data, tmp_path / "out")
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), values[::-1, : len(subject.vertices)], atol=1e-6)
    write(data / "responses.dscalar.nii", values, names=[f"map {row}" for row in range(6)])
    subject = open_subject(data, tmp_path / "by row")
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), values[:, : len(subject.vertices)], atol=1e-6)


def test_a_folder_of_files(data, values, tmp_path):
    for row in range(6):
        write(data / "responses" / f"{row}.dscalar.nii", values[row : row + 1], names=["beta"])
    subject = open_subject(data, tmp_path / "out")
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), values[:, : len(subject.vertices)], atol=1e-6)
    (data / "responses/3.dscalar.nii").rename(data / "responses/other.dscalar.nii")
    with pytest.raises(DataError, match="named after"):
        readers.open_trials(data)
    for path in (data / "responses").iterdir():
        path.unlink()
    for run in (1, 2):
        write(data / "responses" / f"run-{run}.dscalar.nii", values[3 * run - 3 : 3 * run], names=list("abc"))
    subject = open_subject(data, tmp_path / "runs")
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), values[:, : len(subject.vertices)], atol=1e-6)


def test_trials(data, tmp_path):
    values = np.random.default_rng(1).standard_normal((12, len(LEFT) + len(RIGHT) + 4)).astype(np.float32)
    write(data / "responses.dtseries.nii", values)
    image, session = np.tile(np.arange(6), 2), np.tile([1, 2, 2], 4)
    rows = [f"{i}.png,{s}" for i, s in zip(image, session, strict=True)]
    (data / "trials.csv").write_text("\n".join(["image,session", *rows]) + "\n")
    subject = open_subject(data, tmp_path / "out")
    scored = values.astype(float)
    for s in (1, 2):
        scored[session == s] = (scored[session == s] - scored[session == s].mean(0)) / scored[session == s].std(0)
    means = np.stack([scored[image == i].mean(0) for i in range(6)])
    np.testing.assert_allclose(subject.responses.rows(np.arange(6)), means[:, : len(subject.vertices)], atol=1e-5)
    assert subject.repetitions.tolist() == [2] * 6
    (data / "trials.csv").write_text("\n".join(["image,session", *rows[:-1]]) + "\n")
    with pytest.raises(DataError, match="12 trials"):
        readers.open_trials(data)


def test_regions_and_ceilings_are_of_the_files_columns(data, values, tmp_path):
    write(data / "responses.dscalar.nii", values, axis(right_first=True), names=list("abcdef"))
    first_left = 4 + len(RIGHT)
    (data / "rois.json").write_text(json.dumps({"both": [0, 4, first_left]}))
    ceiling = np.linspace(0.1, 0.9, values.shape[1])
    np.save(data / "noise_ceiling.npy", ceiling)
    subject = open_subject(data, tmp_path / "out")
    assert subject.rois["both"].tolist() == [0, len(LEFT)]
    expected = np.concatenate([ceiling[first_left:], ceiling[4:first_left]])
    np.testing.assert_allclose(subject.noise_ceiling, expected, atol=1e-6)
    np.testing.assert_allclose(subject.noise_ceiling_of(np.arange(6)), expected, atol=1e-6)


def test_what_does_not_fit_is_refused(data, values):
    write(data / "responses.dscalar.nii", values[:5], names=list("abcde"))
    with pytest.raises(DataError, match="6 rows"):
        readers.open_trials(data)
    write(data / "responses.dscalar.nii", values, axis(mesh=59_292), names=list("abcdef"))
    with pytest.raises(DataError, match="59292"):
        readers.open_trials(data)
    write(data / "responses.dscalar.nii", values[:, :4], axis()[-4:], names=list("abcdef"))
    with pytest.raises(DataError, match="CORTEX"):
        readers.open_trials(data)
    parcels = ParcelsAxis.from_brain_models([("one", axis()[:3]), ("two", axis()[3:6])])
    write(data / "responses.dscalar.nii", values[:, :2], parcels, names=list("abcdef"))
    with pytest.raises(DataError, match="parcels"):
        readers.open_trials(data)
    write(data / "responses.dscalar.nii", values, names=list("abcdef"))
    (data / "vertices.json").write_text("{}")
    with pytest.raises(DataError, match="says its vertices"):
        readers.open_trials(data)
    (data / "vertices.json").unlink()
    write(data / "responses.dtseries.nii", values)
    with pytest.raises(DataError, match="one format"):
        readers.open_trials(data)
    (data / "responses.dtseries.nii").unlink()
    (data / "responses.dscalar.nii").write_bytes(b"not a file")
    with pytest.raises(DataError, match="CIFTI"):
        readers.open_trials(data)
