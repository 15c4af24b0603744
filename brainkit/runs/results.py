"""What a finished training leaves in its run folder: selectors, scores, parity images and ``run.json``."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.encoder_file.licence import data_kind
from brainkit.runs.folder import PhaseClock, RunLog, write_selectors, write_volume
from brainkit.utils.files import read_json, write_beside, write_json

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.data.splits import Split
    from brainkit.data.subject import Subject
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.runs.prepare import Trainee


def write_model(folder: Path, model: FactorTopy) -> None:
    """Write ``checkpoints/best.ckpt`` of a subject of several, as its training alone would have left it."""
    from brainkit.training.checkpoint import AtomicCheckpoints

    (folder / "checkpoints").mkdir(exist_ok=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    AtomicCheckpoints().save_checkpoint({"state_dict": state}, folder / "checkpoints" / "best.ckpt")


def write_joint_summary(
    folder: Path, settings: Config, network: Backbone, people: Sequence[Trainee], clock: PhaseClock
) -> None:
    """Write ``run.json`` of a run of several subjects, whose own lie in their folders: last, it is complete then."""
    from brainkit.evaluation.scores import write_summary

    tables = {person.name: read_json(person.folder / "run.json")["scores"] for person in people}
    write_summary(
        folder / "run.json",
        {
            "brainkit": __version__,
            "backbone": backbone_facts(network),
            "subjects": [person.name for person in people],
            "seed": settings.seed,
            "versions": versions(),
            "seconds": clock.laps,
            "scores": tables,
        },
    )


def write_parity(
    folder: Path, model: FactorTopy, network: Backbone, subject: Subject, split: Split, tokens: Any
) -> None:
    """Keep up to 12 validation images, prepared, and what the model predicts for them from the training tokens.

    Export holds the network that it finds against them: its code may have changed with its weights the same.
    """
    import torch

    from brainkit.images import decode, prepare

    rows = split.validation[np.linspace(0, len(split.validation) - 1, min(12, len(split.validation))).astype(int)]
    rows = np.concatenate([rows, split.train[: max(0, 3 - len(rows))]])
    images = np.stack([prepare(decode(subject.images[row]), network.preprocessing) for row in rows])
    with torch.inference_mode():
        predictions = model(*tokens.batch(rows)).numpy()
    with write_beside(folder / "parity.npz") as beside:
        np.savez(beside, rows=rows, images=images, predictions=predictions)


def write_results(
    folder: Path,
    settings: Config,
    subject: Subject,
    network: Backbone,
    model: FactorTopy,
    scores: Any,
    truth: dict[str, np.ndarray] | None,
    split: Split,
    clock: PhaseClock,
    log: RunLog,
) -> None:
    from brainkit.evaluation import scores as evaluation

    write_selectors(folder, model, subject.vertices)
    scores.write(folder / "scores.npz", subject.vertices)
    write_json(folder / "rois.json", subject.rois.to_json())
    if subject.volume is not None:
        write_volume(folder / "volume.npz", subject.volume)
    table = evaluation.summarise(scores, subject.rois)
    if truth is not None:
        folded = model.folded()
        found = evaluation.recovery(
            truth,
            vertices=subject.vertices,
            layers=model.layers,
            backbone=network.name,
            weights_hash=network.weights_hash,
            layer_weights=folded.layer_weights,
            locations=folded.locations,
            scale=folded.scale,
            scores=scores,
        )
        evaluation.write_summary(folder / "recovery.json", found)
        for line in evaluation.recovery_lines(found):
            log(line)
    # Written last: a run with this file is complete.
    evaluation.write_summary(
        folder / "run.json",
        {
            "brainkit": __version__,
            "backbone": backbone_facts(network),
            "data": {
                "name": subject.name,
                "path": str(subject.root.resolve()),
                "hash": subject.data_hash,
                "kind": data_kind((image.name for image in subject.images), subject.note),
                "images": len(subject),
                "excluded": {reason: len(ids) for reason, ids in subject.excluded.items()},
            },
            "split": {
                "train": len(split.train),
                "validation": len(split.validation),
                "test": len(split.test),
                "seed": split.seed,
            },
            "space": subject.vertices.space,
            "vertices": len(subject.vertices),
            "units": subject.units,
            "note": subject.note,
            "gauge": model.gauge,
            "seed": settings.seed,
            "versions": versions(),
            **clock.facts,
            "seconds": clock.laps,
            "scores": table,
        },
    )


def backbone_facts(network: Backbone) -> dict[str, Any]:
    """What ``run.json`` says of the backbone."""
    return {
        "name": Path(network.name).name if ".py:" in network.name else network.name,
        "weights_hash": network.weights_hash,
        "pretrained": network.pretrained,
        "licence": network.licence,
        "source": network.source,
        "layers": list(network.layer_names),
        "widths": network.widths,
        "preprocessing": network.preprocessing.to_json(),
    }


def versions() -> dict[str, str]:
    """What ``run.json`` says of the software."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "pytorch-lightning", "timm", "numpy", "pillow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
