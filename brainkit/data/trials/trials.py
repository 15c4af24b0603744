"""Single trials of one subject, as a reader of a data set's own layout describes them. Nothing is read yet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.dataset import OWN, Dataset
from brainkit.data.trials.images import StimulusImages
from brainkit.errors import DataError
from brainkit.utils.text import plural

# Of some columns, increasing: (n trials, k columns), float32.
ReadColumns = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Session:
    """Trials that were measured together, and are standardised together.

    Attributes
    ----------
    name : str
        For messages, such as ``session 07``.
    files : tuple of Path
        What `read` reads: a change of these files makes a prepared subject outdated.
    images : array of shape (n,), int64
        The row in `Trials.images` that each trial showed; -1: the trial counts for standardising alone.
    read : callable
        ``read(columns)``: responses of the n trials, in order, at these columns (k,), increasing: (n, k), float32.
        Not finite: not measured. Called from a thread, one call at a time.
    """

    name: str
    files: tuple[Path, ...]
    images: npt.NDArray[np.int64]
    read: ReadColumns

    def __repr__(self) -> str:
        return f"Session({self.name!r}, {plural(len(self.images), 'trial')})"


@dataclass(frozen=True, eq=False)
class Trials:
    """One subject's single trials, before standardising and averaging.

    Attributes
    ----------
    name : str
        Of the subject.
    layout : str
        What was found, in words: ``NSD, fsaverage, betas_fithrf_GLMdenoise_RR``.
    root : Path
        The folder that was given.
    sessions : tuple of Session
    images : StimulusImages
        Of the stimuli, each once; all are shown in some trial.
    vertices : Vertices
        Of the V columns.
    rois : mapping of str to array of shape (k,)
        Columns of each ROI.
    standardise : bool
        Z-score each column within each session (n in the denominator of the variance), before averaging.
    coordinates : array of shape (V, 3), float32, or None
        In mm, for columns that are no vertices of a known space.
    volume : Volume or None
        The voxels, if the data are volumetric.
    ncsnr : array of shape (V,), or None
        The noise ceiling's signal-to-noise ratio as the data set publishes it, to compare with.
    stated : mapping of str to array, or None
        Written instead of what would be estimated: of ``noise_ceiling`` (V,), ``ncsnr`` (V,) and ``repetitions`` (n,)
        those that the data state, and no others. None: they are estimated from the trials.
    splits : mapping of str to mapping of str to sequence of str
        Named splits: name -> side or test set -> names of images.
    units : str
        Of the responses after preparation.
    dataset : Dataset
        Name, licence and citation.
    kind : str
        See `brainkit.data.Subject`.
    note : str or None
        Shown with all results, for example that the subject is simulated.
    notes : tuple of str
        What a user should know of what was found, a line each.
    extra_files : tuple of Path
        Copied into the prepared folder, such as the truth of a simulated subject.
    reads_columns : bool
        Whether reading some of the columns costs about as much less as there are fewer of them; false for compressed
        volumes, which are read whole.
    """

    name: str
    layout: str
    root: Path
    sessions: tuple[Session, ...]
    images: StimulusImages
    vertices: Vertices
    rois: Mapping[str, npt.NDArray[np.integer[Any]]] = field(default_factory=dict)
    standardise: bool = True
    coordinates: npt.NDArray[np.float32] | None = None
    volume: Volume | None = None
    ncsnr: npt.NDArray[np.float64] | None = None
    stated: Mapping[str, npt.NDArray[Any]] | None = None
    splits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    units: str = "z-scored percent signal change"
    dataset: Dataset = field(default_factory=Dataset)
    kind: str = OWN
    note: str | None = None
    notes: tuple[str, ...] = ()
    extra_files: tuple[Path, ...] = ()
    reads_columns: bool = True

    def __post_init__(self) -> None:
        if not self.sessions:
            raise DataError(f"{self.root}: expected at least one session, found none")
        for session in self.sessions if self.standardise else ():
            if len(session.images) < 2:
                where = session.files[0] if session.files else self.root
                raise DataError(
                    f"{where}: expected at least 2 trials of {session.name}, which are z-scored together, found "
                    f"{len(session.images)}; leave this session out"
                )
        if unseen := int((self.repetitions == 0).sum()):
            raise ValueError(f"images without a trial: {unseen}")

    def __repr__(self) -> str:
        return f"Trials({self.describe()})"

    @property
    def n_trials(self) -> int:
        """Trials that are averaged."""
        return int(self.repetitions.sum())

    @property
    def repetitions(self) -> npt.NDArray[np.int64]:
        """Trials of each image, (n,)."""
        shown = np.concatenate([session.images for session in self.sessions])
        return np.bincount(shown[shown >= 0], minlength=len(self.images))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files with responses or images, each once."""
        of_sessions = itertools.chain.from_iterable(session.files for session in self.sessions)
        return tuple(dict.fromkeys([*of_sessions, *self.images.files]))

    def restrict(self, rois: Sequence[str]) -> Trials:
        """The same trials at the vertices of these ROIs only, their union.

        Raises
        ------
        UsageError
            If a name is unknown (suggests the nearest).
        DataError
            If the ROIs have no vertex.
        """
        table = RoiTable(self.rois, len(self.vertices)).on(self.vertices, self.volume)
        columns = table.union(table.split_names(rois)).astype(np.int64)
        if not len(columns):
            raise DataError(f"{self.root}: expected vertices in the ROI {', '.join(rois)}, found none")

        def at(session: Session) -> Session:
            return replace(session, read=lambda wanted: session.read(columns[wanted]))

        return replace(
            self,
            sessions=tuple(map(at, self.sessions)),
            vertices=self.vertices.select(columns),
            rois=dict(table.subset(columns)),
            coordinates=None if self.coordinates is None else self.coordinates[columns],
            volume=None if self.volume is None else self.volume.select(columns),
            ncsnr=None if self.ncsnr is None else self.ncsnr[columns],
            stated=None
            if self.stated is None
            else {name: values if name == "repetitions" else values[columns] for name, values in self.stated.items()},
        )

    def describe(self) -> str:
        """A one-line summary."""
        counts = np.bincount(self.repetitions)
        shown = ", ".join(f"{count:,} shown {times} times" for times, count in enumerate(counts) if count)
        return (
            f"{self.name}: {self.layout}; {plural(len(self.sessions), 'session')}, {plural(self.n_trials, 'trial')} of "
            f"{plural(len(self.images), 'image')} ({shown}); {plural(len(self.vertices), 'column')}"
        )
