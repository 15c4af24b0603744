"""Small still pictures for browsers without WebGL2."""

from __future__ import annotations

import io

from brainkit.maps.brain_map import MapSet
from brainkit.maps.view import plainest_shape
from brainkit.page.content import Still

_DPI = 80  # of a picture about ten inches wide
MOST_STILLS = 5  # pictures: they are large


def draw_stills(maps: MapSet, most: int = MOST_STILLS) -> tuple[Still, ...]:
    """The first maps as JPEG files, on the flatmap if the surface has one.

    Raises
    ------
    MissingDependency
        If matplotlib or nilearn is not installed.
    """
    from PIL import Image

    from brainkit.maps.figure import MapFigure
    from brainkit.maps.style import Style

    style = Style(dpi=_DPI, view=plainest_shape(maps.surface))
    stills = []
    for brain_map in maps.maps[:most]:
        file = io.BytesIO()
        picture = Image.fromarray(MapFigure(maps, brain_map, style, _DPI).render())
        picture.convert("RGB").save(file, "JPEG", quality=78, optimize=True)
        stills.append(Still(brain_map.title, file.getvalue()))
    return tuple(stills)
