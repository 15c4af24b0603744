"""ROI mappings of Algonauts 2023: a dict saved with ``np.save``, that is a pickle, read without running its code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.data.responses import not_an_array
from brainkit.errors import DataError
from brainkit.utils.text import one_line

_MAX_BYTES = 1 << 20  # the real files have a few hundred


def read_mapping(path: Path) -> dict[int, str]:
    """Read ``mapping_<class>.npy``: the name of the region of each label.

    Parameters
    ----------
    path : Path
        As ``np.save(path, {0: "Unknown", 1: "V1v", ...})`` writes it.

    Returns
    -------
    dict of int to str

    Raises
    ------
    DataError
        If the file is missing, damaged or too large, or contains other objects than labels and names.
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
    mapping = _unpickle(path, content)
    if not isinstance(mapping, dict):
        raise DataError(f"{path}: expected a dict of ROI labels to names, found {type(mapping).__name__}")
    for label, name in mapping.items():
        if type(label) is not int or not isinstance(name, str) or not name:
            raise DataError(f"{path}: expected whole numbers mapped to names, found {label!r:.40}: {name!r:.40}")
    return mapping


def _unpickle(path: Path, content: bytes) -> Any:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read_header(stream)
    except (ValueError, EOFError, SyntaxError) as error:
        raise not_an_array(path, "a dict of ROI labels to names", error) from None
    if dtype != np.dtype(object):
        raise DataError(f"{path}: expected a dict saved with np.save, found an array of {dtype}")
    try:
        value = _MappingUnpickler(stream).load()
    except Exception as error:
        # Damaged pickles raise nearly anything, always for the same reason.
        raise DataError(
            f"{path}: expected a dict of ROI labels to names, found an unreadable one ({one_line(error)})"
        ) from error
    items = value.items if isinstance(value, _Array) else None
    return items[0] if isinstance(items, list) and len(items) == 1 else value


class _MappingUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Knows numpy's arrays, dtypes and scalars, as objects that do nothing, and refuses every other name.

    It is Python's own unpickler, because the one in C allocates as many memo entries as the file states.
    """

    # Without the one operation that allocates as many bytes as the file states.
    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012
    del dispatch[pickle.BYTEARRAY8[0]]

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("_codecs", "encode"): _encode,
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("numpy.core.multiarray", "scalar"): _scalar,
        }
        wanted = (module.replace("numpy._core", "numpy.core"), name)
        if wanted not in allowed:
            raise pickle.UnpicklingError(f"it uses {module}.{name}")
        return allowed[wanted]


class _Array:
    items: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.items = state[-1]


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        self.kind = str(code)[:1]
        self.big_endian = False

    def __setstate__(self, state: Any) -> None:
        self.big_endian = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


def _scalar(dtype: Any, content: Any = b"") -> int:
    if not isinstance(dtype, _Dtype) or dtype.kind not in "iu" or not isinstance(content, bytes) or len(content) > 8:
        raise pickle.UnpicklingError("a numpy scalar that is not a whole number")
    return int.from_bytes(content, "big" if dtype.big_endian else "little", signed=dtype.kind == "i")


def _encode(text: str, *_: Any) -> bytes:
    """The bytes of a scalar in old protocols."""
    if len(text) > 8:
        raise pickle.UnpicklingError("a numpy scalar of more than 8 bytes")
    return text.encode("latin1")
