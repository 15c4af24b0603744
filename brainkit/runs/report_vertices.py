"""The best and the worst vertices of a run, with the images that they respond to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit.errors import BrainkitError
from brainkit.images import Preprocessing, decode, prepare
from brainkit.maps import report_charts
from brainkit.maps.brain_map import MapSet
from brainkit.metrics.scores import explained_share
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.page.document import thumbnail
from brainkit.runs.predictions import align_responses, read_predictions
from brainkit.runs.report_figures import chart_picture
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

_SHOWN = 3  # vertices of each kind
_IMAGES = 6  # in a strip
_LEAST_CEILING = 0.3  # the worst vertices are those that could be predicted, and are not
_THUMBNAIL = 128  # pixels


def vertex_blocks(folder: Path, maps: MapSet, data: str | os.PathLike[str] | None) -> list[Block]:
    """The vertices with the highest r, and those with reliable responses of which the least is explained.

    Parameters
    ----------
    folder : Path
        A finished run.
    maps : MapSet
        Its maps.
    data : path-like, optional
        Where its data are now, if they have moved.

    Returns
    -------
    list of Block
        Without the data or the predictions, a sentence that says what is missing.
    """
    try:
        kept = read_predictions(folder, data=data)
        subject = kept.open_data(data)
        responses = align_responses(subject, maps.vertices)
    except BrainkitError as error:
        return [blocks.text(f"Not shown: {error}.")]
    with np.load(folder / "scores.npz") as file:
        r, ceiling = file["r"], file["noise_ceiling"]
    best = _first(np.where(np.isfinite(r), -r, np.inf))
    reliable = ceiling > _LEAST_CEILING
    share = np.where(reliable & np.isfinite(r), explained_share(r, ceiling), np.inf)
    values: dict[str, Any] = {"r": r, "noise ceiling": ceiling, **_selectors(folder)}
    # Locations are those of what the network sees, which may be a crop of the image.
    preprocessing = Preprocessing.from_json(read_json(folder / "run.json")["backbone"]["preprocessing"])

    def see(row: int) -> Image.Image:
        return Image.fromarray(prepare(decode(subject.images[row]), preprocessing))

    shown: list[Block] = []
    for title, chosen in (("Predicted best", best), (_worst_title(int(reliable.sum())), _first(share))):
        if len(chosen):
            shown.append(blocks.heading(title))
        for vertex in chosen:
            both = kept.predictions[:, vertex], responses[:, vertex]
            shown.append(_vertex(int(vertex), values, maps, *both, see, subject.names))
    return shown


def _worst_title(reliable: int) -> str:
    vertices = plural(reliable, "vertex", "vertices")
    return f"Predicted worst among the {vertices} with a noise ceiling above {_LEAST_CEILING}"


def _first(order: np.ndarray) -> np.ndarray:
    """The vertices that are first in an order, without those at infinity. (at most _SHOWN,)."""
    chosen = np.argsort(order, kind="stable")[:_SHOWN]
    return chosen[np.isfinite(order[chosen])]


def _selectors(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "selectors.npz") as file:
        layers = file["layers"][file["layer_weights"].argmax(axis=1)]
        return {"layer": layers, "location": file["locations"], "scale": file["scale"]}


def _vertex(
    vertex: int,
    values: dict[str, Any],
    maps: MapSet,
    predicted: np.ndarray,
    measured: np.ndarray,
    see: Callable[[int], Image.Image],
    names: Sequence[str],
) -> Block:
    """One vertex: what it reads, its predictions, and the images with the largest predicted and measured responses."""
    x, y = (float(each) for each in values["location"][vertex])
    side = "left" if vertex < maps.vertices.n_left else "right"
    rois = ", ".join(name for name, members in maps.rois.items() if vertex in members) or "none"
    facts = [
        ("hemisphere", side),
        ("ROI", rois),
        ("r", f"{values['r'][vertex]:.2f}"),
        ("noise ceiling", _number(values["noise ceiling"][vertex])),
        ("layer", str(values["layer"][vertex])),
        ("location", f"x {x:+.2f}, y {y:+.2f}"),
        ("scale", f"{values['scale'][vertex]:.2f}"),
    ]
    strips = []
    for title, order in (("Largest predicted responses", predicted), ("Largest measured responses", measured)):
        rows = np.argsort(np.where(np.isfinite(order), -order, np.inf), kind="stable")[:_IMAGES]
        images = [
            {
                "source": thumbnail(see(row), _THUMBNAIL),
                "name": names[row],
                "text": f"{predicted[row]:+.2f} / {measured[row]:+.2f}",
                "x": f"{50 * (1 + x):.1f}",
                "y": f"{50 * (1 + y):.1f}",
            }
            for row in map(int, rows)
        ]
        strips.append({"title": f"{title} (predicted / measured; circle: the vertex's location)", "images": images})
    return {
        "kind": "vertex",
        "title": f"Vertex {int(maps.vertices.ids[vertex])}",
        "facts": facts,
        "chart": chart_picture(report_charts.vertex(measured, predicted)),
        "strips": strips,
    }


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "unknown"
