"""The data that a finished run was trained on, opened again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from brainkit.data.readers import locate, open_subject
from brainkit.data.subject import Subject
from brainkit.errors import DataError
from brainkit.runs.folder import read_settings


def open_run_data(
    folder: Path, summary: dict[str, Any], data: str | os.PathLike[str] | Subject | None = None
) -> Subject:
    """Open a run's data as the run used them, with the same rows and vertices.

    Parameters
    ----------
    folder : Path
        The run folder.
    summary : dict
        Its ``run.json``.
    data : path-like or Subject, optional
        Where the data are now, if they have moved.

    Returns
    -------
    Subject
        Restricted to the run's ROIs, without the images that the run left out.

    Raises
    ------
    DataError
        If the data are not there, or have changed since the run.
    """
    settings, facts = read_settings(folder).data, summary["data"]
    if data is None:
        data = settings.path
        if not data:
            raise DataError(f"{folder}: does not name its data; give them with --data DIR")
        if not locate(data).path.exists():
            raise DataError(f"{data}: the data of {folder} are no longer there; say where they are with --data DIR")
    subject = data if isinstance(data, Subject) else open_subject(data, rois=settings.rois)
    if settings.rois and subject.chosen_rois != settings.rois:
        subject = subject.restrict(settings.rois)
    if facts.get("skipped") and not subject.skipped:
        subject = subject.skip_unreadable()
    if facts["hash"] is not None and subject.data_hash != facts["hash"]:
        raise DataError(f"{subject.root}: expected the data of {folder}, found others, or they have changed since")
    return subject
