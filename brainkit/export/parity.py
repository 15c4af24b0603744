"""The parity certificate: the predictions of an encoder file against those of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from brainkit._version import __version__
from brainkit.errors import BrainkitError, EncoderFileError
from brainkit.predict.session import import_runtime, open_session
from brainkit.utils.text import one_line, root_cause

BOUND = 1e-4  # largest difference that is allowed, in units of a vertex's s.d.
BATCHES = (1, 3)


def onnx_certificate(expected: np.ndarray, path: str | os.PathLike[str], images: np.ndarray) -> dict[str, Any]:
    """The certificate of an ONNX file on the CPU.

    Parameters
    ----------
    path : path-like
        The ONNX file.

    The others, and what is returned and raised, are those of :func:`certificate`.
    """
    try:
        session = open_session(path, device="cpu", size=images.shape[1])
    except EncoderFileError as error:
        # Without the name of the temporary file.
        reason = root_cause(error).replace(os.fspath(path), "the file")
        raise BrainkitError(f"the exported network cannot be run by ONNX Runtime: {reason}") from error
    return certificate(
        expected,
        images,
        lambda batch: session.run(["fmri"], batch)[0],
        runtime="ONNX Runtime",
        versions={"onnxruntime": import_runtime().__version__},
    )


def certificate(
    expected: np.ndarray,
    images: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    runtime: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Compare the predictions of a file with torch's, in batches of one and of three.

    Parameters
    ----------
    expected : array of shape (n, V), float32
        Torch's predictions.
    images : array of shape (n, S, S, 3), uint8
    predict : callable
        Predictions of the opened file: images (B, S, S, 3) -> fmri (B, V).
    runtime : str
        Name of what opened the file.
    versions : dict
        Versions to record next to those of brainkit and torch.

    Returns
    -------
    dict
        The certificate, without ``enforced``.

    Raises
    ------
    BrainkitError
        If the runtime fails, or a prediction is not finite.
    """
    import torch

    differences = []
    for batch in BATCHES:
        try:
            parts = [predict(images[start : start + batch]) for start in range(0, len(images), batch)]
        except Exception as error:  # each runtime has its own classes
            raise BrainkitError(
                f"the exported network fails in {runtime} with {batch} images per batch: {one_line(error)}; {_FIXED}"
            ) from error
        found = np.concatenate(parts)
        if found.shape != expected.shape:
            raise BrainkitError(
                f"the exported network must give {expected.shape} in {runtime} with {batch} images per batch, "
                f"got {found.shape}; {_FIXED}"
            )
        differences.append(relative_difference(found, expected))
    if not np.isfinite(differences).all():
        raise BrainkitError("the model cannot be exported: its predictions of the parity images are not finite")
    return {
        "largest": float(np.max(differences)),
        "median": float(np.median(differences)),
        "images": len(images),
        "batches": list(BATCHES),
        "bound": BOUND,
        "where": f"{runtime} on CPU, {platform.system()} {platform.machine()}",
        "versions": {"brainkit": __version__, "torch": torch.__version__, **versions},
    }


def relative_difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Difference of predictions in units of each vertex's s.d.

    The unit is max(the vertex's s.d. across the images, the pooled s.d., 1e-3 of the rms): a vertex that hardly varies
    is judged on the scale of the others.

    Parameters
    ----------
    found, expected : array of shape (n, V)

    Returns
    -------
    array of shape (n, V), float64
    """
    reference = expected.astype(np.float64)
    spread = reference.std(0)
    floor = max(np.sqrt(np.mean(spread**2)), 1e-3 * np.sqrt(np.mean(reference**2)), np.finfo(np.float64).tiny)
    return np.asarray(np.abs(found - reference) / np.maximum(spread, floor))


_FIXED = "a network whose code turns the batch size into a constant, for example by len(images), cannot be exported"
