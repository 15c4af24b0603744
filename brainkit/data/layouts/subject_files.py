"""Which of the subjects of a folder is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainkit.errors import DataError, UsageError


def choose_subject(path: Path, there: Sequence[str], subject: str, hint: str = "") -> str:
    """The subject that an option means: ``3``, ``03`` or ``sub-03`` for ``sub-03``; the only one without an option.

    Raises
    ------
    DataError
        If there are none.
    UsageError
        If it is not there, or there are several and none was chosen.
    """
    if not there:
        raise DataError(f"{path}: expected the data of a subject, such as sub-01, found none")
    if not subject:
        if len(there) > 1:
            raise UsageError(f"{path}: expected one subject, found {', '.join(there)}; choose one with --subject")
        return there[0]
    digits = subject.removeprefix("sub-")
    wanted = f"sub-{int(digits):02d}" if digits.isdecimal() else subject
    found = [name for name in there if wanted in (name, name.partition("_")[0])]
    if len(found) != 1:
        what = f"{', '.join(found)}, all of that number" if found else "no such subject"
        raise UsageError(f"{path}: subject {subject}: expected one of {', '.join(there)}, found {what}{hint}")
    return found[0]
