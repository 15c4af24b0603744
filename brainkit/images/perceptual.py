"""A hash of what an image looks like, which compression, resizing and small crops change little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

BITS = 256
_SIDE, _KEPT = 64, 16  # pixels of the reduced image, and of its coefficients those of the lowest frequencies


def perceptual_hash(image: Image.Image) -> bytes:
    """Signs of the lowest frequencies of an image's grey values, relative to their median.

    Parameters
    ----------
    image : PIL.Image.Image

    Returns
    -------
    bytes
        32: a bit for each of 16 x 16 coefficients of the discrete cosine transform of 64 x 64 pixels; the mean's is 0.
        All are 0 of an image of one grey.

    References
    ----------
    Zauner (2010), Implementation and benchmarking of perceptual image hash functions.
    """
    from scipy.fft import dctn

    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    coefficients = dctn(np.asarray(grey, np.float32), norm="ortho")[:_KEPT, :_KEPT].ravel()
    bits = coefficients > np.median(coefficients[1:])
    bits[0] = False
    return np.packbits(bits if np.ptp(np.asarray(grey)) else np.zeros_like(bits)).tobytes()


def closest(
    hashes: npt.NDArray[np.uint8],
    others: npt.NDArray[np.uint8],
    owners: npt.NDArray[np.int64],
    their_owners: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each hash, the most similar one of the others.

    Parameters
    ----------
    hashes, others : arrays of shape (m, 32) and (n, 32), uint8
        See `perceptual_hash`; hashes of images of one grey are like none.
    owners, their_owners : arrays of shape (m,) and (n,), int64
        Hashes of one owner are not compared.

    Returns
    -------
    index, bits : arrays of shape (m,), int64
        Position in `others`, and the number of bits that differ; `BITS` if there is none to compare with.
    """
    index, bits = np.zeros(len(hashes), np.int64), np.full(len(hashes), BITS, np.int64)
    if not len(others):
        return index, bits
    signs = _signs(others)
    plain, their_plain = np.max(hashes, axis=1) == 0, np.max(others, axis=1) == 0
    for start in range(0, len(hashes), 512):
        block = slice(start, start + 512)
        # Of signs +1 and -1, the product is the number of equal bits minus that of different ones.
        apart = (BITS - _signs(hashes[block]) @ signs.T) / 2
        apart[(owners[block, None] == their_owners[None]) | their_plain[None] | plain[block, None]] = BITS
        index[block] = apart.argmin(axis=1)
        bits[block] = apart.min(axis=1)
    return index, bits


def _signs(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
