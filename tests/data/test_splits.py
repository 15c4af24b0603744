"""Properties that every split must have."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainkit.data.splits import Split, make_split
from brainkit.errors import DataError, UsageError

SIDES = ("train", "validation", "test")


def sides_of(split, groups):
    return {side: {groups[i] for i in getattr(split, side)} for side in SIDES}


group_lists = st.lists(st.integers(0, 30).map(str), min_size=3, max_size=120).filter(lambda g: len(set(g)) >= 3)


@settings(deadline=None, max_examples=200)
@given(groups=group_lists, seed=st.integers(0, 10**6))
def test_sides_are_disjoint_cover_all_and_keep_groups_whole(groups, seed):
    split = make_split(groups, None, seed)
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows) == list(range(len(groups)))
    assert all(len(getattr(split, side)) for side in SIDES)
    assert all(getattr(split, side).dtype == np.int64 for side in SIDES)
    train, validation, test = sides_of(split, groups).values()
    assert not (train & validation or train & test or validation & test)


@settings(deadline=None, max_examples=200)
@given(groups=group_lists, seed=st.integers(0, 10**6), data=st.data())
def test_an_official_test_set_is_the_test_set(groups, seed, data):
    official = np.array(data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups))))
    tested = {group for group, is_test in zip(groups, official, strict=True) if is_test}
    beside = set(groups) - tested
    if not tested:
        return
    if len(beside) < 2:
        with pytest.raises(DataError, match="at least 2"):
            make_split(groups, official, seed)
        return
    split = make_split(groups, official, seed)
    np.testing.assert_array_equal(split.test, np.flatnonzero(official))
    sides = sides_of(split, groups)
    assert sides["train"] and sides["validation"]
    assert sides["train"] | sides["validation"] == beside
    assert not sides["train"] & sides["validation"]
    left_out = sum(group in tested for group in groups) - official.sum()
    assert any(re.match(rf"{left_out} images? left out", note) for note in split.notes) == bool(left_out)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), more=st.integers(1, 500))
def test_adding_groups_moves_none(seed, more):
    groups = [f"nsd-{i:05d}" for i in range(500)]
    extended = groups + [f"nsd-{i:05d}" for i in range(500, 500 + more)]
    before, after = make_split(groups, None, seed), make_split(extended, None, seed)
    for side in SIDES:
        assert set(getattr(before, side)) == {row for row in getattr(after, side) if row < 500}
    # Another subject saw them in another order, with repetitions, and has an official test set.
    other = make_split(["x", *groups[::-1], groups[0]], np.arange(502) == 0, seed)
    validation = {groups[i] for i in before.validation}
    assert sides_of(other, ["x", *groups[::-1], groups[0]])["validation"] == validation


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=3, max_size=20),
    seed=st.integers(0, 10**6),
    validation=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
)
def test_no_side_has_over_twice_its_share_unless_it_is_one_group(sizes, seed, validation, test):
    groups = [f"photograph {i}" for i, size in enumerate(sizes) for _ in range(size)]
    split = make_split(groups, None, seed, (validation, test))
    for side, share in (("validation", validation), ("test", test)):
        rows = getattr(split, side)
        names = {groups[i] for i in rows}
        assert len(names) == 1 or len(rows) <= 2 * share * len(groups) + 1e-9


def test_few_photographs_never_take_half_of_the_images():
    """The sample subject: 15 photographs with 60 images each, and an official test set of four others."""
    groups = [f"p{i}" for i in range(15) for _ in range(60)] + [f"t{i}" for i in range(4) for _ in range(60)]
    official = np.arange(len(groups)) >= 900
    counts, noted = set(), 0
    for seed in range(200):
        split = make_split(groups, official, seed)
        assert len(split.test) == 240
        assert len(split.train) + len(split.validation) == 900
        counts.add(len(split.validation))
        noted += bool(split.notes)
    assert counts == {60, 120, 180}
    assert 0 < noted < 200


def test_shares_are_met_with_many_groups():
    groups = [f"nsd-{i:05d}" for i in range(9841)]
    split = make_split(groups, None, 0, (0.1, 0.2))
    assert len(split.validation) / 9841 == pytest.approx(0.1, abs=0.015)
    assert len(split.test) / 9841 == pytest.approx(0.2, abs=0.02)
    assert split.notes == ()
    assert not np.array_equal(split.test, make_split(groups, None, 1, (0.1, 0.2)).test)


def test_the_side_of_a_group_never_changes():
    """A change of the hash would break every resumed run and every comparison between runs."""
    groups = [f"nsd-{i:05d}" for i in range(60)]
    split = make_split(groups, None, 7)
    assert split.validation.tolist() == PINNED["validation"]
    assert split.test.tolist() == PINNED["test"]


PINNED = {"validation": [47, 48, 51], "test": [12, 15, 21, 24]}


def test_too_few_groups():
    with pytest.raises(DataError, match=r"at least 3 stimulus groups .* found 2"):
        make_split(["a", "b", "a"])
    with pytest.raises(DataError, match="found 1"):
        make_split(["a", "b", "c"], [False, True, True])
    split = make_split(["a", "b", "c"])
    assert [len(getattr(split, side)) for side in SIDES] == [1, 1, 1]


@pytest.mark.parametrize("fractions", [(0, 0.1), (0.5, 0.5), (0.1,), (-0.1, 0.1), None, (math.nan, 0.1)])
def test_fractions_out_of_range(fractions):
    with pytest.raises(UsageError, match="fractions must"):
        make_split(list("abc"), None, 0, fractions)


def test_lengths_that_differ():
    for options in ({"official_test": [True]}, {"names": ["a"]}):
        with pytest.raises(UsageError, match="same length"):
            make_split(list("abc"), **options)


def test_write_and_read(tmp_path):
    names = [f"{i}.png" for i in range(9)]
    split = make_split(list("abcdefghi"), None, 3, names=names)
    split.write(tmp_path / "split.json")
    again = Split.read(tmp_path / "split.json", names=names)
    for side in SIDES:
        np.testing.assert_array_equal(getattr(again, side), getattr(split, side))
        assert getattr(again, side).dtype == np.int64
    assert (again.seed, again.notes, again.names_hash) == (3, split.notes, split.names_hash)
    with pytest.raises(DataError, match="split\\.json"):
        Split.read(tmp_path / "split.json", names=names[::-1])


def test_files_that_are_not_a_split(tmp_path):
    path = tmp_path / "split.json"
    make_split(list("abcdefghi")).write(path)
    good = json.loads(path.read_text())
    with pytest.raises(DataError, match="rows below 3, found 8"):
        Split.read(path, names=list("abc"))
    for change in (
        {"version": 2},
        {"train": [0, 0]},
        {"train": good["test"]},
        {"train": []},
        {"train": [0.5]},
        {"train": [-1]},
        {"train": None},
        {"seed": "x"},
        {"notes": "x"},
        {"names_sha256": 3},
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=r"split\.json: expected"):
            Split.read(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="expected a split of version 1, found list"):
        Split.read(path)
    path.unlink()
    with pytest.raises(DataError, match="file not found"):
        Split.read(path)
