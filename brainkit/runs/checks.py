"""What can be refused before a run creates or computes anything: a backend, a precision, a model that is too large."""

from __future__ import annotations

from collections.abc import Mapping

from brainkit.config import Config
from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import available_backends, cpu
from brainkit.training.memory_budget import refuse_too_large


def check_model(settings: Config, device: str, widths: Mapping[str, int], vertices: int) -> None:
    """Refuse a model whose operator cannot run on the device, or that needs more memory than there is.

    Parameters
    ----------
    settings : Config
    device : {"cpu", "cuda", "mps"}
    widths : mapping of str to int
        Channels C of each backbone layer.
    vertices : int
        V, of all subjects together.

    Raises
    ------
    UsageError
        If the settings exclude each other or the device, or the model is too large.
    BrainkitError
        If the backend or precision is not available on this machine; says why.
    """
    backend = settings.model.backend
    if reason := available_backends().get(backend):
        raise BrainkitError(f"model.backend {backend!r} cannot run here: {reason}")
    if backend == "triton" and device != "cuda":
        raise UsageError(f"train.device must be cuda for model.backend 'triton', got {device}")
    choose_precision(settings, device)
    refuse_too_large(
        widths,
        vertices,
        bottleneck=settings.model.bottleneck,
        hidden=settings.model.selector_width if settings.model.topography else 0,
        device=device,
    )


def choose_precision(settings: Config, device: str) -> str:
    """What training multiplies in; resolves ``auto``.

    Raises
    ------
    UsageError, BrainkitError
        If the device, the backend or this machine does not have the precision.
    """
    precision, backend = settings.model.precision, settings.model.backend
    if precision == "auto":
        kernels = device == "cuda" and backend in ("auto", "triton") and available_backends()["triton"] is None
        return "tf32" if kernels else "float32"
    if precision == "float32":
        return precision
    required_device, required_backend = ("cpu", "cpu") if precision == "bf16x3" else ("cuda", "triton")
    if device != required_device:
        raise UsageError(f"train.device must be {required_device} for model.precision {precision!r}, got {device}")
    if backend not in ("auto", required_backend):
        raise UsageError(
            f"model.backend must be auto or {required_backend} for model.precision {precision!r}, got {backend!r}"
        )
    reason = available_backends()[required_backend]
    if precision == "bf16x3":
        reason = reason or cpu.why_no_bf16x3()
    if reason:
        raise BrainkitError(f"model.precision {precision!r} cannot run here: {reason}")
    return precision
