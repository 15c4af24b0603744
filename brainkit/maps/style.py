"""How figures look: theme, size, resolution, view of the cortex; and the settings of matplotlib for all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from brainkit.errors import UsageError
from brainkit.maps.view import read_view
from brainkit.utils.text import nearest_name

WIDTHS: Mapping[str, float] = {"single": 3.5, "onehalf": 5.0, "double": 7.2}
"""Widths of journals' columns in inches: 89, 127 and 183 mm."""

FORMATS: Mapping[str, int] = {"png": 150, "pdf": 300, "svg": 300}
"""Format of a picture -> dots per inch, by default; of PDF and SVG, those of the map alone."""

MATPLOTLIB: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],  # the first comes with matplotlib
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "brainkit",  # the same figure gives the same bytes
    "text.usetex": False,
    "text.hinting": "no_hinting",  # letters stand where those of their outlines do
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
}
Shading = Literal["interpolated", "flat"]
_LEAST_WIDTH, _GREATEST_WIDTH = 2.0, 40.0  # inches
_MOST_SMOOTHING = 100
_LEAST_DPI, _GREATEST_DPI = 30, 1200


@dataclass(frozen=True)
class Theme:
    """Colours of everything but the map.

    Parameters
    ----------
    background : str
        ``"none"`` if it is transparent.
    ink, faint, warn : str
        Of text, of secondary text and of a note.
    """

    background: str
    ink: str
    faint: str
    warn: str


INK, FAINT = "#1b1f24", "#68717d"
_LIGHT = Theme("white", INK, FAINT, "#a63c06")
_DARK = Theme("#15181c", "#eceef1", "#a2abb6", "#ffa066")
THEMES: Mapping[str, Theme] = {
    "light": _LIGHT,
    "dark": _DARK,
    "transparent": Theme("none", _LIGHT.ink, "#3b424b", "#7d2c02"),
    "transparent-dark": Theme("none", _DARK.ink, "#d6dbe1", "#ffc39a"),
}


@dataclass(frozen=True)
class Style:
    """How a figure looks.

    Parameters
    ----------
    theme : {"light", "dark", "transparent", "transparent-dark"}
        The last has light text, for dark slides.
    width, height : float, optional
        Of the figure, in inches; text gets smaller in small figures. By default about 10 wide, and as high as needed.
    dpi : int, optional
        Dots per inch of the picture, in PDF and SVG of the map alone; by default that of `FORMATS`.
    view : str
        How the cortex is shown: a shape (``flat``, ``inflated``, ``pial``, ``white``, ``sphere``) and, but for a
        flatmap, angles and hemispheres: ``"inflated-lateral-medial-left"``.
    shading : {"interpolated", "flat"}
        Flat gives each vertex one colour, so that noise does not look like streaks.
    smoothing : int
        How often values are averaged over their neighbours before they are drawn.
    """

    theme: str = "light"
    width: float | None = None
    height: float | None = None
    dpi: int | None = None
    view: str = "flat"
    shading: Shading = "interpolated"
    smoothing: int = 0

    def __post_init__(self) -> None:
        if self.theme not in THEMES:
            raise UsageError(f"theme {self.theme!r}: unknown{nearest_name(self.theme, THEMES)}")
        for name, kind, expected in (
            ("width", Real, "a number"),
            ("height", Real, "a number"),
            ("dpi", Integral, "a whole number"),
            ("smoothing", Integral, "a whole number"),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise UsageError(f"{name}: must be {expected}, got {value!r}")
        for name, inches in (("width", self.width), ("height", self.height)):
            if inches is not None and not _LEAST_WIDTH <= inches <= _GREATEST_WIDTH:
                raise UsageError(
                    f"{name}: must lie between {_LEAST_WIDTH:g} and {_GREATEST_WIDTH:g} inches, got {inches:g}"
                )
        read_view(self.view)
        if self.shading not in get_args(Shading):
            raise UsageError(f"shading: must be interpolated or flat, got {self.shading!r}")
        if not 0 <= self.smoothing <= _MOST_SMOOTHING:
            raise UsageError(f"smoothing: must lie between 0 and {_MOST_SMOOTHING}, got {self.smoothing}")
        if self.dpi is not None and not _LEAST_DPI <= self.dpi <= _GREATEST_DPI:
            raise UsageError(f"dpi: must lie between {_LEAST_DPI} and {_GREATEST_DPI}, got {self.dpi}")

    @property
    def colours(self) -> Theme:
        """Those of the theme."""
        return THEMES[self.theme]


DEFAULT = Style()


def read_size(text: str) -> tuple[float, float | None]:
    """Width and, if given, height in inches, from ``7.2``, ``7.2x5`` or the name of a column.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text in WIDTHS:
        return WIDTHS[text], None
    parts = text.lower().split("x")
    try:
        sides = [float(part) for part in parts]
    except ValueError:
        sides = []
    if not 1 <= len(sides) <= 2 or not all(math.isfinite(side) for side in sides):
        raise UsageError(f"size {text!r}: expected inches such as 7.2 or 7.2x5, or one of {', '.join(WIDTHS)}")
    return sides[0], sides[1] if len(sides) == 2 else None


def read_formats(text: str, known: Collection[str] = FORMATS) -> tuple[str, ...]:
    """Formats from ``png,pdf,svg``, or of others that are `known`.

    Raises
    ------
    UsageError
        If one is unknown.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in known:
            raise UsageError(f"format {name!r}: unknown{nearest_name(name, known)}")
    if not names:
        raise UsageError(f"format: expected one or more of {', '.join(known)}, found none")
    return names
