"""What training minimises, and how its parts change over the steps of a run."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from brainkit.config import TrainConfig

SMOOTH_L1_BETA = 0.1


def misfit(config: TrainConfig, prediction: Tensor, target: Tensor) -> Tensor:
    """How far predictions (B, V) lie from the responses, both in units of each vertex's own s.d.; a scalar."""
    if config.loss == "mse":
        return F.mse_loss(prediction, target)
    return F.smooth_l1_loss(prediction, target, beta=SMOOTH_L1_BETA)


def regulariser_weight(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Weight of the regulariser before step number `step` (from 0): it falls linearly to 0 at its share of the run."""
    return config.regulariser * max(0.0, 1 - step / (config.regulariser_end * planned_steps))


def rate(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Factor of all learning rates at step number `step` (from 0): linear warm-up, then a cosine fall to 0."""
    warmup = min(1.0, (step + 1) / (config.warmup * planned_steps + 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(step / planned_steps, 1.0)))
