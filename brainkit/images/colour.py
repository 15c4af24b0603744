"""Pixels of any kind become 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from brainkit.errors import ImageError
from brainkit.images import tiff


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to 8-bit RGB.

    Transparency is composited over white, as on an empty page in a browser. Grey values of 16 bits (12 in some TIFF
    files) are scaled to 8; of colours of 16 bits, Pillow gives the upper 8. Colour profiles are ignored, as in the
    networks' own training. Integers of other ranges and floating-point numbers are refused, because it is not known
    which of them is white. Opaque 8-bit pixels keep their values exactly.

    Raises
    ------
    ImageError
        If the mode has no defined conversion.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise ImageError("expected 8-bit or 16-bit pixels, found floating-point ones, whose range is not known")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # Premultiplied modes can only be converted to their plain ones.
        plain = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode]) if image.mode in ("RGBa", "La") else image
        rgba = plain.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"pixels of mode {image.mode!r} cannot be shown as RGB ({error})") from None


def _from_integers(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ImageError(
            "expected 8-bit or 16-bit pixels, found signed or 32-bit integers, whose range is not known; save them as "
            "8-bit or unsigned 16-bit grey values"
        )
    white = (1 << max(tags.get(tiff.BITS, (16,)))) - 1
    stored = np.asarray(image).astype(np.int64)
    values = white - stored if tags.get(tiff.PHOTOMETRIC) == 0 else stored
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise ImageError(f"expected grey values from 0 to {white}, found {low} to {high}")
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[stored == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
