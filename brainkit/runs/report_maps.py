"""Sections of a report that show maps: what vertices read, by layer, location and channel, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainkit.errors import BrainkitError, require
from brainkit.maps.brain_map import Categorical
from brainkit.maps.colours import position_palette
from brainkit.maps.method_maps import cluster_map, paled, weight_panels
from brainkit.maps.roi_charts import coverage_by_roi, filled_rois, layers_by_roi
from brainkit.metrics.channel_clusters import ChannelClusters, cluster_channels
from brainkit.page import blocks
from brainkit.page.blocks import Block
from brainkit.runs.folder import load_model
from brainkit.runs.report_figures import CHART, MapPictures, figure_source
from brainkit.runs.report_images import TestImages
from brainkit.runs.uncertainty import uncertainty_table
from brainkit.runs.view import run_page
from brainkit.utils.files import read_json
from brainkit.utils.text import plural

_CLUSTERS = 20
_IMAGES = 4  # of each cluster


def selector_blocks(folder: Path, pictures: MapPictures, cortex: bool) -> list[Block]:
    """Maps and charts of layer, location and scale; and the cortex to turn, if it is wanted and there is one."""
    maps = pictures.maps
    layers = maps["layer"]
    assert isinstance(layers.coding, Categorical)
    shown = pictures.figures("layer")
    if pictures.possible and len(layers.coding.names) > 1:
        weights = [paled(each, maps) for each in weight_panels(layers.coding.names, layers.values)]
        shown.append(blocks.heading("Weight of each layer"))
        shown.append(pictures.grid(weights, "Map of the weight of each layer"))
    if has_rois := bool(filled_rois(maps)):
        shown.append(blocks.heading("Layers by ROI"))
        shown.append(blocks.figure(figure_source(layers_by_roi(maps, style=CHART)), "Mean weight of each layer by ROI"))
    shown += pictures.figures("location")
    if has_rois:
        shown.append(blocks.heading("Coverage of the image by ROI"))
        source, caption = figure_source(coverage_by_roi(maps, style=CHART)), "Density of the locations over the image."
        shown.append(blocks.figure(source, "Coverage of the image by ROI", caption))
    shown += pictures.figures("scale")
    if cortex and pictures.has_cortex:
        shown.append(blocks.page("Turn it", "The cortex, to turn and flatten", run_page(folder, pictures.surface)))
    return shown


def channel_blocks(folder: Path, pictures: MapPictures, images: TestImages | None) -> list[Block]:
    """Clusters of vertices by the channels that they read; with `images`, those that each cluster responds to."""
    try:
        require("torch", extra="train", purpose="reading the run's checkpoint")
        weights = load_model(folder).weight.detach().numpy()
    except BrainkitError as error:
        return [blocks.text(f"Not shown: {str(error).rstrip('.')}.")]
    clusters = cluster_channels(weights, _CLUSTERS)
    shown = [blocks.text("Vertices that read the same channels, whatever their layer and location, are a cluster.")]
    if pictures.possible:
        shown.append(pictures.figure(paled(cluster_map(clusters), pictures.maps)))
    if images is not None:
        shown.append(blocks.heading("What clusters respond to"))
        shown.append(blocks.strips(_strips(clusters, images), _strips_caption(images)))
    return shown


def _strips_caption(images: TestImages) -> str:
    return (
        f"Of {plural(len(images.predictions), 'test image')}, those with the largest mean prediction over the vertices "
        "of a cluster, one of each stimulus; below each, that mean."
    )


def _strips(clusters: ChannelClusters, images: TestImages) -> Iterator[blocks.Strip]:
    from matplotlib.colors import to_hex

    palette = position_palette(clusters.embedding)
    for cluster in range(len(clusters)):
        members = np.flatnonzero(clusters.labels == cluster)
        mean = images.predictions[:, members].mean(axis=1)
        rows = images.best(mean, _IMAGES, one_of_a_stimulus=True)
        yield blocks.Strip(
            title=f"{cluster + 1}",
            detail=plural(len(members), "vertex", "vertices"),
            colour=to_hex(palette[cluster]),
            images=[(images.thumbnail(row), images.names[row], f"{mean[row]:+.2f}") for row in rows],
        )


def uncertainty_blocks(folder: Path, pictures: MapPictures) -> list[Block]:
    """Standard errors of layer, location and scale, if repeats were trained."""
    file = folder / "uncertainty.json"
    if not file.is_file():
        return []
    return [blocks.table(uncertainty_table(read_json(file))), *pictures.figures("depth-se", "location-se", "scale-se")]
