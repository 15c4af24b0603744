"""Pictures of stimuli, wherever a data set keeps them, written into a folder of images."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.errors import DataError
from brainkit.utils.files import atomic_write
from brainkit.utils.progress import Progress
from brainkit.utils.system import cores

_SAMPLE = 8  # pictures whose size is measured

# A picture: a file as it is, the bytes of one, or pixels (H, W, 3), uint8.
Picture = Path | bytes | npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class StimulusImages:
    """The images of the stimuli, in the order of the rows of the responses.

    Attributes
    ----------
    names : tuple of str, (n,)
        File names with a suffix, in text order, each once; they may have folders (``faces/03.jpg``).
    get : callable
        ``get(row)``: the picture. Called from several threads.
    groups : tuple of str or None, (n,)
        What the stimulus is called in the data set, the same for all of its subjects; None: by its pixels alone.
    files : tuple of Path
        The files that hold the pictures.
    """

    names: tuple[str, ...]
    get: Callable[[int], Picture]
    groups: tuple[str | None, ...] = field(default=())
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if list(self.names) != sorted(set(self.names)):
            raise ValueError("names of images must be in text order, each once")
        if not self.groups:
            object.__setattr__(self, "groups", (None,) * len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: npt.NDArray[np.int64]) -> StimulusImages:
        """The images at these rows, increasing."""
        chosen = rows.tolist()
        names, groups = (tuple(texts[row] for row in chosen) for texts in (self.names, self.groups))
        return StimulusImages(names, lambda row: self.get(chosen[row]), groups, self.files)

    def estimate_bytes(self, *, link: bool = False) -> int:
        """About how many bytes `write` takes on disk, from a few of the pictures."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(int)).tolist()
        return round(len(self) * sum(_size(self.get(row), link) for row in rows) / len(rows))

    def write(self, folder: Path, *, link: bool = False, progress: Progress | None = None) -> None:
        """Write the pictures that `folder` lacks.

        Parameters
        ----------
        folder : Path
        link : bool
            Link to pictures that are files, instead of copying them.
        progress : callable, optional
            Called with (done, total).

        Raises
        ------
        DataError
            If a picture cannot be read.
        """

        def write_one(row: int) -> None:
            path = folder / self.names[row]
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(self.get(row), path, link)

        with ThreadPoolExecutor(cores()) as pool:
            for done, _ in enumerate(pool.map(write_one, range(len(self))), 1):
                if progress is not None:
                    progress(done, len(self))


def image_files(folder: Path, names: Sequence[str], groups: Sequence[str | None] = ()) -> StimulusImages:
    """Images that are files in a folder, by names in text order."""
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: file not found; expected the image of a trial")
    return StimulusImages(tuple(names), paths.__getitem__, tuple(groups), tuple(paths))


def _write(picture: Picture, path: Path, link: bool) -> None:
    if isinstance(picture, Path) and link:
        os.symlink(picture.absolute(), path)
        return
    with atomic_write(path) as temporary:
        if isinstance(picture, Path):
            shutil.copyfile(picture, temporary)
        else:
            temporary.write_bytes(picture if isinstance(picture, bytes) else _to_png(picture))


def _size(picture: Picture, link: bool) -> int:
    if isinstance(picture, Path):
        return 0 if link else picture.stat().st_size
    return len(picture if isinstance(picture, bytes) else _to_png(picture))


def _to_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def check_pixels(pixels: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 3), uint8, of an array's row.

    Raises
    ------
    DataError
        If they have another shape or dtype.
    """
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"{where}: expected pixels (H, W, 3), uint8, found {pixels.dtype} of shape {pixels.shape}")
    return np.asarray(pixels)
