"""Small subject folders in both layouts, written for tests."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from brainkit.errors import DataError

FLOC = {0: "Unknown", 1: "OFA", 2: "FFA-1", 3: "aTL-faces"}
STREAMS = {0: "Unknown", 1: "early", 2: "ventral"}


def save_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, **options)


def write_algonauts(root, *, size=10_242, left=7, right=5, images=6, test=3, dtype=np.float32, seed=0):
    """A small subject in the exact layout; returns the responses (all rows, all columns)."""
    rng = np.random.default_rng(seed)
    counts = {"lh": left, "rh": right}
    for number in range(1, images + 1):
        save_image(root / f"training_split/training_images/train-{number:04d}_nsd-{number * 7:05d}.png", number)
    for number in range(1, test + 1):
        save_image(root / f"test_split/test_images/test-{number:04d}_nsd-{number * 11 + 1000:05d}.png", 100 + number)
    values = rng.normal(size=(images + test, left + right)).astype(dtype)
    start = 0
    for side, count in counts.items():
        columns = values[:, start : start + count]
        start += count
        save(root / f"training_split/training_fmri/{side}_training_fmri.npy", columns[:images])
        if test:
            save(root / f"test_split/test_fmri/{side}_test_fmri.npy", columns[images:])
        mask = np.zeros(size, int)
        mask[np.sort(rng.choice(size, count, replace=False))] = 1
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
    rng = np.random.default_rng(0)
    for i in range(n):
        save_image(root / "images" / f"{'bcdae'[i % 5]}{i // 5}.png", i)
    values = rng.normal(size=(n, columns))
    save(root / "responses.npy", values)
    if space:
        ids = [3, 10, 10_242, 20_000][:columns]
        (root / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": ids}))
    else:
        save(root / "coordinates.npy", rng.normal(size=(columns, 3)) * 50)
    return values


def refused(reader, folder, *words):
    with pytest.raises(DataError) as caught:
        reader(folder)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
