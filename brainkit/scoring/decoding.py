"""Images decoded and resized in threads, ahead of the network, in order."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.images import Preprocessing, decode, find_images, prepare
from brainkit.runtime import cores


def sources_of(images: Any) -> Sequence[Any] | np.ndarray:
    """Whatever `Encoder.predict` takes, as a sequence of paths, PIL images or arrays (H, W, 3)."""
    if isinstance(images, str | os.PathLike):
        return find_images(images)
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise UsageError(
                f"images must be a uint8 array of shape (n, H, W, 3), got {images.dtype} of shape {images.shape}"
            )
        return images
    given = list(images)
    for index, image in enumerate(given):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UsageError(
                    f"images[{index}] must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
                )
        elif not isinstance(image, str | os.PathLike | Image.Image):
            raise UsageError(f"images[{index}] must be a path, a PIL image or an array, got {type(image).__name__}")
    return given


def _prepared(source: Any, preprocessing: Preprocessing) -> np.ndarray | BrainkitError:
    """One image ready for the network, or why not; errors are results here, since one image must not end the work."""
    try:
        if isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        else:
            image = source if isinstance(source, Image.Image) else decode(source)
        return prepare(image, preprocessing)
    except BrainkitError as error:
        return error
    except MemoryError:
        return DataError("not enough memory to decode it")


Batch = tuple[list[int], np.ndarray, list[tuple[int, BrainkitError]]]


def prepared_batches(
    sources: Sequence[Any] | np.ndarray, preprocessing: Preprocessing, batch_size: int
) -> Generator[Batch, None, None]:
    """Prepared images in order: their indices, uint8 (b, S, S, 3), and the (index, error) of those unreadable.

    Decoding runs ahead by a bounded number of images. Unreadable ones leave no gap: a batch is full until the last.
    """
    ahead = 2 * batch_size + cores()
    indices: list[int] = []
    ready: list[np.ndarray] = []
    failed: list[tuple[int, BrainkitError]] = []
    pending: collections.deque[tuple[int, Future[np.ndarray | BrainkitError]]] = collections.deque()
    pool = ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="decode")
    try:
        upcoming = iter(range(len(sources)))
        while True:
            while len(pending) < ahead and (index := next(upcoming, None)) is not None:
                pending.append((index, pool.submit(_prepared, sources[index], preprocessing)))
            if not pending:
                break
            index, future = pending.popleft()
            result = future.result()
            if isinstance(result, BrainkitError):
                failed.append((index, result))
            else:
                indices.append(index)
                ready.append(result)
            if len(ready) == batch_size:
                yield indices, np.stack(ready), failed
                indices, ready, failed = [], [], []
        if ready or failed:
            size = preprocessing.size
            yield indices, np.stack(ready) if ready else np.empty((0, size, size, 3), np.uint8), failed
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def counted(batches: Generator[Batch, None, None]) -> Iterator[tuple[int, Batch]]:
    done = 0
    with contextlib.closing(batches):  # so that decoding ends with an error elsewhere
        for batch in batches:
            done += len(batch[0]) + len(batch[2])
            yield done, batch


def as_text(path: Path) -> str:
    """A path as text that any JSON reader takes, also where its name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def reason_without_name(error: BrainkitError, path: str | os.PathLike[str]) -> str:
    """Why an image could not be read, without its name."""
    return str(error).removeprefix(f"{path}: ").encode("utf-8", "backslashreplace").decode()
