"""A simulated subject before it is laid out as files, and the files that all layouts have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import Vertices
from brainkit.utils.files import atomic_write, write_json

NOTE = "SIMULATED subject: planted truth, not a brain"
STREAMS = ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal")
VERSION = 3


@dataclass(frozen=True, eq=False)
class Simulated:
    """Images and simulated single trials of n images and V vertices; the training images come first.

    Attributes
    ----------
    seed : int
    backbone : str
        The network whose tokens the responses are computed from.
    images : tuple of Path, (n,)
        PNG files, 256 x 256 pixels.
    ids : array of shape (n,), int64
        Numbers of the images as in the Natural Scenes Dataset, from 0; not of its images.
    sources : tuple of str, (n,)
        The stimulus that each image is of: a photograph, or a tile of one.
    n_training : int
    vertices : Vertices
        Of fsaverage5.
    coordinates : array of shape (V, 3)
        In mm.
    streams : array of shape (V,), int32
        Region of each vertex: its position in `STREAMS`, from 1.
    trials : array of shape (repetitions, n, V), float32
        Single trials, z-scored over all of a vertex.
    responses : array of shape (n, V), float32
        Mean over the repetitions, z-scored over the training images.
    noise_ceiling : array of shape (V,), float32
        Of the mean over the repetitions of the test images, as fractions.
    truth : mapping of str to array
        The ground truth: selectors, network.
    """

    seed: int
    backbone: str
    images: tuple[Path, ...]
    ids: npt.NDArray[np.int64]
    sources: tuple[str, ...]
    n_training: int
    vertices: Vertices
    coordinates: npt.NDArray[np.float32]
    streams: npt.NDArray[np.int32]
    trials: npt.NDArray[np.float32]
    responses: npt.NDArray[np.float32]
    noise_ceiling: npt.NDArray[np.float32]
    truth: Mapping[str, Any]


def write_truth(subject: Simulated, folder: Path) -> None:
    """Write ``truth.npz``: one value per vertex in the order of `Simulated.vertices`."""
    with atomic_write(folder / "truth.npz") as temporary:
        np.savez(temporary, **subject.truth)


def write_notes(subject: Simulated, folder: Path, **more: Any) -> None:
    """Write ``simulated.json``, to which `more` adds entries, and ``SIMULATED.txt``."""
    write_json(folder / "simulated.json", {"note": NOTE, "seed": subject.seed, "version": VERSION, **more})
    (folder / "SIMULATED.txt").write_text(
        "This subject is SIMULATED by brainkit. It is not a brain.\n\n"
        "The images are crops of photographs that scikit-image, scikit-learn and matplotlib ship. The responses are\n"
        f"computed from the tokens of {subject.backbone} with a planted truth (truth.npz) and noise, so that one can "
        "see\n"
        "whether training finds again what was planted. It says nothing about people.\n",
        encoding="utf-8",
    )
