"""What is done to the readout after training: gain and offset for a loss that leaves them open, or a refit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brainkit.config import TrainConfig
from brainkit.model.checkpoint import read_checkpoint
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.checkpoint import AtomicCheckpoints
from brainkit.training.datamodule import EncodingData, ResponseSource, TokenSource
from brainkit.training.loss import leaves_gain_open
from brainkit.training.module import EncodingModule
from brainkit.training.refit import refit


@torch.no_grad()
def calibrate(
    model: FactorTopy, tokens: TokenSource, responses: ResponseSource, rows: np.ndarray, *, batch_size: int = 64
) -> None:
    """Bring predictions to the responses' units: for each vertex the least-squares gain and offset over some images.

    They are folded into the model's ``weight`` and ``bias``. A vertex whose predictions do not vary gets gain 0, one
    whose predictions are anticorrelated with the responses a negative gain.

    Parameters
    ----------
    model : FactorTopy
        Changed in place; put in evaluation mode.
    tokens, responses
        See :class:`brainkit.training.datamodule.EncodingData`.
    rows : int array
        The training images.
    batch_size : int
        Images that are predicted at a time.
    """
    model.eval()
    device = model.weight.device
    selectors = model.selectors()
    sums = np.zeros((4, len(model.weight)))  # of p, t, p^2 and p t
    for start in range(0, len(rows), batch_size):
        chosen = np.sort(rows[start : start + batch_size])
        local, whole = ({layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(chosen))
        prediction = model.standardised(local, whole, selectors).cpu().double().numpy()
        response = responses.rows(chosen)
        target = (response - model.response_mean.cpu().numpy()) / model.response_std.cpu().numpy()
        sums += np.stack([prediction.sum(0), target.sum(0), np.square(prediction).sum(0), (prediction * target).sum(0)])
    mean, mean_target, square, product = sums / len(rows)
    variance = square - mean**2
    varies = variance > 1e-12 * square
    gain = np.where(varies, (product - mean * mean_target) / np.where(varies, variance, 1.0), 0.0)
    offset = mean_target - gain * mean
    scale, shift = (torch.from_numpy(values).to(model.weight) for values in (gain, offset))
    model.weight.mul_(scale[:, None])
    model.bias.mul_(scale).add_(shift)


def finish(
    config: TrainConfig,
    model: FactorTopy,
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    validation: np.ndarray | None = None,
    prior: Tensor | None = None,
) -> None:
    """Refit or calibrate a trained model, if the settings ask for it; parameters as for :func:`refit`."""
    if config.refit:
        refit(model, tokens, responses, rows, validation, prior=prior)
    elif leaves_gain_open(config):
        calibrate(model, tokens, responses, rows)


def finish_checkpoint(module: EncodingModule, checkpoint: Path, data: EncodingData, device: str) -> None:
    """Refit or calibrate a checkpoint's model on the training images, unless that is done; `module` gets its weights.

    Nothing is done if the settings need neither.
    """
    if not (module.config.refit or leaves_gain_open(module.config)):
        return
    state = read_checkpoint(checkpoint)
    module.load_state_dict(state["state_dict"])
    if state.get("calibrated"):
        return
    module.to(device)
    for k, (model, part) in enumerate(module.parts(data)):
        prior = module.priors[k] if module.priors else None
        finish(module.config, model, part.tokens, part.responses, part.split.train, part.split.validation, prior)
    module.cpu()
    AtomicCheckpoints().save_checkpoint(state | {"state_dict": module.state_dict(), "calibrated": True}, checkpoint)
