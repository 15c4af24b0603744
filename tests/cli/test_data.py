"""``brainkit data``."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from command_line import call, one_line
from subject_folders import write_own

from brainkit.data import Folder


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """A layout of trials that stands for any data set's, in a folder with the file ``made-up``."""
    from brainkit.cortex.vertices import Vertices
    from brainkit.data import readers
    from brainkit.data.trials import Session, StimulusImages, Trials

    def read(path, *, subject="1", space="fsaverage5"):
        rng = np.random.default_rng(int(subject))
        responses = rng.standard_normal((60, 4)).astype(np.float32)
        pictures = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
        names = tuple(f"{row:02d}.png" for row in range(20))
        session = Session("session 1", (), np.arange(60) % 20, lambda columns: responses[:, columns])
        return Trials(
            f"subj0{subject}",
            "made up",
            path,
            (session,),
            StimulusImages(names, pictures.__getitem__),
            Vertices(space, np.array([0, 5, 10_300, 10_400])),
            rois={"A": np.array([1, 2])},
            notes=("one session only",),
        )

    monkeypatch.setitem(
        readers.LAYOUTS,
        "madeup",
        readers.Layout("made-up data", ("made-up",), "made_up:read", ("subject", "space"), trials=True),
    )
    module = types.ModuleType("brainkit.data.made_up")
    monkeypatch.setattr(module, "read", read, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "made-up").touch()
    return tmp_path / "set"


def test_data_of_trials_are_described_and_prepared(trials, tmp_path):
    result = call("data", trials, "--subject", 2)
    assert result.exit_code == 0, result.output
    assert "subj02" in result.stdout
    assert "60 in 1 session" in result.stdout
    assert "one session only" in result.stdout
    assert not (tmp_path / "cache" / "prepared").exists()
    result = call("data", "prepare", trials, "--subject", 2, "--roi", "A", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert Folder(tmp_path / "out").vertices.ids.tolist() == [5, 10_300]
    assert json.loads((tmp_path / "out/prepared.json").read_text())["notes"] == ["one session only"]
    assert "exists" in one_line(call("data", "prepare", trials, "--out", tmp_path / "out"), 2)


def test_usage(trials, tmp_path):
    assert "--subject" in one_line(
        call("data", "prepare", trials, "--subject", 1, "--subject", 2, "--out", tmp_path / "out"), 2
    )
    assert "betas" in one_line(call("data", trials, "--betas", "b2"), 2)
    assert "nothing" in one_line(call("data", tmp_path / "none"), 1)
    assert "prepare" in one_line(call("data"), 2)
    write_own(tmp_path / "own")
    assert "trials" in one_line(call("data", "prepare", tmp_path / "own", "--out", tmp_path / "out"), 1)
    for help_of in (("data", "--help"), ("data", "show", "--help")):
        assert "Examples" in call(*help_of).output


def test_prepared_subjects_are_listed_checked_and_removed(trials, tmp_path):
    from brainkit.data import open_subject

    (tmp_path / "cache/prepared/subj09-abc.partial").mkdir(parents=True)
    open_subject(f"{trials}?subject=2", say=lambda line: None)
    (name,) = (each.name for each in (tmp_path / "cache/prepared").glob("subj02-*"))
    result = call("data", "list", "--check")
    assert result.exit_code == 0, result.output
    assert name in result.stdout
    assert "interrupted" in result.stdout
    responses = tmp_path / "cache/prepared" / name / "responses.npy"
    responses.write_bytes(responses.read_bytes()[:-4] + b"abcd")
    assert call("data", "list").exit_code == 0
    assert call("data", "list", "--check").exit_code == 1
    assert "subj02" in one_line(call("data", "remove", "subj2"), 2)
    assert call("data", "remove", "subj02").exit_code == 0
    assert [each.name for each in (tmp_path / "cache/prepared").iterdir()] == ["subj09-abc.partial"]
    assert "--all" in one_line(call("data", "remove"), 2)
    assert call("data", "remove", "--all").exit_code == 0
    assert not list((tmp_path / "cache/prepared").iterdir())
