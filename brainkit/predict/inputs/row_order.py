"""Whether names sorted as text are not in the order of the numbers in them: ``1.png``, ``10.png``, ``2.png``."""

from __future__ import annotations

import re

from brainkit.utils.numeric_order import HASH

# Not the digits after a point, as in 0.25: they are compared as text.
_NUMBER = re.compile(rb"(?<!\d\.)(?<!\d)(\d+)")
_HASH = re.compile(rb"(?:.*[/\\])?" + HASH.encode(), re.IGNORECASE)
_DIGITS_ALIKE = bytes.maketrans(b"0123456789", b"0000000000")


class OrderCheck:
    """Looks at names in the order of the rows, group by group.

    Attributes
    ----------
    example : tuple of bytes
        The first neighbours whose numbers decrease, after the name before them; empty if there are none.
    """

    def __init__(self) -> None:
        self.example: tuple[bytes, ...] = ()
        self._group: int | None = None
        self._before: list[bytes] = []
        self._layout = b""

    def add(self, group: int | None, name: bytes) -> None:
        """Take the next name; `group` is None if its place is not by its name."""
        if self.example:
            return
        layout = name.translate(_DIGITS_ALIKE)
        if group is None or group != self._group:
            self._group, self._before = group, []
        elif layout != self._layout and _decrease(self._before[-1], name):  # of as many digits the order is the same
            self.example = (*self._before, name)
        self._before, self._layout = [*self._before[-1:], name], layout


def _decrease(first: bytes, second: bytes) -> bool:
    """Whether the first difference of two names is a number that gets smaller."""
    for index, (one, other) in enumerate(zip(_NUMBER.split(first), _NUMBER.split(second), strict=False)):
        if one != other:
            return index % 2 == 1 and int(one) > int(other) and not (_HASH.fullmatch(first) or _HASH.fullmatch(second))
    return False
