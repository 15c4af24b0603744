"""ROI mappings of Algonauts 2023: ``np.save`` of a dict, that is a pickle, read without running anything in it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import DataError
from brainkit.utils.text import one_line

# The real ones have a few hundred bytes.
_MAX_BYTES = 1 << 20


def read_mapping(path: Path) -> dict[int, str]:
    """Read ``mapping_<class>.npy``: which label is which region.

    A pickle can call anything that it can name. Here it can name only numpy's array, dtype and scalar, and gets inert
    stand-ins for them.

    Parameters
    ----------
    path : Path
        What ``np.save(path, {0: "Unknown", 1: "V1v", ...})`` writes.

    Returns
    -------
    dict of int to str

    Raises
    ------
    DataError
        If the file is missing, damaged, too large, names anything else, or does not hold {label: name}.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a mapping of ROI labels to names") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_BYTES:
        raise DataError(f"{path}: expected a mapping of ROI labels to names, found a file of over {_MAX_BYTES} bytes")
    value = _unpickle(path, content)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a dict of ROI labels to names, found {type(value).__name__}")
    mapping: dict[int, str] = {}
    for key, name in value.items():
        label = key.value if isinstance(key, _Scalar) else key
        if isinstance(label, bool) or not isinstance(label, int) or not isinstance(name, str) or not name:
            raise DataError(f"{path}: expected whole numbers mapped to names, found {key!r}: {name!r}")
        mapping[label] = name
    return mapping


def _unpickle(path: Path, content: bytes) -> Any:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read_header(stream)
    except (ValueError, EOFError, SyntaxError) as error:
        raise DataError(f"{path}: expected a .npy file, found something else ({one_line(error)})") from None
    if dtype != np.dtype(object):
        raise DataError(f"{path}: expected a dict saved with np.save, found an array of {dtype}")
    try:
        value = _Restricted(stream).load()
    except Exception as error:
        # Unpickling damaged bytes raises nearly anything; all of it means the same to the reader.
        raise DataError(
            f"{path}: expected a dict of ROI labels to names, found one not readable ({one_line(error)})"
        ) from error
    items = value.items if isinstance(value, _Array) else None
    return items[0] if isinstance(items, list) and len(items) == 1 else value


# The unpickler in C takes memory by numbers that the file states; the one in Python does not.
class _Restricted(pickle._Unpickler):  # type: ignore[name-defined, misc]
    def find_class(self, module: str, name: str) -> Any:
        wanted = (module.replace("numpy._core", "numpy.core"), name)
        if wanted not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _STAND_INS[wanted]


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        self.kind = str(code)[:1]
        self.big_endian = False

    def __setstate__(self, state: Any) -> None:
        self.big_endian = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


class _Array:
    items: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.items = state[-1]


class _Scalar:
    def __init__(self, dtype: Any, content: Any = b"") -> None:
        if not isinstance(dtype, _Dtype) or dtype.kind not in "iu" or not isinstance(content, bytes):
            raise pickle.UnpicklingError("a numpy scalar that is no whole number")
        self.value = int.from_bytes(content, "big" if dtype.big_endian else "little", signed=dtype.kind == "i")

    def __repr__(self) -> str:
        return str(self.value)


def _encode(text: str, *_: Any) -> bytes:
    # How old protocols spell bytes.
    return text.encode("latin1")


_STAND_INS = {
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _Scalar,
}
