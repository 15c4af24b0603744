"""An encoder of the average subject: at each vertex the mean of several subjects' predictions, as one file."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.licence import join_terms
from brainkit.errors import UsageError, require
from brainkit.runs.ensemble import Member, check_same_model, have_same_vertices, joined_info
from brainkit.runs.export import ExportRequest, check_network, check_predictions, check_reloadable, report_export
from brainkit.runs.folder import read_settings
from brainkit.runs.network import load_network
from brainkit.utils.progress import Say
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from torch import nn

    from brainkit.export import Exported


def average(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    backbone: nn.Module | None = None,
    target: str = "cpu",
    storage: str = "float32",
    threads: int | None = None,
    say: Say = print,
) -> Exported:
    """Write one encoder file that predicts the mean of several subjects, and their s.d., at the vertices all have.

    Parameters
    ----------
    runs : sequence of path-like
        Finished runs, each of another subject, of one backbone, layers, preprocessing and space.
    out : path-like
        The file, ``.onnx``.
    backbone, target, storage, threads, say
        As for :func:`brainkit.runs.export.export`.

    Returns
    -------
    Exported

    Notes
    -----
    A vertex belongs to a region if it does for more than half of the subjects. Noise ceilings are means over the
    subjects, of the responses of one subject. Scores are unknown: nobody measured the average subject.

    Raises
    ------
    UsageError
        If there are fewer than two runs, they cannot be averaged, two are of the same data, or no vertex is in all.
    DataError
        If a run is not finished, or its network is not the one found now.
    """
    for module in ("torch", "onnx"):
        require(module, extra="train", purpose="brainkit average")
    from brainkit.backbones.plugin import preserved_state
    from brainkit.export import check_storage, export_onnx
    from brainkit.model.ensemble import Ensemble
    from brainkit.training.threads import limit_threads

    if len(runs) < 2:
        raise UsageError(f"an average must be of at least two runs, got {len(runs)}")
    check_storage(storage)
    path = ExportRequest(target=target, storage=storage).output_path(Path(), out, "onnx")
    members = [Member.open(run) for run in runs]
    for member in members:
        check_reloadable(member.folder, member.summary, backbone)
    common = at_common_vertices(members)
    say(_what(members, common))
    with limit_threads(threads or 0), preserved_state(backbone):
        network = load_network(read_settings(members[0].folder), backbone)
        check_network(members[0].folder, members[0].summary["backbone"], network)
        images, *_ = [check_predictions(each.folder, each.model, network) for each in members]
        model, info = (
            Ensemble([member.model for member in common]),
            average_info(common, [len(each.info.vertices) for each in members]),
        )
        exported = export_onnx(model, network, path, storage=storage, info=info, images=images, target=target)
    report_export(exported, "onnx", len(images), storage, say)
    say("test scores: unknown, nobody measured the average subject; noise ceilings: means over the subjects")
    return exported


def at_common_vertices(members: Sequence[Member]) -> list[Member]:
    """The members, reduced to the vertices that all of them have.

    Raises
    ------
    UsageError
        If they cannot be averaged, two are of the same data, or no vertex is in all.
    """
    from brainkit.model.ensemble import select_vertices

    check_same_model(members)
    first = members[0]
    for k, member in enumerate(members):
        for other in members[:k]:
            known = member.summary["data"]["hash"], other.summary["data"]["hash"]
            if known[0] is not None and known[0] == known[1]:
                raise UsageError(
                    f"the runs of an average must be of different subjects, got the same data in {other.folder} and "
                    f"{member.folder}; for several seeds of one subject: brainkit export --ensemble"
                )
        if first.info.vertices.space == CUSTOM and not have_same_vertices(first, member):
            raise UsageError(
                f"{member.folder}: must have the coordinates of {first.folder}, as both are on no known surface, got "
                "others"
            )
    ids = functools.reduce(np.intersect1d, [member.info.vertices.ids for member in members])
    if not len(ids):
        raise UsageError(f"no vertex of {first.info.vertices.space} is in all of the {len(members)} runs")
    reduced = []
    for member in members:
        index = np.searchsorted(member.info.vertices.ids, ids)
        info = dataclasses.replace(
            member.info,
            vertices=Vertices(member.info.vertices.space, ids),
            rois=member.info.rois.subset(index),
            volume=None if member.info.volume is None else member.info.volume.select(index),
            **{
                name: getattr(member.info, name)[index]
                for name in ("layer_weights", "locations", "scale", "r", "R2", "noise_ceiling")
            },
        )
        reduced.append(dataclasses.replace(member, model=select_vertices(member.model, index), info=info))
    return reduced


def average_info(members: Sequence[Member], of: Sequence[int]) -> EncoderInfo:
    """The metadata of the average of subjects, reduced to their common vertices; `of`: how many each had."""
    infos = [member.info for member in members]
    count = len(infos[0].vertices)
    unknown = np.full(count, np.nan, np.float32)
    terms = {
        part: "; ".join(dict.fromkeys(info.terms[part] for info in infos if part in info.terms))
        for part in infos[0].terms
    }
    lines = (line for info in infos for line in info.citation.splitlines())
    names = [str(member.summary["data"]["name"]) for member in members]
    info = joined_info(members)
    runs = [{"subject": name, **run} for name, run in zip(names, (info.ensemble or {})["runs"], strict=True)]
    return dataclasses.replace(
        info,
        rois=_majority([info.rois for info in infos], count),
        r=unknown,
        R2=unknown,
        noise_ceiling=np.asarray(np.mean([info.noise_ceiling for info in infos], axis=0), np.float32),
        terms=terms,
        licence=join_terms(terms) if terms else info.licence,
        citation="\n".join(dict.fromkeys(lines)),
        uncertainty=None,
        ensemble={**(info.ensemble or {}), "runs": runs},
        provenance={
            "average": {"subjects": names, "vertices": count, "of": list(of)},
            "seed": [member.summary["seed"] for member in members],
            "versions": infos[0].provenance["versions"],
            "scores": None,
        },
    )


def _majority(tables: Sequence[RoiTable], count: int) -> RoiTable:
    """The regions that any subject has, with the vertices that more than half of all subjects have in them."""
    found = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        votes = np.zeros(count, int)
        for table in tables:
            if name in table:
                votes[table[name]] += 1
        if (kept := np.flatnonzero(2 * votes > len(tables))).size:
            found[name] = kept
    return RoiTable(found, count)


def _what(members: Sequence[Member], common: Sequence[Member]) -> str:
    names = ", ".join(str(member.folder) for member in members)
    counts = sorted({len(member.info.vertices) for member in members})
    of = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    kept = plural(len(common[0].info.vertices), "vertex", "vertices")
    return f"averaging {names}: {kept} that all have, of {of}"
