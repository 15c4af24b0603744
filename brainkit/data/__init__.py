"""Subjects read from disk, and their splits. Names load on first use, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

_LAZY = {
    "Algonauts": "brainkit.data.algonauts",
    "Folder": "brainkit.data.folder",
    "Split": "brainkit.data.split",
    "Subject": "brainkit.data.subject",
    "check_images": "brainkit.data.subject",
    "make_split": "brainkit.data.splits",
    "noise_ceiling_from_file": "brainkit.data.noise_ceiling",
    "open_subject": "brainkit.data.readers",
    "split_subjects": "brainkit.data.splits",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.data.algonauts import Algonauts
    from brainkit.data.folder import Folder
    from brainkit.data.noise_ceiling import noise_ceiling_from_file
    from brainkit.data.readers import open_subject
    from brainkit.data.split import Split
    from brainkit.data.splits import make_split, split_subjects
    from brainkit.data.subject import Subject, check_images

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
