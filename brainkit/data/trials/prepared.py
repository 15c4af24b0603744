"""Prepared subjects in the cache: made once, shared by all runs."""

from __future__ import annotations

from pathlib import Path

from brainkit.data.folder import Folder
from brainkit.data.subject import Subject
from brainkit.data.trials.prepare import identify, prepare_subject
from brainkit.data.trials.trials import Trials
from brainkit.utils.files import cache_folder
from brainkit.utils.progress import Say


def prepared_home() -> Path:
    """Folder of all prepared subjects, in the cache folder."""
    return cache_folder() / "prepared"


def open_prepared(trials: Trials, say: Say = print) -> Subject:
    """Open a subject whose data are trials: prepare it in the cache folder, unless it is there.

    Parameters
    ----------
    trials : Trials
    say : callable
        Called with each line of progress.
    """
    return Folder(prepared_folder(trials, say))


def find_prepared(trials: Trials) -> Subject | None:
    """The prepared subject, if the cache has it."""
    folder = _folder(trials)
    return Folder(folder) if folder.is_dir() else None


def prepared_folder(trials: Trials, say: Say = print) -> Path:
    """The prepared folder of these trials in the cache, made now if it is not there."""
    folder = _folder(trials)
    return folder if folder.is_dir() else prepare_subject(trials, folder, link=True, say=say)


def _folder(trials: Trials) -> Path:
    return prepared_home() / f"{trials.name}-{identify(trials)[:16]}"
