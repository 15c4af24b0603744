"""Triton kernels of brainkit, and what launches them (imported as ``brainkit.kernels``).

The package imports neither triton nor torch, so that asking why a backend is missing costs nothing.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

# Tensor cores for bfloat16 and tf32, and asynchronous copies, begin here.
LEAST_CAPABILITY = (8, 0)


def why_unavailable() -> str | None:
    """Say in one phrase why the ``triton`` backend cannot run here, or return None where it runs."""
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
    if capability < LEAST_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}, "
            "and 8.0 is the least (Ampere)"
        )
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on CPU tensors: ``TRITON_INTERPRET=1`` was set at the start."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
