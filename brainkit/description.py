"""An encoder file in words: what ``brainkit info`` prints."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit import encoder_file
from brainkit.encoder_file import EncoderInfo
from brainkit.metrics import explained_share


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy over a group of vertices; NaN where it is not known.

    Parameters
    ----------
    name : str
        The region.
    vertices : int
        How many of the encoder's vertices it has.
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
    """Facts as (what, text) in reading order, and the accuracy of the whole and of each region."""

    facts: tuple[tuple[str, str], ...]
    accuracy: tuple[Accuracy, ...]


def describe(path: str | os.PathLike[str]) -> Description:
    """Read an encoder file's metadata and put it into words; no session is opened.

    Parameters
    ----------
    path : path-like
        An encoder file.

    Returns
    -------
    Description
        All text is printable: what the file says of itself is not trusted.

    Raises
    ------
    EncoderFileError
        If the file is missing, damaged, or not an encoder file.
    """
    info = encoder_file.read(path)
    size = Path(path).stat().st_size
    facts = [
        ("file", f"{path} ({size / 1e6:.1f} MB, sha256 {(info.digest or '')[:12]})"),
        ("form", _form(info)),
        ("note", info.note or ""),
        ("backbone", _backbone(info.backbone)),
        ("layers", f"{len(info.layers)}: {', '.join(info.layers)}"),
        ("predicts", _target(info)),
        ("images", _images(info)),
        ("selectors", _selectors(info)),
        ("trained", _scalars(info.provenance)),
        ("certificate", _certificate(info.certificate)),
        ("licence", info.licence or "none stated"),
    ]
    rows = [("all", np.arange(len(info.vertices)))] + [(name, info.rois[name]) for name in info.rois]
    return Description(
        tuple((what, _printable(text)) for what, text in facts if text),
        tuple(_accuracy(_printable(name), index, info) for name, index in rows),
    )


def _form(info: EncoderInfo) -> str:
    container = {"onnx": "ONNX", "torchscript": "TorchScript, for torch.jit.load", "pt2": ".pt2, for torch.export.load"}
    suits = {"cells": "; readout by cells, for CPUs", "padded": "; readout in padded groups, for GPUs"}
    return container[info.container] + suits.get(info.form or "", "")


def _backbone(backbone: Mapping[str, Any]) -> str:
    pretrained = backbone.get("pretrained")
    weights = "pretrained" if pretrained is True else "random weights" if pretrained is False else ""
    digest = str(backbone.get("weights_hash") or "")[:12]
    licence = str(backbone.get("licence") or "")
    parts = [weights, digest and f"sha256 {digest}", licence and f"licence {licence}"]
    return f"{backbone.get('name', 'not named')} ({', '.join(part for part in parts if part) or 'nothing else stated'})"


def _target(info: EncoderInfo) -> str:
    count = f"{len(info.vertices):,} vertices"
    if info.vertices.space == "custom":
        where = "a space of its own"
    else:
        left = info.vertices.n_left
        where = f"{info.vertices.space} ({left:,} left, {len(info.vertices) - left:,} right)"
    return f"{count} of {where}; units: {info.units or 'not stated'}"


def _images(info: EncoderInfo) -> str:
    how = info.preprocessing
    fit = "the whole image" if how.fit == "whole" else f"the central {how.crop_fraction:g} of the image"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"{fit}, resized to {how.size} x {how.size} ({how.interpolation}); mean {mean}; s.d. {std}"


def _selectors(info: EncoderInfo) -> str:
    gauge = "layers can be compared" if info.gauge == "unit" else "layers cannot be compared"
    return f"{info.grid[0]} x {info.grid[1]} tokens, {info.bottleneck} channels; gauge {info.gauge}: {gauge}"


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None:
        return "none: it was never compared with the model it came from"
    largest, median = certificate.get("largest"), certificate.get("median")
    if not isinstance(largest, float) or not isinstance(median, float):
        return _scalars(certificate) or "empty"
    where = f", {certificate['where']}" if isinstance(certificate.get("where"), str) else ""
    loose = ", reported only (random weights)" if certificate.get("enforced") is False else ""
    return (
        f"differs from the torch model by at most {largest:.1e} (median {median:.1e}) of a vertex's s.d. "
        f"over {certificate.get('images', '?')} images{where}{loose}"
    )


def _scalars(section: Mapping[str, Any], nested: bool = True) -> str:
    """Say the plain values of a section, and of the sections in it; long lists are left to those who want them."""
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
        100 * _median(explained_share(info.r[index], info.noise_ceiling[index])),
    )


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


def _printable(text: str) -> str:
    """Leave out what could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
