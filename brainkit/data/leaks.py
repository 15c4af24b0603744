"""Test images that are, or look like, images of training or validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainkit.data.split import Split
from brainkit.data.splits import common_stimuli
from brainkit.data.subject import Subject
from brainkit.images import BITS, closest
from brainkit.utils.text import plural

# Bits of 255 in which perceptual hashes of a picture and its copy differ at most. On crops of 19 photographs, 95 % of
# the copies differ in: JPEG of quality 75, 8 (at most 52); half the size, 6 (40); 2 % cut off around, 32 (48); 5 % cut
# off, 70. Of 47 million pairs of different photographs, 5 differ in 48 or fewer: bench/near_duplicates.py.
NEAR = 48


@dataclass(frozen=True)
class Leaks:
    """What one subject's test images have in common with the images of training and validation, of any subject.

    Attributes
    ----------
    tested : int
        Test images, further test sets included.
    same : int
        Those that show a stimulus which is used: by its pixels, or by its group.
    similar : int
        Those that do not, but look like an image that is used.
    example : (str, str, int) or None
        The most similar pair: names of the test image and of the other one, and how many bits of their perceptual
        hashes differ.
    """

    tested: int
    same: int
    similar: int
    example: tuple[str, str, int] | None

    def lines(self) -> tuple[str, ...]:
        """A line for each kind of leak that there is."""
        found = []
        if self.same:
            found.append(
                f"WARNING: training or validation images show the same stimuli as {plural(self.same, 'test image')}: "
                "the test scores are too high; train again with a new split"
            )
        if self.example:
            test, other, bits = self.example
            look = "looks" if self.similar == 1 else "look"
            found.append(
                f"WARNING: {plural(self.similar, 'test image')} of {self.tested:,} {look} like training or validation "
                f"images, such as {test} like {other} ({bits} of {BITS - 1} bits of their perceptual hashes differ): "
                "if they are the same pictures, test scores are too high; give such images one group in stimuli.json"
            )
        return tuple(found)


def find_leaks(splits: Sequence[Split], subjects: Sequence[Subject]) -> list[Leaks]:
    """Compare each subject's test images with all images of training and validation.

    Parameters
    ----------
    splits : sequence of Split
        Of subjects that are trained together.
    subjects : sequence of Subject

    Returns
    -------
    list of Leaks
        One for each subject.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    groups = common_stimuli(subjects)
    numbers = {name: k for k, name in enumerate(dict.fromkeys(name for own in groups for name in own))}
    stimuli = [np.array([numbers[name] for name in own], np.int64) for own in groups]
    used = [np.concatenate([split.train, split.validation]) for split in splits]
    used_stimuli = np.concatenate([own[rows] for own, rows in zip(stimuli, used, strict=True)])
    hashes = np.concatenate([subject.perceptual_hashes[rows] for subject, rows in zip(subjects, used, strict=True)])
    names = [subject.names[row] for subject, rows in zip(subjects, used, strict=True) for row in rows.tolist()]
    leaks = []
    for split, subject, own in zip(splits, subjects, stimuli, strict=True):
        tested = np.unique(np.concatenate([split.test, *split.sets.values()]))
        same = np.isin(own[tested], used_stimuli)
        rows = tested[~same]
        index, bits = closest(subject.perceptual_hashes[rows], hashes, own[rows], used_stimuli)
        leaks.append(
            Leaks(len(tested), int(same.sum()), int((bits <= NEAR).sum()), _example(subject, rows, names, index, bits))
        )
    return leaks


def note_leaks(splits: Sequence[Split], subjects: Sequence[Subject]) -> list[Split]:
    """The splits, with their leaks among the notes."""
    found = find_leaks(splits, subjects)
    return [
        dataclasses.replace(split, notes=tuple(dict.fromkeys((*split.notes, *leaks.lines()))))
        for split, leaks in zip(splits, found, strict=True)
    ]


def _example(
    subject: Subject, rows: npt.NDArray[np.int64], names: Sequence[str], index: npt.NDArray[np.int64], bits: np.ndarray
) -> tuple[str, str, int] | None:
    if not len(bits) or bits.min() > NEAR:
        return None
    nearest = int(bits.argmin())
    return subject.names[rows[nearest]], names[index[nearest]], int(bits[nearest])
