"""What channels of an encoder's tokens show in photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainkit.errors import ImageError
from brainkit.images import Preprocessing
from brainkit.predict.encoder import Encoder
from brainkit.predict.inputs.decode import prepare_into

_DARK, _LIGHT = 2.0, 98.0  # percentiles of a component that become 0 and 1


def read_tokens(encoder: Encoder, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The local tokens that vertices read, and the images as the network sees them.

    Parameters
    ----------
    encoder : Encoder
    images : sequence of n paths, PIL images or uint8 arrays

    Returns
    -------
    tokens : array of shape (n, L, D, H, W), float32
    prepared : array of shape (n, S, S, 3), uint8

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    info = encoder.info
    prepared = np.stack([_prepare(image, info.preprocessing) for image in images])
    size = encoder.batch_size_for(None)
    parts = [encoder.tokens(prepared[start : start + size]) for start in range(0, len(prepared), size)]
    tokens = np.concatenate(parts)[..., :-1]  # the last is the global token
    return tokens.reshape(*tokens.shape[:3], *info.grid), prepared


def mix_layers(tokens: np.ndarray, layer_weights: np.ndarray) -> np.ndarray:
    """Tokens (n, L, D, H, W) as vertices with the layer weights (v, L) read them on average: (n, D, H, W)."""
    return np.einsum("nldhw,l->ndhw", tokens, np.asarray(layer_weights, np.float64).mean(axis=0))


def principal_channels(weights: np.ndarray, count: int = 3) -> np.ndarray:
    """The directions in channels that the readout weights of some vertices share most.

    Principal components about zero, not about the mean, which is the first thing that the vertices have in common.

    Parameters
    ----------
    weights : array of shape (v, D)

    Returns
    -------
    array of shape (count, D)
        Orthonormal, the strongest first; zeros where there are fewer. Their signs are such that the weights' sum along
        each is positive.
    """
    weights = np.asarray(weights, np.float64)
    values, vectors = np.linalg.eigh(weights.T @ weights)
    found = np.zeros((count, weights.shape[1]))
    strongest = np.argsort(values)[::-1][:count]
    strongest = strongest[values[strongest] > 1e-12 * max(values.max(), 1e-300)]
    found[: len(strongest)] = vectors[:, strongest].T
    signs = np.sign((weights @ found.T).sum(axis=0))
    return found * np.where(signs == 0, 1, signs)[:, None]


def channel_pictures(mixed: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Three directions in channels as red, green and blue, on one scale for all images.

    Parameters
    ----------
    mixed : array of shape (n, D, H, W)
        Tokens, see `mix_layers`.
    channels : array of shape (3, D)
        See `principal_channels`.

    Returns
    -------
    array of shape (n, H, W, 3)
        In [0, 1]: 0 and 1 are the 2nd and 98th percentile over all images; 0.5 where there is no difference.
    """
    values = np.einsum("cd,ndhw->nhwc", channels, mixed)
    low, high = np.percentile(values, (_DARK, _LIGHT), axis=(0, 1, 2))
    span = high - low
    level = (values - low) / np.where(span > 0, span, 1)
    return np.where(span > 0, np.clip(level, 0, 1), 0.5)


def response_pictures(mixed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How much each place of each image drives vertices with these weights, on average, apart from their location.

    Parameters
    ----------
    mixed : array of shape (n, D, H, W)
    weights : array of shape (v, D)

    Returns
    -------
    array of shape (n, H, W)
        In [0, 1]: 0 at the 25th percentile over all images and below it, 1 at the 98th and above.
    """
    values = np.einsum("d,ndhw->nhw", np.asarray(weights, np.float64).mean(axis=0), mixed)
    low, high = np.percentile(values, (25.0, _LIGHT))
    return np.clip((values - low) / (high - low if high > low else 1), 0, 1)


def _prepare(image: Any, preprocessing: Preprocessing) -> np.ndarray:
    row = np.empty((preprocessing.size, preprocessing.size, 3), np.uint8)
    if (error := prepare_into(row, image, preprocessing).error) is not None:
        raise ImageError(f"{image}: {error.reason}", reason=error.reason, missing=error.missing)
    return row
