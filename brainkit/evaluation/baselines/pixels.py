"""Ridge regression from the images themselves: their pixels, without a network."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from brainkit.evaluation.baselines.kernels import feature_kernel
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.evaluation.baselines.ridge import ridge_result
from brainkit.images import Preprocessing, decode, prepare
from brainkit.utils.system import cores

SIDE = 32


def pixels(problem: Problem) -> Result:
    """Ridge regression from red, green and blue of the whole image at 32 x 32 pixels."""
    return image_ridge(problem, lambda path: read_image(path, SIDE).reshape(-1, 3).T, 3 * SIDE**2)


def image_ridge(problem: Problem, features: Callable[[Path], np.ndarray], count: int) -> Result:
    """Ridge regression from features (channels, cells) of each image file, of which `count` are different."""
    with ThreadPoolExecutor(cores()) as pool:
        found = list(pool.map(features, [problem.images[row] for row in problem.order]))
    return ridge_result(feature_kernel(np.stack(found), len(problem.split.train), count), problem)


def read_image(path: Path, side: int) -> np.ndarray:
    """The whole image at side x side pixels, (side, side, 3), float32 in [0, 1]."""
    return prepare(decode(path), Preprocessing(side, (0, 0, 0), (1, 1, 1))).astype(np.float32) / 255
