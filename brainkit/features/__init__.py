"""Tokens of images: extracted once by the frozen network, stored on disk, shared by runs and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

_LAZY = {"TokenCache": "brainkit.features.cache", "extract_tokens": "brainkit.features.extract"}
_MOVED = {"fit_statistics": "brainkit.training.token_statistics.fit_statistics"}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.features.cache import TokenCache
    from brainkit.features.extract import extract_tokens

__getattr__, __dir__ = lazy_names(__name__, _LAZY, _MOVED)
