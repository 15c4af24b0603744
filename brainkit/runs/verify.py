"""Verify an encoder file: repeat its certificate against the run it was made from, or check it by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainkit import encoder_file, predict
from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, DataError, EncoderFileError, UsageError, require
from brainkit.export.parity import BATCHES, BOUND, relative_difference
from brainkit.export.torch_forms import RUNTIMES, open_torch
from brainkit.export.vertex_subset import custom_positions
from brainkit.images import Preprocessing, decode, find_images, prepare
from brainkit.runs.export import check_network
from brainkit.runs.folder import finished_run, load_model, read_settings
from brainkit.runs.network import load_network
from brainkit.utils.system import use_threads
from brainkit.utils.text import one_line, plural

MAX_IMAGES = 24
# How much more than it states a file with a known difference (int8, float16, random weights) may differ here.
SLACK = 2.0
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 (n, S, S, 3) -> float32 (n, V)


@dataclass(frozen=True)
class Bounds:
    """The most that a file may differ, in s.d. of a vertex.

    Attributes
    ----------
    largest, median : float
        Of all differences. The median's bound is the smaller one if the file states how much it differs from the
        float32 graph: one vertex that hardly varies can make the largest difference large.
    reason : str
        Why they are above the certificate's bound; else empty.
    """

    largest: float
    median: float
    reason: str


@dataclass(frozen=True)
class Verified:
    """The result of `verify`.

    Attributes
    ----------
    facts : tuple of (str, str)
        What was checked and what was found, for people.
    largest, median : float
        Differences found, in s.d. of a vertex (:func:`brainkit.export.parity.relative_difference`).
    allowed, allowed_median : float
        The most they may be, see :class:`Bounds`.
    """

    facts: tuple[tuple[str, str], ...] = field(repr=False)
    largest: float
    median: float
    allowed: float
    allowed_median: float

    @property
    def holds(self) -> bool:
        """Whether the file predicts what it should."""
        return self.largest <= self.allowed and self.median <= self.allowed_median


def verify(
    path: str | os.PathLike[str],
    runs: Sequence[str | os.PathLike[str]] = (),
    images: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
) -> Verified:
    """Compare an encoder file with the run it was made from, or with itself.

    Parameters
    ----------
    path : path-like
        The file, in any form that ``brainkit export`` writes, or the run folder that it is in.
    runs : sequence of path-like
        The run folder, or all those of an ensemble. Model and backbone predict in torch, and the file must predict the
        same for its vertices, in batches of 1 and 3. Without a run, the file's digest, metadata, graph and signature
        are checked, and that single images give what batches of 3 give; this needs no torch.
    images : path-like, optional
        Photographs to compare on, the first 24 in sorted order. By default the run's validation images; without a run,
        three synthetic images.
    threads : int, optional
        Processor threads; by default one for each core this process may use.

    Returns
    -------
    Verified

    Raises
    ------
    EncoderFileError
        If the file cannot be trusted, or belongs to another run.
    BrainkitError
        If it does not run, or predicts something that is not finite.
    UsageError
        If there are too few or too many runs for the file, or it can only be compared with a run.
    """
    with use_threads(threads):
        return _verify(encoder_file.locate(path), runs, images)


def _verify(path: Path, runs: Sequence[str | os.PathLike[str]], images: str | os.PathLike[str] | None) -> Verified:
    info = encoder_file.read(path)
    facts = [("file", f"{path} (sha256 {(info.digest or '')[:12]}): digest, metadata and schema are valid")]
    if runs:
        expected, pixels, run_facts = _predict_in_torch(path, info, runs, images)
        run_file, runtime = _open(path, info)
        facts += run_facts
    else:
        if info.container != "onnx":
            raise UsageError(f"{path}: a file that torch opens can only be compared with its run: give --run RUN")
        run_file, runtime = _open(path, info)
        facts.append(("graph", "plain tensor arithmetic on the file's constants; inputs and outputs as described"))
        pixels = _synthetic(info.preprocessing.size) if images is None else _photographs(images, info.preprocessing)
        expected = _in_batches(run_file, pixels, 1, path)
    errors = np.stack([relative_difference(_in_batches(run_file, pixels, size, path), expected) for size in BATCHES])
    if not np.isfinite(errors).all():
        raise BrainkitError(f"{path}: predictions are not finite on the images given")
    largest, median = float(errors.max()), float(np.median(errors if runs else errors[1:]))
    bounds = _bounds(info, in_torch=bool(runs))
    reference = "against torch" if runs else "with itself"
    of_what = f"{plural(expected.shape[1], 'vertex', 'vertices')}, {plural(len(pixels), 'image')}"
    facts += [
        ("compared", f"{of_what}, {runtime} {reference}, batches of 1 and 3"),
        ("now", f"largest {largest:.1e}, median {median:.1e} of a vertex's s.d."),
        ("certificate", _describe_certificate(info.certificate)),
        ("allowed", f"{bounds.largest:.1e}{bounds.reason}"),
    ]
    return Verified(tuple(facts), largest, median, bounds.largest, bounds.median)


def _predict_in_torch(
    path: str | os.PathLike[str],
    info: EncoderInfo,
    runs: Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str] | None,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """What the runs predict for the file's vertices (n, V), the images (n, S, S, 3), and facts about the runs."""
    require("torch", extra="train", purpose="brainkit verify --run")
    from brainkit.backbones.plugin import IN_PYTHON
    from brainkit.export.token_module import evaluation_mode, torch_predictions
    from brainkit.training.threads import limit_threads

    members = (info.ensemble or {}).get("members", 1)
    if len(runs) != members:
        raise UsageError(f"{path}: is made from {plural(members, 'run')}; name each with --run, got {len(runs)}")
    pixels = None if images is None else _photographs(images, info.preprocessing)
    predictions, facts = [], []
    for run in runs:
        folder, summary = finished_run(run)
        _check_source(path, info, folder, summary, is_single=members == 1)
        if pixels is None:
            pixels = _parity_images(folder)
        trained_on = summary["backbone"]
        if trained_on["weights_hash"] is None or trained_on["source"] == IN_PYTHON:
            raise DataError(f"{folder}: its network cannot be loaded by name, so there is nothing to compare with")
        network = load_network(read_settings(folder))
        check_network(folder, trained_on, network)
        model = load_model(folder)
        columns = _columns(path, info, folder)
        with limit_threads(), evaluation_mode(model, network):
            predictions.append(torch_predictions(model, network, pixels, info.preprocessing)[:, columns])
        facts.append(("run", f"{folder}: {network.name}, {plural(len(model.weight), 'vertex', 'vertices')}"))
    assert pixels is not None
    mean = np.stack(predictions).mean(0, dtype=np.float64)
    return np.asarray(mean, np.float32), pixels, facts


def _check_source(
    path: str | os.PathLike[str], info: EncoderInfo, folder: Path, summary: dict[str, Any], *, is_single: bool
) -> None:
    """Check that the file's metadata name the run's network, data and seed."""
    data = info.provenance.get("data")
    compared: list[tuple[str, Any, Any]] = [
        ("weights of the backbone", info.backbone.get("weights_hash"), summary["backbone"]["weights_hash"]),
        ("preprocessing", info.preprocessing.to_json(), summary["backbone"]["preprocessing"]),
    ]
    if is_single:  # members of an ensemble differ in these
        compared.append(("data", data.get("hash") if isinstance(data, dict) else None, summary["data"]["hash"]))
        compared.append(("seed", info.provenance.get("seed"), summary["seed"]))
    for what, found, expected in compared:
        if found != expected:
            raise EncoderFileError(
                f"{path}: belongs to another run than {folder}: {what} {_difference(found, expected)}"
            )


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, str) and isinstance(expected, str):
        return f"{found[:12]}, in the run {expected[:12]}"
    return f"{found}, in the run {expected}" if isinstance(found, int) and isinstance(expected, int) else "differs"


def _columns(path: str | os.PathLike[str], info: EncoderInfo, folder: Path) -> np.ndarray:
    """Positions of the file's vertices among the run's."""
    with np.load(folder / "selectors.npz") as file:
        space, ids, locations = str(file["space"]), file["vertices"], file["locations"]
    if space != info.vertices.space or not np.isin(info.vertices.ids, ids).all():
        raise EncoderFileError(f"{path}: belongs to another run than {folder}: it has vertices that the run lacks")
    columns = custom_positions(info, len(ids))
    if columns is None and space == CUSTOM and len(ids) != len(info.vertices):
        raise EncoderFileError(f"{path}: holds some of a run's vertices, which have no ids in a space of their own")
    if columns is None:
        columns = np.searchsorted(ids, info.vertices.ids)
    if not info.ensemble and not np.allclose(locations[columns], info.locations, rtol=0, atol=1e-4):
        raise EncoderFileError(f"{path}: belongs to another run than {folder}: the locations of its vertices differ")
    return columns


def _parity_images(folder: Path) -> np.ndarray:
    file = folder / "parity.npz"
    if not file.is_file():
        raise DataError(f"{file}: not found; give photographs to compare on with --images DIR")
    with np.load(file) as arrays:
        return np.asarray(arrays["images"])


def _photographs(folder: str | os.PathLike[str], preprocessing: Preprocessing) -> np.ndarray:
    found = find_images(folder)[:MAX_IMAGES]
    if len(found) < 3:
        raise DataError(f"{folder}: expected at least three images to compare on, found {len(found)}")
    return np.stack([prepare(decode(image), preprocessing) for image in found])


def _synthetic(size: int) -> np.ndarray:
    """Three images of smooth coloured waves (3, S, S, 3), the same every time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-4, 4, (9, 3))]
    pixels = 127.5 + 100 * np.stack(waves, -1).reshape(size, size, 3, 3)
    return np.asarray(pixels).transpose(2, 0, 1, 3).astype(np.uint8)


def _open(path: str | os.PathLike[str], info: EncoderInfo) -> tuple[Predict, str]:
    """The file, ready to run on the CPU, and the name of the runtime."""
    if info.container == "onnx":
        return predict.load(path, "cpu").run, "ONNX Runtime"
    try:
        return open_torch(path, info.container), RUNTIMES[info.container]
    except Exception as error:  # torch's loaders raise many types
        raise EncoderFileError(f"{path}: torch cannot open it: {one_line(error)}") from error


def _in_batches(run_file: Predict, images: np.ndarray, size: int, path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return np.concatenate([run_file(images[start : start + size]) for start in range(0, len(images), size)])
    except BrainkitError:
        raise
    except Exception as error:  # torch raises many types
        raise BrainkitError(f"{path}: fails on batches of {size} images: {one_line(error)}") from error


def _bounds(info: EncoderInfo, in_torch: bool) -> Bounds:
    """The certificate's bound, raised by what the file states to differ, with some slack.

    float16 storage changes single images as it changes batches; int8 takes its ranges from the batch.
    """
    certificate = info.certificate or {}
    bound = min(_number(certificate.get("bound")) or BOUND, BOUND)
    unenforced = _number(certificate.get("largest")) if certificate.get("enforced") is False else 0.0
    drift, median_drift = _stated_drift(info) if in_torch or info.quantised else (0.0, 0.0)
    median = bound + SLACK * (unenforced + median_drift)
    reason = ", for random weights, from the difference that the file states" if unenforced else ""
    if drift:
        reason = f" (median {median:.1e}), for a file smaller than float32, from the drift that it states"
    return Bounds(bound + SLACK * (unenforced + drift), median, reason)


def _stated_drift(info: EncoderInfo) -> tuple[float, float]:
    """The drift from the float32 graph that the file states, largest and median; 0 for the float32 graph itself."""
    section = info.quantised or info.certificate or {}
    drift = section.get("drift") if isinstance(section, dict) else None
    if not isinstance(drift, dict):
        return 0.0, 0.0
    largest = _number(drift.get("difference"))
    return largest, min(_number(drift.get("median")) or largest, largest)


def _describe_certificate(certificate: dict[str, Any] | None) -> str:
    if not certificate:
        return "none: the file was never compared with its model"
    largest, median = (_number(certificate.get(name)) for name in ("largest", "median"))
    return f"largest {largest:.1e}, median {median:.1e}, {certificate.get('images', '?')} images"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
