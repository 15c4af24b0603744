"""Images in any form that `Encoder.predict` takes, decoded and resized for the network."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from brainkit.errors import BrainkitError, ImageError, UsageError
from brainkit.images import Preprocessing, decode, detach, holds_several, prepare
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.sources import at_address, listed_images

_GIVEN_WHOLE = (str, os.PathLike, Image.Image, np.ndarray, list, tuple)


def as_iterable(images: Any) -> Sequence[Any] | np.ndarray | Iterator[Any]:
    """What `Encoder.predict` takes, as paths, PIL images or arrays (H, W, 3); of an iterator, nothing is taken yet."""
    return as_sequence(images) if isinstance(images, _GIVEN_WHOLE) else _iterate(images)


def as_sequence(images: Any) -> Sequence[Any] | np.ndarray:
    """What `Encoder.predict` takes, as a sequence of paths, PIL images or arrays (H, W, 3)."""
    if isinstance(images, str | os.PathLike):
        return listed_images(images)
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise UsageError(
                f"images must be a uint8 array of shape (n, H, W, 3), got {images.dtype} of shape {images.shape}"
            )
        return images
    if isinstance(images, list | tuple):
        return [_checked(image, index) for index, image in enumerate(images)]
    return [_kept(image, index) for index, image in enumerate(_iterate(images))]


def _iterate(images: Any) -> Iterator[Any]:
    try:
        return iter(images)
    except TypeError:
        found = type(images).__name__
        raise UsageError(f"images must be a path, PIL images, paths or a uint8 array, got {found}") from None


def _kept(image: Any, index: int) -> Any:
    """An image that stays as it is when its iterator goes on to the next, which may be the same object."""
    image = _checked(image, index)
    if isinstance(image, np.ndarray):
        return image.copy()
    return decode(image, f"images[{index}]") if isinstance(image, Image.Image) else image


def in_chunks(images: Sequence[Any] | np.ndarray | Iterator[Any], size: int) -> Iterator[tuple[Any, Any]]:
    """Divide images into chunks: as given, and as `prepare_into` takes them in another thread.

    Pillow's images are detached here, in one thread: the same object may be given twice, and several may share a file.
    What an iterator gives is copied at once: before it gives the next, it may close the file or draw over the image,
    and the frames of an animation are one object.
    """
    if isinstance(images, Iterator):
        numbered = enumerate(images)
        while pairs := [_copied(image, index) for index, image in itertools.islice(numbered, size)]:
            yield [image for image, _ in pairs], [copy for _, copy in pairs]
    else:
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            yield chunk, chunk if isinstance(chunk, np.ndarray) else [_detached(image) for image in chunk]


def _copied(image: Any, index: int) -> tuple[Any, Any]:
    image = _checked(image, index)
    return image, image.copy() if isinstance(image, np.ndarray) else _detached(image, copy=True)


def _detached(image: Any, copy: bool = False) -> Any:
    """An image that no other thread changes; an ImageError if it cannot be read."""
    if not isinstance(image, Image.Image):
        return image
    if not copy and type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image  # nothing is left to be loaded or converted
    try:
        return detach(image)
    except ImageError as error:
        return error


def _checked(image: Any, index: int) -> Any:
    """The image, if it is one."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise UsageError(
                f"images[{index}] must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
            )
    elif isinstance(image, str):
        return at_address(image)
    elif not isinstance(image, os.PathLike | Image.Image):
        found = type(image).__name__
        raise UsageError(f"images[{index}] must be a path, a PIL image or a uint8 array (H, W, 3), got {found}")
    return image


@dataclass(frozen=True)
class Prepared:
    """What became of an image.

    Attributes
    ----------
    error : ImageError or None
        Why it cannot be read. It is returned, not raised: one bad image must not end the run.
    of_several : bool
        It is the first image of an animation, or of a file with pages.
    """

    error: ImageError | None = None
    of_several: bool = False


def prepare_into(out: np.ndarray, source: Any, preprocessing: Preprocessing) -> Prepared:
    """Decode and resize one image into its row of a batch, uint8 (S, S, 3)."""
    of_several = False
    try:
        if isinstance(source, ImageError):
            return Prepared(source)
        if isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        elif isinstance(source, Image.Image):
            image = source
        elif isinstance(source, ImageSource):
            opened = source.open()
            image = decode(opened, source.name)
            of_several = holds_several(opened, source.name)
        else:
            image = decode(source)
            of_several = isinstance(source, str | os.PathLike) and holds_several(source)
        out[...] = prepare(image, preprocessing)
    except ImageError as error:
        return Prepared(error)
    except BrainkitError as error:  # a missing package, for example
        return Prepared(ImageError(str(error)))
    except MemoryError:
        return Prepared(ImageError("not enough memory to decode it"))
    return Prepared(of_several=of_several)
