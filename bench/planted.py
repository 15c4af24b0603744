"""Many crops with their tokens, and subjects planted in them, in memory: for `bench.validation`.

Tokens are extracted once. A subject is a draw of selectors, channel weights and noise, as `brainkit.sample` makes them,
so that the number of images, of vertices and the noise can be varied without running the network again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.fitting import Responses, Sample
from brainkit import sample
from brainkit.backbones import load_backbone
from brainkit.data import make_split
from brainkit.data.photographs import TEST_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, load_photographs, random_crop
from brainkit.data.split import Split
from brainkit.features.cache import TokenCache
from brainkit.features.extract import extract_tokens
from brainkit.sample_truth import draw_truth, occipital_patch, plant_signal, smooth_field
from brainkit.utils.files import atomic_write, read_json, write_json

_SIZE = 224  # of a crop: what the network sees
_GAUGE = 900  # images over which the true channels are brought to unit RMS


@dataclass(frozen=True)
class Pool:
    """Images (training first, then test), the photograph that each shows, their tokens; how many are for training."""

    folder: Path
    images: list[Path]
    groups: list[str]
    tokens: TokenCache
    training: int

    def split(self, seed: int, images: int) -> Split:
        """The split of `brainkit train` on the first `images` training images and all test images."""
        test = np.arange(len(self.images)) >= self.training
        whole = make_split(self.groups, test, seed, names=[path.name for path in self.images])
        kept = {side: rows[rows < images] for side, rows in (("train", whole.train), ("validation", whole.validation))}
        return replace(whole, **kept)


def load_pool(folder: Path, training: int, *, total: int = 10_000, test: int = 240, seed: int = 301) -> Pool:
    """The first training images of a pool, and its test images.

    Crops (all) and tokens (of these images) are made on first use, about 25 images a second and core.
    """
    path = folder / f"pool-{seed}-{total}"
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            _write_crops(temporary, seed, total, test)
    shown = read_json(path / "stimuli.json")
    names = sorted(shown)
    images = [path / name for name in names[:training] + names[total:]]
    tokens = extract_tokens(load_backbone(sample.BACKBONE), images, cache=folder / "tokens")
    return Pool(path, images, [shown[image.name] for image in images], tokens, training)


def _write_crops(folder: Path, seed: int, training: int, test: int) -> None:
    folder.mkdir()
    rng, photographs, shown = np.random.default_rng(seed), load_photographs(), {}
    for row in range(training + test):
        names = TRAINING_PHOTOGRAPHS if row < training else TEST_PHOTOGRAPHS
        photograph, crop = random_crop(rng, photographs, names, _SIZE)
        name = f"{row:05d}.png"
        crop.save(folder / name, compress_level=1)
        shown[name] = photograph
    write_json(folder / "stimuli.json", shown)


def plant(pool: Pool, seed: int, *, vertices: int, share: float = 1.0) -> Sample:
    """A subject of all images of the pool; `share` multiplies every noise ceiling, which is exact."""
    rng = np.random.default_rng((seed, 31))
    patch = occipital_patch(vertices)
    truth: dict[str, Any] = draw_truth(rng, patch, len(pool.tokens.layers))
    signal = plant_signal(rng, pool.tokens, np.arange(min(_GAUGE, pool.training)), truth)
    signal = (signal - signal.mean(0)) / signal[pool.training :].std(0)
    field = smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
    field = (field - field.mean()) / field.std() + 0.6 * rng.standard_normal(len(field)) + 0.1
    ceiling = share * (0.05 + 0.75 / (1 + np.exp(-field)))
    responses = signal + rng.standard_normal(signal.shape, np.float32) * np.sqrt(1 / ceiling - 1)
    subject: Any = SimpleNamespace(root=pool.folder, coordinates=patch.coordinates)
    return Sample(subject, pool.tokens, Responses(responses.astype(np.float32)), ceiling, truth)


def recovery(planted: Sample, trained: Any, usable: np.ndarray) -> dict[str, float]:
    """The rows of `recovery.json` over some vertices (a mask)."""
    found, truth = trained.selectors(), planted.truth
    depth = truth["layer_weights"] @ np.arange(truth["layer_weights"].shape[1])
    away = np.linalg.norm(found["location"] - truth["locations"], axis=1)
    share = np.maximum(np.nan_to_num(trained.scores.r), 0) ** 2 / planted.ceiling
    return {
        "depth_r": float(np.corrcoef(found["depth"][usable], depth[usable])[0, 1]),
        "depth_within_one": float((np.abs(found["depth"] - depth)[usable] <= 1).mean()),
        "location_median": float(np.median(away[usable])),
        "scale_r": float(np.corrcoef(found["scale"][usable], truth["scale"][usable])[0, 1]),
        "accuracy_share": float(np.median(share[usable])),
    }
