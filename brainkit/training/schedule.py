"""What changes from step to step: the learning rates and the weight of the regulariser."""

from __future__ import annotations

import math

from brainkit.config import TrainConfig


def learning_rate_factor(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Factor of all learning rates at step number `step` (from 0): linear warm-up, then the schedule."""
    warmup = min(1.0, (step + 1) / (config.warmup * planned_steps + 1))
    done = min(step / planned_steps, 1.0)
    if config.schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * done))
    return warmup * (1 - done if config.schedule == "linear" else 1.0)


def regulariser_weight(config: TrainConfig, step: int, planned_steps: int) -> float:
    """Weight of the regulariser at step number `step` (from 0): it falls linearly to 0."""
    end = config.regulariser_steps or config.regulariser_end * planned_steps
    return config.regulariser * max(0.0, 1 - step / end)
