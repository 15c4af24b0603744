"""Properties that every split must have."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainkit.config import DataConfig
from brainkit.data.halves import halve_training
from brainkit.data.split import Split
from brainkit.data.splits import make_joint_splits, make_split
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


@settings(deadline=None, max_examples=100)
@given(groups=group_lists, draw=st.integers(0, 10**6))
def test_halves_share_no_stimulus_and_are_all_of_training(groups, draw):
    split = make_split(groups, None, 0)
    train = sides_of(split, groups)["train"]
    if len(train) < 2:
        with pytest.raises(DataError, match="half"):
            halve_training([split], [groups], f"a:{draw}")
        return
    halves = [halve_training([split], [groups], f"{side}:{draw}")[0] for side in "ab"]
    for half in halves:
        np.testing.assert_array_equal(half.test, split.test)
        np.testing.assert_array_equal(half.validation, split.validation)
        assert half.train.dtype == np.int64 and np.all(np.diff(half.train) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([half.train for half in halves])), split.train)
    first, second = (sides_of(half, groups)["train"] for half in halves)
    assert not first & second
    assert abs(len(first) - len(second)) <= 1


def test_halves_of_subjects_agree_and_draws_differ(tmp_path):
    one, other = [f"{k}" for k in range(60)], [f"{k}" for k in range(30, 90)]
    nothing = [np.zeros(60, bool)] * 2
    splits = make_joint_splits([one, other], nothing, 0, names=[one, other], subjects=["x", "y"])
    a = halve_training(splits, [one, other], "a:3")
    b = halve_training(splits, [one, other], "b:3")
    assert not {one[row] for row in a[0].train} & {other[row] for row in b[1].train}
    draws = {tuple(halve_training(splits[:1], [one], f"a:{draw}")[0].train.tolist()) for draw in range(5)}
    assert len(draws) == 5
    a[0].write(tmp_path / "split.json")
    again = Split.read(tmp_path / "split.json", names=one)
    assert again.half == "a:3" and again.train.tolist() == a[0].train.tolist()
    splits[0].write(tmp_path / "split.json")
    assert Split.read(tmp_path / "split.json").half == "" and "half" not in (tmp_path / "split.json").read_text()


@pytest.mark.parametrize("half", ["c:1", "a", "a:-1", "a:1.5", "a:١", 3])
def test_a_half_must_be_one(half, tmp_path):
    value = {"version": 1, "seed": 0, "notes": [], "names_sha256": "", "train": [0], "validation": [1], "test": [2]}
    (tmp_path / "split.json").write_text(json.dumps({**value, "half": half}))
    with pytest.raises(DataError, match="half"):
        Split.read(tmp_path / "split.json")
    with pytest.raises(UsageError, match="half"):
        DataConfig(half=half)
