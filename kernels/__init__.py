"""Triton kernels of brainkit and their launches (imported as ``brainkit.kernels``).

This file imports neither triton nor torch, so that checking for the backend is cheap.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

# The first with tensor cores for bfloat16 and tf32, and asynchronous copies.
MIN_CAPABILITY = (8, 0)


def why_unavailable() -> str | None:
    """Why the ``triton`` backend cannot run here, in one phrase; None if it can."""
    if find_spec("torch") is None:
        return "torch is not installed"
    if find_spec("triton") is None:
        return "triton is not installed (it comes with torch on Linux; pip install triton)"
    if interpreted():
        return None
    import torch

    if torch.version.cuda is None:
        return "this PyTorch is not built for CUDA"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability < MIN_CAPABILITY:
        name, (major, minor) = torch.cuda.get_device_name(), capability
        return f"it needs compute capability 8.0 (Ampere) or higher, {name} has {major}.{minor}"
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on CPU tensors: ``TRITON_INTERPRET=1`` was set at import."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
