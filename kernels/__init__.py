"""Triton kernels of the FactorTopy operator, and what launches them, live here (imported as ``brainkit.kernels``).

The package imports neither triton nor torch, so that asking why a backend is missing costs nothing.
"""

from __future__ import annotations


def why_unavailable() -> str:
    """Say in one phrase why the ``triton`` backend cannot run."""
    return "this version of brainkit has no Triton kernels yet"
