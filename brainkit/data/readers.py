"""Opens a subject's folder with the reader for its layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from brainkit.data.algonauts import Algonauts
from brainkit.data.folder import Folder
from brainkit.data.subject import Subject
from brainkit.errors import DataError

# Names in a folder, any of which shows its layout -> the layout's reader. The first match is used.
READERS: dict[tuple[str, ...], Callable[[str | os.PathLike[str]], Subject]] = {
    ("training_split",): Algonauts,
    ("responses.npy", "images"): Folder,
}
_EXPECTED = "training_split (Algonauts 2023) or responses.npy and images (own data)"


def open_subject(path: str | os.PathLike[str]) -> Subject:
    """Read a subject's folder in any known layout, which is recognised by the folder's content.

    Parameters
    ----------
    path : path-like
        An Algonauts 2023 subject folder (with ``training_split``), or own data (with ``responses.npy``).

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If the folder is missing, empty or of no known layout, or if the reader cannot read it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a data folder, found {'a file' if folder.exists() else 'nothing'}")
    for markers, read in READERS.items():
        if any((folder / marker).exists() for marker in markers):
            return read(folder)
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: expected {_EXPECTED}, found an empty folder")
    main_markers = [markers[0] for markers in READERS]
    subjects = [name for name in names if any((folder / name / marker).exists() for marker in main_markers)]
    if subjects:
        raise DataError(
            f"{folder}: expected one subject's folder, found a folder of several; give one, as {folder / subjects[0]}"
        )
    if any((folder.absolute().parent / marker).exists() for marker in main_markers):
        raise DataError(f"{folder}: is a part of a subject's folder; give its parent folder {folder.absolute().parent}")
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    raise DataError(f"{folder}: expected {_EXPECTED}, found {shown}")
