"""docs/validation.md: tables and text from the results of `bench.validation`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench import validation_figures as figures
from bench.report import settings_digest

BAND = (0.93, 0.97)
MEASURES = {
    "depth_r": "layer: correlation",
    "location_median": "location: median error",
    "scale_r": "scale: correlation",
    "accuracy_share": "r²/ceiling",
}


def write_page(report: dict[str, Any], docs: Path) -> None:
    """Write validation.md and draw the figures of the parts that have results."""
    folder = docs / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    sections = {
        "recovery": _recovery,
        "worlds": _worlds,
        "calibration": _calibration,
        "agreement": _agreement,
        "official": _official,
    }
    lines = _introduction()
    for part, write in sections.items():
        if report.get(part):
            lines += ["", *write(report[part], folder)]
    lines += ["", *_limits(), "", *_made_with(report)]
    (docs / "validation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _introduction() -> list[str]:
    return [
        "# Is it true?",
        "",
        *_text(
            "brainkit's results can be wrong in four ways: maps may be inaccurate, intervals too narrow, tests may "
            "find effects that do not exist, and a number may not be what its name says. This page checks each where "
            "the answer is known. It is made by one script, `python -m bench.validation`, from "
            "[bench/results/validation.json](../bench/results/validation.json); nothing on it is typed by hand."
        ),
    ]


def _recovery(part: dict[str, Any], folder: Path) -> list[str]:
    figures.recovery(part, folder / "recovery.png")
    reference = part["reference"]
    lines = [
        "## Are planted maps found?",
        "",
        *_text(
            "Responses are simulated from tokens of EfficientNet-Lite0 with maps of layer, location and scale that we "
            "draw, and noise. A model with default settings is trained on them, and its maps are compared with those "
            "that we drew, at vertices whose noise ceiling is above 0.3 before it is reduced. One thing is varied at a "
            f"time; the others are {reference['images']:,} images, {reference['vertices']} vertices, and the noise of "
            "the sample subject. Test images are crops of photographs that training never saw. Each point is one draw "
            "of maps and noise; lines are means, bands and the table's brackets go from the lowest to the highest draw."
        ),
        "",
        "![Recovery of planted maps against noise, number of images and number of vertices](validation/recovery.png)",
        "",
        f"| | draws | {' | '.join(MEASURES.values())} |",
        "|---" * (2 + len(MEASURES)) + "|",
    ]
    for cell, rows in cells(part):
        name = f"{cell['images']:,} images, {cell['vertices']:,} vertices, ceilings x {cell['share']:g}"
        lines.append(f"| {name} | {len(rows)} | {' | '.join(_range([r[m] for r in rows]) for m in MEASURES)} |")
    lines += [
        "",
        *_text(
            "The image spans 2, so an error of 0.02 is one hundredth of it. Here the model is right by construction; "
            "in the next section it is not."
            + ("" if part["defaults"] == settings_digest() else " These maps are of earlier default settings.")
        ),
    ]
    return lines


def _worlds(part: dict[str, Any], folder: Path) -> list[str]:
    worlds = part["worlds"]
    figures.worlds(worlds, folder / "worlds.png")
    variants = dict.fromkeys(variant for world in worlds.values() for variant in world)
    lines = [
        "## Where responses are not the model's own",
        "",
        *_text(
            f"These {len(worlds)} simulated subjects (*worlds*) do not follow FactorTopy's formula: early responses "
            "are energies of Gabor filters in Gaussian receptive fields, middle and high ones come from stages of "
            "EfficientNet-Lite2, pooled by Gaussian receptive fields or over the whole image, and each vertex differs "
            "from its neighbours. The model sees tokens of EfficientNet-Lite0. `default` is FactorTopy as it comes, "
            "with [offsets and refit](method.md#training); the ridges are [baselines](baselines.md). Each number is "
            "the median of r²/ceiling over the vertices of an area, averaged over worlds; the difference is paired, "
            "with a 95 % t interval over worlds. In the figure, a point is a world, a bar the mean with its interval."
        ),
        "",
        "![Explained share by area, for FactorTopy and what it is compared with](validation/worlds.png)",
        "",
        f"| | {' | '.join(figures.AREAS)} | default minus this, all vertices | centre error, early | mid | worlds |",
        "|---" * (5 + len(figures.AREAS)) + "|",
    ]
    for variant in variants:
        both = [world for world in worlds.values() if variant in world and "default" in world]
        shares = [np.mean([world[variant]["explained"][area] for world in both]) for area in figures.AREAS]
        apart = [world["default"]["explained"]["all"] - world[variant]["explained"]["all"] for world in both]
        difference = "" if variant == "default" else _mean(apart)
        cells = [*(f"{share:.3f}" for share in shares), difference]
        for area in ("early", "mid"):  # high vertices pool the whole image
            off = [world[variant]["locations"][area] for world in both if "locations" in world[variant]]
            cells.append(f"{np.mean(off):.2f}" if off else "")
        lines.append(f"| {variant} | {' | '.join(cells)} | {len(both)} |")
    lines += [
        "",
        *_text(
            "Centre error is the median distance of a vertex's location from the centre of its planted receptive "
            "field; the image spans 2. Planted centres scatter about a smooth map by 0.05 to 0.15 in early vertices, "
            "and by 0.1 to 0.25 in middle ones, whose fields have an s.d. of 0.15 to 0.45. The default's settings were "
            "chosen on three of these worlds and on a planted subject; "
            "[what was tried](../bench/results/worlds_tried.md) names them, gives the gain in the other worlds, "
            "and an upper bound from the planted receptive fields."
        ),
    ]
    return lines


def _calibration(part: dict[str, Any], folder: Path) -> list[str]:
    figures.coverage(part, folder / "coverage.png")
    figures.p_values(part, folder / "p_values.png")
    rows = [*part["coverage"], *part["large ROI"], *part["slopes"]]
    controls = [row for row in rows if figures.is_control(row)]
    honest = [row for row in rows if row not in controls]
    outside = [row for row in honest if not BAND[0] <= row["rate"] <= BAND[1]]
    rates = [row["rate"] for row in honest]
    lines = [
        "## Do intervals cover?",
        "",
        *_text(
            "Data sets are drawn whose true correlations are known: two models and a hundred vertices in five ROIs; "
            "vertices of an ROI share noise, crops of a photograph share signal and noise, and tails may be heavy. "
            "Each goes through `brainkit.evaluate` and `compare` as a user calls them. A 95 % interval should contain "
            f"the truth in 95 of 100 data sets; here the {len(honest)} kinds of intervals do so in {min(rates):.1%} to "
            f"{max(rates):.1%}. "
            + (
                "All are between 93 and 97 %. "
                if not outside
                else f"Outside 93 to 97 %: {'; '.join(_named(row) for row in outside)}. "
            )
            + "Intervals of slopes from halves of the images are too wide, never too narrow, where seeds add to the "
            "difference. Two controls (crosses) show that the simulation notices a wrong interval: one resamples "
            "images of a photograph as if they were independent, the other resamples vertices, which share noise."
        ),
        "",
        "![Coverage of 95 % intervals by design and measure, and at other levels](validation/coverage.png)",
        "",
    ]
    lines += _coverage_table(rows)
    lines += ["", *_tests(part)]
    return lines


def _coverage_table(rows: list[dict[str, Any]]) -> list[str]:
    designs = list(dict.fromkeys(row["design"] for row in rows))
    lines = [f"| interval of | {' | '.join(designs)} |", "|---" * (1 + len(designs)) + "|"]
    for measure in dict.fromkeys(row["measure"] for row in rows):
        own = {row["design"]: row for row in rows if row["measure"] == measure}
        control = " (control)" if any(map(figures.is_control, own.values())) else ""
        rates = [f"{own[design]['rate']:.3f}" if design in own else "" for design in designs]
        lines.append(f"| {measure}{control} | {' | '.join(rates)} |")
    return lines


def _tests(part: dict[str, Any]) -> list[str]:
    spin = part["spin"]
    level = {name: float(np.mean(np.array(values) <= 0.05)) for name, values in spin["p"].items()}
    lines = [
        "## Do tests find effects that do not exist?",
        "",
        *_text(
            "Without an effect, p must be uniform: points should follow the diagonal, and the grey band holds 95 % of "
            "them. `r > 0` is the permutation test of `evaluate`, `difference` the exchange test "
            "of `compare` for two models that are equally good, at a vertex and for the mean of an ROI. The spin "
            f"test relates smooth random maps to bands around the occipital pole ({spin['vertices']} vertices, "
            f"{spin['rotations']} rotations): p is at most 0.05 in {level['spin test']:.1%} of the maps. If vertices "
            f"are treated as independent, it is in {level['vertices as independent']:.0%}."
        ),
        "",
        "![p values under the null against uniform ones](validation/p_values.png)",
        "",
        "| test | data sets | p ≤ 0.01 | p ≤ 0.05 | p ≤ 0.1 |",
        "|---|---|---|---|---|",
    ]
    for name, values in [*part["null"].items(), *spin["p"].items()]:
        p = np.array(values)
        lines.append(f"| {name} | {len(p)} | {' | '.join(f'{(p <= a).mean():.3f}' for a in (0.01, 0.05, 0.1))} |")
    lines += [
        "",
        *_text(
            "With many vertices, `q` must limit the share of false positives among the vertices below 0.05, and "
            "`p_max` the chance of any false positive, whatever share of the vertices has an effect (true r 0.25)."
        ),
        "",
        "| design | vertices with an effect | error rate | found (limit 0.05) | power |",
        "|---|---|---|---|---|",
    ]
    for row in part["errors"]:
        power = "" if not row["real"] else f"{row['power']:.2f}"
        error = f"{row['rate']:.3f} ({max(row['low'], 0):.3f} to {row['high']:.3f})"
        lines.append(f"| {row['design']} | {row['real']:.0%} | {row['measure']} | {error} | {power} |")
    return lines


def _agreement(part: dict[str, Any], folder: Path) -> list[str]:
    lines = [
        "## Are the numbers what their names say?",
        "",
        *_text(
            "Every metric is compared with another library's on the same random data: 200 images, 50 vertices, "
            "responses with a mean of 100. The script stops if a difference exceeds its tolerance."
        ),
        "",
        "| metric | compared with | largest difference | |",
        "|---|---|---|---|",
    ]
    for row in part["rows"]:
        difference = f"{row['difference']:.1e}" if row["difference"] else "0"
        lines.append(f"| {row['metric']} | {row['other']} | {difference} | {row['note']} |")
    return lines


def _official(part: dict[str, Any], folder: Path) -> list[str]:
    lines = [
        "## The official score, by hand",
        "",
        *_text(
            "Algonauts 2023: r below 0 counts as 0; 100 r² / ceiling, at most 100; the mean over the vertices that "
            "have a ceiling above 0. A prediction that is constant has no r and counts as 0."
        ),
        "",
        "| r | noise ceiling | counts |",
        "|---|---|---|",
    ]
    for row in part["vertices"]:
        cells_ = ["none" if row[key] is None else f"{row[key]:g}" for key in ("r", "noise ceiling")]
        counts = "left out" if row["counts"] is None else f"{row['counts']:.1f}"
        lines.append(f"| {' | '.join(cells_)} | {counts} |")
    lines += [
        "",
        *_text(
            f"`official_score` gives {part['mean']:.1f}, the mean, which is the official score, and "
            f"{part['median']:.1f}, the median, which papers often quote under the same name, over {part['n']} "
            "vertices."
        ),
    ]
    return lines


def _limits() -> list[str]:
    return [
        "## What this does not show",
        "",
        *_text(
            "- Simulated responses are not a brain. Recovery shows that training finds the maps if the "
            "[formula](method.md#model) is right."
        ),
        *_text(
            "- Noise is simulated as independent between vertices; that of fMRI is smooth. Shrinking weights towards "
            "those of neighbours cannot remove noise that they share, so the refit does it only if validation images "
            "are predicted better then ([refit](method.md#training))."
        ),
        *_text(
            "- Intervals are about other stimuli of the same kind, shown to the same subject. They say nothing about "
            "other subjects; for these, `compare` tests over subjects."
        ),
        *_text(
            "- With fewer than 10 stimuli there is no interval; with 10 to 30 only one design was simulated, "
            "and data with heavier tails than Student's t with 5 degrees of freedom were not tried."
        ),
        *_text(
            "- The spin test assumes that a map could lie anywhere on the sphere. Maps in which smoothness or variance "
            "differ between areas are not of this kind."
        ),
    ]


def _made_with(report: dict[str, Any]) -> list[str]:
    costs = ", ".join(f"{part} {found['CPU seconds']:,} s" for part, found in report.items() if "CPU seconds" in found)
    made = [found["machine"] for found in report.values() if "machine" in found]
    if not made:
        return []
    one = made[0]
    versions = f"brainkit {one['brainkit']} (commit {one['commit']}), torch {one['torch']}, numpy {one['numpy']}"
    return _text(f"CPU time: {costs}; one thread of an {one['processor']}, python {one['python']}, {versions}.")


def cells(part: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The settings of all trainings and the rows of each, by what is varied."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in part["rows"]:
        found.setdefault((row["images"], row["vertices"], row["share"]), []).append(row)
    order = sorted(found, key=lambda key: (key[1], -key[2], key[0]))
    return [(dict(zip(("images", "vertices", "share"), key, strict=True)), found[key]) for key in order]


def _mean(values: Iterable[float]) -> str:
    numbers = np.array(list(values))
    if len(numbers) < 2:
        return f"{numbers[0]:.3f}"
    low, high = figures.t_interval(numbers)
    return f"{numbers.mean():.3f} ({low:.3f} to {high:.3f})"


def _range(values: Iterable[float]) -> str:
    numbers = np.array(list(values))
    return f"{numbers.mean():.3f} ({numbers.min():.3f} to {numbers.max():.3f})"


def _named(row: dict[str, Any]) -> str:
    return f"{row['measure']}, {row['design']} ({row['rate']:.1%})"


def _text(text: str) -> list[str]:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.wrap(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
