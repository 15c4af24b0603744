"""The photographs of installed packages, and random crops of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from brainkit.data import photographs
from brainkit.data.photographs import (
    TEST_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    cut_into_tiles,
    load_photographs,
    random_crop,
)
from brainkit.errors import DataError, MissingDependency


def test_all_photographs_are_there_in_colour() -> None:
    found = load_photographs()
    assert len(found) == 19
    assert set(found) == set(TRAINING_PHOTOGRAPHS) | set(TEST_PHOTOGRAPHS)
    assert all(image.mode == "RGB" and min(image.size) >= 64 for image in found.values())


def test_crops_are_seeded_and_from_one_photograph() -> None:
    ramp = np.zeros((200, 300, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 300).astype(np.uint8)
    shots = {"chelsea": Image.fromarray(ramp), "china": Image.new("RGB", (100, 100), (0, 90, 0))}
    crops = [random_crop(np.random.default_rng(k), shots, ["chelsea", "china"], 32) for k in range(60)]
    again = [random_crop(np.random.default_rng(k), shots, ["chelsea", "china"], 32) for k in range(60)]
    assert all(a[0] == b[0] and a[1].tobytes() == b[1].tobytes() for a, b in zip(crops, again, strict=True))
    assert {name for name, _ in crops} == {"chelsea", "china"}
    slopes = []
    for name, crop in crops:
        assert crop.size == (32, 32)
        if name == "chelsea":
            row = np.asarray(crop)[16, :, 0].astype(float)
            slopes.append(row[-1] - row[0])
    assert min(slopes) < 0 < max(slopes)  # half of them are flipped
    assert max(np.abs(slopes)) > 100 > 80 > min(np.abs(slopes))  # large and small crops


def test_a_package_that_is_missing_or_lacks_a_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photographs._SOURCES, "chelsea", ("skimage", "data/gone.png", 1))
    with pytest.raises(DataError, match=r"gone\.png.*scikit-image"):
        load_photographs(["chelsea"])
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'brainkit\[train\]'"):
        load_photographs(["china"])


def test_tiles_cover_a_photograph_and_share_nothing():
    whole = Image.fromarray(np.arange(7 * 10 * 3, dtype=np.uint8).reshape(7, 10, 3))
    tiles = cut_into_tiles({"a": whole})
    assert list(tiles) == [f"a-{k}" for k in range(1, 7)]
    values = [np.asarray(tile).reshape(-1, 3) for tile in tiles.values()]
    assert sorted(map(tuple, np.concatenate(values).tolist())) == sorted(
        map(tuple, np.asarray(whole).reshape(-1, 3).tolist())
    )
    np.testing.assert_array_equal(np.asarray(tiles["a-2"])[0, 0], np.asarray(whole)[0, 3])
    np.testing.assert_array_equal(np.asarray(tiles["a-4"])[0, 0], np.asarray(whole)[3, 0])
