"""Predictions as files: rows as they come, and the JSON that says what is what."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from brainkit.errors import DataError, UsageError
from brainkit.files import write_json
from brainkit.scoring.decoding import as_text
from brainkit.scoring.encoder import Encoder
from brainkit.surface import RoiTable


class NpyRows:
    """A ``.npy`` file of float32 rows, whose number is known only at the end."""

    _HEADER = 128  # bytes: room for any number of rows, and the alignment the format asks for

    def __init__(self, stream: BinaryIO, columns: int) -> None:
        self._stream, self._columns, self._rows = stream, columns, 0

    def __enter__(self) -> NpyRows:
        self._stream.write(self._header())
        return self

    def append(self, rows: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(rows, "<f4").data)
        self._rows += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.seek(0)
            self._stream.write(self._header())

    def _header(self) -> bytes:
        start = b"\x93NUMPY\x01\x00"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._columns}), }}".encode()
        length = self._HEADER - len(start) - 2
        return start + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


def check_output(out: Path, overwrite: bool) -> Path:
    """Refuse what cannot be written before any work is done; the path of the JSON beside."""
    if out.suffix != ".npy":
        raise UsageError(f"{out}: the output must end in .npy")
    if not out.parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; make it first")
    beside = out.with_suffix(".json")
    for path in (out, beside):
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; the output must be a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; --overwrite replaces it")
    return beside


def chosen_columns(table: RoiTable, names: tuple[str, ...] | None) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The columns to keep, ascending (None: all), and where each region lies among them."""
    if not names:
        return None, {}
    members = {name: table.members(name) for name in names}
    columns = np.unique(np.concatenate(list(members.values())))
    if not len(columns):
        raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    return columns, {name: np.searchsorted(columns, index) for name, index in members.items()}


def write_description(
    path: Path,
    out: Path,
    encoder: Encoder,
    written: list[Path],
    skipped: list[tuple[Path, str]],
    columns: np.ndarray | None,
    regions: dict[str, np.ndarray],
) -> None:
    info = encoder.info
    ids = info.vertices.ids if columns is None else info.vertices.ids[columns]
    digest = hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest()
    vertices: dict[str, Any] = {"count": len(ids), "sha256": digest}
    if columns is None:
        vertices["where"] = "all vertices of the encoder file, in its order"
    else:
        vertices["ids"] = ids.tolist()
    description: dict[str, Any] = {
        "file": out.name,
        "shape": [len(written), len(ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": [as_text(image) for image in written],
        "skipped": [{"path": as_text(image), "reason": reason} for image, reason in skipped],
        "units": info.units,
        "space": info.vertices.space,
        "vertices": vertices,
        "encoder": {
            "file": as_text(encoder.path),
            "sha256": info.digest,
            "backbone": info.backbone.get("name"),
            "device": encoder.device,
        },
        "note": info.note,
    }
    if regions:
        description["rois"] = {name: index.tolist() for name, index in regions.items()}
    write_json(path, description)
