"""HDF5 files: opened with errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainkit.errors import DataError, require
from brainkit.utils.text import one_line


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, opened for reading.

    Raises
    ------
    DataError
        If it is missing, truncated or damaged.
    MissingDependency
        If h5py is not installed.
    """
    h5py = require("h5py", extra="hdf5", purpose="reading HDF5 files")
    if not path.is_file():
        raise DataError(f"{path}: file not found; expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: expected a whole HDF5 file, which cannot be read: {one_line(error)}") from None
