"""Numeric order of names, as file managers list them: ``2.png`` before ``10.png``."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TypeAlias

_Key: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]

_PIECES = re.compile(r"[0-9]+|[^0-9]")


def numeric_order(path: PurePath, *, ignore_case: bool = True) -> _Key:
    """Sort key of numeric order: part by part, with runs of digits as whole numbers.

    Among characters that are no digits, and between these and digits, it is the order of the text.

    Parameters
    ----------
    path : Path
    ignore_case : bool
        Take upper and lower case for the same, as file managers do.
    """
    parts = (part.casefold() for part in path.parts) if ignore_case else path.parts
    return tuple(
        tuple((ord("0"), int(piece)) if "0" <= piece[0] <= "9" else (ord(piece), 0) for piece in _PIECES.findall(part))
        for part in parts
    )
