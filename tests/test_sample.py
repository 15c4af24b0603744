"""The sample subject: the layout of Algonauts 2023, the same bytes for a seed, and its ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")
pytest.importorskip("nilearn")

from brainkit import sample
from brainkit.cortex.surface import mesh
from brainkit.data import Algonauts, make_split
from brainkit.data.photographs import TEST_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS
from brainkit.data.subject import check_images
from brainkit.errors import BrainkitError, UsageError
from brainkit.sample import make_sample
from brainkit.sample_layouts.simulated import NOTE, STREAMS
from brainkit.sample_truth import SCALE_RANGE, occipital_patch


def quiet(line: str) -> None:
    pass


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def truth_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "truth.npz") as file:
        return {name: file[name] for name in file.files}


def test_the_reader_opens_it(tiny_sample: Path) -> None:
    subject = Algonauts(tiny_sample)
    assert (len(subject), len(subject.vertices), subject.vertices.space) == (80, 60, "fsaverage5")
    assert subject.official_test.tolist() == [False] * 60 + [True] * 20
    assert subject.excluded == {"constant": [], "nan": []}
    assert subject.note == NOTE and "SIMULATED" in subject.note
    check_images(subject, full=True)
    image, responses = subject[0]
    assert image.size == (256, 256)
    assert np.isfinite(responses).all()
    assert subject.noise_ceiling is not None
    training = subject.responses.rows(np.arange(60))
    np.testing.assert_allclose(training.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(training.std(0), 1, atol=1e-4)


def test_the_layout_is_complete(tiny_sample: Path) -> None:
    found = set(files_of(tiny_sample))
    expected = {"truth.npz", "stimuli.json", "simulated.json", "SIMULATED.txt", "roi_masks/mapping_streams.npy"}
    for side in ("lh", "rh"):
        expected |= {
            f"training_split/training_fmri/{side}_training_fmri.npy",
            f"test_split/test_fmri/{side}_test_fmri.npy",
            f"test_split/noise_ceiling/{side}_noise_ceiling.npy",
            f"roi_masks/{side}.all-vertices_fsaverage_space.npy",
            f"roi_masks/{side}.streams_fsaverage_space.npy",
            f"roi_masks/{side}.streams_challenge_space.npy",
        }
    images = {name for name in found if name.endswith(".png")}
    assert found - images == expected
    assert len([name for name in images if name.startswith("training_split/training_images/train-00")]) == 60
    assert len([name for name in images if name.startswith("test_split/test_images/test-00")]) == 20
    assert "SIMULATED" in (tiny_sample / "SIMULATED.txt").read_text(encoding="utf-8")
    fmri = np.load(tiny_sample / "training_split/training_fmri/lh_training_fmri.npy")
    assert (fmri.dtype, fmri.shape) == (np.float32, (60, 30))


def test_photographs_are_split_by_their_source(tiny_sample: Path) -> None:
    groups = json.loads((tiny_sample / "stimuli.json").read_text())
    sides = {side: {group for name, group in groups.items() if name.startswith(side)} for side in ("train", "test")}
    assert sides["train"] <= set(TRAINING_PHOTOGRAPHS)
    assert {tile.rpartition("-")[0] for tile in sides["test"]} == set(TEST_PHOTOGRAPHS)
    assert len(sides["test"]) == 20  # of 24 tiles: enough for intervals over stimuli
    subject = Algonauts(tiny_sample)
    split = make_split(subject.groups, subject.official_test, 0)
    on = [{subject.groups[row] for row in rows} for rows in (split.train, split.validation, split.test)]
    assert not on[0] & on[1] and not on[0] & on[2] and not on[1] & on[2]
    assert len(split.train) + len(split.validation) == 60


def test_truth(tiny_sample: Path) -> None:
    truth, subject = truth_of(tiny_sample), Algonauts(tiny_sample)
    shapes = {name: (value.shape, value.dtype.kind) for name, value in truth.items()}
    assert shapes == {
        "layer_weights": ((60, 7), "f"),
        "locations": ((60, 2), "f"),
        "scale": ((60,), "f"),
        "noise_ceiling": ((60,), "f"),
        "vertices": ((60,), "i"),
        "space": ((), "U"),
        "layers": ((7,), "U"),
        "backbone": ((), "U"),
        "weights_hash": ((), "U"),
    }
    assert (str(truth["space"]), str(truth["backbone"])) == ("fsaverage5", "efficientnet_lite0")
    assert truth["layers"].tolist() == [f"stage{k}" for k in range(1, 8)]
    np.testing.assert_array_equal(truth["vertices"], subject.vertices.ids)
    np.testing.assert_allclose(truth["layer_weights"].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(truth["noise_ceiling"], subject.noise_ceiling)
    assert np.abs(truth["locations"]).max() < 1
    left = truth["vertices"] < 10242
    assert (truth["locations"][left, 0] > 0).all()  # the left hemisphere sees the right of the image
    assert (truth["locations"][~left, 0] < 0).all()
    assert SCALE_RANGE[0] - 1e-6 <= truth["scale"].min() and truth["scale"].max() <= SCALE_RANGE[1] + 1e-6


def test_depth_and_scale_grow_from_the_pole(tiny_sample: Path) -> None:
    truth, patch = truth_of(tiny_sample), occipital_patch(60)
    np.testing.assert_array_equal(patch.vertices.ids, truth["vertices"])
    depth = truth["layer_weights"] @ np.arange(7)
    assert np.corrcoef(depth, patch.distance)[0, 1] > 0.9
    assert np.corrcoef(truth["scale"], patch.distance)[0, 1] > 0.9
    assert depth.min() < 1 and depth.max() > 5


def test_ceilings_are_spread(tiny_sample: Path) -> None:
    low, middle, high = np.percentile(truth_of(tiny_sample)["noise_ceiling"], [5, 50, 95])
    assert 0 <= low < 0.25 and 0.2 < middle < 0.65 and 0.5 < high < 0.9


def test_regions_are_the_streams(tiny_sample: Path) -> None:
    rois = Algonauts(tiny_sample).rois
    assert tuple(rois) == STREAMS
    everything = np.concatenate([rois[name] for name in rois])
    assert sorted(everything.tolist()) == list(range(60))
    distance = occipital_patch(60).distance
    assert distance[rois["early"]].max() < 0.35
    assert distance[rois["ventral"]].min() > 0.65


def test_regions_are_in_the_direction_of_their_names() -> None:
    patch = occipital_patch(400)
    rois = {name: np.flatnonzero(sample._streams(patch) == k + 1) for k, name in enumerate(STREAMS)}
    assert all(len(members) > 0 for members in rois.values())
    height = np.concatenate(
        [
            mesh("fsaverage5", side, "sphere")[0][ids][:, 2]
            for side, ids in (("left", patch.vertices.left), ("right", patch.vertices.right))
        ]
    )
    assert height[rois["parietal"]].mean() > height[rois["lateral"]].mean() > height[rois["ventral"]].mean()


SMALLEST: dict[str, Any] = {"images": 20, "test_images": 20, "vertices": 20, "seed": 2, "say": quiet}


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("smallest") / "s", **SMALLEST)


@pytest.mark.slow
def test_bytes_depend_on_the_seed_alone(
    tmp_path: Path, tiny_sample: Path, smallest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a cache of its own, so that the tokens are computed again.
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    first, again = files_of(smallest), files_of(make_sample(tmp_path / "again", **SMALLEST))
    assert list(first) and sorted(first) == sorted(again)
    assert [name for name in first if first[name] != again[name]] == []
    other = files_of(tiny_sample)  # of seed 0
    assert not {other[name] for name in other if name.endswith(".png")} & set(first.values())


@pytest.mark.slow
def test_the_smallest_sample(smallest: Path) -> None:
    # Fewer images than channels: the global tokens do not span them.
    subject = Algonauts(smallest)
    assert subject.responses.shape == (40, 20)
    assert subject.excluded == {"constant": [], "nan": []}


@pytest.mark.slow
def test_the_truth_can_be_another_network(tmp_path: Path, smallest: Path) -> None:
    network = "efficientnet_lite1"
    first, other = (files_of(each) for each in (smallest, make_sample(tmp_path / "s", backbone=network, **SMALLEST)))
    changed = {name for name in first if first[name] != other[name]}
    assert {"truth.npz", "SIMULATED.txt"} < changed and not any(name.endswith(".png") for name in changed)
    truth = truth_of(tmp_path / "s")
    assert str(truth["backbone"]) == network and str(truth["weights_hash"]) != str(truth_of(smallest)["weights_hash"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"images": 19}, "images must be at least 20"),
        ({"test_images": 3}, "images must be at least 20"),
        ({"images": 73_000}, "at most 73000"),
        ({"vertices": 61}, "vertices must be even"),
        ({"vertices": 18}, "vertices must be even"),
        ({"vertices": 20_486}, "vertices must be even"),
        ({"seed": -1}, "seed must be 0 or greater"),
        ({"backbone": "no-such-network"}, "no-such-network"),
    ],
)
def test_refusals(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make_sample(tmp_path / "deep" / "s", say=quiet, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        make_sample(tmp_path, say=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "extract_tokens", full)  # after the images
    with pytest.raises(BrainkitError, match=r"s: cannot be written: No space left"):
        make_sample(tmp_path / "s", images=20, test_images=20, vertices=20, say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_the_default_sample_is_created_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    created: list[Path] = []

    def make(folder: Path, *, say: object) -> Path:
        created.append(folder)
        folder.mkdir()
        if len(created) > 1:  # another process was faster
            raise UsageError("exists already")
        return folder

    monkeypatch.setattr(sample, "make_sample", make)
    said: list[str] = []
    folder = sample.default_sample(said.append)
    assert sample.default_sample(said.append) == folder
    assert created == [folder] and folder.parent == tmp_path
    assert len(said) == 1 and "simulated" in said[0]
    folder.rmdir()
    assert sample.default_sample(said.append) == folder
