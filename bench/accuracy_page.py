"""The page of `bench.accuracy`, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def page(report: dict[str, Any]) -> str:
    """The parts in the report."""
    lines = ["# Accuracy, and whether maps repeat", ""]
    lines += ["Simulated sample subjects (`brainkit sample`), EfficientNet-Lite0; their planted truth is known."]
    for part, write in (("accuracy", _accuracy), ("maps", _maps), ("noise", _noise)):
        if part in report:
            lines += ["", *write(report[part])]
            machine = report[part]["machine"]
            lines += ["", "; ".join(f"{key} {value}" for key, value in machine.items())]
    return "\n".join(lines) + "\n"


def _accuracy(part: dict[str, Any]) -> list[str]:
    seeds = part["seeds"]
    first = next(iter(seeds.values()))
    lines = [
        "## Settings, and ridge regression from the same tokens",
        "",
        f"{part['images']} training images, {part['vertices']} vertices; subjects of seeds {', '.join(seeds)}, on "
        "which no setting was tuned (the seed is also that of split, weights and batches). Medians over vertices with "
        "a noise ceiling above 0.3, on the test images: the mean over subjects, and each subject. `r2/ceiling` is "
        "max(r, 0)^2 over the ceiling, at most 1. Ridge regressions are himalaya's, in kernel form, with "
        "hyperparameters from 5 folds of photographs within the training images, and a vertex's best layer from "
        "validation. They have no maps.",
        "",
        "| | r2/ceiling | r | R2 | r, all vertices | R2, all vertices | steps | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in first:
        rows = [rows[name] for rows in seeds.values() if name in rows]
        cells = [_each(rows, key) for key in ("share", "r", "R2", "r_all", "R2_all")]
        steps = f"{rows[0]['steps']:,}" if "steps" in rows[0] else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {steps} | {_each(rows, 'seconds', '.0f')} |")
    return lines + [
        "",
        "Maps of the same runs compared with the planted truth:",
        "",
        *_table(
            [
                (name, [rows[name] for rows in seeds.values() if name in rows])
                for name in first
                if "steps" in first[name]
            ]
        ),
    ]


def _maps(part: dict[str, Any]) -> list[str]:
    lines = [
        "## Do two trainings give the same maps?",
        "",
        f"Subject {part['subject']}, {part['images']} training images, {part['vertices']} vertices; over vertices with "
        "a noise ceiling above 0.3. Other seed: the same images, other weights and batches. Other half: two random "
        "halves of the training images. Cells have the mean and each of three pairs of trainings; for the planted "
        "truth, of three trainings.",
    ]
    for kind in ("other seed", "other half of the images", "planted truth"):
        rows = [(name, found[kind]) for name, found in part["parametrisations"].items()]
        lines += ["", f"### {kind[0].upper()}{kind[1:]}", "", *_table(rows)]
    lines += [
        "",
        "### The same model with other gains",
        "",
        "Without a fixed gauge, a layer's bottlenecks can be multiplied by a k and its layer weights divided by it. "
        "Here k gives local tokens unit RMS: predictions stay the same, the layer map does not. In the gauge `unit` "
        "there is no such k.",
        "",
        "| | change of predictions, s.d. | change of depth, median | largest | largest k / smallest |",
        "|---|---|---|---|---|",
    ]
    for name, found in part["parametrisations"].items():
        if rows := found.get("same model, other gains"):
            cells = [_each(rows, "predictions_apart", ".0e"), _each(rows, "depth_apart", ".2f")]
            cells += [_each(rows, "depth_apart_most", ".2f"), _each(rows, "gains_largest_to_smallest", ".1f")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _noise(part: dict[str, Any]) -> list[str]:
    seeds = ", ".join(map(str, part["seeds"]))
    lines = [
        "## Settings against overfitting",
        "",
        f"{part['images']} training images, {part['vertices']} vertices, subjects of seeds {seeds}; noise is added so "
        "that all ceilings are multiplied by the given factor. Measures as above, over vertices with a ceiling above "
        "0.3, or above the median if that is lower. All other settings are the defaults.",
    ]
    for share, rows in part["shares"].items():
        ceiling = ", ".join(f"{value:.2f}" for value in rows["ceiling"])
        lines += ["", f"### Ceilings x {share}: median {ceiling}", ""]
        lines += ["| | r2/ceiling | r | R2 | R2, all vertices | best epoch |", "|---|---|---|---|---|---|"]
        names = [name for name in rows if name != "ceiling"]
        for name in names:
            cells = [_each(rows[name], key) for key in ("share", "r", "R2", "R2_all")]
            lines.append(f"| {name} | {' | '.join(cells)} | {_each(rows[name], 'best_epoch', '.0f')} |")
        lines += ["", *_table([(name, rows[name]) for name in names])]
    return lines


def _table(rows: Iterable[tuple[str, list[dict[str, float]]]]) -> list[str]:
    """Agreement of maps."""
    lines = [
        "| | depth r | depth difference, layers | within one layer | location distance | scale r | scale difference |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("depth_r", "depth_apart", "depth_within_one", "location_apart", "scale_r", "scale_apart")
    return lines + [f"| {name} | {' | '.join(_each(found, key) for key in keys)} |" for name, found in rows]


def _each(rows: list[dict[str, float]], key: str, form: str = ".3f") -> str:
    """Each row's number, and their mean if there are several."""
    values = [row[key] for row in rows]
    each = " ".join(format(value, form) for value in values)
    return f"**{format(np.mean(values), form)}** ({each})" if len(values) > 1 else each
