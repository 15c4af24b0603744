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
from brainkit.data.photographs import _SOURCES, load_photographs, random_crop
from brainkit.features.extract import extract_tokens
from brainkit.images import normalise, prepare
from brainkit.sample import BACKBONE, IMAGE_SIZE, Patch, _smooth_field, occipital_patch
from brainkit.utils.files import atomic_write, read_json, write_json

SECOND_NETWORK = "efficientnet_lite2"
AREAS = ("early", "mid", "high")
EDGES = (0.0, 0.6, 0.84, 1.01)  # distance from the pole at which areas begin: about a third of the vertices each
VERTICES, TRAINING, TEST = 800, 900, 240
TEST_PHOTOGRAPHS = 4
FREQUENCIES = (4.0, 8.0, 16.0, 32.0)  # cycles per image
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
    """The world of a seed and kind; its files are made on first use, which takes some minutes."""
    path = folder / f"world-{seed}"
    if not path.is_dir():
        make_images(path, seed)
    if not (path / f"{kind}.npz").is_file():
        simulate(path, seed)
    patch, groups = occipital_patch(VERTICES), read_json(path / "stimuli.json")
    images = tuple(sorted((path / "images").glob("*.png")))
    subject = SimpleNamespace(
        root=path / f"{kind}-{grid}",
        images=images,
        groups=[groups[image.name] for image in images],
        official_test=np.arange(len(images)) >= TRAINING,
        coordinates=patch.coordinates,
    )
    tokens = extract_tokens(load_backbone(BACKBONE), images, grid=(grid, grid))
    with np.load(path / f"{kind}.npz") as file:
        found = dict(file)
    responses, signal, ceiling = found.pop("responses"), found.pop("signal"), found.pop("noise_ceiling")
    return World(subject, tokens, Responses(responses), ceiling, found, signal, f"{kind}-{seed}")


def make_images(path: Path, seed: int) -> None:
    """Crops of photographs; which photographs are only in the test set is drawn anew in every world."""
    rng = np.random.default_rng((seed, 21))
    photographs = load_photographs()
    # Textures and microscopy as the only test images would measure little else.
    scenes = [name for name, (_, _, share) in _SOURCES.items() if share >= 3 or name in ("chelsea", "china", "hopper")]
    test = sorted(rng.choice(scenes, TEST_PHOTOGRAPHS, replace=False).tolist())
    training = [name for name in photographs if name not in test]
    groups: dict[str, str] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        (temporary / "images").mkdir(parents=True)
        for row in range(TRAINING + TEST):
            source, crop = random_crop(rng, photographs, training if row < TRAINING else test, IMAGE_SIZE)
            name = f"{row:05d}.png"
            crop.save(temporary / "images" / name, compress_level=1)
            groups[name] = source
        write_json(temporary / "stimuli.json", groups)


def simulate(path: Path, seed: int) -> None:
    """Write the responses of every kind: they share images and features."""
    images = sorted((path / "images").glob("*.png"))
    energies = gabor_energies(images)
    local, whole = second_network(images)
    for kind, settings in KINDS.items():
        rng = np.random.default_rng((seed, 22, list(KINDS).index(kind)))
        patch = occipital_patch(VERTICES)
        truth = ground_truth(rng, patch, settings)
        signal = np.empty((len(images), VERTICES), np.float32)
        for area, index in enumerate(AREAS):
            members = np.flatnonzero(truth["area"] == area)
            part = {name: value[members] for name, value in truth.items()}
            if index == "early":
                signal[:, members] = early_signal(rng, patch, members, energies, part, settings)
            else:
                stages = settings.mid if index == "mid" else settings.high
                signal[:, members] = stage_signal(rng, patch, members, local, whole, part, settings, stages)
        signal = (signal - signal[:TRAINING].mean(0)) / signal[:TRAINING].std(0)
        responses, ceiling = add_noise(rng, patch, signal)
        with atomic_write(path / f"{kind}.npz") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, responses=responses, signal=signal, noise_ceiling=ceiling, **truth)


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
    smooth = smooth + 0.05 * _smooth_field(rng, patch.coordinates, 2, 40.0)
    scatter = np.array([*kind.centre_scatter, 0.0])[area]
    centre = np.clip(smooth + scatter[:, None] * rng.standard_normal(smooth.shape), -0.95, 0.95)
    base, growth = np.array([kind.size, kind.mid_size, (1.0, 0.0)])[area].T
    size = (base + growth * np.hypot(*smooth.T)) * np.exp(kind.size_scatter * rng.standard_normal(len(area)))
    field = mixed_field(rng, patch.coordinates, 1, 60.0, kind.smooth_share)[:, 0]
    depth = np.clip(across + 0.15 * field, 0, 1)
    return {"area": area, "centre": centre, "smooth_centre": smooth, "size": size, "depth": depth}


def mixed_field(rng: np.random.Generator, coordinates: np.ndarray, count: int, length: float, share: float):
    """Fields of unit variance, of which a share is smooth and the rest independent between vertices. (V, count)"""
    smooth = _smooth_field(rng, coordinates, count, length)
    return np.sqrt(share) * smooth + np.sqrt(1 - share) * rng.standard_normal(smooth.shape)


def gaussian_pooling(centre: np.ndarray, size: np.ndarray, side: int) -> np.ndarray:
    """Weights (side * side, V) of Gaussian receptive fields over cells, rows first; each sums to 1."""
    position = (np.arange(side) + 0.5) / side * 2 - 1
    along = [np.exp(-0.5 * ((position[:, None] - centre[:, k]) / size) ** 2) for k in (0, 1)]  # x, y: (side, V)
    weights = (along[1][:, None] * along[0][None]).reshape(side * side, -1)
    return (weights / weights.sum(0)).astype(np.float32)


def gabor_energies(images: list[Path], side: int = 128, cells: int = 32) -> np.ndarray:
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
        found.append(torch.nn.functional.avg_pool2d(amplitude, side // cells).numpy())
    energies = np.stack(found)
    return energies / energies[:TRAINING].std((0, 2, 3), keepdims=True)


def second_network(images: list[Path]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tokens (n, C, h, w) of the second network on its own grids, and their means (n, C); channels z-scored."""
    backbone = load_backbone(SECOND_NETWORK, layers=list(STAGES))
    local: dict[str, list[np.ndarray]] = {stage: [] for stage in STAGES}
    for start in range(0, len(images), 16):
        batch = [
            prepare(Image.open(path).convert("RGB"), backbone.preprocessing) for path in images[start : start + 16]
        ]
        with torch.inference_mode():
            tokens = backbone.get_tokens(torch.from_numpy(normalise(np.stack(batch), backbone.preprocessing)))[0]
            tokens["stage3"] = torch.nn.functional.adaptive_avg_pool2d(tokens["stage3"], 17)
        for stage in STAGES:
            local[stage].append(tokens[stage].half().numpy())
    whole = {}
    stacked = {}
    for stage in STAGES:
        values = np.concatenate(local.pop(stage)).astype(np.float32)
        spread = values[:TRAINING].std((0, 2, 3), keepdims=True) + 1e-6
        values = (values - values[:TRAINING].mean((0, 2, 3), keepdims=True)) / spread
        stacked[stage], whole[stage] = values, values.mean((2, 3))
    return stacked, whole


def early_signal(rng, patch: Patch, members, energies, truth, kind: Kind) -> np.ndarray:
    """Pooled energies with positive, tuned weights, compressed. (n, V)"""
    n, filters, side, _ = energies.shape
    field = mixed_field(rng, patch.coordinates, filters, 45.0, kind.smooth_share)[members]
    pooled = energies.reshape(n * filters, -1) @ gaussian_pooling(truth["centre"], truth["size"], side)
    combined = np.einsum("nfv,vf->nv", pooled.reshape(n, filters, -1), np.exp(0.8 * field))
    return combined**kind.exponent


def stage_signal(rng, patch: Patch, members, local, whole, truth, kind: Kind, stages) -> np.ndarray:
    """Random channels of some stages, each at unit variance, mixed by depth. (n, V)"""
    position = truth["depth"] * (len(stages) - 1)
    mixture = np.exp(-0.5 * ((np.arange(len(stages)) - position[:, None]) / 0.45) ** 2)
    mixture = mixture / mixture.sum(1, keepdims=True)
    total = 0.0
    for k, stage in enumerate(stages):
        n, channels, side, _ = local[stage].shape
        weight = mixed_field(rng, patch.coordinates, channels, 45.0, kind.smooth_share)[members]
        if stages == kind.high:
            part = whole[stage] @ weight.T
        else:
            pooled = local[stage].reshape(n * channels, -1) @ gaussian_pooling(truth["centre"], truth["size"], side)
            part = np.einsum("ncv,vc->nv", pooled.reshape(n, channels, -1), weight)
        part = (part - part[:TRAINING].mean(0)) / part[:TRAINING].std(0)
        total = total + mixture[:, k] * part
    return total


def add_noise(rng: np.random.Generator, patch: Patch, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the repetitions, and its exact noise ceiling on the test images: as in the sample subject."""
    field = _smooth_field(rng, patch.coordinates, 1, 40.0)[:, 0]
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
