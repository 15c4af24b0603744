"""The final report of a run: how good the encoder is, and what it took in time and memory."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

from brainkit.evaluation.scores import json_ready, score_table
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.utils.files import read_json, write_json
from brainkit.utils.system import largest
from brainkit.utils.table import Table, number
from brainkit.utils.text import format_bytes, plural


def report(folder: Path, clock: PhaseClock, log: RunLog) -> None:
    """Complete ``run.json`` with what the run took, and show the final tables.

    Parameters
    ----------
    folder : Path
        A finished run.
    clock : PhaseClock
        Its phases, the maps included.
    log : RunLog
        Shows the tables, and keeps them as plain text.
    """
    summary = read_json(folder / "run.json")
    # A run that was stopped before its maps has the phases before them already.
    summary["seconds"] = {**summary.get("seconds", {}), **clock.seconds}
    summary["memory"] = {**largest(list(clock.memory.values())), "cuda": cuda_peak(), "phases": clock.memory}
    if rate := _training_rate(folder / "metrics.csv", summary):
        summary["training"]["images_per_second"] = rate
    write_json(folder / "run.json", json_ready(summary))
    log.show(score_table(summary["scores"]), work_table(summary))


def work_table(summary: dict[str, Any]) -> Table:
    """Seconds, images per second and peak memory of each phase, and how the work was done."""
    rates = {phase: (summary.get(phase) or {}).get("images_per_second") for phase in ("tokens", "training")}
    memory, seconds = summary["memory"], summary.get("seconds", {})
    rows = [_phase_row(phase, seconds[phase], rates.get(phase), memory["phases"].get(phase, {})) for phase in seconds]
    has_total = len(rows) > 1
    if has_total:
        rows.append(_phase_row("all", sum(seconds.values()), None, memory))
    return Table(
        title="time and memory",
        header=("phase", "seconds", "images/s", "peak memory", "without mapped files"),
        rows=tuple(rows),
        notes=tuple(_work_notes(summary)),
        bold=-1 if has_total else None,
    )


def cuda_peak() -> int | None:
    """The most bytes that torch has allocated on the GPU since its counter was reset; None if it has used no GPU."""
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated()) or None


def _phase_row(phase: str, seconds: float, rate: float | None, peak: dict[str, int | None]) -> tuple[str, ...]:
    memory = (peak.get(kind) for kind in ("resident", "anonymous"))
    return (
        phase,
        f"{seconds:.1f}",
        number(rate, ".0f" if (rate or 0) >= 100 else ".1f"),
        *("-" if count is None else format_bytes(count) for count in memory),
    )


def _work_notes(summary: dict[str, Any]) -> list[str]:
    notes = []
    if tokens := summary.get("tokens"):
        cached = "" if tokens["images_per_second"] else ", all in the cache already"
        notes.append(
            f"tokens: {format_bytes(tokens['bytes'])} on disk for {plural(tokens['images'], 'image')}{cached}; "
            f"while training: {tokens['residency']}"
        )
    if training := summary.get("training"):
        threads = f" ({plural(training['threads'], 'thread')})" if "threads" in training else ""  # not in older runs
        notes.append(
            f"computed on {training['device']}{threads}, operator {training['backend']}, "
            f"products in {training['precision']}"
        )
    if summary["memory"]["cuda"]:
        notes.append(f"GPU memory: {format_bytes(summary['memory']['cuda'])} allocated at most")
    return notes


def _training_rate(metrics: Path, summary: dict[str, Any]) -> float | None:
    """Training images per second: from the median epoch, validation included, so that a resumed run counts alike."""
    if not metrics.is_file() or "training" not in summary:
        return None
    with metrics.open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    typical = statistics.median(seconds) if seconds else 0.0
    return round(summary["split"]["train"] / typical, 1) if typical > 0 else None
