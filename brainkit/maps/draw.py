"""Brain maps as PNG files: accuracy, preferred layer, location, scale, and a response beside its photograph."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.surface import CUSTOM, RoiTable, Vertices
from brainkit.errors import UsageError, require
from brainkit.maps import figures as pages
from brainkit.maps.figure import DPI, Page, make_scene
from brainkit.utils.files import write_beside

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
) -> list[Path]:
    """Draw the maps of a trained encoder on fsaverage's flatmap.

    Parameters
    ----------
    folder : path-like
        Where the files go; it must exist.
    vertices : Vertices
        Of an fsaverage space.
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
        Test correlation, test R2 and noise ceiling (on r^2, in [0, 1]). NaN where there is none. ``accuracy.png``
        needs R2; ``explained.png`` needs r and the noise ceiling. Without them the file is left out.
    title : str
        Put in front of each figure's own title, for example the subject and the backbone.
    note : str, optional
        Printed on every figure, for example that the subject is simulated.
    layer_note : str, optional
        Printed where layer and scale are shown, for example which gauge they are in.

    Returns
    -------
    list of Path
        The files written: accuracy.png, explained.png, layer.png, location.png, scale.png.

    Raises
    ------
    UsageError
        If the space is custom or a shape does not fit.
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    _check_space(vertices)
    count = len(vertices)
    _check_shape("layer_weights", layer_weights, (count, len(layers)))
    _check_shape("locations", locations, (count, 2))
    _check_shape("scale", scale, (count,))
    for name, values in (("r", r), ("R2", R2), ("noise_ceiling", noise_ceiling)):
        if values is not None:
            _check_shape(name, values, (count,))
    _check_rois(rois, count)
    require("matplotlib", extra="maps", purpose="drawing brain maps")  # the surfaces say themselves what they need
    scene = make_scene(vertices, rois)

    def drawn() -> Iterator[tuple[str, Page]]:
        if R2 is not None:
            yield "accuracy.png", pages.accuracy_page(scene, R2, title, note)
        if r is not None and noise_ceiling is not None:
            yield "explained.png", pages.explained_page(scene, r, noise_ceiling, title, note)
        yield "layer.png", pages.layer_page(scene, layers, layer_weights, title, note, layer_note)
        yield "location.png", pages.location_page(scene, locations, title, note)
        yield "scale.png", pages.scale_page(scene, scale, title, note, layer_note)

    written = []
    for name, page in drawn():
        written.append(_write(Path(folder) / name, page))
    return written


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
    """Draw a response on the flatmap beside the photograph that evokes it.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    vertices : Vertices
        Of an fsaverage space.
    rois : RoiTable
    response : array of shape (V,)
        In `units`; NaN where there is none.
    image : PIL.Image
        The photograph, shown whole.
    title : str
    note, units : str, optional
    limit : float, optional
        The colours run from -limit to limit; by default what 99 % of the vertices stay within. Give it to compare
        figures with each other.

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
    _check_space(vertices)
    _check_shape("response", response, (len(vertices),))
    _check_rois(rois, len(vertices))
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"limit must be positive, got {limit}")
    require("matplotlib", extra="maps", purpose="drawing brain maps")  # the surfaces say themselves what they need
    scene = make_scene(vertices, rois)
    return _write(Path(path), pages.response_page(scene, response, image, title, note, units, limit))


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
    max_q: float | None = None,
) -> Path:
    """Draw on the flatmap how much more one set of images drives each vertex than another.

    Parameters
    ----------
    path : path-like
        The PNG file; its folder must exist.
    vertices : Vertices
        Of an fsaverage space.
    rois : RoiTable
    effect : array of shape (V,)
        Hedges' g, positive where the first set drives the vertex more; NaN where there is none.
    q : array of shape (V,)
        False discovery rate of each vertex.
    names, counts : tuple of two
        What the sets are called, and how many images each has.
    note : str, optional
    max_q : float, optional
        Draw only vertices whose q is under it.

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
    _check_space(vertices)
    _check_shape("effect", effect, (len(vertices),))
    _check_shape("q", q, (len(vertices),))
    _check_rois(rois, len(vertices))
    require("matplotlib", extra="maps", purpose="drawing brain maps")  # the surfaces say themselves what they need
    scene = make_scene(vertices, rois)
    return _write(Path(path), pages.effect_page(scene, effect, q, names, counts, note, max_q))


def _write(path: Path, page: Page) -> Path:
    from PIL import Image

    picture = Image.fromarray(page.picture())
    with write_beside(path) as beside:
        picture.save(beside, format="PNG", compress_level=9, dpi=(DPI, DPI))
    return path


def _check_space(vertices: Vertices) -> None:
    if vertices.space == CUSTOM:
        raise UsageError("maps need an fsaverage space; these vertices are custom and lie on no known surface")


def _check_rois(rois: RoiTable, count: int) -> None:
    if rois.n_vertices != count:
        raise UsageError(f"rois must be of the {count} vertices drawn, got a table of {rois.n_vertices}")


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape:
        raise UsageError(f"{name} must have shape {shape}, got {np.shape(values)}")
