"""Fewer images to train and validate on: how many, which, and that they are nested."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.data.fewer import keep_first
from brainkit.data.splits import make_split
from brainkit.errors import DataError, UsageError

GROUPS = [f"image {k // 2}" for k in range(400)]  # two images of each stimulus


def test_fewer_images_are_part_of_more_and_the_test_images_stay() -> None:
    split = make_split(GROUPS, seed=3)
    largest = len(split.train) + len(split.validation)
    before = None
    for count in (2, 3, 7, 50, 51, 100, 300, largest):
        kept = keep_first(split, GROUPS, count)
        assert len(kept.train) + len(kept.validation) == count
        np.testing.assert_array_equal(kept.test, split.test)
        assert abs(len(kept.validation) - count * len(split.validation) / largest) <= 1 and len(kept.train)
        for side in ("train", "validation"):
            rows = getattr(kept, side)
            assert np.isin(rows, getattr(split, side)).all() and (np.diff(rows) > 0).all()
            assert before is None or np.isin(getattr(before, side), rows).all()
        before = kept
    assert before is not None
    np.testing.assert_array_equal(before.train, split.train)


def test_the_order_is_that_of_the_hash_not_of_the_rows() -> None:
    split = make_split(GROUPS, seed=3)
    kept = keep_first(split, GROUPS, 60)
    assert len({GROUPS[row] for row in kept.train}) == len(kept.train)  # every stimulus once before any twice
    assert not np.array_equal(kept.train, split.train[: len(kept.train)])
    order = np.random.default_rng(0).permutation(len(GROUPS))
    shuffled = [GROUPS[k] for k in order]
    again = keep_first(make_split(shuffled, seed=3), shuffled, 60)
    assert {shuffled[row] for row in again.train} == {GROUPS[row] for row in kept.train}


def test_more_images_than_there_are_is_an_error() -> None:
    split = make_split(GROUPS, seed=3)
    with pytest.raises(DataError, match="found"):
        keep_first(split, GROUPS, 1000)
    from brainkit.config import DataConfig

    for count in (1, -1):
        with pytest.raises(UsageError, match="images"):
            DataConfig(images=count)
