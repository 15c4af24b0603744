"""The Gabor pyramid: which filter answers to which grating, and that it answers to energy and not to phase."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from brainkit.evaluation.baselines.gabor import CYCLES, GRID, ORIENTATIONS, SIDE, gabor_energy


def grating(cycles: float, angle: float, phase: float = 0.0) -> np.ndarray:
    y, x = np.meshgrid(*2 * [(np.arange(SIDE) + 0.5) / SIDE], indexing="ij")
    return 0.5 + 0.4 * np.cos(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def energy(image: np.ndarray) -> np.ndarray:
    """By scale, orientation, row and column."""
    return gabor_energy(image).reshape(len(CYCLES), ORIENTATIONS, GRID, GRID)


@pytest.mark.parametrize("scale", range(1, len(CYCLES)))
@pytest.mark.parametrize("orientation", [0, 3, 6])
def test_a_grating_drives_the_filter_of_its_scale_and_orientation(scale: int, orientation: int) -> None:
    found = energy(grating(CYCLES[scale], np.pi * orientation / ORIENTATIONS))[:, :, 4:12, 4:12].mean((2, 3))
    assert np.unravel_index(found.argmax(), found.shape) == (scale, orientation)


def test_energy_does_not_depend_on_the_phase() -> None:
    first, second = (energy(grating(16, 0.0, phase))[3, 0, 4:12, 4:12] for phase in (0.0, np.pi / 2))
    np.testing.assert_allclose(first, second, rtol=0.05)


def test_energy_is_local_and_blind_to_brightness() -> None:
    image = np.full((SIDE, SIDE), 0.5)
    image[:, : SIDE // 2] = grating(16, 0.0)[:, : SIDE // 2]
    found = energy(image)[3, 0]
    assert found[:, :6].min() > 20 * found[:, 11:].max()
    np.testing.assert_allclose(energy(image + 0.2), energy(image), atol=1e-6)
    assert energy(np.full((SIDE, SIDE), 0.7)).max() < 1e-6
