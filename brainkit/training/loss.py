"""The loss: how far predictions are from responses, for one process or for several that share a batch.

To add a loss, add a branch to `misfit` here and its name to ``TrainConfig.loss`` in :mod:`brainkit.config`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from brainkit.config import TrainConfig
from brainkit.training.shares import Share

# Sums a tensor over the processes that share a batch; gradients pass through.
SumOverProcesses = Callable[[Tensor], Tensor]


def misfit(
    config: TrainConfig,
    prediction: Tensor,
    target: Tensor,
    share: Share | None = None,
    all_reduce: SumOverProcesses | None = None,
) -> tuple[Tensor, Tensor]:
    """How far predictions are from the responses, both in units of each vertex's own s.d.

    Parameters
    ----------
    config : TrainConfig
        Names the loss.
    prediction, target : Tensor
        This process's images of a batch, (B, V).
    share : Share, optional
        This process's part of the batch; by default all of it.
    all_reduce : callable, optional
        The sum over processes; None if this process has the whole batch.

    Returns
    -------
    minimised : Tensor
        Scalar whose mean over processes is the loss of the whole batch.
    reported : Tensor
        Scalar loss of this process's images, for the log.
    """
    over_batch = False  # whether `found` already covers the images of all processes
    if config.loss == "mse":
        found = F.mse_loss(prediction, target)
    elif config.loss == "smooth_l1":
        found = F.smooth_l1_loss(prediction, target, beta=config.smooth_l1_beta)
    elif all_reduce is None:
        found = 1 - correlation(prediction, target).mean()
    else:
        # Not a mean over images. The gradient of the sum over processes is their number times too large for a
        # process's own predictions, which the mean of the processes' gradients undoes.
        counted = 1.0 if share is None or share.images else 0.0
        found, over_batch = 1 - _shared_correlation(prediction, target, counted, all_reduce).mean(), True
    weight = 1.0 if share is None or over_batch else share.weight
    return (found if weight == 1 else found * weight), found


def leaves_gain_open(config: TrainConfig) -> bool:
    """Whether the loss leaves each vertex's gain and offset open, so that they are calibrated after training."""
    return config.loss == "pearson"


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Correlation over the batch about the training mean, which is 0 here: sum p t / sqrt(sum p^2 sum t^2). (V,)

    Not about the batch's own mean: the mean of a few images is noise, the training mean is known. So an offset of the
    predictions costs, and is learned, while their gain is free: :mod:`brainkit.training.calibration` sets it later.
    """
    return F.cosine_similarity(prediction, target, dim=0)


def _shared_correlation(prediction: Tensor, target: Tensor, counted: float, all_reduce: SumOverProcesses) -> Tensor:
    """`correlation` from sums over the images of all processes. (V,)"""
    sums = torch.stack([(prediction * target).sum(0), prediction.square().sum(0), target.square().sum(0)])
    product, square, square_target = all_reduce(counted * sums)
    # Bounded as torch.nn.functional.cosine_similarity bounds it.
    return product / (square.clamp(min=1e-16).sqrt() * square_target.clamp(min=1e-16).sqrt())
