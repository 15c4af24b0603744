"""What training writes into the run folder: selectors, scores, parity images and, last, ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.data.subject import Subject
from brainkit.evaluation.recovery import compare_with_truth, recovery_table
from brainkit.evaluation.scores import Scores, add_intervals, json_ready, summarise
from brainkit.images import decode, prepare
from brainkit.ops import fastest_backend
from brainkit.runs.checks import choose_precision
from brainkit.runs.folder import write_selectors, write_volume
from brainkit.runs.log import RunLog
from brainkit.runs.network import SubjectTokens
from brainkit.runs.predictions import align_responses, read_predictions
from brainkit.runs.provenance import package_versions
from brainkit.runs.subjects import SubjectRun
from brainkit.training.checkpoint import AtomicCheckpoints
from brainkit.utils.files import atomic_write, read_json, write_json

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.model.factor_topy import FactorTopy

_PARITY_IMAGES = 12


def work_facts(settings: Config, device: str, tokens: SubjectTokens, tokens_on: str, threads: int) -> dict[str, Any]:
    """Sections of ``run.json`` on how the work was done.

    Parameters
    ----------
    settings : Config
    device : {"cpu", "cuda", "mps"}
    tokens : SubjectTokens
    tokens_on : {"device", "host"}
        Where the tokens were while training.
    threads : int
        Processor threads of each process.
    """
    backend = settings.model.backend
    return {
        "tokens": {
            "images": len(tokens.cache),
            "bytes": tokens.cache.nbytes,
            "images_per_second": tokens.images_per_second,
            "residency": f"on {device}" if tokens_on == "device" else "streamed from the disk",
        },
        "training": {
            "device": device,
            "backend": fastest_backend(device) if backend == "auto" else backend,
            "precision": choose_precision(settings, device),
            "threads": threads,
        },
    }


def write_model(folder: Path, model: FactorTopy) -> None:
    """Write ``checkpoints/best.ckpt`` as training on one subject leaves it."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    AtomicCheckpoints().save_checkpoint({"state_dict": state}, folder / "checkpoints" / "best.ckpt")


def write_parity(run: SubjectRun, model: FactorTopy, network: Backbone, tokens: Any) -> None:
    """Write up to 12 prepared validation images, and what the model predicts for them, as ``parity.npz``.

    Export compares the network it loads with these predictions: its code may have changed while its weights have not.
    """
    validation, train = run.split.validation, run.split.train
    count = min(_PARITY_IMAGES, len(validation))
    rows = validation[np.linspace(0, len(validation) - 1, count).astype(int)]
    rows = np.concatenate([rows, train[: max(0, 3 - len(rows))]])
    images = np.stack([prepare(decode(run.subject.images[row]), network.preprocessing) for row in rows])
    with torch.inference_mode():
        predictions = model(*tokens.batch(rows)).numpy()
    with atomic_write(run.folder / "parity.npz") as temporary:
        np.savez(temporary, rows=rows, images=images, predictions=predictions)


def write_results(
    run: SubjectRun,
    model: FactorTopy,
    network: Backbone,
    scores: Scores,
    *,
    facts: Mapping[str, Any],
    seconds: Mapping[str, float],
    log: RunLog,
) -> None:
    """Write a subject's results; ``run.json`` is last: a run that has it is complete.

    Parameters
    ----------
    run : SubjectRun
    model : FactorTopy
        At its best epoch, on the CPU.
    network : Backbone
    scores : Scores
        On the test images.
    facts : mapping
        Further sections of ``run.json``, see :func:`work_facts`.
    seconds : mapping of str to float
        Of each phase so far.
    log : RunLog
    """
    folder, subject, split = run.folder, run.subject, run.split
    write_selectors(folder, model, subject.vertices)
    scores.write(folder / "scores.npz", subject.vertices)
    write_json(folder / "rois.json", subject.rois.to_json())
    if subject.volume is not None:
        write_volume(folder / "volume.npz", subject.volume)
    if run.truth is not None:
        _write_recovery(run, run.truth, model, network, scores, log)
    summary = {
        "brainkit": __version__,
        "backbone": backbone_facts(network),
        "data": {
            "name": subject.name,
            "path": subject.location or str(subject.root.resolve()),
            "hash": subject.data_hash,
            "kind": subject.kind,
            "dataset": subject.dataset.to_json(),
            "noise_ceiling": subject.noise_ceiling_unit,
            "images": len(subject),
            "rois": list(subject.chosen_rois),
            "skipped": [image._asdict() for image in subject.skipped],
            "excluded": {reason: len(ids) for reason, ids in subject.excluded.items()},
        },
        "split": split.facts(),
        "space": subject.vertices.space,
        "vertices": len(subject.vertices),
        "units": subject.units,
        "note": subject.note,
        "gauge": model.gauge,
        "seed": run.settings.seed,
        "versions": versions(),
        **facts,
        "seconds": seconds,
        "scores": summarise(scores, subject.rois),
    }
    write_json(folder / "run.json", json_ready(summary))


def intervals_of_kept(scores: Scores, folder: Path, subject: Subject, rois: RoiTable) -> Scores:
    """The scores with intervals, from the predictions that the folder keeps and the subject's responses."""
    kept = read_predictions(folder)
    responses = align_responses(subject.take(kept.rows), Vertices(kept.space, kept.vertices))
    return add_intervals(scores, kept.predictions, responses, rois, kept.groups)


def write_joint_summary(
    folder: Path,
    settings: Config,
    network: Backbone,
    subjects: Sequence[SubjectRun],
    seconds: Mapping[str, float],
) -> None:
    """Write ``run.json`` of a run of several subjects, after those in the subjects' folders."""
    summary = {
        "brainkit": __version__,
        "backbone": backbone_facts(network),
        "subjects": [each.name for each in subjects],
        "seed": settings.seed,
        "versions": versions(),
        "seconds": seconds,
        "scores": {each.name: read_json(each.folder / "run.json")["scores"] for each in subjects},
    }
    write_json(folder / "run.json", json_ready(summary))


def backbone_facts(network: Backbone) -> dict[str, Any]:
    """The section ``backbone`` of ``run.json``."""
    return {
        "name": Path(network.name).name if ".py:" in network.name else network.name,
        "weights_hash": network.weights_hash,
        "pretrained": network.pretrained,
        "licence": network.licence,
        "citation": network.citation,
        "source": network.source,
        "layers": list(network.layer_names),
        "widths": network.widths,
        "preprocessing": network.preprocessing.to_json(),
    }


def versions() -> dict[str, str]:
    """The section ``versions`` of ``run.json``: Python, the platform, and the packages that the result depends on."""
    return package_versions("torch", "pytorch-lightning", "timm", "numpy", "pillow")


def _write_recovery(
    run: SubjectRun,
    truth: dict[str, np.ndarray],
    model: FactorTopy,
    network: Backbone,
    scores: Scores,
    log: RunLog,
) -> None:
    folded = model.folded()
    found = compare_with_truth(
        truth,
        vertices=run.subject.vertices,
        layers=model.layers,
        backbone=network.name,
        weights_hash=network.weights_hash,
        layer_weights=folded.layer_weights,
        locations=folded.locations,
        scale=folded.scale,
        scores=scores,
    )
    write_json(run.folder / "recovery.json", json_ready(found))
    log.show(recovery_table(found))
