"""Rows as images of the brain: GIFTI and MGZ on a whole surface, NIfTI in a volume; NaN where nothing is predicted.

These formats store the number of images at their start, so rows wait in a ``.npy`` file and are converted at the end,
one image at a time: memory does not grow. (nibabel writes its headers and footers here; it could write the data from a
memory map, but that map would hold the whole surface or volume for each image, 8 times the rows for a subject of
Algonauts, hundreds of times for one region.)
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from brainkit.cortex.vertices import SPACES
from brainkit.predict.outputs.npy import HEADER_BYTES, NpyRows
from brainkit.predict.outputs.rows import Layout, RowWriter

_BLOCK = 4 << 20  # bytes of rows read at once
_COMPRESSION = 4  # of 9: more effort hardly makes float32 smaller

AddMap = Callable[[np.ndarray, str], object]  # takes the values of one image (float32, the whole grid) and its name


@dataclass(frozen=True)
class Target:
    """An image file, and which columns of the rows go where in it.

    Parameters
    ----------
    path : Path
    columns : slice
        Which of the columns.
    positions : array of int
        Where each goes on the grid: a vertex of the hemisphere, or a voxel in Fortran order.
    shape : tuple of int
        Of the grid: (vertices of the hemisphere,) or (X, Y, Z).
    structure : str
        ``"CortexLeft"`` or ``"CortexRight"``; empty for a volume.
    affine : array of shape (4, 4), optional
        Of a volume: voxel to mm.
    """

    path: Path
    columns: slice
    positions: np.ndarray
    shape: tuple[int, ...]
    structure: str = ""
    affine: np.ndarray | None = None


def open_gifti(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """``.func.gii``, one file per hemisphere: a data array per image, named after it."""
    return StagedRows(path, len(layout.vertices), _surface_targets(path, layout), gifti_file, resume_rows)


def open_mgz(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """``.mgz``, one file per hemisphere, of shape (vertices, 1, 1, images), as FreeSurfer stores overlays."""
    return StagedRows(path, len(layout.vertices), _surface_targets(path, layout), mgz_file, resume_rows)


def open_nifti(path: Path, layout: Layout, resume_rows: int) -> RowWriter:
    """``.nii.gz`` of shape (X, Y, Z, images)."""
    volume = layout.info.volume
    assert volume is not None  # formats.check_layout
    voxels = volume.voxels if layout.columns is None else volume.voxels[layout.columns]
    positions = np.ravel_multi_index(tuple(voxels.T.astype(np.intp)), volume.shape, order="F")
    targets = [Target(path, slice(None), positions, volume.shape, affine=volume.affine)]
    return StagedRows(path, len(layout.vertices), targets, nifti_file, resume_rows)


class StagedRows(NpyRows):
    """Rows that wait in a ``.npy`` file, and become images of the brain at the end.

    Parameters
    ----------
    path : Path
        The rows wait next to it, in a file with ``.rows`` at its end, which is left there: an interrupted conversion
        can be repeated.
    columns : int
    targets : sequence of Target
    open_file : callable
        `gifti_file`, `mgz_file` or `nifti_file`.
    resume_rows : int
    """

    def __init__(
        self,
        path: Path,
        columns: int,
        targets: Sequence[Target],
        open_file: Callable[[Target, int], contextlib.AbstractContextManager[AddMap]],
        resume_rows: int = 0,
    ) -> None:
        super().__init__(path.with_name(f"{path.name}.rows"), columns, resume_rows)
        self._targets, self._open_file = targets, open_file

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the image files."""
        super().finish()
        rows_at_once = max(1, _BLOCK // (4 * max(1, self.columns)))
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(self.path.open("rb"))
            stream.seek(HEADER_BYTES)
            writers = [stack.enter_context(self._open_file(target, self.rows)) for target in self._targets]
            remaining = iter(names)
            for first in range(0, self.rows, rows_at_once):
                block = np.fromfile(stream, "<f4", min(rows_at_once, self.rows - first) * self.columns)
                for row in block.reshape(-1, self.columns):
                    name = next(remaining, "")
                    for target, add_map in zip(self._targets, writers, strict=True):
                        values = np.full(np.prod(target.shape), np.nan, np.float32)
                        values[target.positions] = row[target.columns]
                        add_map(values, name)


@contextlib.contextmanager
def gifti_file(target: Target, count: int) -> Iterator[AddMap]:
    """A GIFTI file for `count` images. nibabel would hold all of them in memory."""
    from nibabel.gifti import GiftiDataArray, GiftiMetaData

    with target.path.open("wb") as stream:
        stream.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">\n'
            f'<GIFTI Version="1.0" NumberOfDataArrays={quoteattr(str(count))}>'.encode()
        )
        stream.write(GiftiMetaData(AnatomicalStructurePrimary=target.structure).to_xml() + b"<LabelTable />\n")

        def add_map(values: np.ndarray, name: str) -> None:
            array = GiftiDataArray(
                values,
                intent="NIFTI_INTENT_NONE",
                datatype="NIFTI_TYPE_FLOAT32",
                encoding="GIFTI_ENCODING_B64GZ",
                meta=GiftiMetaData(Name=_xml_text(name)) if name else None,
            )
            stream.write(array.to_xml() + b"\n")

        yield add_map
        stream.write(b"</GIFTI>\n")


@contextlib.contextmanager
def mgz_file(target: Target, count: int) -> Iterator[AddMap]:
    """An MGZ file for `count` images."""
    from nibabel.freesurfer.mghformat import MGHHeader

    header = MGHHeader()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*target.shape, 1, 1, count))
    with _gzip_file(target.path) as stream:
        header.writehdr_to(stream)
        stream.write(bytes(header.get_data_offset() - stream.tell()))
        yield lambda values, name: stream.write(values.astype(">f4").data)
        header.writeftr_to(stream)


@contextlib.contextmanager
def nifti_file(target: Target, count: int) -> Iterator[AddMap]:
    """A NIfTI file for `count` images; NIfTI-2 if there are more than NIfTI-1 can count."""
    import nibabel

    affine = np.asarray(target.affine, np.float64)
    header: Any = nibabel.Nifti1Header() if count < 1 << 15 else nibabel.Nifti2Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*target.shape, count))
    header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), 1.0))
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_slope_inter(1.0, 0.0)
    header["magic"] = header.single_magic
    header.set_data_offset(header.single_vox_offset)
    with _gzip_file(target.path) as stream:
        header.write_to(stream)
        stream.write(bytes(header.get_data_offset() - stream.tell()))
        yield lambda values, name: stream.write(values.astype("<f4").data)


@contextlib.contextmanager
def _gzip_file(path: Path) -> Iterator[IO[bytes]]:
    """A gzip file whose bytes depend neither on the clock nor on its name."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as stream:
        yield stream  # type: ignore[misc]


def _surface_targets(path: Path, layout: Layout) -> list[Target]:
    vertices = layout.vertices
    positions = {"left": vertices.left, "right": vertices.right}
    return [
        Target(part.path(path), part.columns, positions[part.hemisphere], (SPACES[vertices.space],), part.structure)
        for part in layout.parts
        if part.hemisphere
    ]


def _xml_text(name: str) -> str:
    """A name as XML can hold it: control characters, newlines too, become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in name)
