"""Variances of signal and noise from single trials, by the formulas that data sets publish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

TrialFormula = Literal["anova", "nsd", "bmd", "nsd-synthetic"]
Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class TrialVariances:
    """Variance over images of the true responses (may be estimated below 0), and of a single trial's noise; (V,)."""

    signal: Array
    noise: Array


def trial_variances(responses: Array, images: Codes, sessions: Codes, formula: TrialFormula) -> TrialVariances:
    """Variances by one of the formulas of `brainkit.metrics.noise_ceiling_from_trials`.

    Parameters
    ----------
    responses : array of shape (N, V)
        One row a trial.
    images, sessions : int array of shape (N,)
        From 0 without gaps; some image has two trials.
    """
    trials = responses - responses[:1]  # a large offset leaves a constant vertex at exactly zero variance
    if formula == "anova":
        return _anova(trials, images, sessions)
    if formula == "nsd" or sessions.any():
        trials = _z_scored(trials, sessions)
    repeats = np.bincount(images)
    within = _group_sums((trials - _group_means(trials, images)[images]) ** 2, images)
    if formula == "nsd-synthetic":
        noise, total = within.sum(0) / (repeats - 1).sum(), trials.var(0, ddof=1)
    else:
        several = repeats > 1
        noise = (within[several] / (repeats[several, None] - 1)).mean(0)
        # By definition 1 after z-scoring, but a constant vertex stays constant.
        total = trials.var(0) if formula == "bmd" else np.where(np.ptp(trials, 0) == 0, 0.0, 1.0)
    return TrialVariances(total - noise, noise)


def _anova(trials: Array, images: Codes, sessions: Codes) -> TrialVariances:
    """Henderson's method III for ``image + session + noise``; with one session the one-way analysis of variance."""
    table = np.zeros((images.max() + 1, sessions.max() + 1))
    np.add.at(table, (images, sessions), 1.0)  # trials of each image in each session
    # Noise: what images and sessions leave. Images are taken out by centring, then sessions by least squares.
    centred = trials - _group_means(trials, images)[images]
    indicators = np.eye(table.shape[1])[sessions]
    indicators = indicators - (table / table.sum(1, keepdims=True))[images]
    basis, sizes, _ = np.linalg.svd(indicators, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * np.sqrt(len(trials))]
    rest = ((centred - basis @ (basis.T @ centred)) ** 2).sum(0)
    freedom = len(trials) - table.shape[0] - basis.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.maximum(rest, 0.0) / freedom if freedom > 0 else np.full(trials.shape[1], np.nan)
    # Signal: what images add to sessions, minus what noise adds.
    within_sessions = ((trials - _group_means(trials, sessions)[sessions]) ** 2).sum(0)
    added = table.shape[0] + basis.shape[1] - table.shape[1]
    weight = len(trials) - ((table**2).sum(0) / table.sum(0)).sum()
    signal = (within_sessions - rest - added * noise) / weight if weight > 0 else np.full(trials.shape[1], np.nan)
    return TrialVariances(signal, noise)


def _z_scored(trials: Array, sessions: Codes) -> Array:
    centred = trials - _group_means(trials, sessions)[sessions]
    freedom = np.maximum(np.bincount(sessions) - 1, 1)[:, None]
    deviation = np.sqrt(_group_sums(centred**2, sessions) / freedom)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1.0)[sessions])


def _group_sums(values: Array, codes: Codes) -> Array:
    from scipy.sparse import csr_array

    members = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(codes.max() + 1, len(codes)))
    return np.asarray(members @ values)


def _group_means(values: Array, codes: Codes) -> Array:
    return _group_sums(values, codes) / np.bincount(codes)[:, None]
