"""Reading a checkpoint without running anything in it."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from brainkit.errors import DataError

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, OverflowError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with ``weights_only=True``: nothing in it is run.

    Raises
    ------
    DataError
        If the file is missing, damaged or no checkpoint.
    """
    try:
        # An archive's parts have checksums, which torch does not compare: a flipped byte would be another weight.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(part)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a checkpoint") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, *_DAMAGED) as error:
        raise DataError(f"{path}: expected a checkpoint, found a damaged or different file") from error
    if not isinstance(state, dict) or "state_dict" not in state:
        raise DataError(f"{path}: expected a checkpoint, found no state_dict")
    return state
