"""Repeating an encoder file's certificate, and checking what can be checked without the run it came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainkit import encoder_file
from brainkit import predict as scoring
from brainkit.config import Config
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, DataError, EncoderFileError, UsageError, require
from brainkit.export.parity import BATCHES, BOUND, relative_difference
from brainkit.export.torch_forms import RUNTIMES, open_torch
from brainkit.export.vertex_subset import custom_positions
from brainkit.images import Preprocessing, decode, find_images, prepare
from brainkit.runs.folder import finished_run, load_model
from brainkit.utils.text import one_line

MAX_IMAGES = 24
# A file that was allowed to differ (int8, float16, random weights) may differ on this machine by so much more.
SLACK = 2.0
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Verified:
    """What came of comparing an encoder file.

    Parameters
    ----------
    facts : tuple of (str, str)
        What was looked at and what was found, in words.
    largest, median : float
        Of the differences now, in s.d. of a vertex (:func:`brainkit.export.parity.relative_difference`).
    allowed : float
        The most that `largest` may be.
    allowed_median : float
        The most that `median` may be; less than `allowed` where a file tells how far it is from the float32 graph: one
        vertex that hardly varies can make the largest difference large.
    """

    facts: tuple[tuple[str, str], ...]
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
) -> Verified:
    """Compare an encoder file with the run it was made of, or with itself.

    Parameters
    ----------
    path : path-like
        The file, in any form that ``brainkit export`` writes.
    runs : sequence of path-like
        The run folder: its model and backbone predict in torch what the file is held against, at batch 1 and 3, for
        the vertices that the file has. Of an ensemble, all of them. None: the file's digest, metadata, graph and
        signature are checked, and that one image at a time gives what three at a time give; this needs no torch.
    images : path-like, optional
        Photographs to compare on, the first 24 in sorted order; by default the run's validation images, without a run
        three drawn ones.

    Returns
    -------
    Verified

    Raises
    ------
    EncoderFileError
        If the file cannot be trusted, or is of another run.
    BrainkitError
        If it does not run, or predicts something that is not finite.
    UsageError
        If runs are too few or too many for the file, or it can only be compared with a run.
    """
    info = encoder_file.read(path)
    facts = [("file", f"{path} (sha256 {(info.digest or '')[:12]}): digest, metadata and schema are right")]
    if runs:
        expected, shown, about = _in_torch(path, info, runs, images)
        predict, runtime = _opened(path, info)
        facts += about
    else:
        if info.container != "onnx":
            raise UsageError(f"{path}: a file that torch opens is verified against its run: give --run RUN")
        encoder = scoring.load(path, "cpu")
        facts.append(("graph", "plain tensor arithmetic on the file's own constants; takes and gives what it says"))
        predict, runtime = encoder.run, "ONNX Runtime"
        shown = _photographs(images, info.preprocessing) if images is not None else _drawn(info.preprocessing.size)
        expected = _batched(predict, shown, 1, path)
    errors = np.stack([relative_difference(_batched(predict, shown, size, path), expected) for size in BATCHES])
    if not np.isfinite(errors).all():
        raise BrainkitError(f"{path}: its predictions are not finite on the images given")
    largest, median = float(errors.max()), float(np.median(errors if runs else errors[1:]))
    allowed, usual, why = _allowed(info, in_torch=bool(runs))
    against = "against torch" if runs else "with itself"
    facts += [
        ("compared", f"{expected.shape[1]} vertices, {len(shown)} images, {runtime} {against}, batches of 1 and 3"),
        ("now", f"largest {largest:.1e}, median {median:.1e} of a vertex's s.d."),
        ("certificate", _certificate(info.certificate)),
        ("allowed", f"{allowed:.1e}{why}"),
    ]
    return Verified(tuple(facts), largest, median, allowed, usual)


def _in_torch(
    path: str | os.PathLike[str],
    info: EncoderInfo,
    runs: Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str] | None,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """What the runs predict for the file's vertices (n, V), the images (n, S, S, 3), and what is to be said of it."""
    require("torch", extra="train", purpose="brainkit verify --run")
    from brainkit.backbones.wrapping import IN_PYTHON
    from brainkit.export.token_module import evaluation_mode, torch_predictions
    from brainkit.runs.prepare import chosen_backbone

    members = (info.ensemble or {}).get("members", 1)
    if len(runs) != members:
        raise UsageError(f"{path}: is of {members} run{'s' * (members != 1)}; give each by --run, got {len(runs)}")
    shown = None if images is None else _photographs(images, info.preprocessing)
    parts, about = [], []
    for run in runs:
        folder, summary = finished_run(run)
        _check_source(path, info, folder, summary, alone=members == 1)
        if shown is None:
            shown = _parity_images(folder)
        if summary["backbone"]["weights_hash"] is None or summary["backbone"]["source"] == IN_PYTHON:
            raise DataError(f"{folder}: no name brings its network back, so nothing can be predicted to compare with")
        network = chosen_backbone(Config.read(folder / "config.yaml"), None)
        if network.weights_hash != summary["backbone"]["weights_hash"]:
            raise DataError(f"{folder}: the weights of {network.name} found now are not those it was trained with")
        model = load_model(folder)
        columns = _columns(path, info, folder)
        with evaluation_mode(model, network):
            parts.append(torch_predictions(model, network, shown, info.preprocessing)[:, columns])
        about.append(("run", f"{folder}: {network.name}, {len(model.weight)} vertices"))
    assert shown is not None
    mean = np.stack(parts).mean(0, dtype=np.float64)
    return np.asarray(mean, np.float32), shown, about


def _check_source(
    path: str | os.PathLike[str], info: EncoderInfo, folder: Path, summary: dict[str, Any], *, alone: bool
) -> None:
    """The file must say of itself what the run says: the same network, data, split and seed."""
    data = info.provenance.get("data")
    said: list[tuple[str, Any, Any]] = [
        ("weights of the backbone", info.backbone.get("weights_hash"), summary["backbone"]["weights_hash"]),
        ("preprocessing", info.preprocessing.to_json(), summary["backbone"]["preprocessing"]),
    ]
    if alone:  # an ensemble's members differ in these, and are what the numbers tell
        said.append(("data", data.get("hash") if isinstance(data, dict) else None, summary["data"]["hash"]))
        said.append(("seed", info.provenance.get("seed"), summary["seed"]))
    for what, found, expected in said:
        if found != expected:
            raise EncoderFileError(f"{path}: is of another run than {folder}: {what} {_differs(found, expected)}")


def _differs(found: Any, expected: Any) -> str:
    if isinstance(found, str) and isinstance(expected, str):
        return f"{found[:12]}, there {expected[:12]}"
    return f"{found}, there {expected}" if isinstance(found, int) and isinstance(expected, int) else "differs"


def _columns(path: str | os.PathLike[str], info: EncoderInfo, folder: Path) -> np.ndarray:
    """Which of the run's vertices the file has."""
    with np.load(folder / "selectors.npz") as file:
        space, ids, locations = str(file["space"]), file["vertices"], file["locations"]
    if space != info.vertices.space or not np.isin(info.vertices.ids, ids).all():
        raise EncoderFileError(f"{path}: is of another run than {folder}: it has vertices that the run lacks")
    columns = custom_positions(info, len(ids))
    if columns is None and space == "custom" and len(ids) != len(info.vertices):
        raise EncoderFileError(f"{path}: holds some of a run's vertices, which have no ids in a space of their own")
    if columns is None:
        columns = np.searchsorted(ids, info.vertices.ids)
    if not info.ensemble and not np.allclose(locations[columns], info.locations, rtol=0, atol=1e-4):
        raise EncoderFileError(f"{path}: is of another run than {folder}: its vertices read other places of the image")
    return columns


def _parity_images(folder: Path) -> np.ndarray:
    place = folder / "parity.npz"
    if not place.is_file():
        raise DataError(f"{place}: not found; give photographs to compare on with --images DIR")
    with np.load(place) as file:
        return np.asarray(file["images"])


def _photographs(place: str | os.PathLike[str], preprocessing: Preprocessing) -> np.ndarray:
    found = find_images(place)[:MAX_IMAGES]
    if len(found) < 3:
        raise DataError(f"{place}: expected at least three images to compare on, found {len(found)}")
    return np.stack([prepare(decode(image), preprocessing) for image in found])


def _drawn(size: int) -> np.ndarray:
    """Three images of soft blots of colour (3, S, S, 3), the same every time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-4, 4, (9, 3))]
    return (
        np.asarray(127.5 + 100 * np.stack(waves, -1).reshape(size, size, 3, 3)).transpose(2, 0, 1, 3).astype(np.uint8)
    )


def _opened(path: str | os.PathLike[str], info: EncoderInfo) -> tuple[Run, str]:
    """The file ready to run on the CPU, and by what."""
    if info.container == "onnx":
        return scoring.load(path, "cpu").run, "ONNX Runtime"
    try:
        return open_torch(path, info.container), RUNTIMES[info.container]
    except Exception as error:  # the loaders' own kinds
        raise EncoderFileError(f"{path}: torch cannot open it: {one_line(error)}") from error


def _batched(predict: Run, images: np.ndarray, size: int, path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return np.concatenate([predict(images[start : start + size]) for start in range(0, len(images), size)])
    except BrainkitError:
        raise
    except Exception as error:  # torch's own kinds
        raise BrainkitError(f"{path}: fails on {size} images at a time: {one_line(error)}") from error


def _lossy(info: EncoderInfo) -> tuple[float, float]:
    """The drift from the float32 graph that the file tells of itself, largest and median; 0 where it is that graph."""
    section = info.quantised or info.certificate or {}
    drift = section.get("drift") if isinstance(section, dict) else None
    if not isinstance(drift, dict):
        return 0.0, 0.0
    largest = _number(drift.get("difference"))
    return largest, min(_number(drift.get("median")) or largest, largest)


def _allowed(info: EncoderInfo, in_torch: bool) -> tuple[float, float, str]:
    """The certificate's bound, more for what was not held to it: what the file states and some slack.

    Of the largest difference, of the median, and why.

    Storage in float16 moves single images as it moves batches; int8 takes its ranges from the batch.
    """
    certificate = info.certificate or {}
    bound = min(_number(certificate.get("bound")) or BOUND, BOUND)
    loose = _number(certificate.get("largest")) if certificate.get("enforced") is False else 0.0
    lossy, usual = _lossy(info) if in_torch or info.quantised else (0.0, 0.0)
    why = ", for random weights, by what the file states" if loose else ""
    if lossy:
        why = (
            f" (median {bound + SLACK * (loose + usual):.1e}), for a file smaller than float32, by the drift it states"
        )
    return bound + SLACK * (loose + lossy), bound + SLACK * (loose + usual), why


def _certificate(certificate: dict[str, Any] | None) -> str:
    if not certificate:
        return "none: the file was never compared with its model"
    largest, median = (_number(certificate.get(name)) for name in ("largest", "median"))
    return f"largest {largest:.1e}, median {median:.1e}, {certificate.get('images', '?')} images"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
