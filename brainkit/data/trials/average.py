"""Standardises trials by session, averages repetitions and estimates noise, in blocks of columns to save memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError
from brainkit.utils.system import cores

# Bytes of the sums of a block: the smaller, the less an interruption loses; where columns cannot be read alone, every
# block reads the files again.
_BLOCK_BYTES, _WHOLE_READ_BLOCK_BYTES = 256 << 20, 1536 << 20
_PART = 1024  # columns that are standardised at a time
_ROWS = 256  # images whose squares are summed at a time


@dataclass(frozen=True, eq=False)
class Averaged:
    """Averages of a block of columns.

    Attributes
    ----------
    columns : slice
    responses : array of shape (n, k), float32
        Mean over the trials of each image. NaN: not measured, or constant within a session that is standardised.
    signal, noise : array of shape (k,), float64
        Variance over images of the true responses, and of a single trial's noise; NaN without repetitions.
    """

    columns: slice
    responses: npt.NDArray[np.float32]
    signal: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]


def column_blocks(trials: Trials) -> list[slice]:
    """The blocks of columns that are averaged at a time."""
    total = len(trials.vertices)
    limit = _BLOCK_BYTES if trials.reads_columns else _WHOLE_READ_BLOCK_BYTES
    width = max(1, limit // (4 * len(trials.images)))
    # Blocks of about the same width: the last one is not a sliver.
    edges = np.linspace(0, total, -(-total // width) + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def average(trials: Trials, blocks: list[slice]) -> Iterator[Averaged]:
    """Average the trials of each image, block by block.

    Where trials are standardised, the variance of all trials is 1, and the signal's is what noise leaves of it, as in
    the Natural Scenes Dataset; noise is the variance within images, pooled over their degrees of freedom, which is
    NSD's mean over images where all have the same number of trials. Otherwise the one-way analysis of variance gives
    both, which is unbiased for unequal repetitions.

    Raises
    ------
    DataError
        If a session's responses have another shape than its trials.

    References
    ----------
    Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence.
    Searle (1971), Linear models.
    """
    repeats = trials.repetitions
    with ThreadPoolExecutor(cores()) as pool:
        for block in blocks:
            columns = np.arange(block.start, block.stop, dtype=np.int64)
            sums = _Sums.zero(repeats, len(columns), trials.standardise)
            for session, values in _read_ahead(trials.sessions, columns):
                sums.add(session.images, values, pool)
            yield Averaged(block, *sums.finish())


def _read_ahead(
    sessions: Sequence[Session], columns: npt.NDArray[np.int64]
) -> Iterator[tuple[Session, npt.NDArray[np.float32]]]:
    """The responses of each session, while the next is read in a thread."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(sessions[0].read, columns)
        for session, following in itertools.zip_longest(sessions, sessions[1:]):
            values = np.asarray(coming.result())
            if following is not None:
                coming = reader.submit(following.read, columns)
            if values.shape != (len(session.images), len(columns)):
                raise DataError(
                    f"{session.files[0]}: expected responses of {len(session.images)} trials, found {len(values)}"
                )
            yield session, values


@dataclass(eq=False)
class _Sums:
    """Sums over the trials of some columns.

    Attributes
    ----------
    of_images : array of shape (n, k), float32
    squares, single : array of shape (k,), float64
        Squares of all trials, and of those of images that have one trial: noise shows only in the others.
    repeats : array of shape (n,)
        Trials of each image.
    origin : array of shape (k,), float32, or None
        What was subtracted from all trials, the first of them: a large offset would cost digits. None until it is
        known, and where trials are standardised.
    """

    of_images: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float64]
    single: npt.NDArray[np.float64]
    repeats: npt.NDArray[np.int64]
    standardise: bool
    origin: npt.NDArray[np.float32] | None = None

    @classmethod
    def zero(cls, repeats: npt.NDArray[np.int64], columns: int, standardise: bool) -> _Sums:
        return cls(
            np.zeros((len(repeats), columns), np.float32), np.zeros(columns), np.zeros(columns), repeats, standardise
        )

    def add(self, images: npt.NDArray[np.int64], values: npt.NDArray[Any], pool: Executor) -> None:
        """Add a session's trials (t, k), some columns at a time, which fit the processor's cache."""
        if self.origin is None and not self.standardise:
            self.origin = values[0].astype(np.float32)
        parts = [slice(start, start + _PART) for start in range(0, values.shape[1], _PART)]
        list(pool.map(lambda part: self._add(images, np.array(values[:, part], np.float32, order="C"), part), parts))

    def _add(self, images: npt.NDArray[np.int64], values: npt.NDArray[np.float32], part: slice) -> None:
        if self.origin is None:
            _standardise(values)
        else:
            values -= self.origin[part]
        if (images < 0).any():
            values, images = values[images >= 0], images[images >= 0]
        self.squares[part] += _sum_of_squares(values)
        self.single[part] += _sum_of_squares(values[self.repeats[images] == 1])
        for image, row in zip(images.tolist(), values, strict=True):
            self.of_images[image, part] += row

    def finish(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The mean over the trials of each image, in the place of the sums, and the variances of signal and noise."""
        signal, noise = _variances(self.of_images, self.repeats, self.squares, self.single, self.standardise)
        self.of_images /= self.repeats[:, None].astype(np.float32)
        if self.origin is not None:
            self.of_images += self.origin
        return self.of_images, signal, noise


def _standardise(values: npt.NDArray[np.float32]) -> None:
    """Z-score each column in place; a constant one becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        values -= values.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = np.sqrt(_sum_of_squares(values) / len(values))
        values /= np.where(deviation > 0, deviation, np.nan).astype(np.float32)


def _sum_of_squares(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.einsum("ij,ij->j", values, values, dtype=np.float64, casting="same_kind"))


def _variances(
    sums: npt.NDArray[np.float32],
    repeats: npt.NDArray[np.int64],
    squares: npt.NDArray[np.float64],
    single: npt.NDArray[np.float64],
    standardised: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Variances of signal and noise from the sums over the trials of each image; see `average`."""
    unknown = np.full(len(squares), np.nan)
    repeated = repeats > 1
    freedom = int((repeats[repeated] - 1).sum())
    if not freedom or len(repeats) < 2:
        return unknown, unknown
    between_repeated = _between(sums, repeats, repeated)
    noise = np.maximum(squares - single - between_repeated, 0.0) / freedom
    if standardised:
        return 1.0 - noise, noise
    n_trials = int(repeats.sum())
    total = sums.sum(axis=0, dtype=np.float64)
    mean_square = (between_repeated + single - total**2 / n_trials) / (len(repeats) - 1)
    typical = (n_trials - float((repeats**2).sum()) / n_trials) / (len(repeats) - 1)  # trials of an image
    return (mean_square - noise) / typical, noise


def _between(
    sums: npt.NDArray[np.float32], repeats: npt.NDArray[np.int64], which: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    """Sum over images of the squared sum of their trials over the number of these, (k,), float64."""
    total = np.zeros(sums.shape[1])
    rows = np.flatnonzero(which)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        with np.errstate(invalid="ignore", over="ignore"):
            total += (sums[some].astype(np.float64) ** 2 / repeats[some, None]).sum(axis=0)
    return total
