"""Which vertices a map draws in full, and which pale, because what it shows of them may be chance or is unsure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.utils.text import plural

MAX_Q = 0.05  # vertices with a larger false discovery rate are pale


@dataclass(frozen=True, eq=False)
class Predicted:
    """Vertices that the encoder predicts better than chance.

    Parameters
    ----------
    q : array of shape (V,)
        False discovery rate of the test correlation being above 0.
    images : int
        How many test images it is over.
    """

    q: np.ndarray
    images: int

    none = "no vertex is predicted better than chance"

    @property
    def reliable(self) -> np.ndarray:
        """(V,) bool."""
        return np.asarray(self.q < MAX_Q)

    @property
    def detail(self) -> str:
        """What pale means."""
        return f"pale: no better than chance on {plural(self.images, 'test image')} (q of {MAX_Q:g} or more)"


@dataclass(frozen=True, eq=False)
class Sure:
    """How sure it is what vertices select: whether other images or seeds would have them select it too.

    Parameters
    ----------
    se : array of shape (V,)
        Standard error, as a share of the selector's range.
    max_se : float
        From which on vertices are palest.
    predicted : Predicted, optional
        Other vertices than these are pale anyway.
    """

    se: np.ndarray
    max_se: float
    predicted: Predicted | None = None

    @property
    def strength(self) -> np.ndarray:
        """From 1, without any standard error, evenly down to 0 at `max_se`; 0 where it is unknown. (V,)."""
        return np.nan_to_num(1 - np.clip(self.se / self.max_se, 0, 1))

    @property
    def scale(self) -> str:
        """What the strength means, in the words of a legend."""
        return f"{self.max_se:g} of the range or more, to 0"

    @property
    def detail(self) -> str:
        """What pale means."""
        faded = f"fading with the standard error, full at 0, palest from {100 * self.max_se:g} % of the range on"
        return faded if self.predicted is None else f"{self.predicted.detail}; {faded}"


Reliability = Predicted | Sure


def fields(reliability: Reliability | None, *details: str | None) -> dict[str, Any]:
    """`reliable`, `strength`, `detail` and `none_reliable` of a map; `details` are said too."""
    texts = [*details, None if reliability is None else reliability.detail]
    found: dict[str, Any] = {"detail": "; ".join(text for text in texts if text)}
    if isinstance(reliability, Sure):
        found["strength"] = reliability.strength
        reliability = reliability.predicted
    if reliability is not None:
        found |= {"reliable": reliability.reliable, "none_reliable": reliability.none}
    return found
