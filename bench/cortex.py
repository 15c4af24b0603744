"""Where vertices lie, for benchmarks that must run where no surfaces are installed."""

from __future__ import annotations

import numpy as np


def coordinates(vertices: int) -> np.ndarray:
    """Vertices spread evenly over two spheres of radius 100 mm, side by side as hemispheres are. (V, 3), float32"""
    left = _sphere(vertices - vertices // 2)
    right = _sphere(vertices // 2) + (300, 0, 0)
    return np.concatenate([left, right]).astype(np.float32)


def _sphere(n: int) -> np.ndarray:
    """Points at equal steps of height, each a golden angle further round: (n, 3)."""
    height = 1 - (2 * np.arange(n) + 1) / max(n, 1)
    angle = np.pi * (3 - 5**0.5) * np.arange(n)
    radius = np.sqrt(1 - height**2)
    return 100 * np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)
