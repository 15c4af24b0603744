"""Brain maps as PNG files: those of an encoder, a response next to its image, an effect size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.errors import UsageError, require
from brainkit.maps import figures
from brainkit.maps.figure import DPI, Flatmap, MapFigure, make_flatmap
from brainkit.metrics.significance import positive_correlation_q
from brainkit.metrics.uncertainty import BASES, MapUncertainty
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import figure_mark

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_maps(
    folder: str | os.PathLike[str],
    *,
    vertices: Vertices,
    rois: RoiTable,
    layers: Sequence[str],
    layer_weights: np.ndarray,
    locations: np.ndarray,
    scale: np.ndarray,
    r: np.ndarray | None = None,
    R2: np.ndarray | None = None,
    noise_ceiling: np.ndarray | None = None,
    title: str = "",
    note: str | None = None,
    layer_note: str | None = None,
    test_images: int | None = None,
    uncertainty: MapUncertainty | None = None,
) -> list[Path]:
    """Draw the maps of a trained encoder on fsaverage's flatmap.

    Parameters
    ----------
    folder : path-like
        Folder of the files; it must exist.
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
        Outlined and named.
    layers : sequence of L names, shallow first
    layer_weights : array of shape (V, L)
        Non-negative, each row summing to 1.
    locations : array of shape (V, 2)
        In [-1, 1], x right, y down.
    scale : array of shape (V,)
        0 local .. 1 global.
    r, R2, noise_ceiling : array of shape (V,), optional
        Test correlation, test R2 and noise ceiling (on r^2, in [0, 1]); NaN where unknown. ``accuracy.png`` needs R2;
        ``explained.png`` needs r and the noise ceiling. Without them the file is not drawn.
    title : str
        Start of each figure's title, for example the subject and the backbone.
    note : str, optional
        Printed on every figure, for example that the subject is simulated.
    layer_note : str, optional
        Printed on the maps of layer and scale, for example their gauge.
    test_images : int, optional
        How many images `r` is over: vertices whose r is not above 0 (at a false discovery rate of 0.05) are then pale
        on every map, since what an encoder reads there means nothing.
    uncertainty : MapUncertainty, optional
        Standard errors: vertices where that of the depth, location or scale is too large are pale on its map, and
        ``depth-se.png`` shows that of the depth.

    Returns
    -------
    list of Path
        The files written: accuracy.png, explained.png, layer.png, location.png, scale.png, depth-se.png.

    Raises
    ------
    UsageError
        If the space is custom or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    count = len(vertices)
    _check_shapes(layer_weights=(layer_weights, (count, len(layers))), locations=(locations, (count, 2)))
    per_vertex = {"scale": scale, "r": r, "R2": R2, "noise_ceiling": noise_ceiling}
    _check_shapes(**{name: (values, (count,)) for name, values in per_vertex.items() if values is not None})
    flatmap = _open_flatmap(vertices, rois)
    predicted = None
    if uncertainty is not None:
        _check_shapes(depth_se=(uncertainty.depth_se, (count,)))
    if r is not None and test_images is not None and test_images > 2:
        predicted = figures.Predicted(positive_correlation_q(r, test_images), test_images)

    def fading(selector: str) -> figures.Fading | None:
        if uncertainty is None:
            return predicted
        return figures.Sure(uncertainty.shares[selector], uncertainty.max_se, predicted)

    def maps() -> Iterator[tuple[str, MapFigure]]:
        if R2 is not None:
            yield "accuracy.png", figures.accuracy_figure(flatmap, R2, title, note, predicted)
        if r is not None and noise_ceiling is not None:
            yield "explained.png", figures.explained_figure(flatmap, r, noise_ceiling, title, note, predicted)
        depth = layers, layer_weights
        yield "layer.png", figures.layer_figure(flatmap, *depth, title, note, layer_note, fading("depth"))
        yield "location.png", figures.location_figure(flatmap, locations, title, note, fading("location"))
        yield "scale.png", figures.scale_figure(flatmap, scale, title, note, layer_note, fading("scale"))
        if uncertainty is not None:
            basis = f"from {uncertainty.runs} {BASES[uncertainty.basis]}"
            se = uncertainty.depth_se
            yield "depth-se.png", figures.depth_error_figure(flatmap, se, basis, title, note, predicted)

    paths = []
    for name, figure in maps():
        if predicted is not None and not predicted.reliable.any():
            figure.message("no vertex is predicted better than chance")
        paths.append(_write(Path(folder) / name, figure))
    return paths


def draw_evaluation(
    folder: str | os.PathLike[str],
    *,
    vertices: Vertices,
    rois: RoiTable,
    r: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    noise_ceiling: np.ndarray,
    images: int,
    title: str = "",
    note: str | None = None,
) -> list[Path]:
    """Draw the maps of an evaluation: correlation, explained share and significance.

    Parameters
    ----------
    folder : path-like
        Folder of the files; it must exist.
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
        Outlined and named.
    r, p, q, noise_ceiling : array of shape (V,)
        See :class:`brainkit.evaluation.evaluation.Evaluation`; NaN where unknown. Vertices with q of 0.05 or more are
        pale; without any q all are drawn alike, and significance is not drawn.
    images : int
        How many images r is over.
    title : str
        Start of each figure's title.
    note : str, optional
        Printed on every figure.

    Returns
    -------
    list of Path
        The files written: correlation.png, explained.png (if there are noise ceilings), significance.png.

    Raises
    ------
    UsageError
        If the space is custom or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    shape = (len(vertices),)
    _check_shapes(r=(r, shape), p=(p, shape), q=(q, shape), noise_ceiling=(noise_ceiling, shape))
    flatmap = _open_flatmap(vertices, rois)
    tested = figures.Predicted(q, images) if np.isfinite(q).any() else None
    drawn = {"correlation": figures.correlation_figure(flatmap, r, title, note, tested)}
    if np.isfinite(noise_ceiling).any():
        drawn["explained"] = figures.explained_figure(flatmap, r, noise_ceiling, title, note, tested)
    if tested is not None:
        drawn["significance"] = figures.significance_figure(flatmap, p, tested, title, note)
    return [_write(Path(folder) / f"{name}.png", figure) for name, figure in drawn.items()]


def draw_response(
    path: str | os.PathLike[str],
    *,
    vertices: Vertices,
    rois: RoiTable,
    response: np.ndarray,
    image: Image,
    title: str,
    note: str | None = None,
    units: str = "",
    limit: float | None = None,
) -> Path:
    """Draw a response on the flatmap next to the image that evokes it.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
    response : array of shape (V,)
        In `units`; NaN where unknown.
    image : PIL.Image
        Shown whole.
    title : str
    note, units : str, optional
    limit : float, optional
        The colours range from -limit to limit; by default the range of 99 % of the vertices. Give the same limit to
        figures that are to be compared.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If the space is custom, a shape does not fit or the limit is not positive.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    _check_shapes(response=(response, (len(vertices),)))
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"limit must be positive, got {limit}")
    flatmap = _open_flatmap(vertices, rois)
    return _write(Path(path), figures.response_figure(flatmap, response, image, title, note, units, limit))


def draw_effect_size(
    path: str | os.PathLike[str],
    *,
    vertices: Vertices,
    rois: RoiTable,
    effect: np.ndarray,
    q: np.ndarray,
    names: tuple[str, str],
    counts: tuple[int, int],
    note: str | None = None,
    max_q: float = figures.MAX_Q,
) -> Path:
    """Draw the effect size of the difference between the responses to two sets of images.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
    effect : array of shape (V,)
        Hedges' g, positive where the response to the first set is larger; NaN where unknown.
    q : array of shape (V,)
        False discovery rate of each vertex.
    names, counts : tuple of two
        Names of the sets and their numbers of images.
    note : str, optional
    max_q : float
        Vertices with a smaller q pass; all others are drawn pale, and the title says how many pass.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If the space is custom or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    _check_shapes(effect=(effect, (len(vertices),)), q=(q, (len(vertices),)))
    flatmap = _open_flatmap(vertices, rois)
    return _write(Path(path), figures.effect_figure(flatmap, effect, q, names, counts, note, max_q))


def draw_difference(
    path: str | os.PathLike[str],
    *,
    vertices: Vertices,
    rois: RoiTable,
    difference: np.ndarray,
    q: np.ndarray,
    names: tuple[str, str],
    images: int,
    note: str | None = None,
) -> Path:
    """Draw by how much one model's correlation with the responses is larger than another's.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    vertices : Vertices
        In an fsaverage space.
    rois : RoiTable
    difference : array of shape (V,)
        r of the first model minus r of the second; NaN where unknown.
    q : array of shape (V,)
        False discovery rate of each vertex; vertices with 0.05 or more are drawn pale.
    names : tuple of two
        The models.
    images : int
        Test images that the correlations are over.
    note : str, optional

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If the space is custom or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    _check_shapes(difference=(difference, (len(vertices),)), q=(q, (len(vertices),)))
    flatmap = _open_flatmap(vertices, rois)
    return _write(Path(path), figures.difference_figure(flatmap, difference, q, names, images, note))


def _check_shapes(**arrays: tuple[np.ndarray, tuple[int, ...]]) -> None:
    for name, (values, shape) in arrays.items():
        if np.shape(values) != shape:
            raise UsageError(f"{name} must have shape {shape}, got {np.shape(values)}")


def _open_flatmap(vertices: Vertices, rois: RoiTable) -> Flatmap:
    if vertices.space == CUSTOM:
        raise UsageError("maps need vertices of an fsaverage space, got custom ones, which have no surface")
    if rois.n_vertices != len(vertices):
        raise UsageError(f"rois must be of the {len(vertices)} vertices drawn, got a table of {rois.n_vertices}")
    require("matplotlib", extra="maps", purpose="drawing brain maps")  # nilearn is checked with the surfaces
    return make_flatmap(vertices, rois)


def _write(path: Path, figure: MapFigure) -> Path:
    from PIL import Image

    picture = Image.fromarray(figure.render())
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=9, dpi=(DPI, DPI), pnginfo=figure_mark())
    return path
