"""What training minimises, and how its parts change over the steps of a run."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from brainkit.config import TrainConfig


def misfit(config: TrainConfig, prediction: Tensor, target: Tensor) -> Tensor:
    """How far predictions (B, V) lie from the responses, both in units of each vertex's own s.d.; a scalar."""
    if config.loss == "mse":
        return F.mse_loss(prediction, target)
    if config.loss == "pearson":
        return 1 - correlation(prediction, target).mean()
    return F.smooth_l1_loss(prediction, target, beta=config.smooth_l1_beta)


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Correlation over the batch about the training mean, which is 0 here: sum p t / sqrt(sum p^2 sum t^2). (V,)

    Not about the batch's own mean: the mean of a few images is noise, the training mean is known. So an offset of the
    predictions costs, and is learnt, while their gain is free; :mod:`brainkit.training.calibration` sets it in the end.
    """
    return F.cosine_similarity(prediction, target, dim=0)


def regulariser_weight(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Weight of the regulariser before step number `step` (from 0): it falls linearly to 0 at its end."""
    end = config.regulariser_steps or config.regulariser_end * planned_steps
    return config.regulariser * max(0.0, 1 - step / end)


def rate(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Factor of all learning rates at step number `step` (from 0): linear warm-up, then the schedule."""
    warmup = min(1.0, (step + 1) / (config.warmup * planned_steps + 1))
    done = min(step / planned_steps, 1.0)
    if config.schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * done))
    return warmup * (1 - done if config.schedule == "linear" else 1.0)
