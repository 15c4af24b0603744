"""Small still pictures for browsers without WebGL2."""

from __future__ import annotations

import io

from brainkit.cortex.vertices import CUSTOM
from brainkit.maps.brain_map import MapSet
from brainkit.page.content import Still

_DPI = 80  # of a picture about ten inches wide
_MOST = 5  # pictures: they are large


def draw_stills(maps: MapSet) -> tuple[Still, ...]:
    """The first maps on the flatmap, as JPEG files; none if their surface has no flatmap.

    Raises
    ------
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    has_flatmap = "flat" in maps.surface.shapes if maps.surface is not None else maps.vertices.space != CUSTOM
    if not has_flatmap:
        return ()
    from PIL import Image

    from brainkit.maps.figure import MapFigure
    from brainkit.maps.style import Style

    stills = []
    for brain_map in maps.maps[:_MOST]:
        file = io.BytesIO()
        Image.fromarray(MapFigure(maps, brain_map, Style(dpi=_DPI), _DPI).render()).convert("RGB").save(
            file, "JPEG", quality=78, optimize=True
        )
        stills.append(Still(brain_map.title, file.getvalue()))
    return tuple(stills)
