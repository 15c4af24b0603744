"""Images by the names that users write: in full, without folder or suffix, or as the data name their stimulus."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from brainkit.data.subject import Subject
from brainkit.errors import DataError

# The id of an image of the Natural Scenes Dataset, in its name or alone: train-0001_nsd-00013.png, nsd-13.
_NSD = re.compile(r"(?:^|[/_])nsd-?(\d{1,6})(?:\.\w+)?$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class FoundImages:
    """Images that some names are.

    Attributes
    ----------
    rows : array of shape (n,), int64
        Increasing, each once.
    unknown : tuple of str
        Names that are none of the subject's images.
    """

    rows: npt.NDArray[np.int64]
    unknown: tuple[str, ...]


class ImageNames:
    """Finds a subject's images by name.

    A name is that of an image in full (``faces/01.png``); or without suffix, or without folders, if only one image is
    meant; or a stimulus as the data name it, which can be several images. An id of the Natural Scenes Dataset
    (``nsd-00013``) is found in whatever names its images have.

    Parameters
    ----------
    subject : Subject
    """

    def __init__(self, subject: Subject) -> None:
        self._full = {name: row for row, name in enumerate(subject.names)}
        self._short: dict[str, set[int]] = collections.defaultdict(set)
        self._stimuli: dict[str, set[int]] = collections.defaultdict(set)
        for row, (name, group) in enumerate(zip(subject.names, subject.named_groups, strict=True)):
            path = PurePosixPath(name)
            for short in (path.with_suffix("").as_posix(), path.name, path.stem):
                self._short[short].add(row)
            for stimulus in filter(None, (group, _nsd(name), _nsd(group or ""))):
                self._stimuli[stimulus].add(row)
        # Images that were left out are known, and have no row.
        self._left_out = {short for image in subject.skipped for short in _forms(image.name)}

    def find(self, names: Iterable[str], where: str) -> FoundImages:
        """The images with these names.

        Parameters
        ----------
        names : iterable of str
        where : str
            Beginning of an error's message.

        Raises
        ------
        DataError
            If a name without its folder is that of several images.
        """
        rows: set[int] = set()
        unknown = []
        for name in names:
            found = self._rows(name, where)
            rows |= found
            if not found and self._left_out.isdisjoint(_forms(name)):
                unknown.append(name)
        return FoundImages(np.array(sorted(rows), np.int64), tuple(unknown))

    def _rows(self, name: str, where: str) -> set[int]:
        if name in self._full:
            return {self._full[name]}
        stimulus = _nsd(name) or name
        if stimulus in self._stimuli:
            return self._stimuli[stimulus]
        short = self._short.get(name, set())
        if len(short) > 1:
            raise DataError(f"{where}: expected names that are clear, found {name!r}, which {len(short)} images have")
        return short


def not_found(unknown: Sequence[str], where: str, root: object) -> DataError:
    """The error about names that are none of the images."""
    more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
    return DataError(f"{where}: expected images of {root}, found {unknown[0]!r}{more}")


def _forms(name: str) -> set[str]:
    path = PurePosixPath(name)
    return {each for each in (name, path.with_suffix("").as_posix(), path.name, path.stem, _nsd(name)) if each}


def _nsd(name: str) -> str | None:
    """The id of NSD that a name has, as one text for all its spellings."""
    match = _NSD.search(name)
    return f"nsd-{int(match[1]):05d}" if match else None
