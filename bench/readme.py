"""Writes the README's tables of accuracy and speed from ``bench/results``: ``python -m bench.readme``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.recovery import table as recovery_table
from bench.report import RESULTS, ROOT

ROWS = {
    "depth_r": "layer: correlation of the expected depth",
    "depth_within_one": "layer: share of vertices within one layer",
    "location_median": "location: median error, the image spanning -1 to 1",
    "scale_r": "scale: correlation",
    "accuracy_share": "accuracy: median r² over noise ceiling",
}


def main() -> None:
    """Write all parts of the README."""
    rewrite(ROOT / "README.md", PARTS)


def rewrite(page: Path, parts: Mapping[str, Callable[[], str]]) -> None:
    """Replace the text between the marks of each part."""
    text = page.read_text(encoding="utf-8")
    for name, write in parts.items():
        begin, end = marks(name)
        before, _, rest = text.partition(f"{begin}\n")
        text = f"{before}{begin}\n{write()}{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")


def marks(name: str) -> tuple[str, str]:
    """The comments before and after a part."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def recovery() -> str:
    """The table of ``recovery.json``."""
    runs = _read("recovery")["runs"]
    caption = (
        f"Default settings on the subjects of seeds {min(runs)} to {max(runs)}, the interval over subjects; settings "
        "were chosen on those of seeds 0 and 1 and on [other simulations](bench/results/worlds_tried.md). "
        "`python -m bench.recovery` makes this table ([result](bench/results/recovery.md), with hardware and "
        "versions). [docs/validation.md](docs/validation.md) shows how recovery depends on noise, images and "
        "vertices, and that intervals and p values hold what they say."
    )
    return recovery_table(runs, ROWS) + "\n" + wrapped(caption)


def comparison() -> str:
    """One sentence each on accuracy and on repeated maps, from ``accuracy.json``."""
    report = _read("accuracy")
    by_seed = report["accuracy"]["seeds"]
    share, seconds = ({} for _ in range(2))
    for name in next(iter(by_seed.values())):
        rows = [rows[name] for rows in by_seed.values() if name in rows]
        if len(rows) == len(by_seed):
            share[name], seconds[name] = (float(np.mean([row[key] for row in rows])) for key in ("share", "seconds"))
    ridges = {name: value for name, value in share.items() if "ridge" in name}
    ratio = seconds["published settings"] / seconds["default settings"]
    apart = {
        name: float(np.mean([pair["depth_apart"] for pair in pairs["other seed"]]))
        for name, pairs in report["maps"]["parametrisations"].items()
    }
    planted = wrapped(
        f"On {len(by_seed)} such subjects the default settings explain {share['default settings']:.2f} of the noise "
        f"ceiling, the published ones {share['published settings']:.2f} in {ratio:.1f} times the time, and the best of "
        f"himalaya's ridge regressions on the same tokens {max(ridges.values()):.2f}; note that the responses were "
        "simulated with this model's own formula, which gives it an advantage over ridge regression. Two runs with "
        f"different seeds agree on the layer within {apart['default settings (gauge unit)']:.2f} layers, and within "
        f"{apart['default settings, gauge published']:.2f} if the gains are left free: see "
        "[accuracy](bench/results/accuracy.md), also for noisy data."
    )
    return planted + _worlds()


def _worlds() -> str:
    """A sentence on responses that are not the model's own, from ``worlds.json``."""
    from bench.worlds import paired

    worlds = _read("worlds")["worlds"]
    share = {
        name: float(np.mean([world[name]["explained"]["all"] for world in worlds.values()]))
        for name in next(iter(worlds.values()))
    }
    best = max((name for name in share if "ridge" in name), key=lambda name: share[name])
    ahead = {name: paired(worlds, "default", name, "explained", "all") for name in (best, "no topography")}

    def by(name: str) -> str:
        found = ahead[name]
        return f"{found['difference']:.3f}, {found['low']:.3f} to {found['high']:.3f}"

    return "\n" + wrapped(
        f"In {len(worlds)} simulations that are not of this model's making (Gabor energies and another network, each "
        f"vertex unlike its neighbours) it explains {share['default']:.2f} of the noise ceiling, the best ridge "
        f"regression {share[best]:.2f} (difference {by(best)}), and the same model whose vertices do not share a map "
        f"{share['no topography']:.2f} (difference {by('no topography')}); 95 % intervals over simulations. See "
        "[validation](docs/validation.md#where-responses-are-not-the-models-own)."
    )


def speed() -> str:
    """The published formulation and brainkit, from ``operator.json`` and ``step.json``."""
    operator, step = (_read(name) for name in ("operator", "step"))
    rows, memory = operator["headline"]["implementations"], operator["extra MB"]
    published, ours = rows["published"], rows["cpu"]
    steps = {name: row["seconds"] for name, row in step["steps"].items()}
    lines = ["| | as published | brainkit | |", "|---|---|---|---|"]
    for name, what in (("operator, forward", "forward"), ("operator, forward and backward", "both")):
        lines.append(_row(name, 1e3 * published[what], 1e3 * ours[what], "ms"))
    lines.append(
        _row("the same, memory beyond inputs and results", memory["published"]["both"], memory["cpu"]["both"], "MB")
    )
    lines.append(
        _row("a whole training step", 1e3 * steps["published"], 1e3 * steps["brainkit, cpu, gauge unit, offsets"], "ms")
    )
    sizes, about = step["sizes"], step["machine"]
    caption = (
        f"{sizes['vertices']:,} vertices, {sizes['layers']} layers of {sizes['width']} channels, "
        f"D = {sizes['channels']}, {sizes['grid']}x{sizes['grid']} tokens, {sizes['images']} images, float32, "
        f"{about['threads']} threads of an {about['processor']}, torch {about['torch']}. Each pair was timed in turns "
        "in one process, after checking that results and all gradients agree. `make bench` makes this table on your "
        "machine; details: [operator](bench/results/operator.md), [step](bench/results/step.md)."
    )
    return "\n".join(lines) + "\n\n" + wrapped(caption)


def _row(name: str, published: float, ours: float, unit: str) -> str:
    return f"| {name} | {published:,.0f} {unit} | {_short(ours)} {unit} | {published / ours:,.0f}x |"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def wrapped(text: str) -> str:
    """A paragraph in lines."""
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)) + "\n"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


PARTS = {"recovery table": recovery, "comparison": comparison, "speed table": speed}

if __name__ == "__main__":
    main()
