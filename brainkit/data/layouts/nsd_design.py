"""Which image each trial of the Natural Scenes Dataset showed, cross-checked, and the named splits that follow."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.layouts.tables import read_table, whole_numbers
from brainkit.errors import DataError
from brainkit.utils.text import one_line

IMAGES = 73_000
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)  # of subjects 1 to 8
TRIALS_PER_SESSION = 750
TRIALS = 30_000  # of a subject with all sessions
FOLDER = Path("nsddata") / "experiments" / "nsd"
_SHARED, _OWN = 1000, 10_000
_REPETITIONS = 3
TEST_SESSIONS = 3  # of Algonauts 2023: each subject's last ones

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Design:
    """The planned trials of one subject.

    Attributes
    ----------
    ids : array of shape (planned trials,)
        Image of each trial, from 0.
    n_sessions : int
        Sessions of this subject, which may be fewer than were planned.
    trials_per_session : int
    shared : array of shape (k,)
        Images that all subjects see, increasing, from 0.
    seen_by_all : array of shape (m,)
        Those of `shared` that all eight subjects have seen three times.
    """

    ids: Integers
    n_sessions: int
    trials_per_session: int
    shared: Integers
    seen_by_all: Integers

    def session(self, number: int) -> Integers:
        """Images of a session's trials, sessions counted from 1."""
        start = (number - 1) * self.trials_per_session
        return self.ids[start : start + self.trials_per_session]

    @property
    def complete(self) -> bool:
        """Whether the subject has all sessions that were planned."""
        return self.n_sessions * self.trials_per_session == len(self.ids)


def read_design(root: Path, subject: int, trials_per_session: int, simulated: bool) -> Design:
    """Read ``nsd_expdesign.mat``, and check it against the subject's log and the table of images where they are.

    Parameters
    ----------
    root : Path
        Of the data set.
    subject : int
        1 to 8.
    trials_per_session : int
        Of the files with the responses.
    simulated : bool
        Whether the data are a sample, which has fewer trials and images.

    Raises
    ------
    DataError
        If a file is missing, of another version, or contradicts another.
    """
    path = root / FOLDER / "nsd_expdesign.mat"
    order, of_subjects, shared = read_mat(path, "masterordering", "subjectim", "sharedix")
    order, shared = order.ravel(), np.sort(shared.ravel())
    if not simulated:
        _check_sizes(path, order, of_subjects, shared)
        if trials_per_session != TRIALS_PER_SESSION:
            raise DataError(f"{root}: expected {TRIALS_PER_SESSION} trials a session, found {trials_per_session}")
    if len(order) % trials_per_session:
        raise DataError(f"{path}: expected sessions of {trials_per_session} trials, found {len(order):,} in all")
    if of_subjects.ndim != 2 or len(of_subjects) != len(SESSIONS):
        raise DataError(f"{path}: expected subjectim with a row for each of 8 subjects, found {of_subjects.shape}")
    _check_counted_from_1(path, "masterordering", order, of_subjects.shape[1])
    _check_counted_from_1(path, "subjectim", of_subjects, IMAGES)
    first = np.sort(of_subjects[:, : len(shared)], axis=1)
    if not (first == shared).all():
        raise DataError(
            f"{path}: expected the first {len(shared)} images of every subject in sharedix, found others; "
            "it is a design file of another version"
        )
    planned = len(order) // trials_per_session
    longest, fewest = max(SESSIONS), min(SESSIONS)
    # A sample has fewer sessions than NSD, of which its subject has the same share.
    common = order[: planned * fewest // longest * trials_per_session]
    counts = np.bincount(common, minlength=len(shared) + 1)[1 : len(shared) + 1]
    design = Design(
        ids=of_subjects[subject - 1, order - 1] - 1,
        n_sessions=planned * SESSIONS[subject - 1] // longest,
        trials_per_session=trials_per_session,
        shared=shared - 1,
        seen_by_all=np.sort(of_subjects[0, : len(shared)][counts == _REPETITIONS] - 1),
    )
    _check_log(root / "nsddata" / "ppdata" / f"subj{subject:02d}" / "behav" / "responses.tsv", design, subject)
    _check_images(root / FOLDER / "nsd_stim_info_merged.csv", design, subject)
    return design


def read_mat(path: Path, *names: str) -> list[Integers]:
    """Arrays of whole numbers from a MATLAB file.

    Raises
    ------
    DataError
        If it is missing or damaged, or lacks an array.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path}: file not found; expected the design of the experiment: download this file of NSD")
    try:
        content: dict[str, Any] = loadmat(path, variable_names=list(names))
    except Exception as error:  # damaged files make scipy raise nearly anything
        raise DataError(f"{path}: expected a MATLAB file, which cannot be read: {one_line(error)}") from None
    arrays = []
    for name in names:
        found = content.get(name)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf" or not found.size:
            raise DataError(f"{path}: expected the array {name}, found none; it is a design file of another version")
        if not np.isfinite(found).all() or (found != np.round(found)).any():
            raise DataError(f"{path}: expected whole numbers in {name}, found others")
        arrays.append(found.astype(np.int64))
    return arrays


def named_splits(design: Design, shown: Mapping[int, Integers]) -> dict[str, dict[str, list[int]]]:
    """The splits that the field uses, over the images of the sessions that are there.

    ``nsd-shared1000`` and ``nsd-shared515`` test on images that all subjects saw, and train on those that only this
    subject saw; ``algonauts`` tests on images seen in the last three sessions only, as Algonauts 2023: without shared
    ones, unless the subject has all sessions and the three trials lie in these. It needs all sessions. Splits that
    lack a side are left out.

    Parameters
    ----------
    design : Design
    shown : mapping of int to array
        Session, from 1 -> images of its trials.

    Returns
    -------
    dict
        Name -> ``train`` and ``test`` -> image numbers from 0, increasing.
    """
    seen = np.unique(np.concatenate(list(shown.values())))
    own = np.setdiff1d(seen, design.shared)
    splits = {
        "nsd-shared1000": (own, np.intersect1d(seen, design.shared)),
        "nsd-shared515": (own, np.intersect1d(seen, design.seen_by_all)),
    }
    if sorted(shown) == list(range(1, design.n_sessions + 1)) and design.n_sessions > TEST_SESSIONS:
        training, late = algonauts_sides(design)
        splits["algonauts"] = (training, late)
    return {
        name: {"train": train.tolist(), "test": test.tolist()}
        for name, (train, test) in splits.items()
        if len(train) and len(test)
    }


def algonauts_sides(design: Design) -> tuple[Integers, Integers]:
    """Training and test images of Algonauts 2023, see `named_splits`."""
    edge = design.n_sessions - TEST_SESSIONS
    early = np.concatenate([design.session(number) for number in range(1, edge + 1)])
    last = np.concatenate([design.session(number) for number in range(edge + 1, design.n_sessions + 1)])
    late, times = np.unique(last, return_counts=True)
    allowed = ~np.isin(late, design.shared) | ((times == _REPETITIONS) & design.complete)
    return np.unique(early), np.setdiff1d(late[allowed], early)


def _check_sizes(path: Path, order: Integers, of_subjects: Integers, shared: Integers) -> None:
    sizes = (("masterordering", order.shape, (TRIALS,)), ("subjectim", of_subjects.shape, (len(SESSIONS), _OWN)))
    for name, found, expected in (*sizes, ("sharedix", shared.shape, (_SHARED,))):
        if found != expected:
            raise DataError(
                f"{path}: expected {' x '.join(map(str, expected))} numbers in {name}, found "
                f"{' x '.join(map(str, found))}; it is a design file of another version"
            )
    if (np.bincount(order, minlength=_OWN + 1)[1:] != _REPETITIONS).any():
        raise DataError(f"{path}: expected each of {_OWN} images three times in masterordering, found others")


def _check_counted_from_1(path: Path, name: str, numbers: Integers, most: int) -> None:
    if numbers.min() < 1 or numbers.max() > most:
        counted = "; they seem to count from 0" if numbers.min() == 0 else ""
        raise DataError(
            f"{path}: expected numbers from 1 to {most:,} in {name}, found {numbers.min()} to {numbers.max()}{counted}"
        )


def _check_log(path: Path, design: Design, subject: int) -> None:
    """The subject's log of trials says the same, for the sessions that it has."""
    if not path.exists():
        return
    table = read_table(path, ("SUBJECT", "SESSION", "73KID"))
    whose, sessions, images = (np.array(whole_numbers(path, table, name)) for name in ("SUBJECT", "SESSION", "73KID"))
    if len(whose) and set(whose.tolist()) != {subject}:
        found = ", ".join(map(str, sorted(set(whose.tolist()))))
        raise DataError(f"{path}: expected the trials of subject {subject}, found those of {found}")
    for number in np.unique(sessions).tolist():
        logged, planned = images[sessions == number] - 1, design.session(number)
        if len(logged) != len(planned):
            raise DataError(f"{path}: expected {len(planned)} trials of session {number}, found {len(logged)}")
        if (logged != planned).any():
            trial = int((logged != planned).argmax())
            raise DataError(
                f"{path}: expected image {planned[trial] + 1} (from 1) in trial {trial + 1} of session {number}, as in "
                f"nsd_expdesign.mat, found {logged[trial] + 1}; one of the files is of another version"
            )


def _check_images(path: Path, design: Design, subject: int) -> None:
    """The table of images says the same: trials counted from 1, images from 0."""
    if not path.exists():
        return
    repetitions = [f"subject{subject}_rep{k}" for k in range(_REPETITIONS)]
    ids, *trials = _read_columns(path, ["nsdId", *repetitions])
    if not np.array_equal(ids, np.arange(len(ids))):
        raise DataError(f"{path}: expected nsdId to count from 0, found {ids[:1].tolist()} first, or gaps")
    for column, of_images in zip(repetitions, trials, strict=True):
        shown = of_images > 0
        outside = shown & (of_images > len(design.ids))
        if outside.any():
            raise DataError(
                f"{path}: expected trials from 1 to {len(design.ids)} in {column}, found {of_images[outside].max()}"
            )
        wrong = np.flatnonzero(design.ids[of_images[shown] - 1] != ids[shown])
        if len(wrong):
            image, trial = int(ids[shown][wrong[0]]), int(of_images[shown][wrong[0]])
            raise DataError(
                f"{path}: expected image {image} (from 0) in no other trials than in nsd_expdesign.mat, found trial "
                f"{trial} in {column}, which showed {design.ids[trial - 1]}; one of the files is of another version"
            )


def _read_columns(path: Path, names: Sequence[str]) -> list[Integers]:
    """Some columns of a large table with commas, as whole numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if missing := [name for name in names if name not in header]:
                raise DataError(f"{path}: expected the columns {', '.join(names)}, found no {missing[0]}")
            places = [header.index(name) for name in names]
            values = [[int(float(row[place])) for place in places] for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, IndexError) as error:
        raise DataError(f"{path}: expected a table of whole numbers, which cannot be read: {one_line(error)}") from None
    return list(np.array(values, np.int64).reshape(-1, len(names)).T)
