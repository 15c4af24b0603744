"""NSD-synthetic: 284 artificial images in one session, a test set for models that were trained on NSD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.dataset import NSD_PAPER, Dataset
from brainkit.data.layouts.nsd_design import read_mat
from brainkit.data.layouts.nsd_stimuli import Brick, Pixels, read_images
from brainkit.data.trials.images import StimulusImages
from brainkit.errors import DataError

SYNTHETIC_DATASET = Dataset(
    name="Natural Scenes Dataset",
    citation=(
        NSD_PAPER,
        "Gifford et al. (2026), A 7T fMRI dataset of synthetic images for out-of-distribution modeling of vision, "
        "Nature Communications, doi:10.1038/s41467-026-69345-9",
    ),
)
IMAGES, SAME_FOR_ALL = 284, 220  # the rest are in colours that were matched for each subject
TRIALS = 744
STIMULI = Path("nsddata_stimuli") / "stimuli" / "nsdsynthetic"


def synthetic_order(root: Path, trials: int, simulated: bool) -> npt.NDArray[np.int64]:
    """The image of each trial, (n,), from 1.

    Raises
    ------
    DataError
        If the design is of another version, or does not fit the responses.
    """
    path = root / "nsddata" / "experiments" / "nsdsynthetic" / "nsdsynthetic_expdesign.mat"
    order = read_mat(path, "masterordering")[0].ravel()
    if not simulated and len(order) != TRIALS:
        raise DataError(f"{path}: expected {TRIALS} trials in masterordering, found {len(order)}")
    if len(order) != trials:
        raise DataError(f"{path}: expected {trials} trials in masterordering, as in the responses, found {len(order)}")
    if order.min() < 1 or order.max() > IMAGES:
        counted = "; they seem to count from 0" if order.min() == 0 else ""
        found = f"{order.min()} to {order.max()}{counted}"
        raise DataError(f"{path}: expected images from 1 to {IMAGES} in masterordering, found {found}")
    return order


def synthetic_images(root: Path, subject: int, numbers: npt.NDArray[np.int64]) -> StimulusImages:
    """The pictures with these numbers, from 1, increasing, as a screen would have shown them.

    The files have linear light, and networks were trained on pictures that screens brighten. Images of one subject's
    own colours are named after the subject.
    """
    same, own = numbers[numbers <= SAME_FOR_ALL], numbers[numbers > SAME_FOR_ALL]
    folder, name = root / STIMULI, f"subj{subject:02d}"
    bricks = [
        Brick(folder / "nsdsynthetic_stimuli.hdf5", same - 1, SAME_FOR_ALL),
        Brick(folder / f"nsdsynthetic_colorstimuli_{name}.hdf5", own - SAME_FOR_ALL - 1, IMAGES - SAME_FOR_ALL),
    ]
    names = [f"nsdsynthetic-{number:03d}" for number in same.tolist()]
    names += [f"nsdsynthetic-{number:03d}-{name}" for number in own.tolist()]
    return read_images([brick for brick in bricks if len(brick.rows)], names, brightened)


def brightened(linear: Pixels) -> Pixels:
    """Pixels of linear light for a screen whose light is the square of them: 255 sqrt(x / 255)."""
    return np.rint(np.sqrt(linear / 255.0) * 255.0).astype(np.uint8)
