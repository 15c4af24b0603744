"""Test images that are, or look like, training images."""

from __future__ import annotations

import dataclasses
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from subject_folders import write_own

from brainkit.data import Folder, make_split, stimuli
from brainkit.data.leaks import NEAR, find_leaks, note_leaks
from brainkit.images import closest, decode, perceptual_hash


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))


def photograph(seed):
    """Smooth blobs, as pictures have."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((160, 160), Image.Resampling.BICUBIC)


def compressed(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "jpeg": lambda image: compressed(image, 75),
    "small": lambda image: image.resize((70, 70), Image.Resampling.BILINEAR),
    "cropped": lambda image: image.crop((2, 1, 159, 158)).resize((160, 160)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.1))),
}


def write_images(root, images):
    write_own(root, n=len(images), columns=4)
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    for k, image in enumerate(images):
        image.save(root / "images" / f"{k:02d}.png")
    return Folder(root)


def split_at(subject, test, **sets):
    whole = make_split(subject.names)
    rest = np.setdiff1d(np.arange(len(subject)), [*test, *(row for rows in sets.values() for row in rows)])
    sets = {name: np.array(rows) for name, rows in sets.items()}
    return dataclasses.replace(whole, train=rest[2:], validation=rest[:2], test=np.array(test), sets=sets)


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(tmp_path, change):
    images = [photograph(k) for k in range(12)]
    subject = write_images(tmp_path / "own", [*images, CHANGES[change](images[5]), photograph(99)])
    (leaks,) = find_leaks([split_at(subject, [12, 13])], [subject])
    assert (leaks.tested, leaks.same, leaks.similar) == (2, 0, 1)
    assert leaks.example is not None and leaks.example[:2] == ("12.png", "05.png") and leaks.example[2] <= NEAR
    (split,) = note_leaks([split_at(subject, [12, 13])], [subject])
    assert "12.png" in split.notes[-1] and split.notes == note_leaks([split], [subject])[0].notes
    assert not find_leaks([split_at(subject, [0, 13])], [subject])[0].lines()
    assert find_leaks([split_at(subject, [0, 1], ood=[12, 13])], [subject])[0].similar == 1


def test_the_same_pixels_are_counted_apart(tmp_path):
    images = [photograph(k) for k in range(12)]
    subject = write_images(tmp_path / "own", [*images, images[3], compressed(images[3], 80)])
    (leaks,) = find_leaks([split_at(subject, [12, 13])], [subject])
    assert (leaks.same, leaks.similar) == (1, 1) and len(leaks.lines()) == 2


def test_other_subjects_are_compared(tmp_path):
    first = write_images(tmp_path / "a", [photograph(k) for k in range(12)])
    second = write_images(tmp_path / "b", [compressed(photograph(k), 80) for k in range(11, 23)])
    leaks = find_leaks([split_at(first, [10, 11]), split_at(second, [10, 11])], [first, second])
    assert [each.similar for each in leaks] == [1, 0]
    assert leaks[0].example is not None and leaks[0].example[:2] == ("11.png", "00.png")


def test_images_of_one_grey_are_like_none(tmp_path):
    images = [Image.new("RGB", (20, 20), (value,) * 3) for value in range(0, 250, 20)]
    subject = write_images(tmp_path / "own", images)
    assert not subject.perceptual_hashes.any()
    assert find_leaks([split_at(subject, [3, 4])], [subject])[0].similar == 0


def test_hashes_are_computed_with_those_of_pixels(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(stimuli, "decode", lambda path: decoded.append(path) or decode(path))
    subject = write_images(tmp_path / "own", [photograph(k) for k in range(5)])
    hashes = subject.perceptual_hashes
    assert len(subject.groups) == len(decoded) == 5
    np.testing.assert_array_equal(Folder(tmp_path / "own").perceptual_hashes, hashes)
    assert len(decoded) == 5
    assert hashes[2].tobytes() == perceptual_hash(photograph(2))


def test_closest_is_the_smallest_distance():
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (n, 32), np.uint8) for n in (700, 50))
    owners, others = np.arange(700) % 9, np.arange(50) % 9
    index, bits = closest(first, second, owners, others)
    apart = np.unpackbits(first[:, None] ^ second[None], axis=2).sum(2).astype(int)
    apart[owners[:, None] == others[None]] = 999
    np.testing.assert_array_equal(bits, apart.min(1))
    np.testing.assert_array_equal(apart[np.arange(700), index], apart.min(1))
    assert closest(first, second[:0], owners, others[:0])[1].tolist() == [256] * 700
