"""One map: values of the vertices, and how they are coloured. Figures, the page and the report all draw these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import UsageError
from brainkit.utils.text import nearest_name


@dataclass(frozen=True)
class Continuous:
    """How numbers are coloured.

    Parameters
    ----------
    colours : str
        A colour map of matplotlib, by name.
    low, high : float
        The values of its ends. Values beyond are drawn in the colour of the end.
    label : str
        Of the colour bar, with the unit.
    ends : tuple of two str, optional
        What the low and the high end mean, if the numbers alone do not say it.
    shared : int
        How many maps these limits are of, if they are to be compared; 0 if it is this one alone.
    extend : {"neither", "min", "max", "both"}
        Ends of the colour bar beyond which there are values.
    below : str
        Colour of the values below `low` (``"#4a6f8f"``), where they must not look like it; empty: that of `low`.
    """

    colours: str
    low: float
    high: float
    label: str
    ends: tuple[str, str] | None = None
    extend: Literal["neither", "min", "max", "both"] = "neither"
    below: str = ""
    shared: int = 0


@dataclass(frozen=True, eq=False)
class Categorical:
    """How classes are coloured.

    Parameters
    ----------
    names : tuple of n str
        In the order of the legend; for layers, early to late.
    palette : array of shape (n, 3)
        sRGB in [0, 1].
    label : str
        Title of the legend.
    strength_name, strength_label : str, optional
        What the map's `strength` is, in a word, and its meaning as the legend says it.
    ordered : bool
        Whether the classes have an order.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    label: str
    strength_label: str = ""
    strength_name: str = ""
    ordered: bool = False


@dataclass(frozen=True)
class Location:
    """Locations in the image, coloured by two dimensions: hue is direction, strength is distance from the centre."""

    label: str = "location in the image"


@dataclass(frozen=True, eq=False)
class BrainMap:
    """One map of the V vertices.

    Parameters
    ----------
    name : str
        Short, unique among the maps of a run: a file's stem, an option's value. ``"layer"``.
    title : str
        ``"preferred layer"``.
    values : array
        With `Continuous`, shape (V,). With `Categorical`, shape (V, n): non-negative shares of the classes, of which
        the largest is drawn. With `Location`, shape (V, 2): x right, y down, in [-1, 1]. NaN where unknown.
    coding : Continuous, Categorical or Location
    reliable : array of shape (V,), bool, optional
        False where the value may be chance: drawn pale.
    strength : array of shape (V,), optional
        In [0, 1]; the nearer to 0, the more of the cortex shows through. `Categorical` maps say in their legend what it
        means, others in `detail`.
    summary : str
        Key figures, such as the median.
    detail : str
        What a reader must know: what pale means, what is clipped.
    none_reliable : str
        Said over the map where no vertex is reliable.
    """

    name: str
    title: str
    values: np.ndarray
    coding: Continuous | Categorical | Location
    reliable: np.ndarray | None = None
    strength: np.ndarray | None = None
    summary: str = ""
    detail: str = ""
    none_reliable: str = "no vertex is reliable"

    @property
    def known(self) -> np.ndarray:
        """Vertices with a value: (V,) bool."""
        finite = np.isfinite(self.values)
        return finite if finite.ndim == 1 else finite.all(axis=1)

    @property
    def empty(self) -> str:
        """Why the map shows nothing; an empty string if it shows something."""
        if not self.known.any():
            return "no vertex has a value to show"
        if self.reliable is not None and not (self.known & self.reliable).any():
            return self.none_reliable
        return ""


@dataclass(frozen=True, eq=False)
class MapSet:
    """The maps of one subject that belong together: of a run, an encoder file, an evaluation.

    Parameters
    ----------
    title : str
        Of whom or what: the network, the subject. May be empty.
    vertices : Vertices
    rois : RoiTable
        Of the same V vertices.
    maps : tuple of BrainMap
    note : str, optional
        Shown with every map, for example that the subject is simulated.
    volume : Volume, optional
        Which voxels the vertices of the custom space are.
    surface : CorticalSurface, optional
        That the vertices are of; by default the average one of their space.
    ids : array of shape (V,), optional
        Which vertices of the surface those of the custom space are; by default all.
    """

    title: str
    vertices: Vertices
    rois: RoiTable
    maps: tuple[BrainMap, ...]
    note: str | None = None
    volume: Volume | None = None
    surface: CorticalSurface | None = None
    ids: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps."""
        return tuple(each.name for each in self.maps)

    def __getitem__(self, name: str) -> BrainMap:
        found = {each.name: each for each in self.maps}
        if name not in found:
            raise UsageError(f"map {name!r}: there is none{nearest_name(name, found)}")
        return found[name]

    def only(self, names: Iterable[str]) -> MapSet:
        """With the maps of these names, in this order.

        Raises
        ------
        UsageError
            If there is no such map.
        """
        return replace(self, maps=tuple(self[name] for name in names))
