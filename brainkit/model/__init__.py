"""FactorTopy, the encoding model: selectors, bottlenecks, ensembles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

_LAZY = {"FactorTopy": "brainkit.model.factor_topy"}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.model.factor_topy import FactorTopy

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
