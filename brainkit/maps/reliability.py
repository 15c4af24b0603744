"""Which vertices a map draws in full, and which pale, because what it shows of them may be chance."""

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
    """Vertices that select something that other images or seeds would have them select too.

    Parameters
    ----------
    se : array of shape (V,)
        Standard error, as a share of the selector's range.
    max_se : float
        The largest that is drawn in full.
    predicted : Predicted, optional
        Other vertices than these are pale anyway.
    """

    se: np.ndarray
    max_se: float
    predicted: Predicted | None = None

    @property
    def none(self) -> str:
        """Said where no vertex is reliable."""
        if self.predicted is not None and not self.predicted.reliable.any():
            return self.predicted.none
        return "no vertex has a small enough standard error"

    @property
    def reliable(self) -> np.ndarray:
        """(V,) bool."""
        sure = np.asarray(self.se <= self.max_se)
        return sure if self.predicted is None else sure & self.predicted.reliable

    @property
    def detail(self) -> str:
        """What pale means."""
        text = f"standard error above {100 * self.max_se:g} % of the range"
        return f"pale: {text}" if self.predicted is None else f"{self.predicted.detail}, or {text}"


Reliability = Predicted | Sure


def fields(reliability: Reliability | None, *details: str | None) -> dict[str, Any]:
    """`reliable`, `detail` and `none_reliable` of a map; `details` are said too."""
    texts = [*details, None if reliability is None else reliability.detail]
    detail = "; ".join(text for text in texts if text)
    if reliability is None:
        return {"detail": detail}
    return {"detail": detail, "reliable": reliability.reliable, "none_reliable": reliability.none}
