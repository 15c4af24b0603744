"""What a page shows, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Location, MapSet

_MOST_CLASSES = 256  # a class is a byte in the page's textures


@dataclass(frozen=True, eq=False)
class Fact:
    """A number of each vertex that is told when it is clicked, without a map of its own.

    Parameters
    ----------
    label : str
        ``"noise ceiling"``.
    values : array of shape (V,)
        NaN where unknown.
    """

    label: str
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Photographs:
    """Images to step through, with the response predicted to each.

    Parameters
    ----------
    names : tuple of n str
    thumbnails : tuple of n bytes
        JPEG files.
    responses : array of shape (n, V)
        NaN where unknown.
    limit : float
        Responses are coloured from ``-limit`` to ``limit``.
    units : str
        Of the responses.
    """

    names: tuple[str, ...]
    thumbnails: tuple[bytes, ...]
    responses: np.ndarray
    limit: float
    units: str = ""


@dataclass(frozen=True, eq=False)
class Still:
    """A picture for browsers without WebGL2.

    Parameters
    ----------
    caption : str
    image : bytes
        A PNG or JPEG file.
    """

    caption: str
    image: bytes


@dataclass(frozen=True, eq=False)
class PageContent:
    """What a page shows.

    Parameters
    ----------
    maps : MapSet
        With `photographs` it may hold no map. Its own surface is not looked at.
    surface : CorticalSurface
        Which has the vertices of the maps, in at least one shape. Without ``flat`` the page does not flatten.
    facts : tuple of Fact
    photographs : Photographs, optional
    provenance : tuple of str
        Lines about where the maps come from: data, hashes, versions.
    stills : tuple of Still

    Raises
    ------
    UsageError
        If the vertices do not fit the surface, shapes of arrays differ, or there is nothing to show.
    """

    maps: MapSet
    surface: CorticalSurface
    facts: tuple[Fact, ...] = ()
    photographs: Photographs | None = None
    provenance: tuple[str, ...] = ()
    stills: tuple[Still, ...] = ()

    def __post_init__(self) -> None:
        surface, vertices = self.surface, self.maps.vertices
        surface.ids_of(vertices, self.maps.ids)  # raises if they do not fit
        if not surface.shapes:
            raise UsageError(f"page: surface {surface.name} has no shape that both hemispheres have")
        if not self.maps.maps and self.photographs is None:
            raise UsageError("page: expected a map or photographs, got neither")
        names = [each.name for each in self.maps.maps]
        if len(set(names)) < len(names):
            raise UsageError(f"page: names of maps must differ, got {', '.join(names)}")
        for brain_map in self.maps.maps:
            _check(f"map {brain_map.name}", brain_map.values, _shape(brain_map, len(vertices)))
            if isinstance(brain_map.coding, Categorical) and len(brain_map.coding.names) > _MOST_CLASSES:
                found = len(brain_map.coding.names)
                raise UsageError(f"page: map {brain_map.name}: expected at most {_MOST_CLASSES} classes, got {found}")
            for name in ("reliable", "strength"):
                if (field := getattr(brain_map, name)) is not None:
                    _check(f"map {brain_map.name}, {name}", field, (len(vertices),))
        for fact in self.facts:
            _check(fact.label, fact.values, (len(vertices),))
        if self.photographs is not None:
            count = len(self.photographs.names)
            _check("responses", self.photographs.responses, (count, len(vertices)))
            _check("thumbnails", np.empty(len(self.photographs.thumbnails)), (count,))


def _shape(brain_map: BrainMap, count: int) -> tuple[int, ...]:
    if isinstance(brain_map.coding, Categorical):
        return count, len(brain_map.coding.names)
    return (count, 2) if isinstance(brain_map.coding, Location) else (count,)


def _check(name: str, values: np.ndarray, expected: tuple[int, ...]) -> None:
    if np.shape(values) != expected:
        raise UsageError(f"page: {name}: expected shape {expected}, got {np.shape(values)}")
