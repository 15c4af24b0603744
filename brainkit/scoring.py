"""The old name of `brainkit.predict`; it goes in the next release."""

from __future__ import annotations

import warnings
from typing import Any

from brainkit import predict


def __getattr__(name: str) -> Any:
    value = getattr(predict, name)
    warnings.warn(
        f"brainkit.scoring.{name} has moved to brainkit.predict.{name}; the old name goes in the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
