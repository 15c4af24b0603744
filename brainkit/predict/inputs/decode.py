"""Images in any form that `Encoder.predict` takes, decoded and resized for the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from brainkit.errors import BrainkitError, ImageError, UsageError
from brainkit.images import Preprocessing, decode, prepare
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.sources import at_address, listed_images


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
    try:
        sequence = list(images)
    except TypeError:
        found = type(images).__name__
        raise UsageError(f"images must be a path, PIL images, paths or a uint8 array, got {found}") from None
    for index, image in enumerate(sequence):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UsageError(
                    f"images[{index}] must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
                )
        elif isinstance(image, str):
            sequence[index] = at_address(image)
        elif not isinstance(image, os.PathLike | Image.Image):
            raise UsageError(f"images[{index}] must be a path, a PIL image or an array, got {type(image).__name__}")
    return sequence


def prepare_into(out: np.ndarray, source: Any, preprocessing: Preprocessing) -> ImageError | None:
    """Decode and resize one image into its row of a batch, uint8 (S, S, 3).

    Returns
    -------
    ImageError or None
        Why the image cannot be read. It is returned, not raised: one bad image must not end the run.
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
        out[...] = prepare(image, preprocessing)
    except ImageError as error:
        return error
    except BrainkitError as error:  # a missing package, for example
        return ImageError(str(error))
    except MemoryError:
        return ImageError("not enough memory to decode it")
    return None
