"""One map: values of the vertices, and how they are coloured. Figures, the page and the report all draw these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


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
    extend : {"neither", "min", "max", "both"}
        Ends of the colour bar beyond which there are values.
    """

    colours: str
    low: float
    high: float
    label: str
    ends: tuple[str, str] | None = None
    extend: Literal["neither", "min", "max", "both"] = "neither"


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
    strength_label : str, optional
        What the map's `strength` means, if it has one.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    label: str
    strength_label: str = ""


@dataclass(frozen=True)
class Location:
    """Places in the image, coloured by two dimensions: hue is direction, strength is distance from the centre."""

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
        In [0, 1]; 0 is drawn dim. Only with `Categorical`.
    summary : str
        Key figures, such as the median.
    detail : str
        What a reader must know: what pale means, what is clipped.
    """

    name: str
    title: str
    values: np.ndarray
    coding: Continuous | Categorical | Location
    reliable: np.ndarray | None = None
    strength: np.ndarray | None = None
    summary: str = ""
    detail: str = ""

    @property
    def known(self) -> np.ndarray:
        """Vertices with a value: (V,) bool."""
        finite = np.isfinite(self.values)
        return finite if finite.ndim == 1 else finite.all(axis=1)
