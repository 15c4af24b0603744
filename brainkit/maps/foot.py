"""The foot of a figure: a note and what a reader must know, in lines that fit."""

from __future__ import annotations

import textwrap

from brainkit.maps.frame import BOLD, PLAIN, Frame


class Foot:
    """The note, and below it the detail, in lines that fit a width.

    Parameters
    ----------
    note, detail : str
    room : float
        Width in inches.
    scale : float
        Of the text.
    """

    def __init__(self, note: str, detail: str, room: float, scale: float) -> None:
        self.scale = scale
        self.note = _wrapped(note, 10 * scale, BOLD, room)
        self.detail = _wrapped(detail, 8.5 * scale, PLAIN, room)

    @property
    def height(self) -> float:
        """In inches."""
        return (0.22 + 0.17 * len(self.note) + 0.15 * len(self.detail)) * self.scale

    def draw(self, frame: Frame, left: float) -> None:
        """Draw the lines."""
        y = self.height - 0.15 * self.scale
        for lines, size, step, look in (
            (self.note, 10, 0.17, {"color": frame.theme.warn, "weight": "bold"}),
            (self.detail, 8.5, 0.15, {"color": frame.theme.faint}),
        ):
            for line in lines:
                frame.text(left, y, line, size=size * self.scale, va="center", **look)
                y -= step * self.scale


def _wrapped(text: str, size: float, character: float, room: float) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), max(20, int(72 * room / (size * character))))
