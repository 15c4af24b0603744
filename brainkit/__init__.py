"""brainkit maps vision networks onto the human brain.

Importing it is cheap: neither torch nor ONNX Runtime is loaded until a name that needs them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module that defines it; resolved at first use.
_LAZY = {
    "fit": "brainkit.api",
    "Run": "brainkit.api",
    "load": "brainkit.predict",
    "contrast": "brainkit.insilico.contrast",
    "load_backbone": "brainkit.backbones",
    "wrap_network": "brainkit.backbones",
    "FactorTopy": "brainkit.model.factor_topy",
    "EncodingModule": "brainkit.training.module",
    "EncodingData": "brainkit.training.datamodule",
    "save_run": "brainkit.own_trainer",
    "import_published": "brainkit.runs.import_published",
}

__all__ = ["__version__", *sorted(_LAZY)]

if TYPE_CHECKING:
    from brainkit.api import Run, fit
    from brainkit.backbones import load_backbone, wrap_network
    from brainkit.insilico.contrast import contrast
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.own_trainer import save_run
    from brainkit.predict import load
    from brainkit.runs.import_published import import_published
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule


def __getattr__(name: str) -> Any:
    if name == "data":  # a package of its own lazy names: brainkit.data.Algonauts
        return importlib.import_module("brainkit.data")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'brainkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
