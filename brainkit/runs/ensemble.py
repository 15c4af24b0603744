"""Finished runs that differ only in their seeds, as one encoder: whether they are compatible, and how good it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError
from brainkit.runs.encoder_info import encoder_info
from brainkit.runs.folder import finished_run, load_model, read_settings
from brainkit.runs.image_hashes import join_image_hashes
from brainkit.runs.network import extract_subject_tokens
from brainkit.runs.run_data import open_run_data
from brainkit.runs.uncertainty import ensemble_uncertainty
from brainkit.utils.progress import Say
from brainkit.utils.table import number
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.evaluation.scores import Scores
    from brainkit.model.ensemble import Ensemble
    from brainkit.model.factor_topy import FactorTopy


@dataclass(frozen=True, eq=False)
class Member:
    """A finished run of one subject, opened.

    Attributes
    ----------
    folder : Path
    summary : dict
        Its ``run.json``.
    model : FactorTopy
    info : EncoderInfo
        The metadata of its own encoder file.
    """

    folder: Path
    summary: dict[str, Any]
    model: FactorTopy
    info: EncoderInfo

    @classmethod
    def open(cls, run: str | os.PathLike[str]) -> Member:
        """Open a run folder."""
        folder, summary = finished_run(run)
        model = load_model(folder)
        return cls(folder, summary, model, encoder_info(folder, summary, model))


def check_members(members: Sequence[Member]) -> None:
    """Refuse runs that cannot be one ensemble.

    Raises
    ------
    UsageError
        If :func:`check_same_model` refuses them, or a run differs from the first in its vertices.
    """
    check_same_model(members)
    first = members[0]
    for member in members[1:]:
        if not have_same_vertices(first, member):
            raise UsageError(
                f"the runs of an ensemble must have the same vertices, got {len(first.info.vertices)} in "
                f"{first.folder} and {len(member.info.vertices)} others in {member.folder}"
            )


def check_same_model(members: Sequence[Member]) -> None:
    """Refuse runs whose predictions cannot be averaged in one file.

    Raises
    ------
    UsageError
        If a run is named twice, or differs from the first in the backbone's weights, layers or preprocessing, the token
        grid, the bottleneck's channels, the space, the gauge or the units.
    """
    first = members[0]
    folders = [first.folder.resolve()]
    for member in members[1:]:
        if member.folder.resolve() in folders:
            raise UsageError(f"an ensemble must have different runs, got {member.folder} twice")
        folders.append(member.folder.resolve())
        expected, found = _shared_properties(first), _shared_properties(member)
        for name in expected:
            if expected[name] != found[name]:
                raise UsageError(
                    f"the runs of an ensemble must have one {name}, got {_short(expected[name])} in {first.folder} and "
                    f"{_short(found[name])} in {member.folder}"
                )


def build_ensemble(members: Sequence[Member], network: Backbone, say: Say) -> tuple[Ensemble, EncoderInfo]:
    """The mean of several runs' models, scored on the test images that none of them was trained on, if there are any.

    Parameters
    ----------
    members : sequence of Member
        Compatible, see :func:`check_members`.
    network : Backbone
        The network they were trained on.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Ensemble
    EncoderInfo
        Its selectors are means over the members; its scores are the ensemble's, or NaN.
    """
    from brainkit.model.ensemble import Ensemble

    ensemble = Ensemble([member.model for member in members])
    first = members[0].info
    per_vertex, summary = _score(ensemble, members, network, say)
    return ensemble, dataclasses.replace(
        joined_info(members),
        **per_vertex,
        # Halves of the images tell more than seeds; the mean of several runs is at least as sure as the first of them.
        uncertainty=first.uncertainty or ensemble_uncertainty([member.folder for member in members]),
        provenance={**first.provenance, "seed": [member.summary["seed"] for member in members], "scores": summary},
    )


def joined_info(members: Sequence[Member]) -> EncoderInfo:
    """The first member's metadata, with mean selectors, the notes, licences and images of all, and who they are."""
    infos = [member.info for member in members]

    def mean(name: str) -> np.ndarray:
        return np.asarray(np.mean([getattr(info, name) for info in infos], axis=0, dtype=np.float64), np.float32)

    depth = np.stack([info.layer_weights @ np.arange(len(info.layers)) for info in infos])
    return dataclasses.replace(
        infos[0],
        layer_weights=mean("layer_weights"),
        locations=mean("locations"),
        scale=mean("scale"),
        image_hashes=join_image_hashes([info.image_hashes for info in infos]),
        note="; ".join(dict.fromkeys(info.note for info in infos if info.note)) or None,
        licence=" ".join(dict.fromkeys(info.licence for info in infos)),
        ensemble={
            "members": len(members),
            # S.d. over the members of a vertex's expected depth, in layers, at the median vertex.
            "depth_sd": float(np.median(depth.std(0, ddof=1))),
            "runs": [_member_facts(member) for member in members],
        },
    )


def _score(
    ensemble: Ensemble, members: Sequence[Member], network: Backbone, say: Say
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """``r``, ``R2`` and ``noise_ceiling`` (V,), NaN where unknown, and their summary; None if it cannot be scored."""
    from brainkit.evaluation.scores import json_ready, summarise

    ceilings = [member.info.noise_ceiling for member in members]
    unknown = np.full(len(ceilings[0]), np.nan, np.float32)
    try:
        subject = _open_common_subject(members)
    except _NotScored as reason:
        say(f"the ensemble is not scored: {reason}")
        same = all(np.array_equal(ceilings[0], ceiling, equal_nan=True) for ceiling in ceilings)
        return {"r": unknown, "R2": unknown, "noise_ceiling": ceilings[0] if same else unknown}, None
    scores = _score_on_test_images(ensemble, members[0], network, subject, say)
    summary = json_ready(summarise(scores, members[0].info.rois))
    r, R2 = (number(summary["all"][name], ".3f") for name in ("r", "R2"))
    images = plural(scores.images, "image")
    say(f"mean of {len(members)} runs: test scores on {images}: r {r}, R2 {R2} (medians over vertices)")
    return {name: np.asarray(getattr(scores, name), np.float32) for name in ("r", "R2", "noise_ceiling")}, summary


class _NotScored(Exception):
    """Why an ensemble cannot be scored, in one line."""


def _open_common_subject(members: Sequence[Member]) -> Subject:
    """Open the data whose test images no member was trained on.

    Raises
    ------
    _NotScored
        If there is none.
    """
    from brainkit.data.split import Split
    from brainkit.data.splits import leaked_images

    first = members[0]
    for member in members:
        if "imported" in member.summary or not (member.folder / "split.json").is_file():
            raise _NotScored(f"the training images of {member.folder} are unknown")
        if member.summary["data"]["hash"] != first.summary["data"]["hash"]:
            raise _NotScored(f"{first.folder} and {member.folder} were trained on different data")
    splits = [Split.read(member.folder / "split.json") for member in members]
    for member, split in zip(members, splits, strict=True):
        if split.names_hash != splits[0].names_hash or not np.array_equal(split.test, splits[0].test):
            raise _NotScored(
                f"a test image of {first.folder} may be a training image of {member.folder}; train all runs with the "
                "same data.split_seed"
            )
    try:
        subject = open_run_data(first.folder, first.summary)
    except BrainkitError as error:
        raise _NotScored(f"its data cannot be opened: {error}") from None
    if leaked_images(splits, [subject.groups] * len(splits)):
        raise _NotScored("training or validation images show the stimuli of test images; train the runs again")
    return subject


def _score_on_test_images(ensemble: Ensemble, member: Member, network: Backbone, subject: Subject, say: Say) -> Scores:
    from brainkit.data.split import Split
    from brainkit.evaluation.model_scores import score
    from brainkit.evaluation.scores import add_intervals
    from brainkit.training.fit import choose_device

    settings = read_settings(member.folder)
    rows = Split.read(member.folder / "split.json").test
    tokens = extract_subject_tokens(
        network,
        subject,
        grid=member.model.grid,
        device=choose_device("auto"),
        dtype=settings.data.token_dtype,
        say=say,
    )
    kept: list[np.ndarray] = []
    scores = score(ensemble, tokens.cache, subject.responses, rows, subject.noise_ceiling_of(rows), keep=kept.append)
    responses, groups = subject.responses.rows(rows), np.asarray(subject.groups)[rows]
    return add_intervals(scores, np.concatenate(kept), responses, member.info.rois, groups)


def _shared_properties(member: Member) -> dict[str, Any]:
    """What all runs of an ensemble must share, by the name used in messages."""
    model = member.model
    return {
        "backbone (weights)": member.summary["backbone"]["weights_hash"],
        "choice of layers": tuple(member.info.layers),
        "preprocessing": member.info.preprocessing,
        "token grid": f"{model.grid[0]} x {model.grid[1]}",
        "way of resampling tokens to the grid": model.resize,
        "number of channels (model.bottleneck)": model.weight.shape[1],
        "space": member.info.vertices.space,
        "gauge": member.info.gauge,
        "unit": member.info.units,
    }


def have_same_vertices(first: Member, member: Member) -> bool:
    """Whether two runs of one space predict the same vertices; in a custom space their coordinates decide."""
    same_ids = np.array_equal(first.info.vertices.ids, member.info.vertices.ids)
    if same_ids and first.info.vertices.space == CUSTOM:
        return np.array_equal(first.model.coordinates.cpu(), member.model.coordinates.cpu())
    return same_ids


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _member_facts(member: Member) -> dict[str, Any]:
    """A member's entry in the metadata."""
    scores = member.summary["scores"]
    medians = scores.get("all") or {}
    return {
        "seed": member.summary["seed"],
        "data": member.summary["data"]["hash"],
        "split": member.summary["split"],
        "brainkit": member.summary["brainkit"],
        "scores": {"images": scores["images"], **{key: medians.get(key) for key in ("r", "R2")}},
    }
