"""The table of a run and its baselines: accuracy with intervals beside cost, as text, JSON, CSV and a figure."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.table import Table, number

SCHEMA = 1
MEASURES = ("explained", "r", "R2")
_ENDS = ("median", "low", "high")


@dataclass(frozen=True)
class Row:
    """One encoding model.

    Attributes
    ----------
    name, title : str
    cpu_seconds : float or None
        To fit it, from tokens or images; None where it was not measured.
    parameters : int
        Numbers that are fitted.
    evaluation : dict
        From :meth:`brainkit.evaluation.evaluation.Evaluation.to_dict`.
    """

    name: str
    title: str
    cpu_seconds: float | None
    parameters: int
    evaluation: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Row:
        """From `to_json`."""
        return cls(**value)

    def summary(self, measure: str, group: str = "all") -> dict[str, Any]:
        """Median, mean, their intervals, and the number of vertices, of a measure in a group of vertices."""
        found: dict[str, Any] = self.evaluation["groups"][group][measure]
        return found

    def describe(self) -> str:
        """A line of progress."""
        measure = "explained" if self.summary("explained")["n"] else "r"
        return f"median {measure} {_with_interval(self.summary(measure))}, {number(self.cpu_seconds, ',.0f')} CPU s"


@dataclass(frozen=True)
class Rows:
    """The run, then its baselines.

    Attributes
    ----------
    folder : Path
        The run.
    rows : list of Row
    provenance : dict
        What the numbers come from.
    agreement : Table or None
        Of depth with banded ridge's, where that was computed now.
    """

    folder: Path
    rows: list[Row]
    provenance: dict[str, Any] = field(repr=False)
    agreement: Table | None = None

    def __repr__(self) -> str:
        return f"Rows({', '.join(row.name for row in self.rows)})"

    def table(self) -> Table:
        """Medians over all vertices, with intervals."""
        first = self.rows[0].evaluation
        cells = [
            (
                row.title,
                *(_with_interval(row.summary(measure)) for measure in MEASURES),
                number(row.cpu_seconds, ",.0f"),
                f"{row.parameters:,}",
            )
            for row in self.rows
        ]
        notes = ["explained: r2 / noise ceiling; medians over vertices on the same test images"]
        if first["method"]:
            notes.append(f"in brackets: {first['level']:.0%} percentile intervals over stimuli")
        else:
            notes.append(f"no intervals: {first['n_groups']} stimuli are too few")
        return Table(
            title=f"the run and its baselines, on {first['n_images']:,} test images",
            header=("model", *MEASURES, "CPU s", "parameters"),
            rows=tuple(cells),
            notes=tuple(notes),
            bold=0,
        )

    def write(self, note: str | None = None) -> None:
        """Write ``baselines.json``, ``baselines.csv`` and ``baselines.png``, on which the note is written."""
        folder = self.folder
        from brainkit.maps.baseline_charts import draw_baselines

        content = {
            "schema": SCHEMA,
            "baselines": [row.to_json() for row in self.rows],
            "provenance": self.provenance,
        }
        write_json(folder / "baselines.json", content)
        with atomic_write(folder / "baselines.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            scores = [f"{measure}_{end}" for measure in MEASURES for end in _ENDS]
            writer.writerow(("name", "title", "cpu_seconds", "parameters", "group", "vertices", *scores))
            for row in self.rows:
                for group in row.evaluation["groups"]:
                    found = [row.summary(measure, group) for measure in MEASURES]
                    values = [summary[end] for summary in found for end in _ENDS]
                    own = (row.name, row.title, row.cpu_seconds, row.parameters)
                    writer.writerow((*own, group, found[-1]["n"], *values))
        measure = "explained" if self.rows[0].summary("explained")["n"] else "r"
        summaries = [(row.title, row.summary(measure)) for row in self.rows]
        draw_baselines(
            folder / "baselines.png",
            [(title, {"value": each["median"], "low": each["low"], "high": each["high"]}) for title, each in summaries],
            measure=measure,
            title=f"{self.provenance['run']} and its baselines",
            detail=f"{self.table().notes[-1]}; {self.rows[0].evaluation['n_images']:,} test images",
            note=note,
        )


def _with_interval(summary: dict[str, Any]) -> str:
    if summary["median"] is None:
        return "-"
    ends = "" if summary["low"] is None else f" [{summary['low']:.3f}, {summary['high']:.3f}]"
    return f"{summary['median']:.3f}{ends}"
