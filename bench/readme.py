"""Writes the README's table of speeds from the files in ``bench/results``: ``python -m bench.readme``."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from bench.report import RESULTS, ROOT

BEGIN, END = "<!-- speed table: begin -->", "<!-- speed table: end -->"


def main() -> None:
    """Replace the text between the two marks."""
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{BEGIN}\n.*?{END}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table()}{END}", text), encoding="utf-8")


def table() -> str:
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
        _row("a whole training step", 1e3 * steps["published"], 1e3 * steps["brainkit, cpu, gauge unit"], "ms")
    )
    sizes, about = step["sizes"], step["machine"]
    caption = (
        f"{sizes['vertices']:,} vertices, {sizes['layers']} layers of {sizes['width']} channels, "
        f"D = {sizes['channels']}, {sizes['grid']}x{sizes['grid']} tokens, {sizes['images']} images, float32, "
        f"{about['threads']} threads of an {about['processor']}, torch {about['torch']}. Each pair was timed in turns "
        "in one process, after checking that results and all gradients agree. `make bench` makes this table on your "
        "machine; details: [operator](bench/results/operator.md), [step](bench/results/step.md)."
    )
    lines += ["", *textwrap.wrap(caption, 118, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def _row(name: str, published: float, ours: float, unit: str) -> str:
    return f"| {name} | {published:,.0f} {unit} | {_short(ours)} {unit} | {published / ours:,.0f}x |"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
