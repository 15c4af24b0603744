"""Braces as in a shell: ``shards-{000..010}.tar``, ``{a,b}.png``."""

from __future__ import annotations

import re
from collections.abc import Iterator

_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def has_braces(text: str) -> bool:
    return bool(_RANGE.search(text) or _CHOICE.search(text))


def expand_braces(text: str) -> Iterator[str]:
    """``a-{000..010}.tar`` and ``{a,b}.png`` expanded, in order; leading zeros are kept."""
    match = min(
        filter(None, (_RANGE.search(text), _CHOICE.search(text))), key=lambda found: found.start(), default=None
    )
    if match is None:
        yield text
        return
    for each in _numbers(match[1], match[2]) if match.re is _RANGE else match[1].split(","):
        yield from expand_braces(f"{text[: match.start()]}{each}{text[match.end() :]}")


def _numbers(first: str, last: str) -> Iterator[str]:
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    step = 1 if int(last) >= int(first) else -1
    for number in range(int(first), int(last) + step, step):
        yield f"{number:0{width}d}"
