"""Preprocessing: decoded images become a backbone's input."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.errors import DataError, ImageError, UsageError
from brainkit.images.files import MAX_PIXELS, decode

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input.

    Attributes
    ----------
    size : int
        Side of the square input in pixels.
    mean, std : tuple of three floats
        Per channel (red, green, blue), for pixel values in [0, 1].
    interpolation : str
        One of `INTERPOLATIONS`; always with antialiasing, as in Pillow.
    fit : {"whole", "crop"}
        ``whole``: the whole image is resized to size x size, so that locations refer to all that the subject saw.
        ``crop``: timm's evaluation transform, bit for bit: the short side is resized to
        ``floor(size / crop_fraction)``, and the centre is cropped.
    crop_fraction : float
        For ``fit="crop"``: share of the short side that is kept, in (0, 1].

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    fit: str = "whole"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 8192:
            raise UsageError(f"size must be a whole number from 1 to 8192, got {self.size!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_floats(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise UsageError(f"std must be positive, got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")
        if self.fit not in ("whole", "crop"):
            raise UsageError(f"fit must be 'whole' or 'crop', got {self.fit!r}")
        fraction = self.crop_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
            raise UsageError(f"crop_fraction must lie in (0, 1], got {fraction!r}")
        object.__setattr__(self, "crop_fraction", float(fraction))

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, for `from_json`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Any) -> Preprocessing:
        """Create from the result of `to_json`.

        Raises
        ------
        DataError
            If a key is missing or unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != known:
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"preprocessing: expected the keys {', '.join(sorted(known))}, found {found}")
        try:
            return cls(**value)
        except UsageError as error:
            raise DataError(f"preprocessing: {error}") from None


def _three_floats(name: str, value: Any) -> tuple[float, float, float]:
    try:
        first, second, third = (float(number) for number in value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be three numbers, got {value!r}") from None
    if not all(math.isfinite(number) for number in (first, second, third)):
        raise UsageError(f"{name} must be finite, got {value!r}")
    return first, second, third


# The published model's preprocessing, for every backbone.
PUBLISHED = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear", "whole", 1.0)


def prepare(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize an image, and crop it if ``fit="crop"``.

    Parameters
    ----------
    image : PIL.Image.Image
        What `decode` returns; any other is decoded.
    preprocessing : Preprocessing

    Returns
    -------
    array of shape (size, size, 3), uint8

    Raises
    ------
    ImageError
        If the image is so elongated that the resized image would exceed `MAX_PIXELS`.
    """
    if type(image) is not Image.Image or image.mode != "RGB" or image.info:
        image = decode(image)
    size = preprocessing.size
    resample = INTERPOLATIONS[preprocessing.interpolation]
    if min(image.size) < 1:
        raise ImageError(f"expected at least one pixel, found an image of {image.width} x {image.height}")
    if preprocessing.fit == "whole":
        return np.array(image.resize((size, size), resample))
    width, height = image.size
    side = math.floor(size / preprocessing.crop_fraction)
    long = int(side * max(width, height) / min(width, height))
    if side * long > MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} is too elongated for fit=crop; use fit=whole")
    resized = image.resize((side, long) if width <= height else (long, side), resample)
    left, top = (round((n - size) / 2.0) for n in resized.size)
    return np.array(resized.crop((left, top, left + size, top + size)))


def normalise(batch: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Scale prepared images to [0, 1], subtract the mean and divide by the standard deviation, in float32.

    Parameters
    ----------
    batch : array of shape (B, S, S, 3), uint8

    Returns
    -------
    array of shape (B, 3, S, S), float32, contiguous
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise UsageError(f"batch must be uint8 of shape (B, S, S, 3), got {batch.dtype} of shape {batch.shape}")
    out = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32)
    out /= np.float32(255)
    out -= np.asarray(preprocessing.mean, np.float32)[:, None, None]
    out /= np.asarray(preprocessing.std, np.float32)[:, None, None]
    return out
