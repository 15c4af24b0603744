"""From single trials to the responses that training needs. Names load on first use, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainkit.utils.lazy import lazy_names

_LAZY = {
    "Session": "brainkit.data.trials.trials",
    "StimulusImages": "brainkit.data.trials.images",
    "Trials": "brainkit.data.trials.trials",
    "open_prepared": "brainkit.data.trials.prepared",
    "prepare_subject": "brainkit.data.trials.prepare",
}

__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from brainkit.data.trials.images import StimulusImages
    from brainkit.data.trials.prepare import prepare_subject
    from brainkit.data.trials.prepared import open_prepared
    from brainkit.data.trials.trials import Session, Trials

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
