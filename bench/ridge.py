"""The regressions of `brainkit baselines` on sample subjects and worlds in memory."""

from __future__ import annotations

import numpy as np

from bench.fitting import Sample
from brainkit.data.split import Split
from brainkit.evaluation.baselines.catalog import Workplace, compute_all
from brainkit.evaluation.baselines.problem import Problem
from brainkit.evaluation.scores import Scores
from brainkit.metrics.correlation import StreamingCorrelation

# Name of the baseline -> what tables call it.
TITLES = {
    "ridge-global": "ridge, global tokens of all layers",
    "best-layer": "ridge, each vertex's best layer",
    "ridge-all": "ridge, all tokens",
    "banded": "banded ridge, a band for each layer's local and global tokens",
    "stacked": "stacked ridge of the layers",
    "pca-ols": "principal components of all tokens, least squares",
}


def baselines(sample: Sample, split: Split) -> dict[str, tuple[Scores, float]]:
    """Scores on the test images and CPU seconds, for each way to use the tokens."""
    found = {}
    for name, (predicted, seconds) in predictions(sample, split).items():
        streamed = StreamingCorrelation(predicted.shape[1])
        streamed.update(predicted, sample.responses.rows(split.test))
        scores = Scores(np.asarray(streamed.r), np.asarray(streamed.R2), sample.ceiling, len(split.test))
        found[name] = scores, seconds
    return found


def predictions(sample: Sample, split: Split) -> dict[str, tuple[np.ndarray, float]]:
    """Predictions (n, V) of the test images and CPU seconds, for each way to use the tokens."""
    problem = Problem(sample.tokens, [], sample.responses, sample.subject.groups, split)
    found = compute_all(TITLES, Workplace(problem))
    return {title: (found[name][0].predictions, found[name][1]) for name, title in TITLES.items()}
