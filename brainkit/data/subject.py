"""One subject: images, responses, and properties of each vertex, independent of the layout on disk.

Only `assemble` restricts arrays with a vertex axis to the usable vertices.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
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
from brainkit.data.responses import Responses, open_array
from brainkit.errors import DataError
from brainkit.images import content_hash, decode, verify
from brainkit.utils.files import read_json, read_text
from brainkit.utils.progress import Progress
from brainkit.utils.system import cores
from brainkit.utils.text import plural

DEFAULT_UNITS = "z-scored percent signal change"


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
        The stimulus of each image; a split never separates images of one group.
    official_test : array of shape (n,), bool
        Rows of the data set's own test set.
    vertices : Vertices
        Of the V columns.
    rois : RoiTable
    noise_ceiling : array of shape (V,), float32, in [0, 1], or None
        Of r squared.
    excluded : dict
        ``{"constant": ids, "nan": ids}``: vertices (in the custom space, columns) left out because all training
        responses are equal, or some response is not finite.
    units : str
        Of the responses.
    note : str or None
        Shown with all results, for example that the subject is simulated.
    own_coordinates : array of shape (V, 3), float32, or None
        Coordinates from the data, in mm.
    volume : Volume or None
        The voxels, if the data are volumetric.
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

    def __getstate__(self) -> dict[str, Any]:
        # The process that gets it may work in another folder.
        images = tuple(image.absolute() for image in self.images)
        return {**self.__dict__, "root": self.root.absolute(), "images": images}

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
        """Coordinates of the vertices, from the data, else on the sphere: array of shape (V, 3), float32, mm."""
        return sphere_coordinates(self.vertices) if self.own_coordinates is None else self.own_coordinates

    @functools.cached_property
    def data_hash(self) -> str:
        """SHA-256 over the files of the responses and images, in order, and the vertices used, in hexadecimal.

        Reads all files once; their names and folders do not matter.
        """
        digest = hashlib.sha256(b"brainkit data 1")
        files = [*itertools.chain.from_iterable(self.responses.files), *self.images]
        with ThreadPoolExecutor(min(8, cores())) as pool:
            for value in pool.map(content_hash, files):
                digest.update(bytes.fromhex(value))
        digest.update(self.vertices.space.encode() + b"\0" + self.vertices.ids.astype("<i4").tobytes())
        digest.update(self.responses.columns.astype("<i8").tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """A one-line summary."""
        test = int(self.official_test.sum())
        parts = [
            plural(len(self), "image") + (f" ({test:,} of them official test)" if test else ""),
            plural(len(self.vertices), "vertex", "vertices")
            + (f" of {self.vertices.space}" if self.vertices.space != CUSTOM else " of no known surface"),
            plural(len(self.rois), "ROI"),
            "noise ceilings" if self.noise_ceiling is not None else "no noise ceilings",
        ]
        excluded = [f"{len(ids):,} {reason}" for reason, ids in self.excluded.items() if ids]
        if excluded:
            parts.append(f"left out: {' and '.join(excluded)} vertices")
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
    """Build a `Subject` from arrays over all columns, leaving out vertices that cannot be used.

    Raises
    ------
    DataError
        If no vertex is left.
    """
    constant, not_finite = _unusable(responses, n_training=int((~official_test).sum()))
    usable = np.flatnonzero(~(constant | not_finite))
    if not len(usable):
        raise DataError(
            f"{responses.files[0][0].parent}: expected responses that vary, found all {len(vertices)} vertices "
            f"constant ({int(constant.sum())}) or not finite ({int(not_finite.sum())})"
        )
    return Subject(
        name=name,
        root=root,
        images=tuple(images),
        responses=responses.keep(usable),
        groups=tuple(groups),
        official_test=official_test,
        vertices=vertices.select(usable),
        rois=RoiTable(rois, len(vertices)).subset(usable),
        noise_ceiling=None if noise_ceiling is None else noise_ceiling[usable],
        excluded={"constant": vertices.ids[constant].tolist(), "nan": vertices.ids[not_finite].tolist()},
        own_coordinates=None if own_coordinates is None else own_coordinates[usable],
        volume=None if volume is None else volume.select(usable),
        units=units,
        note=note,
    )


def check_images(subject: Subject, *, full: bool = False, progress: Progress | None = None) -> None:
    """Check that every image of a subject can be read.

    Parameters
    ----------
    subject : Subject
    full : bool
        Decode every pixel. Otherwise only headers and, for PNG, checksums are checked, which finds truncated PNG files
        but not truncated JPEG files.
    progress : callable, optional
        Called with (done, total) after each image.

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


def read_noise_ceiling(parts: Sequence[tuple[Path, int]]) -> npt.NDArray[np.float32]:
    """Read noise ceilings as fractions, from one file or one per hemisphere.

    If any value is above 1, the values are percent. NaN (no estimate) becomes 0, so that nothing counts as explainable.

    Parameters
    ----------
    parts : sequence of (path, number of vertices)

    Returns
    -------
    array of shape (V,), float32, in [0, 1]

    Raises
    ------
    DataError
        If a shape, dtype or value is wrong.
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
    # Both hemispheres together determine the scale, so that one with low ceilings is not read as fractions.
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
        lines = read_text(text).split("\n")
        return next((" ".join(line.split()) for line in lines if line.strip()), "SIMULATED subject")
    return None


def read_groups(path: Path, known: set[str]) -> dict[str, str]:
    """Read ``stimuli.json``, {image file name: group}; an empty dict if there is no such file.

    Raises
    ------
    DataError
        If it is not an object of texts, or names a missing image: an image with a misspelt name would silently become
        a group of its own.
    """
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(group, str) and group for group in value.values()):
        raise DataError(f"{path}: expected an object {{image file name: group}}, found something else")
    unknown = sorted(set(value) - known)
    if unknown:
        raise DataError(f"{path}: expected names of image files, found {unknown[0]!r}, which does not exist")
    return value


def _unusable(responses: Responses, n_training: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which columns are constant over the training rows, and which have values that are not finite."""
    vertices = responses.shape[1]
    constant, not_finite = np.ones(vertices, bool), np.zeros(vertices, bool)
    first = responses.rows([0])[0]
    start = 0
    for block in responses.blocks():
        not_finite |= ~np.isfinite(block).all(axis=0)
        constant &= (block[: max(n_training - start, 0)] == first).all(axis=0)
        start += len(block)
    # A column is counted once, as not finite rather than constant.
    return constant & ~not_finite, not_finite
