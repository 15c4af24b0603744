"""Data and finished runs that the tests of this folder share; they change nothing in them."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

NET = "efficientnet_lite0"


class FinishedRun(NamedTuple):
    """A run folder, and the lines that were reported."""

    path: Path
    lines: list[str]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder of its own, with a space in its path."""
    folder = tmp_path / "work place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be created to try a folder, as on a disk that is read-only (also for an administrator)."""

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plug-in network."""
    from small_runs import PLUG_IN

    file = tmp_path_factory.mktemp("plug-in") / "net.py"
    file.write_text(PLUG_IN)
    return f"{file}:Colours"


@pytest.fixture(scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_runs import make_own_data

    return make_own_data(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="session")
def finished(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of two epochs on the sample subject; ``runs/latest`` is next to it."""
    from small_runs import SMALL

    from brainkit.runs.train import train

    folder, lines = tmp_path_factory.mktemp("finished"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(NET, data=tiny_sample, out="run", epochs=2, overrides=SMALL, say=lines.append)
    return FinishedRun(folder / "run", lines)


@pytest.fixture(scope="session")
def own_run(net: str, own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of a plug-in network on own data; ``runs/latest`` is next to it."""
    from small_runs import SMALL

    from brainkit.runs.train import train

    folder, lines = tmp_path_factory.mktemp("own run"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = train(net, data=own_data, out=folder / "run", epochs=2, overrides=SMALL, say=lines.append)
    return FinishedRun(run, lines)
