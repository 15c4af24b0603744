"""The encoder file: its metadata, reading and writing it safely. Names load on first use; none needs torch or ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

# name -> the module that defines it
_LAZY = {
    "FORMAT": "brainkit.encoder_file.metadata",
    "MAX_FILE": "brainkit.encoder_file.container",
    "MAX_METADATA": "brainkit.encoder_file.container",
    "SCHEMA": "brainkit.encoder_file.metadata",
    "EncoderInfo": "brainkit.encoder_file.info",
    "from_json": "brainkit.encoder_file.metadata",
    "locate": "brainkit.encoder_file.file",
    "pack_array": "brainkit.encoder_file.arrays",
    "read": "brainkit.encoder_file.file",
    "read_text": "brainkit.encoder_file.file",
    "seal": "brainkit.encoder_file.file",
    "to_json": "brainkit.encoder_file.metadata",
    "unpack_array": "brainkit.encoder_file.arrays",
    "write": "brainkit.encoder_file.file",
    "write_archive": "brainkit.encoder_file.file",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.encoder_file.arrays import pack_array, unpack_array
    from brainkit.encoder_file.container import MAX_FILE, MAX_METADATA
    from brainkit.encoder_file.file import locate, read, read_text, seal, write, write_archive
    from brainkit.encoder_file.info import EncoderInfo
    from brainkit.encoder_file.metadata import FORMAT, SCHEMA, from_json, to_json

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
