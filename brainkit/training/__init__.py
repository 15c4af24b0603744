"""Fitting FactorTopy: loss, data, steps, checkpoints, several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

_LAZY = {
    "EncodingData": "brainkit.training.datamodule",
    "EncodingModule": "brainkit.training.module",
    "fit_statistics": "brainkit.training.token_statistics",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule
    from brainkit.training.token_statistics import fit_statistics

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
