"""`brainkit.plot`: any values on the cortex, as a matplotlib figure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface_files import read_surface
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import UsageError, require
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, Location, MapSet
from brainkit.maps.changes import Changes
from brainkit.maps.limits import same_limits
from brainkit.maps.style import FORMATS, Style, read_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brainkit.api import Run
    from brainkit.encoder_file import EncoderInfo
    from brainkit.predict import Encoder

    On: TypeAlias = Vertices | Encoder | EncoderInfo | Run | MapSet | str | os.PathLike[str]

Kind = Literal["continuous", "categorical", "location"]


def plot(
    values: npt.ArrayLike | str | BrainMap,
    on: On,
    *,
    view: str = "flat",
    kind: Kind = "continuous",
    title: str | Sequence[str] = "",
    label: str = "",
    labels: Sequence[str] = (),
    rois: str | Iterable[str] | Mapping[str, np.ndarray] | None = None,
    surface: str | os.PathLike[str] | CorticalSurface | None = None,
    cmap: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    shading: Literal["interpolated", "flat"] = "interpolated",
    smoothing: int = 0,
    theme: str = "light",
    size: float | str | tuple[float, float] | None = None,
    dpi: int | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw values on the cortex.

    The figure shows itself in a notebook; ``figure.savefig("map.pdf")`` writes it. pyplot is not used.

    Parameters
    ----------
    values : array, str or BrainMap
        ``continuous``: shape (V,), or (n, V) for a grid of n maps with the same limits. ``categorical``: class numbers
        0 .. c-1 or names, shape (V,); or shares of the classes, shape (V, c), of which the largest is drawn.
        ``location``: x and y in [-1, 1], shape (V, 2). NaN where unknown. A name is that of a map of `on`:
        ``"layer"``, ``"accuracy"``.
    on : Vertices, Encoder, Run or path-like
        Whose vertices the V values are: an encoder or a run (with its regions), the path of one, some `Vertices`, or
        the name of a space (``"fsaverage5"``) for all its vertices, left before right.
    view : str
        A shape of the cortex: ``flat``, ``inflated``, ``pial``, ``white`` or ``sphere``; but for a flatmap also angles
        and hemispheres: ``"inflated-lateral-medial"``, ``"pial-ventral-left"``.
    kind : {"continuous", "categorical", "location"}
    title : str, or n of them for a grid
    label : str
        Of the colour bar or the legend, with the unit.
    labels : sequence of str
        Names of the classes.
    rois : str, names or mapping of str to positions, optional
        Regions that are outlined: by default all of `on`; names of some; or others, as positions among the V vertices.
    surface : path-like or CorticalSurface, optional
        A subject's own: a folder of FreeSurfer's or GIFTI files. Voxels are projected on it; without one, they are
        drawn as three projections of the volume.
    cmap : str, optional
        A colour map of matplotlib, by name. By default one that is even in lightness, diverging if there are negative
        values.
    vmin, vmax : float, optional
        Limits of the colours; by default round numbers that cover 99 % of the vertices.
    shading : {"interpolated", "flat"}
        Values between vertices: interpolated, or one colour for each vertex.
    smoothing : int
        How often values are averaged over neighbouring vertices; by default never.
    theme : {"light", "dark", "transparent", "transparent-dark"}
    size : float, str or (float, float), optional
        Width of the figure in inches, also with its height, or ``"single"``, ``"onehalf"``, ``"double"`` for the
        width of a journal's columns.
    dpi : int, optional
    colorbar : bool
        With `ax`: whether to draw a colour bar or legend beside it.
    ax : matplotlib.axes.Axes, optional
        Draw into these axes instead of a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        If a shape does not fit, or a name is unknown.
    MissingDependency
        If matplotlib or nilearn is not installed.

    Examples
    --------
    >>> brainkit.plot(encoder.predict("photo.jpg"), encoder)  # doctest: +SKIP
    >>> brainkit.plot("layer", run, size="double").savefig("layer.pdf")  # doctest: +SKIP
    """
    require("matplotlib", extra="maps", purpose="drawing brain maps")
    from brainkit.maps.draw import check_drawable_set
    from brainkit.maps.figure import MapFigure
    from brainkit.maps.grid import MapGrid, draw_in_axes

    width, height = _inches(size)
    style = Style(theme, width, height, dpi, view, shading, smoothing)
    maps = _map_set(on)
    if isinstance(values, BrainMap):
        drawn = [values]
    elif isinstance(values, str):
        drawn = [maps[values]]
    else:
        drawn = _brain_maps(_array(values), len(maps.vertices), kind, title, label, labels)
    if isinstance(title, str) and title and len(drawn) == 1:
        drawn = [replace(drawn[0], title=title)]
    own = surface if surface is None or isinstance(surface, CorticalSurface) else read_surface(surface)
    changes = Changes(cmap=cmap, vmin=vmin, vmax=vmax, surface=own)
    chosen = replace(maps, maps=tuple(drawn), rois=_regions(maps.rois, rois))
    maps = changes.apply(chosen)
    check_drawable_set(maps)
    if ax is not None:
        if len(maps.maps) != 1:
            raise UsageError(f"ax: takes one map, got {len(maps.maps)}")
        draw_in_axes(ax, maps, maps.maps[0], style, colorbar=colorbar)
        figure: Any = ax.get_figure()
        return figure
    dots = dpi or FORMATS["png"]
    if len(maps.maps) == 1:
        titled = maps if isinstance(values, str) else replace(maps, title="")
        return MapFigure(titled, maps.maps[0], style, dots).figure
    return MapGrid(maps, style, dots, title if isinstance(title, str) else "").figure


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        raise UsageError("values: expected an array, got sequences of different lengths") from None


def _inches(size: float | str | tuple[float, float] | None) -> tuple[float | None, float | None]:
    if size is None:
        return None, None
    if isinstance(size, str):
        return read_size(size)
    if isinstance(size, int | float):
        return float(size), None
    if len(size) != 2:
        raise UsageError(f"size: expected a width, or (width, height), in inches, got {size!r}")
    return float(size[0]), float(size[1])


def _map_set(on: Any) -> MapSet:
    """The vertices to draw on, with the maps they come with."""
    if isinstance(on, MapSet):
        return on
    if isinstance(on, str) and on in SPACES:
        on = Vertices(on, np.arange(2 * SPACES[on], dtype=np.int32))
    if isinstance(on, Vertices):
        return MapSet("", on, RoiTable({}, len(on)), ())
    from brainkit.encoder_file import EncoderInfo
    from brainkit.maps.catalog import encoder_maps
    from brainkit.predict.encoder import Encoder
    from brainkit.runs.map_sets import open_map_sets

    if isinstance(on, Encoder):
        on = on.info
    if isinstance(on, EncoderInfo):
        return encoder_maps(on)
    path = getattr(on, "path", on)  # of a Run
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"on: expected vertices, an encoder or a run, got {type(on).__name__}")
    sets = open_map_sets(path)
    if len(sets) > 1:
        raise UsageError(f"on: is a run of {len(sets)} subjects; take one of run.subjects: {', '.join(sets)}")
    return next(iter(sets.values()))


def _brain_maps(
    values: np.ndarray, count: int, kind: str, title: str | Sequence[str], label: str, labels: Sequence[str]
) -> list[BrainMap]:
    if kind not in ("continuous", "categorical", "location"):
        raise UsageError(f"kind: must be continuous, categorical or location, got {kind!r}")
    if kind == "location":
        _check(values, values.shape == (count, 2), f"({count}, 2)")
        return [replace(definitions.location(values), coding=Location(label or "location in the image"))]
    if kind == "categorical":
        fits = values.shape == (count,) or (values.ndim == 2 and len(values) == count)
        _check(values, fits, f"({count},) or ({count}, classes)", kinds="biufUO")
        return [definitions.classes("classes", values, labels, label=label)]
    fits = values.ndim in (1, 2) and values.shape[-1] == count and values.size > 0
    _check(values, fits, f"({count},) or (n, {count})")
    rows = values.reshape(-1, count)
    if isinstance(title, str):
        titles = [title] if len(rows) == 1 else [f"row {row}" for row in range(len(rows))]
    else:
        titles = list(title)
    if len(titles) != len(rows):
        raise UsageError(f"title: expected one for each of {len(rows)} maps, got {len(titles)}")
    return same_limits(
        [
            definitions.anything(f"map-{index}", row, title=text or " ", label=label)
            for index, (row, text) in enumerate(zip(rows, titles, strict=True))
        ]
    )


def _check(values: np.ndarray, fits: bool, expected: str, kinds: str = "biuf") -> None:
    if not fits:
        fitting = [space for space, size in SPACES.items() if values.shape[-1:] == (2 * size,)]
        hint = f"; they fit all vertices of {fitting[0]}: on={fitting[0]!r}" if fitting else ""
        raise UsageError(f"values: must have shape {expected}, one per vertex, got {values.shape}{hint}")
    if values.dtype.kind not in kinds:
        raise UsageError(f"values: must be numbers, got {values.dtype}")


def _regions(table: RoiTable, rois: str | Iterable[str] | Mapping[str, np.ndarray] | None) -> RoiTable:
    from brainkit.maps.changes import choose_rois

    if rois is None:
        return table
    if isinstance(rois, Mapping):
        return RoiTable(rois, table.n_vertices)
    return choose_rois(table, [rois] if isinstance(rois, str) else list(rois))
