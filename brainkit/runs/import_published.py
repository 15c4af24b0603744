"""Weights of the published implementation as a run folder, which export, predict and map understand."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.encoder_file.licence import data_kind
from brainkit.errors import DataError, UsageError, require
from brainkit.runs.folder import RunLog, write_selectors
from brainkit.runs.imported_vertices import Where, find_places, rois_of
from brainkit.runs.latest import RUNS
from brainkit.runs.prepare import chosen_backbone
from brainkit.runs.results import backbone_facts, versions
from brainkit.runs.settings import choose_settings
from brainkit.runs.train import finish
from brainkit.utils.files import write_beside, write_json
from brainkit.utils.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.evaluation.scores import Scores
    from brainkit.model.factor_topy import FactorTopy

Say = Callable[[str], None]
PHOTOGRAPHS = 12  # that torch and the exported file are compared on


def import_published(
    file: str | os.PathLike[str],
    *,
    coordinates: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    data: str | os.PathLike[str] | None = None,
    vertices: str | os.PathLike[str] | None = None,
    layers: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    out: str | os.PathLike[str] | None = None,
    say: Say = print,
) -> Path:
    """Make a run folder from weights of the published implementation.

    Parameters
    ----------
    file : path-like
        A bare state dict, as ``torch.save(model.state_dict(), FILE)`` wrote it.
    coordinates : path-like, optional
        ``.npy``, or a tensor that ``torch.save`` wrote: (V, 3) in mm, those that the model was trained with. By default
        those of `data`, or fsaverage's sphere at `vertices`.
    backbone : str, optional
        The network that the model reads, as `brainkit.train` takes it. Without it the maps can be drawn, and nothing
        can be predicted.
    data : path-like, optional
        The subject's folder: gives vertices, ROIs and noise ceilings, and the scores on its official test images.
    vertices : path-like, optional
        ``vertices.json`` as own data have it. By default the coordinates are looked for on fsaverage's sphere.
    layers : sequence of str
        The backbone's layers that the model's are, in the file's order, where their names do not tell.
    images : path-like, optional
        Photographs that export compares torch and the encoder file on. By default those of `data`, else some that
        installed packages ship.
    weights : path-like, optional
        The backbone's weights from a local file.
    random_weights : bool
        Take seeded random weights for the backbone.
    out : path-like, optional
        The run folder; by default ``runs/<date>-<name of the file>``.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Path
        The run folder; ``runs/latest`` names it. Scores that nobody knows are NaN in ``scores.npz`` and null in
        ``run.json``.

    Raises
    ------
    UsageError, DataError, MissingDependency, BrainkitError
        Each with one line that says what to do; no folder is left.
    """
    require("torch", extra="train", purpose="brainkit import")
    from brainkit.backbones.weights import read_state_dict
    from brainkit.data import open_subject
    from brainkit.images import content_hash
    from brainkit.model import published_weights as published
    from brainkit.model.factor_topy import FactorTopy

    source = Path(file)
    folder = Path(out) if out is not None else RUNS / f"{datetime.date.today().isoformat()}-{_file_name(source)}"
    if folder.exists():
        raise UsageError(f"{folder}: exists already; name another --out")
    if backbone is None and (weights is not None or random_weights or layers or images is not None):
        raise UsageError("weights, layers and images are for a backbone: give --backbone too")
    with RunLog(say) as log:
        state = published.clean_state(read_state_dict(source), str(source))
        shape = published.infer_shape(state, str(source))
        subject = None if data is None else open_subject(data)
        where = find_places(shape.vertices, source, coordinates, vertices, subject, log)
        settings = _settings(backbone, weights, random_weights, subject, shape)
        network, names = None, list(shape.layers)
        if backbone is not None:
            network, names = _network(settings, shape, layers, source, log)
            settings = replace(settings, backbone=replace(settings.backbone, layers=tuple(names)))
        model = FactorTopy.from_published(state, where.coordinates, layers=names, source=str(source)).eval()
        log(f"{source}: {shape.vertices:,} vertices, {len(names)} layers, {shape.bottleneck} channels")
        scores = _scores(model, network, subject, where, log)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(folder) as place:
            place.mkdir()
            _write(place, settings, model, network, subject, where, scores, source, content_hash(source))
            if network is not None:
                shown = _photographs(network, subject, images, log)
                np.savez(place / "parity.npz", images=shown, predictions=_predicted(model, network, shown))
        log.into(folder / "log.txt")
        finish(folder, log)
        if network is None:
            log(f"{folder}: imported without its network; to predict, import it again with --backbone NAME")
        else:
            log(f"{folder}: imported; brainkit export {folder} --onnx makes an encoder file of it")
    return folder


def _settings(backbone: str | None, weights: Any, random_weights: bool, subject: Subject | None, shape: Any) -> Config:
    return choose_settings(
        Config(),
        name=backbone or "",
        data=None if subject is None else subject.root,
        weights=weights,
        random_weights=random_weights,
        epochs=None,
        seed=None,
        config=None,
        overrides=[
            "data.preset=published",
            "model.gauge=published",
            "model.standardise=false",
            f"model.bottleneck={shape.bottleneck}",
            f"model.selector_width={shape.selector_width}",
        ],
    )


def _network(
    settings: Config, shape: Any, wanted: Sequence[str], source: Path, log: RunLog
) -> tuple[Backbone, list[str]]:
    """The backbone with the layers that the model reads, whose widths must be the model's."""
    from brainkit.backbones.base import dot_free
    from brainkit.model.published_weights import match_layers

    name = settings.backbone.name
    theirs = ", ".join(shape.layers)
    if wanted and len(wanted) != len(shape.layers):
        raise UsageError(f"{source}: has {len(shape.layers)} layers ({theirs}), and --layers names {len(wanted)}")
    network = chosen_backbone(
        replace(settings, backbone=replace(settings.backbone, layers=tuple(wanted))) if wanted else settings
    )
    names = [dot_free(layer) for layer in wanted] or match_layers(shape.layers, network.layer_names)
    if names is None:
        raise DataError(
            f"{source}: its layers {theirs} are not plainly the layers of {name} ({', '.join(network.layer_names)}); "
            "name those it means, in this order, with --layers A,B,..."
        )
    for layer, ours, width in zip(shape.layers, names, shape.widths, strict=True):
        if network.widths[ours] != width:
            raise DataError(
                f"{source}: its layer {layer} has {width} channels, and {ours} of {name} has {network.widths[ours]}; "
                "it was trained on another backbone or other layers"
            )
    if list(network.layer_names) != names:  # some of them alone
        network = chosen_backbone(replace(settings, backbone=replace(settings.backbone, layers=tuple(names))))
    pairs = [f"{layer} is {ours}" for layer, ours in zip(shape.layers, names, strict=True)]
    log(f"layers of {name}: {', '.join(pairs if len(pairs) < 6 else [*pairs[:2], '...', pairs[-1]])}")
    log.write(f"layers of {name}: {', '.join(pairs)}")
    if not network.pretrained:
        log(f"{name}: RANDOM weights: the model was not trained on this network, so its predictions mean nothing")
    return network, names


def _scores(model: FactorTopy, network: Backbone | None, subject: Subject | None, where: Where, log: RunLog) -> Scores:
    """Accuracy on the official test images; NaN where nothing honest can be said."""
    from brainkit.evaluation.scores import Scores
    from brainkit.metrics.scores import StreamingScore

    known = where.in_subject >= 0
    at = where.in_subject[known]
    r, R2, ceiling = (np.full(len(known), np.nan) for _ in range(3))
    if subject is not None and subject.noise_ceiling is not None:
        ceiling[known] = subject.noise_ceiling[at]
    rows = np.array([], np.int64) if subject is None else np.flatnonzero(subject.official_test)
    if reason := _why_no_scores(network, subject, rows):
        log(f"test scores: not known: {reason}")
        return Scores(r, R2, ceiling, 0)
    assert subject is not None and network is not None
    streamed = StreamingScore(int(known.sum()))
    with progress_bar("scoring", "images") as advance:
        for start in range(0, len(rows), 16):
            chosen = rows[start : start + 16]
            prediction = _predicted(model, network, _prepared(network, [subject.images[row] for row in chosen]))
            streamed.update(prediction[:, known], subject.responses.rows(chosen)[:, at])
            advance(start + len(chosen), len(rows))
    r[known], R2[known] = streamed.r, streamed.R2
    return Scores(r, R2, ceiling, len(rows))


def _why_no_scores(network: Backbone | None, subject: Subject | None, rows: np.ndarray) -> str | None:
    if network is None:
        return "no backbone was named"
    if subject is None:
        return "no data were given"
    if not len(rows):
        return f"{subject.root} has no responses to official test images, and the model may have seen all others"
    return None


def _photographs(
    network: Backbone, subject: Subject | None, images: str | os.PathLike[str] | None, log: RunLog
) -> np.ndarray:
    """Up to 12 prepared photographs, (n, S, S, 3) uint8."""
    from brainkit.data.photographs import load_photographs
    from brainkit.images import find_images, prepare

    if images is None and subject is None:
        shown = load_photographs()
        log(f"export will compare torch and the encoder file on {PHOTOGRAPHS} photographs that installed packages ship")
        return np.stack([prepare(image, network.preprocessing) for image in list(shown.values())[:PHOTOGRAPHS]])
    if images is not None:
        found: Sequence[Path] = find_images(images)
    else:
        assert subject is not None
        test = np.flatnonzero(subject.official_test)
        found = [subject.images[row] for row in (test if len(test) else range(len(subject)))]
    if len(found) < 3:
        raise DataError(f"{images}: expected at least 3 photographs, found {len(found)}")
    spread = np.linspace(0, len(found) - 1, min(PHOTOGRAPHS, len(found))).astype(int)
    return _prepared(network, [found[row] for row in spread])


def _prepared(network: Backbone, files: Sequence[Path]) -> np.ndarray:
    from brainkit.images import decode, prepare

    return np.stack([prepare(decode(file), network.preprocessing) for file in files])


def _predicted(model: FactorTopy, network: Backbone, images: np.ndarray) -> np.ndarray:
    from brainkit.export import torch_predictions

    return torch_predictions(model, network, images, network.preprocessing)


def _write(
    place: Path,
    settings: Config,
    model: FactorTopy,
    network: Backbone | None,
    subject: Subject | None,
    where: Where,
    scores: Scores,
    source: Path,
    digest: str,
) -> None:
    import torch

    from brainkit.evaluation import scores as evaluation

    settings.write(place / "config.yaml")
    (place / "checkpoints").mkdir()
    state: dict[str, Tensor] = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, place / "checkpoints" / "best.ckpt")
    write_selectors(place, model, where.vertices)
    scores.write(place / "scores.npz", where.vertices)
    rois = rois_of(subject, where)
    write_json(place / "rois.json", rois.to_json())
    nothing = {"name": "not named", "weights_hash": None, "pretrained": True, "licence": "unknown", "source": "unknown"}
    evaluation.write_summary(
        place / "run.json",
        {
            "brainkit": __version__,
            "imported": {"file": source.name, "sha256": digest},
            "backbone": backbone_facts(network)
            if network is not None
            else {**nothing, "layers": list(model.layers), "widths": model.widths, "preprocessing": None},
            "data": {
                "name": "not known" if subject is None else subject.name,
                "path": None if subject is None else str(subject.root.resolve()),
                "hash": subject.data_hash if subject is not None and scores.images else None,
                "kind": None if subject is None else data_kind((image.name for image in subject.images), subject.note),
                "images": None,
                "excluded": {},
            },
            "split": {"test": scores.images} if scores.images else None,
            "space": where.vertices.space,
            "vertices": len(where.vertices),
            "units": "" if subject is None else subject.units,
            "note": None if subject is None else subject.note,
            "gauge": model.gauge,
            "seed": None,
            "versions": versions(),
            "scores": evaluation.summarise(scores, rois),
        },
    )


def _file_name(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem) or "imported"
