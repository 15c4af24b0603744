"""Whatever an image is given as, made ready for the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.images import Preprocessing, decode, find_images, prepare
from brainkit.predict.inputs.image_source import ImageSource


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
    try:
        given = list(images)
    except TypeError:
        found = type(images).__name__
        raise UsageError(f"images must be a path, PIL images, paths or a uint8 array, got {found}") from None
    for index, image in enumerate(given):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UsageError(
                    f"images[{index}] must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
                )
        elif not isinstance(image, str | os.PathLike | Image.Image):
            raise UsageError(f"images[{index}] must be a path, a PIL image or an array, got {type(image).__name__}")
    return given


def prepare_into(place: np.ndarray, source: Any, preprocessing: Preprocessing) -> BrainkitError | None:
    """Make one image ready for the network, in its place of a batch: uint8 (S, S, 3).

    Returns
    -------
    BrainkitError or None
        Why it cannot be read. Errors are results here, since one image must not end the work.
    """
    try:
        if isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        elif isinstance(source, Image.Image):
            image = source
        elif isinstance(source, ImageSource):
            image = decode(source.open(), source.name)
        else:
            image = decode(source)
        place[...] = prepare(image, preprocessing)
    except BrainkitError as error:
        return error
    except MemoryError:
        return DataError("not enough memory to decode it")
    return None


def reason_without_name(error: BrainkitError, path: str | os.PathLike[str]) -> str:
    """Why an image could not be read, without its name."""
    return str(error).removeprefix(f"{path}: ").encode("utf-8", "backslashreplace").decode()
