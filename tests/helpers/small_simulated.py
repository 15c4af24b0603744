"""A simulated subject without a network: random responses, as the writers of sample layouts take it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import Vertices
from brainkit.sample_layouts.simulated import STREAMS, Simulated

REPETITIONS = 3


def small_simulated(folder: Path, images: int = 40, test_images: int = 12, vertices: int = 42) -> Simulated:
    """Of `images` training images; `folder` gets the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    count, half = images + test_images, vertices // 2
    ids = rng.permutation(np.sort(rng.choice(70_000, count, replace=False)))
    paths = []
    for number in ids:
        path = folder / f"nsd-{number:05d}.png"
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((256, 256)).save(path, compress_level=1)
        paths.append(path)
    left = np.sort(rng.choice(10_000, half, replace=False))
    of = Vertices("fsaverage5", np.concatenate([left, 10_242 + left]))
    signal = rng.standard_normal((count, vertices)) * np.linspace(0.5, 2, vertices)
    trials = signal + rng.standard_normal((REPETITIONS, count, vertices))
    trials = (trials - trials.mean((0, 1))) / trials.std((0, 1))
    return Simulated(
        seed=0,
        backbone="none",
        images=tuple(paths),
        ids=ids,
        sources=tuple(f"photograph {row // 2}" for row in range(count)),
        n_training=images,
        vertices=of,
        coordinates=sphere_coordinates(of),
        streams=np.arange(vertices, dtype=np.int32) % len(STREAMS) + 1,
        trials=trials.astype(np.float32),
        responses=trials.mean(0).astype(np.float32),
        noise_ceiling=np.linspace(0.1, 0.9, vertices, dtype=np.float32),
        truth={"scale": np.linspace(0, 1, vertices, dtype=np.float32), "vertices": of.ids, "space": np.array("x")},
    )
