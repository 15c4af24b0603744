"""What `brainkit.evaluate` returns: scores with intervals and tests, kept as files and shown as a table."""

from __future__ import annotations

import csv
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from brainkit.cortex.vertices import Vertices
from brainkit.metrics.resampling import LEAST_GROUPS
from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.notebook import DPI, SIZE, card
from brainkit.utils.table import Table, number
from brainkit.utils.text import plural

SCHEMA = 1
SIGNIFICANT = 0.05
MANY_ABOVE = 0.1  # share of vertices above 1.5 times their ceiling from which the ceilings are doubted
_ARRAYS = ("r", "R2", "explained", "explained_raw", "r_low", "r_high", "p", "q", "p_max", "noise_ceiling")


class Summary(TypedDict):
    """One measure over the n vertices of a group that have it: median and mean, each with its interval."""

    median: float
    low: float
    high: float
    mean: float
    mean_low: float
    mean_high: float
    n: int


class Official(TypedDict):
    """The score of the Algonauts 2023 challenge (mean) and the median that papers quote, in percent."""

    mean: float
    median: float
    n: int


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores of predictions on n images; NaN where a number does not exist.

    Attributes
    ----------
    r, R2 : arrays of shape (V,), float64
        Pearson correlation; 1 - residual / total sum of squares.
    explained, explained_raw : arrays of shape (V,)
        max(r, 0)^2 / noise ceiling, clipped at 1 and not; NaN where the ceiling is unknown or below 0.05.
    r_low, r_high : arrays of shape (V,)
        Interval of r over stimulus groups.
    p, q, p_max : arrays of shape (V,)
        Permutation test of r > 0; its false discovery rate (Benjamini-Hochberg); p by the largest r over all vertices.
    noise_ceiling : array of shape (V,)
    groups : dict
        Group of vertices ("all" and the ROIs) -> "r", "R2", "explained" -> `Summary`.
    official : Official
    n_images, n_groups : int
        Images, and groups of images (stimuli).
    method : {"BCa", "percentile", None}
        Of the intervals of r per vertex; those of groups are percentile. None: there are no intervals.
    level : float
    bootstrap, permutations, seed : int
    constant_predictions, constant_responses : int
        Vertices without a correlation for this reason.
    vertices : Vertices, optional
        Where the V are, if it is known.
    """

    r: np.ndarray
    R2: np.ndarray
    explained: np.ndarray
    explained_raw: np.ndarray
    r_low: np.ndarray
    r_high: np.ndarray
    p: np.ndarray
    q: np.ndarray
    p_max: np.ndarray
    noise_ceiling: np.ndarray
    groups: dict[str, dict[str, Summary]]
    official: Official
    n_images: int
    n_groups: int
    method: str | None
    level: float
    bootstrap: int
    permutations: int
    seed: int
    constant_predictions: int
    constant_responses: int
    vertices: Vertices | None = None

    def __repr__(self) -> str:
        vertices, median = plural(len(self.r), "vertex", "vertices"), self.groups["all"]["r"]["median"]
        return f"Evaluation({vertices}, {plural(self.n_images, 'image')}, median r {median:.3f})"

    def _repr_html_(self) -> str:
        """A table, and the map of the correlation where the vertices are known; for notebooks."""
        table = self.table()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in table.notes)
        more = f"<table><tr>{head}</tr>{body}</table>{notes}"
        return card(table.title, {}, None if self.vertices is None else self._picture, more=more)

    def _picture(self) -> Any:
        import brainkit
        from brainkit.maps.catalog import evaluation_maps

        correlation = evaluation_maps(self.r, self.p, self.q, self.noise_ceiling, self.n_images)[0]
        assert self.vertices is not None
        return brainkit.plot(correlation, self.vertices, size=SIZE, dpi=DPI)

    @property
    def ceilings_too_low(self) -> bool:
        """Whether many vertices explain more than 1.5 times their ceiling: then the ceilings are of something else."""
        known = np.isfinite(self.explained_raw)
        above = (self.explained_raw > 1.5) & (self.r_low.clip(min=0) ** 2 > self.noise_ceiling)
        return bool(known.any() and above.sum() > MANY_ABOVE * known.sum())

    def to_dict(self) -> dict[str, Any]:
        """The summaries and counts as JSON holds them: None for NaN, ten significant digits."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in (*_ARRAYS, "groups", "official", "vertices")
        }
        tested = np.isfinite(self.p)
        counts = {
            "vertices": len(self.r),
            "without_r": int(np.isnan(self.r).sum()),
            "without_ceiling": int(np.isnan(self.noise_ceiling).sum()),
            "tested": int(tested.sum()),
            "significant_q": int((self.q[tested] < SIGNIFICANT).sum()),
            "significant_p_max": int((self.p_max[tested] < SIGNIFICANT).sum()),
            "ceilings_too_low": self.ceilings_too_low,
        }
        plain: dict[str, Any] = plain_values(
            {"schema": SCHEMA, **values, **counts, "official": self.official, "groups": self.groups}
        )
        return plain

    def save(
        self,
        folder: str | os.PathLike[str],
        vertices: Vertices | None = None,
        provenance: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Write ``evaluation.json``, ``evaluation.npz`` (the arrays, float32) and ``evaluation.csv`` (the summaries).

        Parameters
        ----------
        folder : path-like
            Created if it does not exist.
        vertices : Vertices, optional
            Stored beside the arrays as ``vertices`` and ``space``.
        provenance : dict, optional
            Stored in the JSON.
        notes : sequence of str
            What a reader of the numbers must know; stored in the JSON, and in a last column of the CSV.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: getattr(self, name).astype(np.float32) for name in _ARRAYS}
        if vertices is not None:
            arrays |= {"vertices": vertices.ids, "space": np.array(vertices.space)}
        with atomic_write(target / "evaluation.npz") as temporary:
            np.savez(temporary, **arrays)
        with atomic_write(target / "evaluation.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            extra = {"note": "; ".join(notes)} if notes else {}
            writer.writerow(("group", "measure", *Summary.__annotations__, *extra))
            for name, measures in plain_values(self.groups).items():
                for measure, row in measures.items():
                    writer.writerow((name, measure, *(row[key] for key in Summary.__annotations__), *extra.values()))
        content = self.to_dict() | ({"notes": list(notes)} if notes else {})
        content |= {} if provenance is None else {"provenance": provenance}
        write_json(target / "evaluation.json", content)

    def table(self) -> Table:
        """Medians with intervals, by group; groups without vertices are left out."""
        rows = []
        for name, measures in self.groups.items():
            if measures["r"]["n"] or measures["R2"]["n"]:
                cells = (_with_interval(measures[key]) for key in ("r", "R2", "explained"))
                rows.append((name, f"{measures['r']['n']:,}", *cells))
        stimuli = "" if self.n_groups == self.n_images else f" of {plural(self.n_groups, 'stimulus', 'stimuli')}"
        return Table(
            title=f"scores on {plural(self.n_images, 'image')}{stimuli} (medians over vertices)",
            header=("group", "vertices", "r", "R2", "explained"),
            rows=tuple(rows),
            notes=tuple(self._notes()),
            bold=0,
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.method:
            notes.append(f"in brackets: {self.level:.0%} percentile intervals over stimuli ({self.bootstrap:,} draws)")
        elif self.bootstrap:
            notes.append(f"no intervals: {self.n_groups} stimuli are too few, {LEAST_GROUPS} are needed")
        tested = int(np.isfinite(self.p).sum())
        if tested:
            by_q, by_max = (int((values < SIGNIFICANT).sum()) for values in (self.q, self.p_max))
            notes.append(
                f"r > 0 at {by_q:,} of {plural(tested, 'vertex', 'vertices')} (q < {SIGNIFICANT:g}), at {by_max:,} "
                f"corrected for all of them (p_max < {SIGNIFICANT:g})"
            )
        elif self.permutations and np.isfinite(self.r).any():
            notes.append("no p values: no two stimuli have the same number of images")
        if self.official["n"]:
            official = f"mean {self.official['mean']:.1f} %, median {self.official['median']:.1f} %"
            notes.append(f"official score: {official} of the noise ceiling")
        if without := int(np.isnan(self.r).sum()):
            notes.append(
                f"without r: {plural(without, 'vertex', 'vertices')} ({self.constant_predictions:,} with constant "
                f"predictions, {self.constant_responses:,} with constant responses)"
            )
        if empty := [name for name, measures in self.groups.items() if not (measures["r"]["n"] or measures["R2"]["n"])]:
            notes.append(f"without scores: {', '.join(empty)}")
        if self.ceilings_too_low:
            notes.append(
                "the noise ceilings are too low: many vertices explain more than 1.5 times theirs; are the ceilings "
                "of these responses, and on r squared?"
            )
        return notes


def _with_interval(row: Summary) -> str:
    if not row["n"]:
        return "-"
    ends = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return number(row["median"], ".3f") + ends


def plain_values(value: Any) -> Any:
    """What JSON holds: None for NaN, ten significant digits."""
    if isinstance(value, dict):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if np.isfinite(value) else None
    return value
