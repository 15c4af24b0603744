"""The simulated subject: photographs, tokens of a real network, and a known ground truth for training to recover.

It is not a brain. Its responses are FactorTopy's own forward pass over the tokens, in the gauge of the model, plus
noise: it tests whether training recovers the ground truth, and says nothing about brains. See `make_sample`.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.backbones import Backbone, load_backbone
from brainkit.cortex.vertices import SPACES
from brainkit.data.photographs import (
    TEST_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    crop_of,
    cut_into_tiles,
    load_photographs,
    random_crop,
)
from brainkit.errors import BrainkitError, UsageError
from brainkit.features.cache import TokenCache
from brainkit.features.extract import extract_tokens
from brainkit.metrics.ceilings import noise_ceiling_from_repetitions
from brainkit.sample_layouts import WRITERS
from brainkit.sample_layouts.simulated import VERSION, Simulated
from brainkit.sample_truth import SPACE, Patch, draw_truth, occipital_patch, plant_signal, smooth_field
from brainkit.training.threads import limit_threads
from brainkit.utils.files import atomic_write, cache_folder
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.system import cores

BACKBONE = "efficientnet_lite0"
IMAGE_SIZE = 256
IDENTIFIERS = 73_000  # numbers in file names, as in the Natural Scenes Dataset
REPETITIONS = 3


def make_sample(
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    images: int | None = None,
    test_images: int | None = None,
    vertices: int = 2400,
    backbone: str = BACKBONE,
    layout: str = "algonauts",
    say: Say = print,
) -> Path:
    """Write a simulated subject in the layout of Algonauts 2023, or of another data set.

    The images are random crops and flips of photographs in scikit-image, scikit-learn and matplotlib, split into
    training and test by source photograph. The four test photographs are cut into six tiles each, and a test image is
    a crop of one tile: a tile is a stimulus, so that there are enough of them for intervals over stimuli. The vertices
    are those of fsaverage5 closest to the two occipital poles.
    Locations are contralateral retinotopy; layer and scale increase from the pole; channel weights are partly smooth.
    Each image has three noisy repetitions; the noise ceiling is estimated from those of the test images.

    Parameters
    ----------
    directory : path-like
        Folder of the subject; must not exist. Its ``truth.npz`` has the ground truth.
    seed : int
        Of crops, ground truth and noise; the same seed gives the same bytes.
    images : int, optional
        Training images, at least 20; by default 900, and fewer in layouts whose trials are large.
    test_images : int, optional
        Test images, at least 20; by default 240 per 900 training images.
    vertices : int
        Vertices of both hemispheres together: even, 20 to 20,484.
    backbone : str
        The network whose tokens the responses are computed from, see :func:`brainkit.load_backbone`.
    layout : str
        A key of `brainkit.sample_layouts.WRITERS`.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        Folder of the subject.

    Raises
    ------
    UsageError
        If a number is out of range, the folder exists, or the network or the layout is unknown.
    MissingDependency
        If the packages of ``brainkit[train]`` are not installed.
    """
    folder = Path(directory)
    if layout not in WRITERS:
        raise UsageError(f"layout must be one of {', '.join(WRITERS)}, got {layout!r}")
    writer = WRITERS[layout]
    images = writer.images if images is None else images
    if test_images is None:
        test_images = max(20, round(images * writer.test_images / writer.images))
    if images < 20 or test_images < 20:
        raise UsageError(f"images must be at least 20, got {images} for training and {test_images} for test")
    if images + test_images > IDENTIFIERS:
        raise UsageError(
            f"images must be at most {IDENTIFIERS} for training and test together, got {images + test_images}"
        )
    if vertices % 2 or not 20 <= vertices <= 2 * SPACES[SPACE]:
        raise UsageError(f"vertices must be even and in 20..{2 * SPACES[SPACE]}, got {vertices}")
    if seed < 0:
        raise UsageError(f"seed must be 0 or greater, got {seed}")
    if folder.exists():
        raise UsageError(f"{folder}: exists already; give a new folder for the sample subject")
    writer.check()
    network = load_backbone(backbone)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with limit_threads(), atomic_write(folder) as temporary:
        say(f"sample subject: cropping {images} training and {test_images} test images")
        paths, ids, sources = _write_images(temporary / "pictures", seed, images, test_images)
        say(f"sample subject: extracting tokens with {backbone}")
        with progress_bar("tokens", "images") as advance:
            tokens = extract_tokens(network, paths, progress=lambda done: advance(done, len(paths)))
        say(f"sample subject: simulating responses of {vertices:,} vertices")
        patch = occipital_patch(vertices)
        measured = _simulate(tokens, patch, seed, images, network)
        subject = Simulated(
            seed=seed,
            backbone=backbone,
            images=tuple(paths),
            ids=ids,
            sources=sources,
            n_training=images,
            vertices=patch.vertices,
            coordinates=patch.coordinates,
            streams=_streams(patch),
            **measured,
        )
        writer.write(subject, temporary)
        shutil.rmtree(temporary / "pictures")
    return folder


def default_sample(say: Say = print) -> Path:
    """The sample subject with seed 0 in the user's cache folder, created on first use."""
    folder = cache_folder() / f"sample-subject-v{VERSION}"
    if not folder.is_dir():
        say("creating the sample subject, once (it is simulated, not a brain)")
        try:
            make_sample(folder, say=say)
        except BrainkitError:
            if not folder.is_dir():  # otherwise another process has just created it
                raise
    return folder


def _write_images(
    folder: Path, seed: int, images: int, test_images: int
) -> tuple[list[Path], npt.NDArray[np.int64], tuple[str, ...]]:
    """Write the images, training first; their paths, their ids, and the stimulus of each: a photograph or a tile."""
    folder.mkdir(parents=True)
    photographs = load_photographs()
    tiles = cut_into_tiles({name: photographs[name] for name in TEST_PHOTOGRAPHS})
    rng = np.random.default_rng((seed, 1))
    jobs: list[tuple[Path, Image.Image]] = []
    sources: list[str] = []
    # Identifiers as in the Natural Scenes Dataset, but not of its images.
    ids = np.sort(rng.choice(IDENTIFIERS, images + test_images, replace=False))
    rng.shuffle(ids)
    for row, number in enumerate(ids):
        if row < images:
            source, crop = random_crop(rng, photographs, TRAINING_PHOTOGRAPHS, IMAGE_SIZE)
        else:
            source = list(tiles)[(row - images) % len(tiles)]
            crop = crop_of(rng, tiles[source], IMAGE_SIZE)
        jobs.append((folder / f"nsd-{number:05d}.png", crop))
        sources.append(source)

    def save(job: tuple[Path, Image.Image]) -> None:
        job[1].save(job[0], compress_level=1)

    with ThreadPoolExecutor(min(8, cores())) as pool:
        list(pool.map(save, jobs))
    return [path for path, _ in jobs], ids, tuple(sources)


def _simulate(tokens: TokenCache, patch: Patch, seed: int, images: int, network: Backbone) -> dict[str, Any]:
    """Draw the ground truth and add noise: single trials, their means, ceilings and truth, as in `Simulated`."""
    rng = np.random.default_rng((seed, 2))
    training = np.arange(images)
    truth = draw_truth(rng, patch, len(tokens.layers))
    signal = plant_signal(rng, tokens, training, truth)
    signal = (signal - signal.mean(0)) / signal.std(0)

    # The noise ceiling varies over the cortex; the noise is set relative to the signal on the test images.
    field = smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
    field = (field - field.mean()) / field.std()
    sigmoid = 1 / (1 + np.exp(-(field + 0.6 * rng.standard_normal(len(field)) + 0.1)))
    true_ceiling = 0.05 + 0.75 * sigmoid
    noise = signal[images:].std(0) / np.sqrt(true_ceiling / (1 - true_ceiling) / REPETITIONS)
    trials = signal + rng.standard_normal((REPETITIONS, *signal.shape)).astype(np.float32) * noise
    trials = (trials - trials.mean((0, 1))) / trials.std((0, 1))
    ceiling = noise_ceiling_from_repetitions(trials[:, images:]).values.astype(np.float32)
    responses = trials.mean(0)
    responses = (responses - responses[:images].mean(0)) / responses[:images].std(0)
    return {
        "trials": trials,
        "responses": responses.astype(np.float32),
        "noise_ceiling": ceiling,
        "truth": {
            "layer_weights": truth["layer_weights"].astype(np.float32),
            "locations": truth["locations"].astype(np.float32),
            "scale": truth["scale"].astype(np.float32),
            "noise_ceiling": ceiling,
            "vertices": patch.vertices.ids,
            "space": np.array(SPACE),
            "layers": np.array(tokens.layers),
            "backbone": np.array(network.name),
            "weights_hash": np.array(network.weights_hash),
        },
    }


def _streams(patch: Patch) -> np.ndarray:
    """Index of each vertex in `STREAMS`, from 1: by distance from the pole, then by direction. (V,) int32"""
    angle = np.degrees(np.arctan2(patch.dorsal, -patch.medial))  # 0 lateral, 90 dorsal, -90 ventral
    direction = np.where(angle > 30, 2, np.where(angle < -30, 0, 1))  # ventral, lateral, parietal
    index = np.where(patch.distance < 0.35, 1, np.where(patch.distance < 0.65, 2 + direction, 5 + direction))
    return index.astype(np.int32)
