"""Photographs that installed packages ship, and random crops of them: the sample subject's images."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from brainkit.errors import DataError, MissingDependency

# Photograph -> (package, file in it, relative share of the crops). Colourful scenes have the largest share, textures
# and microscopy, whose crops vary little, a smaller one.
_SOURCES: dict[str, tuple[str, str, float]] = {
    "astronaut": ("skimage", "data/astronaut.png", 4),
    "coffee": ("skimage", "data/coffee.png", 4),
    "rocket": ("skimage", "data/rocket.jpg", 4),
    "motorcycle": ("skimage", "data/motorcycle_left.png", 4),
    "flower": ("sklearn", "datasets/images/flower.jpg", 4),
    "camera": ("skimage", "data/camera.png", 3),
    "hubble": ("skimage", "data/hubble_deep_field.jpg", 1.5),
    "retina": ("skimage", "data/retina.jpg", 1.5),
    "tissue": ("skimage", "data/ihc.png", 1.5),
    "coins": ("skimage", "data/coins.png", 1.5),
    "moon": ("skimage", "data/moon.png", 1),
    "cell": ("skimage", "data/cell.png", 1),
    "brick": ("skimage", "data/brick.png", 0.7),
    "grass": ("skimage", "data/grass.png", 0.7),
    "gravel": ("skimage", "data/gravel.png", 0.7),
    "chelsea": ("skimage", "data/chelsea.png", 1),
    "china": ("sklearn", "datasets/images/china.jpg", 1),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 1),
    "clock": ("skimage", "data/clock_motion.png", 0.4),
}
TEST_PHOTOGRAPHS = ("chelsea", "china", "hopper", "clock")
TRAINING_PHOTOGRAPHS = tuple(name for name in _SOURCES if name not in TEST_PHOTOGRAPHS)

SMALLEST_SIDE = 0.18  # of the photograph's shorter side
TILES = (3, 2)  # columns and rows that `cut_into_tiles` makes of a photograph
_PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def load_photographs(names: Sequence[str] | None = None) -> dict[str, Image.Image]:
    """Read photographs from the packages that ship them, without importing the packages.

    Parameters
    ----------
    names : sequence of str, optional
        By default all 19.

    Returns
    -------
    dict of str to RGB image

    Raises
    ------
    MissingDependency
        If a package is not installed; the message has the pip command.
    DataError
        If an installed package no longer ships a file.
    """
    return {name: Image.open(_path(name)).convert("RGB") for name in (names if names is not None else _SOURCES)}


def random_crop(
    rng: np.random.Generator, photographs: dict[str, Image.Image], names: Sequence[str], size: int
) -> tuple[str, Image.Image]:
    """A square crop of one of the named photographs, flipped with probability one half.

    Its side is log-uniform between 0.18 and 1 of the photograph's shorter side, and at least 64 pixels.

    Returns
    -------
    (str, image)
        The photograph's name, and the crop resized to `size` x `size` pixels.
    """
    shares = np.array([_SOURCES[name][2] for name in names])
    name = str(rng.choice(list(names), p=shares / shares.sum()))
    return name, crop_of(rng, photographs[name], size)


def cut_into_tiles(photographs: dict[str, Image.Image]) -> dict[str, Image.Image]:
    """Six tiles of each photograph that share no pixel, so that a few photographs give many stimuli.

    Returns
    -------
    dict of str to image
        ``<photograph>-1`` to ``<photograph>-6``, row by row.
    """
    columns, rows = TILES
    tiles = {}
    for name, photograph in photographs.items():
        xs = [photograph.width * k // columns for k in range(columns + 1)]
        ys = [photograph.height * k // rows for k in range(rows + 1)]
        for k in range(columns * rows):
            y, x = divmod(k, columns)
            tiles[f"{name}-{k + 1}"] = photograph.crop((xs[x], ys[y], xs[x + 1], ys[y + 1]))
    return tiles


def crop_of(rng: np.random.Generator, photograph: Image.Image, size: int) -> Image.Image:
    """A square crop of a photograph, as :func:`random_crop` takes it."""
    width, height = photograph.size
    side = max(int(min(width, height) * np.exp(rng.uniform(np.log(SMALLEST_SIDE), 0))), 64)
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    crop = photograph.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return crop


def _path(name: str) -> Path:
    package, file, _ = _SOURCES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDependency(
            f"the sample subject's photographs need {_PIP_NAMES[package]}, which is not installed; "
            "install it with: pip install 'brainkit[train]'"
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise DataError(f"{path}: file not found; this version of {_PIP_NAMES[package]} lacks the photograph {name!r}")
    return path
