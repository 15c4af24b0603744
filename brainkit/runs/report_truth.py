"""Section of a report on a simulated subject: what was planted beside what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.evaluation.recovery import read_truth, recovery_table
from brainkit.maps import definitions, report_charts
from brainkit.metrics.scores import RELIABLE_CEILING
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.runs.report_figures import MapPictures, figure_source
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import read_json
from brainkit.utils.text import plural


def truth_blocks(
    folder: Path, summary: dict[str, Any], pictures: MapPictures, data: str | os.PathLike[str] | None
) -> list[Block]:
    """Of a simulated subject: the maps that were planted beside those that were found."""
    truth_file = Path(data or summary["data"]["path"] or "") / "truth.npz"
    if not (folder / "recovery.json").is_file() or not truth_file.is_file():
        return []
    recovery = read_json(folder / "recovery.json")
    truth = read_truth(truth_file)
    found = read_arrays(folder / "selectors.npz", ("layer_weights", "locations", "scale", "vertices"))
    good = read_arrays(folder / "scores.npz", ("noise_ceiling",))["noise_ceiling"] > RELIABLE_CEILING
    order = np.searchsorted(truth["vertices"], found["vertices"])
    steps = np.arange(truth["layer_weights"].shape[1])
    pairs = {}
    if recovery["left_out"] is None:
        depths = (truth["layer_weights"][order] @ steps)[good], (found["layer_weights"] @ steps)[good]
        pairs["depth (layers)"] = (*depths, 0.0, float(steps[-1]))
    for axis, label in enumerate(("location, x", "location, y")):
        pairs[label] = truth["locations"][order, axis][good], found["locations"][good, axis], -1.0, 1.0
    pairs["scale"] = truth["scale"][order][good], found["scale"][good], 0.0, 1.0
    detail = f"{plural(int(good.sum()), 'vertex', 'vertices')} with a noise ceiling above {RELIABLE_CEILING}"
    shown = [
        blocks.text("This subject is simulated: its responses come from maps that were drawn, so the truth is known."),
        blocks.figure(
            figure_source(report_charts.recovery(pairs, detail)),
            "Found against planted selectors",
            "Each point is a vertex; on the line, the value that was planted was found.",
        ),
        blocks.table(recovery_table(recovery)),
    ]
    planted = {name: truth[name][order] for name in ("layer_weights", "locations", "scale")}
    return shown + _planted_beside_found(planted, pictures, recovery["left_out"] is None)


def _planted_beside_found(planted: Mapping[str, np.ndarray], pictures: MapPictures, same_layers: bool) -> list[Block]:
    maps, shown = pictures.maps, []
    planted_pictures = replace(pictures, maps=replace(maps, title="planted"))
    for name in ["layer"] * same_layers + ["location", "scale"]:
        if not pictures.possible:
            break
        found = maps[name]
        if name == "layer":
            truth = definitions.layer(found.coding.names, planted["layer_weights"])  # type: ignore[union-attr]
        elif name == "location":
            truth = definitions.location(planted["locations"])
        else:
            truth = definitions.scale(planted["scale"])
        planted_side = "planted", planted_pictures.source(truth, small=True)
        found_side = "found", pictures.source(found, small=True)
        shown.append(blocks.pair(planted_side, found_side, f"{found.title.capitalize()}."))
    return shown
