"""Finished runs that differ in their seeds alone, as one encoder: are they alike, and how good are they together?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config
from brainkit.cortex.surface import CUSTOM
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError
from brainkit.runs.folder import RunLog, encoder_info, finished_run, load_model
from brainkit.runs.prepare import tokens_of

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.evaluation.scores import Scores
    from brainkit.model.ensemble import Ensemble
    from brainkit.model.factor_topy import FactorTopy

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Member:
    """A finished run, opened.

    Attributes
    ----------
    folder : Path
    summary : dict
        Its ``run.json``.
    model : FactorTopy
    info : EncoderInfo
        What its own encoder file would say.
    """

    folder: Path
    summary: dict[str, Any]
    model: FactorTopy
    info: EncoderInfo

    @classmethod
    def open(cls, run: str | os.PathLike[str]) -> Member:
        """Read a finished run of one subject."""
        folder, summary = finished_run(run)
        model = load_model(folder)
        return cls(folder, summary, model, encoder_info(folder, summary, model))


def check_alike(members: Sequence[Member]) -> None:
    """Refuse runs that cannot be one ensemble.

    Raises
    ------
    UsageError
        If a run is named twice, or differs from the first in its backbone's weights, layers or preprocessing, in the
        token grid, the channels D, the space, the vertices, the gauge or the units.
    """
    first = members[0]
    taken = [first.folder.resolve()]
    for member in members[1:]:
        if member.folder.resolve() in taken:
            raise UsageError(f"an ensemble must have different runs, got {member.folder} twice")
        taken.append(member.folder.resolve())
        for (what, ours), (_, theirs) in zip(_nature(first), _nature(member), strict=True):
            if ours != theirs:
                raise UsageError(
                    f"the runs of an ensemble must have one {what}, got {_short(ours)} in {first.folder} and "
                    f"{_short(theirs)} in {member.folder}"
                )
        if not _same_vertices(first, member):
            raise UsageError(
                f"the runs of an ensemble must have the same vertices, got {len(first.info.vertices)} in "
                f"{first.folder} and {len(member.info.vertices)} others in {member.folder}"
            )


def together(members: Sequence[Member], network: Backbone, say: Say) -> tuple[Ensemble, EncoderInfo]:
    """The mean of several runs' models, and what its file will say; it is scored where that is fair.

    Parameters
    ----------
    members : sequence of Member
        Alike, as :func:`check_alike` has it.
    network : Backbone
        The one they were all trained on.
    say : callable
        Takes lines.

    Returns
    -------
    Ensemble
    EncoderInfo
        Selectors are means over the members; scores are the ensemble's own, or NaN.
    """
    from brainkit.evaluation.scores import plain_summary, score_lines, summarise
    from brainkit.model.ensemble import Ensemble

    ensemble = Ensemble([member.model for member in members])
    infos = [member.info for member in members]
    first = infos[0]
    ceilings = [info.noise_ceiling for info in infos]
    same = all(np.array_equal(ceilings[0], ceiling, equal_nan=True) for ceiling in ceilings)
    unknown = np.full(len(first.vertices), np.nan, np.float32)
    found: dict[str, Any] = {"r": unknown, "R2": unknown, "noise_ceiling": ceilings[0] if same else unknown}
    table = None
    subject = _common_subject(members)
    if isinstance(subject, str):
        say(f"the ensemble is not scored: {subject}")
    else:
        scores = _score(ensemble, members[0], network, subject, say)
        found = {name: np.asarray(getattr(scores, name), np.float32) for name in found}
        table = plain_summary(summarise(scores, first.rois))
        say(f"mean of {len(members)} runs: " + "\n".join(score_lines(table)[:3]))

    def mean(name: str) -> np.ndarray:
        return np.asarray(np.mean([getattr(info, name) for info in infos], axis=0, dtype=np.float64), np.float32)

    depth = np.stack([info.layer_weights @ np.arange(len(info.layers)) for info in infos])
    return ensemble, dataclasses.replace(
        first,
        layer_weights=mean("layer_weights"),
        locations=mean("locations"),
        scale=mean("scale"),
        **found,
        note="; ".join(dict.fromkeys(info.note for info in infos if info.note)) or None,
        licence=" ".join(dict.fromkeys(info.licence for info in infos)),
        provenance={**first.provenance, "seed": [member.summary["seed"] for member in members], "scores": table},
        ensemble={
            "members": len(members),
            # In layers: how far the members' preferred depths are apart, at the median vertex.
            "depth_sd": float(np.median(depth.std(0, ddof=1))),
            "runs": [_facts(member) for member in members],
        },
    )


def _nature(member: Member) -> list[tuple[str, Any]]:
    """What all runs of an ensemble must share, in words."""
    backbone, model = member.summary["backbone"], member.model
    return [
        ("backbone (weights)", backbone["weights_hash"]),
        ("choice of layers", tuple(member.info.layers)),
        ("preprocessing", member.info.preprocessing),
        ("token grid", f"{model.grid[0]} x {model.grid[1]}"),
        ("way of bringing tokens to the grid", model.resize),
        ("number of channels (model.bottleneck)", model.weight.shape[1]),
        ("space", member.info.vertices.space),
        ("gauge", member.info.gauge),
        ("unit", member.info.units),
    ]


def _same_vertices(first: Member, member: Member) -> bool:
    """Whether two runs of one space predict the same places; in a space of its own only coordinates tell."""
    same = np.array_equal(first.info.vertices.ids, member.info.vertices.ids)
    if same and first.info.vertices.space == CUSTOM:
        return np.array_equal(first.model.coordinates.cpu(), member.model.coordinates.cpu())
    return same


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _facts(member: Member) -> dict[str, Any]:
    """What the file says of one member."""
    everything = member.summary["scores"].get("all") or {}
    return {
        "seed": member.summary["seed"],
        "data": member.summary["data"]["hash"],
        "split": member.summary["split"],
        "brainkit": member.summary["brainkit"],
        "scores": {"images": member.summary["scores"]["images"], **{key: everything.get(key) for key in ("r", "R2")}},
    }


def _common_subject(members: Sequence[Member]) -> Subject | str:
    """The data that all members left the same test images of out, opened; or, on one line, why there is none."""
    from brainkit.data import open_subject
    from brainkit.data.splits import Split

    first = members[0]
    for member in members:
        if "imported" in member.summary or not (member.folder / "split.json").is_file():
            return f"which images {member.folder} was trained on is not known"
        if member.summary["data"]["hash"] != first.summary["data"]["hash"]:
            return f"{first.folder} and {member.folder} were trained on different data"
    splits = [Split.read(member.folder / "split.json") for member in members]
    for member, split in zip(members, splits, strict=True):
        if split.names_hash != splits[0].names_hash or not np.array_equal(split.test, splits[0].test):
            return (
                f"a test image of {first.folder} may be a training image of {member.folder}; train all with one "
                "data.split_seed"
            )
    place = Config.read(first.folder / "config.yaml").data.path
    try:
        subject = open_subject(place)
    except BrainkitError as error:
        return f"its data cannot be opened: {error}"
    if subject.data_hash != first.summary["data"]["hash"]:
        return f"{place} has changed since {first.folder} was trained"
    return subject


def _score(ensemble: Ensemble, member: Member, network: Backbone, subject: Subject, say: Say) -> Scores:
    """The ensemble on the members' test images, as :func:`brainkit.evaluation.scores.score` does it for one."""
    from brainkit.data.splits import Split
    from brainkit.evaluation.scores import score
    from brainkit.training.fit import choose_device

    settings = Config.read(member.folder / "config.yaml")
    rows = Split.read(member.folder / "split.json").test
    log = RunLog(say)
    tokens, _ = tokens_of(network, subject, member.model.grid, choose_device("auto"), settings, log)
    return score(ensemble, tokens, subject.responses, rows, subject.noise_ceiling)
