"""Predicting fMRI from images with an encoder file: ONNX Runtime and NumPy, no torch. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

# name -> the module that defines it
_LAZY = {
    "DEVICES": "brainkit.predict.encoder",
    "ENGINES": "brainkit.predict.to_file",
    "Block": "brainkit.predict.pipeline",
    "Encoder": "brainkit.predict.encoder",
    "ImageList": "brainkit.predict.inputs.image_list",
    "PredictResult": "brainkit.predict.to_file",
    "description_path": "brainkit.predict.outputs.formats",
    "list_images": "brainkit.predict.inputs.sources",
    "load": "brainkit.predict.encoder",
    "local_blocks": "brainkit.predict.pipeline",
    "predict_to_file": "brainkit.predict.to_file",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.predict.encoder import DEVICES, Encoder, load
    from brainkit.predict.inputs.image_list import ImageList
    from brainkit.predict.inputs.sources import list_images
    from brainkit.predict.outputs.formats import description_path
    from brainkit.predict.pipeline import Block, local_blocks
    from brainkit.predict.to_file import ENGINES, PredictResult, predict_to_file

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
