"""The figures of the method itself, of a run or an encoder file: what ROIs and clusters of vertices read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.surface_files import read_surface
from brainkit.encoder_file import locate
from brainkit.errors import UsageError
from brainkit.insilico.token_charts import Row, coloured, picture_rows, spotlit
from brainkit.insilico.token_pictures import (
    channel_pictures,
    mix_layers,
    principal_channels,
    read_tokens,
    response_pictures,
)
from brainkit.maps import draw
from brainkit.maps.brain_map import MapSet
from brainkit.maps.changes import Changes
from brainkit.maps.chart import Chart
from brainkit.maps.colours import position_palette
from brainkit.maps.method_maps import cluster_map, paled, weight_maps
from brainkit.maps.roi_charts import coverage_by_roi, filled_rois, layers_by_roi
from brainkit.maps.style import DEFAULT, Style
from brainkit.metrics.channel_clusters import ChannelClusters, cluster_channels
from brainkit.predict.encoder import Encoder, load
from brainkit.predict.inputs.decode import as_sequence
from brainkit.runs.draw import default_source, map_folders, on_own_surface
from brainkit.utils.files import create_folder
from brainkit.utils.progress import Say
from brainkit.utils.text import nearest_name, plural

_BY_ROI = ("coverage", "layers-by-roi", "top-channels")  # need ROIs
_OF_PHOTOGRAPHS = ("top-channels", "cluster-images")
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
    def rois(self) -> dict[str, np.ndarray]:
        return filled_rois(self.maps)


def draw_method(
    sources: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    images: Any = (),
    clusters: int = 20,
    only: Sequence[str] = (),
    rois: Sequence[str] | None = None,
    surface: str | os.PathLike[str] | None = None,
    style: Style = DEFAULT,
    formats: Sequence[str] = ("png",),
    say: Say = print,
) -> list[Path]:
    """Draw what the vertices read, by layer, location in the image and channel.

    Parameters
    ----------
    sources : sequence of path-like, optional
        At most one: an encoder file, or a run of one subject that has one. By default as `brainkit.runs.draw.draw_all`.
    out : path-like, optional
        Folder of the figures; by default ``method`` in the folder of the maps.
    images : optional
        Photographs for the figures of channels, as :meth:`brainkit.predict.Encoder.predict` takes them: a folder, or
        paths. Some are drawn for ROIs, and for each cluster those that it responds to most.
    clusters : int
        Of channels.
    only : sequence of str
        Names of figures, without the suffix; by default all that can be drawn.
    rois : sequence of str, optional
        ROIs of the charts, which are also outlined; by default all.
    surface : path-like, optional
        For the maps, as `brainkit.runs.draw.draw_all`.
    style : Style
        Charts have its theme, width and dots per inch.
    formats : sequence of {"png", "pdf", "svg"}
    say : callable
        Called with each line of progress.

    Returns
    -------
    list of Path
        ``clusters``, ``weight-LAYER`` (maps); ``coverage``, ``layers-by-roi`` (if there are ROIs); and with images
        ``top-channels`` (ROIs) and ``cluster-images``.

    Raises
    ------
    UsageError
        If there are several sources, the run is of several subjects, or a figure cannot be drawn as asked.
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
    subject = _open(Changes(rois=rois).apply(maps), locate(source), clusters)
    drawn = _maps(subject, surface)
    charts = _charts(subject, list(as_sequence(images)), style, say)
    wanted = _wanted(only, drawn, charts, bool(subject.rois))
    drawn = drawn.only([name for name in drawn.names if name in wanted])
    if surface is not None and drawn.maps:
        style = on_own_surface(style, drawn.surface, say)
    _check_style(style, surface, drawn, [name for name in charts if name in wanted])
    made = {
        name: make() for name, make in charts.items() if name in wanted
    }  # what can fail, before anything is written
    folder = create_folder(folder if out is not None else folder / "method")
    figures = draw.draw_maps(folder, drawn, style=style, formats=formats) if drawn.maps else []
    figures += [chart.write(folder / f"{name}.{kind}") for name, chart in made.items() for kind in formats]
    say(f"{folder}: {', '.join(path.name for path in figures)}")
    return figures


def _open(maps: MapSet, file: Path, clusters: int) -> _Subject:
    encoder = load(file)
    weights = encoder.readout_of(np.arange(len(maps.vertices))).weights
    return _Subject(maps, encoder, weights, cluster_channels(weights, clusters))


def _maps(subject: _Subject, surface: str | os.PathLike[str] | None) -> MapSet:
    """The maps of the method, pale where the run's are; none if the vertices can be drawn nowhere."""
    maps = subject.maps
    if not maps.is_drawable and surface is None:
        return replace(maps, maps=())
    more = (cluster_map(subject.clusters), *weight_maps(subject.layers, subject.layer_weights))
    changes = Changes(surface=None if surface is None else read_surface(surface))
    drawn = changes.apply(replace(maps, maps=tuple(paled(each, maps) for each in more)))
    draw.check_drawable_set(drawn)
    return drawn


def _wanted(only: Sequence[str], drawn: MapSet, charts: Mapping[str, Any], has_rois: bool) -> list[str]:
    """Names of the figures to draw."""
    known = [*drawn.names, *charts]
    for name in only:
        if name in known:
            continue
        if name in _BY_ROI and not has_rois:
            raise UsageError(f"map --method: {name} needs ROIs, and there are none")
        if name in _OF_PHOTOGRAPHS:
            raise UsageError(f"map --method: {name} needs photographs; give some with --images")
        raise UsageError(f"map --method: figure {name!r}: there is none{nearest_name(name, known)}")
    return list(only) or known


def _check_style(style: Style, surface: object, drawn: MapSet, charts: Sequence[str]) -> None:
    """Options that nothing wanted can follow are errors, not silence."""
    if not drawn.maps and (surface is not None or style.view != DEFAULT.view):
        raise UsageError("map --method: a view and a surface are for maps, and only charts are drawn")
    if charts and style.height is not None:
        raise UsageError(f"size: a chart ({charts[0]}) is as high as what it shows; give a width alone")


def _charts(subject: _Subject, images: Sequence[Any], style: Style, say: Say) -> dict[str, Callable[[], Chart]]:
    """How to make each chart that can be made."""
    found: dict[str, Callable[[], Chart]] = {}
    if subject.rois:
        title, note = subject.maps.title, subject.maps.note
        found["coverage"] = lambda: coverage_by_roi(
            subject.maps, title=f"{title}: where ROIs look in the image", note=note, style=style
        )
        found["layers-by-roi"] = lambda: layers_by_roi(
            subject.maps, title=f"{title}: layers that ROIs read", note=note, style=style
        )
    if subject.rois and images:
        found["top-channels"] = lambda: _top_channels(subject, images, style)
    if images:
        found["cluster-images"] = lambda: _cluster_images(subject, images, style, say)
    return found


def _top_channels(subject: _Subject, images: Sequence[Any], style: Style) -> Chart:
    shown = np.unique(np.linspace(0, len(images) - 1, _SHOWN).round().astype(int))
    tokens, photos = read_tokens(subject.encoder, [images[at] for at in shown])
    return picture_rows(
        [Row("photograph", list(photos)), *_roi_rows(subject, tokens, photos)],
        title=f"{subject.maps.title}: strongest channels of ROIs",
        detail="first three principal components of an ROI's readout weights, as red, green and blue",
        note=subject.maps.note,
        style=style,
    )


def _cluster_images(subject: _Subject, images: Sequence[Any], style: Style, say: Say) -> Chart:
    count = plural(len(images), "image")
    say(f"predicting {count}")
    return picture_rows(
        list(_cluster_rows(subject, images)),
        title=f"{subject.maps.title}: what clusters of channels respond to",
        detail=f"of {count}, those with the highest mean response; in light and colour: where it comes from",
        note=subject.maps.note,
        blocks=2 if len(subject.clusters) > 10 else 1,
        style=style,
    )


def _roi_rows(subject: _Subject, tokens: np.ndarray, photos: np.ndarray) -> Iterator[Row]:
    for name, members in subject.rois.items():
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
