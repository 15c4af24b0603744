"""Arrays as JSON: packing them, and unpacking them without trust."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from typing import Any

import numpy as np

from brainkit.errors import EncoderFileError

MAX_ARRAY = 512 << 20  # bytes of one unpacked array
DTYPES = ("u1", "<i4", "<i8", "<f2", "<f4", "<f8")


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its dtype, its shape, and base64 of zlib of its little-endian bytes in C order."""
    little = np.asarray(array, order="C")
    little = little.astype(little.dtype.newbyteorder("<"), copy=False)
    dtype = little.dtype.str.replace("|", "")
    if dtype not in DTYPES:
        raise EncoderFileError(f"an encoder file holds arrays of {', '.join(DTYPES)}, got {little.dtype}")
    data = base64.b64encode(zlib.compress(little.tobytes(), 6)).decode("ascii")
    return {"dtype": dtype, "shape": list(little.shape), "data": data}


def unpack_array(
    value: Any, *, dtype: str, shape: tuple[int | None, ...], what: str, at_most: int = MAX_ARRAY
) -> np.ndarray:
    """Unpack what `pack_array` packed, never to more bytes than expected.

    Parameters
    ----------
    value : object
        Anything, as read from the JSON.
    dtype : str
        The expected dtype, for example ``"<f4"``.
    shape : tuple of int or None
        The expected shape; None for any length (all together at most 512 MB).
    what : str
        Named in errors.
    at_most : int
        The maximum of such a length.

    Returns
    -------
    array
        In the machine's byte order, its own memory.

    Raises
    ------
    EncoderFileError
        If it is not such an array.
    """
    found = value if isinstance(value, dict) else {}
    stored, lengths, data = found.get("dtype"), found.get("shape"), found.get("data")
    if not isinstance(lengths, list) or not isinstance(data, str):
        raise EncoderFileError(f"{what} must be a packed array (dtype, shape, data), found {short(value)}")
    if stored != dtype:
        raise EncoderFileError(f"{what} must have dtype {dtype}, found {short(stored)}")
    fits = len(lengths) == len(shape) and all(
        is_int(length, 0, at_most if expected is None else MAX_ARRAY) and expected in (None, length)
        for length, expected in zip(lengths, shape, strict=False)
    )
    if not fits:
        expected_text = "(" + ", ".join(f"0 to {at_most}" if n is None else str(n) for n in shape) + ")"
        raise EncoderFileError(f"{what} must have shape {expected_text}, found {short(lengths)}")
    size = math.prod(lengths) * np.dtype(dtype).itemsize
    if size > MAX_ARRAY:
        raise EncoderFileError(f"{what} takes {size} bytes; at most {MAX_ARRAY} are read")
    try:
        packed = base64.b64decode(data, validate=True)
        stream = zlib.decompressobj()
        # One byte more than expected reveals a stream that is too long, without unpacking a bomb.
        raw = stream.decompress(packed, size + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise EncoderFileError(f"{what} is damaged: {error}") from None
    if len(raw) != size or not stream.eof or stream.unused_data:
        unpacked = "more" if len(raw) > size else f"{len(raw)} and other data" if stream.eof else f"{len(raw)}"
        raise EncoderFileError(f"{what} must unpack to {size} bytes, found {unpacked}")
    array = np.frombuffer(raw, dtype=dtype).reshape(lengths)
    return array.astype(array.dtype.newbyteorder("="))


def is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def short(value: Any) -> str:
    """An untrusted value as text that fits on a line."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value[:80]) if isinstance(value, str) else "a huge number" if _is_huge(value) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _is_huge(value: Any) -> bool:
    # Python refuses to print an integer of thousands of digits.
    return isinstance(value, int) and abs(value).bit_length() > 256
