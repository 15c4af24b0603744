"""Maps of the method that are not among those of every run: the weight of each layer, clusters of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainkit.maps.brain_map import BrainMap, Categorical, Continuous
from brainkit.maps.colours import position_palette
from brainkit.maps.definitions import SKILL
from brainkit.maps.limits import beyond, robust_top, round_up
from brainkit.maps.reliability import Reliability, fields
from brainkit.metrics.channel_clusters import ChannelClusters
from brainkit.utils.text import plural


def weight_maps(
    layers: Sequence[str], layer_weights: np.ndarray, reliability: Reliability | None = None, note: str | None = None
) -> tuple[BrainMap, ...]:
    """The weight of each layer, with shared limits: maps ``weight-LAYER``.

    Parameters
    ----------
    layers : sequence of L names, shallow first
    layer_weights : array of shape (V, L)
        Non-negative, rows sum to 1.
    reliability
        Of the depth.
    note : str, optional
        Such as the gauge.
    """
    weights = np.asarray(layer_weights, np.float64)
    top = min(round_up(robust_top(weights), 0.1), 1.0)
    maps = []
    for layer, values in zip(layers, weights.T, strict=True):
        coding = Continuous(SKILL, 0.0, top, f"weight of {layer}", extend=beyond(values, 0.0, top))
        mean = f"mean {np.nanmean(values):.2f}" if np.isfinite(values).any() else ""
        more = fields(reliability, note)
        maps.append(BrainMap(f"weight-{layer}", f"weight of {layer}", values, coding, summary=mean, **more))
    return tuple(maps)


def cluster_map(clusters: ChannelClusters, reliability: Reliability | None = None) -> BrainMap:
    """Vertices that read the same channels; clusters with similar weights have similar colours and numbers.

    Parameters
    ----------
    clusters : ChannelClusters
    reliability
        Of what is predicted.
    """
    shares = np.full((len(clusters.labels), len(clusters)), np.nan)
    known = clusters.labels >= 0
    shares[known] = np.eye(len(clusters))[clusters.labels[known]]
    names = tuple(str(number + 1) for number in range(len(clusters)))
    coding = Categorical(names, position_palette(clusters.embedding), "cluster")
    sizes = np.bincount(clusters.labels[known], minlength=len(clusters))
    summary = (
        f"{plural(len(clusters), 'cluster')} of {sizes.min():,} to {plural(int(sizes.max()), 'vertex', 'vertices')}"
    )
    detail = "similar colours: similar weights"
    title = "clusters of channels"
    return BrainMap("clusters", title, shares, coding, summary=summary, **fields(reliability, detail))
