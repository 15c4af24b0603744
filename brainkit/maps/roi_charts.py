"""The charts by ROI of a subject's maps: which layers, and which part of the image the vertices of each read."""

from __future__ import annotations

import numpy as np

from brainkit.maps.brain_map import Categorical, MapSet
from brainkit.maps.chart import Chart
from brainkit.maps.method_charts import coverage_chart, layer_profile_chart
from brainkit.maps.style import DEFAULT, Style
from brainkit.metrics.coverage import image_coverage
from brainkit.metrics.layer_profile import layer_profile


def filled_rois(maps: MapSet) -> dict[str, np.ndarray]:
    """ROIs that have vertices."""
    return {name: members for name, members in maps.rois.items() if len(members)}


def layers_by_roi(maps: MapSet, *, title: str = "", note: str | None = None, style: Style = DEFAULT) -> Chart:
    """Mean layer weights of each ROI; `maps` have the map ``layer``, and ROIs."""
    layer = maps["layer"]
    assert isinstance(layer.coding, Categorical)
    return layer_profile_chart(
        {name: layer_profile(layer.values[members]) for name, members in filled_rois(maps).items()},
        layer.coding.names,
        title=title,
        detail="mean over vertices; lines: 95 % bootstrap intervals over vertices",
        note=note,
        style=style,
    )


def coverage_by_roi(maps: MapSet, *, title: str = "", note: str | None = None, style: Style = DEFAULT) -> Chart:
    """Where each ROI looks in the image; `maps` have the map ``location``, perhaps ``accuracy``, and ROIs."""
    accuracy, detail = np.ones(len(maps.vertices)), "every vertex counts alike"
    if "accuracy" in maps.names:
        accuracy = np.nan_to_num(np.maximum(maps["accuracy"].values, 0))
        detail = "a vertex counts by its R² on test images; below 0, not at all"
    locations, rois = maps["location"].values, filled_rois(maps)
    return coverage_chart(
        {name: image_coverage(locations[members], accuracy[members]) for name, members in rois.items()},
        {name: len(members) for name, members in rois.items()},
        title=title,
        detail=detail,
        note=note,
        style=style,
    )
