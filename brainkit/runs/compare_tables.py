"""A comparison of runs as tables: what `brainkit compare` prints, and the rows of the leaderboard."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainkit.evaluation.compare import ALL
from brainkit.runs.compare import LINES, RunComparison, headline_measure
from brainkit.utils.table import Table, number
from brainkit.utils.text import plural

MEASURES = {"explained": "r² / noise ceiling", "r": "r", "R2": "R²"}


def leaderboard(result: RunComparison) -> list[dict[str, Any]]:
    """One row per model, best first: accuracy of all vertices, its difference from the best, slope of depth."""
    rows: list[dict[str, Any]] = []
    for rank, model in enumerate(result.models, 1):
        accuracy = result.accuracy(model.name)[ALL]
        row: dict[str, Any] = {"rank": rank, "model": model.name, "subjects": len(model.runs)}
        row["runs"] = sum(map(len, model.runs.values()))
        for measure, values in accuracy.items():
            row |= {measure: values["mean"], **{f"{measure}_{end}": values[f"mean_{end}"] for end in ("low", "high")}}
        pair = next((each for each in result.pairs if each[0] == model.name), None)
        difference = {} if pair is None else result.pair(pair)[ALL][headline_measure(result.accuracy(model.name))]
        row |= {f"{key}_to_best": difference.get(key) for key in ("difference", "low", "high", "p")}
        hierarchy = result.hierarchy(model.name) or {}
        for line in LINES:
            row |= {f"depth_{line}": hierarchy.get(line, {}).get("value")}
        row["depth_slope_low"], row["depth_slope_high"], row["depth_p"] = (
            hierarchy.get("slope", {}).get(key) for key in ("low", "high", "p")
        )
        rows.append(row)
    return rows


def tables(result: RunComparison) -> list[Table]:
    """The comparison for people."""
    if result.settings.leaderboard:
        return [_leaderboard_table(result), *_hierarchy_table(result)]
    if len(result.models) == 2:
        return [_pair_table(result, result.pairs[0]), *_hierarchy_table(result)]
    return [_accuracy_table(result), _pairs_table(result), *_hierarchy_table(result)]


def _accuracy_table(result: RunComparison) -> Table:
    """Of more than two models: groups of vertices in rows, models in columns."""
    measure = headline_measure(result.accuracy(result.models[0].name))
    summaries = [result.accuracy(model.name) for model in result.models]
    rows = []
    for group in dict.fromkeys(group for summary in summaries for group in summary):
        lines = [summary.get(group, {}).get(measure, {}) for summary in summaries]
        if n := max(line.get("n", 0) for line in lines):
            rows.append((group, str(n), *(number(line.get("mean"), ".3f") for line in lines)))
    header = ("", _over(result), *(model.name for model in result.models))
    return Table(f"{MEASURES[measure]} (means over vertices)", header, tuple(rows), tuple(_images(result)), bold=0)


def _pairs_table(result: RunComparison) -> Table:
    """Of more than two models: each pair's difference over all vertices."""
    measure = headline_measure(result.accuracy(result.models[0].name))
    rows = []
    for a, b in result.pairs:
        line = result.pair((a, b))[ALL][measure]
        cells = [f"{a} - {b}", number(line["difference"], "+.4f"), _interval(line), number(line["p"], ".2g")]
        if result.single is not None:
            found = result.single.pairs[a, b]
            tested = np.isfinite(found.q).any()  # a constant prediction has no r
            cells += [f"{count:,}" if tested else "-" for count in _differing(found.difference["r"], found.q)]
        rows.append(tuple(cells))
    level = f"{100 * result.settings.level:g} %"
    header = ("", "difference", level, "p", *(("better", "worse") if result.single is not None else ()))
    notes = ["by region: comparison.csv"]
    if result.single is not None:
        notes.append("better, worse: vertices where the first has the higher, lower r, q < 0.05")
    return Table(f"differences in {MEASURES[measure]}, all vertices", header, tuple(rows), tuple(notes))


def _pair_table(result: RunComparison, pair: tuple[str, str]) -> Table:
    summary = result.pair(pair)
    a, b = (result.accuracy(name) for name in pair)
    measure = headline_measure(a)
    single = result.single
    rows = []
    for group, measures in summary.items():
        line = measures[measure]
        if line["n"]:
            accuracy = [number(each[group][measure]["mean"], ".3f") for each in (a, b)]
            difference, p, q = number(line["difference"], "+.4f"), number(line["p"], ".2g"), line.get("q")
            cells = (group, str(line["n"]), *accuracy, difference, _interval(line), p)
            rows.append((*cells, number(q, ".2g")) if single is not None else cells)
    header = ("", _over(result), pair[0], pair[1], "difference", f"{100 * result.settings.level:g} %", "p")
    notes = _images(result)
    if single is not None:
        found = single.pairs[pair]
        better, worse = _differing(found.difference["r"], found.q)
        notes.append(
            f"vertices that differ at q < 0.05: {better:,} better for {pair[0]}, {worse:,} better for {pair[1]}, "
            f"of {int(np.isfinite(found.q).sum()):,}"
        )
    title = f"{pair[0]} - {pair[1]}: {MEASURES[measure]} (means over vertices)"
    return Table(title, header + (("q",) if single is not None else ()), tuple(rows), tuple(notes), bold=0)


def _leaderboard_table(result: RunComparison) -> Table:
    measure = headline_measure(result.accuracy(result.models[0].name))
    rows = []
    for row in leaderboard(result):
        line = {"low": row[f"{measure}_low"], "high": row[f"{measure}_high"]}
        to_best = {"low": row["low_to_best"], "high": row["high_to_best"]}
        difference = number(row["difference_to_best"], "+.4f"), _interval(to_best), number(row["p_to_best"], ".2g")
        rows.append(
            (row["model"], str(row["subjects"]), number(row[measure], ".3f"), _interval(line, ".3f"), *difference)
        )
    level = f"{100 * result.settings.level:g} %"
    header = ("", "subjects", MEASURES[measure], level, "to the best", level, "p")
    return Table("leaderboard (means over vertices)", header, tuple(rows), tuple(_images(result)))


def _hierarchy_table(result: RunComparison) -> list[Table]:
    found = {model.name: line for model in result.models if (line := result.hierarchy(model.name)) is not None}
    if not found:
        return []
    rows = []
    for name, line in found.items():
        cells = [name]
        for key in LINES:
            cells += [number(line[key]["value"], ".3f"), _interval(line[key], ".3f")]
        rows.append((*cells, number(line["slope"]["p"], ".2g")))
    order = next(each.order for each in result.subjects.values() if each.order is not None)
    notes = [each.no_spin for each in result.subjects.values() if each.no_spin is not None]
    notes = [f"no p: {notes[0]}"] if notes else []
    if result.single is not None:
        over = {name: line["interval_over"] for name, line in found.items()}
        if None in over.values():
            notes.append("intervals need train --repeats, or several runs of a network (NAME=RUN NAME=RUN2)")
        if seeds := [name for name, what in over.items() if what == "seeds"]:
            notes.append(f"{', '.join(seeds)}: intervals over seeds alone, since its runs had the same training images")
    level = f"{100 * result.settings.level:g} %"
    header = ("", "slope", level, "intercept", level, "r2", level, "p")
    return [Table(f"preferred depth (0 to 1) along {' < '.join(order.names)}", header, tuple(rows), tuple(notes))]


def _interval(line: dict[str, Any], form: str = ".4f") -> str:
    if line.get("low") is None or line.get("high") is None:
        return "-"
    return f"{line['low']:{form}} .. {line['high']:{form}}"


def _over(result: RunComparison) -> str:
    return "vertices" if result.single is not None else "subjects"


def _images(result: RunComparison) -> list[str]:
    """What intervals and p are from."""
    single = result.single
    if single is None:
        return ["random effects over subjects: mean, t interval, t test; comparison.json has those of each subject"]
    found = next(iter(single.pairs.values()))
    stimuli = plural(found.n_groups, "stimulus", "stimuli")
    notes = [f"{plural(found.n_images, 'test image')} of {stimuli}; p: {found.exchanges:,} exchanges of stimuli"]
    if found.exchanges < result.settings.permutations:
        notes.append(f"these are all exchanges of {stimuli}: p cannot be below {2 / (1 + found.exchanges):.3g}")
    if found.method is None:
        notes.append("no intervals: 10 stimuli are needed")
    return notes


def _differing(difference: np.ndarray, q: np.ndarray) -> tuple[int, int]:
    """Vertices whose q is below 0.05: where the first model is better, and where it is worse."""
    passing = q < 0.05
    return int((passing & (difference > 0)).sum()), int((passing & (difference < 0)).sum())
