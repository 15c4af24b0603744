"""Images of data sets that come without them: files in folders that the user has put beside the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from brainkit.data.trials.images import StimulusImages
from brainkit.errors import DataError
from brainkit.images import SUFFIXES


def find_pictures(
    names: Sequence[str], roots: Iterable[Path], folders: Sequence[str], subfolder: Callable[[str], str]
) -> StimulusImages:
    """The files of stimuli in the first of some folders that has the first of them.

    Parameters
    ----------
    names : sequence of str
        Of the stimuli, in text order.
    roots, folders : iterables
        Each folder is looked for in each root.
    subfolder : callable
        ``subfolder(name)``: where in the folder a file may be, if it is not in the folder itself.

    Raises
    ------
    DataError
        If no folder has the first image, or the one that has it lacks another.
    """
    places = list(dict.fromkeys(root / folder for root in roots for folder in folders))
    for place in places:
        if place.is_dir() and _find(place, names[0], subfolder) is not None:
            files = [_find(place, name, subfolder) for name in names]
            missing = [name for name, file in zip(names, files, strict=True) if file is None]
            if missing:
                raise DataError(
                    f"{place}: expected all {len(names):,} images, found {len(missing):,} missing: {missing[0]}"
                )
            paths = tuple(file for file in files if file is not None)
            return StimulusImages(tuple(names), paths.__getitem__, tuple(names), paths)
    raise DataError(
        f"{places[0].parent}: expected the images, such as {names[0]}, in {', '.join(folders)} there or one folder up, "
        "found none; they come apart from the responses: put or link them there"
    )


def _find(place: Path, name: str, subfolder: Callable[[str], str]) -> Path | None:
    for folder in (place, place / subfolder(name)):
        if (folder / name).is_file():
            return folder / name
        stem = (folder / name).with_suffix("")
        for suffix in SUFFIXES:  # an image in another format than the name says
            if stem.with_name(stem.name + suffix).is_file():
                return stem.with_name(stem.name + suffix)
    return None
