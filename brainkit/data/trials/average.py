"""Standardises trials by session, averages repetitions and estimates noise, in blocks of columns to save memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.trials.trials import Trials
from brainkit.errors import DataError

# Bytes of the sums of a block: the smaller, the less an interruption loses; where columns cannot be read alone, every
# block reads the files again.
_BLOCK_BYTES, _WHOLE_READ_BLOCK_BYTES = 256 << 20, 1536 << 20
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
    for block in blocks:
        columns = np.arange(block.start, block.stop, dtype=np.int64)
        sums = np.zeros((len(repeats), len(columns)), np.float32)
        origin: npt.NDArray[np.float32] | None = None
        squares = np.zeros(len(columns))  # of all trials; `within` needs those of repeated images alone
        single = np.zeros(len(columns))
        for session in trials.sessions:
            values = np.array(session.read(columns), np.float32)
            if values.shape != (len(session.images), len(columns)):
                raise DataError(
                    f"{session.files[0]}: expected responses of {len(session.images)} trials, found {len(values)}"
                )
            if trials.standardise:
                _standardise(values)
            else:
                # Relative to one trial: a large offset would cost digits.
                origin = values[0].copy() if origin is None else origin
                values -= origin
            shown = session.images
            if (shown < 0).any():
                values, shown = values[shown >= 0], shown[shown >= 0]
            squares += _sum_of_squares(values)
            single += _sum_of_squares(values[repeats[shown] == 1])
            for image, row in zip(shown.tolist(), values, strict=True):
                sums[image] += row
        signal, noise = _variances(sums, repeats, squares, single, trials.standardise)
        sums /= repeats[:, None].astype(np.float32)
        if origin is not None:
            sums += origin
        yield Averaged(block, sums, signal, noise)


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
