"""The simulated subject: photographs, tokens of a real network, and a known ground truth for training to recover.

It is not a brain. Its responses are FactorTopy's own forward pass over the tokens, in the gauge of the model, plus
noise: it tests whether training recovers the ground truth, and says nothing about brains. See `make_sample`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
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
from brainkit.sample_truth import SPACE, Patch, draw_truth, occipital_patch, plant_signal, smooth_field
from brainkit.training.threads import limit_threads
from brainkit.utils.files import atomic_write, cache_folder, write_json
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.system import cores

BACKBONE = "efficientnet_lite0"
NOTE = "SIMULATED subject: planted truth, not a brain"
IMAGE_SIZE = 256
IDENTIFIERS = 73_000  # numbers in file names, as in the Natural Scenes Dataset
REPETITIONS = 3
_VERSION = 3

STREAMS = ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal")


def make_sample(
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    images: int = 900,
    test_images: int | None = None,
    vertices: int = 2400,
    backbone: str = BACKBONE,
    say: Say = print,
) -> Path:
    """Write a simulated subject in the layout of Algonauts 2023.

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
    images : int
        Training images, at least 20.
    test_images : int, optional
        Test images, at least 20; by default 240 per 900 training images.
    vertices : int
        Vertices of both hemispheres together: even, 20 to 20,484.
    backbone : str
        The network whose tokens the responses are computed from, see :func:`brainkit.load_backbone`.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        Folder of the subject.

    Raises
    ------
    UsageError
        If a number is out of range, the folder exists, or the network is unknown.
    MissingDependency
        If the packages of ``brainkit[train]`` are not installed.
    """
    folder = Path(directory)
    if test_images is None:
        test_images = max(20, round(images * 240 / 900))
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
    network = load_backbone(backbone)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with limit_threads(), atomic_write(folder) as temporary:
        say(f"sample subject: cropping {images} training and {test_images} test images")
        paths, groups = _write_images(temporary, seed, images, test_images)
        say(f"sample subject: extracting tokens with {backbone}")
        with progress_bar("tokens", "images") as advance:
            tokens = extract_tokens(network, paths, progress=lambda done: advance(done, len(paths)))
        say(f"sample subject: simulating responses of {vertices:,} vertices")
        _simulate(temporary, tokens, occipital_patch(vertices), seed, images, network)
        write_json(temporary / "stimuli.json", groups)
        _write_notes(temporary, seed, backbone)
    return folder


def default_sample(say: Say = print) -> Path:
    """The sample subject with seed 0 in the user's cache folder, created on first use."""
    folder = cache_folder() / f"sample-subject-v{_VERSION}"
    if not folder.is_dir():
        say("creating the sample subject, once (it is simulated, not a brain)")
        try:
            make_sample(folder, say=say)
        except BrainkitError:
            if not folder.is_dir():  # otherwise another process has just created it
                raise
    return folder


def _write_images(folder: Path, seed: int, images: int, test_images: int) -> tuple[list[Path], dict[str, str]]:
    """Write the images; their paths, and the stimulus of each file name: a photograph or a tile of one."""
    photographs = load_photographs()
    tiles = cut_into_tiles({name: photographs[name] for name in TEST_PHOTOGRAPHS})
    rng = np.random.default_rng((seed, 1))
    jobs: list[tuple[Path, Image.Image]] = []
    groups: dict[str, str] = {}
    total = images + test_images
    # Identifiers as in the Natural Scenes Dataset, but not of its images.
    numbers = np.sort(rng.choice(IDENTIFIERS, total, replace=False))
    rng.shuffle(numbers)
    for split, count, start in (("train", images, 0), ("test", test_images, images)):
        kind = "training" if split == "train" else "test"
        images_folder = folder / f"{kind}_split" / f"{kind}_images"
        images_folder.mkdir(parents=True)
        for row in range(count):
            if split == "train":
                source, crop = random_crop(rng, photographs, TRAINING_PHOTOGRAPHS, IMAGE_SIZE)
            else:
                source = list(tiles)[row % len(tiles)]
                crop = crop_of(rng, tiles[source], IMAGE_SIZE)
            name = f"{split}-{row + 1:04d}_nsd-{numbers[start + row]:05d}.png"
            jobs.append((images_folder / name, crop))
            groups[name] = source

    def save(job: tuple[Path, Image.Image]) -> None:
        job[1].save(job[0], compress_level=1)

    with ThreadPoolExecutor(min(8, cores())) as pool:
        list(pool.map(save, jobs))
    return [path for path, _ in jobs], groups


def _simulate(folder: Path, tokens: TokenCache, patch: Patch, seed: int, images: int, network: Backbone) -> None:
    """Draw the ground truth, add noise, and write responses, masks, ROIs, ceilings and ``truth.npz``."""
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

    _write_subject(folder, patch, responses.astype(np.float32), ceiling, images)
    with atomic_write(folder / "truth.npz") as temporary:
        np.savez(
            temporary,
            layer_weights=truth["layer_weights"].astype(np.float32),
            locations=truth["locations"].astype(np.float32),
            scale=truth["scale"].astype(np.float32),
            noise_ceiling=ceiling,
            vertices=patch.vertices.ids,
            space=np.array(SPACE),
            layers=np.array(tokens.layers),
            backbone=np.array(network.name),
            weights_hash=np.array(network.weights_hash),
        )


def _streams(patch: Patch) -> np.ndarray:
    """Index of each vertex in `STREAMS`, from 1: by distance from the pole, then by direction. (V,) int32"""
    angle = np.degrees(np.arctan2(patch.dorsal, -patch.medial))  # 0 lateral, 90 dorsal, -90 ventral
    direction = np.where(angle > 30, 2, np.where(angle < -30, 0, 1))  # ventral, lateral, parietal
    index = np.where(patch.distance < 0.35, 1, np.where(patch.distance < 0.65, 2 + direction, 5 + direction))
    return index.astype(np.int32)


def _write_subject(folder: Path, patch: Patch, responses: np.ndarray, ceiling: np.ndarray, images: int) -> None:
    labels = _streams(patch)
    masks = folder / "roi_masks"
    masks.mkdir()
    for part in ("training_split/training_fmri", "test_split/test_fmri", "test_split/noise_ceiling"):
        (folder / part).mkdir(parents=True)
    n_left = patch.vertices.n_left
    for short, columns, local in (  # local: ids within the hemisphere
        ("lh", slice(0, n_left), patch.vertices.left),
        ("rh", slice(n_left, None), patch.vertices.right),
    ):
        mask = np.zeros(SPACES[SPACE], np.int32)
        mask[local] = 1
        on_surface = np.zeros(SPACES[SPACE], np.int32)
        on_surface[local] = labels[columns]
        np.save(masks / f"{short}.all-vertices_fsaverage_space.npy", mask)
        np.save(masks / f"{short}.streams_fsaverage_space.npy", on_surface)
        np.save(masks / f"{short}.streams_challenge_space.npy", labels[columns])
        np.save(folder / "training_split/training_fmri" / f"{short}_training_fmri.npy", responses[:images, columns])
        np.save(folder / "test_split/test_fmri" / f"{short}_test_fmri.npy", responses[images:, columns])
        np.save(folder / "test_split/noise_ceiling" / f"{short}_noise_ceiling.npy", ceiling[columns])
    names = dict(enumerate(("Unknown", *STREAMS)))
    np.save(masks / "mapping_streams.npy", np.array(names, dtype=object), allow_pickle=True)


def _write_notes(folder: Path, seed: int, backbone: str) -> None:
    write_json(folder / "simulated.json", {"note": NOTE, "seed": seed, "version": _VERSION})
    (folder / "SIMULATED.txt").write_text(
        "This subject is SIMULATED by brainkit. It is not a brain.\n\n"
        "The images are crops of photographs that scikit-image, scikit-learn and matplotlib ship. The responses are\n"
        f"computed from the tokens of {backbone} with a planted truth (truth.npz) and noise, so that one can see\n"
        "whether training finds again what was planted. It says nothing about people.\n",
        encoding="utf-8",
    )
