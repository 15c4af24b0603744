"""Data: subjects read from folders, and their splits. Names load on first use; none of them needs torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# name -> the module that defines it; resolved at first use.
_LAZY = {
    "Algonauts": "brainkit.data.algonauts",
    "Folder": "brainkit.data.folder",
    "Split": "brainkit.data.splits",
    "Subject": "brainkit.data.subject",
    "check_images": "brainkit.data.subject",
    "make_split": "brainkit.data.splits",
    "open_subject": "brainkit.data.folder",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.data.algonauts import Algonauts
    from brainkit.data.folder import Folder, open_subject
    from brainkit.data.splits import Split, make_split
    from brainkit.data.subject import Subject, check_images


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'brainkit.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
