"""The test images of a run, with predicted and measured responses: a report shows vertices and clusters by them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit.cortex.vertices import Vertices
from brainkit.images import Preprocessing, decode, prepare
from brainkit.page.document import thumbnail
from brainkit.runs.predictions import align_responses, read_predictions
from brainkit.utils.files import read_json

_THUMBNAIL = 128  # pixels


@dataclass(frozen=True, eq=False)
class TestImages:
    """n test images of a run.

    Parameters
    ----------
    names, groups : sequence of n str
        Of the images, and of the stimuli that they show.
    paths : sequence of n
        Of their files.
    predictions, responses : array of shape (n, V)
    preprocessing : Preprocessing
        Of the network.
    """

    __test__ = False  # for pytest

    names: Sequence[str]
    groups: np.ndarray
    paths: Sequence[Any]
    predictions: np.ndarray
    responses: np.ndarray
    preprocessing: Preprocessing
    _thumbnails: dict[int, str] = field(default_factory=dict)

    @classmethod
    def open(cls, run: Path, vertices: Vertices, data: str | os.PathLike[str] | None) -> TestImages:
        """Those of a run, whose data may have moved to `data`.

        Raises
        ------
        DataError
            If the run has kept no predictions, or its data are not there or have changed.
        """
        kept = read_predictions(run, data=data)
        subject = kept.open_data(data)
        seen = Preprocessing.from_json(read_json(run / "run.json")["backbone"]["preprocessing"])
        responses = align_responses(subject, vertices)
        return cls(subject.names, kept.groups, subject.images, kept.predictions, responses, seen)

    def thumbnail(self, row: int) -> str:
        """What the network sees of an image, which may be a crop, as the address of a small ``<img>``."""
        if row not in self._thumbnails:
            image = Image.fromarray(prepare(decode(self.paths[row]), self.preprocessing))
            self._thumbnails[row] = thumbnail(image, _THUMBNAIL)
        return self._thumbnails[row]

    def best(self, values: np.ndarray, count: int, *, one_of_a_stimulus: bool = False) -> list[int]:
        """Rows of the images with the largest values (n,), largest first."""
        order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
        if one_of_a_stimulus:
            _, first = np.unique(self.groups[order], return_index=True)
            order = order[np.sort(first)]
        return [int(row) for row in order[:count]]
