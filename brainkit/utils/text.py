"""Text for messages: errors on one line, sizes in words, printable paths, the nearest name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def one_line(error: object, most: int = 300) -> str:
    """An error's message on one line of at most `most` characters; without a message, the error's type."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: object, most: int = 300) -> str:
    """The first non-empty line of an error's message: some libraries append a trace or a log to theirs."""
    return next((line.strip()[:most] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def with_type(error: BaseException) -> str:
    """An error's type and the first line of its message: ``ValueError: no such layer``."""
    line, name = first_line(error), type(error).__name__
    return name if line == name else f"{name}: {line}"


def root_cause(error: BaseException) -> str:
    """The error at the start of a chain of ``raise ... from``, as `with_type` describes it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return with_type(error)


def format_bytes(count: float) -> str:
    """Bytes in decimal units: ``532 B``, ``8.2 kB``, ``31.0 MB``, ``2.51 GB``."""
    for unit, size, digits in (("TB", 1e12, 2), ("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f} B"


def plural(count: int, one: str, more: str | None = None) -> str:
    """A count and its noun: ``1 image``, ``3,000 images``; `more` is the plural if it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def as_text(path: str | os.PathLike[str]) -> str:
    """A path as valid Unicode, with bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(text: str | os.PathLike[str]) -> str:
    """Text or a path with line breaks and terminal control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in as_text(text))


def nearest_names(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.5) -> list[str]:
    """Known names that may be meant, the likeliest first: those that continue `name`, those that it continues, then
    the most similar."""
    spelled = {each.lower(): each for each in known}
    low = name.lower()
    longer = sorted((each for each in spelled if low and each.startswith(low)), key=lambda each: (len(each), each))
    shorter = sorted((each for each in spelled if len(each) > 2 and low.startswith(each)), key=len, reverse=True)
    similar = difflib.get_close_matches(low, spelled, n=most, cutoff=cutoff)
    return [spelled[each] for each in dict.fromkeys([*longer, *shorter, *similar])][:most]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the likeliest known one, else all of them."""
    known = list(known)
    near = nearest_names(name, known, most=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
