"""What a finished training says last: how good the encoder is, and what it took in time and memory."""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainkit.evaluation.scores import score_lines, write_summary
from brainkit.runs.folder import PhaseClock, RunLog
from brainkit.utils.files import read_json
from brainkit.utils.system import largest
from brainkit.utils.text import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100
Cells = list[list[str]]


def work_facts(
    *, device: str, backend: str, precision: str, tokens: Any, rate: float | None, residency: str
) -> dict[str, Any]:
    """What ``run.json`` says of where and how the work was done.

    Parameters
    ----------
    device, backend, precision : str
        What trained: the device, the operator's implementation there, and what it multiplied.
    tokens : TokenCache
        The tokens trained on.
    rate : float or None
        Images a second through the backbone; None where the tokens were found in the cache.
    residency : str
        Where the tokens lay while training.
    """
    return {
        "tokens": {
            "images": len(tokens),
            "bytes": tokens.nbytes,
            "images_per_second": rate,
            "residency": residency,
        },
        "training": {"device": device, "backend": backend, "precision": precision},
    }


def report(folder: Path, clock: PhaseClock, log: RunLog) -> None:
    """Complete ``run.json`` with what the whole run took, and say the final tables.

    Parameters
    ----------
    folder : Path
        A finished run.
    clock : PhaseClock
        Its phases, the maps included.
    log : RunLog
        Where the tables are said, and kept as plain text.
    """
    summary = read_json(folder / "run.json")
    # Where it was stopped before its maps, those of the phases before are there already.
    summary["seconds"] = {**summary.get("seconds", {}), **clock.laps}
    summary["memory"] = {**largest(list(clock.memory.values())), "cuda": cuda_peak(), "phases": clock.memory}
    if rate := _training_rate(folder / "metrics.csv", summary):
        summary["training"]["images_per_second"] = rate
    write_summary(folder / "run.json", summary)
    log.show(plain_lines(summary), styled(summary) if on_terminal(log.say) else None)


def plain_lines(summary: dict[str, Any]) -> list[str]:
    """The final tables as plain text, at most 100 columns wide."""
    return [*score_lines(summary["scores"]), *_columns(phase_cells(summary)), *fact_lines(summary)]


def styled(summary: dict[str, Any]) -> str:
    """The same for a terminal."""
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=WIDTH, highlight=False)
    first, *rows = score_lines(summary["scores"])
    header, *body = [line for line in rows if not line.strip().startswith("official score")]
    cells = [_split_row(line) for line in (header, *body)]
    console.print(_table(cells, title=first))
    for line in rows:
        if line.strip().startswith("official score"):
            console.print(line, markup=False)
    if len(phases := phase_cells(summary)) > 1:
        console.print(_table(phases, title="time and memory"))
    for line in fact_lines(summary):
        console.print(line, markup=False, soft_wrap=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text).rstrip("\n")


def phase_cells(summary: dict[str, Any]) -> Cells:
    """A table of phases, its header first: seconds, images a second, peak memory."""
    rates = {part: (summary.get(part) or {}).get("images_per_second") for part in ("tokens", "training")}
    peaks = summary["memory"]["phases"]
    cells = [["phase", "seconds", "images/s", "peak memory", "of it anonymous"]]
    for phase, seconds in summary["seconds"].items():
        peak = peaks.get(phase, {})
        cells.append(
            [
                phase,
                f"{seconds:.1f}",
                _number(rates.get(phase), ".0f" if (rates.get(phase) or 0) >= 100 else ".1f"),
                _bytes(peak.get("resident")),
                _bytes(peak.get("anonymous")),
            ]
        )
    if len(cells) > 2:
        memory = summary["memory"]
        total = sum(summary["seconds"].values())
        cells.append(["all", f"{total:.1f}", "-", _bytes(memory["resident"]), _bytes(memory["anonymous"])])
    return cells


def fact_lines(summary: dict[str, Any]) -> list[str]:
    """Where the work was done, and how large the tokens are."""
    lines = []
    if tokens := summary.get("tokens"):
        source = "" if tokens["images_per_second"] else ", found in the cache"
        lines.append(
            f"  tokens: {format_bytes(tokens['bytes'])} on disk for {tokens['images']:,} images{source}; "
            f"while training: {tokens['residency']}"
        )
    if work := summary.get("training"):
        lines.append(f"  computed on {work['device']}, operator {work['backend']}, products in {work['precision']}")
    if summary["memory"]["cuda"]:
        lines.append(f"  GPU memory: {format_bytes(summary['memory']['cuda'])} allocated at most")
    return lines


def cuda_peak() -> int | None:
    """The most that torch has allocated on the GPU since its count was set back; None where it used none."""
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated()) or None


def on_terminal(say: Callable[[str], None]) -> bool:
    """Whether lines end on a terminal: standard output is one, and `say` is print or click's echo."""
    return getattr(say, "__module__", None) in ("builtins", "click.utils") and sys.stdout.isatty()


def _training_rate(metrics: Path, summary: dict[str, Any]) -> float | None:
    """Training images a second: from the median epoch, validation included, so that a resumed run counts alike."""
    if not metrics.is_file() or "training" not in summary:
        return None
    with metrics.open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    typical = statistics.median(seconds) if seconds else 0.0
    return round(summary["split"]["train"] / typical, 1) if typical > 0 else None


def _bytes(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _columns(cells: Cells) -> list[str]:
    if len(cells) < 2:
        return []
    widths = [max(len(row[column]) for row in cells) + 2 for column in range(len(cells[0]))]
    return ["  " + row[0].ljust(widths[0]) + "".join(map(str.rjust, row[1:], widths[1:])) for row in cells]


def _split_row(line: str) -> list[str]:
    """The cells of one of `score_lines`'s rows: four numbers at its end; a region's name may have spaces."""
    return [part.strip() for part in line.rsplit(maxsplit=4)]


def _table(cells: Cells, *, title: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="")
    for column, head in enumerate(cells[0]):
        table.add_column(Text(head), justify="left" if column == 0 else "right", overflow="ellipsis")
    for row in cells[1:]:
        # Names of regions come from files: what looks like markup in them is none.
        table.add_row(*map(Text, row), style="bold" if row[0] == "all" else "")
    return table
