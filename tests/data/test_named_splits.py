"""Splits by lists of images' names."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from subject_folders import save_image, write_algonauts, write_own

from brainkit.data import Algonauts, Folder, split_subjects
from brainkit.data.split import Split
from brainkit.data.split_files import find_split, safe_name
from brainkit.errors import DataError, UsageError

SIDES = ("train", "validation", "test")


def write_folder(root, numbers, names=None):
    """Own data of these pictures (numbers, equal ones are the same picture)."""
    write_own(root, n=len(numbers), columns=4)
    shutil.rmtree(root / "images")
    for number, name in zip(numbers, names or [f"{k:02d}.png" for k in range(len(numbers))], strict=True):
        save_image(root / "images" / name, number)
    return Folder(root)


def write_lists(path, **lists):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(lists))
    return str(path)


def split_of(subject, split="", **options):
    return split_subjects([subject], split=split, **options)[0]


def rows(split):
    return {**{side: getattr(split, side).tolist() for side in SIDES}, **{k: v.tolist() for k, v in split.sets.items()}}


@pytest.fixture
def subject(tmp_path):
    return write_folder(tmp_path / "own", range(40))


def named(numbers):
    return [f"{k:02d}.png" for k in numbers]


def test_each_side_has_exactly_the_named_images(subject, tmp_path):
    lists = {"train": named(range(5, 20)), "validation": named([0, 3]), "test": named([1, 30]), "ood": named([2, 30])}
    file = write_lists(tmp_path / "my split.json", **lists)
    split = split_of(subject, file)
    assert rows(split) == {"train": list(range(5, 20)), "validation": [0, 3], "test": [1, 30], "ood": [2, 30]}
    assert split.name == "my split.json" and any("left out" in note for note in split.notes)
    split.write(tmp_path / "split.json")
    again = Split.read(tmp_path / "split.json", names=[path.name for path in subject.images])
    assert rows(again) == rows(split)
    assert (again.name, again.sha256) == (split.name, split.sha256)
    assert split.facts()["sets"] == {"ood": 2}


def test_the_hash_is_of_the_content(subject, tmp_path):
    first = write_lists(tmp_path / "a.json", train=named(range(10)), test=named([11, 12]))
    second = write_lists(tmp_path / "b.json", test=named([12, 11]), train=named(range(9, -1, -1)))
    other = write_lists(tmp_path / "c.json", train=named(range(10)), test=named([11, 13]))
    hashes = [split_of(subject, file).sha256 for file in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64


def test_what_is_not_listed(subject, tmp_path):
    test = named(range(8))
    split = split_of(subject, write_lists(tmp_path / "t.json", test=test))
    assert split.test.tolist() == list(range(8))
    assert sorted([*split.train, *split.validation]) == list(range(8, 40)) and len(split.validation)
    # The validation side does not depend on which images are tested, only on the stimuli's names.
    train = named(range(10, 40))
    other = split_of(subject, write_lists(tmp_path / "u.json", test=test, train=train))
    assert sorted([*other.train, *other.validation]) == list(range(10, 40))
    assert set(other.validation) <= {*split.validation, *range(40)} and len(other.validation)
    ood = split_of(subject, write_lists(tmp_path / "v.json", ood=named(range(6))))
    assert sorted([*ood.train, *ood.validation, *ood.test]) == list(range(6, 40)) and ood.sets["ood"].tolist() == [
        *range(6)
    ]
    with pytest.raises(DataError, match="test images"):
        split_of(subject, write_lists(tmp_path / "w.json", train=named(range(20))))


def test_stimuli_of_test_images_do_not_train_unless_they_are_named(tmp_path):
    subject = write_folder(tmp_path / "own", [*range(20), 0, 1])
    file = write_lists(tmp_path / "s.json", test=named(range(5)))
    split = split_of(subject, file)
    assert not {20, 21} & {*split.train, *split.validation} and any("2 images left out" in note for note in split.notes)
    file = write_lists(tmp_path / "s.json", test=named(range(5)), train=named(range(5, 22)), validation=[])
    with pytest.raises(DataError, match="validation"):
        split_of(subject, file)
    file = write_lists(tmp_path / "s.json", test=named(range(5)), train=named(range(6, 22)), validation=named([5]))
    assert split_of(subject, file).train.tolist() == list(range(6, 22))


def test_the_data_have_splits(subject, tmp_path):
    write_lists(subject.root / "splits.json", test=named([4, 5]))
    write_lists(
        subject.root / "splits/laion-tau.json", test=named([6, 7]), train=[*named(range(10, 30)), "not seen.png"]
    )
    assert split_of(subject).test.tolist() == [4, 5] == split_of(subject, "splits.json").test.tolist()
    for name in ("laion:tau", "laion-tau"):
        split = split_of(subject, name)
        assert (split.test.tolist(), split.name) == ([6, 7], name)
    assert split_of(subject, "hashed").name == ""
    with pytest.raises(UsageError, match="did you mean 'laion-tau'"):
        split_of(subject, "laion:tua")
    with pytest.raises(DataError, match=r"none\.json"):
        split_of(subject, str(tmp_path / "none.json"))
    assert safe_name("laion:cluster_k5_0") == "laion-cluster_k5_0"


def test_official_test_images(tmp_path):
    write_algonauts(tmp_path / "s", images=30, test=5)
    subject = Algonauts(tmp_path / "s")
    assert split_of(subject, "algonauts").test.tolist() == [*range(30, 35)]
    # Ids of NSD in any spelling; a named split wins over the official test images.
    file = write_lists(tmp_path / "n.json", test=["nsd-00007", "nsd-14.png", "train-0003_nsd-00021.png", "nsd-01011"])
    split = split_of(subject, file)
    assert split.test.tolist() == [0, 1, 2, 30]
    assert {31, 32, 33, 34} <= {*split.train, *split.validation}
    file = write_lists(tmp_path / "o.json", ood=["nsd-00007", "nsd-00014"])
    assert split_of(subject, file).test.tolist() == [*range(30, 35)]
    with pytest.raises(UsageError, match="hashed"):
        split_of(write_folder(tmp_path / "own", range(9)), "algonauts")


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"test": ["00.png", "77.png", "x"]}, r"'77.png' and 1 more"),
        ({"test": named([0, 1]), "train": named([1, 2, 3])}, r"01.png in test and train|01.png in train and test"),
        ({"ood": named([0, 1]), "validation": named([1, 2])}, "01.png"),
        ({"test": 3}, "list of images"),
        ({"test": [1, 2]}, "list of images"),
        ({"all": named([1, 2])}, "'all'"),
        ({"test": named(range(39))}, "at least 2"),
        ({}, "object of lists"),
        ([], "object of lists"),
    ],
)
def test_lists_that_do_not_fit(subject, tmp_path, lists, said):
    (tmp_path / "s.json").write_text(json.dumps(lists))
    with pytest.raises(DataError, match=said) as caught:
        split_of(subject, str(tmp_path / "s.json"))
    assert "s.json" in str(caught.value) or "split" in str(caught.value)


def test_names_that_several_images_have(tmp_path):
    subject = write_folder(tmp_path / "own", range(4), ["a/1.png", "b/1.png", "c/2.png", "c/3.png"])
    file = write_lists(tmp_path / "s.json", test=["1.png"])
    with pytest.raises(DataError, match="2 images"):
        split_of(subject, file)
    file = write_lists(tmp_path / "s.json", test=["a/1", "2"])
    assert split_of(subject, file).test.tolist() == [0, 2]


def test_images_that_were_left_out_are_known(subject, tmp_path):
    (subject.root / "images/03.png").write_bytes(b"nothing")
    file = write_lists(tmp_path / "s.json", test=named([2, 3, 4]))
    readable = subject.skip_unreadable()
    assert [readable.names[row] for row in split_of(readable, file).test] == named([2, 4])


def test_several_subjects_together(tmp_path):
    first = write_folder(tmp_path / "a", range(40))
    # The second saw the first ten pictures too, under other names.
    second = write_folder(tmp_path / "b", [*range(10), *range(100, 130)], [f"p{k:02d}.png" for k in range(40)])
    file = write_lists(tmp_path / "s.json", test=[*named([0, 1, 20]), "p05.png", "p30.png"])
    splits = split_subjects([first, second], split=file)
    assert [split.test.tolist() for split in splits] == [[0, 1, 20], [5, 30]]
    shared = [{row for row in (*split.train, *split.validation) if row < 10} for split in splits]
    assert shared == [{2, 3, 4, 6, 7, 8, 9}] * 2
    validation = [{row for row in split.validation.tolist() if row < 10} for split in splits]
    assert validation[0] == validation[1]
    assert len({split.sha256 for split in splits}) == 1
    # One has a split of its own, the other none: what one is tested on, the other is not trained on.
    write_lists(first.root / "splits.json", test=named([0, 1, 20]))
    splits = split_subjects([first, second])
    assert splits[0].test.tolist() == [0, 1, 20] and not {0, 1} & {*splits[1].train, *splits[1].validation}
    assert splits[1].name == "" and len(splits[1].test)
    own, other = splits
    used = {row for row in (*own.train, *own.validation) if row < 10}
    assert not used & {row for row in other.test.tolist() if row < 10}
    with pytest.raises(DataError, match="nobody"):
        split_subjects([first, second], split=write_lists(tmp_path / "t.json", test=["00.png", "p01.png", "nobody"]))


def test_find_split_reads_no_image(subject):
    shutil.rmtree(subject.root / "images")
    write_lists(subject.root / "splits.json", test=named([4, 5]))
    found = find_split(subject)
    assert found is not None and found.lists == {"test": ("04.png", "05.png")}
    assert np.array_equal(sorted(found.lists), ["test"])
