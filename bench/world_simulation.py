"""Simulated subjects whose responses are not FactorTopy's: Gabor energies and a second network, for `bench.worlds`.

Three areas on fsaverage5's sphere, in rings around the occipital pole:

early  energies of a Gabor pyramid, weighted by orientation and frequency, pooled by a Gaussian receptive field, then a
       compressive power
mid    two or three middle stages of EfficientNet-Lite2, pooled by a Gaussian receptive field
high   its last stages, pooled over the whole image

Centres, sizes and feature weights are a smooth map over the cortex plus scatter that is independent between vertices:
the scatter is a parameter of the world, and it is what a topographic model cannot follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from bench.fitting import Responses, Sample
from brainkit.backbones import load_backbone
from brainkit.data.photographs import load_photographs, random_crop
from brainkit.features.extract import extract_tokens
from brainkit.images import normalise, prepare
from brainkit.sample import BACKBONE, IMAGE_SIZE
from brainkit.sample_truth import Patch, occipital_patch, smooth_field
from brainkit.utils.files import atomic_write, read_json, write_json

SECOND_NETWORK = "efficientnet_lite2"
SECOND_SIZE, SECOND_GRID = 192, 12  # pixels; cells of a side at most
AREAS = ("early", "mid", "high")
EDGES = (0.0, 0.6, 0.84, 1.01)  # distance from the pole at which areas begin: about a third of the vertices each
VERTICES, TRAINING, TEST = 800, 900, 240
TEST_PHOTOGRAPHS = 4
# Photographs that may be tested on: textures and microscopy as the only test images would measure little else.
SCENES = ("astronaut", "coffee", "rocket", "motorcycle", "flower", "camera", "chelsea", "china", "hopper")
SCENE_CROPS, OTHER_CROPS = 100, 54  # of each photograph in the pool
FREQUENCIES = (3.0, 6.0, 12.0, 24.0)  # cycles per image
ORIENTATIONS = 4
STAGES = ("stage3", "stage4", "stage5", "stage6", "stage7")
REPETITIONS = 3


@dataclass(frozen=True)
class Kind:
    """A type of world.

    Attributes
    ----------
    centre_scatter : tuple of (float, float)
        S.d. of the scatter of receptive field centres in x and in y, early and mid; the image is 2 wide.
    size_scatter : float
        S.d. of the scatter of the logarithm of receptive field sizes.
    smooth_share : float
        Share of the variance of feature weights and depth that is smooth over the cortex; the rest is scatter.
    size : tuple of (float, float)
        Receptive field size (s.d. of the Gaussian) at the fovea and its growth per unit of eccentricity, early.
    mid_size : tuple of (float, float)
        The same, mid.
    mid, high : tuples of str
        Stages of the second network that an area mixes.
    exponent : float
        Of the compression of pooled energies.
    """

    centre_scatter: tuple[float, float]
    size_scatter: float
    smooth_share: float
    size: tuple[float, float]
    mid_size: tuple[float, float]
    mid: tuple[str, ...]
    high: tuple[str, ...]
    exponent: float


KINDS = {
    # Neighbours differ by less than a receptive field: about what is measured in early visual cortex.
    "near": Kind((0.05, 0.1), 0.2, 0.6, (0.06, 0.14), (0.15, 0.25), ("stage4", "stage5"), ("stage6", "stage7"), 0.5),
    # Neighbours differ by about a receptive field, and little of their tuning is shared.
    "far": Kind((0.15, 0.25), 0.45, 0.2, (0.1, 0.2), (0.2, 0.3), ("stage3", "stage5", "stage6"), ("stage7",), 1.0),
}


@dataclass(frozen=True)
class World(Sample):
    """A simulated subject in memory: `truth` has ``centre`` (V, 2), ``size`` (V,), ``area`` (V,) and more.

    ``signal`` (n, V) are the responses without noise; ``ceiling`` is exact, for the mean of the repetitions.
    """

    signal: np.ndarray
    name: str

    def of(self, area: str) -> np.ndarray:
        """Positions of an area's vertices; "all" is every vertex."""
        return np.flatnonzero((self.truth["area"] == AREAS.index(area)) if area in AREAS else self.ceiling > 0)


def load_world(seed: int, kind: str, *, folder: Path, grid: int = 8) -> World:
    """The world of a seed and kind; its files are made on first use, and the pool of images before the first world."""
    pool = make_pool(folder)
    path = folder / f"{kind}-{seed}.npz"
    if not path.is_file():
        simulate(path, pool, seed, kind)
    with np.load(path) as file:
        found = dict(file)
    groups = read_json(pool / "stimuli.json")
    images = [pool / "images" / name for name in np.array(list(groups))[found.pop("rows")]]
    subject = SimpleNamespace(
        root=path.with_suffix(f".{grid}"),
        images=images,
        groups=[groups[image.name] for image in images],
        official_test=np.arange(len(images)) >= TRAINING,
        coordinates=occipital_patch(VERTICES).coordinates,
    )
    tokens = extract_tokens(load_backbone(BACKBONE), images, grid=(grid, grid))
    responses, signal, ceiling = found.pop("responses"), found.pop("signal"), found.pop("noise_ceiling")
    return World(subject, tokens, Responses(responses), ceiling, found, signal, f"{kind}-{seed}")


def make_pool(folder: Path) -> Path:
    """The images that worlds draw from, with features of the two models: made once, in about five minutes."""
    pool = folder / "pool"
    if pool.is_dir():
        return pool
    folder.mkdir(parents=True, exist_ok=True)
    photographs = load_photographs()
    groups: dict[str, str] = {}
    with atomic_write(pool) as temporary:
        (temporary / "images").mkdir(parents=True)
        for k, source in enumerate(photographs):
            rng = np.random.default_rng((21, k))
            for _ in range(SCENE_CROPS if source in SCENES else OTHER_CROPS):
                name = f"{len(groups):05d}.png"
                crop = random_crop(rng, photographs, [source], IMAGE_SIZE)[1]
                crop.save(temporary / "images" / name, compress_level=1)
                groups[name] = source
        write_json(temporary / "stimuli.json", groups)
        images = [temporary / "images" / name for name in groups]
        np.save(temporary / "gabor.npy", gabor_energies(images))
        for stage, values in second_network(images).items():
            np.save(temporary / f"{stage}.npy", values)
    return pool


def simulate(path: Path, pool: Path, seed: int, kind: str) -> None:
    """Write a world: which photographs are in the test set alone, the truth, and the responses."""
    settings = KINDS[kind]
    rng = np.random.default_rng((seed, 22, list(KINDS).index(kind)))
    source = np.array(list(read_json(pool / "stimuli.json").values()))
    tested = rng.choice(SCENES, TEST_PHOTOGRAPHS, replace=False)
    parts = [rng.choice(np.flatnonzero(source == name), TEST // TEST_PHOTOGRAPHS, replace=False) for name in tested]
    training = rng.choice(np.flatnonzero(~np.isin(source, tested)), TRAINING, replace=False)
    rows = np.concatenate([np.sort(training), *map(np.sort, parts)])

    def features(name: str) -> np.ndarray:
        values = np.load(pool / f"{name}.npy", mmap_mode="r")[rows].astype(np.float32)
        mean, std = (getattr(values[:TRAINING], part)((0, 2, 3), keepdims=True) for part in ("mean", "std"))
        return values / std if name == "gabor" else (values - mean) / (std + 1e-6)

    patch = occipital_patch(VERTICES)
    truth = ground_truth(rng, patch, settings)
    signal = np.empty((len(rows), VERTICES), np.float32)
    for area, name in enumerate(AREAS):
        members = np.flatnonzero(truth["area"] == area)
        part = {key: value[members] for key, value in truth.items()}
        if name == "early":
            signal[:, members] = early_signal(rng, patch, members, features("gabor"), part, settings)
        else:
            signal[:, members] = stage_signal(rng, patch, members, features, part, settings, whole=name == "high")
    signal = (signal - signal[:TRAINING].mean(0)) / signal[:TRAINING].std(0)
    responses, ceiling = add_noise(rng, patch, signal)
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, rows=rows, responses=responses, signal=signal, noise_ceiling=ceiling, **truth)


def ground_truth(rng: np.random.Generator, patch: Patch, kind: Kind) -> dict[str, np.ndarray]:
    """Area, receptive field centre and size, and depth within the area's stages, of every vertex."""
    area = np.clip(np.searchsorted(EDGES, patch.distance, side="right") - 1, 0, 2)
    low, high = np.array(EDGES)[area], np.minimum(np.array(EDGES)[area + 1], 1.0)
    across = np.clip((patch.distance - low) / (high - low), 0, 1)
    # The fovea is where areas meet, so that the map turns back at a border.
    eccentricity = 0.05 + 0.85 * np.where(area == 1, 1 - across, across)
    # Contralateral: dorsal cortex sees the lower field.
    angle = np.arctan2(patch.dorsal, np.abs(patch.medial) + 1e-9)
    smooth = np.stack([patch.side * eccentricity * np.cos(angle), eccentricity * np.sin(angle)], 1)
    smooth = smooth + 0.05 * smooth_field(rng, patch.coordinates, 2, 40.0)
    scatter = np.array([*kind.centre_scatter, 0.0])[area]
    centre = np.clip(smooth + scatter[:, None] * rng.standard_normal(smooth.shape), -0.95, 0.95)
    base, growth = np.array([kind.size, kind.mid_size, (1.0, 0.0)])[area].T
    size = (base + growth * np.hypot(*smooth.T)) * np.exp(kind.size_scatter * rng.standard_normal(len(area)))
    field = mixed_field(rng, patch.coordinates, 1, 60.0, kind.smooth_share)[:, 0]
    depth = np.clip(across + 0.15 * field, 0, 1)
    return {"area": area, "centre": centre, "smooth_centre": smooth, "size": size, "depth": depth}


def mixed_field(rng: np.random.Generator, coordinates: np.ndarray, count: int, length: float, share: float):
    """Fields of unit variance, of which a share is smooth and the rest independent between vertices. (V, count)"""
    smooth = smooth_field(rng, coordinates, count, length)
    return np.sqrt(share) * smooth + np.sqrt(1 - share) * rng.standard_normal(smooth.shape)


def gaussian_pooling(centre: np.ndarray, size: np.ndarray, side: int) -> np.ndarray:
    """Weights (side * side, V) of Gaussian receptive fields over cells, rows first; each sums to 1."""
    position = (np.arange(side) + 0.5) / side * 2 - 1
    along = [np.exp(-0.5 * ((position[:, None] - centre[:, k]) / size) ** 2) for k in (0, 1)]  # x, y: (side, V)
    weights = (along[1][:, None] * along[0][None]).reshape(side * side, -1)
    return (weights / weights.sum(0)).astype(np.float32)


def gabor_energies(images: list[Path], side: int = 96, cells: int = 32) -> np.ndarray:
    """Amplitudes of quadrature Gabor filters over luminance: (n, filters, cells, cells)."""
    margin = side // 4
    padded = side + 2 * margin
    f = np.fft.fftfreq(padded) * side  # cycles per image
    filters = []
    for frequency in FREQUENCIES:
        for turn in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
            distance = (f[None] - frequency * np.cos(turn)) ** 2 + (f[:, None] - frequency * np.sin(turn)) ** 2
            filters.append(np.exp(-0.5 * distance / (0.35 * frequency) ** 2))
    kernels = torch.from_numpy(np.stack(filters)).float()
    found = []
    for path in images:
        grey = np.asarray(Image.open(path).convert("L").resize((side, side), Image.Resampling.BOX), np.float32) / 255
        spectrum = torch.fft.fft2(torch.from_numpy(np.pad(grey - grey.mean(), margin, mode="reflect")))
        amplitude = torch.fft.ifft2(spectrum * kernels).abs()[:, margin:-margin, margin:-margin]
        found.append(torch.nn.functional.avg_pool2d(amplitude, side // cells).half().numpy())
    return np.stack(found)


def second_network(images: list[Path]) -> dict[str, np.ndarray]:
    """Tokens (n, C, h, w) of the second network on its own grids, or on SECOND_GRID."""
    backbone = load_backbone(SECOND_NETWORK, layers=list(STAGES), size=SECOND_SIZE)
    found: dict[str, list[np.ndarray]] = {stage: [] for stage in STAGES}
    for start in range(0, len(images), 16):
        pictures = [Image.open(path).convert("RGB") for path in images[start : start + 16]]
        batch = np.stack([prepare(picture, backbone.preprocessing) for picture in pictures])
        with torch.inference_mode():
            tokens = backbone.get_tokens(torch.from_numpy(normalise(batch, backbone.preprocessing)))[0]
        for stage in STAGES:
            values = tokens[stage]
            if values.shape[2] > SECOND_GRID:
                values = torch.nn.functional.adaptive_avg_pool2d(values, SECOND_GRID)
            found[stage].append(values.half().numpy())
    return {stage: np.concatenate(parts) for stage, parts in found.items()}


def early_signal(rng, patch: Patch, members, energies, truth, kind: Kind) -> np.ndarray:
    """Pooled energies with positive, tuned weights, compressed. (n, V)"""
    n, filters, side, _ = energies.shape
    field = mixed_field(rng, patch.coordinates, filters, 45.0, kind.smooth_share)[members]
    pooled = energies.reshape(n * filters, -1) @ gaussian_pooling(truth["centre"], truth["size"], side)
    combined = np.einsum("nfv,vf->nv", pooled.reshape(n, filters, -1), np.exp(0.8 * field))
    return combined**kind.exponent


def stage_signal(rng, patch: Patch, members, features, truth, kind: Kind, *, whole: bool) -> np.ndarray:
    """Random channels of some stages, each at unit variance, mixed by depth. (n, V)"""
    stages = kind.high if whole else kind.mid
    position = truth["depth"] * (len(stages) - 1)
    mixture = np.exp(-0.5 * ((np.arange(len(stages)) - position[:, None]) / 0.45) ** 2)
    mixture = mixture / mixture.sum(1, keepdims=True)
    total = 0.0
    for k, stage in enumerate(stages):
        tokens = features(stage)
        n, channels, side, _ = tokens.shape
        weight = mixed_field(rng, patch.coordinates, channels, 45.0, kind.smooth_share)[members]
        if whole:
            part = tokens.mean((2, 3)) @ weight.T
        else:
            pooled = tokens.reshape(n * channels, -1) @ gaussian_pooling(truth["centre"], truth["size"], side)
            part = np.einsum("ncv,vc->nv", pooled.reshape(n, channels, -1), weight)
        part = (part - part[:TRAINING].mean(0)) / part[:TRAINING].std(0)
        total = total + mixture[:, k] * part
    return total


def add_noise(rng: np.random.Generator, patch: Patch, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the repetitions, and its exact noise ceiling on the test images: as in the sample subject."""
    field = smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
    field = (field - field.mean()) / field.std()
    wanted = 0.05 + 0.75 / (1 + np.exp(-(field + 0.6 * rng.standard_normal(len(field)) + 0.1)))
    # Relative to the training images: test images of few photographs may vary much more or less.
    noise = signal[:TRAINING].std(0) * np.sqrt((1 - wanted) / wanted)
    responses = signal + rng.standard_normal(signal.shape).astype(np.float32) * noise
    variance = signal[TRAINING:].var(0)
    return responses.astype(np.float32), (variance / (variance + noise**2)).astype(np.float32)


def with_signal(world: World) -> World:
    """The world without noise: what is lost there is not lost to noise."""
    return replace(world, responses=Responses(world.signal), ceiling=np.ones_like(world.ceiling))
