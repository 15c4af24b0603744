"""Arrays by name: a dict that a notebook shows by type and shape, and reading ``.npz`` files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable

import numpy as np

from brainkit.errors import DataError


class Arrays(dict[str, np.ndarray]):
    """A dict of arrays whose repr is one line: ``{'scale': float32 (200,), ...}``."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: {array.dtype} {array.shape}" for name, array in self.items()) + "}"


def read_arrays(path: str | os.PathLike[str], names: Iterable[str] | None = None) -> Arrays:
    """Arrays of an ``.npz`` file.

    Parameters
    ----------
    path : path-like
    names : iterable of str, optional
        By default all.

    Raises
    ------
    DataError
        If the file or an array is missing, or it is damaged.
    """
    try:
        with np.load(path) as file:
            return Arrays((name, file[name]) for name in (file.files if names is None else names))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; is the folder complete?") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{path}: expected an .npz file of arrays, found one that is damaged") from None
    except KeyError as error:
        raise DataError(f"{path}: expected an array {error.args[0]!r}, found none") from None
