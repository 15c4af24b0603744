"""One subject: images, responses and what is known of each vertex, whatever layout they came in.

Every array with a vertex axis is cut to the usable vertices here, in `assemble`, and nowhere else.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.cortex.volume import Volume
from brainkit.errors import DataError, UsageError
from brainkit.images import content_hash, decode, verify
from brainkit.utils.files import read_json
from brainkit.utils.text import one_line

DEFAULT_UNITS = "z-scored percent signal change"

# Rows read at a time when all responses are looked through: about 40 MB for 40,000 vertices.
_BLOCK = 256


class Responses:
    """Responses on disk, read a few rows at a time.

    Parameters
    ----------
    files : sequence of sequences of Path
        ``.npy`` files: the inner ones lie side by side (left hemisphere, right hemisphere), the outer ones below each
        other (training rows, official test rows).
    columns : array of shape (V,), int64, optional
        The columns kept, increasing; all of them by default.

    Raises
    ------
    DataError
        If a file is missing, is not a float32 or float64 matrix, or the shapes do not fit together.
    """

    def __init__(self, files: Sequence[Sequence[Path]], columns: npt.NDArray[np.int64] | None = None) -> None:
        self.files = tuple(tuple(Path(file) for file in block) for block in files)
        self._open()
        total = sum(self._widths)
        self.columns = np.arange(total) if columns is None else np.asarray(columns, np.int64)
        edges = np.cumsum([0, *self._widths])
        # Per file: which of its columns are kept; None for all, which spares a copy.
        self._kept: list[npt.NDArray[np.int64] | None] = []
        for low, high in itertools.pairwise(edges):
            kept = self.columns[(self.columns >= low) & (self.columns < high)] - low
            self._kept.append(None if len(kept) == high - low else kept)

    @property
    def shape(self) -> tuple[int, int]:
        """(n images, V kept columns)."""
        return sum(self.block_rows), len(self.columns)

    @property
    def block_rows(self) -> tuple[int, ...]:
        """Rows of each block (training, official test)."""
        return tuple(len(block[0]) for block in self._arrays)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, index: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Read rows, in the order asked for.

        Parameters
        ----------
        index : array of shape (k,), int, 0 <= index < n

        Returns
        -------
        array of shape (k, V), float32

        Raises
        ------
        UsageError
            If an index is out of range.
        """
        wanted = np.asarray(index)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise UsageError(f"index must be a row of integers, got {wanted.dtype} of shape {wanted.shape}")
        n, vertices = self.shape
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < n):
            raise UsageError(f"index must lie in 0 .. {n - 1}, got {wanted.min()} .. {wanted.max()}")
        out = np.empty((len(wanted), vertices), np.float32)
        # The disk is read forwards, whatever the order asked for.
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        start = 0
        for block, count in zip(self._arrays, self.block_rows, strict=True):
            here = (ordered >= start) & (ordered < start + count)
            if here.any():
                column = 0
                for part, kept in zip(block, self._kept, strict=True):
                    values = part[ordered[here] - start]
                    values = values if kept is None else values[:, kept]
                    with np.errstate(over="ignore"):
                        out[order[here], column : column + values.shape[1]] = values
                    column += values.shape[1]
            start += count
        return out

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """All rows in order, a few at a time: arrays of shape (<= 256, V), float32."""
        for start in range(0, len(self), _BLOCK):
            yield self.rows(np.arange(start, min(start + _BLOCK, len(self))))

    def keep(self, columns: npt.NDArray[np.int64]) -> Responses:
        """The same responses with fewer columns; `columns` are positions among those kept now."""
        return Responses(self.files, self.columns[columns])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry the whole matrix to every worker process.
        return {"files": self.files, "columns": self.columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["files"], state["columns"])  # type: ignore[misc]

    def _open(self) -> None:
        self._arrays = [[open_matrix(file) for file in block] for block in self.files]
        self._widths = [part.shape[1] for part in self._arrays[0]]
        for files, block in zip(self.files, self._arrays, strict=True):
            for file, part, width in zip(files, block, self._widths, strict=True):
                if len(part) != len(block[0]):
                    raise DataError(
                        f"{file}: expected {len(block[0])} rows as in {files[0].name}, found {len(part)} rows"
                    )
                if part.shape[1] != width:
                    raise DataError(
                        f"{file}: expected {width} columns as in {self.files[0][0].parent}, found {part.shape[1]}"
                    )


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject's images and responses; ``subject[i]`` is an image and its responses.

    Attributes
    ----------
    name : str
    root : Path
    images : tuple of Path, (n,)
        Row i of the responses belongs to image i.
    responses : Responses
        n rows, V columns.
    groups : tuple of str, (n,)
        Which stimulus each image is (or was cut from); images of one group never land on two sides of a split.
    official_test : array of shape (n,), bool
        Rows that the data set itself sets aside for testing.
    vertices : Vertices
        What the V columns are.
    rois : RoiTable
    noise_ceiling : array of shape (V,), float32, in [0, 1], or None
        Ceiling on r squared.
    excluded : dict
        ``{"constant": ids, "nan": ids}``: vertex ids (as in `vertices`; for the custom space column numbers) left out
        because all training responses are equal, or some response is not finite.
    units : str
        Of the responses.
    note : str or None
        Shown wherever results are, for example that the subject is simulated.
    own_coordinates : array of shape (V, 3), float32, or None
        Coordinates that came with the data, in mm.
    volume : Volume or None
        Which voxels the vertices are, where the data are volumetric.
    """

    name: str
    root: Path
    images: tuple[Path, ...]
    responses: Responses
    groups: tuple[str, ...]
    official_test: npt.NDArray[np.bool_]
    vertices: Vertices
    rois: RoiTable
    noise_ceiling: npt.NDArray[np.float32] | None
    excluded: dict[str, list[int]]
    units: str = DEFAULT_UNITS
    note: str | None = None
    own_coordinates: npt.NDArray[np.float32] | None = None
    volume: Volume | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, npt.NDArray[np.float32]]:
        """Image i (RGB) and its responses (V,), float32."""
        position = i + len(self) if i < 0 else i
        if not 0 <= position < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return decode(self.images[position]), self.responses.rows([position])[0]

    @functools.cached_property
    def coordinates(self) -> npt.NDArray[np.float32]:
        """Cortical coordinates of the vertices: array of shape (V, 3), float32, mm.

        Those that came with the data, else on the sphere of the vertices' space.
        """
        return sphere_coordinates(self.vertices) if self.own_coordinates is None else self.own_coordinates

    @functools.cached_property
    def data_hash(self) -> str:
        """SHA-256 over the responses' files, the images' files in order, and the vertices kept, in hexadecimal.

        Reads everything once; names and places of the files do not matter.
        """
        digest = hashlib.sha256(b"brainkit data 1")
        files = [*itertools.chain.from_iterable(self.responses.files), *self.images]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for value in pool.map(content_hash, files):
                digest.update(bytes.fromhex(value))
        digest.update(self.vertices.space.encode() + b"\0" + self.vertices.ids.astype("<i4").tobytes())
        digest.update(self.responses.columns.astype("<i8").tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """One line for people."""
        test = int(self.official_test.sum())
        parts = [
            f"{len(self):,} images" + (f" ({test:,} of them official test)" if test else ""),
            f"{len(self.vertices):,} vertices"
            + (f" of {self.vertices.space}" if self.vertices.space != CUSTOM else " of its own"),
            f"{len(self.rois)} ROIs",
            "noise ceilings" if self.noise_ceiling is not None else "no noise ceilings",
        ]
        dropped = [f"{len(ids):,} {why}" for why, ids in self.excluded.items() if ids]
        if dropped:
            parts.append(f"left out: {' and '.join(dropped)} vertices")
        return f"{self.name}: {', '.join(parts)}" + (f"; {self.note}" if self.note else "")


def assemble(
    *,
    name: str,
    root: Path,
    images: Sequence[Path],
    responses: Responses,
    groups: Sequence[str],
    official_test: npt.NDArray[np.bool_],
    vertices: Vertices,
    rois: Mapping[str, npt.NDArray[np.integer[Any]]],
    noise_ceiling: npt.NDArray[np.float32] | None,
    own_coordinates: npt.NDArray[np.float32] | None = None,
    volume: Volume | None = None,
    units: str = DEFAULT_UNITS,
    note: str | None = None,
) -> Subject:
    """Build a `Subject` from arrays over ALL columns, leaving out the vertices that cannot be used.

    Raises
    ------
    DataError
        If no vertex is left.
    """
    constant, not_finite = _unusable(responses, n_training=int((~official_test).sum()))
    kept = np.flatnonzero(~(constant | not_finite))
    if not len(kept):
        raise DataError(
            f"{responses.files[0][0].parent}: expected responses that vary, found every one of {len(vertices)} "
            f"vertices constant ({int(constant.sum())}) or not finite ({int(not_finite.sum())})"
        )
    custom = vertices.space == CUSTOM
    return Subject(
        name=name,
        root=root,
        images=tuple(images),
        responses=responses.keep(kept),
        groups=tuple(groups),
        official_test=official_test,
        # The custom space only numbers its columns, so it is numbered afresh.
        vertices=Vertices(CUSTOM, np.arange(len(kept))) if custom else vertices.select(kept),
        rois=RoiTable(rois, len(vertices)).subset(kept),
        noise_ceiling=None if noise_ceiling is None else noise_ceiling[kept],
        excluded={"constant": vertices.ids[constant].tolist(), "nan": vertices.ids[not_finite].tolist()},
        own_coordinates=None if own_coordinates is None else own_coordinates[kept],
        volume=None if volume is None else volume.select(kept),
        units=units,
        note=note,
    )


def check_images(subject: Subject, *, full: bool = False, progress: Callable[[int, int], None] | None = None) -> None:
    """Check that every image of a subject can be read.

    Parameters
    ----------
    subject : Subject
    full : bool
        Decode every pixel. Otherwise headers and, for PNG, checksums are checked, which finds truncated PNG files but
        not truncated JPEG files.
    progress : callable, optional
        Called with (done, all) after each image.

    Raises
    ------
    DataError
        Naming the first unreadable image and how many more there are.
    """
    problems: list[str] = []
    for done, image in enumerate(subject.images, 1):
        try:
            decode(image) if full else verify(image)
        except DataError as error:
            problems.append(str(error))
        if progress is not None:
            progress(done, len(subject.images))
    if problems:
        more = f" (and {len(problems) - 1} more unreadable images)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)


def open_array(path: Path, what: str) -> npt.NDArray[Any]:
    """Memory-map a ``.npy`` file of plain numbers.

    Raises
    ------
    DataError
        If it is missing, is not a ``.npy`` file, is shorter than its header says, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected {what}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: expected {what} as .npy, found a damaged or different file ({one_line(error)})"
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: expected {what} as .npy, found an .npz archive")
    return array


def open_matrix(path: Path) -> npt.NDArray[Any]:
    """Memory-map responses: a ``.npy`` file of shape (images, vertices), float32 or float64.

    Raises
    ------
    DataError
        As `open_array`, and for another shape or dtype.
    """
    array = open_array(path, "responses (images, vertices)")
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{path}: expected responses of shape (images, vertices), found shape {array.shape}")
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise DataError(f"{path}: expected float32 or float64 responses, found {array.dtype}")
    return array


def read_noise_ceiling(parts: Sequence[tuple[Path, int]]) -> npt.NDArray[np.float32]:
    """Read noise ceilings, one file per hemisphere (or one in all), as fractions.

    Values over 1 anywhere mean percent. NaN (no estimate) becomes 0: nothing is known to be explainable there.

    Parameters
    ----------
    parts : sequence of (path, number of vertices)

    Returns
    -------
    array of shape (V,), float32, in [0, 1]

    Raises
    ------
    DataError
        If a length, dtype or value is wrong.
    """
    values = []
    for path, count in parts:
        array = open_array(path, f"noise ceilings of {count} vertices")
        if array.size != count or max(array.shape, default=0) != count:
            raise DataError(f"{path}: expected noise ceilings of {count} vertices, found shape {array.shape}")
        if array.dtype.kind not in "fiu":
            raise DataError(f"{path}: expected numbers, found {array.dtype}")
        one = np.nan_to_num(np.asarray(array, np.float64).ravel(), nan=0.0, posinf=np.inf, neginf=-np.inf)
        if one.size and (one.min() < -1e-6 or one.max() > 100.01):
            raise DataError(
                f"{path}: expected noise ceilings from 0 to 1, or 0 to 100 percent, "
                f"found {one.min():g} to {one.max():g}"
            )
        values.append(one)
    whole = np.concatenate(values)
    # Both hemispheres together decide, so that a weak one is not read on another scale than its partner.
    if whole.size and whole.max() > 1.01:
        whole = whole / 100.0
    return np.clip(whole, 0.0, 1.0).astype(np.float32)


def read_note(root: Path) -> str | None:
    """The note of a simulated subject: "note" of ``simulated.json``, or the first line of ``SIMULATED.txt``."""
    described, text = root / "simulated.json", root / "SIMULATED.txt"
    if described.is_file():
        value = read_json(described)
        note = value.get("note") if isinstance(value, dict) else None
        if not isinstance(note, str) or not note.strip():
            raise DataError(f'{described}: expected an object with a text "note", found none')
        return " ".join(note.split())
    if text.is_file():
        try:
            lines = text.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise DataError(f"{text}: expected text: {error}") from None
        return next((" ".join(line.split()) for line in lines if line.strip()), "SIMULATED subject")
    return None


def read_groups(path: Path, known: set[str]) -> dict[str, str]:
    """Read ``stimuli.json``, {image file name: group}; an empty dict if there is no such file.

    Raises
    ------
    DataError
        If it is not an object of texts, or names an image that is not there: with a misspelt name an image would
        silently become a group of its own.
    """
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(group, str) and group for group in value.values()):
        raise DataError(f"{path}: expected an object {{image file name: group}}, found something else")
    strangers = sorted(set(value) - known)
    if strangers:
        raise DataError(f"{path}: expected names of image files, found {strangers[0]!r}, which is not there")
    return value


def _unusable(responses: Responses, n_training: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Look through all rows once: which columns are constant over training, which hold something not finite."""
    vertices = responses.shape[1]
    constant, not_finite = np.ones(vertices, bool), np.zeros(vertices, bool)
    first = responses.rows([0])[0]
    start = 0
    for block in responses.blocks():
        not_finite |= ~np.isfinite(block).all(axis=0)
        constant &= (block[: max(n_training - start, 0)] == first).all(axis=0)
        start += len(block)
    # Not finite comes first: such a column is never counted twice.
    return constant & ~not_finite, not_finite
