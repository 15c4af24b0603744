"""Unions and differences of regions, as users write them: ``FFA-1+FFA-2-V4``."""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from brainkit.cortex.roi_files import is_region_file, names_file
from brainkit.utils.files import users_path

_OPERATORS = "+-"
_LIKE = 0.8  # similarity from which a longer piece of the text is taken for a misspelt name
_PIECES = 3  # of the text between operators that one misspelt name may have


class Term(NamedTuple):
    """A region, which is added to those before it, or removed from them."""

    added: bool
    name: str


class UnknownRegion(Exception):
    """A part of an expression is neither a known name nor a file.

    Attributes
    ----------
    part : str
    """

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


def parse_expression(text: str, known: Iterable[str]) -> list[Term]:
    """Read names (or files) with ``+`` and ``-`` between them; spaces around these are optional.

    Names may have both signs themselves: at each place the longest known name is tried first, and a shorter one if the
    rest could not be read otherwise.

    Parameters
    ----------
    text : str
    known : iterable of str
        Known names; upper and lower case are the same.

    Returns
    -------
    list of Term
        From left to right; the first is added.

    Raises
    ------
    UnknownRegion
        Names the part.
    """
    names = sorted({name.lower() for name in known}, key=len, reverse=True)
    failed = 0

    @functools.cache
    def read(start: int) -> tuple[tuple[int, int], ...] | None:
        """Where the names lie, from this place on; None if the rest cannot be read."""
        nonlocal failed
        failed = max(failed, start)
        for end in _ends(text, start, names):
            after = _skip_spaces(text, end)
            if after == len(text):
                return ((start, end),)
            if text[after] in _OPERATORS and (rest := read(_skip_spaces(text, after + 1))) is not None:
                return ((start, end), *rest)
        return None

    found = read(_skip_spaces(text, 0))
    if found is None:
        raise UnknownRegion(_unknown_part(text, failed, names))
    signs = ["+", *(text[end:start].strip() for (_, end), (start, _) in itertools.pairwise(found))]
    return [Term(sign == "+", text[start:end]) for sign, (start, end) in zip(signs, found, strict=True)]


def with_absolute_files(text: str) -> str:
    """An expression, or several with commas between them, with the absolute paths of the files in it."""
    done, start = "", 0
    while start < len(text):
        ends = _boundaries(text, start, "[+,-]")
        file = next((end for end in reversed(ends) if is_region_file(text[start:end].strip())), None)
        end = ends[0] if file is None else file
        part = text[start:end] if file is None else os.path.abspath(users_path(text[start:end].strip()))
        done, start = done + part + text[end : end + 1], end + 1
    return done


def _ends(text: str, start: int, names: list[str]) -> list[int]:
    """Where a known name or a file that begins here may end, the longest first."""
    ends = [start + len(name) for name in names if text[start : start + len(name)].lower() == name]
    pieces = (end for end in reversed(_boundaries(text, start)) if is_region_file(text[start:end].strip()))
    return [*ends, *(start + len(text[start:end].rstrip()) for end in pieces)]


def _boundaries(text: str, start: int, signs: str = "[+-]") -> list[int]:
    """The places of the signs after `start`, and the end of the text."""
    return [*(match.start() for match in re.finditer(signs, text) if match.start() > start), len(text)]


def _skip_spaces(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())


def _unknown_part(text: str, start: int, names: list[str]) -> str:
    """The unknown name: up to the next sign, unless a longer piece of the text is a file or resembles a known name."""
    ends = _boundaries(text, start)[:_PIECES]
    before = [match.end() for match in re.finditer(r"[+-]\s*", text) if match.end() < start][-_PIECES:]
    pieces = [text[start:end].strip() for end in ends]
    if file := next((piece for piece in pieces if names_file(piece)), ""):
        return file
    pieces += [text[first:end].strip() for first in (*before, 0) for end in ends]
    likeness = {
        piece: max((difflib.SequenceMatcher(None, piece.lower(), name).ratio() for name in names), default=0.0)
        for piece in pieces
        if piece
    }
    best = max(likeness, key=lambda piece: likeness[piece], default=text)
    return best if not pieces[0] or likeness[best] >= _LIKE else pieces[0]
