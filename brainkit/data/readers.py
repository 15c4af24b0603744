"""Opens a subject's data with the reader for their layout: the table of all layouts."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainkit.data.location import Location, PathLike
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from brainkit.data.trials import Trials


@dataclass(frozen=True)
class Layout:
    """A layout of data on disk, and its reader.

    Attributes
    ----------
    title : str
        For messages.
    markers : tuple of str
        Patterns below a folder, any of which shows the layout: ``nsddata_betas``, ``sub-*/ses-*``.
    reader : str
        ``module:function`` that reads it. For responses that are ready, ``function(path) -> Subject``; for single
        trials, ``function(path, **options) -> Trials``.
    options : tuple of str
        Of `brainkit.data.location.OPTIONS`, the keyword arguments that the function takes; values are texts, those of
        switches are True.
    recognises : str
        ``module:function`` of a folder, for a layout that markers alone do not show; empty: none.
    trials : bool
        Whether the reader gives trials, which are prepared once, in the cache folder.
    """

    title: str
    markers: tuple[str, ...]
    reader: str
    options: tuple[str, ...] = ()
    trials: bool = False
    recognises: str = ""

    def matches(self, path: Path) -> bool:
        """Whether the content of a folder shows this layout."""
        if any(next(path.glob(marker), None) is not None for marker in self.markers):
            return True
        return bool(self.recognises) and bool(_function(self.recognises)(path))

    def read(self, location: Location) -> Any:
        """What the reader returns.

        Raises
        ------
        UsageError
            If an option was chosen that the layout does not have.
        """
        for name in location.options:
            if name not in self.options:
                known = f"expected {', '.join(self.options)}" if self.options else "expected no such option"
                raise UsageError(f"{location.path}: {known} for {self.title}, found {name}")
        chosen = {name: value or True for name, value in location.options.items()}
        return _function(self.reader)(location.path, **chosen)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"brainkit.data.{module}"), function)
    return found


# In the order in which they are tried. Of several data sets in one folder none is chosen; own data are those that are
# nothing else, and those with trials are tried first.
LAYOUTS: dict[str, Layout] = {
    "algonauts": Layout("Algonauts 2023", ("training_split",), "algonauts:Algonauts"),
    "nsd": Layout(
        "NSD as released",
        ("nsddata_betas",),
        "layouts.nsd:nsd",
        options=("subject", "betas", "space", "experiment", "allow_missing_sessions"),
        trials=True,
    ),
    "laion": Layout(
        "LAION-fMRI",
        ("derivatives/glmsingle-tedana",),
        "layouts.laion:laion_fmri",
        options=("subject", "allow_missing_sessions"),
        trials=True,
    ),
    "mosaic": Layout("MOSAIC", ("sub-*_*.hdf5",), "layouts.mosaic:mosaic", options=("subject",), trials=True),
    "things": Layout(
        "THINGS-fMRI",
        ("sub-*_ResponseData.h5", "betas_csv/sub-*_ResponseData.h5"),
        "layouts.things:things_fmri",
        options=("subject",),
        trials=True,
    ),
    "trials": Layout(
        "own data with single trials",
        (
            "trials.csv",
            *(f"responses.{suffix}" for suffix in ("json", "npz", "h5", "hdf5", "zarr", "dscalar.nii", "dtseries.nii")),
            *(f"responses/*.{suffix}" for suffix in ("gii", "gii.gz", "mgh", "mgz", "dscalar.nii", "dtseries.nii")),
            *(f"images.{suffix}" for suffix in ("h5", "hdf5", "npy")),
        ),
        "layouts.own_trials:own_trials",
        trials=True,
        recognises="layouts.own_responses:is_other_array",
    ),
    "folder": Layout("own data", ("responses.npy", "images"), "folder:Folder"),
}

_OWN = ("trials", "folder")


def locate(path: PathLike) -> Location:
    """Read a location as users write it: a path, or ``layout:path?option=value``."""
    return Location.parse(path, tuple(LAYOUTS))


def open_subject(path: PathLike, *, rois: Sequence[str] = (), say: Say = print) -> Subject:
    """Read a subject's data in any known layout, which is recognised by the content.

    Parameters
    ----------
    path : path-like
        A folder, or a location ``layout:folder?option=value`` such as ``nsd:DIR?subject=1``.
    rois : sequence of str
        Of data that are prepared first, prepare the vertices of these ROIs only; other data are read whole.
    say : callable
        Called with each line of progress, where data are prepared.

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If the data are missing, empty or of no known layout, or if the reader cannot read them.
    UsageError
        If the location has an option that the layout does not have.
    """
    location = locate(path)
    layout = find_layout(location)
    if not layout.trials:
        subject: Subject = layout.read(location)
        return subject
    from brainkit.data.trials import open_prepared

    trials = open_trials(path)
    prepared = open_prepared(trials.restrict(rois) if rois else trials, say)
    return dataclasses.replace(prepared, location=str(location.absolute()))


def open_trials(path: PathLike) -> Trials:
    """The single trials of a subject, as its layout's reader describes them.

    Raises
    ------
    DataError
        If the layout is unknown, or has no single trials.
    """
    location = locate(path)
    layout = find_layout(location)
    if not layout.trials:
        raise DataError(f"{location.path}: expected single trials, found {layout.title}, whose responses are averaged")
    trials: Trials = layout.read(location)
    return trials


def find_layout(location: Location) -> Layout:
    """The layout that a location names, else the one that its content shows.

    Raises
    ------
    DataError
        If there is nothing, or no known layout.
    UsageError
        If the content shows several data sets, and none is named.
    """
    if location.layout:
        location.check()
        return LAYOUTS[location.layout]
    folder = location.path
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a data folder, found {'a file' if folder.exists() else 'nothing'}")
    found = [name for name, layout in LAYOUTS.items() if layout.matches(folder)]
    if not found:
        raise DataError(_unknown(folder))
    of_data_sets = [name for name in found if name not in _OWN]
    if len(of_data_sets) > 1:
        titles = " and ".join(LAYOUTS[name].title for name in of_data_sets)
        raise UsageError(f"{folder}: expected data of one layout, found {titles}; choose one: {found[0]}:{folder}")
    return LAYOUTS[found[0]]


def choose_parts(paths: Sequence[PathLike], subjects: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Locations of parts of data sets.

    Parameters
    ----------
    paths : sequence of path-like
    subjects : sequence of str
        Which subjects; several only of one data set.
    options : mapping of str to str
        See `brainkit.data.location.Location`; they win over those of the paths.

    Raises
    ------
    UsageError
        If there are no data, or several subjects of several.
    """
    if not paths:
        given = ", ".join([*(["subject"] if subjects else []), *options])
        raise UsageError(f"{given}: expected the data set that this is a part of, found none; give --data DIR")
    if len(subjects) > 1 and len(paths) > 1:
        raise UsageError(
            f"expected one --data for several subjects, found {len(paths)}; or give DIR?subject=N for each"
        )
    parts: list[dict[str, str]] = [{**options, "subject": name} for name in subjects] or [dict(options)]
    return [str(locate(path).choose(part)) for path in paths for part in parts]


def _unknown(folder: Path) -> str:
    """The message about a folder of no known layout."""
    expected = " or ".join(f"{layout.markers[0]} ({layout.title})" for layout in LAYOUTS.values())
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"{folder}: expected {expected}, found an empty folder"
    main = [layout.markers[0] for layout in LAYOUTS.values()]
    subjects = [name for name in names if any((folder / name / marker).exists() for marker in main)]
    if subjects:
        return (
            f"{folder}: expected one subject's folder, found a folder of several; give one, as {folder / subjects[0]}"
        )
    if any((folder.absolute().parent / marker).exists() for marker in main):
        return f"{folder}: is a part of a subject's folder; give its parent folder {folder.absolute().parent}"
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"{folder}: expected {expected}, found {shown}"
