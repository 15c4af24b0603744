"""The final report of a run: its tables, and what `run.json` keeps of them."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from brainkit.config import Config
from brainkit.cortex.rois import RoiTable
from brainkit.evaluation.scores import Scores, json_ready, summarise
from brainkit.ops import fastest_backend
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.network import SubjectTokens
from brainkit.runs.results import work_facts
from brainkit.runs.summary import cuda_peak, report, work_table

MB = 10**6


class Tokens:
    nbytes = 54_100_000

    def __len__(self) -> int:
        return 900


def write_run(folder: Path) -> Path:
    """A run folder as it is before the report."""
    draw = np.random.default_rng(0)
    scores = Scores(draw.uniform(0, 0.8, 40), draw.uniform(0, 0.5, 40), draw.uniform(0.2, 0.9, 40), 80)
    rois = RoiTable({"early": np.arange(10), "none": np.arange(0)}, 40)
    facts = work_facts(Config(), "cpu", SubjectTokens(Tokens(), 73.4), "host", 2)  # type: ignore[arg-type]
    summary = {**facts, "split": {"train": 700}, "seconds": {}, "scores": summarise(scores, rois)}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(json_ready(summary)))
    (folder / "metrics.csv").write_text("epoch,seconds\n1,2.0\n2,0.5\n3,0.7\n")
    return folder


def finished_clock() -> PhaseClock:
    clock = PhaseClock()
    clock.seconds = {"tokens": 12.26, "training": 23.0, "evaluation": 0.41, "maps": 5.0}
    clock.memory = {
        "tokens": {"resident": 900 * MB, "anonymous": 500 * MB},
        "training": {"resident": 1900 * MB, "anonymous": 700 * MB},
        "evaluation": {"resident": 800 * MB, "anonymous": 600 * MB},
        "maps": {"resident": 700 * MB, "anonymous": 650 * MB},
    }
    return clock


def test_the_report_is_shown_and_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines: list[str] = []
    with RunLog(lines.append) as log:
        log.open_file(run / "log.txt")
        report(run, finished_clock(), log)
    cells = [line.split() for line in lines]
    assert ["all", "40"] in [row[:2] for row in cells] and ["early", "10"] in [row[:2] for row in cells]
    assert not any(row[:1] == ["none"] for row in cells)
    for row in (
        "tokens 12.3 73.4 900.0 MB 500.0 MB",
        "training 23.0 1000 1.90 GB 700.0 MB",  # 700 images in the median epoch of 0.7 s
        "maps 5.0 - 700.0 MB 650.0 MB",
        "all 40.7 - 1.90 GB 700.0 MB",
    ):
        assert row.split() in cells
    text = "\n".join(lines)
    assert "54.1 MB" in text and "900 images" in text and fastest_backend("cpu") in text and "official score" in text
    kept = (run / "log.txt").read_text()
    assert all(line in kept for line in lines)
    summary = json.loads((run / "run.json").read_text())
    assert summary["seconds"]["training"] == 23.0
    assert summary["memory"]["resident"] == 1900 * MB and summary["memory"]["phases"]["maps"]["anonymous"] == 650 * MB
    assert summary["training"]["images_per_second"] == 1000.0
    assert summary["tokens"] == {
        "images": 900, "bytes": 54_100_000, "images_per_second": 73.4, "residency": "streamed from the disk",
    }  # fmt: skip


def test_tokens_on_the_device_are_named_by_it() -> None:
    facts = work_facts(Config(), "mps", SubjectTokens(Tokens(), None), "device", 2)  # type: ignore[arg-type]
    assert facts["tokens"]["residency"] == "on mps" and facts["tokens"]["images_per_second"] is None
    assert facts["training"] == {"device": "mps", "backend": "grouped", "precision": "float32", "threads": 2}


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    summary: dict[str, Any] = json.loads((run / "run.json").read_text())
    del summary["tokens"], summary["training"]  # as where a user's own Trainer trained
    (run / "run.json").write_text(json.dumps(summary))
    clock = PhaseClock()
    clock.end_phase("evaluation")
    with RunLog([].append) as log:
        report(run, clock, log)
    summary = json.loads((run / "run.json").read_text())
    assert summary["memory"]["resident"] is None
    table = work_table(summary)
    assert [row[0] for row in table.rows] == ["evaluation"] and table.rows[0][2:] == ("-", "-", "-")
    assert table.notes == ()


def test_gpu_memory_and_cached_tokens_are_noted() -> None:
    tokens = {"images": 2, "bytes": 10, "images_per_second": None, "residency": "x"}
    notes = work_table({"tokens": tokens, "memory": {"cuda": 10**9, "phases": {}}}).notes
    assert "cache" in notes[0] and "1.00 GB" in notes[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_of_the_gpu() -> None:
    torch.cuda.reset_peak_memory_stats()
    held = torch.zeros(50 * MB, dtype=torch.uint8, device="cuda")
    peak = cuda_peak()
    assert peak is not None and peak >= held.nbytes
