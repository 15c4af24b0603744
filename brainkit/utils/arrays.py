"""Arrays by name, which a notebook shows by type and shape."""

from __future__ import annotations

import numpy as np


class Arrays(dict[str, np.ndarray]):
    """A dict of arrays whose repr is one line: ``{'scale': float32 (200,), ...}``."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: {array.dtype} {array.shape}" for name, array in self.items()) + "}"
