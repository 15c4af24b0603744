"""Sets of images that users name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from subject_folders import write_algonauts, write_own

from brainkit.data import open_subject
from brainkit.data.image_sets import choose_sets
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError


@pytest.fixture
def own(tmp_path: Path) -> Subject:
    write_own(tmp_path / "data", n=5)
    return open_subject(tmp_path / "data")


def rows(subject: Subject, *names: str, **options: object) -> dict[str, list[int]]:
    return {each.name: each.rows.tolist() for each in choose_sets(subject, names, **options)}


def test_without_a_test_set_test_is_all(own: Subject) -> None:
    assert rows(own, "test") == {"test": [0, 1, 2, 3, 4]}
    assert rows(own, "all") == {"all": [0, 1, 2, 3, 4]}


def test_the_official_test_set(tmp_path: Path) -> None:
    write_algonauts(tmp_path / "subj01")
    assert rows(open_subject(tmp_path / "subj01"), "test") == {"test": [6, 7, 8]}


def test_the_sides_of_an_encoders_split(own: Subject) -> None:
    hashes = short_hashes(own.pixel_hashes)
    split = {"train": hashes[:2], "validation": hashes[2:4], "test": hashes[[1, 4]]}
    assert rows(own, "test", "train", split=split) == {"test": [1, 4], "train": [0, 1]}
    strange = {side: np.array([1, 2]) for side in split}
    assert rows(own, "test", split=strange) == {"test": [0, 1, 2, 3, 4]}
    with pytest.raises(UsageError, match="unknown"):
        rows(own, "train")


def test_files_have_names_or_rows(own: Subject, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([own.names[3], own.names[0], own.images[3].name]))
    (tmp_path / "two.json").write_text(json.dumps({"iid": [0, 1], "ood": [4, 3]}))
    names = [str(tmp_path / "mine.json"), str(tmp_path / "two.json")]
    assert rows(own, *names) == {"mine": [0, 3], "iid": [0, 1], "ood": [3, 4]}


def test_sets_of_the_data(own: Subject) -> None:
    lists = {"ood": [own.names[0], "b0"], "test": list(own.names[1:4])}
    (own.root / "splits.json").write_text(json.dumps(lists))
    (own.root / "splits").mkdir()
    (own.root / "splits/laion-ood.json").write_text(json.dumps({"test": ["c0", "e0", "of another subject"]}))
    assert rows(own, "ood", "test") == {"ood": [0, 1], "test": [1, 2, 3]}
    assert rows(own, "laion:ood", "laion-ood") == {"laion:ood": [2, 4], "laion-ood": [2, 4]}
    with pytest.raises(UsageError, match="did you mean 'ood'"):
        rows(own, "odd")
    lists["ood"] = ["nothing"]
    (own.root / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(DataError, match=r"splits\.json: ood"):
        rows(own, "ood")


def test_the_split_of_an_encoder_that_has_a_name(tmp_path: Path) -> None:
    write_algonauts(tmp_path / "s")
    subject = open_subject(tmp_path / "s")
    hashes = short_hashes(subject.pixel_hashes)
    split = {"train": hashes[:2], "validation": hashes[2:4], "test": hashes[[4, 5]], "odd": hashes[6:8]}
    assert rows(subject, "test", split=split) == {"test": [6, 7, 8]}
    assert rows(subject, "test", "odd", split=split, split_name="mine") == {"test": [4, 5], "odd": [6, 7]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('["nothing.png", 1]', "list of images"),
        ('["nothing.png", "c0.png"]', "nothing.png"),
        ("[5, 6]", "row 5. and 1 more"),
        ("[-1, 0]", "row -1"),
        ("[true, false]", "list of images"),
        ("3", "list of images"),
        ('{"a": {"b": []}}', "list of images"),
        ("[]", "at least 2"),
        ("[2]", "at least 2"),
        ("[2, 2]", "at least 2"),
        ("{", "JSON"),
    ],
)
def test_other_content_is_refused(own: Subject, tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(DataError, match=problem):
        rows(own, str(tmp_path / "set.json"))


def test_two_sets_of_one_name_are_refused(own: Subject) -> None:
    with pytest.raises(UsageError, match="different names"):
        rows(own, "all", "all")
