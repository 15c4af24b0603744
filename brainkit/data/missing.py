"""Missing trials and vertices that cannot be used, found in one pass over the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.responses import Responses
from brainkit.errors import DataError
from brainkit.utils.text import plural

_MOST = 0.5  # of the vertices of a file: a trial that lacks more is missing
_SAMPLE = 64  # columns by which rows with one value at all vertices are suspected
_LEAST_VARYING = 10  # vertices of a file: fewer may have one value by chance
_SHOWN = 5  # rows that a message names


@dataclass(frozen=True, eq=False)
class Unusable:
    """What of the responses cannot be used.

    Attributes
    ----------
    constant : array of shape (V,), bool
        Vertices whose training responses are all equal.
    not_finite : array of shape (V,), bool
        Vertices with responses that are not finite.
    incomplete : array of shape (n,), bool
        Images that lack the responses of vertices which most images have.
    """

    constant: npt.NDArray[np.bool_]
    not_finite: npt.NDArray[np.bool_]
    incomplete: npt.NDArray[np.bool_]


def find_unusable(
    responses: Responses, images: Sequence[Path], n_training: int, parts: Sequence[slice] = ()
) -> Unusable:
    """Find the vertices that cannot be used, and refuse missing trials.

    Parameters
    ----------
    responses : Responses
        All rows and columns.
    images : sequence of Path, (n,)
        For messages.
    n_training : int
        Rows before the official test set.
    parts : sequence of slice
        Columns that are measured together, such as a hemisphere; by default those of each file.

    Raises
    ------
    DataError
        If trials are missing: rows of a part in which most vertices are not finite, or all have the same value. Names
        the file, the rows and the images. Vertices that are not finite in most rows do not count.
    """
    n, vertices = responses.shape
    parts = parts or responses.parts
    constant = np.ones(vertices, bool)
    bad_rows = np.zeros(vertices, np.int64)  # of each column
    bad_columns = np.zeros((n, len(parts)), np.int64)  # of each row, by file
    same = np.zeros((n, len(parts)), bool)
    first = responses.rows([0])[0]
    start = 0
    for block in responses.blocks():
        rows = slice(start, start + len(block))
        constant &= (block[: max(n_training - start, 0)] == first).all(axis=0)
        finite = np.isfinite(block)
        if not finite.all():
            bad_rows += (~finite).sum(axis=0)
            bad_columns[rows] = np.stack([(~finite[:, part]).sum(axis=1) for part in parts], axis=1)
        same[rows] = np.stack([_same_everywhere(block[:, part]) for part in parts], axis=1)
        start += len(block)
    not_finite = bad_rows > 0
    constant &= ~not_finite  # counted once

    missing, incomplete = np.zeros((n, len(parts)), bool), np.zeros(n, bool)
    for k, part in enumerate(parts):
        width = part.stop - part.start
        empty = bad_columns[:, k] == width
        if empty.all():
            continue  # the whole file: vertices that nobody measured
        often_bad = int((bad_rows[part] - empty.sum() > _MOST * (~empty).sum()).sum())
        lacking = bad_columns[:, k] - often_bad
        incomplete |= lacking > 0
        missing[:, k] = lacking > _MOST * (width - often_bad)
        if width - often_bad - constant[part].sum() >= _LEAST_VARYING:
            missing[:, k] |= same[:, k]
    if missing.any():
        raise DataError(_missing_message(responses, images, missing))
    return Unusable(constant, not_finite, incomplete)


def _same_everywhere(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows have one value at all vertices where they are finite. (b, V) -> (b,)"""
    sample = values[:, :: max(1, values.shape[1] // _SAMPLE)]
    suspected = np.asarray(np.fmin.reduce(sample, axis=1) == np.fmax.reduce(sample, axis=1))
    for row in np.flatnonzero(suspected):
        finite = values[row][np.isfinite(values[row])]
        suspected[row] = bool(len(finite)) and bool((finite == finite[0]).all())
    return suspected


def _missing_message(responses: Responses, images: Sequence[Path], missing: npt.NDArray[np.bool_]) -> str:
    """Of the first block of files that has missing trials."""
    ends = np.cumsum(responses.block_rows)
    block = int(np.searchsorted(ends, missing.any(axis=1).argmax(), side="right"))
    files, count = responses.files[block], responses.block_rows[block]
    start = int(ends[block]) - count
    here = missing[start : start + count]
    in_parts = np.flatnonzero(here.any(axis=0))
    file, *others = (files[k] for k in in_parts) if len(files) == here.shape[1] else files
    rows = np.flatnonzero(here.any(axis=1)).tolist()
    what = f"{file}{''.join(f', also {other.name}' for other in others)}: expected a response to every image, found "
    if len(rows) == count:
        return (
            f"{what}none (NaN or infinite at most vertices, or the same value at all, in every row); remove such files"
        )
    shown = ", ".join(f"row {row} ({'/'.join(images[start + row].parts[-2:])})" for row in rows[:_SHOWN])
    return (
        f"{what}{plural(len(rows), 'missing trial')} in {count:,} rows (NaN or infinite at most vertices, or the same "
        f"value at all): {shown}{', ...' if len(rows) > _SHOWN else ''}, counted from 0; remove these rows"
        f"{' from both hemispheres' if len(files) > 1 else ''} and their images"
    )
