"""What objects show of themselves in a notebook: one small picture and key figures, as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from brainkit.errors import BrainkitError
from brainkit.utils.data_uri import data_uri

SIZE, DPI = 4.6, 110  # inches across, dots per inch


def card(title: str, facts: Mapping[str, object], draw: Callable[[], Any] | None = None, *, more: str = "") -> str:
    """HTML of a title, a table of facts and a picture.

    Parameters
    ----------
    title : str
    facts : mapping of str to object
        Those that are None or empty are left out.
    draw : callable, optional
        Returns a figure of `brainkit.plot`; where that fails (no matplotlib, no surface), there is no picture.
    more : str
        HTML, below the facts.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    picture = "" if draw is None else _picture(draw, title)
    return (
        "<div style='display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start'>"
        f"<div><strong>{html.escape(title)}</strong><table>{rows}</table>{more}</div>{picture}</div>"
    )


def _picture(draw: Callable[[], Any], title: str) -> str:
    try:
        png = draw()._repr_png_()
    except BrainkitError:
        return ""
    style = f"max-width:100%;width:{round(SIZE * 96)}px"
    return f"<img src='{data_uri(png)}' alt='{html.escape(title)}, a map' style='{style}'>"
