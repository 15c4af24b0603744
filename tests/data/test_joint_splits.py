"""Splits of several subjects: an image is on the same side for all, and no official test image is used in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brainkit.data.split import Split
from brainkit.data.splits import make_joint_splits, make_split
from brainkit.errors import DataError, UsageError


def joint(groups: list[list[str]], official: list[list[bool]] | None = None, **options: Any) -> list[Split]:
    rows = official or [[False] * len(own) for own in groups]
    names = [[f"{group}.png" for group in own] for own in groups]
    subjects = [f"subj{k + 1:02d}" for k in range(len(groups))]
    return make_joint_splits(groups, rows, names=names, subjects=subjects, **options)


def sides(groups: list[str], split: Split) -> dict[str, str]:
    found: dict[str, str] = {}
    for side in ("train", "validation", "test"):
        for row in getattr(split, side):
            assert found.setdefault(groups[row], side) == side
    return found


def test_with_many_groups_every_subject_is_split_as_it_would_be_alone() -> None:
    rng = np.random.default_rng(0)
    groups = [[f"nsd-{k:05d}" for k in rng.permutation(900)[:600]] for _ in range(3)]
    together = joint(groups, seed=5)
    for own, split in zip(groups, together, strict=True):
        alone = make_split(own, seed=5, names=[f"{group}.png" for group in own])
        for side in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(split, side), getattr(alone, side))
        assert split.names_hash == alone.names_hash and not split.notes


@pytest.mark.parametrize("seed", range(20))
def test_an_image_lies_on_the_same_side_for_all_and_no_side_is_empty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [f"g{k}" for k in range(9)]
    groups = [[str(g) for g in rng.choice(pool, 7, replace=False)] for _ in range(3)]
    together = joint(groups, seed=seed)
    known: dict[str, str] = {}
    for own, split in zip(groups, together, strict=True):
        for stimulus, side in sides(own, split).items():
            assert known.setdefault(stimulus, side) == side
        assert min(len(split.train), len(split.validation), len(split.test)) >= 1
        assert len(split.train) + len(split.validation) + len(split.test) == len(own)


def test_official_test_images_of_one_subject_train_none() -> None:
    first = [f"g{k}" for k in range(40)]
    second = [f"g{k}" for k in range(20, 60)]
    official = [[k < 10 for k in range(40)], [k >= 30 for k in range(40)]]  # g0-g9, and g50-g59
    second[0] = "g3"  # on which the first one is tested
    one, two = joint([first, second], official, seed=1)
    np.testing.assert_array_equal(one.test, np.arange(10))
    np.testing.assert_array_equal(two.test, np.arange(30, 40))
    assert 0 not in {*two.train, *two.validation, *two.test}
    assert len(two.notes) == 1 and two.notes[0].startswith("1 image left out")
    assert not one.notes
    assert sides(first, one) | sides(second, two) == {**sides(second, two), **sides(first, one)}


def test_with_and_without_official_tests() -> None:
    """The subject without one is tested on a hashed side, on which the other is not trained."""
    first, second = [f"g{k}" for k in range(80)], [f"g{k}" for k in range(40, 120)]
    one, two = joint([first, second], [[k < 8 for k in range(80)], [False] * 80], seed=2)
    np.testing.assert_array_equal(one.test, np.arange(8))
    tested = {second[row] for row in two.test}
    used = {first[row] for row in (*one.train, *one.validation)}
    assert len(two.test) and not tested & used
    assert tested & set(first)  # otherwise this proves nothing
    # A group that only the first has seen is not left out because of the hashed test side.
    assert {f"g{k}" for k in range(8, 40)} <= used


def test_sides_that_cannot_be_filled() -> None:
    with pytest.raises(DataError, match=r"at least 3 .* of subj02 .* found 2"):
        joint([["a", "b", "c", "d"], ["a", "b", "a"]])
    with pytest.raises(DataError, match=r"no stimulus group of subj\d\d"):
        joint([["a", "b", "c"], ["a", "b", "d"], ["a", "c", "d"], ["b", "c", "d"]])
    with pytest.raises(UsageError, match="same length"):
        joint([["a", "b", "c"]], [[False]])
