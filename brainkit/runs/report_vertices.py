"""The best and the worst vertices of a run, with the images that they respond to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.maps import report_charts
from brainkit.maps.brain_map import MapSet
from brainkit.metrics.scores import RELIABLE_CEILING, explained_share
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.runs.report_figures import figure_source
from brainkit.runs.report_images import TestImages
from brainkit.utils.arrays import read_arrays
from brainkit.utils.text import plural

_SHOWN = 3  # vertices of each kind
_IMAGES = 6  # in a strip


def vertex_blocks(folder: Path, maps: MapSet, images: TestImages) -> list[Block]:
    """Of the vertices with reliable responses, those with the highest r, and those of which the least is explained.

    Parameters
    ----------
    folder : Path
        A finished run.
    maps : MapSet
        Its maps.
    images : TestImages
    """
    scores = read_arrays(folder / "scores.npz", ("r", "noise_ceiling"))
    r, ceiling = scores["r"], scores["noise_ceiling"]
    reliable = ceiling > RELIABLE_CEILING
    among = np.isfinite(r) & (reliable if reliable.any() else True)
    best = _first(np.where(among, -r, np.inf))
    share = np.where(reliable & np.isfinite(r), explained_share(r, ceiling), np.inf)
    values: dict[str, Any] = {"r": r, "noise ceiling": ceiling, **_selectors(folder)}
    shown: list[Block] = []
    where = _among(int(reliable.sum()))
    for title, chosen in ((f"Predicted best{where}", best), (f"Predicted worst{where}", _first(share))):
        if len(chosen):
            shown.append(blocks.heading(title))
        shown += [_vertex(int(vertex), values, maps, images) for vertex in chosen]
    return shown


def _among(reliable: int) -> str:
    """Which vertices were compared: all, where noise ceilings are unknown."""
    vertices = plural(reliable, "vertex", "vertices")
    return f" among the {vertices} with a noise ceiling above {RELIABLE_CEILING}" if reliable else ""


def _first(order: np.ndarray) -> np.ndarray:
    """The vertices that are first in an order, without those at infinity. (at most _SHOWN,)."""
    chosen = np.argsort(order, kind="stable")[:_SHOWN]
    return chosen[np.isfinite(order[chosen])]


def _selectors(folder: Path) -> dict[str, np.ndarray]:
    found = read_arrays(folder / "selectors.npz", ("layers", "layer_weights", "locations", "scale"))
    layers = found["layers"][found["layer_weights"].argmax(axis=1)]
    return {"layer": layers, "location": found["locations"], "scale": found["scale"]}


def _vertex(vertex: int, values: dict[str, Any], maps: MapSet, images: TestImages) -> Block:
    """One vertex: what it reads, its predictions, and the images with the largest predicted and measured responses."""
    predicted, measured = images.predictions[:, vertex], images.responses[:, vertex]
    x, y = (float(each) for each in values["location"][vertex])
    rois = ", ".join(name for name, members in maps.rois.items() if vertex in members) or "none"
    facts = [
        _where(vertex, maps),
        ("ROI", rois),
        ("r", f"{values['r'][vertex]:.2f}"),
        ("noise ceiling", _number(values["noise ceiling"][vertex])),
        ("layer", str(values["layer"][vertex])),
        ("location", f"{abs(x):.2f} {'left' if x < 0 else 'right'}, {abs(y):.2f} {'up' if y < 0 else 'down'}"),
        ("scale", f"{values['scale'][vertex]:.2f}"),
    ]
    strips = []
    for title, order in (("Largest predicted responses", predicted), ("Largest measured responses", measured)):
        found = [
            {
                "source": images.thumbnail(row),
                "name": images.names[row],
                "text": f"{predicted[row]:+.2f} / {measured[row]:+.2f}",
                "x": f"{50 * (1 + x):.1f}",
                "y": f"{50 * (1 + y):.1f}",
            }
            for row in images.best(order, _IMAGES)
        ]
        strips.append({"title": f"{title} (predicted / measured; circle: the vertex's location)", "images": found})
    return {
        "kind": "vertex",
        "title": f"{'Vertex' if maps.volume is None else 'Voxel'} {int(maps.vertices.ids[vertex]):,}",
        "facts": facts,
        "chart": figure_source(report_charts.vertex(measured, predicted)),
        "strips": strips,
    }


def _where(vertex: int, maps: MapSet) -> tuple[str, str]:
    """Name and value of a fact: where a vertex or a voxel is."""
    if maps.volume is not None:
        at = maps.volume.affine @ [*maps.volume.voxels[vertex], 1.0]
        return "at (mm)", ", ".join(f"{each:.0f}" for each in at[:3])
    if maps.vertices.space == CUSTOM:
        return "space", CUSTOM
    return "hemisphere", "left" if vertex < maps.vertices.n_left else "right"


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "unknown"
