"""The old name of `brainkit.predict`; it will be removed in the next release."""

from __future__ import annotations

from brainkit import predict
from brainkit.utils.lazy import lazy_names

__all__ = predict.__all__

__getattr__, __dir__ = lazy_names(__name__, {}, moved={name: f"brainkit.predict.{name}" for name in __all__})
