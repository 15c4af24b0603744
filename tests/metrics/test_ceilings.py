"""Noise ceilings: by hand, against simulation, and against another analysis of variance."""

from __future__ import annotations

import numpy as np
import pytest

from brainkit.errors import UsageError
from brainkit.metrics import (
    noise_ceiling_from_ncsnr,
    noise_ceiling_from_repetitions,
    noise_ceiling_from_split_halves,
    noise_ceiling_from_trials,
    spearman_brown,
)
from brainkit.metrics.variance_components import trial_variances

DEVIATIONS = np.array([0.3, 0.5, 1.0, 2.0])  # of the signal; the noise of a trial has 1
FORMULAS = ("anova", "nsd", "bmd", "nsd-synthetic")


def simulate(images, repeats, sessions=None, session_deviation=0.0, seed=0):
    """Trials (N, V) with their images and sessions, and the true responses (images, V)."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(images, 4)) * DEVIATIONS
    shown = np.repeat(np.arange(images), repeats)
    trials = truth[shown] + random.normal(size=(len(shown), 4)) + 1e4
    if sessions is None:
        return trials, shown, truth
    when = random.integers(0, sessions, len(shown))
    trials += session_deviation * random.normal(size=(sessions, 4))[when]
    return trials, shown, when


def image_means(trials, shown):
    return np.stack([trials[shown == image].mean(0) for image in range(shown.max() + 1)])


def test_ncsnr_formula_and_its_ends():
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([1.0, 2.0], (5, 0, 0)), [1 / (1 + 1 / 3), 4 / (4 + 1 / 3)])
    noise = (100 / 3 + 50 / 2 + 20) / 170
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([0.7], (100, 50, 20)), 0.49 / (0.49 + noise))
    got = noise_ceiling_from_ncsnr([0.0, np.inf, np.nan], (1, 1, 1))
    assert got[0] == 0
    assert got[1] == 1
    assert np.isnan(got[2])
    assert got.counts == {"vertices": 3, "without": 1, "no_signal": 1, "images": 3, "trials": 6}


def test_ncsnr_with_any_repetitions():
    # THINGS: averages of 1 and of 12; a mapping in any mixture
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([0.4], 12), 0.16 / (0.16 + 1 / 12))
    np.testing.assert_allclose(noise_ceiling_from_ncsnr([0.4], np.int64(1)), 0.16 / 1.16)
    mixed = noise_ceiling_from_ncsnr([0.4], {12: 100, 1: 720})
    np.testing.assert_allclose(mixed, 0.16 / (0.16 + (100 / 12 + 720) / 820))
    assert mixed.counts["trials"] == 1920
    np.testing.assert_allclose(
        noise_ceiling_from_ncsnr([0.4], {3: 7, 2: 5, 1: 2}), noise_ceiling_from_ncsnr([0.4], (7, 5, 2))
    )
    for counts in [(0, 0, 0), (-1, 2, 3), (1, 2), "abc", 0, {0: 5}, {3: -1}, {}, {2: np.inf}, None]:
        with pytest.raises(UsageError, match="counts"):
            noise_ceiling_from_ncsnr([1.0], counts)
    with pytest.raises(UsageError, match="negative"):
        noise_ceiling_from_ncsnr([-1.0], (1, 1, 1))


def test_ceiling_from_repetitions_is_what_the_true_signal_reaches():
    trials, _, truth = simulate(20000, 3)
    trials = trials.reshape(20000, 3, 4).swapaxes(0, 1)
    ceiling = noise_ceiling_from_repetitions(trials)
    np.testing.assert_allclose(ceiling, noise_ceiling_from_ncsnr(DEVIATIONS, 3), atol=0.02)
    reached = [np.corrcoef(truth[:, v], trials.mean(0)[:, v])[0, 1] ** 2 for v in range(4)]
    np.testing.assert_allclose(ceiling, reached, atol=0.02)


@pytest.mark.parametrize("formula", FORMULAS)
def test_unequal_repeats_give_what_the_true_signal_reaches(formula):
    repeats = np.random.default_rng(1).integers(1, 5, 6000)
    trials, shown, truth = simulate(6000, repeats)
    found = noise_ceiling_from_trials(trials, shown, formula=formula)
    means = image_means(trials, shown)
    reached = [np.corrcoef(truth[:, v], means[:, v])[0, 1] ** 2 for v in range(4)]
    np.testing.assert_allclose(found, reached, atol=0.03)
    np.testing.assert_allclose(found, noise_ceiling_from_ncsnr(DEVIATIONS, dict(_tally(repeats))), atol=0.03)
    assert found.counts["images"] == 6000
    assert found.counts["trials"] == repeats.sum()


def test_formulas_by_hand():
    trials, shown, _ = simulate(3, [1, 2, 3])
    one, two, three = (trials[shown == image] for image in range(3))
    within = [two.var(0, ddof=1), three.var(0, ddof=1)]
    share = (1 + 1 / 2 + 1 / 3) / 3

    def ceiling(total, noise):
        signal = np.maximum(total - noise, 0)
        return signal / (signal + noise * share)

    z = trials.std(0, ddof=1) ** 2  # z-scored variances are those over this
    by_formula = {
        "nsd": ceiling(1, (within[0] + within[1]) / 2 / z),
        "bmd": ceiling(trials.var(0), (within[0] + within[1]) / 2),
        "nsd-synthetic": ceiling(trials.var(0, ddof=1), (within[0] + 2 * within[1]) / 3),
    }
    noise = (within[0] + 2 * within[1]) / 3
    between = sum(len(each) * (each.mean(0) - trials.mean(0)) ** 2 for each in (one, two, three)) / 2
    signal = (between - noise) / ((6 - (1 + 4 + 9) / 6) / 2)
    by_formula["anova"] = ceiling(signal + noise, noise)
    for formula, expected in by_formula.items():
        np.testing.assert_allclose(noise_ceiling_from_trials(trials, shown, formula=formula), expected, atol=1e-7)


def test_equal_repeats_agree_with_repetitions():
    trials, shown, _ = simulate(50, 4)
    of_array = noise_ceiling_from_repetitions(trials.reshape(50, 4, 4).swapaxes(0, 1))
    of_trials = noise_ceiling_from_trials(trials, [f"image {label}" for label in shown], formula="nsd-synthetic")
    np.testing.assert_allclose(of_trials, of_array, atol=1e-9)
    assert of_trials.to_dict() == of_array.to_dict()


def test_two_way_leaves_out_what_sessions_add():
    repeats = np.random.default_rng(2).integers(1, 4, 3000)
    trials, shown, when = simulate(3000, repeats, sessions=12, session_deviation=1.5)
    truth = noise_ceiling_from_ncsnr(DEVIATIONS, dict(_tally(repeats)))
    np.testing.assert_allclose(noise_ceiling_from_trials(trials, shown, sessions=when), truth, atol=0.03)
    one_way = noise_ceiling_from_trials(trials, shown)
    assert (np.asarray(truth - one_way) > 0.1).all()
    assert one_way.formula != noise_ceiling_from_trials(trials, shown, sessions=when).formula


def test_two_way_is_the_least_squares_fit_of_images_and_sessions():
    """The same sums of squares from dense regressions on indicators."""
    trials, shown, when = simulate(12, np.r_[[1, 2, 3, 4] * 3], sessions=4, session_deviation=1.0)
    count = len(trials)

    def rest(*factors):
        design = np.column_stack([np.ones(count), *(np.eye(f.max() + 1)[f] for f in factors)])
        fitted = design @ np.linalg.lstsq(design, trials, rcond=None)[0]
        return ((trials - fitted) ** 2).sum(0), np.linalg.matrix_rank(design)

    both, rank_both = rest(shown, when)
    alone, rank_alone = rest(when)
    noise = both / (count - rank_both)
    projector = np.eye(count) - np.column_stack([np.eye(4)[when]]) @ np.linalg.pinv(np.eye(4)[when])
    members = np.eye(12)[shown]
    signal = (alone - both - (rank_both - rank_alone) * noise) / np.trace(members.T @ projector @ members)
    signal = np.maximum(signal, 0)
    share = (1 / np.bincount(shown)).mean()
    found = noise_ceiling_from_trials(trials, shown, sessions=when)
    np.testing.assert_allclose(found, signal / (signal + noise * share), atol=1e-6)


def test_anova_is_unbiased_where_images_are_few():
    random = np.random.default_rng(0)
    shown = np.repeat(np.arange(8), [1, 1, 2, 2, 3, 3, 4, 6])
    trials = 2 * random.normal(size=(8, 20000))[shown] + random.normal(size=(22, 20000))
    found = trial_variances(trials, shown, np.zeros_like(shown), "anova")
    for values, truth in ((found.signal, 4.0), (found.noise, 1.0)):
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(20000)


def test_counts_state_another_average_than_that_of_the_trials():
    trials, shown, _ = simulate(5000, 3)
    single = noise_ceiling_from_trials(trials, shown, counts=1)
    np.testing.assert_allclose(single, noise_ceiling_from_ncsnr(DEVIATIONS, 1), atol=0.03)


@pytest.mark.parametrize("repetitions", [2, 3, 6])
def test_split_halves_agree_with_the_variances(repetitions):
    trials, _, _ = simulate(5000, repetitions)
    trials = trials.reshape(5000, repetitions, 4).swapaxes(0, 1)
    found = noise_ceiling_from_split_halves(trials, splits=10)
    np.testing.assert_allclose(found, noise_ceiling_from_ncsnr(DEVIATIONS, repetitions), atol=0.03)
    again = noise_ceiling_from_split_halves(trials, splits=10)
    assert np.array_equal(found.values, again.values)


def test_spearman_brown_by_hand():
    np.testing.assert_allclose(spearman_brown([0.5, 0.0, 1.0, -0.4]), [2 / 3, 0, 1, -0.4])
    np.testing.assert_allclose(spearman_brown(0.25, 4), 1 / 1.75)
    assert np.isnan(spearman_brown(np.nan))


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_ceiling_is_nan_and_no_signal_is_zero_and_both_are_counted(formula):
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 2)
    image = np.repeat(random.normal(size=40), 2)
    alternating = np.tile([1.0, -1.0], 40)  # images differ less than chance: negative variance
    trials = np.stack([np.full(80, 0.1), image, alternating, random.normal(size=80)], -1)
    trials[3, 3] = np.nan
    found = noise_ceiling_from_trials(trials, images, formula=formula)
    assert np.isnan(found[[0, 3]]).all()
    assert found[1] == pytest.approx(1, abs=1e-9)
    assert found[2] == 0
    counts = found.counts
    assert (counts["without"], counts["no_signal"], counts["negative"]) == (2, 1, 1)
    repeated = trials.reshape(40, 2, 4).swapaxes(0, 1)
    for other in (noise_ceiling_from_repetitions(repeated), noise_ceiling_from_split_halves(repeated, splits=3)):
        np.testing.assert_allclose(other, [np.nan, 1, 0, np.nan], atol=1e-9)
        assert other.counts["negative"] == 1


def test_trials_that_tell_no_noise_are_refused():
    trials = np.random.default_rng(0).normal(size=(6, 2))
    for images in ([0, 1, 2, 3, 4, 5], [0] * 6, [0, 0, 1]):
        with pytest.raises(UsageError):
            noise_ceiling_from_trials(trials, images)
    with pytest.raises(UsageError, match="formula"):
        noise_ceiling_from_trials(trials, [0, 0, 1, 1, 2, 2], formula="best")
    with pytest.raises(UsageError, match="repetitions >= 2"):
        noise_ceiling_from_repetitions(trials[None])
    # every session shows one image: images and sessions cannot be told apart
    nested = noise_ceiling_from_trials(trials, [0, 0, 1, 1, 2, 2], sessions=[0, 0, 1, 1, 2, 2])
    assert np.isnan(nested).all()


def test_a_noise_ceiling_is_an_array_to_numpy():
    found = noise_ceiling_from_ncsnr([0.0, 1.0], 1)
    np.testing.assert_allclose(100 * found, [0, 50])
    assert (found > 0.3).tolist() == [False, True]
    assert np.asarray(found, np.float32).dtype == np.float32
    assert len(found) == 2


def _tally(repeats):
    return zip(*(part.tolist() for part in np.unique(repeats, return_counts=True)), strict=True)
