"""What a report's sections consist of. Templates draw each kind of block; its texts are escaped there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from brainkit.utils.table import Table

Block = dict[str, Any]
_SQUARES = {"R2": "R²", "r2": "r²", "r2/ceiling": "r² / ceiling"}


@dataclass(frozen=True)
class Section:
    """A section of a report: its anchor, its title, its blocks."""

    id: str
    title: str
    blocks: Sequence[Block]


def text(words: str) -> Block:
    return {"kind": "text", "text": words}


def heading(words: str) -> Block:
    return {"kind": "heading", "text": words}


def facts(rows: Iterable[tuple[str, Any]]) -> Block:
    """Names and values; those without a value are left out."""
    return {"kind": "facts", "rows": [(name, str(value)) for name, value in rows if value not in (None, "")]}


def table(of: Table) -> Block:
    bold = None if of.bold is None else range(len(of.rows))[of.bold]
    header = [_SQUARES.get(name, name) for name in of.header]  # a terminal may have no such letters
    return {"kind": "table", "header": header, "rows": of.rows, "notes": of.notes, "bold": bold}


def figure(source: str, alt: str, caption: str = "") -> Block:
    """`source` is from :func:`brainkit.utils.data_uri.data_uri`; `alt` is for those who cannot see it."""
    return {"kind": "figure", "source": source, "alt": alt, "caption": caption}


def pair(left: tuple[str, str], right: tuple[str, str], caption: str = "") -> Block:
    """Two pictures side by side, each with its title and source."""
    sides = [{"title": title, "source": source, "alt": title} for title, source in (left, right)]
    return {"kind": "pair", "sides": sides, "caption": caption}


@dataclass(frozen=True)
class Strip:
    """Images in a row, and of what they are; each image has its source, a name for those who cannot see it, a text."""

    title: str
    detail: str
    colour: str
    images: Sequence[tuple[str, str, str]]


def strips(of: Iterable[Strip], caption: str) -> Block:
    """Rows of images, two rows side by side."""
    return {"kind": "strips", "strips": list(of), "caption": caption}


def code(words: str) -> Block:
    return {"kind": "code", "text": words}


def folded(title: str, words: str) -> Block:
    """Text that opens on a click."""
    return {"kind": "folded", "title": title, "text": words}


def page(heading: str, title: str, html: str) -> Block:
    """A whole page inside the report, which is not printed."""
    return {"kind": "page", "heading": heading, "title": title, "html": html}
