"""From single trials to prepared folders of own data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainkit.cortex.vertices import Vertices
from brainkit.data import Folder, readers
from brainkit.data.trials import Session, StimulusImages, Trials, average, prepare, prepare_subject, prepared
from brainkit.errors import DataError, UsageError
from brainkit.metrics.ceilings import noise_ceiling_from_ncsnr, noise_ceiling_from_trials

IMAGES, VERTICES = 12, 9


@pytest.fixture
def measured():
    """Responses (N, V), the image and the session of each trial; 1 to 3 trials an image."""
    rng = np.random.default_rng(0)
    times = np.resize([3, 2, 1], IMAGES)
    images = rng.permutation(np.repeat(np.arange(IMAGES), times))
    responses = rng.standard_normal((IMAGES, VERTICES))[images] + rng.standard_normal((len(images), VERTICES)) + 100
    return responses.astype(np.float32), images, np.arange(len(images)) * 3 // len(images)


def make_trials(measured, folder=Path(), **changes):
    responses, images, sessions = measured
    read = [
        Session(f"session {k}", (), images[sessions == k], lambda columns, k=k: responses[sessions == k][:, columns])
        for k in range(3)
    ]
    pictures = [np.full((8, 8, 3), 20 * row, np.uint8) for row in range(IMAGES)]
    names = tuple(f"{row:02d}.png" for row in range(IMAGES))
    fields = {
        "name": "s1",
        "layout": "made up",
        "root": folder,
        "sessions": tuple(read),
        "images": StimulusImages(names, pictures.__getitem__, (*("g",) * 2, *(None,) * (IMAGES - 2))),
        "vertices": Vertices("fsaverage5", np.arange(VERTICES) * 1000),
        "rois": {"A": np.array([1, 4]), "B": np.array([8])},
        "splits": {"easy": {"train": names[:8], "test": names[8:]}},
    }
    return Trials(**{**fields, **changes})


def reference(measured, standardise):
    responses, images, sessions = measured
    values = responses.astype(np.float64)
    if standardise:
        for session in range(3):
            rows = sessions == session
            values[rows] = (values[rows] - values[rows].mean(0)) / values[rows].std(0)
    return values, np.stack([values[images == image].mean(0) for image in range(IMAGES)])


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("block_bytes", [1 << 20, 4 * IMAGES * 2])
def test_averages_and_ceilings(tmp_path, monkeypatch, measured, standardise, block_bytes):
    monkeypatch.setattr(average, "_BLOCK_BYTES", block_bytes)
    folder = prepare_subject(make_trials(measured, standardise=standardise), tmp_path / "out", say=lambda line: None)
    subject = Folder(folder)
    values, means = reference(measured, standardise)
    np.testing.assert_allclose(subject.responses.rows(np.arange(IMAGES)), means, atol=1e-5)
    times = np.bincount(measured[1])
    assert subject.repetitions.tolist() == times.tolist()
    within = sum(((values[measured[1] == image] - means[image]) ** 2).sum(0) for image in range(IMAGES))
    if standardise:
        noise = within / (times - 1).sum()
        ncsnr = np.sqrt(np.maximum(1 - noise, 0) / noise)
    else:
        ceiling = noise_ceiling_from_trials(measured[0], measured[1]).values
        ncsnr = np.sqrt(ceiling / (1 - ceiling) * (1 / times).mean())
    np.testing.assert_allclose(subject.ncsnr, ncsnr, atol=2e-4)
    rows = np.flatnonzero(times == 3)
    np.testing.assert_allclose(
        subject.noise_ceiling_of(rows), noise_ceiling_from_ncsnr(subject.ncsnr, 3).values, rtol=1e-5
    )
    assert (subject.noise_ceiling_of(rows) >= subject.noise_ceiling).all()


def test_what_a_prepared_folder_has(tmp_path, measured):
    folder = prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None)
    subject = Folder(folder)
    assert (subject.name, subject.vertices.space, subject.units) == (
        "s1",
        "fsaverage5",
        "z-scored percent signal change",
    )
    assert subject.rois.to_json() == {"A": [1, 4], "B": [8]}
    assert subject.named_groups[:3] == ("g", "g", None)
    assert np.asarray(Image.open(folder / "images/03.png"))[0, 0, 0] == 60
    assert json.loads((folder / "splits/easy.json").read_text())["test"][0] == "08.png"
    described = json.loads((folder / "prepared.json").read_text())
    assert described["images_by_repetitions"] == {"1": 4, "2": 4, "3": 4}
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(UsageError, match="exists"):
        prepare_subject(make_trials(measured), folder)


def test_preparing_resumes(tmp_path, monkeypatch, measured):
    monkeypatch.setattr(average, "_BLOCK_BYTES", 4 * IMAGES * 2)
    trials = make_trials(measured)
    whole = prepare_subject(trials, tmp_path / "whole", say=lambda line: None)
    asked = []

    def broken(columns):
        asked.append(columns[0])
        if len(asked) == 3:
            raise DataError("cut")
        return first.read(columns)

    first = trials.sessions[0]
    stopping = make_trials(measured)
    object.__setattr__(stopping, "sessions", (Session("s", (), first.images, broken), *trials.sessions[1:]))
    with pytest.raises(DataError, match="cut"):
        prepare_subject(stopping, tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()
    prepare_subject(stopping, tmp_path / "out", say=lambda line: None)
    assert len(asked) == len(set(asked)) + 1  # only the block that was cut was read twice
    for name in ("responses.npy", "ncsnr.npy", "noise_ceiling.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), np.load(whole / name))


def test_only_some_rois(tmp_path, measured):
    whole = Folder(prepare_subject(make_trials(measured), tmp_path / "whole", say=lambda line: None))
    part = make_trials(measured).restrict(["B", "A"])
    subject = Folder(prepare_subject(part, tmp_path / "part", say=lambda line: None))
    assert subject.rois.to_json() == {"A": [0, 1], "B": [2]}
    assert subject.vertices.ids.tolist() == [1000, 4000, 8000]
    rows = np.arange(IMAGES)
    np.testing.assert_array_equal(subject.responses.rows(rows), whole.responses.rows(rows)[:, [1, 4, 8]])


def test_a_vertex_that_a_session_lacks_is_left_out(tmp_path, measured):
    responses = measured[0]
    responses[measured[2] == 1, 2] = 7.0  # constant in one session
    responses[4, 5] = np.nan
    subject = Folder(prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None))
    assert subject.excluded == {"constant": [], "nan": [2000, 5000]}


def test_the_cache_prepares_once_and_anew_after_a_change(tmp_path, monkeypatch, measured):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "session.bin"
    file.write_bytes(b"a")

    def trials():
        made = make_trials(measured)
        object.__setattr__(made.sessions[0], "files", (file,))
        return made

    lines: list[str] = []
    first = prepared.prepared_folder(trials(), lines.append)
    assert prepared.prepared_folder(trials(), lines.append) == first
    assert len(lines) == 1
    file.write_bytes(b"ab")
    assert prepared.prepared_folder(trials(), lines.append) != first


def test_locations():
    parse = readers.locate
    location = readers.LAYOUTS and parse("folder:some where?subject=1&betas=b%202")
    assert (location.layout, location.path, location.options["betas"]) == ("folder", Path("some where"), "b 2")
    assert parse(str(location)) == location
    assert parse("C:/data").layout == ""
    assert readers.choose_parts(["folder:x"], ["1", "2"], {"space": "s"}) == [
        "folder:x?subject=1&space=s",
        "folder:x?subject=2&space=s",
    ]
    with pytest.raises(UsageError, match="did you mean 'subject'"):
        parse("x?subjct=1")
    with pytest.raises(UsageError, match="--data DIR"):
        readers.choose_parts([], ["1"], {})


def test_options_of_another_layout_are_refused(tmp_path):
    (tmp_path / "training_split").mkdir()
    with pytest.raises(UsageError, match="Algonauts"):
        readers.open_subject(f"algonauts:{tmp_path}?betas=b2")


def test_data_without_a_usable_column_are_not_prepared(tmp_path, measured):
    measured[0][measured[2] == 1] = 7.0  # a session that was not measured
    with pytest.raises(DataError, match="none of 9"):
        prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_session_of_one_trial_is_refused(measured):
    measured[2][:] = 0
    measured[2][:2] = 1, 2
    with pytest.raises(DataError, match="at least 2 trials of session 1"):
        make_trials(measured)
    assert make_trials(measured, standardise=False).n_trials == len(measured[2])


def test_a_folder_of_the_user_is_not_taken_for_an_interrupted_preparation(tmp_path, measured):
    mine = tmp_path / "out.partial" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"out\.partial"):
        prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None)
    assert mine.read_text() == "mine"


def test_two_preparations_of_different_data_into_one_folder(tmp_path, monkeypatch, measured):
    """The second waits for the first, and must not return the first one's folder as its own."""
    take = prepare.FileLock.take

    def first_is_faster(path, **options):
        monkeypatch.setattr(prepare.FileLock, "take", take)
        prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None)
        return take(path, **options)

    monkeypatch.setattr(prepare.FileLock, "take", first_is_faster)
    with pytest.raises(UsageError, match="other data"):
        prepare_subject(make_trials(measured, name="s2"), tmp_path / "out", say=lambda line: None)
    assert Folder(tmp_path / "out").name == "s1"


def test_a_contradiction_to_the_published_ncsnr_is_said(tmp_path, measured):
    rng = np.random.default_rng(1)
    responses = rng.standard_normal((len(measured[1]), 120)).astype(np.float32)
    trials = make_trials(
        (responses, *measured[1:]),
        vertices=Vertices("fsaverage5", np.arange(120)),
        rois={},
        ncsnr=rng.random(120),
    )
    lines: list[str] = []
    prepare_subject(trials, tmp_path / "out", say=lines.append)
    assert "WARNING" in lines[-1]
    assert "ncsnr" in lines[-1]


def test_a_folder_with_two_data_sets(tmp_path):
    (tmp_path / "nsddata_betas").mkdir()
    (tmp_path / "derivatives/glmsingle-tedana").mkdir(parents=True)
    with pytest.raises(UsageError, match=f"NSD as released and LAION-fMRI; choose one: nsd:{tmp_path}"):
        readers.find_layout(readers.locate(tmp_path))
    assert readers.find_layout(readers.locate(f"laion:{tmp_path}")).title == "LAION-fMRI"


@pytest.mark.parametrize("step", ["_write_tables", "_sha256"])
def test_an_interruption_after_the_last_block_resumes(tmp_path, monkeypatch, measured, step):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_subject(make_trials(measured), tmp_path / "out", say=lambda line: None)
    trials = make_trials(measured)
    for session in trials.sessions:
        object.__setattr__(session, "read", interrupted)  # all is read already
    folder = prepare_subject(trials, tmp_path / "out", say=lambda line: None)
    assert (folder / "ncsnr.npy").is_file()
    assert not {"progress.json", "variances.npy"} & {file.name for file in folder.iterdir()}
