"""What a finished training says last, what it keeps of that, and what TensorBoard gets."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import builtins
import json
import mmap
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from brainkit.config import Config, TrainConfig
from brainkit.cortex.surface import RoiTable
from brainkit.errors import MissingDependency, UsageError
from brainkit.evaluation.scores import Scores, summarise
from brainkit.ops import available_backends, fastest_backend
from brainkit.runs import summary as final_report
from brainkit.runs.folder import PhaseClock, RunLog
from brainkit.training.callbacks import check_tensorboard, open_tensorboard
from brainkit.utils.system import PeakMemory

MB = 10**6


class Tokens:
    nbytes = 54_100_000

    def __len__(self) -> int:
        return 900


def finished(folder: Path, **facts: Any) -> Path:
    """A run folder as it is when only the report is missing."""
    draw = np.random.default_rng(0)
    scores = Scores(draw.uniform(0, 0.8, 40), draw.uniform(0, 0.5, 40), draw.uniform(0.2, 0.9, 40), 80)
    rois = RoiTable({"early [red]": np.arange(10), "a very long name of a region": np.arange(20), "none": []}, 40)
    work = final_report.work_facts(
        device="cpu", backend="cpu", precision="float32", tokens=Tokens(), rate=73.4, residency="streamed from the disk"
    )
    summary = {**work, "split": {"train": 700}, "seconds": {}, "scores": summarise(scores, rois)} | facts
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(summary))
    (folder / "metrics.csv").write_text("epoch,seconds\n1,2.0\n2,0.5\n3,0.7\n")
    return folder


def clock() -> PhaseClock:
    """As after a run whose phases are known."""
    done = PhaseClock()
    done.laps = {"tokens": 12.26, "training": 23.0, "evaluation": 0.41, "maps": 5.0}
    done.memory = {
        "tokens": {"resident": 900 * MB, "anonymous": 500 * MB},
        "training": {"resident": 1900 * MB, "anonymous": 700 * MB},
        "evaluation": {"resident": 800 * MB, "anonymous": 600 * MB},
        "maps": {"resident": 700 * MB, "anonymous": 650 * MB},
    }
    return done


def test_the_tables_are_said_and_kept(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    said: list[str] = []
    with RunLog(said.append) as log:
        log.into(run / "log.txt")
        final_report.report(run, clock(), log)
    text = "\n".join(said)
    assert max(map(len, said)) <= 100
    assert "test scores on 80 images" in said[0] and "official score: mean" in text
    assert any(line.split()[:3] == ["early", "[red]", "10"] for line in said)
    for row in (
        "tokens 12.3 73.4 900.0 MB 500.0 MB",
        "training 23.0 1000 1.90 GB 700.0 MB",  # 700 images in the median epoch of 0.7 s
        "maps 5.0 - 700.0 MB 650.0 MB",
        "all 40.7 - 1.90 GB 700.0 MB",
        "tokens: 54.1 MB on disk for 900 images; while training: streamed from the disk",
        "computed on cpu, operator cpu, products in float32",
    ):
        assert row in [" ".join(line.split()) for line in said]
    kept = (run / "log.txt").read_text()
    assert all(line in kept for line in said)
    summary = json.loads((run / "run.json").read_text())
    assert summary["seconds"]["training"] == 23.0
    assert summary["memory"]["resident"] == 1900 * MB and summary["memory"]["phases"]["maps"]["anonymous"] == 650 * MB
    assert summary["training"]["images_per_second"] == 1000.0
    assert summary["tokens"] == {
        "images": 900, "bytes": 54_100_000, "images_per_second": 73.4, "residency": "streamed from the disk",
    }  # fmt: skip


def test_a_terminal_gets_tables_and_the_log_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path / "run")
    printed: list[str] = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(final_report, "on_terminal", lambda say: True)
    with RunLog(printed.append) as log:
        log.into(run / "log.txt")
        final_report.report(run, clock(), log)
    (block,) = printed
    plain = re.sub(r"\x1b\[[0-9;]*m", "", block)
    assert plain != block and max(map(len, plain.splitlines())) <= 100
    assert "early [red]" in plain and "a very long name of a region" in plain and "time and memory" in plain
    assert "official score: mean" in plain and "tokens: 54.1 MB" in plain
    kept = (run / "log.txt").read_text()
    assert "\x1b" not in kept and "─" not in kept and "early [red]" in kept


def test_what_a_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stdout", type("Out", (), {"isatty": lambda self, here=terminal: here})())
        assert final_report.on_terminal(builtins.print) is terminal
        assert final_report.on_terminal(click.echo) is terminal
        assert final_report.on_terminal([].append) is False  # lines that go elsewhere stay plain


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    summary = json.loads((run / "run.json").read_text())
    for part in ("tokens", "training"):
        del summary[part]  # as where a user's own Trainer trained
    (run / "run.json").write_text(json.dumps(summary))
    done = PhaseClock()
    done.lap("evaluation")
    said: list[str] = []
    with RunLog(said.append) as log:
        final_report.report(run, done, log)
    assert not any("computed on" in line or "on disk" in line for line in said)
    assert any(re.fullmatch(r"  evaluation +0\.0 +- +- +-", line) for line in said)
    assert json.loads((run / "run.json").read_text())["memory"]["resident"] is None
    facts = {
        "tokens": {"images": 2, "bytes": 10, "images_per_second": None, "residency": "x"},
        "memory": {"cuda": 10**9},
    }
    assert final_report.fact_lines(facts) == [
        "  tokens: 0.0 MB on disk for 2 images, found in the cache; while training: x",
        "  GPU memory: 1.00 GB allocated at most",
    ]


def test_the_operator_that_auto_takes() -> None:
    expected = "cpu" if available_backends()["cpu"] is None else "grouped"
    assert fastest_backend("cpu") == expected
    assert fastest_backend("mps") == fastest_backend("cpu", torch.bfloat16) == "grouped"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_the_gpu_took() -> None:
    torch.cuda.reset_peak_memory_stats()
    held = torch.zeros(50 * MB, dtype=torch.uint8, device="cuda")
    peak = final_report.cuda_peak()
    assert peak is not None and peak >= held.nbytes


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_each_phase() -> None:
    with PeakMemory() as memory:
        before = memory.lap()
        # Straight from the system: an allocator may have room of its own.
        with mmap.mmap(-1, 80 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
            held.write(b"1" * (80 * MB))
            time.sleep(0.5)  # it is looked at ten times a second
        during, after = memory.lap(), memory.lap()
    assert before["anonymous"] and during["anonymous"] and after["anonymous"]
    assert during["anonymous"] - before["anonymous"] > 60 * MB
    assert during["anonymous"] - after["anonymous"] > 60 * MB
    assert during["resident"] >= during["anonymous"]
    assert not any(thread.name == "brainkit memory" for thread in threading.enumerate())


# --- TensorBoard ------------------------------------------------------------------------------------------------

ROWS = [
    {"epoch": 1, "step": 10, "train_loss": 0.9, "val_r": 0.1, "seconds": 2.0},
    {"epoch": 2, "step": 20, "train_loss": 0.7, "val_r": 0.3, "seconds": 1.5},
]


def test_epochs_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(epochs=2, tensorboard="on")
    check_tensorboard(config)
    for row in ROWS:  # the second time as a run that is gone on with
        with open_tensorboard(tmp_path / "tensorboard", config, 20) as board:
            board(row)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("train_loss", "val_r", "seconds"),
        *(f"learning_rate/{part}" for part in ("weight", "bottleneck", "selectors")),
    }
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("val_r")] == [(10, 0.1), (20, 0.3)]
    rates = [event.value for event in events.Scalars("learning_rate/weight")]
    assert 0 < rates[1] < rates[0] < config.lr_weight


@pytest.mark.parametrize(("mode", "installed"), [("off", True), ("auto", False)])
def test_no_tensorboard(mode: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "brainkit.training.callbacks.importlib.util.find_spec", lambda name: object() if installed else None
    )
    with open_tensorboard(tmp_path / "tensorboard", TrainConfig(tensorboard=mode), 20) as board:
        board(ROWS[0])
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_that_is_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    check_tensorboard(TrainConfig(tensorboard="auto"))
    with pytest.raises(MissingDependency, match=r"needs tensorboard.*pip install 'brainkit\[log\]'"):
        check_tensorboard(TrainConfig(tensorboard="on"))


def test_on_and_off_are_words() -> None:
    # YAML reads them as true and false.
    assert Config().replace(["train.tensorboard=on"]).train.tensorboard == "on"
    assert Config().replace(["train.tensorboard=off"]).train.tensorboard == "off"
    with pytest.raises(UsageError, match="tensorboard must be one of 'auto', 'on', 'off', got 'maybe'"):
        Config().replace(["train.tensorboard=maybe"])
