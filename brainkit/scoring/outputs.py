"""Predictions as files: rows as they come, and the JSON that says what is what."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.errors import DataError, UsageError
from brainkit.scoring.decoding import as_text
from brainkit.scoring.encoder import Encoder
from brainkit.scoring.image_list import ImageList
from brainkit.scoring.resume import write_all
from brainkit.surface import RoiTable


class RowWriter(Protocol):
    """A file of rows in the making: rows come in order, and how many there are is known at the end only."""

    def append(self, rows: np.ndarray) -> None:
        """Write rows (b, columns) float32."""

    def checkpoint(self) -> int:
        """Bring all rows to the disk; how many there are."""

    def finish(self) -> None:
        """Make it a file of its format; moving it to its place is the caller's."""

    def close(self) -> None: ...


class NpyRows:
    """A ``.npy`` file of float32 rows, whose number is known only at the end.

    Parameters
    ----------
    path : Path
    columns : int
    resume_rows : int
        The file is there and keeps so many rows; what follows them is cut off.

    Raises
    ------
    DataError
        If the file holds fewer rows than it is to keep.
    """

    _HEADER = 128  # bytes: room for any number of rows, and the alignment the format asks for

    def __init__(self, path: Path, columns: int, resume_rows: int = 0) -> None:
        self._columns, self._rows = columns, resume_rows
        # Unbuffered: a disk that is full must say so at once, and not again when the file is closed.
        self._stream = path.open("r+b" if resume_rows else "w+b", buffering=0)
        if not resume_rows:
            write_all(self._stream, self._header())
            return
        end = self._HEADER + resume_rows * columns * 4
        if self._stream.seek(0, os.SEEK_END) < end:
            self._stream.close()
            raise DataError(f"{path}: expected {resume_rows} rows to go on from, found a shorter file")
        self._stream.truncate(end)
        self._stream.seek(end)

    def append(self, rows: np.ndarray) -> None:
        write_all(self._stream, np.ascontiguousarray(rows, "<f4").data)
        self._rows += len(rows)

    def checkpoint(self) -> int:
        os.fsync(self._stream.fileno())
        return self._rows

    def finish(self) -> None:
        self._stream.seek(0)
        write_all(self._stream, self._header())
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def _header(self) -> bytes:
        start = b"\x93NUMPY\x01\x00"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._columns}), }}".encode()
        length = self._HEADER - len(start) - 2
        return start + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


def make_writer(
    path: Path, final: Path, info: EncoderInfo, columns: np.ndarray | None, *, resume_rows: int = 0
) -> RowWriter:
    """The writer of an output's format, which its suffix names.

    Parameters
    ----------
    path : Path
        Where to write.
    final : Path
        Where the output is to be.
    info : EncoderInfo
    columns : array of shape (n,), int, optional
        Which of the encoder's vertices the columns are; None: all.
    resume_rows : int
        Rows that are there already.
    """
    return NpyRows(path, len(info.vertices) if columns is None else len(columns), resume_rows)


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
    images: ImageList,
    rows: int,
    columns: np.ndarray | None,
    regions: dict[str, np.ndarray],
) -> None:
    """Write what the rows and columns of an output are; images are written as they are read from their list."""
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
        "shape": [rows, len(ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": (as_text(name) for name in images.readable()),
        "skipped": ({"path": as_text(name), "reason": reason} for name, reason in images.skipped()),
        "notes": ({"path": as_text(name), "note": as_text(note)} for name, note in images.notes()),
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
    with path.open("w", encoding="utf-8") as file:
        write_streaming(file, description)
        file.flush()
        os.fsync(file.fileno())


def write_streaming(file: TextIO, value: dict[str, Any]) -> None:
    """Write an object as indented JSON; where a value is an iterator, its items as they come."""
    for number, (key, each) in enumerate(value.items()):
        file.write(f"{',' if number else '{'}\n  {json.dumps(key)}: ")
        if not isinstance(each, Iterator):
            file.write(_indented(each, "  "))
            continue
        start = "["
        for item in each:
            file.write(f"{start}\n    {_indented(item, '    ')}")
            start = ","
        file.write("[]" if start == "[" else "\n  ]")
    file.write("\n}\n")


def _indented(value: Any, by: str) -> str:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).replace("\n", f"\n{by}")
