"""An encoder file described in words: what ``brainkit info`` prints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.encoder_file.file import locate, read, read_text
from brainkit.encoder_file.info import EncoderInfo
from brainkit.encoder_file.licence import NOT_STATED, PARTS, is_non_commercial, is_stated
from brainkit.encoder_file.metadata import from_json
from brainkit.metrics.scores import explained_share
from brainkit.metrics.uncertainty import BASES, MapUncertainty
from brainkit.utils.text import format_bytes, plural, printable


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy over a group of vertices; NaN where unknown.

    Parameters
    ----------
    name : str
        The region.
    vertices : int
        How many vertices of the encoder it has.
    r, R2 : float
        Median over its vertices.
    explained : float
        Median of r squared over the noise ceiling, in percent, over its vertices with a ceiling of 0.05 or more.
    """

    name: str
    vertices: int
    r: float
    R2: float
    explained: float


@dataclass(frozen=True)
class Description:
    """Facts as (label, text) in reading order, and the accuracy over all vertices and over each region."""

    facts: tuple[tuple[str, str], ...]
    accuracy: tuple[Accuracy, ...]


def describe(path: str | os.PathLike[str]) -> Description:
    """Read an encoder file's metadata and describe it in words; no session is opened.

    Parameters
    ----------
    path : path-like
        An encoder file, or the run folder that it is in.

    Returns
    -------
    Description
        All text is printable: the file's metadata is not trusted.

    Raises
    ------
    EncoderFileError
        If the file is missing, damaged, or not an encoder file.
    """
    path = locate(path)
    info = read(path)
    size = path.stat().st_size
    facts = [
        ("file", f"{path} ({format_bytes(size)}, sha256 {(info.digest or '')[:12]})"),
        ("form", _form(info)),
        ("note", info.note or ""),
        ("backbone", _backbone(info.backbone)),
        ("layers", f"{len(info.layers)}: {', '.join(info.layers)}"),
        ("predicts", _target(info)),
        ("subject", _subject(info.provenance)),
        ("images", _images(info)),
        ("ensemble", _ensemble(info.ensemble)),
        ("selectors", _selectors(info)),
        ("uncertainty", _uncertainty(info.uncertainty)),
        ("trained", _scalars(info.provenance)),
        ("trained on", _trained_on(info.image_hashes)),
        ("certificate", _certificate(info.certificate)),
        ("storage", _storage(info)),
        *_licence(info),
        *(("cite", line) for line in info.citation.splitlines()),
    ]
    return Description(
        tuple((label, printable(text)) for label, text in facts if text),
        tuple(_accuracy(printable(name), index, info) for name, index in _rows(info)),
    )


def as_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An encoder file's metadata without its arrays, and the accuracy of each region, as plain JSON values.

    Parameters
    ----------
    path : path-like
        An encoder file, or the run folder that it is in.

    Returns
    -------
    dict
        The keys of the metadata (``docs/encoder-file.md``), with ``file``, ``bytes``, ``sha256`` and ``accuracy``:
        a list of regions; unknown numbers are None.

    Raises
    ------
    EncoderFileError
        As `describe`.
    """
    path = locate(path)
    text, digest = read_text(path)
    info = from_json(text, source=path)
    stored = {key: value for key, value in json.loads(text).items() if key not in _ARRAYS}
    return {
        "file": os.fspath(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        **stored,
        "vertices": {
            "count": len(info.vertices),
            "left": info.vertices.n_left if stored["space"] != "custom" else None,
        },
        **({"image_hashes": counts} if (counts := _counts(info.image_hashes)) else {}),
        "accuracy": [_row_to_json(_accuracy(name, index, info)) for name, index in _rows(info)],
    }


_ARRAYS = ("vertices", "rois", "selectors", "scores", "image_hashes", "uncertainty")


def _counts(image_hashes: Mapping[str, np.ndarray] | None) -> dict[str, int]:
    """Images of each side of the split; empty if the file does not say."""
    return {side: len(hashes) for side, hashes in (image_hashes or {}).items()}


def _rows(info: EncoderInfo) -> list[tuple[str, np.ndarray]]:
    return [("all", np.arange(len(info.vertices)))] + [(name, info.rois[name]) for name in info.rois]


def _row_to_json(row: Accuracy) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in dataclasses.asdict(row).items()}


def _form(info: EncoderInfo) -> str:
    """The container, and the layout of the readout."""
    container = {"onnx": "ONNX", "torchscript": "TorchScript, for torch.jit.load", "pt2": ".pt2, for torch.export.load"}
    suits = {"cells": "; readout by cells, for CPUs", "padded": "; readout in padded groups, for GPUs"}
    return container[info.container] + suits.get(info.form or "", "")


def _subject(provenance: Mapping[str, Any]) -> str:
    """Whose responses it predicts."""
    data = provenance.get("data")
    name = data.get("name") if isinstance(data, Mapping) else None
    return f"{name}: it predicts this subject only" if isinstance(name, str) and name else ""


def _of_parts(parts: list[str]) -> str:
    return " and ".join(part if part == "brainkit" else f"the {part}" for part in parts)


def _licence(info: EncoderInfo) -> Iterator[tuple[str, str]]:
    """The terms of the three parts, and whether any of them forbids commercial use."""
    if not info.terms:
        yield "licence", info.licence or "none stated"
        if is_non_commercial(info.licence):
            yield "commercial", "NO: see the licence"
        return
    for part in PARTS:
        yield "licence", f"{part}: {info.terms.get(part, NOT_STATED)}"
    forbidding = [part for part in PARTS if is_non_commercial(info.terms.get(part, ""))]
    silent = [part for part in PARTS if not is_stated(info.terms.get(part, NOT_STATED))]
    if forbidding:
        yield "commercial", f"NO: the terms of {_of_parts(forbidding)} forbid commercial use"
    elif silent:
        yield "commercial", f"unknown: the terms of {_of_parts(silent)} are not stated"


def _backbone(backbone: Mapping[str, Any]) -> str:
    pretrained = backbone.get("pretrained", "")
    weights = "pretrained" if pretrained is True else "random weights" if pretrained is False else ""
    if pretrained is None:
        weights = "not stated whether it is trained"
    digest = str(backbone.get("weights_hash") or "")[:12]
    licence = str(backbone.get("licence") or "")
    parts = [weights, digest and f"sha256 {digest}", licence and f"licence {licence}"]
    return f"{backbone.get('name', 'unnamed')} ({', '.join(part for part in parts if part) or 'nothing else stated'})"


def _target(info: EncoderInfo) -> str:
    count = plural(len(info.vertices), "vertex", "vertices")
    if info.vertices.space == "custom":
        where = "a custom space"
    else:
        left = info.vertices.n_left
        where = f"{info.vertices.space} ({left:,} left, {len(info.vertices) - left:,} right)"
    return f"{count} of {where}; units: {info.units or 'not stated'}"


def _trained_on(image_hashes: Mapping[str, np.ndarray] | None) -> str:
    if not (counts := _counts(image_hashes)):
        return "images that the file does not list: it cannot say whether an image is new to it"
    return f"{counts['train']:,} images, {counts['validation']:,} more for validation, all known by their hashes"


def _images(info: EncoderInfo) -> str:
    how = info.preprocessing
    fit = "the whole image" if how.fit == "whole" else f"the central {how.crop_fraction:g} of the image"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"{fit}, resized to {how.size} x {how.size} ({how.interpolation}); mean {mean}; s.d. {std}"


def _selectors(info: EncoderInfo) -> str:
    gauge = (
        "the gain of every layer is fixed, so layer weights can be compared"
        if info.gauge == "unit"
        else "gains of layers are free, so layer weights cannot be compared across layers"
    )
    members = info.ensemble["members"] if info.ensemble else 1
    channels = f"{members} x {info.bottleneck // members}" if members > 1 else str(info.bottleneck)
    return f"{info.grid[0]} x {info.grid[1]} tokens, {channels} channels; gauge {info.gauge} ({gauge})"


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None:
        return "none: it was never compared with the model it was exported from"
    largest, median = certificate.get("largest"), certificate.get("median")
    if not isinstance(largest, float) or not isinstance(median, float):
        return _scalars(certificate) or "empty"
    where = f", {certificate['where']}" if isinstance(certificate.get("where"), str) else ""
    loose = ", reported only (random weights)" if certificate.get("enforced") is False else ""
    return (
        f"differs from the torch model by at most {largest:.1e} (median {median:.1e}) of a vertex's s.d. "
        f"over {certificate.get('images', '?')} images{where}{loose}"
    )


def _storage(info: EncoderInfo) -> str:
    """What is stored in less than float32, and how far that moves predictions."""
    parts = ["large constants as float16, computed as float32"] if info.storage == "float16" else []
    if info.quantised is not None:
        parts.append(f"int8 products of the backbone ({_scalars(info.quantised, nested=False)})")
    section = info.quantised if info.quantised is not None else info.certificate
    drift = section.get("drift") if section is not None else None
    if isinstance(drift, Mapping):
        median, largest = drift.get("median"), drift.get("largest")
        if isinstance(median, float) and isinstance(largest, float):
            parts.append(
                f"predictions are {median:.1e} of a vertex's s.d. from those of the float32 graph (rms over "
                f"{drift.get('images', '?')} images, median vertex; {largest:.1e} at the worst vertex)"
            )
    return "; ".join(parts)


def _ensemble(ensemble: Mapping[str, Any] | None) -> str:
    if ensemble is None:
        return ""
    runs = ensemble.get("runs")
    members = [run for run in runs if isinstance(run, Mapping)] if isinstance(runs, list) else []
    seeds = [str(run.get("seed")) for run in members]
    subjects = [str(run["subject"]) for run in members if "subject" in run]
    depth_sd = ensemble.get("depth_sd")
    parts = [f"mean of {ensemble['members']} models (fmri) and their s.d. (fmri_sd)"]
    parts += [f"subjects {', '.join(subjects[:20])}"] if subjects else []
    parts += [f"seeds {', '.join(seeds[:20])}"] if seeds else []
    parts += (
        [f"preferred depth differs by {depth_sd:.2g} layers (s.d., median vertex)"]
        if isinstance(depth_sd, float)
        else []
    )
    return "; ".join(parts)


def _uncertainty(uncertainty: MapUncertainty | None) -> str:
    if uncertainty is None:
        return ""
    location = np.hypot(*uncertainty.location_se.T)
    errors = {"depth": uncertainty.depth_se, "location": location, "scale": uncertainty.scale_se}
    parts = [f"{name} {np.median(values):.2g}" for name, values in errors.items()]
    return f"standard errors (median vertex): {', '.join(parts)}; {uncertainty.runs} {BASES[uncertainty.basis]}"


def _scalars(section: Mapping[str, Any], nested: bool = True) -> str:
    """The plain values of a section and of the sections in it; lists are left out."""
    parts = []
    for key, value in section.items():
        if isinstance(value, Mapping):
            inside = _scalars(value, nested=False) if nested else ""
            parts += [f"{key} ({inside})"] if inside else []
        elif isinstance(value, float):
            parts.append(f"{key} {value:.3g}")
        elif isinstance(value, (str, int)) and value != "":
            text = str(value)
            parts.append(f"{key} {text if len(text) <= 40 else text[:12] + '...'}")
    return ", ".join(parts)


def _accuracy(name: str, index: np.ndarray, info: EncoderInfo) -> Accuracy:
    return Accuracy(
        name,
        len(index),
        _median(info.r[index]),
        _median(info.R2[index]),
        100 * _median(explained_share(info.r[index], info.noise_ceiling[index]))
        if np.isfinite(info.r).any()
        else math.nan,
    )


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan
