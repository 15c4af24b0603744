"""A matplotlib figure whose parts are placed in inches: text, axes, and how it is written."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.maps.style import FORMATS, MATPLOTLIB, Style
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import figure_mark
from brainkit.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOLD, PLAIN = 0.64, 0.54  # width of a character, in units of the font size


class Frame:
    """An empty figure.

    Parameters
    ----------
    width, height : float
        In inches.
    style : Style
    scale : float
        Of all text and lines: 1 in a figure of 9 inches.
    """

    def __init__(self, width: float, height: float, style: Style, scale: float = 1.0) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height, self.scale = width, height, scale
        self.style, self.theme = style, style.colours
        with matplotlib_settings():
            self.figure: Figure = Figure(
                (width, height), dpi=style.dpi or FORMATS["png"], facecolor=self.theme.background
            )
            FigureCanvasAgg(self.figure)
        # In a notebook it shows itself, with no window and nothing kept in pyplot.
        self.figure._repr_png_ = functools.partial(png_bytes, self.figure)  # type: ignore[attr-defined]

    @property
    def paper(self) -> str:
        """The colour of the background, or of what it probably lies on."""
        if self.theme.background != "none":
            return self.theme.background
        return "#15181c" if self.style.theme == "transparent-dark" else "white"

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a position, from the lower left corner of the figure."""
        across, up = self.width, self.height
        with matplotlib_settings():
            axes = self.figure.add_axes((left / across, bottom / up, width / across, height / up))
        axes.set_facecolor("none")
        return axes

    def text(self, x: float, y: float, text: str, *, size: float, color: str = "", **more: Any) -> None:
        """Text at a position."""
        if text:
            # Names come from files and users: a dollar sign in them does not start a formula.
            more["parse_math"] = False
            place = x / self.width, y / self.height
            with matplotlib_settings():
                self.figure.text(*place, self.plain(text), fontsize=size, color=color or self.theme.ink, **more)

    @staticmethod
    def plain(text: str) -> str:
        """Text that any format can hold: control characters are escaped."""
        return "\n".join(printable(line) for line in text.split("\n"))

    @staticmethod
    def fitting(text: str, size: float, width: float, character: float = PLAIN) -> float:
        """`size` in points, or less if the text is too long for `width` inches."""
        return min(size, 72 * width / (character * max(len(text), 1)))

    def render(self) -> np.ndarray:
        """The figure as pixels. Array of shape (height, width, 3), uint8; with a fourth channel if transparent."""
        with matplotlib_settings():
            self.figure.canvas.draw()
        pixels = np.asarray(self.figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
        return pixels.copy() if self.theme.background == "none" else pixels[..., :3].copy()

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure in the format of the path's suffix; the same figure gives the same bytes."""
        path = Path(path)
        kind = path.suffix[1:].lower()
        if kind == "png":
            return write_png(path, self.render(), self.figure.dpi)
        dots = self.style.dpi or FORMATS[kind]
        undated = {"CreationDate": None, "ModDate": None} if kind == "pdf" else {"Date": None}
        with atomic_write(path) as temporary, matplotlib_settings():
            self.figure.savefig(temporary, format=kind, dpi=dots, metadata={"Creator": "brainkit", **undated})
        return path


def write_png(path: Path, pixels: np.ndarray, dpi: float) -> Path:
    """Write a figure's pixels, (H, W, 3 or 4) uint8; may run in a thread beside the one that draws."""
    from PIL import Image

    with atomic_write(path) as temporary:
        # A higher level takes half as long again, for 3 % smaller files.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=4, dpi=(dpi, dpi), pnginfo=figure_mark())
    return path


@contextmanager
def matplotlib_settings() -> Iterator[None]:
    """Settings of matplotlib for our figures alone."""
    from matplotlib import rc_context

    settings: Any = dict(MATPLOTLIB)
    with rc_context(settings), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def png_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib_settings():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
