"""brainkit maps vision networks onto the human brain.

Importing it is cheap: neither torch nor ONNX Runtime is loaded until a name that needs them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from brainkit._version import __version__
from brainkit.utils.lazy import lazy_names

# name -> the module that defines it; imported at first use.
_LAZY = {
    "fit": "brainkit.api",
    "Run": "brainkit.api",
    "save_run": "brainkit.api",
    "load": "brainkit.predict.encoder",
    "plot": "brainkit.plotting",
    "contrast": "brainkit.insilico.contrast",
    "evaluate": "brainkit.evaluation.evaluate",
    "evaluate_on_data": "brainkit.runs.evaluate",
    "load_backbone": "brainkit.backbones",
    "wrap_network": "brainkit.backbones",
    "FactorTopy": "brainkit.model.factor_topy",
    "EncodingModule": "brainkit.training.module",
    "EncodingData": "brainkit.training.datamodule",
    "import_published": "brainkit.runs.import_published",
}

__all__ = ["__version__", *sorted(_LAZY)]

if TYPE_CHECKING:
    from brainkit.api import Run, fit, save_run
    from brainkit.backbones import load_backbone, wrap_network
    from brainkit.evaluation.evaluate import evaluate
    from brainkit.insilico.contrast import contrast
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.plotting import plot
    from brainkit.predict.encoder import load
    from brainkit.runs.evaluate import evaluate_on_data
    from brainkit.runs.import_published import import_published
    from brainkit.training.datamodule import EncodingData
    from brainkit.training.module import EncodingModule

_lazy, _ = lazy_names(__name__, _LAZY)


def __getattr__(name: str) -> Any:
    if name == "data":  # a package of its own lazy names: brainkit.data.Algonauts
        return importlib.import_module("brainkit.data")
    return _lazy(name)


def __dir__() -> list[str]:
    return sorted(__all__)
