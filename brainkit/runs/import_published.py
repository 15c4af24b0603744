"""Weights of the published implementation as a run folder, which export, predict and map can use."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit._version import __version__
from brainkit.config import Config
from brainkit.errors import DataError, UsageError, require
from brainkit.runs.folder import write_selectors
from brainkit.runs.imported_vertices import ModelVertices, locate_vertices
from brainkit.runs.latest import RUNS
from brainkit.runs.log import PhaseClock, RunLog
from brainkit.runs.network import load_network
from brainkit.runs.predictions import open_predictions
from brainkit.runs.settings import Overrides
from brainkit.utils.files import atomic_write, write_json
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.evaluation.scores import Scores
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.model.published_weights import Shape

_PARITY_IMAGES = 12


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
    maps: bool = True,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Path:
    """Create a run folder from weights of the published implementation.

    Parameters
    ----------
    file : path-like
        A state dict, as ``torch.save(model.state_dict(), FILE)`` writes it.
    coordinates : path-like, optional
        ``.npy``, or a tensor that ``torch.save`` wrote: (V, 3) in mm, those that the model was trained with. By default
        those of `data`, or of fsaverage's sphere at `vertices`.
    backbone : str, optional
        The network that the model reads, named as for :func:`brainkit.fit`. Without it maps can be drawn, but nothing
        can be predicted.
    data : path-like, optional
        The subject's folder: gives vertices, ROIs, noise ceilings, and the scores on its official test images.
    vertices : path-like, optional
        ``vertices.json``, as own data have it. By default the coordinates are looked up on fsaverage's sphere.
    layers : sequence of str
        The backbone's layers that the model reads, in the file's order, if their names do not determine them.
    images : path-like, optional
        Photographs on which export compares torch and the encoder file. By default those of `data`, else some that
        installed packages contain.
    weights : path-like, optional
        A local weights file for the backbone.
    random_weights : bool
        Use seeded random weights for the backbone.
    maps : bool
        Whether to draw the maps; ``brainkit map`` draws them later.
    out : path-like, optional
        The run folder; by default ``runs/<date>-<name of the file>``.
    say : callable, optional
        Called with each line of progress; by default lines are printed.

    Returns
    -------
    Path
        The run folder; ``runs/latest`` names it. Unknown scores are NaN in ``scores.npz`` and null in ``run.json``.

    Raises
    ------
    UsageError, DataError, MissingDependency, BrainkitError
        With one line that says what to do; no folder is left.
    """
    require("torch", extra="train", purpose="brainkit import")
    from brainkit.backbones.weights import read_state_dict
    from brainkit.data import open_subject
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.model.published_weights import clean_state, infer_shape
    from brainkit.runs.finish import finish_run
    from brainkit.training.threads import limit_threads

    source = Path(file)
    folder = Path(out) if out is not None else RUNS / f"{datetime.date.today()}-{_file_name(source)}"
    if folder.exists():
        raise UsageError(f"{folder}: exists already; name another --out")
    if backbone is None and (weights is not None or random_weights or layers or images is not None):
        raise UsageError("weights, layers and images are for a backbone: give --backbone too")
    with limit_threads(), RunLog(say) as log:
        state = clean_state(read_state_dict(source), str(source))
        shape = infer_shape(state, str(source))
        subject = None if data is None else open_subject(data)
        places = locate_vertices(
            shape.vertices, source, coordinates=coordinates, vertices=vertices, subject=subject, say=log
        )
        settings = _settings(backbone, weights, random_weights, subject, shape)
        network, names = None, list(shape.layers)
        if backbone is not None:
            network, names = _load_network(settings, shape, layers, source, log)
            settings = replace(settings, backbone=replace(settings.backbone, layers=tuple(names)))
        model = FactorTopy.from_published(state, places.coordinates, layers=names, source=str(source)).eval()
        size = f"{plural(shape.vertices, 'vertex', 'vertices')}, {plural(len(names), 'layer')}"
        log(f"{source}: {size}, {plural(shape.bottleneck, 'channel')}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            scores = _score(temporary, model, network, subject, places, log)
            settings.write(temporary / "config.yaml")
            _write(temporary, model, network, subject, places, scores, source)
            if network is not None:
                _write_parity(temporary, model, network, subject, images, log)
        log.open_file(folder / "log.txt")
        finish_run(folder, log, PhaseClock(), maps=maps)
        if network is None:
            log(f"{folder}: imported without its network; to predict, import it again with --backbone NAME")
        else:
            log(f"{folder}: imported; write its encoder file with brainkit export {folder} --onnx")
    return folder


def _settings(
    backbone: str | None,
    weights: str | os.PathLike[str] | None,
    random_weights: bool,
    subject: Subject | None,
    shape: Shape,
) -> Config:
    overrides = Overrides(
        backbone=backbone or "",
        data=() if subject is None else (subject,),
        weights=weights,
        random_weights=random_weights,
        assignments=(
            "data.preset=published",
            "model.gauge=published",
            "model.standardise=false",
            "model.offsets=[]",
            "train.refit=false",
            f"model.bottleneck={shape.bottleneck}",
            f"model.selector_width={shape.selector_width}",
        ),
    )
    return overrides.apply(Config())


def _load_network(
    settings: Config, shape: Shape, wanted: Sequence[str], source: Path, log: RunLog
) -> tuple[Backbone, list[str]]:
    """The backbone with the layers that the model reads, and their names in the file's order."""
    from brainkit.backbones.base import dot_free
    from brainkit.model.published_weights import match_layers

    name = settings.backbone.name
    published = ", ".join(shape.layers)
    if wanted and len(wanted) != len(shape.layers):
        raise UsageError(f"{source}: has {len(shape.layers)} layers ({published}), and --layers names {len(wanted)}")
    network = _load_with_layers(settings, wanted)
    names = [dot_free(layer) for layer in wanted] or match_layers(shape.layers, network.layer_names)
    if names is None:
        raise DataError(
            f"{source}: cannot match its layers {published} to those of {name} ({', '.join(network.layer_names)}); "
            "name them, in this order, with --layers A,B,..."
        )
    for layer, found, width in zip(shape.layers, names, shape.widths, strict=True):
        if network.widths[found] != width:
            raise DataError(
                f"{source}: its layer {layer} has {width} channels, and {found} of {name} has {network.widths[found]}; "
                "it was trained on another backbone or other layers"
            )
    if list(network.layer_names) != names:
        network = _load_with_layers(settings, names)
    pairs = [f"{layer} is {found}" for layer, found in zip(shape.layers, names, strict=True)]
    log(f"layers of {name}: {', '.join(pairs if len(pairs) < 6 else [*pairs[:2], '...', pairs[-1]])}")
    log.write(f"layers of {name}: {', '.join(pairs)}")
    for note in network.notes:
        log(note)
    if network.pretrained is False:
        log(f"{name}: RANDOM weights: the model was not trained on this network, so its predictions mean nothing")
    return network, names


def _load_with_layers(settings: Config, layers: Sequence[str]) -> Backbone:
    return load_network(replace(settings, backbone=replace(settings.backbone, layers=tuple(layers))))


def _score(
    folder: Path,
    model: FactorTopy,
    network: Backbone | None,
    subject: Subject | None,
    places: ModelVertices,
    log: RunLog,
) -> Scores:
    """Accuracy on the official test images, whose predictions are kept; NaN where it is unknown."""
    from brainkit.evaluation.scores import Scores
    from brainkit.metrics.correlation import StreamingCorrelation
    from brainkit.runs.results import intervals_of_kept

    known = places.in_subject >= 0
    columns = places.in_subject[known]
    r, R2, ceiling = (np.full(len(known), np.nan) for _ in range(3))
    if subject is not None and (found := subject.noise_ceiling_of(np.flatnonzero(subject.official_test))) is not None:
        ceiling[known] = found[columns]
    if network is None or subject is None or not subject.official_test.any():
        log(f"test scores: unknown: {_why_not_scored(network, subject)}")
        return Scores(r, R2, ceiling, 0)
    rows = np.flatnonzero(subject.official_test)
    streamed = StreamingCorrelation(int(known.sum()))
    with (
        progress_bar("scoring", "images") as advance,
        open_predictions(folder, subject, rows, places.vertices) as keep,
    ):
        for start in range(0, len(rows), 16):
            batch = rows[start : start + 16]
            prediction = _predict(model, network, _prepare(network, [subject.images[row] for row in batch]))
            streamed.update(prediction[:, known], subject.responses.rows(batch)[:, columns])
            keep(prediction)
            advance(start + len(batch), len(rows))
    r[known], R2[known] = streamed.r, streamed.R2
    return intervals_of_kept(Scores(r, R2, ceiling, len(rows)), folder, subject, places.rois(subject))


def _why_not_scored(network: Backbone | None, subject: Subject | None) -> str:
    if network is None:
        return "no backbone was named"
    if subject is None:
        return "no data were given"
    return f"{subject.root} has no responses to official test images, and the model may have been trained on all others"


def _write(
    folder: Path,
    model: FactorTopy,
    network: Backbone | None,
    subject: Subject | None,
    places: ModelVertices,
    scores: Scores,
    source: Path,
) -> None:
    """Write everything but settings and parity images."""
    from brainkit.evaluation.scores import json_ready, summarise
    from brainkit.images import content_hash
    from brainkit.runs.results import versions, write_model

    write_model(folder, model)
    write_selectors(folder, model, places.vertices)
    scores.write(folder / "scores.npz", places.vertices)
    rois = places.rois(subject)
    write_json(folder / "rois.json", rois.to_json())
    summary = {
        "brainkit": __version__,
        "imported": {"file": source.name, "sha256": content_hash(source)},
        "backbone": _backbone_section(model, network),
        "data": _data_section(subject, is_scored=scores.images > 0),
        "split": {"test": scores.images} if scores.images else None,
        "space": places.vertices.space,
        "vertices": len(places.vertices),
        "units": "" if subject is None else subject.units,
        "note": None if subject is None else subject.note,
        "gauge": model.gauge,
        "seed": None,
        "versions": versions(),
        "scores": summarise(scores, rois),
    }
    write_json(folder / "run.json", json_ready(summary))


def _backbone_section(model: FactorTopy, network: Backbone | None) -> dict[str, Any]:
    from brainkit.runs.results import backbone_facts

    if network is not None:
        return backbone_facts(network)
    unknown = {"name": "not named", "weights_hash": None, "pretrained": None, "licence": None, "source": "unknown"}
    return {**unknown, "layers": list(model.layers), "widths": model.widths, "preprocessing": None}


def _data_section(subject: Subject | None, *, is_scored: bool) -> dict[str, Any]:
    if subject is None:
        known: dict[str, Any] = {"name": "not known", "path": None, "hash": None, "kind": None}
    else:
        known = {
            "name": subject.name,
            "path": str(subject.root.resolve()),
            "hash": subject.data_hash if is_scored else None,
            "kind": subject.kind,
            "dataset": subject.dataset.to_json(),
        }
    return {**known, "images": None, "excluded": {}}


def _write_parity(
    folder: Path,
    model: FactorTopy,
    network: Backbone,
    subject: Subject | None,
    images: str | os.PathLike[str] | None,
    log: RunLog,
) -> None:
    """Write up to 12 prepared photographs and what the model predicts for them."""
    from brainkit.data.photographs import load_photographs
    from brainkit.images import find_images, prepare

    if images is None and subject is None:
        photographs = list(load_photographs().values())[:_PARITY_IMAGES]
        log(f"export will compare torch and the encoder file on {_PARITY_IMAGES} photographs from installed packages")
        pixels = np.stack([prepare(image, network.preprocessing) for image in photographs])
    else:
        if images is not None:
            files: Sequence[Path] = find_images(images)
        else:
            assert subject is not None
            test = np.flatnonzero(subject.official_test)
            files = [subject.images[row] for row in (test if len(test) else range(len(subject)))]
        if len(files) < 3:
            raise DataError(f"{images}: expected at least 3 photographs, found {len(files)}")
        spread = np.linspace(0, len(files) - 1, min(_PARITY_IMAGES, len(files))).astype(int)
        pixels = _prepare(network, [files[row] for row in spread])
    np.savez(folder / "parity.npz", images=pixels, predictions=_predict(model, network, pixels))


def _prepare(network: Backbone, files: Sequence[Path]) -> np.ndarray:
    from brainkit.images import decode, prepare

    return np.stack([prepare(decode(file), network.preprocessing) for file in files])


def _predict(model: FactorTopy, network: Backbone, images: np.ndarray) -> np.ndarray:
    from brainkit.export import torch_predictions

    return torch_predictions(model, network, images, network.preprocessing)


def _file_name(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem) or "imported"
