"""Processes that fit starts: errors reach the caller in one line, and no process outlives the others."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from brainkit.errors import FailedElsewhere, TrainingError, UsageError
from brainkit.training import launcher
from brainkit.training.launcher import run_processes
from brainkit.training.worker import reported_error


def test_errors_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    told = reported_error(ValueError("one\nof a kind"))
    assert type(told) is TrainingError
    assert str(told).startswith("training process 2 of 3 failed: ValueError: one") and "\n" not in str(told)
    assert str(reported_error(ValueError())).endswith("ValueError")
    assert isinstance(reported_error(MemoryError("64 GB", object())), MemoryError)
    lost = reported_error(RuntimeError("Connection closed by peer [127.0.0.1]:4242"))
    assert isinstance(lost, FailedElsewhere)
    # The cause is what is told, not what follows from it elsewhere.
    own, killed = UsageError("mine"), TrainingError("process 1 was ended by SIGKILL")
    assert min([lost, killed, own], key=launcher._rank_of_explanation) is own
    assert min([lost, killed], key=launcher._rank_of_explanation) is killed


WORKS = """
import os, pathlib, signal, time
from brainkit.errors import UsageError
rank = os.environ.get("RANK")

class Work:
    def __init__(self, folder, what):
        self.folder, self.what = folder, what

    def __call__(self, report):
        # Renamed when it is written: the process may be ended at any time.
        unfinished = pathlib.Path(self.folder, f"unfinished {rank}")
        unfinished.write_text(str(os.getpid()))
        unfinished.rename(pathlib.Path(self.folder, f"started {rank}"))
        report("heard", rank)
        try:
            if rank == "1" and self.what == "usage":
                raise UsageError("images must be images, got something else")
            if rank == "1" and self.what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what != "nothing":
                time.sleep(3600)
        finally:
            pathlib.Path(self.folder, f"cleaned up {rank}").write_text("")
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a piece of work that can be pickled, as it is in a module that processes find."""
    (tmp_path / "works.py").write_text(WORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "works", raising=False)
    import works  # type: ignore[import-not-found]

    return lambda what: works.Work(str(tmp_path), what)


@pytest.mark.slow
def test_reports_are_handled_where_the_processes_were_started(work: Any) -> None:
    heard: list[str] = []
    run_processes(work("nothing"), 2, {"heard": heard.append})
    assert sorted(heard) == ["0", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "error", "line"),
    [
        ("usage", UsageError, "images must be images, got something else"),
        ("killed", TrainingError, r"training process 2 of 2 was ended by SIGKILL; brainkit train --resume"),
    ],
)
def test_when_one_fails_all_end_with_its_line(
    work: Any, tmp_path: Path, what: str, error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line):
        run_processes(work(what), 2, {"heard": print})
    assert not any(alive(int(path.read_text())) for path in tmp_path.glob("started *"))


@pytest.mark.slow
def test_an_error_of_a_handler_ends_the_processes(work: Any, tmp_path: Path) -> None:
    def interrupt(rank: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_processes(work("sleep"), 2, {"heard": interrupt})
    assert not any(alive(int(path.read_text())) for path in tmp_path.glob("started *"))


PARENT = """
import sys
from brainkit.training.launcher import run_processes
from works import Work
run_processes(Work(sys.argv[1], "sleep"), 1, {"heard": print})
"""


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(work: Any, tmp_path: Path) -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}\n{PARENT}"
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    started = tmp_path / "started 0"
    while not started.is_file():
        assert parent.poll() is None
        time.sleep(0.05)
    child = int(started.read_text())
    parent.kill()
    parent.wait()
    while alive(child):
        time.sleep(0.05)  # the test ends when the process does
    assert (tmp_path / "cleaned up 0").is_file()


def alive(process: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take note of it."""
    status = Path(f"/proc/{process}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def test_memory_maps_travel_as_their_place(tmp_path: Path) -> None:
    array = np.arange(4000, dtype=np.float32).reshape(100, 40)
    np.save(tmp_path / "array.npy", array)
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    for value in (mapped, mapped[7:90], mapped[11]):
        content = io.BytesIO()
        launcher._Pickler(content).dump(value)
        assert content.tell() < 1000
        back = pickle.loads(content.getvalue())
        assert isinstance(back, np.memmap)
        np.testing.assert_array_equal(back, value)
    content = io.BytesIO()
    launcher._Pickler(content).dump(mapped[:, ::3])
    np.testing.assert_array_equal(pickle.loads(content.getvalue()), array[:, ::3])
