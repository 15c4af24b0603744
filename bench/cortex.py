"""Coordinates of vertices, for benchmarks that must run without cortical surfaces installed."""

from __future__ import annotations

import numpy as np


def coordinates(vertices: int) -> np.ndarray:
    """Coordinates (V, 3), float32, of vertices spread evenly over two spheres of radius 100 mm side by side."""
    left = _sphere(vertices - vertices // 2)
    right = _sphere(vertices // 2) + (300, 0, 0)
    return np.concatenate([left, right]).astype(np.float32)


def _sphere(n: int) -> np.ndarray:
    """Points (n, 3) at equal steps of height, each turned by the golden angle."""
    height = 1 - (2 * np.arange(n) + 1) / max(n, 1)
    angle = np.pi * (3 - 5**0.5) * np.arange(n)
    radius = np.sqrt(1 - height**2)
    return 100 * np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)
