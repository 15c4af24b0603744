"""Numeric order of names, as file managers list them: ``2.png`` before ``10.png``."""

from __future__ import annotations

import re
from pathlib import PurePath

HASH = r"(?=[^.]*[a-f])[0-9a-f-]{16,}\.\w+"  # a name whose digits are no numbers

_DIGITS = re.compile(r"[0-9]+")
_HASH = re.compile(HASH, re.IGNORECASE)


def numeric_order(path: PurePath) -> tuple[str, ...]:
    """Sort key of numeric order: part by part, with runs of digits as whole numbers, upper and lower case alike.

    Among characters that are no digits, and between these and digits, it is the order of the text; so it is for names
    that are hashes.
    """
    parts = (part.casefold() for part in path.parts)
    return tuple(part if _HASH.fullmatch(part) else _DIGITS.sub(_by_value, part) for part in parts)


def _by_value(run: re.Match[str]) -> str:
    """Digits whose text order is that of the number: first how many there are."""
    digits = run[0].lstrip("0")
    return f"{len(digits):03d}{digits}"
