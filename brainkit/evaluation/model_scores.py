"""Predictions of a model for images whose tokens are known, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from brainkit.evaluation.scores import Scores
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.ensemble import Ensemble
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import ResponseSource, TokenSource


def score(
    model: FactorTopy | Ensemble,
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    noise_ceiling: np.ndarray | None,
    *,
    batch_size: int = 64,
    keep: Callable[[np.ndarray], None] | None = None,
) -> Scores:
    """Compare predictions with the responses to some images, in one pass that holds nothing of shape (n, V).

    Parameters
    ----------
    model : FactorTopy or Ensemble
        Put in evaluation mode.
    tokens, responses
        Of all images.
    rows : int array
        The images to score on, increasing.
    noise_ceiling : array of shape (V,) or None
    batch_size : int
        Images predicted at a time.
    keep : callable, optional
        Called with the predictions (k, V) of each batch, in order.
    """
    streamed = StreamingCorrelation(len(model.weight))
    for batch, predictions in predict_rows(model, tokens, rows, batch_size=batch_size):
        streamed.update(predictions, responses.rows(batch))
        if keep is not None:
            keep(predictions)
    ceiling = np.full(len(model.weight), np.nan) if noise_ceiling is None else np.asarray(noise_ceiling, float)
    return Scores(np.asarray(streamed.r), np.asarray(streamed.R2), ceiling, len(rows))


def predict_rows(
    model: FactorTopy | Ensemble, tokens: TokenSource, rows: np.ndarray, *, batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predict some images from their tokens, a batch at a time.

    Yields
    ------
    rows : int array of shape (k,)
        Of the batch, increasing.
    predictions : array of shape (k, V), float32
    """
    device = model.weight.device
    model.eval()
    for start in range(0, len(rows), batch_size):
        batch = np.sort(rows[start : start + batch_size])
        with torch.inference_mode():
            local_tokens, global_tokens = (
                {layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(batch)
            )
            predictions = model(local_tokens, global_tokens).cpu().numpy()
        yield batch, predictions
