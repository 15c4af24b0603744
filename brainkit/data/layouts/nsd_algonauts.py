"""The data of the Algonauts 2023 challenge, made again from NSD's single trials, with test responses and ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.data.dataset import ALGONAUTS_PAPER
from brainkit.data.layouts.nsd_design import TEST_SESSIONS
from brainkit.data.subject import Subject
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError

SPLIT = "algonauts"
MASK = ("nsdgeneral", "RSC")


def algonauts_from_trials(trials: Trials) -> Trials:
    """The trials that Algonauts 2023 averaged, at its vertices.

    Training responses are means over a subject's sessions but the last three, test responses over these; all trials of
    a session count for standardising. Prepared and opened, the data have the challenge's rows in the order of NSD's
    ids, and its vertices: those of nsdgeneral and RSC that have no missing values.

    Parameters
    ----------
    trials : Trials
        All sessions of a subject of NSD on fsaverage, with the split ``algonauts``.

    Raises
    ------
    DataError
        If they are other trials, or lack a region.

    References
    ----------
    Gifford et al. (2023), The Algonauts Project 2023 Challenge: how the human brain makes sense of natural scenes.
    """
    if SPLIT not in trials.splits or trials.vertices.space != "fsaverage":
        raise DataError(
            f"{trials.root}: expected all sessions of NSD on fsaverage to make the data of Algonauts 2023, found "
            f"{len(trials.sessions)} sessions of {trials.layout}"
        )
    if missing := [name for name in MASK if name not in trials.rois]:
        raise DataError(f"{trials.root}: expected the regions {' and '.join(MASK)} on fsaverage, found no {missing[0]}")
    sides = trials.splits[SPLIT]
    row_of = {name: row for row, name in enumerate(trials.images.names)}
    training, test = (np.array([row_of[name] for name in sides[side]], np.int64) for side in ("train", "test"))
    kept = np.union1d(training, test)
    restricted = trials.restrict(MASK)
    n_training = len(trials.sessions) - TEST_SESSIONS
    sessions = [
        _renumber(session, training if number < n_training else test, kept)
        for number, session in enumerate(restricted.sessions)
    ]
    return replace(
        restricted,
        layout=f"Algonauts 2023 from {trials.layout}",
        sessions=tuple(sessions),
        images=trials.images.select(kept),
        splits={SPLIT: sides},
        ncsnr=None,
        dataset=replace(trials.dataset, citation=(*trials.dataset.citation, ALGONAUTS_PAPER)),
        notes=(*trials.notes, f"training: sessions 1 to {n_training}; test: the last {TEST_SESSIONS}"),
    )


def _renumber(session: Session, counted: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]) -> Session:
    """Rows among the images that are kept; -1 for trials that are not counted in this session."""
    images = np.where(np.isin(session.images, counted), np.searchsorted(kept, session.images), -1)
    return replace(session, images=images)


def compare_with_challenge(made: Subject, challenge: Subject) -> Mapping[str, Any]:
    """How far responses that were made from trials are from those that the challenge published.

    Parameters
    ----------
    made : Subject
        Prepared from `algonauts_from_trials`.
    challenge : Subject
        The same subject's folder as published.

    Returns
    -------
    dict
        ``images`` and ``vertices`` that both have, of those of the challenge (``challenge_images``,
        ``challenge_vertices``), and the largest absolute ``difference`` between their responses.
    """
    rows = {name: row for row, name in enumerate(made.named_groups)}
    common = [(rows[name], row) for row, name in enumerate(challenge.named_groups) if name in rows]
    _, ours, theirs = np.intersect1d(made.vertices.ids, challenge.vertices.ids, return_indices=True)
    largest = 0.0
    for own, published in common:
        difference = made.responses.rows([own])[0][ours] - challenge.responses.rows([published])[0][theirs]
        largest = max(largest, float(np.abs(difference).max(initial=0.0)))
    return {
        "images": len(common),
        "challenge_images": len(challenge),
        "vertices": len(ours),
        "challenge_vertices": len(challenge.vertices),
        "difference": largest,
    }
