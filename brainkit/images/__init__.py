"""Images: find, decode, resize, crop, normalise. One path for training and prediction.

Resizing differently in the two costs up to a tenth of a prediction's s.d., so nothing else in brainkit turns an image
file into numbers.
"""

from brainkit.images.colour import to_rgb
from brainkit.images.files import (
    DECODING,
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    content_hash,
    decode,
    detach,
    find_images,
    pixel_hash,
    verify,
)
from brainkit.images.frames import holds_several
from brainkit.images.perceptual import BITS, closest, perceptual_hash
from brainkit.images.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    PUBLISHED,
    Preprocessing,
    normalise,
    prepare,
)

__all__ = [
    "BITS",
    "DECODING",
    "FORMATS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERPOLATIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "PUBLISHED",
    "SUFFIXES",
    "Preprocessing",
    "closest",
    "content_hash",
    "decode",
    "detach",
    "find_images",
    "holds_several",
    "normalise",
    "perceptual_hash",
    "pixel_hash",
    "prepare",
    "to_rgb",
    "verify",
]
