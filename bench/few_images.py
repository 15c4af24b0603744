"""A new subject from few images: transfer against training from scratch: ``python -m bench.few_images``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.fitting import Responses, Sample
from bench.planted import Pool
from brainkit.sample_truth import DEPTH_SPREAD, draw_truth, occipital_patch, plant_signal, smooth_field

SHIFT = 0.1
KEPT = 0.5


def subjects(pool: Pool, seed: int, vertices: int) -> dict[str, Sample]:
    patch = occipital_patch(vertices)
    layers = len(pool.tokens.layers)
    rng = np.random.default_rng((seed, 41))
    old = draw_truth(rng, patch, layers)
    move = smooth_field(rng, patch.coordinates, 4, 40.0)
    depth = old["layer_weights"] @ np.arange(layers)
    own = draw_truth(rng, patch, layers)
    related = {
        "layer_weights": at_depth(depth + 0.3 * move[:, 0], layers),
        "locations": np.clip(old["locations"] + SHIFT * move[:, 1:3], -0.95, 0.95),
        "scale": np.clip(old["scale"] + 0.05 * move[:, 3], 0, 1),
        "weight": np.sqrt(KEPT) * old["weight"] + np.sqrt(1 - KEPT) * own["weight"],
    }
    free = smooth_field(rng, patch.coordinates, 4, 40.0)
    unrelated = {
        "layer_weights": at_depth((layers - 1) / (1 + np.exp(-1.5 * free[:, 0])), layers),
        "locations": 0.8 * np.tanh(free[:, 1:3]),
        "scale": 0.05 + 0.65 / (1 + np.exp(-1.5 * free[:, 3])),
        "weight": own["weight"],
    }
    made = {}
    for k, (name, truth, features) in enumerate(
        (("old", old, 0), ("related", related, 0), ("unrelated", unrelated, 0), ("other features", unrelated, 1))
    ):
        made[name] = respond(
            pool, patch, truth, np.random.default_rng((seed, 42, features)), np.random.default_rng((seed, 43, k))
        )
    return made


def respond(pool, patch, truth, features, rng) -> Sample:
    signal = plant_signal(features, pool.tokens, np.arange(900), truth)
    signal = (signal - signal.mean(0)) / signal[pool.training :].std(0)
    field = smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
    field = (field - field.mean()) / field.std() + 0.6 * rng.standard_normal(len(field)) + 0.1
    ceiling = 0.05 + 0.75 / (1 + np.exp(-field))
    responses = signal + rng.standard_normal(signal.shape, np.float32) * np.sqrt(1 / ceiling - 1)
    subject: Any = SimpleNamespace(root=pool.folder, coordinates=patch.coordinates)
    return Sample(subject, pool.tokens, Responses(responses.astype(np.float32)), ceiling, truth)


def at_depth(depth, layers):
    weights = np.exp(-0.5 * ((np.arange(layers) - np.clip(depth, 0, layers - 1)[:, None]) / DEPTH_SPREAD) ** 2)
    return weights / weights.sum(1, keepdims=True)
