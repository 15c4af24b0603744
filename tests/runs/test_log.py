"""Lines and tables of a run: on the terminal, in the file, and not both for two processes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from brainkit.errors import UsageError
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.utils.table import Table, styled

TABLE = Table(
    title="scores",
    header=("ROI", "r"),
    rows=(("early [red]", "0.5"), ("a very long name of a region", "-")),
    notes=("note [bold]",),
    bold=0,
)


class Terminal:
    """Standard output that says it is a terminal, or that it is not."""

    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal, self.text = is_terminal, ""

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_plain_tables_are_aligned() -> None:
    assert TABLE.plain() == [
        "scores",
        "  ROI                             r",
        "  early [red]                   0.5",
        "  a very long name of a region    -",
        "  note [bold]",
    ]
    assert Table("empty", ("ROI", "r"), (), ("note",)).plain() == ["empty", "  note"]


def test_names_are_not_read_as_markup() -> None:
    text = styled([TABLE])
    assert "\x1b[" in text
    assert "early [red]" in without_colours(text) and "note [bold]" in without_colours(text)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tables_are_styled_on_a_terminal_and_plain_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    terminal = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with RunLog() as log:
        log("early")
        log.open_file(tmp_path / "log.txt")
        log.show(TABLE)
        log.write("in the file only")
    assert ("\x1b[" in terminal.text) is is_terminal
    assert "early [red]" in without_colours(terminal.text) and "only" not in terminal.text
    kept = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("  ", 1)[1] for line in kept] == ["early", *TABLE.plain(), "in the file only"]


def test_lines_that_are_passed_on_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(True))
    lines: list[str] = []
    with RunLog(lines.append) as log:
        log.show(TABLE)
    assert lines == TABLE.plain()


def test_the_file_is_for_one_process(tmp_path: Path) -> None:
    with RunLog(print) as log, RunLog(print) as other:
        log.open_file(tmp_path / "log.txt")
        with pytest.raises(UsageError, match="another process"):
            other.open_file(tmp_path / "log.txt")
    with RunLog(print) as later:
        later.open_file(tmp_path / "log.txt")


def test_an_error_ends_the_file(tmp_path: Path) -> None:
    def work() -> None:
        with RunLog(print) as log:
            log.open_file(tmp_path / "log.txt")
            raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        work()
    assert "stopped: RuntimeError: odd" in (tmp_path / "log.txt").read_text()


def test_phases_follow_each_other() -> None:
    clock = PhaseClock()
    clock.end_phase("one")
    clock.end_phase("two")
    assert list(clock.seconds) == ["one", "two"] and clock.memory == {}
    assert sum(clock.seconds.values()) <= clock.total() + 0.02


@pytest.mark.parametrize("is_terminal", [True, False])
def test_epochs_are_reported_where_no_bar_shows_them(
    net: str, own_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    pytest.importorskip("pytorch_lightning")
    from small_runs import SMALL

    from brainkit.runs import stages
    from brainkit.runs.train import train

    monkeypatch.setattr(stages, "shows_bars", lambda: is_terminal)
    train(net, data=own_data, out="run", epochs=2, overrides=SMALL)
    log = Path("run/log.txt").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    for epoch in ("epoch 1/2", "epoch 2/2"):
        assert log.count(epoch) == 1
        assert said.count(epoch) == (0 if is_terminal else 1)
