"""Rows as images of the brain: GIFTI and MGZ on a whole surface, NIfTI in a volume.

These formats want to know at the start how many images there are, so rows wait in a file beside, and are brought over
at the end, one at a time: memory does not grow with them. Where nothing was predicted the value is NaN.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from xml.sax.saxutils import quoteattr

import numpy as np

from brainkit.predict.outputs.npy import HEADER_BYTES, NpyRows

_BLOCK = 4 << 20  # bytes of rows read at once
_COMPRESSION = 4  # of 9: numbers shrink little, however long one tries


@dataclass(frozen=True)
class Place:
    """Where some columns of the rows go.

    Parameters
    ----------
    path : Path
    columns : slice
        Which of the columns.
    positions : array of int
        Where each lies among the `size` places of the image: a vertex of the hemisphere, or a voxel in Fortran order.
    size : int
    structure : str
        ``"CortexLeft"`` or ``"CortexRight"``; empty for a volume.
    shape, affine
        Of a volume.
    """

    path: Path
    columns: slice
    positions: np.ndarray
    size: int
    structure: str = ""
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None


class Frames(Protocol):
    """An image file being written, one map of all its places after the other."""

    def add(self, values: np.ndarray, name: str) -> None: ...

    def __enter__(self) -> Frames: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StagedRows(NpyRows):
    """Rows that wait in a ``.npy`` file, and become images of the brain at the end.

    Parameters
    ----------
    waiting : Path
        The file in which they wait. It is left, so that images that were interrupted can be made again.
    columns : int
    places : sequence of Place
        One for each image file.
    suffix : {".func.gii", ".mgz", ".nii.gz"}
    resume_rows : int
    """

    def __init__(self, waiting: Path, columns: int, places: Sequence[Place], suffix: str, resume_rows: int = 0) -> None:
        super().__init__(waiting, columns, resume_rows)
        self._places, self._suffix = places, suffix

    def finish(self, names: Collection[str] = ()) -> None:
        """Write the image files."""
        super().finish()
        at_once = max(1, _BLOCK // (4 * max(1, self.columns)))
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(self.path.open("rb"))
            stream.seek(HEADER_BYTES)
            files = [stack.enter_context(open_frames(self._suffix, place, self.rows)) for place in self._places]
            left = iter(names)
            for first in range(0, self.rows, at_once):
                block = np.fromfile(stream, "<f4", min(at_once, self.rows - first) * self.columns)
                for values in block.reshape(-1, self.columns):
                    name = next(left, "")
                    for place, file in zip(self._places, files, strict=True):
                        whole = np.full(place.size, np.nan, np.float32)
                        whole[place.positions] = values[place.columns]
                        file.add(whole, name)


def open_frames(suffix: str, place: Place, count: int) -> Frames:
    """An image file for `count` maps."""
    if suffix == ".func.gii":
        return GiftiFrames(place, count)
    return MgzFrames(place, count) if suffix == ".mgz" else NiftiFrames(place, count)


class GiftiFrames:
    """A ``.func.gii`` file: a data array for each image, named by it."""

    def __init__(self, place: Place, count: int) -> None:
        self._stream = place.path.open("wb")
        self._stream.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">\n'
            f'<GIFTI Version="1.0" NumberOfDataArrays={quoteattr(str(count))}>'.encode()
        )
        from nibabel.gifti import GiftiMetaData

        self._stream.write(GiftiMetaData(AnatomicalStructurePrimary=place.structure).to_xml() + b"<LabelTable />\n")

    def add(self, values: np.ndarray, name: str) -> None:
        from nibabel.gifti import GiftiDataArray, GiftiMetaData

        array = GiftiDataArray(
            values,
            intent="NIFTI_INTENT_NONE",
            datatype="NIFTI_TYPE_FLOAT32",
            encoding="GIFTI_ENCODING_B64GZ",
            meta=GiftiMetaData(Name=_xml_text(name)) if name else None,
        )
        self._stream.write(array.to_xml() + b"\n")

    def __enter__(self) -> GiftiFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            if kind is None:
                self._stream.write(b"</GIFTI>\n")


class _Gzipped:
    """A gzip file whose bytes do not depend on the clock or its name."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        self._stream = gzip.GzipFile("", "wb", _COMPRESSION, self._raw, mtime=0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._raw:
            self._stream.close()


class MgzFrames(_Gzipped):
    """An ``.mgz`` file of shape (vertices, 1, 1, images), as FreeSurfer keeps overlays."""

    def __init__(self, place: Place, count: int) -> None:
        from nibabel.freesurfer.mghformat import MGHHeader

        super().__init__(place.path)
        self._header = MGHHeader()
        self._header.set_data_dtype(np.float32)
        self._header.set_data_shape((place.size, 1, 1, count))
        self._header.writehdr_to(self._stream)
        self._stream.write(bytes(self._header.get_data_offset() - self._stream.tell()))

    def add(self, values: np.ndarray, name: str) -> None:
        self._stream.write(values.astype(">f4").data)

    def __enter__(self) -> MgzFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._header.writeftr_to(self._stream)
        super().__exit__(kind, error, trace)


class NiftiFrames(_Gzipped):
    """A ``.nii.gz`` file of shape (X, Y, Z, images); NIfTI-2 where there are more images than NIfTI-1 can count."""

    def __init__(self, place: Place, count: int) -> None:
        import nibabel

        super().__init__(place.path)
        affine = np.asarray(place.affine, np.float64)
        header: Any = nibabel.Nifti1Header() if count < 1 << 15 else nibabel.Nifti2Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((*place.shape, count))
        header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), 1.0))
        header.set_xyzt_units("mm")
        header.set_sform(affine, code="scanner")
        header.set_slope_inter(1.0, 0.0)
        header["magic"] = header.single_magic
        header.set_data_offset(header.single_vox_offset)
        header.write_to(self._stream)
        self._stream.write(bytes(header.get_data_offset() - self._stream.tell()))

    def add(self, values: np.ndarray, name: str) -> None:
        self._stream.write(values.astype("<f4").data)

    def __enter__(self) -> NiftiFrames:
        return self


def _xml_text(name: str) -> str:
    """A name as XML can hold it: its control characters, newlines too, become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in name)
