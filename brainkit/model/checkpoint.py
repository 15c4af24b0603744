"""Read checkpoints without running code from them."""

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
    """Read a checkpoint onto the CPU, with ``weights_only=True``: no code in it is run.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a checkpoint.
    """
    try:
        # torch does not verify the archive's checksums: a flipped byte would silently change a weight.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(damaged)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: file not found; expected a checkpoint") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, *_DAMAGED) as error:
        raise DataError(f"{path}: expected a checkpoint, found a damaged or different file") from error
    if not isinstance(state, dict) or "state_dict" not in state:
        raise DataError(f"{path}: expected a checkpoint, found no state_dict")
    return state
