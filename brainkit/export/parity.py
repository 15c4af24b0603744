"""The parity certificate: an encoder file against torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.errors import BrainkitError
from brainkit.predict.session import import_runtime, open_session
from brainkit.utils.text import one_line

BOUND = 1e-4
BATCHES = (1, 3)


def parity(expected: np.ndarray, path: str | os.PathLike[str], images: np.ndarray) -> dict[str, Any]:
    """Compare an ONNX file on the CPU with torch's predictions, in batches of one and of three.

    The difference at each image and vertex is divided by max(that vertex's s.d. across the images, the pooled s.d.,
    1e-3 of the rms): a vertex that hardly varies is judged on the scale of the others.

    Parameters
    ----------
    expected : array of shape (n, V), float32
        Torch's predictions.
    path : path-like
        The ONNX file.
    images : array of shape (n, S, S, 3), uint8

    Returns
    -------
    dict
        The certificate, without ``enforced``.

    Raises
    ------
    BrainkitError
        If ONNX Runtime fails, or a prediction is not finite.
    """
    session = open_session(path, device="cpu", size=images.shape[1])
    return compared(
        expected,
        images,
        lambda batch: session.run(["fmri"], batch)[0],
        runtime="ONNX Runtime",
        versions={"onnxruntime": import_runtime().__version__},
    )


def compared(
    expected: np.ndarray,
    images: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    runtime: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The certificate of a file that `runtime` has opened: `predict` gives its fmri (B, V) for images (B, S, S, 3)."""
    import torch

    errors = []
    for batch in BATCHES:
        try:
            parts = [predict(images[start : start + batch]) for start in range(0, len(images), batch)]
        except Exception as error:  # the runtime's own kinds, which share no other class
            raise BrainkitError(
                f"the exported network fails in {runtime} on {batch} images at a time: {one_line(error)}; a network "
                "whose code makes a number of the batch's size, as len(images) does, cannot be exported"
            ) from error
        found = np.concatenate(parts)
        if found.shape != expected.shape:
            raise BrainkitError(
                f"the exported network gives {found.shape} in {runtime} where {expected.shape} was expected, with "
                f"{batch} images at a time; a network whose code makes a number of the batch's size cannot be exported"
            )
        errors.append(relative_difference(found, expected))
    if not np.isfinite(errors).all():
        raise BrainkitError("the model's predictions are not finite on the images given; it cannot be exported")
    return {
        "largest": float(np.max(errors)),
        "median": float(np.median(errors)),
        "images": len(images),
        "batches": list(BATCHES),
        "bound": BOUND,
        "where": f"{runtime} on CPU, {platform.system()} {platform.machine()}",
        "versions": {"brainkit": __version__, "torch": torch.__version__, **versions},
    }


def relative_difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Difference of predictions (n, V), each over max(that vertex's s.d., the pooled s.d., 1e-3 of the rms)."""
    reference = expected.astype(np.float64)
    spread = reference.std(0)
    floor = max(np.sqrt(np.mean(spread**2)), 1e-3 * np.sqrt(np.mean(reference**2)), np.finfo(np.float64).tiny)
    return np.asarray(np.abs(found - reference) / np.maximum(spread, floor))
