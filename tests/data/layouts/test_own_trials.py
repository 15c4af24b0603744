"""Own data with single trials, and in formats other than the plain folder's."""

from __future__ import annotations

import csv
import io
import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image
from small_simulated import small_simulated
from subject_folders import write_own

from brainkit.data import Folder, open_subject, split_subjects
from brainkit.data.readers import find_layout, locate, open_trials
from brainkit.data.trials import prepare_subject
from brainkit.errors import DataError
from brainkit.metrics.ceilings import noise_ceiling_from_trials
from brainkit.sample_layouts.trials import SESSIONS, trial_order, write_trials

IMAGES, COLUMNS = 8, 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plain(tmp_path):
    """A plain folder of own data with all optional files; its responses are whole numbers of hundredths."""
    folder = tmp_path / "plain"
    values = np.round(write_own(folder, n=IMAGES, columns=COLUMNS) * 100).astype(np.int16)
    np.save(folder / "responses.npy", (values / 100).astype(np.float32))
    names = sorted(path.name for path in (folder / "images").iterdir())
    np.save(folder / "noise_ceiling.npy", np.array([10.0, 20, 30, 40]))
    np.save(folder / "repetitions.npy", np.arange(1, IMAGES + 1))
    np.save(folder / "ncsnr.npy", np.array([0.5, 1, 0.2, 0.3], np.float32))
    (folder / "rois.json").write_text(json.dumps({"A": [0, 2], "B": [3]}))
    (folder / "stimuli.json").write_text(json.dumps({names[0]: "x", names[1]: "x"}))
    (folder / "dataset.json").write_text(json.dumps({"name": "mine", "licence": "CC0", "citation": "me"}))
    (folder / "splits.json").write_text(json.dumps({"test": names[2:4]}))
    return folder


def write_npy(folder, values):
    np.save(folder / "responses.npy", values)


def write_npz(folder, values):
    np.savez_compressed(folder / "responses.npz", responses=values)


def write_h5(folder, values):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "responses.h5", "w") as file:
        file.create_dataset("my responses", data=values, chunks=(2, 3))


def write_zarr(folder, values):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(folder / "responses.zarr", data=values, chunks=(3, 2))


def whole_hemispheres(folder, values):
    """The columns on both whole hemispheres, (rows, 10,242) each."""
    ids = json.loads((folder / "vertices.json").read_text())["ids"]
    both = np.zeros((len(values), 2 * 10_242), np.float32)
    both[:, ids] = values
    return {"lh": both[:, :10_242], "rh": both[:, 10_242:]}


def write_mgz(folder, values):
    """A file for each hemisphere, with all maps."""
    (folder / "responses").mkdir()
    for side, maps in whole_hemispheres(folder, values).items():
        image = nibabel.MGHImage(maps.T[:, None, None, :].astype(np.float32), np.eye(4))
        image.to_filename(folder / "responses" / f"{side}.all.mgz")


def write_gifti(folder, values):
    """A file for each hemisphere and row."""
    (folder / "responses").mkdir()
    for side, maps in whole_hemispheres(folder, values).items():
        for row, data in enumerate(maps):
            image = nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(data)])
            image.to_filename(folder / "responses" / f"row-{row:02d}_hemi-{side[0].upper()}_x.func.gii")


FORMATS = {
    "float16": (write_npy, lambda values: values.astype(np.float16)),
    "big-endian": (write_npy, lambda values: values.astype(">f4")),
    "int16": (write_npy, lambda values: np.round(values * 100).astype(np.int16)),
    "npz": (write_npz, lambda values: values),
    "h5": (write_h5, lambda values: values),
    "h5 int": (write_h5, lambda values: np.round(values * 100).astype(np.int32)),
    "zarr": (write_zarr, lambda values: values.astype(np.float64)),
    "mgz": (write_mgz, lambda values: values),
    "gifti": (write_gifti, lambda values: values),
}


def rewrite(plain, folder, write, convert):
    shutil.copytree(plain, folder)
    values = np.load(folder / "responses.npy")
    (folder / "responses.npy").unlink()
    converted = convert(values)
    write(folder, converted)
    if converted.dtype.kind == "i":
        (folder / "responses.json").write_text('{"scale": 100}')
    return folder


def same_subject(subject, other, *, atol=1e-6):
    assert subject.names == other.names
    rows = np.arange(len(other))
    np.testing.assert_allclose(subject.responses.rows(rows), other.responses.rows(rows), atol=atol)
    assert subject.vertices == other.vertices and subject.rois.to_json() == other.rois.to_json()
    for name in ("noise_ceiling", "ncsnr", "repetitions", "pixel_hashes", "coordinates"):
        np.testing.assert_array_equal(getattr(subject, name), getattr(other, name))
    assert subject.groups == other.groups and subject.named_groups == other.named_groups
    assert subject.noise_ceiling_unit == other.noise_ceiling_unit
    assert subject.dataset.to_json() == other.dataset.to_json()
    assert subject.excluded == other.excluded
    splits = [split_subjects([each])[0] for each in (subject, other)]
    assert splits[0].test.tolist() == splits[1].test.tolist() and splits[0].sha256 == splits[1].sha256


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_responses_gives_the_subject_of_the_plain_folder(plain, tmp_path, form):
    folder = rewrite(plain, tmp_path / "other", *FORMATS[form])
    assert find_layout(locate(folder)).trials and not find_layout(locate(plain)).trials
    subject = open_subject(folder, say=lambda line: None)
    same_subject(subject, Folder(plain), atol=2e-3 if form == "float16" else 1e-6)
    assert subject.location == str(folder)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.mark.parametrize("form", ["npy", "h5 pixels", "h5 encoded"])
def test_every_form_of_images_gives_the_subject_of_the_plain_folder(plain, tmp_path, form):
    folder = shutil.copytree(plain, tmp_path / "other")
    names = list(Folder(plain).names)
    pixels = np.stack([np.asarray(Image.open(plain / "images" / name)) for name in names])
    shutil.rmtree(folder / "images")
    (folder / "image_names.json").write_text(json.dumps(names))
    if form == "npy":
        np.save(folder / "images.npy", pixels)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "images.h5", "w") as file:
            if form == "h5 pixels":
                file["images"] = pixels
            else:
                encoded = file.create_dataset("images", len(names), h5py.vlen_dtype(np.uint8))
                for row, image in enumerate(pixels):
                    encoded[row] = png(image)
    same_subject(open_subject(folder, say=lambda line: None), Folder(plain))
    # Without names, they are numbers of rows.
    for name in ("image_names.json", "stimuli.json", "splits.json"):
        (folder / name).unlink()
    subject = open_subject(folder, say=lambda line: None)
    assert subject.names[:2] == ("00000.png", "00001.png")
    assert subject.pixel_hashes == Folder(plain).pixel_hashes


def test_numeric_order_of_images(plain, tmp_path):
    folder = tmp_path / "other"
    for old, new in zip(sorted((plain / "images").iterdir()), range(IMAGES, 2 * IMAGES), strict=True):
        old.rename(plain / "images" / f"{new}.png")
    (plain / "dataset.json").write_text('{"image_order": "numeric"}')
    for name in ("stimuli.json", "splits.json"):
        (plain / name).unlink()
    wanted = Folder(plain)
    subject = open_subject(rewrite(plain, folder, *FORMATS["npz"]), say=lambda line: None)
    order = [wanted.names.index(name) for name in subject.names]
    assert order != sorted(order)
    np.testing.assert_allclose(subject.responses.rows(np.arange(IMAGES)), wanted.responses.rows(order), atol=1e-6)
    assert subject.repetitions.tolist() == wanted.repetitions[order].tolist()


# ---- trials


@pytest.fixture
def trials(tmp_path):
    """A folder with single trials of two sessions; returns it, the responses, and image and session of each trial."""
    folder = tmp_path / "trials"
    write_own(folder, n=IMAGES, columns=COLUMNS)
    rng = np.random.default_rng(0)
    shown = rng.permutation(np.resize(np.arange(IMAGES), 3 * IMAGES - 2))
    values = rng.standard_normal((IMAGES, COLUMNS))[shown] + rng.standard_normal((len(shown), COLUMNS)) + 5
    np.save(folder / "responses.npy", values.astype(np.float32))
    session = np.arange(len(shown)) % 2  # not in blocks
    write_table(folder, shown, session)
    return folder, values.astype(np.float32), shown, session


def write_table(folder, shown, session=None, names=None):
    names = names or sorted(path.name for path in (folder / "images").iterdir())
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "image", *(["session"] if session is not None else [])])
        for k, image in enumerate(shown):
            writer.writerow([k // 5, names[image], *([f"ses-{session[k]}"] if session is not None else [])])


@pytest.mark.parametrize("form", ["npy", "int16", "npz", "h5", "zarr", "gifti"])
@pytest.mark.parametrize("sessions", [True, False])
def test_trials_are_averaged(trials, tmp_path, form, sessions):
    folder, values, shown, session = trials
    write_table(folder, shown, session if sessions else None)
    if form != "npy":
        folder = rewrite(folder, tmp_path / "other", *FORMATS[form])
    found = open_trials(folder)
    assert (len(found.sessions), found.standardise) == ((2, True) if sessions else (1, False))
    subject = Folder(prepare_subject(found, tmp_path / "out", say=lambda line: None))
    wanted = values.astype(np.float64)
    if sessions:
        for k in range(2):
            own = wanted[session == k]
            wanted[session == k] = (own - own.mean(0)) / own.std(0)
    means = np.stack([wanted[shown == image].mean(0) for image in range(IMAGES)])
    np.testing.assert_allclose(subject.responses.rows(np.arange(IMAGES)), means, atol=1e-2 if form == "int16" else 1e-5)
    assert subject.repetitions.tolist() == np.bincount(shown).tolist()
    if not sessions and form == "npy":
        ceiling = noise_ceiling_from_trials(values, shown).values
        np.testing.assert_allclose(subject.noise_ceiling, ceiling, atol=1e-4)


def test_stated_ceilings_and_splits_come_along(trials, tmp_path):
    folder, *_ = trials
    names = sorted(path.name for path in (folder / "images").iterdir())
    np.save(folder / "noise_ceiling.npy", np.array([0.1, 0.2, 0.3, np.nan]))
    (folder / "splits").mkdir()
    (folder / "splits/mine.json").write_text(json.dumps({"test": names[:2]}))
    (folder / "simulated.json").write_text('{"note": "made up"}')
    np.savez(folder / "truth.npz", scale=np.ones(4))
    subject = Folder(prepare_subject(open_trials(folder), tmp_path / "out", say=lambda line: None))
    np.testing.assert_allclose(subject.noise_ceiling, [0.1, 0.2, 0.3, np.nan], rtol=1e-6)
    assert subject.ncsnr is None and subject.note == "made up"
    assert split_subjects([subject], split="mine")[0].test.tolist() == [0, 1]
    assert (tmp_path / "out/truth.npz").is_file()


def test_images_by_row_number_and_without_suffix(trials, tmp_path):
    folder, _, shown, _ = trials
    stems = sorted(path.stem for path in (folder / "images").iterdir())
    wanted = open_trials(folder).sessions[0].images
    write_table(folder, shown, np.arange(len(shown)) % 2, stems)
    np.testing.assert_array_equal(open_trials(folder).sessions[0].images, wanted)
    pixels = [np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())]
    shutil.rmtree(folder / "images")
    np.save(folder / "images.npy", np.stack(pixels))
    write_table(folder, shown, np.arange(len(shown)) % 2, [str(row) for row in range(IMAGES)])
    found = open_trials(folder)
    np.testing.assert_array_equal(found.sessions[0].images, wanted)
    assert found.images.names[0] == "00000.png"


def test_images_without_a_trial_are_left_out_and_said(trials):
    folder, _, shown, session = trials
    few = np.where(shown == 0, 1, shown)
    write_table(folder, few, session)
    found = open_trials(folder)
    assert len(found.images) == IMAGES - 1 and "1 image of images in no trial" in found.notes


def test_the_sample_recovers_what_was_planted(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    subject = small_simulated(folder / "pictures")
    write_trials(subject, folder)
    assert find_layout(locate(folder)).title == "own data with single trials"
    found = open_trials(folder)
    assert len(found.sessions) == SESSIONS and found.standardise
    prepared = Folder(prepare_subject(found, tmp_path / "out", say=lambda line: None))
    # Means and scales of sessions are gone: the trials as planted, z-scored within sessions.
    planted = subject.trials.reshape(-1, subject.trials.shape[-1]).astype(np.float64)
    for rows in np.array_split(trial_order(subject), SESSIONS):
        planted[rows] = (planted[rows] - planted[rows].mean(0)) / planted[rows].std(0)
    order = np.argsort([path.name for path in subject.images])
    means = planted.reshape(subject.trials.shape).mean(0)[order]
    np.testing.assert_allclose(prepared.responses.rows(np.arange(len(order))), means, atol=1e-4)
    assert prepared.repetitions.tolist() == [3] * len(order) and prepared.note
    assert prepared.rois["early"].tolist() == np.flatnonzero(subject.streams == 1).tolist()
    test = split_subjects([prepared])[0].test
    assert {order[row] for row in test} == set(range(subject.n_training, len(order)))
    np.testing.assert_array_equal(np.load(tmp_path / "out/truth.npz")["scale"], subject.truth["scale"])


# ---- what does not fit


def refused(folder, *words):
    with pytest.raises(DataError) as caught:
        prepare_subject(open_trials(folder), folder.with_name("refused"), say=lambda line: None)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_integers_without_a_scale(plain, tmp_path):
    folder = rewrite(plain, tmp_path / "other", *FORMATS["int16"])
    (folder / "responses.json").unlink()
    refused(folder, "responses.npy", "int16", "scale")
    for value in ({"scale": 0}, {"scale": "3"}, {"scal": 300}, [300], {"scale": True}):
        (folder / "responses.json").write_text(json.dumps(value))
        refused(folder, "responses.json", "scale")


def test_two_formats_at_once(plain, tmp_path):
    folder = rewrite(plain, tmp_path / "other", *FORMATS["npz"])
    shutil.copy(plain / "responses.npy", folder)
    refused(folder, "responses.npy and responses.npz")
    (folder / "responses.npy").unlink()
    np.save(folder / "images.npy", np.zeros((IMAGES, 4, 4, 3), np.uint8))
    refused(folder, "images and images.npy")


def test_damaged_files(plain, tmp_path):
    for form in ("npz", "h5"):
        folder = rewrite(plain, tmp_path / form, *FORMATS[form])
        (file,) = folder.glob("responses.*")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        refused(folder, file.name)
    folder = rewrite(plain, tmp_path / "mgz", *FORMATS["mgz"])
    (folder / "responses/lh.all.mgz").write_bytes(b"nothing")
    refused(folder, "lh.all.mgz")
    folder = rewrite(plain, tmp_path / "pickle", *FORMATS["npz"])
    np.savez(folder / "responses.npz", responses=np.array([[{}]], object))
    refused(folder, "Python objects")


def test_tables_that_do_not_fit(trials):
    folder, values, shown, session = trials
    names = sorted(path.name for path in (folder / "images").iterdir())
    write_table(folder, shown[:-1], session)
    refused(folder, "trials.csv", f"expected {len(shown)} trials", f"found {len(shown) - 1}")
    write_table(folder, shown, session, ["nowhere.png", *names[1:]])
    refused(folder, "trials.csv", "nowhere.png", "and in 2 others" if (shown == 0).sum() == 3 else "nowhere")
    write_table(folder, shown, np.where(np.arange(len(shown)) == 3, 9, 1))
    refused(folder, "ses-9", "2 trials")
    (folder / "trials.csv").write_text("picture\na.png\n")
    refused(folder, "trials.csv", "image")
    (folder / "trials.csv").unlink()
    np.savez(folder / "responses.npz", values)
    (folder / "responses.npy").unlink()
    refused(folder, "expected 8 rows", "trials.csv")


def test_trials_of_fewer_images_than_ids(trials):
    folder, _, shown, session = trials
    shutil.rmtree(folder / "images")
    np.save(folder / "images.npy", np.zeros((IMAGES - 1, 4, 4, 3), np.uint8))
    write_table(folder, shown, session, [str(row) for row in range(IMAGES)])
    refused(folder, "0 to 6", "'7'")
    np.save(folder / "images.npy", np.zeros((IMAGES, 4, 4), np.uint8))
    refused(folder, "images.npy", "height")
    np.save(folder / "images.npy", np.zeros((IMAGES, 4, 4, 3)))
    refused(folder, "float64")
    np.save(folder / "images.npy", np.zeros((IMAGES, 4, 4, 3), np.uint8))
    for names in (["a", "b"], ["a"] * IMAGES, ["../a", *map(str, range(1, IMAGES))], {"a": 1}):
        (folder / "image_names.json").write_text(json.dumps(names))
        refused(folder, "image_names.json")


def test_columns_and_trials_that_were_not_measured(trials, tmp_path):
    folder, values, _, _ = trials
    values[3, 2] = np.nan
    np.save(folder / "responses.npy", values)
    subject = Folder(prepare_subject(open_trials(folder), tmp_path / "out", say=lambda line: None))
    assert subject.excluded["nan"] == [10_242] and "1 vertex with missing values" in subject.describe()
    wide = np.tile(values, (1, 5))
    wide[4] = np.nan
    np.save(folder / "responses.npy", wide)
    (folder / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": list(range(20))}))
    refused(folder, "row 4", "1 row without a number")


def test_hemispheres_that_do_not_fit(plain, tmp_path):
    folder = rewrite(plain, tmp_path / "other", *FORMATS["gifti"])
    files = sorted((folder / "responses").iterdir())
    files[0].rename(folder / "responses/row-00_x.func.gii")
    refused(folder, "row-00_x.func.gii", "hemisphere")
    (folder / "responses/row-00_x.func.gii").unlink()
    refused(folder, "as many maps", "7 and 8")
    small = nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(np.zeros(7, np.float32))])
    small.to_filename(files[0])
    refused(folder, "of one size")
    shutil.rmtree(folder / "responses")
    (folder / "responses").mkdir()
    nibabel.MGHImage(np.zeros((4, 5, 6, 8), np.float32), np.eye(4)).to_filename(folder / "responses/lh.a.mgh")
    refused(folder, "volume")


def test_whole_hemispheres_need_no_list_of_vertices(plain, tmp_path):
    folder = rewrite(plain, tmp_path / "other", *FORMATS["mgz"])
    for name in ("vertices.json", "noise_ceiling.npy", "ncsnr.npy"):
        (folder / name).unlink()
    found = open_trials(folder)
    assert found.vertices.space == "fsaverage5" and len(found.vertices) == 2 * 10_242
    (folder / "responses/lh.all.mgz").unlink()
    assert open_trials(folder).vertices.ids[0] == 10_242


def test_a_name_with_a_line_break_and_a_column_given_twice(trials):
    folder = trials[0]
    name = sorted(path.name for path in (folder / "images").iterdir())[0]
    (folder / "images" / name).rename(folder / "images" / "two\nlines.png")
    with (folder / "trials.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    column = header.index("image")
    for row in rows:
        row[column] = "two\nlines.png" if name.startswith(row[column]) else row[column]
    with (folder / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert "two\nlines.png" in open_trials(folder).images.names
    with (folder / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*header, "image"], *([*row, row[column]] for row in rows)])
    with pytest.raises(DataError, match="'image' twice"):
        open_trials(folder)
