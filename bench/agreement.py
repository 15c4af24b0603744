"""Every metric against the same number from another library, for `bench.validation`: the largest differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.evaluation.evaluate import evaluate
from brainkit.evaluation.hierarchy import fit_line
from brainkit.metrics import (
    StreamingCorrelation,
    compare,
    false_discovery_rate,
    noise_ceiling_from_split_halves,
    noise_ceiling_from_trials,
    official_score,
)
from brainkit.metrics.resampling import bootstrap_weights, interval, jackknife_weights, weighted_correlations

EXAMPLE_R = (0.60, 0.30, -0.20, 0.70, float("nan"), 0.10)
EXAMPLE_CEILING = (0.60, 0.30, 0.10, 0.40, 0.50, float("nan"))


@dataclass(frozen=True)
class Agreement:
    """A metric, the function it is compared with, the largest absolute difference, and what is allowed."""

    metric: str
    other: str
    difference: float
    allowed: float
    note: str = ""


def agreements() -> list[Agreement]:
    """All comparisons, on random data with a large offset: 200 images, 50 vertices."""
    rng = np.random.default_rng(51)
    signal = rng.standard_normal((200, 50))
    predictions = 3 + 0.8 * signal + rng.standard_normal((200, 50))
    responses = 100 + signal + rng.standard_normal((200, 50))
    return [
        *_accuracy(predictions, responses),
        *_ceilings(rng),
        *_statistics(rng, predictions, responses),
        *_official(rng),
    ]


def official_by_hand(r: Any, ceiling: Any) -> list[float]:
    """The score of the Algonauts 2023 challenge, vertex by vertex, as its rules say: in percent."""
    found = []
    for correlation, noise_ceiling in zip(r, ceiling, strict=True):
        if not noise_ceiling > 0:
            continue
        correlation = 0.0 if np.isnan(correlation) or correlation < 0 else correlation
        found.append(min(100 * correlation**2 / noise_ceiling, 100.0))
    return found


def _accuracy(predictions: np.ndarray, responses: np.ndarray) -> list[Agreement]:
    import torch
    from himalaya.scoring import correlation_score
    from himalaya.scoring import r2_score as himalaya_r2
    from scipy.stats import pearsonr
    from sklearn.metrics import r2_score
    from torchmetrics import PearsonCorrCoef, R2Score

    streamed = StreamingCorrelation(predictions.shape[1])
    for rows in np.array_split(np.arange(len(predictions)), 7):
        streamed.update(predictions[rows], responses[rows])
    columns = range(predictions.shape[1])
    p, y = (torch.from_numpy(each) for each in (predictions, responses))
    pearson = PearsonCorrCoef(num_outputs=len(columns)).set_dtype(torch.float64)
    of_r2 = R2Score(multioutput="raw_values").set_dtype(torch.float64)
    evaluated = evaluate(predictions, responses, bootstrap=0, permutations=0)
    pearsons = [pearsonr(predictions[:, v], responses[:, v]).statistic for v in columns]
    sklearns = r2_score(responses, predictions, multioutput="raw_values")
    batches, uncentred = "streamed in batches", "streamed in batches; theirs has sums of squares about 0"
    return [
        _row("r", "scipy.stats.pearsonr", streamed.r, pearsons, 1e-12, batches),
        _row("r", "himalaya correlation_score", streamed.r, correlation_score(responses, predictions), 1e-9, batches),
        _row("r", "torchmetrics.PearsonCorrCoef", streamed.r, pearson(p, y).numpy(), 1e-9, batches),
        _row("r", "scipy.stats.pearsonr", evaluated.r, pearsons, 1e-12, "evaluate"),
        _row("R2", "sklearn.metrics.r2_score", streamed.R2, sklearns, 1e-10, batches),
        _row("R2", "himalaya r2_score", streamed.R2, himalaya_r2(responses, predictions), 1e-9, batches),
        _row("R2", "torchmetrics.R2Score", streamed.R2, of_r2(p, y).numpy(), 1e-6, uncentred),
        _row("R2", "sklearn.metrics.r2_score", evaluated.R2, sklearns, 1e-10, "evaluate"),
    ]


def _ceilings(rng: np.random.Generator) -> list[Agreement]:
    from scipy.stats import f_oneway, pearsonr

    images, repeats = np.repeat(np.arange(100), 4), 4
    trials = rng.standard_normal((100, 20))[images] + rng.standard_normal((400, 20)) + 50
    by_image = trials.reshape(100, repeats, 20)
    between = f_oneway(*by_image, axis=0).statistic
    two = by_image[:, :2].swapaxes(0, 1)
    halves = np.array([pearsonr(*two[:, :, v]).statistic for v in range(20)])
    # Which of an image's two trials is in which half is random, so r differs a little from split to split.
    of_halves = noise_ceiling_from_split_halves(two, splits=400)
    one_way, by_f = noise_ceiling_from_trials(trials, images), np.maximum(1 - 1 / between, 0)
    corrected = 2 * halves / (1 + halves)
    return [
        _row("noise ceiling, one-way, means of 4", "1 - 1/F, scipy.stats.f_oneway", one_way, by_f, 1e-9),
        _row(
            "noise ceiling, split halves of 2",
            "2r / (1 + r), scipy's r",
            of_halves,
            corrected,
            0.05,
            "other random splits",
        ),
    ]


def _statistics(rng: np.random.Generator, predictions: np.ndarray, responses: np.ndarray) -> list[Agreement]:
    from scipy.stats import false_discovery_control, linregress, ttest_ind

    p = rng.uniform(size=500) ** 2
    a, b = rng.standard_normal((30, 40)), 0.3 + 2 * rng.standard_normal((25, 40))
    welch = compare(a.mean(0), a.var(0, ddof=1), len(a), b.mean(0), b.var(0, ddof=1), len(b))
    scipys = ttest_ind(a, b, equal_var=False)
    x, depth = np.repeat(np.arange(5.0), 30), rng.standard_normal((3, 150)) + 0.2 * np.repeat(np.arange(5.0), 30)
    line = fit_line(x, depth)
    lines = [linregress(x, each) for each in depth]
    weights = bootstrap_weights(np.arange(200), 50, seed=0)
    weighted = weighted_correlations(predictions, responses, weights)
    by_rows = np.array(
        [
            [np.corrcoef(np.repeat(predictions[:, v], row), np.repeat(responses[:, v], row))[0, 1] for v in range(50)]
            for row in weights.astype(int)
        ]
    )

    of_lines = [[each.slope for each in lines], [each.intercept for each in lines], [each.rvalue for each in lines]]
    tested, by_scipy = _permutation_p(rng)
    return [
        _row("q", "scipy.stats.false_discovery_control", false_discovery_rate(p), false_discovery_control(p), 1e-12),
        _row("t (Welch)", "scipy.stats.ttest_ind", welch.t, scipys.statistic, 1e-9),
        _row("p of t (Welch)", "scipy.stats.ttest_ind", welch.p, scipys.pvalue, 1e-9),
        _row("slope, intercept, r of a line", "scipy.stats.linregress", line, of_lines, 1e-10),
        _row("r in bootstrap samples", "numpy.corrcoef of the resampled rows", weighted, by_rows, 1e-5, "float32"),
        _row("permutation p", "scipy.stats.permutation_test", tested, by_scipy, 0.02, "other random permutations"),
        _bca_of_mean(rng),
    ]


def _permutation_p(rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """p of six weak correlations, ours and SciPy's, over 9,999 permutations."""
    from scipy.stats import permutation_test

    predictions = rng.standard_normal((60, 6))
    responses = 0.15 * predictions + rng.standard_normal((60, 6))
    found = []
    for p, y in zip(predictions.T, (responses - responses.mean(0)).T, strict=True):
        test = permutation_test(
            (p,),
            lambda each, y=y, axis=-1: (each * y).sum(axis),  # r orders permutations as this does
            permutation_type="pairings",
            n_resamples=9999,
            alternative="greater",
            vectorized=True,
            rng=1,
        )
        found.append(float(test.pvalue))
    return evaluate(predictions, responses, bootstrap=0, permutations=9999).p, found


def _bca_of_mean(rng: np.random.Generator) -> Agreement:
    """The mean of 80 skewed numbers; ours at the level at which Hesterberg's widening gives plain 95 %."""
    from scipy.stats import bootstrap, norm, t

    data, count = rng.exponential(size=80), 80
    plain = norm.ppf(0.975) / np.sqrt(count / (count - 1))
    codes = np.arange(count)
    weights = bootstrap_weights(codes, 20000, seed=1), jackknife_weights(codes)
    draws, left_out = ((each @ data / each.sum(1))[:, None] for each in weights)
    low, high, _ = interval(draws, [data.mean()], left_out, 2 * t.cdf(plain, count - 1) - 1)
    theirs = bootstrap((data,), np.mean, n_resamples=20000, method="BCa", rng=2).confidence_interval
    ends = np.array([low[0], high[0]])
    note = "in widths of the interval; without the widening of small samples"
    return _row(
        "BCa interval of a mean", "scipy.stats.bootstrap", ends / np.ptp(ends), theirs / np.ptp(ends), 0.05, note
    )


def _official(rng: np.random.Generator) -> list[Agreement]:
    r, ceiling = rng.uniform(-0.3, 0.9, 500), rng.uniform(-0.1, 1, 500).clip(0)
    score, by_hand = official_score(r, ceiling), official_by_hand(r, ceiling)
    return [
        _row("official score, mean", "the challenge's rules in a loop", [score.mean], [np.mean(by_hand)], 1e-9),
        _row("official score, median", "the challenge's rules in a loop", [score.median], [np.median(by_hand)], 1e-9),
    ]


def _row(metric: str, other: str, ours: Any, theirs: Any, allowed: float, note: str = "") -> Agreement:
    difference = float(np.max(np.abs(np.asarray(ours, float) - np.asarray(theirs, float))))
    return Agreement(metric, other, difference, allowed, note)
