"""The ground truth of the simulated subject: its vertices, what they select, and their responses without noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from brainkit.cortex.surface import mesh, sphere_coordinates
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.features.cache import TokenCache
from brainkit.ops import grouped

SPACE = "fsaverage5"
CHANNELS = 16  # of the true readout
DEPTH_SPREAD = 0.45  # s.d. of the true layer weights, in layers
SCALE_RANGE = (0.05, 0.7)
SMOOTH_SHARE = 0.7  # of the variance of the channel weights; the rest is independent between vertices


@dataclass(frozen=True)
class Patch:
    """The simulated vertices of both hemispheres, around the occipital pole.

    ``distance`` is 0 at the pole and 1 at the edge; ``medial`` and ``dorsal`` are its components in two directions;
    ``side`` is +1 in the left hemisphere, which sees the right visual field, and -1 in the right.
    """

    vertices: Vertices
    coordinates: np.ndarray  # (V, 3) mm
    distance: np.ndarray
    medial: np.ndarray
    dorsal: np.ndarray
    side: np.ndarray


def occipital_patch(vertices: int) -> Patch:
    """The fsaverage5 vertices closest to the occipital poles, half of them in each hemisphere."""
    ids, layouts = [], []
    for index, hemisphere in enumerate(("left", "right")):
        sphere, _ = mesh(SPACE, hemisphere, "sphere")
        sphere = sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
        # The pole is the most posterior point of the cortex.
        pole = sphere[mesh(SPACE, hemisphere, "pial")[0][:, 1].argmin()]
        angle = np.arccos(np.clip(sphere @ pole, -1, 1))
        nearest = np.sort(np.argsort(angle, kind="stable")[: vertices // 2])
        up = np.array([0.0, 0.0, 1.0])
        up = up - pole * (up @ pole)
        up /= np.linalg.norm(up)
        across = np.cross(up, pole)
        if across[0] * (1 if hemisphere == "left" else -1) < 0:
            across = -across  # towards the midline: to the right in the left hemisphere
        offset = sphere[nearest] - pole
        flat = np.stack([offset @ across, offset @ up], 1)
        distance = angle[nearest] / angle[nearest].max()
        flat *= (distance / np.maximum(np.linalg.norm(flat, axis=1), 1e-9))[:, None]
        ids.append(nearest + index * SPACES[SPACE])
        side = np.full(len(nearest), 1.0 if hemisphere == "left" else -1.0)
        layouts.append(np.column_stack([distance, flat, side]))
    occipital = Vertices(SPACE, np.concatenate(ids).astype(np.int32))
    return Patch(occipital, sphere_coordinates(occipital), *np.concatenate(layouts).T)


def draw_truth(rng: np.random.Generator, patch: Patch, n_layers: int) -> dict[str, np.ndarray]:
    """Draw selectors and channel weights that are smooth on the cortex.

    Parameters
    ----------
    rng : Generator
    patch : Patch
        Of V vertices.
    n_layers : int
        L.

    Returns
    -------
    dict
        ``layer_weights`` (V, L), rows summing to 1; ``locations`` (V, 2), x and y in [-1, 1]; ``scale`` (V,) in
        [0, 1]; ``weight`` (V, CHANNELS).
    """
    variation = smooth_field(rng, patch.coordinates, 2, 60.0)
    depth = (n_layers - 1) * np.clip(patch.distance**0.8 + 0.06 * variation[:, 0], 0, 1)
    layer_weights = np.exp(-0.5 * ((np.arange(n_layers) - depth[:, None]) / DEPTH_SPREAD) ** 2)
    low, high = SCALE_RANGE
    shrink = 1 - 0.3 * patch.distance
    x = patch.side * (0.08 + 0.67 * (patch.medial + 1) / 2) * shrink
    y = 0.8 * patch.dorsal * shrink  # dorsal cortex sees the lower visual field
    weight = np.sqrt(SMOOTH_SHARE) * smooth_field(rng, patch.coordinates, CHANNELS, 45.0)
    weight = weight + np.sqrt(1 - SMOOTH_SHARE) * rng.standard_normal(weight.shape)
    return {
        "layer_weights": layer_weights / layer_weights.sum(1, keepdims=True),
        "locations": np.stack([x, y], 1),
        "scale": low + (high - low) * np.clip(patch.distance**1.2 + 0.06 * variation[:, 1], 0, 1),
        "weight": weight,
    }


def plant_signal(
    rng: np.random.Generator, tokens: TokenCache, training: np.ndarray, truth: dict[str, np.ndarray]
) -> np.ndarray:
    """Compute the responses without noise: FactorTopy's forward pass over the tokens, through bottlenecks at unit RMS.

    Parameters
    ----------
    rng : Generator
        Draws the bottlenecks.
    tokens : TokenCache
        Of n images.
    training : int array
        The images over whose tokens the RMS is taken.
    truth : dict
        From `draw_truth`.

    Returns
    -------
    array of shape (n, V), float32
    """
    maps = [_true_bottleneck(rng, tokens, layer, training) for layer in tokens.layers]
    arrays = [torch.from_numpy(truth[name]).float() for name in ("locations", "layer_weights", "scale", "weight")]
    arrays.append(torch.zeros(len(arrays[0])))  # no bias
    signal = []
    for start in range(0, len(tokens), 128):
        local, global_ = tokens.batch(np.arange(start, min(start + 128, len(tokens))))
        local_tokens, global_tokens = [], []
        for layer, ((weight, bias), (global_weight, global_bias)) in zip(tokens.layers, maps, strict=True):
            flat = weight @ local[layer].flatten(2) + bias[:, None]
            local_tokens.append(flat.unflatten(2, tokens.grid))
            global_tokens.append(global_[layer] @ global_weight.T + global_bias)
        stacked = torch.stack(local_tokens, 1), torch.stack(global_tokens, 1)
        signal.append(grouped.forward(*stacked, *arrays).numpy())
    return np.concatenate(signal)


def _true_bottleneck(
    rng: np.random.Generator, tokens: TokenCache, layer: str, training: np.ndarray
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Affine maps of a layer's local and global tokens to the true channels.

    A random rotation of the first principal components, whitened and weighted by rank ** -0.5, each channel at unit
    RMS over the training tokens: the gauge in which layer weights and scale can be compared.
    """
    width = tokens.widths[layer]
    keep = min(width, 2 * CHANNELS)
    rotation, _ = np.linalg.qr(rng.standard_normal((keep, keep)))
    maps = []
    for part in tokens.layer(layer, training):  # local, global
        rows = np.moveaxis(part.numpy(), 1, -1).reshape(-1, width).astype(np.float64)
        mean, std = rows.mean(0), rows.std(0) + 1e-6
        values, vectors = np.linalg.eigh(np.cov(((rows - mean) / std).T, bias=True))
        order = np.argsort(values)[::-1][:keep]
        basis = vectors[:, order]
        # The sign of an eigenvector is arbitrary: the largest entry of each is set positive.
        basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(keep)])
        # With few images some directions have no variance, and whitening would amplify rounding errors.
        spread = np.sqrt(np.maximum(values[order], 1e-6 * values[order[0]]))
        whitened = basis / spread * np.arange(1, keep + 1) ** -0.5
        weight = (whitened @ rotation[:, : min(CHANNELS, keep)]) / std[:, None]  # (C, D)
        weight = weight / ((rows - mean) @ weight).std(0)
        maps.append((torch.from_numpy(weight.T).float(), torch.from_numpy(-(weight.T @ mean)).float()))
    return maps


def smooth_field(rng: np.random.Generator, coordinates: np.ndarray, count: int, length: float) -> np.ndarray:
    """Draw random fields of unit variance that are smooth over `length` mm, by random Fourier features.

    Parameters
    ----------
    rng : Generator
    coordinates : array of shape (V, 3)
        In mm.
    count : int
        Number of fields.
    length : float

    Returns
    -------
    array of shape (V, count)
    """
    frequencies = rng.standard_normal((3, 64)) / length
    phases = rng.uniform(0, 2 * np.pi, 64)
    waves = np.cos(coordinates @ frequencies + phases)
    return np.asarray(waves @ rng.standard_normal((64, count)) * np.sqrt(2 / 64))
