"""The Natural Scenes Dataset, on a simulated subject in the files of its release."""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
import struct

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat
from small_simulated import small_simulated

from brainkit.cortex.surface import mesh, sphere_coordinates
from brainkit.cortex.vertices import Vertices
from brainkit.data import Folder, readers
from brainkit.data.algonauts import Algonauts
from brainkit.data.layouts import nsd_betas, nsd_design
from brainkit.data.layouts.nsd_algonauts import compare_with_challenge
from brainkit.data.layouts.nsd_synthetic import brightened
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError, UsageError
from brainkit.sample_layouts.nsd import in_fsaverage, in_volume, percent, published_ncsnr, regions, scaled, write_nsd
from brainkit.sample_layouts.nsd_experiment import plan, plan_synthetic
from brainkit.sample_layouts.nsd_files import write_columns, write_mat, write_mgh, write_nifti

BETAS = "nsddata_betas/ppdata/subj04"
B3 = "betas_fithrf_GLMdenoise_RR"
SURFACE, VOLUME, NATIVE = (f"{BETAS}/{space}/{B3}" for space in ("fsaverage", "func1pt8mm", "nativesurface"))
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data set's folder, and the simulated subject."""
    folder = tmp_path_factory.mktemp("nsd")
    simulated = small_simulated(folder / "pictures", images=20, test_images=20, vertices=42)
    # Neighbours, so that the volume is small.
    near = [np.argsort(-mesh("fsaverage5", side, "sphere")[0] @ (0, -1, 0))[:21] for side in ("left", "right")]
    vertices = Vertices("fsaverage5", np.concatenate([np.sort(near[0]), np.sort(near[1]) + 10_242]))
    subject = dataclasses.replace(simulated, vertices=vertices, coordinates=sphere_coordinates(vertices))
    write_nsd(subject, folder / "data")
    return folder / "data", subject


@pytest.fixture
def data(written, tmp_path):
    """Links to the files, so that some can be replaced."""
    return shutil.copytree(written[0], tmp_path / "data", copy_function=os.link)


def replace(path, write, *arguments, **named):
    """Write a file anew, leaving the one that it is linked to."""
    path.unlink(missing_ok=True)
    write(path, *arguments, **named)


def open_trials(folder, **options):
    return readers.open_trials(f"nsd:{folder}?" + "&".join(f"{name}={value}" for name, value in options.items()))


def expected(experiment, of_vertices, scale=True):
    """Mean over the trials of each image that was shown, z-scored in each session; numbers of the images."""
    sums = np.zeros((len(experiment.numbers), of_vertices.shape[-1]))
    counts = np.zeros(len(sums), int)
    place = {row: k for k, row in enumerate(experiment.rows.tolist())}
    for session in experiment.sessions:
        values = session.measured(percent(of_vertices))
        values = scaled(values) / 300 if scale else values.astype(np.float64)
        values = (values - values.mean(0)) / values.std(0)
        for row, trial in zip(session.rows.tolist(), values, strict=True):
            sums[place[row]] += trial
            counts[place[row]] += 1
    order = np.argsort(experiment.numbers)
    order = order[counts[order] > 0]
    return sums[order] / counts[order, None], experiment.numbers[order], counts[order]


@pytest.mark.parametrize(
    "space", [pytest.param("fsaverage", marks=pytest.mark.slow), "nativesurface", "func1pt8mm", "func1mm"]
)
def test_planted_responses_are_recovered(written, tmp_path, space):
    folder, subject = written
    trials = open_trials(folder, subject=4, space=space)
    prepared = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    placed = in_volume(subject, space)[0] if space.startswith("func") else subject
    planted = placed.trials
    if space == "fsaverage":
        nearest, ids = in_fsaverage(subject)
        planted = planted[:, :, nearest]
        assert prepared.vertices == Vertices("fsaverage", ids)
    means, numbers, counts = expected(plan(subject, 4), planted, scale=space != "fsaverage")
    assert list(prepared.names) == [f"nsd-{number:05d}.png" for number in numbers]
    assert list(prepared.named_groups) == [f"nsd-{number:05d}" for number in numbers]
    assert prepared.repetitions.tolist() == counts.tolist()
    np.testing.assert_allclose(prepared.responses.rows(np.arange(len(numbers))), means, atol=2e-5)
    columns = nearest if space == "fsaverage" else slice(None)
    labels = {name: values[columns] for name, values in regions(placed).items()}
    assert prepared.rois["nsdgeneral"].tolist() == np.flatnonzero(labels["nsdgeneral"]).tolist()
    assert prepared.rois["RSC"].tolist() == np.flatnonzero(labels["floc-places"] == 3).tolist()
    assert prepared.rois["hV4"].tolist() == np.flatnonzero(labels["prf-visualrois"] == 7).tolist()
    assert prepared.rois["ventral"].tolist() == np.flatnonzero(labels["streams"] == 5).tolist()
    truth = np.load(tmp_path / "out/truth.npz")
    assert np.array_equal(truth["scale"], (placed.truth["scale"])[columns])
    assert np.array_equal(truth["vertices"], prepared.vertices.ids)
    assert (prepared.kind, prepared.dataset.name) == ("simulated", "Natural Scenes Dataset")
    assert "Allen" in prepared.dataset.citation[0]
    if space.startswith("func"):
        voxels, affine = in_volume(subject, space)[1:]
        assert np.array_equal(prepared.volume.voxels, voxels)
        np.testing.assert_allclose(prepared.volume.affine, affine, atol=1e-4)


def test_published_ncsnr(written):
    folder, subject = written
    found = open_trials(folder, space="nativesurface").ncsnr[subject.vertices.ids]
    np.testing.assert_allclose(found, published_ncsnr(plan(subject, 4), subject.trials), rtol=1e-6)


def test_pictures_are_those_of_the_ids(written, tmp_path):
    folder, subject = written
    trials = open_trials(folder, space="func1pt8mm")
    row = 5
    number = int(trials.images.names[row][4:9])
    source = subject.images[subject.ids.tolist().index(number)]
    shown = np.asarray(Image.open(source).resize((425, 425), Image.Resampling.BICUBIC))
    assert np.array_equal(trials.images.get(row), shown)


@pytest.mark.slow
def test_default_is_fsaverage_and_the_best_version(data):
    assert open_trials(data).layout == f"NSD, fsaverage, {B3}"
    shutil.copytree(data / SURFACE, data / BETAS / "fsaverage/betas_fithrf")
    assert open_trials(data).layout.endswith(B3)
    assert open_trials(data, betas="b2").layout == open_trials(data, betas="betas_fithrf").layout
    shutil.rmtree(data / BETAS / "fsaverage")
    assert "func1pt8mm" in open_trials(data).layout
    with pytest.raises(UsageError, match="func1mm"):
        open_trials(data, betas="b1")
    with pytest.raises(UsageError, match="nativesurface"):
        open_trials(data, space="native")
    with pytest.raises(UsageError, match="expected the subject 4"):
        open_trials(data, subject=1)


def test_splits(written):
    folder, subject = written
    trials = open_trials(folder, space="func1pt8mm")
    design = plan(subject, 4)
    shared = {f"nsd-{number:05d}.png" for number in design.numbers[: design.n_shared]}
    sides = {name: {side: set(images) for side, images in split.items()} for name, split in trials.splits.items()}
    assert sides["nsd-shared1000"]["test"] == shared & set(trials.images.names)
    assert sides["nsd-shared1000"]["train"] == set(trials.images.names) - shared
    assert sides["nsd-shared515"]["test"] < shared
    for session in design.sessions[:3]:
        early = {f"nsd-{subject.ids[row]:05d}.png" for row in session.rows}
        assert early <= sides["algonauts"]["train"] and not early & sides["algonauts"]["test"]
    assert sides["algonauts"]["test"] and not sides["algonauts"]["test"] & shared


def test_algonauts_keeps_shared_images_only_of_whole_subjects():
    def design(n_sessions):
        ids = np.array([1, 2, 3, 9, 1, 4, 5, 5, 5, 6, 7, 1])
        return nsd_design.Design(ids, n_sessions, 2, np.array([5, 6, 9]), np.array([5]))

    training, test = nsd_design.algonauts_sides(design(6))
    assert (training.tolist(), test.tolist()) == ([1, 2, 3, 4, 9], [5, 7])
    training, test = nsd_design.algonauts_sides(design(5))  # the sixth was planned
    assert (training.tolist(), test.tolist()) == ([1, 2, 3, 9], [4])


@pytest.mark.slow
def test_the_challenge_is_made_again(written, tmp_path):
    folder, subject = written
    trials = open_trials(folder, experiment="algonauts")
    made = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    sides = trials.splits["algonauts"]
    # As the challenge did it, from what was planted.
    experiment, (nearest, ids) = plan(subject, 4), in_fsaverage(subject)
    planted, responses = percent(subject.trials[:, :, nearest]), {}
    for number, session in enumerate(experiment.sessions):
        values = session.measured(planted).astype(np.float64)
        values = (values - values.mean(0)) / values.std(0)
        for row, trial in zip(session.rows.tolist(), values, strict=True):
            responses.setdefault((f"nsd-{subject.ids[row]:05d}.png", number >= 3), []).append(trial)
    challenge = tmp_path / "challenge"
    left = ids < 163_842
    for side, kind, late in (("train", "training", False), ("test", "test", True)):
        parts = [challenge / f"{kind}_split" / part for part in (f"{kind}_images", f"{kind}_fmri")]
        for part in parts:
            part.mkdir(parents=True)
        for row, name in enumerate(sides[side], 1):
            shutil.copy(tmp_path / "out/images" / name, parts[0] / f"{side}-{row:04d}_{name}")
        means = np.array([np.mean(responses[name, late], axis=0) for name in sides[side]], np.float32)
        for short, here in (("lh", left), ("rh", ~left)):
            np.save(parts[1] / f"{short}_{kind}_fmri.npy", means[:, here])
    (challenge / "roi_masks").mkdir()
    for short, here, start in (("lh", left, 0), ("rh", ~left, 163_842)):
        mask = np.zeros(163_842, int)
        mask[ids[here] - start] = 1
        np.save(challenge / f"roi_masks/{short}.all-vertices_fsaverage_space.npy", mask)
    published = Algonauts(challenge)
    found = compare_with_challenge(made, published)
    assert found.pop("difference") < 1e-5
    images = len(sides["train"]) + len(sides["test"])
    assert found == {
        "images": images,
        "challenge_images": images,
        "vertices": len(ids),
        "challenge_vertices": len(ids),
    }
    assert made.named_groups == tuple(sorted(published.named_groups))
    with pytest.raises(DataError, match="fsaverage"):
        open_trials(folder, experiment="algonauts", space="func1pt8mm")


def test_nsd_synthetic(written, tmp_path):
    folder, subject = written
    trials = open_trials(folder, experiment="synthetic", space="func1pt8mm")
    experiment = plan_synthetic(subject)
    planted = in_volume(subject, "func1pt8mm")[0].trials
    prepared = Folder(prepare_subject(trials, tmp_path / "out", say=lambda line: None))
    means, numbers, counts = expected(experiment, planted)
    names = [f"nsdsynthetic-{n + 1:03d}" + ("-subj04" if n >= 220 else "") for n in numbers]
    assert list(prepared.named_groups) == names and max(numbers) >= 220
    assert prepared.repetitions.tolist() == counts.tolist() and set(counts) == {1, 2, 3}
    np.testing.assert_allclose(prepared.responses.rows(np.arange(len(names))), means, atol=2e-5)
    assert set(trials.splits["nsd-synthetic"]) == {"test"}
    # Linear light is brightened for a screen.
    source = subject.images[experiment.rows[np.argsort(experiment.numbers)[0]]]
    shown = np.asarray(Image.open(source).resize((320, 240), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(Image.open(prepared.images[0])) - shown)[shown > 40].max() <= 2
    assert brightened(np.array([0, 64, 255], np.uint8)).tolist() == [0, 128, 255]
    with pytest.raises(UsageError, match="synthetic"):
        open_trials(folder, experiment="imagery")


@pytest.mark.slow
def test_fewer_sessions_need_permission(data, tmp_path):
    for session in (4, 5, 6):
        for path in (data / SURFACE).glob(f"*session0{session}*"):
            path.unlink()
    with pytest.raises(DataError, match=r"4, 5, 6.*2023"):
        open_trials(data)
    trials = open_trials(data, allow_missing_sessions="")
    assert len(trials.sessions) == 3 and "algonauts" not in trials.splits and "2023" in trials.notes[0]
    shutil.copytree(data / VOLUME, data / BETAS / "func1pt8mm/betas_fithrf")
    (data / VOLUME / "betas_session02.hdf5").unlink()
    with pytest.raises(DataError, match=r"session 2;.*betas_fithrf"):
        open_trials(data, space="func1pt8mm")
    shutil.copy(data / VOLUME / "betas_session01.hdf5", data / VOLUME / "betas_session07.hdf5")
    with pytest.raises(DataError, match="found 7"):
        open_trials(data, space="func1pt8mm", allow_missing_sessions="")
    (data / SURFACE / "rh.betas_session02.mgh").unlink()
    with pytest.raises(DataError, match=r"rh.betas_session02.mgh: file not found"):
        open_trials(data)


def prepare(trials, tmp_path):
    return prepare_subject(trials, tmp_path / "out", say=lambda line: None)


def mgh_values(path):
    return np.asarray(nibabel.load(path).dataobj)[:, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "mistake"), [(1 / 300, "already"), (300, "not divided by 300")])
def test_mgh_in_other_units(data, tmp_path, factor, mistake):
    path = data / SURFACE / "lh.betas_session02.mgh"
    replace(path, write_mgh, mgh_values(path) * np.float32(factor))
    with pytest.raises(DataError, match=rf"lh.betas_session02.mgh.*{mistake}"):
        prepare(open_trials(data), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1 / 300, 25])
def test_whole_numbers_in_other_units(data, tmp_path, factor, monkeypatch):
    monkeypatch.setattr(nsd_betas, "_MOST", 20.0)  # 300 times the sample's responses are no int16
    path = data / NATIVE / "lh.betas_session02.hdf5"
    with h5py.File(path) as file:
        values = np.rint(file["betas"][:] * factor).astype(np.int16)
    replace(path, write_columns, values)
    with pytest.raises(DataError, match=r"lh.betas_session02.hdf5.*300"):
        prepare(open_trials(data, space="nativesurface"), tmp_path)


def test_files_of_another_kind(data, tmp_path):
    path = data / NATIVE / "lh.betas_session02.hdf5"
    with h5py.File(path) as file:
        values = file["betas"][:]
    replace(path, write_columns, values.astype(np.float32) / 300)
    with pytest.raises(DataError, match=r"int16 .*found float32"):
        open_trials(data, space="nativesurface")
    replace(path, write_columns, values[:-1])
    with pytest.raises(DataError, match=r"expected 15 trials.*found 14"):
        open_trials(data, space="nativesurface")
    replace(path, write_columns, values[:, :-1])
    with pytest.raises(DataError, match="10241; it is of another"):
        open_trials(data, space="nativesurface")
    replace(path, write_columns, values)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"lh.betas_session02.hdf5: expected a whole HDF5"):
        open_trials(data, space="nativesurface")
    path = data / SURFACE / "rh.betas_session01.mgh"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:1_000_000])
    with pytest.raises(DataError, match="truncated"):
        open_trials(data)
    path.write_bytes(whole[:24])
    with pytest.raises(DataError, match=r"expected an .mgh file"):
        open_trials(data)


def test_nifti_with_a_scale(data):
    path = data / BETAS / f"func1mm/{B3}/betas_session01.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", content, 112, 1 / 300)  # scl_slope
    replace(path, lambda to: to.write_bytes(gzip.compress(content)))
    with pytest.raises(DataError, match="without a scale"):
        open_trials(data, space="func1mm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda design: design["masterordering"].__isub__(1), "masterordering.*count from 0"),
        (lambda design: design["subjectim"].__isub__(1), "subjectim.*count from 0|sharedix"),
        (lambda design: design["sharedix"].__iadd__(1), "another version"),
        (lambda design: design.pop("subjectim"), "another version"),
        (lambda design: design.update(masterordering=design["masterordering"][:, :-1]), "sessions of 15 trials"),
        (lambda design: design.update(masterordering=design["masterordering"][:, ::-1]), "in trial 1 of session 1"),
    ],
)
def test_another_design(data, change, message):
    design = {name: array for name, array in loadmat(data / DESIGN).items() if not name.startswith("__")}
    design["subjectim"][:, -1] = 1 + ("count" in message)  # so that counting from 0 shows
    change(design)
    replace(data / DESIGN, write_mat, **design)
    with pytest.raises(DataError, match=message):
        open_trials(data, space="func1pt8mm")


def test_real_data_must_have_the_real_sizes(data):
    (data / "simulated.json").unlink()
    (data / "SIMULATED.txt").unlink()
    with pytest.raises(DataError, match="30000 numbers in masterordering, found 120"):
        open_trials(data, space="func1pt8mm")


def test_tables_that_contradict_the_design(data):
    log = data / "nsddata/ppdata/subj04/behav/responses.tsv"
    lines = log.read_text().splitlines()
    log.unlink()
    log.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match="expected 15 trials of session 6, found 14"):
        open_trials(data, space="func1pt8mm")
    log.write_text("\n".join([lines[0], *lines[2:], lines[1]]) + "\n")
    with pytest.raises(DataError, match=r"session (1|6)"):
        open_trials(data, space="func1pt8mm")
    log.unlink()
    table = data / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    header, *rows = table.read_text().splitlines()
    table.unlink()
    table.write_text("\n".join([header, *rows[1:], rows[0]]) + "\n")
    with pytest.raises(DataError, match="nsdId"):
        open_trials(data, space="func1pt8mm")
    names = header.split(",")
    swapped = ",".join({"subject4_rep0": "subject5_rep0", "subject5_rep0": "subject4_rep0"}.get(n, n) for n in names)
    table.write_text("\n".join([swapped, *rows]) + "\n")
    with pytest.raises(DataError, match="subject4_rep0"):
        open_trials(data, space="func1pt8mm")


def test_stimuli(data, tmp_path):
    path = data / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    path.unlink()
    with pytest.raises(DataError, match="file not found"):
        open_trials(data, space="func1pt8mm")
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", (72_999, 425, 425, 3), np.uint8, chunks=(1, 425, 425, 3))
    with pytest.raises(DataError, match="expected 73,000 pictures, found 72,999"):
        open_trials(data, space="func1pt8mm")
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", (73_000, 425, 425, 3), np.uint8, chunks=(1, 425, 425, 3))
    with pytest.raises(DataError, match="empty"):
        prepare(open_trials(data, space="func1pt8mm"), tmp_path)


def test_voxels_that_a_session_lacks_are_left_out_and_counted(data):
    path = data / "nsddata/ppdata/subj04/func1pt8mm/valid_session03.nii.gz"
    image = nibabel.load(path)
    valid = np.asarray(image.dataobj).copy()
    first = tuple(np.argwhere(valid)[0])
    valid[first] = 0
    replace(path, write_nifti, valid, image.affine)
    trials = open_trials(data, space="func1pt8mm")
    assert len(trials.vertices) == 41 and "1 voxel" in trials.notes[-1]
    assert not (trials.volume.voxels == first).all(1).any()


@pytest.mark.slow
def test_regions_of_other_files(data):
    label = data / "nsddata/freesurfer/subj04/label"
    shared = data / "nsddata/freesurfer/fsaverage/label"
    for side in ("lh", "rh"):
        write_mgh(shared / f"{side}.Kastner2015.mgz", np.arange(163_842, dtype=np.int32) % 3 - 1)
        write_mgh(shared / f"{side}.probmap_V1v.mgz", np.linspace(0, 1, 163_842, dtype=np.float32))
    (shared / "Kastner2015.mgz.ctab").write_text("0 Unknown\n1 V1v\n")
    rois = open_trials(data).rois
    assert len(rois["Kastner2015"]) == 163_842 // 3 * 2  # one region: its set's name
    (shared / "Kastner2015.mgz.ctab").write_text("0 Unknown\n1 V1v 255 0 0 0\n2 V1d 0 255 0 0\n")
    rois = open_trials(data).rois
    assert {"Kastner2015.V1v", "Kastner2015.V1d", "V1v", "V1d"} <= set(rois) and not any("probmap" in n for n in rois)
    (label / "prf-visualrois.mgz.ctab").unlink()
    assert len(open_trials(data).rois["hV4"]) == len(rois["hV4"])
    (label / "prf-visualrois.mgz.ctab").write_text("1 V1v\n")
    with pytest.raises(DataError, match="a name for every label"):
        open_trials(data)
    shutil.rmtree(data / "nsddata/ppdata/subj04/transforms")
    trials = open_trials(data)
    assert "RSC" not in trials.rois and any("transforms" in note for note in trials.notes)


def test_transforms_that_count_from_0(data):
    path = data / "nsddata/ppdata/subj04/transforms/lh.white-to-fsaverage.mgz"
    steps = np.asarray(nibabel.load(path).dataobj).ravel()
    replace(path, write_mgh, steps - 1)
    with pytest.raises(DataError, match="count from 0"):
        open_trials(data)


def test_files_that_describe_a_space(data):
    (data / "nsddata/freesurfer/subj04/surf/lh.sphere.reg").unlink()
    assert open_trials(data, space="nativesurface").coordinates.shape == (20_484, 3)
    (data / "nsddata/freesurfer/subj04/surf/lh.sphere").unlink()
    with pytest.raises(DataError, match=r"lh.sphere.reg: file not found"):
        open_trials(data, space="nativesurface")
    (data / "nsddata/ppdata/subj04/func1mm/brainmask.nii.gz").unlink()
    with pytest.raises(DataError, match=r"brainmask.nii.gz: file not found"):
        open_trials(data, space="func1mm")
    mask = data / "nsddata/ppdata/subj04/func1pt8mm/brainmask.nii.gz"
    image = nibabel.load(mask)
    values = np.asarray(image.dataobj)[1:]
    replace(mask, write_nifti, values, image.affine)
    with pytest.raises(DataError, match="voxels"):
        open_trials(data, space="func1pt8mm")


@pytest.mark.slow
def test_equal_samples_have_equal_bytes(written, tmp_path):
    folder, subject = written
    write_nsd(subject, tmp_path / "again")
    for path in folder.rglob("*"):
        if path.is_file() and "fsaverage/betas" not in path.as_posix():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path


def test_a_volume_with_a_flipped_axis_is_refused(data):
    path = data / BETAS / f"func1mm/{B3}/betas_session03.nii.gz"
    image = nibabel.load(path)
    flipped = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([-1.0, 1, 1, 1]))
    replace(path, lambda file: nibabel.save(flipped, file))
    with pytest.raises(DataError, match=r"session03.nii.gz: expected the axes"):
        open_trials(data, space="func1mm")
