"""The figures of the method itself, of a run or an encoder file: what regions and clusters of vertices read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file import locate
from brainkit.errors import UsageError
from brainkit.insilico.token_charts import Row, coloured, draw_rows, spotlit
from brainkit.insilico.token_pictures import (
    channel_pictures,
    mix_layers,
    principal_channels,
    read_tokens,
    response_pictures,
)
from brainkit.maps import draw
from brainkit.maps.brain_map import MapSet
from brainkit.maps.colours import position_palette
from brainkit.maps.method_charts import draw_coverage, draw_layer_profiles
from brainkit.maps.method_maps import cluster_map, weight_maps
from brainkit.maps.style import DEFAULT, Style
from brainkit.metrics.channel_clusters import ChannelClusters, cluster_channels
from brainkit.metrics.coverage import image_coverage
from brainkit.metrics.layer_profile import layer_profile
from brainkit.predict.encoder import Encoder, load
from brainkit.predict.inputs.decode import as_sequence
from brainkit.runs.draw import default_source, map_folders
from brainkit.utils.files import create_folder
from brainkit.utils.progress import Say
from brainkit.utils.text import plural

_CHUNK = 256  # images whose responses are held
_SHOWN = 6  # images in a row of top channels
_BEST = 4  # images in a row of a cluster


@dataclass(frozen=True, eq=False)
class _Subject:
    maps: MapSet
    encoder: Encoder
    weights: np.ndarray  # (V, D)
    clusters: ChannelClusters

    @property
    def layers(self) -> tuple[str, ...]:
        return self.encoder.info.layers

    @property
    def layer_weights(self) -> np.ndarray:
        return self.encoder.info.layer_weights

    @property
    def regions(self) -> dict[str, np.ndarray]:
        return {name: members for name, members in self.maps.rois.items() if len(members)}


def draw_method(
    sources: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    images: Any = (),
    clusters: int = 20,
    style: Style = DEFAULT,
    say: Say = print,
) -> list[Path]:
    """Draw what the vertices read, by layer, place in the image and channel.

    Parameters
    ----------
    sources : sequence of path-like, optional
        At most one: an encoder file, or a run of one subject that has one. By default as `brainkit.runs.draw.draw_all`.
    out : path-like, optional
        Folder of the figures; by default ``method`` in the folder of the maps.
    images : optional
        Photographs for the figures of channels, as :meth:`brainkit.predict.Encoder.predict` takes them: a folder, or
        paths. Some are drawn for regions, and for each cluster those that it responds to most.
    clusters : int
        Of channels.
    style : Style
        Of the maps.
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        ``weight-LAYER.png``, ``clusters.png`` (maps); ``coverage.png``, ``layers-by-region.png`` (if there are
        regions); and with images ``top-channels.png`` (regions) and ``cluster-images.png``.

    Raises
    ------
    UsageError
        If there are several sources, or the run is of several subjects.
    EncoderFileError
        If a run has no encoder file.
    ImageError
        If an image cannot be read.
    """
    if len(sources) > 1:
        raise UsageError(f"map --method: expected one run or encoder file, got {len(sources)}")
    source = Path(sources[0]) if sources else default_source(say)
    found = map_folders(source, out)
    if len(found) > 1:
        folders = ", ".join(str(source / folder.parent.name) for folder in found)
        raise UsageError(f"{source}: is a run of several subjects; name one of {folders}")
    ((folder, (maps,)),) = found.items()
    subject = _open(maps, locate(source), clusters)
    folder = create_folder(folder if out is not None else folder / "method")
    figures = list(_figures(folder, subject, style))
    if len(photographs := list(as_sequence(images))):
        figures += _pictures(folder, subject, photographs, say)
    say(f"{folder}: {', '.join(path.name for path in figures)}")
    return figures


def _open(maps: MapSet, file: Path, clusters: int) -> _Subject:
    encoder = load(file)
    weights = encoder.readout_of(np.arange(len(maps.vertices))).weights
    return _Subject(maps, encoder, weights, cluster_channels(weights, clusters))


def _figures(folder: Path, subject: _Subject, style: Style) -> Iterator[Path]:
    maps, note = subject.maps, subject.maps.note
    layer = maps["layer"]
    if maps.is_drawable:
        more = (cluster_map(subject.clusters), *weight_maps(subject.layers, subject.layer_weights))
        pale = tuple(
            replace(each, reliable=layer.reliable, detail=layer.detail, none_reliable=layer.none_reliable)
            for each in more
        )
        yield from draw.draw_maps(folder, replace(maps, maps=pale), style=style)
    regions = subject.regions
    if not regions:
        return
    accuracy, detail = np.ones(len(maps.vertices)), "every vertex counts alike"
    if "accuracy" in maps.names:
        accuracy = np.nan_to_num(np.maximum(maps["accuracy"].values, 0))
        detail = "a vertex counts by its R² on test images; below 0, not at all"
    locations = maps["location"].values
    yield draw_coverage(
        folder / "coverage.png",
        {name: image_coverage(locations[members], accuracy[members]) for name, members in regions.items()},
        {name: len(members) for name, members in regions.items()},
        title=f"{maps.title}: where regions look in the image",
        detail=detail,
        note=note,
    )
    yield draw_layer_profiles(
        folder / "layers-by-region.png",
        {name: layer_profile(subject.layer_weights[members]) for name, members in regions.items()},
        subject.layers,
        title=f"{maps.title}: layers that regions read",
        detail="mean over vertices; lines: 95 % of means over vertices drawn anew",
        note=note,
    )


def _pictures(folder: Path, subject: _Subject, images: Sequence[Any], say: Say) -> Iterator[Path]:
    title, note = subject.maps.title, subject.maps.note
    if subject.regions:
        shown = np.unique(np.linspace(0, len(images) - 1, _SHOWN).round().astype(int))
        tokens, photos = read_tokens(subject.encoder, [images[at] for at in shown])
        yield draw_rows(
            folder / "top-channels.png",
            [Row("photograph", list(photos)), *_region_rows(subject, tokens, photos)],
            title=f"{title}: strongest channels of regions",
            detail="first three principal components of a region's readout weights, as red, green and blue",
            note=note,
        )
    say(f"predicting {plural(len(images), 'image')}")
    yield draw_rows(
        folder / "cluster-images.png",
        list(_cluster_rows(subject, images)),
        title=f"{title}: what clusters of channels respond to",
        detail=f"of {plural(len(images), 'image')}, those with the highest mean response, and where it comes from",
        note=note,
        blocks=2 if len(subject.clusters) > 10 else 1,
    )


def _region_rows(subject: _Subject, tokens: np.ndarray, photos: np.ndarray) -> Iterator[Row]:
    for name, members in subject.regions.items():
        mixed = mix_layers(tokens, subject.layer_weights[members])
        colours = channel_pictures(mixed, principal_channels(subject.weights[members]))
        tinted = [coloured(photo, each) for photo, each in zip(photos, colours, strict=True)]
        yield Row(name, tinted, plural(len(members), "vertex", "vertices"))


def _cluster_rows(subject: _Subject, images: Sequence[Any]) -> Iterator[Row]:
    clusters = subject.clusters
    palette = position_palette(clusters.embedding)
    groups = [np.flatnonzero(clusters.labels == cluster) for cluster in range(len(clusters))]
    means = np.concatenate(
        [
            np.stack([responses[:, members].mean(axis=1) for members in groups], axis=1)
            for start in range(0, len(images), _CHUNK)
            for responses in [subject.encoder.predict(images[start : start + _CHUNK])]
        ]
    )  # (n, K)
    for cluster, members in enumerate(groups):
        best = np.argsort(-means[:, cluster], kind="stable")[:_BEST]
        tokens, photos = read_tokens(subject.encoder, [images[at] for at in best])
        light = response_pictures(mix_layers(tokens, subject.layer_weights[members]), subject.weights[members])
        lit = [spotlit(photo, each) for photo, each in zip(photos, light, strict=True)]
        yield Row(str(cluster + 1), lit, plural(len(members), "vertex", "vertices"), palette[cluster])
