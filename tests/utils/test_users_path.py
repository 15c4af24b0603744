"""``~`` in environment variables and settings is the user's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brainkit.config import Config
from brainkit.utils.files import cache_folder, folder_named_by, users_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="another variable there")
def test_folders_of_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINKIT_CACHE", "~/x")
    assert cache_folder() == home / "x"
    monkeypatch.delenv("BRAINKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/y")
    assert cache_folder() == home / "y" / "brainkit"
    monkeypatch.setenv("BRAINKIT_DATA", "")
    assert folder_named_by("BRAINKIT_DATA") is None


def test_other_tildes_are_names(home: Path) -> None:
    assert users_path("a~/~b") == Path("a~/~b")
    assert users_path("~no-such-user-at-all/x") == Path("~no-such-user-at-all/x")


def test_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from brainkit.runs.settings import Overrides

    (home / "run.yaml").write_text("data: {paths: [~/a, ~/b]}\nbackbone: {name: '~/net.py:Net'}\n")
    settings = Overrides(config=home / "run.yaml").apply(Config())
    assert settings.data.paths == (str(home / "a"), str(home / "b"))
    assert settings.backbone.name == f"{home / 'net.py'}:Net"
    given = ("data.path=~/a", "backbone.weights=~/w.pt", "backbone.name=~/net.py:Net")
    settings = Overrides(assignments=given).apply(Config())
    assert (settings.data.path, settings.backbone.weights) == (str(home / "a"), str(home / "w.pt"))
    assert settings.backbone.name == f"{home / 'net.py'}:Net"
    assert Overrides(data=("~/a",)).apply(Config()).data.path == str(home / "a")


def test_data_named_by_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from brainkit.errors import DataError
    from brainkit.runs.subjects import open_subjects

    monkeypatch.setenv("BRAINKIT_DATA", "~/subject")
    (home / "subject").write_text("")
    with pytest.raises(DataError, match="subject") as caught:
        open_subjects(Config(), (), lambda line: None)
    assert str(home) in str(caught.value)
