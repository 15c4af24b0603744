"""Permutation test of correlations: which responses belong to which stimulus is shuffled, for all vertices alike.

Whole groups of images are shuffled among the groups of their size, as the images of one stimulus depend on each other.
Shuffling costs little: predictions and responses are put in two random orders, and a fast Fourier transform correlates
them at every cyclic shift of one against the other. Each shift is a permutation that is as likely as any other; the
shifts of one order sum to zero, so a count over them varies no more than one over independent permutations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.metrics.resampling import standardised

_COLUMNS = 512  # vertices of a block
_SHIFTS = 1024  # shifts of one transform, at most, unless an order alone has more
_TIE = 1e-5  # correlations this close are equal, but for rounding in float32


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Whether correlations are above 0; one-sided.

    Attributes
    ----------
    p : array of shape (V,)
        (1 + permutations with at least this correlation) / (1 + permutations); NaN where there is none.
    p_max : array of shape (V,)
        The same with the largest correlation over all vertices: holds the family-wise error.
    permutations : int
    """

    p: np.ndarray
    p_max: np.ndarray
    permutations: int


def permutation_test(
    predictions: Any, responses: Any, r: np.ndarray, codes: np.ndarray, permutations: int, seed: int
) -> PermutationTest:
    """Test each vertex's correlation against permutations of the stimuli.

    Parameters
    ----------
    predictions, responses : arrays of shape (n, V)
        May be memory maps: they are read in blocks of vertices.
    r : array of shape (V,)
        Their correlation.
    codes : int array of shape (n,)
        Groups of the images, from :func:`brainkit.metrics.resampling.group_codes`.
    permutations : int
    seed : int

    Returns
    -------
    PermutationTest
        All NaN if no two groups have the same size: then nothing can be shuffled.
    """
    shuffles = _shuffles(codes, permutations, seed)
    known = np.isfinite(r)
    if not shuffles or not permutations:
        known[:] = False
    reached = np.zeros(len(r))
    largest = np.full(permutations, -np.inf, np.float32)
    for block, null in _null_blocks(predictions, responses, codes, shuffles, permutations) if known.any() else ():
        valid = known[block]
        reached[block] = (null >= r[block, None] - _TIE).sum(axis=1)
        largest = np.maximum(largest, null[valid].max(axis=0, initial=-np.inf))
    p = np.full(len(r), np.nan)
    p_max = p.copy()
    p[known] = (1 + reached[known]) / (1 + permutations)
    beyond = permutations - np.searchsorted(np.sort(largest), r[known] - _TIE)
    p_max[known] = (1 + beyond) / (1 + permutations)
    return PermutationTest(p, p_max, permutations)


def permuted_images(codes: np.ndarray) -> int:
    """How many images are permuted: those of groups that have the size of another group."""
    sizes = np.bincount(codes)
    return int(sizes[np.bincount(sizes)[sizes] > 1].sum())


def null_correlations(predictions: Any, responses: Any, codes: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """The correlations under permutations of the stimuli, parameters as for `permutation_test`.

    Returns
    -------
    array of shape (permutations, V), float32
        0 where prediction or response is constant or not finite.
    """
    null = np.empty((permutations, predictions.shape[1]), np.float32)
    shuffles = _shuffles(codes, permutations, seed)
    for block, part in _null_blocks(predictions, responses, codes, shuffles, permutations):
        null[:, block] = part.T
    return null


def _shuffles(codes: np.ndarray, permutations: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each size that several groups have: the images of predictions and of responses, (orders, size, groups) each.

    Every order gives as many permutations as there are groups.
    """
    rng = np.random.default_rng((seed, 1))
    sizes = np.bincount(codes)
    images = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    shuffles = []
    for size in np.unique(sizes):
        members = np.array([rows for rows in images if len(rows) == size])  # (groups, size)
        if len(members) > 1:
            shape = (-(-permutations // len(members)), len(members))
            orders = (rng.permuted(np.broadcast_to(np.arange(len(members)), shape), axis=1) for _ in range(2))
            of_predictions, of_responses = (members[order].transpose(0, 2, 1) for order in orders)
            shuffles.append((of_predictions, of_responses))
    return shuffles


def _null_blocks(
    predictions: Any,
    responses: Any,
    codes: np.ndarray,
    shuffles: list[tuple[np.ndarray, np.ndarray]],
    permutations: int,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of vertices and their correlations under each permutation, (columns, permutations)."""
    from scipy.fft import irfft, rfft

    n, vertices = predictions.shape
    shuffled = [rows[0].ravel() for rows, _ in shuffles]
    fixed = np.setdiff1d(np.arange(n), np.concatenate([*shuffled, np.empty(0, int)]))
    for start in range(0, vertices, _COLUMNS):
        block = slice(start, min(start + _COLUMNS, vertices))
        p, y = (np.ascontiguousarray(standardised(each[:, block])[0].T) for each in (predictions, responses))
        null = np.repeat((p[:, fixed] * y[:, fixed]).sum(axis=1, keepdims=True), permutations, axis=1)
        for of_predictions, of_responses in shuffles:
            groups = of_predictions.shape[2]
            step = max(_SHIFTS // groups, 1)
            for first in range(0, len(of_predictions), step):
                orders = slice(first, first + step)
                spectrum = rfft(p[:, of_predictions[orders]]).conj() * rfft(y[:, of_responses[orders]])
                shifted = irfft(spectrum.sum(axis=2), groups).reshape(len(p), -1)
                part = null[:, first * groups : first * groups + shifted.shape[1]]
                part += shifted[:, : part.shape[1]]
        yield block, null / n
