"""Rows as ``.npz``: they wait in a ``.npy`` file, which can be resumed, and NumPy packs it in chunks at the end."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from brainkit.predict.outputs.npy import NpyRows
from brainkit.predict.outputs.rows import Layout, RowWriter


def open_npz(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """``fmri`` (n, columns) float32, ``vertices``, ``units``, ``space``, ``note`` and ``images``."""
    info = layout.info
    facts = {"units": info.units, "space": layout.vertices.space, "note": info.note or ""}
    arrays = {"vertices": layout.ids, **{name: np.array(text) for name, text in facts.items()}}
    return NpzRows(path, len(layout.vertices), arrays, resume_rows)


class NpzRows(NpyRows):
    """A ``.npz`` file with ``fmri``, other arrays, and the images' names as ``images``.

    Parameters
    ----------
    path : Path
        The rows wait next to it, in a file with ``.rows`` at its end.
    columns : int
    arrays : mapping of str to array
        What else is stored, such as the vertices' ids.
    resume_rows : int
    """

    def __init__(self, path: Path, columns: int, arrays: Mapping[str, np.ndarray], resume_rows: int = 0) -> None:
        super().__init__(path.with_name(f"{path.name}.rows"), columns, resume_rows)
        self._target, self._arrays = path, arrays

    def finish(self, names: Collection[str] = ()) -> None:
        super().finish()
        with self._target.open("w+b") as stream:
            np.savez(stream, fmri=np.load(self.path, mmap_mode="r"), **self._arrays)  # type: ignore[arg-type]
            if len(names):
                with zipfile.ZipFile(stream, "a") as archive:
                    member = zipfile.ZipInfo("images.npy")  # dated 1980: the bytes do not depend on the clock
                    member.compress_type = zipfile.ZIP_DEFLATED
                    with archive.open(member, "w", force_zip64=True) as file:
                        _write_names(file, names)


def _write_names(file: IO[bytes], names: Collection[str]) -> None:
    """A .npy array of text, some names at a time: NumPy stores each as wide as the longest."""
    width = max(1, max(map(len, names)))
    header = {"descr": f"<U{width}", "fortran_order": False, "shape": (len(names),)}
    np.lib.format.write_array_header_1_0(file, header)
    remaining = iter(names)
    while some := list(itertools.islice(remaining, 1024)):
        file.write(np.array(some, dtype=f"<U{width}").tobytes())
