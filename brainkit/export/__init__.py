"""Trained models as encoder files. README.md: which file builds which part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from brainkit.export.export import Exported, describe, export_onnx, export_torch
    from brainkit.export.parity import relative_difference
    from brainkit.export.storage import check_storage, drift_text
    from brainkit.export.token_module import torch_predictions
    from brainkit.export.torch_forms import RUNTIMES
    from brainkit.export.vertex_subset import VertexSubset, choose_subset

_NAMES = {
    "RUNTIMES": "brainkit.export.torch_forms",
    "Exported": "brainkit.export.export",
    "VertexSubset": "brainkit.export.vertex_subset",
    "check_storage": "brainkit.export.storage",
    "choose_subset": "brainkit.export.vertex_subset",
    "describe": "brainkit.export.export",
    "drift_text": "brainkit.export.storage",
    "export_onnx": "brainkit.export.export",
    "export_torch": "brainkit.export.export",
    "relative_difference": "brainkit.export.parity",
    "torch_predictions": "brainkit.export.token_module",
}

__all__ = sorted(_NAMES)

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
