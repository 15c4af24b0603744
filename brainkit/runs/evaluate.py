"""Scores an encoder file or a run on a subject's images: what ``brainkit evaluate`` does."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainkit.cortex.vertices import CUSTOM
from brainkit.cortex.volume import Volume
from brainkit.data.image_sets import ImageSet, choose_sets
from brainkit.data.stimuli import short_hashes
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.evaluation.evaluate import evaluate
from brainkit.evaluation.evaluation import Evaluation
from brainkit.evaluation.set_difference import ScoredSet, SetDifference, set_difference
from brainkit.evaluation.vertex_groups import vertex_groups
from brainkit.runs.evaluation_files import (
    SharedVertices,
    Statistics,
    draw_scores,
    output_folder,
    output_folders,
    provenance,
    write_differences,
)
from brainkit.runs.log import RunLog
from brainkit.runs.predictors import EncoderPredictor, Predictor, RunPredictor
from brainkit.utils.files import create_folder
from brainkit.utils.progress import Say
from brainkit.utils.text import one_line, plural

TEST = ("test",)
_SAME_GRID = 1e-3  # mm: how far affines of one grid may differ


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What `evaluate_on_data` found.

    Attributes
    ----------
    folder : Path
        The files.
    evaluations : dict of str to Evaluation
        By set of images.
    differences : tuple of SetDifference
        Of every two sets, the earlier one minus the later one.
    notes : dict of str to list of str
        By set of images: what a reader of its numbers must know.
    """

    folder: Path
    evaluations: dict[str, Evaluation]
    differences: tuple[SetDifference, ...]
    notes: dict[str, list[str]]

    def __repr__(self) -> str:
        return f"Evaluated({str(self.folder)!r}, {self.evaluations})"


class Remark(NamedTuple):
    """What a reader of numbers must know: in full, and as figures have room for."""

    text: str
    short: str


def evaluate_on_data(
    source: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | Subject | None = None,
    *,
    split: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = TEST,
    out: str | os.PathLike[str] | None = None,
    allow_training_images: bool = False,
    bootstrap: int = 2000,
    permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    maps: bool = True,
    device: str = "auto",
    threads: int | None = None,
    say: Say | None = None,
) -> Evaluated:
    """Score an encoder file, or a run, on images and responses of a subject; the same as ``brainkit evaluate``.

    Parameters
    ----------
    source : path-like, optional
        An encoder file, which needs no torch, or a run folder; by default the newest run.
    data : path-like or Subject, optional
        The subject's folder; by default the data of the run.
    split : str or sequence of str
        Which images, see :func:`brainkit.data.image_sets.choose_sets`; several sets are reported apart, and as
        differences.
    out : path-like, optional
        The folder of the files; by default ``evaluation`` in the run folder, or ``<name>-evaluation`` next to the file.
    allow_training_images : bool
        Score on images that the encoder was trained or validated on too; all outputs then say how many.
    bootstrap, permutations, level, seed
        See :func:`brainkit.evaluate`.
    maps : bool
        Whether to draw maps, if the vertices have a surface.
    device, threads
        Of an encoder file, see :func:`brainkit.load`.
    say : callable, optional
        Called with each line of progress, and the tables; by default they are printed.

    Returns
    -------
    Evaluated

    Raises
    ------
    UsageError, DataError
        If images of a set were trained on; if encoder and data have no vertices in common; if a set is unknown or has
        fewer than two images.
    """
    statistics = Statistics(bootstrap, permutations, level, seed)
    chosen = [os.fspath(name) for name in ((split,) if isinstance(split, (str, os.PathLike)) else split)]
    with RunLog(say) as log:
        predictor = _open_predictor(source, device, threads, log)
        subject = _open_data(predictor, data)
        split_hashes = predictor.split_hashes(subject)
        sets = choose_sets(subject, chosen, split_hashes, predictor.split_name)
        folders = output_folders(predictor, out, sets)
        other_subject = _other_subject(predictor, subject)
        remarks = {
            each.name: other_subject + _check_new(predictor, subject, each, split_hashes, allow_training_images)
            for each in sets
        }
        shared = _shared_vertices(predictor, subject)
        if (used := len(shared.vertices)) < len(predictor.vertices):
            log(f"scored are {used:,} of the encoder's {len(predictor.vertices):,} vertices: those that the data have")
        found = [(_score(predictor, subject, each, shared, statistics), predictor.facts()) for each in sets]
        scored = [result for result, _ in found]
        rois = vertex_groups(shared.vertices, shared.rois)
        differences = tuple(set_difference(*pair, rois) for pair in itertools.combinations(scored, 2))
        facts = {}
        for each, (result, own) in zip(sets, found, strict=True):
            facts[each.name] = provenance(
                predictor,
                own,
                subject,
                each,
                shared,
                statistics,
                split_hashes,
                chosen,
                allow_training_images=allow_training_images,
            )
            folder = create_folder(folders[each.name])
            texts = [remark.text for remark in remarks[each.name]]
            result.evaluation.save(folder, shared.vertices, facts[each.name], texts)
            table = result.evaluation.table()
            named = f"{each.name}: {table.title}" if len(sets) > 1 else table.title
            log.show(dataclasses.replace(table, title=named, notes=(*table.notes, *texts)))
            if maps:
                short = [remark.short for remark in remarks[each.name]]
                draw_scores(folder, predictor, subject, result.evaluation, shared, each, short, log)
        top = output_folder(predictor, out)
        if differences:
            every = list(dict.fromkeys(remark.text for each in sets for remark in remarks[each.name]))
            write_differences(top, differences, every, facts)
            log.show(*(difference.table() for difference in differences))
        log(f"{top}: evaluation.json, evaluation.npz, evaluation.csv" + (", differences.json" if differences else ""))
    texts_of = {name: [remark.text for remark in each] for name, each in remarks.items()}
    return Evaluated(top, {each.name: each.evaluation for each in scored}, differences, texts_of)


def _open_predictor(source: str | os.PathLike[str] | None, device: str, threads: int | None, log: RunLog) -> Predictor:
    if source is None or (Path(source) / "config.yaml").is_file() or (Path(source) / "run.json").is_file():
        return RunPredictor(source, log)
    return EncoderPredictor(source, device, threads)


def _open_data(predictor: Predictor, data: str | os.PathLike[str] | Subject | None) -> Subject:
    if isinstance(data, Subject):
        return data
    subject = predictor.open_data(data)
    if subject is None:
        raise UsageError(f"{predictor.path}: an encoder file holds no responses; name a subject with --data DIR")
    return subject


def _other_subject(predictor: Predictor, subject: Subject) -> list[Remark]:
    """What all outputs must say if the data have another name than those of the training, and are not the same."""
    name = predictor.trained_on.get("name")
    if not isinstance(name, str) or not name or name == subject.name:
        return []
    if predictor.trained_on.get("hash") == subject.data_hash:
        return []
    text = f"trained on the data of {one_line(name, 60)}, scored on those of {subject.name}"
    return [Remark(f"{text}: another subject, unless the names are of one", text)]


def _check_new(
    predictor: Predictor,
    subject: Subject,
    images: ImageSet,
    split_hashes: dict[str, np.ndarray] | None,
    allow: bool,
) -> list[Remark]:
    """Refuse images that the encoder was trained on, or return what all outputs must say."""
    if split_hashes is None:
        why = f"{predictor.path.resolve().name} does not list its training images"
        short = "not known whether the encoder was trained on these images"
        return [Remark(f"{why}: it cannot be known whether it was trained on some of these", short)]
    hashes = short_hashes(subject.take(images.rows).pixel_hashes)
    used = {side: np.isin(hashes, split_hashes[side]) for side in ("train", "validation")}
    seen = used["train"] | used["validation"]
    if not seen.any():
        return []
    first = subject.names[images.rows[np.flatnonzero(seen)[0]]]
    found = (
        f"{int(seen.sum()):,} of {plural(len(seen), 'image')} of {images.name} were used to train it "
        f"({int(used['train'].sum()):,} in training, {int(used['validation'].sum()):,} in validation), such as {first}"
    )
    if not allow:
        raise DataError(
            f"{predictor.path}: expected images that are new to it, found that {found}; leave them out, or give "
            "--allow-training-images"
        )
    short = f"WARNING: {int(seen.sum()):,} of {plural(len(seen), 'image')} were used in training: no test"
    return [Remark(f"WARNING: {found}: these numbers are no test of it", short)]


def _shared_vertices(predictor: Predictor, subject: Subject) -> SharedVertices:
    own, there = predictor.vertices, subject.vertices
    if own.space != there.space:
        raise DataError(f"{subject.root}: expected vertices of {own.space}, as the encoder's, found {there.space}")
    own_ids, there_ids = own.ids, there.ids
    if own.space == CUSTOM:
        if predictor.volume is not None and subject.volume is not None:
            # Masks of the same grid may differ, as those of sessions do: columns of one number are other voxels.
            own_ids, there_ids = _voxel_numbers(predictor.volume, subject.volume, subject)
        elif len(own) != len(there):
            raise DataError(
                f"{subject.root}: expected the encoder's {len(own):,} vertices, which lie on no known surface, found "
                f"{len(there):,}"
            )
    _, in_encoder, in_data = np.intersect1d(own_ids, there_ids, assume_unique=True, return_indices=True)
    order = np.argsort(in_encoder)
    in_encoder, in_data = in_encoder[order], in_data[order]
    if not len(in_encoder):
        raise DataError(
            f"{subject.root}: expected some of the encoder's {len(own):,} vertices of {own.space}, found none of them "
            f"among {len(there):,}; is it the same subject?"
        )
    rois = subject.rois.subset(in_data) if len(subject.rois) else predictor.rois.subset(in_encoder)
    return SharedVertices(own.select(in_encoder), in_encoder, in_data, rois)


def _voxel_numbers(own: Volume, there: Volume, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The numbers in the volume of the voxels of encoder and data, which must be of one grid."""
    if own.shape != there.shape or not np.allclose(own.affine, there.affine, atol=_SAME_GRID):
        raise DataError(
            f"{subject.root}: expected voxels of the encoder's grid, {own.shape} with its affine, found {there.shape}"
            f"{' with another affine' if own.shape == there.shape else ''}"
        )
    first, second = (np.ravel_multi_index(tuple(each.voxels.T), each.shape) for each in (own, there))
    return first, second


def _score(
    predictor: Predictor, subject: Subject, images: ImageSet, shared: SharedVertices, statistics: Statistics
) -> ScoredSet:
    predictions = predictor.predict(subject, images.rows)
    if len(shared.in_encoder) < predictions.shape[1]:
        predictions = predictions[:, shared.in_encoder]
    responses = subject.responses.keep(shared.in_data).rows(images.rows)
    groups = subject.take(images.rows).groups
    ceiling = subject.noise_ceiling_of(images.rows)
    found = evaluate(
        predictions,
        responses,
        noise_ceiling=None if ceiling is None else ceiling[shared.in_data],
        rois=vertex_groups(shared.vertices, shared.rois),
        groups=groups,
        **dataclasses.asdict(statistics),
    )
    found = dataclasses.replace(found, vertices=shared.vertices)
    return ScoredSet(images.name, predictions, responses, groups, found)
