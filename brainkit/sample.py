"""The simulated subject: photographs, tokens of a real network, and a known ground truth for training to recover.

It is not a brain. Its responses are FactorTopy's own forward pass over the tokens, in the gauge of the model, plus
noise: it tests whether training recovers the ground truth, and says nothing about brains. See `make_sample`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from brainkit.backbones import Backbone, load_backbone
from brainkit.cortex.surface import mesh, sphere_coordinates
from brainkit.cortex.vertices import SPACES, Vertices
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
from brainkit.ops import grouped
from brainkit.training.threads import limit_threads
from brainkit.utils.files import atomic_write, cache_folder, write_json
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.system import cores

SPACE = "fsaverage5"
BACKBONE = "efficientnet_lite0"
NOTE = "SIMULATED subject: planted truth, not a brain"
IMAGE_SIZE = 256
IDENTIFIERS = 73_000  # numbers in file names, as in the Natural Scenes Dataset
REPETITIONS = 3
CHANNELS = 16  # of the true readout
DEPTH_SPREAD = 0.45  # s.d. of the true layer weights, in layers
SCALE_RANGE = (0.05, 0.7)
SMOOTH_SHARE = 0.7  # of the variance of the channel weights; the rest is independent between vertices
_VERSION = 3

STREAMS = ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal")


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
    truth = _ground_truth(rng, patch, len(tokens.layers))
    signal = _signal(rng, tokens, training, truth)
    signal = (signal - signal.mean(0)) / signal.std(0)

    # The noise ceiling varies over the cortex; the noise is set relative to the signal on the test images.
    field = _smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
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


def _ground_truth(rng: np.random.Generator, patch: Patch, n_layers: int) -> dict[str, np.ndarray]:
    """Selectors and channel weights that are smooth on the cortex."""
    variation = _smooth_field(rng, patch.coordinates, 2, 60.0)
    depth = (n_layers - 1) * np.clip(patch.distance**0.8 + 0.06 * variation[:, 0], 0, 1)
    layer_weights = np.exp(-0.5 * ((np.arange(n_layers) - depth[:, None]) / DEPTH_SPREAD) ** 2)
    low, high = SCALE_RANGE
    shrink = 1 - 0.3 * patch.distance
    x = patch.side * (0.08 + 0.67 * (patch.medial + 1) / 2) * shrink
    y = 0.8 * patch.dorsal * shrink  # dorsal cortex sees the lower visual field
    weight = np.sqrt(SMOOTH_SHARE) * _smooth_field(rng, patch.coordinates, CHANNELS, 45.0)
    weight = weight + np.sqrt(1 - SMOOTH_SHARE) * rng.standard_normal(weight.shape)
    return {
        "layer_weights": layer_weights / layer_weights.sum(1, keepdims=True),
        "locations": np.stack([x, y], 1),
        "scale": low + (high - low) * np.clip(patch.distance**1.2 + 0.06 * variation[:, 1], 0, 1),
        "weight": weight,
    }


def _signal(
    rng: np.random.Generator, tokens: TokenCache, training: np.ndarray, truth: dict[str, np.ndarray]
) -> np.ndarray:
    """FactorTopy's forward pass over the tokens, through true bottlenecks at unit RMS. (n, V)"""
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


def _smooth_field(rng: np.random.Generator, coordinates: np.ndarray, count: int, length: float) -> np.ndarray:
    """Random fields of unit variance, smooth over `length` mm: random Fourier features. (V, count)"""
    frequencies = rng.standard_normal((3, 64)) / length
    phases = rng.uniform(0, 2 * np.pi, 64)
    waves = np.cos(coordinates @ frequencies + phases)
    return np.asarray(waves @ rng.standard_normal((64, count)) * np.sqrt(2 / 64))


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
