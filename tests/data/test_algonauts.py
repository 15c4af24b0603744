"""The reader of Algonauts 2023 folders, and every way in which such a folder can be wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from subject_folders import refused, save, write_algonauts

from brainkit.data import Algonauts, open_subject

# Vertices in the left and right hemisphere of the eight subjects.
SUBJECTS = {1: (19_004, 20_544), 6: (18_978, 20_220), 8: (18_981, 20_530)}  # 2, 3, 4, 5 and 7 are like 1


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "subj01"
    write_algonauts(folder)
    return folder


def test_algonauts_reads_every_part(tmp_path):
    values = write_algonauts(tmp_path / "subj05")
    subject = Algonauts(tmp_path / "subj05")
    assert (subject.name, len(subject), subject.responses.shape) == ("subj05", 9, (9, 12))
    assert subject.official_test.tolist() == [False] * 6 + [True] * 3
    assert subject.groups[:2] == ("nsd-00007", "nsd-00014")
    assert subject.groups[-1] == "nsd-01033"
    assert subject.images[0].name == "train-0001_nsd-00007.png"
    assert subject.images[6].name == "test-0001_nsd-01011.png"
    assert subject.vertices.space == "fsaverage5"
    assert (len(subject.vertices.left), len(subject.vertices.right)) == (7, 5)
    np.testing.assert_array_equal(subject.responses.rows(np.arange(9)), values)
    image, responses = subject[-1]
    assert (image.mode, image.size) == ("RGB", (12, 12))
    np.testing.assert_array_equal(responses, values[8])
    assert responses.dtype == np.float32
    with pytest.raises(IndexError):
        subject[9]
    assert subject.noise_ceiling is None
    assert subject.note is None
    assert subject.excluded == {"constant": [], "nan": []}
    assert "9 images (3 of them official test), 12 vertices of fsaverage5, 5 ROIs" in subject.describe()


@pytest.mark.parametrize("number", SUBJECTS)
def test_the_shapes_of_all_eight_subjects(tmp_path, number):
    left, right = SUBJECTS[number]
    folder = tmp_path / f"subj{number:02d}"
    values = write_algonauts(folder, size=163_842, left=left, right=right, images=4, test=0)
    subject = Algonauts(folder)
    assert subject.responses.shape == (4, left + right)
    assert subject.vertices.space == "fsaverage"
    mask = np.load(folder / "roi_masks/rh.all-vertices_fsaverage_space.npy")
    np.testing.assert_array_equal(subject.vertices.ids[left:], np.flatnonzero(mask) + 163_842)
    np.testing.assert_array_equal(subject.responses.rows([2])[0], values[2])
    np.testing.assert_array_equal(subject.rois.members("FFA-1")[:2], [2, 5])


@pytest.mark.parametrize(("size", "space"), [(10_242, "fsaverage5"), (40_962, "fsaverage6"), (163_842, "fsaverage")])
def test_the_length_of_the_masks_determines_the_space(tmp_path, size, space):
    pytest.importorskip("nilearn")
    write_algonauts(tmp_path / "s", size=size)
    subject = Algonauts(tmp_path / "s")
    assert subject.vertices.space == space
    assert subject.coordinates.shape == (12, 3)
    assert subject.coordinates.dtype == np.float32
    assert subject.coordinates[7:, 0].min() > subject.coordinates[:7, 0].max()


def test_rois_have_the_names_of_all_classes_and_keep_the_empty_ones(root):
    rois = Algonauts(root).rois
    assert rois.names == ("OFA", "FFA-1", "aTL-faces", "early", "ventral")
    assert rois.empty == ("aTL-faces", "ventral")
    assert rois["OFA"].tolist() == [1, 4, 7 + 1, 7 + 4]
    assert rois["early"].tolist() == [1, 3, 5, 7 + 1, 7 + 3]


def test_rois_from_the_fsaverage_files_alone_are_the_same(root):
    expected = Algonauts(root).rois.to_json()
    for path in (root / "roi_masks").glob("*_challenge_space.npy"):
        path.unlink()
    assert Algonauts(root).rois.to_json() == expected


def test_the_same_name_in_two_classes(root):
    save(root / "roi_masks/mapping_streams.npy", {0: "Unknown", 1: "ofa", 2: "ventral"})
    assert Algonauts(root).rois.names == ("OFA", "FFA-1", "aTL-faces", "streams.ofa", "ventral")


def test_test_images_without_responses_are_ignored(root):
    shutil.rmtree(root / "test_split/test_fmri")
    subject = Algonauts(root)
    assert len(subject) == 6
    assert not subject.official_test.any()


@pytest.mark.parametrize("place", ["test_split/noise_ceiling", "noise_ceiling"])
@pytest.mark.parametrize("scale", [1, 100])
def test_noise_ceilings_as_fractions_and_percent(root, place, scale):
    ceiling = np.linspace(0, 0.9, 12)
    # All of the right hemisphere is below 1 percent: the left one determines the scale.
    ceiling = np.concatenate([ceiling[:7], np.full(5, 0.005)]) if scale == 100 else ceiling
    save(root / place / "lh_noise_ceiling.npy", ceiling[:7] * scale)
    save(root / place / "rh_noise_ceiling.npy", np.r_[ceiling[7:11], np.nan] * scale)
    got = Algonauts(root).noise_ceiling
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.r_[ceiling[:11], np.nan], rtol=1e-6)


def test_groups_and_note_files(root):
    (root / "stimuli.json").write_text(json.dumps({"train-0001_nsd-00007.png": "astronaut"}))
    (root / "SIMULATED.txt").write_text("\n  A simulated subject,  not a brain.\nMore about it.\n")
    subject = Algonauts(root)
    assert subject.groups[:2] == ("astronaut", "nsd-00014")
    assert subject.note == "A simulated subject, not a brain."
    (root / "simulated.json").write_text(json.dumps({"note": "SIMULATED"}))
    assert Algonauts(root).note == "SIMULATED"
    assert Algonauts(root).describe().endswith("; SIMULATED")
    (root / "simulated.json").write_text("{}")
    refused(Algonauts, root, "simulated.json", '"note"')


# --- folders that are wrong

FMRI = "training_split/training_fmri"
PICTURES = "training_split/training_images"


def test_a_part_of_a_subject_is_told_from_its_folder(tmp_path):
    write_algonauts(tmp_path / "subj01")
    refused(open_subject, tmp_path / "subj01" / "training_split", "give its parent folder", "subj01")


def test_missing_parts_are_named(tmp_path):
    refused(Algonauts, tmp_path / "nowhere", "nowhere", "found nothing")
    for part, words in [
        (PICTURES, ("training_images", "train-0001_nsd-00013.png")),
        (FMRI, ("lh_training_fmri.npy and rh_training_fmri.npy", "found nothing")),
        (f"{FMRI}/rh_training_fmri.npy", ("rh_training_fmri.npy: file not found", "found only lh_training_fmri.npy")),
        ("test_split/test_fmri/lh_test_fmri.npy", ("lh_test_fmri.npy: file not found", "found only rh_test_fmri.npy")),
        ("test_split/test_images", ("test_images", "test-0001")),
        ("roi_masks", ("roi_masks", "all-vertices")),
        ("roi_masks/rh.all-vertices_fsaverage_space.npy", ("rh.all-vertices_fsaverage_space.npy: file not found",)),
        ("roi_masks/mapping_streams.npy", ("mapping_streams.npy: file not found",)),
    ]:
        folder = tmp_path / part.replace("/", "_")
        write_algonauts(folder)
        target = folder / part
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        refused(Algonauts, folder, *words)


def test_a_roi_class_with_one_hemisphere(root):
    for kind in ("challenge", "fsaverage"):
        (root / f"roi_masks/rh.streams_{kind}_space.npy").unlink()
    refused(Algonauts, root, "rh.streams_challenge_space.npy: file not found")


def test_a_noise_ceiling_with_one_hemisphere_or_wrong_values(root):
    save(root / "noise_ceiling/lh_noise_ceiling.npy", np.full(7, 0.5))
    refused(Algonauts, root, "rh_noise_ceiling.npy: file not found", "found only lh_noise_ceiling.npy")
    for wrong, words in [
        (np.full(4, 0.5), ("noise ceilings of 5 vertices", "(4,)")),
        (np.full(5, -0.5), ("0 to 100 percent", "-0.5")),
        (np.full(5, 250.0), ("250",)),
        (np.full(5, "a"), ("expected numbers",)),
    ]:
        save(root / "noise_ceiling/rh_noise_ceiling.npy", wrong)
        refused(Algonauts, root, "rh_noise_ceiling.npy", *words)


def test_image_numbers(root):
    first = root / PICTURES / "train-0003_nsd-00021.png"
    first.rename(root / PICTURES / "train-0009_nsd-00021.png")
    refused(Algonauts, root, "training_images", "1 to 9", "no train-0003 (6 images)")
    (root / PICTURES / "train-0009_nsd-00021.png").rename(root / PICTURES / "train-0002_nsd-00021.png")
    refused(Algonauts, root, "number 2")
    (root / PICTURES / "train-0002_nsd-00021.png").rename(root / PICTURES / "photo.png")
    refused(Algonauts, root, "photo.png", "train-0001_nsd-00013.png")
    for path in (root / PICTURES).iterdir():
        path.unlink()
    refused(Algonauts, root, "training_images", "found none")


def test_other_files_next_to_the_images_are_ignored(root):
    (root / PICTURES / ".DS_Store").touch()
    (root / PICTURES / "._train-0001_nsd-00007.png").touch()
    (root / PICTURES / "Thumbs.db").touch()
    assert len(Algonauts(root)) == 9


def test_more_than_four_digits_sort_by_number(tmp_path):
    write_algonauts(tmp_path / "s", images=11, test=0)
    for path in (tmp_path / "s" / PICTURES).iterdir():
        path.rename(path.with_name(path.name.replace("train-000", "train-").replace("train-00", "train-")))
    names = [path.name.split("_")[0] for path in Algonauts(tmp_path / "s").images]
    assert names == [f"train-{number}" for number in range(1, 12)]


def test_image_count_and_mask_against_the_matrix(root):
    file = root / FMRI / "lh_training_fmri.npy"
    save(file, np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32))
    refused(Algonauts, root, str(file), "expected 6 rows", "training_images", "found 5")
    save(file, np.zeros((6, 8), np.float32))
    refused(Algonauts, root, str(file), "expected 7 columns", "lh.all-vertices_fsaverage_space.npy", "found 8")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((6, 7), np.int16), ("float32 or float64", "int16")),
        (np.zeros((6, 7), np.float16), ("float32 or float64", "float16")),
        (np.zeros((6, 7), np.complex64), ("float32 or float64", "complex64")),
        (np.zeros(42, np.float32), ("shape (images, vertices)", "(42,)")),
    ],
)
def test_dtypes_and_shapes_of_responses(root, wrong, words):
    save(root / FMRI / "lh_training_fmri.npy", wrong)
    refused(Algonauts, root, "lh_training_fmri.npy", *words)


def test_damaged_matrices(root):
    file = root / FMRI / "rh_training_fmri.npy"
    content = file.read_bytes()
    for damaged in (content[:-20], content[:50], b"", b"hello, this is a text", b"PK\x03\x04rubbish"):
        file.write_bytes(damaged)
        refused(Algonauts, root, "rh_training_fmri.npy", "found")
    np.save(file, np.array([[1, "a"]], object), allow_pickle=True)
    refused(Algonauts, root, "rh_training_fmri.npy", "found")
    with file.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    refused(Algonauts, root, "rh_training_fmri.npy", "npz")


def test_wrong_masks(root):
    file = root / "roi_masks/rh.all-vertices_fsaverage_space.npy"
    mask = np.load(file)
    for wrong, words in [
        (mask * 2, ("zeros and ones",)),
        (mask[:500], ("500",)),
        (mask[None], ("zeros and ones", "(1, 10242)")),
    ]:
        save(file, wrong)
        refused(Algonauts, root, "roi_masks", *words)
    for side in ("lh", "rh"):
        save(root / f"roi_masks/{side}.all-vertices_fsaverage_space.npy", mask[:500])
    refused(Algonauts, root, "roi_masks", "10242 (fsaverage5)", "500")


def test_wrong_labels(root):
    file = root / "roi_masks/lh.streams_challenge_space.npy"
    for wrong, words in [
        (np.zeros(6, int), ("7 vertices", "(6,)")),
        (np.full(7, 0.5), ("whole numbers",)),
        (np.full(7, 9), ("mapping_streams.npy", "found none for 9")),
    ]:
        save(file, wrong)
        refused(Algonauts, root, *words)
    save(file, np.ones(7))  # whole numbers in a float file are fine
    assert len(Algonauts(root).rois["early"]) == 9


def test_stimuli_that_name_a_missing_image(root):
    (root / "stimuli.json").write_text(json.dumps({"train-0001_nsd-7.png": "x"}))
    refused(Algonauts, root, "stimuli.json", "train-0001_nsd-7.png")
    for wrong in ('["a"]', '{"train-0001_nsd-00007.png": 3}', "{"):
        (root / "stimuli.json").write_text(wrong)
        refused(Algonauts, root, "stimuli.json", "expected")
