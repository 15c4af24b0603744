"""Simulated worlds: their receptive fields, energies, areas and noise are what the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("nilearn")

from PIL import Image

from bench import world_simulation, worlds
from brainkit.sample import occipital_patch


def test_pooling_is_a_gaussian_around_the_centre() -> None:
    centre, size = np.array([[0.3, -0.4], [0.0, 0.0]]), np.array([0.1, 0.2])
    weights = world_simulation.gaussian_pooling(centre, size, 64).reshape(64, 64, 2)  # rows are y
    position = (np.arange(64) + 0.5) / 32 - 1
    np.testing.assert_allclose(weights.sum((0, 1)), 1, rtol=1e-5)
    x, y = weights.sum(0).T @ position, weights.sum(1).T @ position
    np.testing.assert_allclose(np.stack([x, y], 1), centre, atol=1e-3)
    spread = np.sqrt(weights.sum(0).T @ position**2 - x**2)
    np.testing.assert_allclose(spread, size, rtol=0.02)


def test_energies_know_frequency_orientation_and_place(tmp_path: Path) -> None:
    frequency, turn = 2, 1  # the third frequency, at 45 degrees
    angle = turn * np.pi / world_simulation.ORIENTATIONS
    y, x = np.mgrid[:96, :96] / 96
    phase = 2 * np.pi * world_simulation.FREQUENCIES[frequency] * (x * np.cos(angle) + y * np.sin(angle))
    grating = 128 + 100 * np.cos(phase) * (x < 0.5)  # in the left half alone
    Image.fromarray(grating.astype(np.uint8)).save(tmp_path / "grating.png")
    energies = world_simulation.gabor_energies([tmp_path / "grating.png"])[0].astype(np.float32)
    assert energies.mean((1, 2)).argmax() == frequency * world_simulation.ORIENTATIONS + turn
    strongest = energies[frequency * world_simulation.ORIENTATIONS + turn]
    assert strongest[:, :12].mean() > 10 * strongest[:, 20:].mean()


def test_areas_are_rings_and_scatter_is_what_the_kind_says() -> None:
    patch = occipital_patch(world_simulation.VERTICES)
    for kind in world_simulation.KINDS.values():
        truth = world_simulation.ground_truth(np.random.default_rng(0), patch, kind)
        shares = np.bincount(truth["area"], minlength=3) / len(truth["area"])
        assert (shares > 0.25).all()
        assert patch.distance[truth["area"] == 0].max() < patch.distance[truth["area"] == 2].min()
        for area, expected in enumerate(kind.centre_scatter):
            found = (truth["centre"] - truth["smooth_centre"])[truth["area"] == area].std()
            assert found == pytest.approx(expected, rel=0.2)
        x, side = truth["smooth_centre"][:, 0], patch.side
        assert (x * side > 0).mean() > 0.85  # contralateral


def test_the_noise_ceiling_is_what_the_noise_allows() -> None:
    patch = occipital_patch(200)
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((world_simulation.TRAINING + 20_000, 200)).astype(np.float32)
    responses, ceiling = world_simulation.add_noise(rng, patch, signal)
    test = slice(world_simulation.TRAINING, None)
    reached = np.array([np.corrcoef(signal[test, v], responses[test, v])[0, 1] ** 2 for v in range(200)])
    np.testing.assert_allclose(reached, ceiling, atol=0.02)
    assert 0.05 < np.median(ceiling) < 0.8


def test_paired_differences_have_the_interval_of_the_t_distribution() -> None:
    def row(value: float) -> dict:
        return {"explained": {"all": value}}

    rows = {str(k): {"default": row(0.5 + 0.01 * k), "other": row(0.5)} for k in (1, 2, 3)}
    rows["unfinished"] = {"default": row(0.9)}
    found = worlds.paired(rows, "default", "other", "explained", "all")
    assert (found["n"], found["won"]) == (3, 3)
    assert found["difference"] == pytest.approx(0.02)
    assert found["high"] - found["difference"] == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)


def test_results_are_computed_once(tmp_path: Path) -> None:
    results = worlds.Results(tmp_path / "results.json")
    results.fill("near-0", ["default"], lambda: {"default": {"seconds": 1.0}})
    results.fill("near-0", ["default"], lambda: pytest.fail("computed again"))
    results.fill("near-0", ["other"], lambda: {"other": {"seconds": 2.0}})
    assert set(results.rows["near-0"]) == {"default", "other"}
