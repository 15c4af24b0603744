"""Readers of both layouts, on folders written here, and every way in which such a folder can be wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from brainkit import data as brain_data
from brainkit.data import Algonauts, Folder, check_images, open_subject
from brainkit.data.roi_mapping import read_mapping
from brainkit.data.subject import Responses
from brainkit.errors import DataError, UsageError

FLOC = {0: "Unknown", 1: "OFA", 2: "FFA-1", 3: "aTL-faces"}
STREAMS = {0: "Unknown", 1: "early", 2: "ventral"}

# LH, RH, training images, test images of the eight subjects
SUBJECTS = {
    1: (19_004, 20_544),
    2: (19_004, 20_544),
    3: (19_004, 20_544),
    4: (19_004, 20_544),
    5: (19_004, 20_544),
    6: (18_978, 20_220),
    7: (19_004, 20_544),
    8: (18_981, 20_530),
}


def save_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, **options)


def write_algonauts(root, *, size=10_242, left=7, right=5, images=6, test=3, dtype=np.float32, seed=0):
    """A small subject in the exact layout; responses are returned (all rows, all columns)."""
    random = np.random.default_rng(seed)
    counts = {"lh": left, "rh": right}
    for number in range(1, images + 1):
        save_image(root / f"training_split/training_images/train-{number:04d}_nsd-{number * 7:05d}.png", number)
    for number in range(1, test + 1):
        save_image(root / f"test_split/test_images/test-{number:04d}_nsd-{number * 11 + 1000:05d}.png", 100 + number)
    values = random.normal(size=(images + test, left + right)).astype(dtype)
    start = 0
    for side, count in counts.items():
        columns = values[:, start : start + count]
        start += count
        save(root / f"training_split/training_fmri/{side}_training_fmri.npy", columns[:images])
        if test:
            save(root / f"test_split/test_fmri/{side}_test_fmri.npy", columns[images:])
        mask = np.zeros(size, int)
        mask[np.sort(random.choice(size, count, replace=False))] = 1
        save(root / f"roi_masks/{side}.all-vertices_fsaverage_space.npy", mask)
        for name, mapping in (("floc-faces", FLOC), ("streams", STREAMS)):
            labels = np.arange(count) % (3 if name == "floc-faces" else 2)
            whole = np.zeros(size, int)
            whole[mask == 1] = labels
            save(root / f"roi_masks/{side}.{name}_challenge_space.npy", labels)
            save(root / f"roi_masks/{side}.{name}_fsaverage_space.npy", whole)
            save(root / f"roi_masks/mapping_{name}.npy", mapping)
    return values


def write_own(root, *, n=5, columns=4, space=True):
    random = np.random.default_rng(0)
    for i in range(n):
        save_image(root / "images" / f"{'bcdae'[i % 5]}{i // 5}.png", i)
    values = random.normal(size=(n, columns))
    save(root / "responses.npy", values)
    if space:
        ids = [3, 10, 10_242, 20_000][:columns]
        (root / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": ids}))
    else:
        save(root / "coordinates.npy", random.normal(size=(columns, 3)) * 50)
    return values


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "subj01"
    write_algonauts(folder)
    return folder


def refused(reader, folder, *words):
    with pytest.raises(DataError) as caught:
        reader(folder)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# ---- Algonauts


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


def test_rows_come_in_the_order_asked_for(root):
    subject = Algonauts(root)
    everything = subject.responses.rows(np.arange(9))
    index = np.array([8, 0, 5, 6, 0])
    np.testing.assert_array_equal(subject.responses.rows(index), everything[index])
    assert subject.responses.rows(np.array([], int)).shape == (0, 12)
    np.testing.assert_array_equal(np.concatenate(list(subject.responses.blocks())), everything)
    for bad in ([9], [-1], [0.5], [[0]]):
        with pytest.raises(UsageError, match="index must"):
            subject.responses.rows(bad)


def test_responses_stay_on_disk_also_when_pickled(root):
    subject = Algonauts(root)
    assert all(isinstance(part, np.memmap) for block in subject.responses._arrays for part in block)
    content = pickle.dumps(subject.responses)
    assert len(content) < 3000
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.rows([7, 1]), subject.responses.rows([7, 1]))
    assert pickle.loads(pickle.dumps(subject)).describe() == subject.describe()


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
def test_the_mask_tells_the_space(tmp_path, size, space):
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
    # All of the right hemisphere lies below 1 percent: the left one tells the scale.
    ceiling = np.concatenate([ceiling[:7], np.full(5, 0.005)]) if scale == 100 else ceiling
    save(root / place / "lh_noise_ceiling.npy", ceiling[:7] * scale)
    save(root / place / "rh_noise_ceiling.npy", np.r_[ceiling[7:11], np.nan] * scale)
    got = Algonauts(root).noise_ceiling
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.r_[ceiling[:11], 0], rtol=1e-6)


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


# ---- exclusion


def test_constant_and_not_finite_vertices_leave_every_axis_together(tmp_path):
    pytest.importorskip("nilearn")
    folder = tmp_path / "s"
    values = write_algonauts(folder)
    clean = Algonauts(folder)
    save(folder / "noise_ceiling/lh_noise_ceiling.npy", np.arange(7) / 20)
    save(folder / "noise_ceiling/rh_noise_ceiling.npy", np.arange(7, 12) / 20)
    values[:6, 1] = 0.1  # constant over training, whatever the test rows say
    values[6:, 3] = 2.0  # constant over the test rows alone: kept
    values[2, 4] = np.nan
    values[8, 9] = np.inf
    values[:, 10] = np.nan
    for side, columns in (("lh", slice(0, 7)), ("rh", slice(7, 12))):
        save(folder / f"training_split/training_fmri/{side}_training_fmri.npy", values[:6, columns])
        save(folder / f"test_split/test_fmri/{side}_test_fmri.npy", values[6:, columns])
    subject = Algonauts(folder)
    kept = [0, 2, 3, 5, 6, 7, 8, 11]
    ids = clean.vertices.ids
    assert subject.excluded == {"constant": [ids[1]], "nan": ids[[4, 9, 10]].tolist()}
    assert all(type(vertex) is int for vertex in subject.excluded["nan"])
    np.testing.assert_array_equal(subject.responses.rows([7, 2]), values[[7, 2]][:, kept])
    np.testing.assert_array_equal(subject[3][1], values[3, kept])
    np.testing.assert_array_equal(subject.vertices.ids, ids[kept])
    np.testing.assert_allclose(subject.noise_ceiling, np.array(kept) / 20, rtol=1e-6)
    assert subject.coordinates.shape == (8, 3)
    for name, positions in clean.rois.items():
        assert subject.rois[name].tolist() == [kept.index(i) for i in positions if i in kept]
    assert "left out: 1 constant and 3 nan vertices" in subject.describe()
    # Dropping once more counts among the kept ones.
    np.testing.assert_array_equal(subject.responses.keep(np.array([1, 7])).rows([0])[0], values[0, [2, 11]])


def test_a_constant_that_differs_only_in_a_late_row_is_kept(tmp_path):
    folder = tmp_path / "s"
    values = write_algonauts(folder, images=300, test=0)
    values[:, 2] = 1.5
    values[299, 2] = 1.25
    values[:, 3] = -1.5
    save(folder / "training_split/training_fmri/lh_training_fmri.npy", values[:, :7])
    subject = Algonauts(folder)
    assert [len(subject.excluded["constant"]), subject.responses.shape[1]] == [1, 11]


def test_no_usable_vertex(tmp_path):
    write_algonauts(tmp_path / "s")
    for side, count in (("lh", 7), ("rh", 5)):
        save(tmp_path / f"s/training_split/training_fmri/{side}_training_fmri.npy", np.ones((6, count), np.float32))
    refused(Algonauts, tmp_path / "s", "found every one of 12 vertices constant (12) or not finite (0)")


def test_float64_is_read_and_values_beyond_float32_are_excluded(tmp_path):
    values = write_algonauts(tmp_path / "s", dtype=np.float64, test=0)
    values[0, 0] = 1e300
    save(tmp_path / "s/training_split/training_fmri/lh_training_fmri.npy", values[:, :7])
    subject = Algonauts(tmp_path / "s")
    assert len(subject.excluded["nan"]) == 1
    assert subject.responses.rows([1]).dtype == np.float32


# ---- the hash


def test_the_data_hash_follows_contents_and_not_places(tmp_path):
    write_algonauts(tmp_path / "a")
    first = Algonauts(tmp_path / "a").data_hash
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Algonauts(tmp_path / "b").data_hash == first
    save_image(tmp_path / "b/training_split/training_images/train-0001_nsd-00007.png", 77)
    second = Algonauts(tmp_path / "b").data_hash
    values = np.load(tmp_path / "b/test_split/test_fmri/rh_test_fmri.npy")
    values[0, 0] += 1
    save(tmp_path / "b/test_split/test_fmri/rh_test_fmri.npy", values)
    assert len({first, second, Algonauts(tmp_path / "b").data_hash}) == 3
    assert len(first) == 64


# ---- what can be wrong with an Algonauts folder

FMRI = "training_split/training_fmri"
PICTURES = "training_split/training_images"


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
    refused(Algonauts, root, "training_images", "numbered 1 to 9 without a gap", "no train-0003 (6 images)")
    (root / PICTURES / "train-0009_nsd-00021.png").rename(root / PICTURES / "train-0002_nsd-00021.png")
    refused(Algonauts, root, "expected one image of number 2")
    (root / PICTURES / "train-0002_nsd-00021.png").rename(root / PICTURES / "photo.png")
    refused(Algonauts, root, "photo.png", "train-0001_nsd-00013.png")
    for path in (root / PICTURES).iterdir():
        path.unlink()
    refused(Algonauts, root, "training_images", "found none")


def test_things_beside_the_images_do_not_matter(root):
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
    refused(Algonauts, root, str(file), "expected 6 rows, one for each image in training_images, found 5")
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


def test_masks_that_are_none(root):
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


def test_labels_that_do_not_fit(root):
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


def test_stimuli_that_name_no_image(root):
    (root / "stimuli.json").write_text(json.dumps({"train-0001_nsd-7.png": "x"}))
    refused(Algonauts, root, "stimuli.json", "train-0001_nsd-7.png", "not there")
    for wrong in ('["a"]', '{"train-0001_nsd-00007.png": 3}', "{"):
        (root / "stimuli.json").write_text(wrong)
        refused(Algonauts, root, "stimuli.json", "expected")


# ---- pickles


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_mappings_of_every_pickle_protocol(tmp_path, protocol):
    expected = {0: "Unknown", 1: "V1v", 2: "hV4"}
    array = np.empty((), object)
    array[()] = {np.int64(0): "Unknown", 1: "V1v", np.int16(2): "hV4"}
    with (tmp_path / "m.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    assert read_mapping(tmp_path / "m.npy") == expected
    content = (tmp_path / "m.npy").read_bytes().replace(b"numpy._core.", b"numpy.core.")
    if protocol < 4:  # the name that older numpy wrote; later protocols count its letters
        (tmp_path / "m.npy").write_bytes(content)
        assert read_mapping(tmp_path / "m.npy") == expected


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_mapping_cannot_run_anything(tmp_path):
    target = tmp_path / "made_by_the_pickle"
    for value in ({0: "Unknown", 1: Attack(target)}, Attack(target), [Attack(target)]):
        np.save(tmp_path / "m.npy", np.array([None, value], object)[1:].reshape(()), allow_pickle=True)
        refused(read_mapping, tmp_path / "m.npy", "m.npy", "mkdir")
    assert not target.exists()


def test_mappings_that_are_none(tmp_path):
    path = tmp_path / "m.npy"
    for wrong in (np.arange(3), {"a": 1}, {1: 2}, {1.5: "a"}, {True: "a"}, {1: ""}, [1, 2], "text", {1: b"V1"}):
        np.save(path, wrong, allow_pickle=True)
        refused(read_mapping, path, "m.npy: expected", "found")
    np.save(path, {0: "Unknown"})
    content = path.read_bytes()
    for damaged in (
        b"",
        b"text",
        content[:20],
        content[:-3],
        content[:-40] + b"\xff" * 40,
        content + b"\0" * (1 << 20),
    ):
        path.write_bytes(damaged)
        refused(read_mapping, path, "m.npy: expected", "found")
    refused(read_mapping, tmp_path / "no.npy", "file not found")


# ---- images of a subject


def test_check_images(root):
    subject = Algonauts(root)
    seen = []
    check_images(subject, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)
    check_images(subject, full=True)
    for image in subject.images[3:5]:
        image.write_bytes(image.read_bytes()[:200])
    for full in (False, True):
        with pytest.raises(DataError, match=r"train-0004.*1 more unreadable") as caught:
            check_images(subject, full=full)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="train-0004"):
        subject[3]


# ---- own data


def test_own_data_on_a_surface(tmp_path):
    pytest.importorskip("nilearn")
    values = write_own(tmp_path)
    (tmp_path / "rois.json").write_text(json.dumps({"A": [0, 2], "nothing": []}))
    (tmp_path / "stimuli.json").write_text(json.dumps({"a0.png": "x", "b0.png": "x"}))
    save(tmp_path / "noise_ceiling.npy", np.array([10.0, 20, 30, 40]))
    subject = Folder(tmp_path)
    assert [path.name for path in subject.images] == ["a0.png", "b0.png", "c0.png", "d0.png", "e0.png"]
    assert subject.groups == ("x", "x", "c0.png", "d0.png", "e0.png")
    np.testing.assert_array_equal(subject.responses.rows(np.arange(5)), values.astype(np.float32))
    assert subject.vertices.ids.tolist() == [3, 10, 10_242, 20_000]
    assert subject.rois.to_json() == {"A": [0, 2], "nothing": []}
    np.testing.assert_allclose(subject.noise_ceiling, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert subject.coordinates.shape == (4, 3)
    assert not subject.official_test.any()


def test_own_data_with_coordinates_alone(tmp_path):
    values = write_own(tmp_path, space=False)
    values[:, 1] = 3
    save(tmp_path / "responses.npy", values)
    subject = Folder(tmp_path)
    assert subject.vertices.space == "custom"
    assert subject.vertices.ids.tolist() == [0, 1, 2]
    assert subject.excluded["constant"] == [1]
    np.testing.assert_allclose(subject.coordinates, np.load(tmp_path / "coordinates.npy")[[0, 2, 3]], rtol=1e-6)
    assert "3 vertices of its own" in subject.describe()


def test_own_data_with_both(tmp_path):
    write_own(tmp_path)
    save(tmp_path / "coordinates.npy", np.arange(12).reshape(4, 3))
    subject = Folder(tmp_path)
    assert subject.vertices.space == "fsaverage5"
    np.testing.assert_array_equal(subject.coordinates, np.arange(12).reshape(4, 3))
    (tmp_path / "vertices.json").write_text('{"space": "custom"}')
    assert Folder(tmp_path).vertices.space == "custom"


def test_own_images_in_subfolders(tmp_path):
    write_own(tmp_path)
    (tmp_path / "images/z").mkdir()
    (tmp_path / "images/a0.png").rename(tmp_path / "images/z/a0.png")
    subject = Folder(tmp_path)
    assert subject.groups[-1] == "z/a0.png"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2]}, ("expected 4 ids", "found 2")),
        ("vertices.json", {"space": "mni", "ids": [1, 2, 3, 4]}, ("fsaverage5", "'mni'")),
        ("vertices.json", {"space": "fsaverage5", "ids": [4, 3, 2, 1]}, ("increase",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 20_484]}, ("20483",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 10**30]}, ("20483",)),
        ("vertices.json", {"space": "fsaverage5", "ids": [1, 2, 3, 4.0]}, ("whole numbers",)),
        ("vertices.json", {"space": ["x"], "ids": []}, ("fsaverage5",)),
        ("vertices.json", {"space": "custom", "ids": [0, 1, 2, 3]}, ("fsaverage5",)),
        ("vertices.json", [1, 2], ("no space",)),
        ("rois.json", {"A": [4]}, ("0 .. 3",)),
        ("rois.json", {"A": [10**30]}, ("vertex positions",)),
        ("rois.json", {"A": "x"}, ("whole numbers",)),
        ("rois.json", [1], ("object",)),
        ("stimuli.json", {"zzz.png": "x"}, ("zzz.png",)),
    ],
)
def test_json_files_of_own_data_that_do_not_fit(tmp_path, name, content, words):
    write_own(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    refused(Folder, tmp_path, name, *words)


def test_own_data_that_does_not_fit(tmp_path):
    write_own(tmp_path)
    save(tmp_path / "noise_ceiling.npy", np.zeros(5))
    refused(Folder, tmp_path, "noise_ceiling.npy", "4 vertices")
    (tmp_path / "noise_ceiling.npy").unlink()
    (tmp_path / "images/a0.png").unlink()
    refused(Folder, tmp_path, "responses.npy", "expected 4 rows, one for each image in images, found 5")
    (tmp_path / "vertices.json").unlink()
    save_image(tmp_path / "images/a0.png", 0)
    refused(Folder, tmp_path, "vertices.json or coordinates.npy, found neither")
    for wrong, words in [
        (np.zeros((4, 2)), ("(4, 3)", "(4, 2)")),
        (np.full((4, 3), np.nan), ("finite", "4 rows")),
        (np.ones((4, 3)), ("different places",)),
        (np.full((4, 3), "a"), ("numbers",)),
    ]:
        save(tmp_path / "coordinates.npy", wrong)
        refused(Folder, tmp_path, "coordinates.npy", *words)
    (tmp_path / "responses.npy").unlink()
    refused(Folder, tmp_path, "responses.npy: file not found")
    shutil.rmtree(tmp_path / "images")
    refused(Folder, tmp_path, "images: expected a folder with images, found nothing")
    (tmp_path / "images").mkdir()
    refused(Folder, tmp_path, "no images found")


# ---- choosing the reader


def test_open_subject_chooses_by_content(tmp_path):
    write_algonauts(tmp_path / "algonauts/subj01")
    write_own(tmp_path / "own", space=False)
    assert open_subject(tmp_path / "algonauts/subj01").vertices.space == "fsaverage5"
    assert open_subject(str(tmp_path / "own")).vertices.space == "custom"
    refused(open_subject, tmp_path / "algonauts", "one subject's folder", "subj01")
    refused(open_subject, tmp_path / "own/images", "training_split", "responses.npy", "found a0.png")
    refused(open_subject, tmp_path / "nowhere", "nowhere", "found nothing")
    refused(open_subject, tmp_path / "own/responses.npy", "found a file")
    (tmp_path / "empty").mkdir()
    refused(open_subject, tmp_path / "empty", "found an empty folder")
    (tmp_path / "half/images").mkdir(parents=True)
    refused(open_subject, tmp_path / "half", "no images found")


def test_the_package_is_lazy_and_needs_no_torch():
    assert set(brain_data.__all__) >= {"Algonauts", "Folder", "open_subject", "make_split"}
    assert "Algonauts" in dir(brain_data)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        brain_data.nothing  # noqa: B018
    code = (
        "import sys, brainkit.data as d; assert 'numpy' not in sys.modules; [getattr(d, n) for n in d.__all__];"
        "assert not {'torch', 'nibabel', 'scipy', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blocks_that_do_not_fit_together(tmp_path):
    save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    save(tmp_path / "b.npy", np.zeros((4, 2), np.float32))
    save(tmp_path / "c.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(DataError, match="expected 3 rows"):
        Responses([[tmp_path / "a.npy", tmp_path / "b.npy"]])
    with pytest.raises(DataError, match="expected 2 columns"):
        Responses([[tmp_path / "a.npy"], [tmp_path / "c.npy"]])
