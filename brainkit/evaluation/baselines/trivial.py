"""The mean training response, whatever the image: what a model has to beat at all."""

from __future__ import annotations

import numpy as np

from brainkit.evaluation.baselines.problem import Problem, Result


def mean_response(problem: Problem) -> Result:
    """Predict the mean training response. It has no correlation; R2 is 0 at most."""
    return Result(np.tile(problem.mean, (len(problem.split.test), 1)), len(problem.mean))
