"""Noise ceilings, by hand and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics.ceilings import noise_ceiling_from_ncsnr, noise_ceiling_from_repetitions
from brainkit.metrics.correlation import StreamingCorrelation


def test_ncsnr_formula_and_its_ends() -> None:
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([1.0, 2.0], (5, 0, 0)), [1 / (1 + 1 / 3), 4 / (4 + 1 / 3)])
    noise = (100 / 3 + 50 / 2 + 20) / 170
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([0.7], (100, 50, 20)), 0.49 / (0.49 + noise))
    got = noise_ceiling_from_ncsnr([0.0, np.inf, np.nan], (1, 1, 1))
    assert got[0] == 0
    assert got[1] == 1
    assert np.isnan(got[2])
    for counts in [(0, 0, 0), (-1, 2, 3), (1, 2), "abc"]:
        with pytest.raises(UsageError, match="counts"):
            noise_ceiling_from_ncsnr([1.0], counts)
    with pytest.raises(UsageError, match="negative"):
        noise_ceiling_from_ncsnr([-1.0], (1, 1, 1))


def test_ceiling_from_repetitions_is_what_the_true_signal_reaches() -> None:
    random = np.random.default_rng(0)
    repetitions, images, deviations = 3, 20000, np.array([0.2, 0.5, 1.0, 2.0])
    signal = random.normal(size=(images, 4)) * deviations
    trials = signal + random.normal(size=(repetitions, images, 4)) + 1e4
    ceiling = noise_ceiling_from_repetitions(trials)
    np.testing.assert_allclose(ceiling, noise_ceiling_from_ncsnr(deviations, (images, 0, 0)), atol=0.02)
    score = StreamingCorrelation(4)
    score.update(signal, trials.mean(0))
    np.testing.assert_allclose(ceiling, score.r**2, atol=0.02)


def test_ceiling_from_repetitions_at_its_ends() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=50)
    trials = np.stack([np.full((2, 50), 0.1), np.stack([image, image]), random.normal(size=(2, 50))], -1)
    constant, noiseless, noise = noise_ceiling_from_repetitions(trials)
    assert constant == 0
    assert noiseless == 1
    assert 0 <= noise < 0.5
    trials[0, 0, 0] = np.nan
    assert np.isnan(noise_ceiling_from_repetitions(trials)[0])
    with pytest.raises(UsageError, match="repetitions >= 2"):
        noise_ceiling_from_repetitions(trials[:1])
