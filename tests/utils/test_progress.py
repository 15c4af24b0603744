"""Progress without a terminal: a line a minute, none for short work."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from brainkit.utils import progress
from brainkit.utils.progress import progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


def test_long_work_prints_a_line_a_minute(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("tokens", "images") as advance:
        for done in range(1000, 3001, 100):  # 1,000 were there before; ten a second
            advance(done, 3000)
            clock.now += 10
    out, errors = capsys.readouterr()
    assert out == ""
    lines = errors.splitlines()
    assert len(lines) == 3
    assert "tokens" in lines[0] and "1,600 of 3,000 images" in lines[0] and "10.0/s" in lines[0] and "2 min" in lines[0]
    assert "80 s" in lines[1] and "20 s" in lines[2]


def test_short_work_and_no_work_print_nothing(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("tokens", "images") as advance:
        advance(0, 2)
        advance(1, 2)
        clock.now += 600
        advance(2, 2)
    with progress_bar("tokens", "images"):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_the_caller_has_reported_itself_is_not_repeated(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("training", "steps") as advance:
        for step in range(20):
            advance(step, 1000)
            clock.now += 30
            advance(step + 1, 1000, "loss 0.5")
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    terminal = SimpleNamespace(
        isatty=lambda: True, write=written.append, flush=lambda: None, encoding="utf-8", fileno=lambda: 2
    )
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("training", "steps") as advance:
        assert not written  # what is printed before the first step would break the bar
        advance(1, 1000)
        advance(2, 1000, "loss 0.5")
    assert "training" in "".join(written) and "loss 0.5" in "".join(written)


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (89, "89 s"), (150, "2 min"), (5400, "1.5 h")])
def test_times_to_wait(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
