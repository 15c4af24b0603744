"""One subject: images, responses, and properties of each vertex, independent of the layout on disk.

Only `assemble` restricts arrays with a vertex axis to the usable vertices.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import sphere_coordinates
from brainkit.cortex.vertices import CUSTOM, Vertices, space_size
from brainkit.cortex.volume import Volume
from brainkit.data.dataset import OWN, SIMULATED, Dataset
from brainkit.data.missing import find_unusable
from brainkit.data.responses import Responses
from brainkit.data.stimuli import ImageHashes, hash_images, join_stimuli
from brainkit.errors import DataError, ImageError, UsageError
from brainkit.images import content_hash, decode, verify
from brainkit.metrics.ceilings import NoiseCeiling, noise_ceiling_from_ncsnr
from brainkit.utils.files import read_json, read_text
from brainkit.utils.progress import Progress
from brainkit.utils.system import cores
from brainkit.utils.text import plural

DEFAULT_UNITS = "z-scored percent signal change"


class SkippedImage(NamedTuple):
    """An image of the data that is not used: its row in the data, counted from 0, its name, and why."""

    row: int
    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject's images and responses; ``subject[i]`` is an image and its responses.

    Attributes
    ----------
    name : str
    root : Path
    images : tuple of Path, (n,)
        Row i of the responses belongs to image i.
    responses : Responses
        n rows, V columns.
    names : tuple of str, (n,)
        Of the images, each once.
    named_groups : tuple of str or None, (n,)
        The stimulus of each image according to the data (an NSD id, ``stimuli.json``); None where they name none.
    official_test : array of shape (n,), bool
        Rows of the data set's own test set.
    vertices : Vertices
        Of the V columns.
    rois : RoiTable
    noise_ceiling : array of shape (V,), float32, in [0, 1], or None
        Of r squared; NaN where the data have none.
    noise_ceiling_unit : {"fractions", "percent"} or None
        Which the file was taken to have.
    ncsnr : array of shape (V,), float32, or None
        S.d. of the signal over that of a single trial's noise, where single trials were measured.
    repetitions : array of shape (n,), int32, or None
        Trials that the responses to each image are the mean of.
    incomplete : tuple of str
        Images that lack responses of vertices which most images have: the vertices are left out.
    excluded : dict
        ``{"constant": ids, "nan": ids}``: vertices (in the custom space, columns) left out because all training
        responses are equal, or some response is not finite.
    excluded_rois : RoiTable
        The ROIs of the vertices left out, in increasing order.
    units : str
        Of the responses.
    note : str or None
        Shown with all results, for example that the subject is simulated.
    kind : {"nsd", "simulated", "own"}
        What the responses are, which decides their terms where `dataset` states none.
    dataset : Dataset
        What ``dataset.json`` states: name, licence, citation.
    own_coordinates : array of shape (V, 3), float32, or None
        Coordinates from the data, in mm.
    volume : Volume or None
        The voxels, if the data are volumetric.
    chosen_rois : tuple of str
        The ROIs that the subject was restricted to, see `restrict`; empty: not restricted.
    skipped : tuple of SkippedImage
        Images that were left out because they cannot be read, see `skip_unreadable`.
    location : str
        How `brainkit.data.open_subject` finds the data again, where that is not `root`: the source of prepared data.
    """

    name: str
    root: Path
    images: tuple[Path, ...]
    responses: Responses
    names: tuple[str, ...]
    named_groups: tuple[str | None, ...]
    official_test: npt.NDArray[np.bool_]
    vertices: Vertices
    rois: RoiTable
    noise_ceiling: npt.NDArray[np.float32] | None
    excluded: dict[str, list[int]]
    excluded_rois: RoiTable = field(default_factory=lambda: RoiTable({}, 0))
    units: str = DEFAULT_UNITS
    note: str | None = None
    own_coordinates: npt.NDArray[np.float32] | None = None
    volume: Volume | None = None
    kind: str = OWN
    dataset: Dataset = field(default_factory=Dataset)
    noise_ceiling_unit: str | None = None
    ncsnr: npt.NDArray[np.float32] | None = None
    repetitions: npt.NDArray[np.int32] | None = None
    incomplete: tuple[str, ...] = ()
    chosen_rois: tuple[str, ...] = ()
    skipped: tuple[SkippedImage, ...] = ()
    location: str = ""

    def __repr__(self) -> str:
        return f"Subject({self.describe()})"

    def __getstate__(self) -> dict[str, Any]:
        # The process that gets it may work in another folder.
        images = tuple(image.absolute() for image in self.images)
        return {**self.__dict__, "root": self.root.absolute(), "images": images}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, npt.NDArray[np.float32]]:
        """Image i (RGB) and its responses (V,), float32."""
        position = i + len(self) if i < 0 else i
        if not 0 <= position < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return decode(self.images[position]), self.responses.rows([position])[0]

    @functools.cached_property
    def coordinates(self) -> npt.NDArray[np.float32]:
        """Coordinates of the vertices, from the data, else on the sphere: array of shape (V, 3), float32, mm."""
        return sphere_coordinates(self.vertices) if self.own_coordinates is None else self.own_coordinates

    @functools.cached_property
    def groups(self) -> tuple[str, ...]:
        """The stimulus of each image (n,); a split never separates images of one stimulus.

        Images with the same pixels are one stimulus, see :func:`brainkit.data.stimuli.join_stimuli`. All images are
        decoded once, and their hashes kept in the cache folder.

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        return join_stimuli([self.names], [self.named_groups], [self.pixel_hashes])[0]

    @property
    def pixel_hashes(self) -> tuple[str, ...]:
        """A hash of each image's pixels (n,), see :func:`brainkit.images.pixel_hash`.

        Raises
        ------
        DataError
            If an image cannot be read: names the first and how many there are.
        """
        return tuple(each.pixels for each in self._hashes)

    @functools.cached_property
    def perceptual_hashes(self) -> npt.NDArray[np.uint8]:
        """What each image looks like, as bits in 32 bytes (n, 32), see :func:`brainkit.images.perceptual_hash`.

        Raises
        ------
        DataError
            As `pixel_hashes`.
        """
        return np.frombuffer(b"".join(each.looks for each in self._hashes), np.uint8).reshape(len(self), -1)

    @functools.cached_property
    def _hashes(self) -> tuple[ImageHashes, ...]:
        found = hash_images(self.images)
        _refuse_unreadable([each for each in found if isinstance(each, ImageError)], len(self))
        return tuple(each for each in found if isinstance(each, ImageHashes))

    def skip_unreadable(self) -> Subject:
        """The same subject without the images that cannot be read, and without their responses.

        Returns
        -------
        Subject
            `skipped` lists them.

        Raises
        ------
        DataError
            If no image can be read.
        """
        errors = {row: each for row, each in enumerate(hash_images(self.images)) if isinstance(each, ImageError)}
        if not errors:
            return self
        if len(errors) == len(self):
            _refuse_unreadable(list(errors.values()), len(self))
        in_data = range(len(self)) if self.responses.kept is None else self.responses.kept.tolist()
        skipped = [SkippedImage(in_data[row], self.names[row], error.reason) for row, error in errors.items()]
        readable = self.take([row for row in range(len(self)) if row not in errors])
        return replace(readable, skipped=(*self.skipped, *skipped))

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Subject:
        """The same subject with only these images and their responses, in this order."""
        index = np.asarray(rows, np.int64)
        return replace(
            self,
            images=tuple(self.images[row] for row in index),
            responses=self.responses.take(index),
            names=tuple(self.names[row] for row in index),
            named_groups=tuple(self.named_groups[row] for row in index),
            official_test=self.official_test[index],
            repetitions=None if self.repetitions is None else self.repetitions[index],
        )

    def noise_ceiling_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Noise ceilings (V,) of the responses to these images; those of the data, unless repetitions are known.

        Images with more trials have a higher ceiling, see :func:`brainkit.metrics.noise_ceiling_from_ncsnr`.
        """
        if self.ncsnr is None or self.repetitions is None or not len(rows):
            return self.noise_ceiling
        times, images = np.unique(self.repetitions[rows], return_counts=True)
        counts = dict(zip(times.tolist(), images.tolist(), strict=True))
        return noise_ceiling_from_ncsnr(self.ncsnr, counts).values.astype(np.float32)

    @functools.cached_property
    def data_hash(self) -> str:
        """SHA-256 over the files of the responses and images, in order, and the vertices used, in hexadecimal.

        Reads all files once; their names and folders do not matter.
        """
        digest = hashlib.sha256(b"brainkit data 1")
        files = [*itertools.chain.from_iterable(self.responses.files), *self.images]
        with ThreadPoolExecutor(cores()) as pool:
            for value in pool.map(content_hash, files):
                digest.update(bytes.fromhex(value))
        digest.update(self.vertices.space.encode() + b"\0" + self.vertices.ids.astype("<i4").tobytes())
        digest.update(self.responses.columns.astype("<i8").tobytes())
        if self.responses.kept is not None:
            digest.update(b"rows" + self.responses.kept.astype("<i8").tobytes())
        return digest.hexdigest()

    def restrict(self, rois: str | Sequence[str]) -> Subject:
        """The subject with the vertices of these ROIs only, their union; see `brainkit.cortex.rois.RoiTable.members`.

        ROIs that keep no vertex are dropped from the table; of the vertices left out, those in the ROIs remain listed.

        Raises
        ------
        UsageError
            If a name is unknown (suggests the nearest), or no vertex is left.
        """
        names = self.rois.split_names(rois)
        try:
            kept = self.rois.union(names)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from None
        if not len(kept):
            raise UsageError(f"{self.name}: ROI {', '.join(names)}: has no vertices that can be used")
        left_out = np.sort(list(itertools.chain.from_iterable(self.excluded.values())))
        positions = self.excluded_rois.union(names) if len(left_out) else np.empty(0, np.int32)
        chosen = set(left_out[positions].tolist())
        return replace(
            self,
            responses=self.responses.keep(kept.astype(np.int64)),
            vertices=self.vertices.select(kept),
            rois=self.rois.subset(kept).without_empty(),
            noise_ceiling=None if self.noise_ceiling is None else self.noise_ceiling[kept],
            ncsnr=None if self.ncsnr is None else self.ncsnr[kept],
            excluded={reason: [vertex for vertex in ids if vertex in chosen] for reason, ids in self.excluded.items()},
            excluded_rois=self.excluded_rois.subset(positions) if len(left_out) else self.excluded_rois,
            own_coordinates=None if self.own_coordinates is None else self.own_coordinates[kept],
            volume=None if self.volume is None else self.volume.select(kept),
            chosen_rois=names,
        )

    def describe(self) -> str:
        """A one-line summary."""
        test = int(self.official_test.sum())
        without = 0 if self.noise_ceiling is None else int(np.isnan(self.noise_ceiling).sum())
        of_file = [f"read as {self.noise_ceiling_unit}"] if self.noise_ceiling_unit else []
        of_file += [f"none at {plural(without, 'vertex', 'vertices')}"] if without else []
        parts = [
            plural(len(self), "image") + (f" ({test:,} of them official test)" if test else ""),
            plural(len(self.vertices), "vertex", "vertices")
            + (f" of {self.vertices.space}" if self.vertices.space != CUSTOM else " of no known surface")
            + (f" (only {', '.join(self.chosen_rois)})" if self.chosen_rois else ""),
            plural(len(self.rois), "ROI"),
            "no noise ceilings"
            if self.noise_ceiling is None
            else "noise ceilings" + (f" ({', '.join(of_file)})" if of_file else ""),
        ]
        constant, incomplete = (len(self.excluded.get(reason, ())) for reason in ("constant", "nan"))
        excluded = [plural(constant, "constant vertex", "constant vertices")] if constant else []
        if incomplete:
            excluded.append(
                f"{incomplete:,} with missing values"
                if constant
                else f"{plural(incomplete, 'vertex', 'vertices')} with missing values"
            )
        if excluded:
            parts.append(f"left out: {' and '.join(excluded)}{self._why_left_out()}")
        if self.skipped:
            parts.append(f"left out: {plural(len(self.skipped), 'unreadable image')}")
        return f"{self.name}: {', '.join(parts)}" + (f"; {self.note}" if self.note else "")

    def _why_left_out(self) -> str:
        """What else must be said of the vertices left out: a whole hemisphere, or for the sake of few images."""
        why = []
        if self.vertices.space != CUSTOM and not self.chosen_rois:
            ids = np.concatenate([np.array(ids, int) for ids in self.excluded.values()])
            on_left = ids < space_size(self.vertices.space)
            sides = (("left", self.vertices.left, on_left), ("right", self.vertices.right, ~on_left))
            why += [f"all of the {side} hemisphere" for side, kept, out in sides if out.any() and not len(kept)]
        if self.incomplete and self.excluded["nan"]:
            first = f"{'the first is ' if len(self.incomplete) > 1 else ''}{self.incomplete[0]}"
            lack = "lacks" if len(self.incomplete) == 1 else "lack"
            why.append(f"{plural(len(self.incomplete), 'image')} {lack} values that most have: {first}")
        return f" ({'; '.join(why)})" if why else ""


def assemble(
    *,
    name: str,
    root: Path,
    images: Sequence[Path],
    responses: Responses,
    names: Sequence[str],
    groups: Sequence[str | None],
    official_test: npt.NDArray[np.bool_],
    vertices: Vertices,
    rois: Mapping[str, npt.NDArray[np.integer[Any]]],
    noise_ceiling: NoiseCeiling | None,
    dataset: Dataset,
    own_coordinates: npt.NDArray[np.float32] | None = None,
    volume: Volume | None = None,
    units: str = DEFAULT_UNITS,
    note: str | None = None,
    kind: str = OWN,
    ncsnr: npt.NDArray[np.float32] | None = None,
    repetitions: npt.NDArray[np.int32] | None = None,
) -> Subject:
    """Build a `Subject` from arrays over all columns, leaving out vertices that cannot be used.

    Raises
    ------
    DataError
        If trials are missing, or no vertex is left.
    """
    sides = (slice(0, vertices.n_left), slice(vertices.n_left, len(vertices))) if vertices.space != CUSTOM else ()
    hemispheres = [side for side in sides if side.start < side.stop]
    unusable = find_unusable(responses, images, int((~official_test).sum()), hemispheres)
    constant, not_finite = unusable.constant, unusable.not_finite
    usable = np.flatnonzero(~(constant | not_finite))
    if not len(usable):
        raise DataError(
            f"{responses.files[0][0].parent}: expected responses that vary, found all {len(vertices)} vertices "
            f"constant ({int(constant.sum())}) or not finite ({int(not_finite.sum())})"
        )
    table = RoiTable(rois, len(vertices)).on(vertices, volume)
    return Subject(
        name=name,
        root=root,
        images=tuple(images),
        responses=responses.keep(usable),
        names=tuple(names),
        named_groups=tuple(groups),
        official_test=official_test,
        vertices=vertices.select(usable),
        rois=table.subset(usable),
        noise_ceiling=None if noise_ceiling is None else noise_ceiling.values[usable],
        noise_ceiling_unit=None if noise_ceiling is None else noise_ceiling.units,
        ncsnr=None if ncsnr is None else ncsnr[usable],
        repetitions=repetitions,
        excluded={"constant": vertices.ids[constant].tolist(), "nan": vertices.ids[not_finite].tolist()},
        excluded_rois=table.subset(constant | not_finite),
        own_coordinates=None if own_coordinates is None else own_coordinates[usable],
        volume=None if volume is None else volume.select(usable),
        units=units,
        note=note,
        kind=SIMULATED if note else kind,
        dataset=dataset,
        incomplete=tuple(images[row].name for row in np.flatnonzero(unusable.incomplete).tolist()),
    )


def check_images(subject: Subject, *, full: bool = False, progress: Progress | None = None) -> None:
    """Check that every image of a subject can be read.

    Parameters
    ----------
    subject : Subject
    full : bool
        Decode every pixel. Otherwise only headers and, for PNG, checksums are checked, which finds truncated PNG files
        but not truncated JPEG files.
    progress : callable, optional
        Called with (done, total) after each image.

    Raises
    ------
    DataError
        Naming the first unreadable image and how many more there are.
    """
    problems: list[DataError] = []
    for done, image in enumerate(subject.images, 1):
        try:
            decode(image) if full else verify(image)
        except DataError as error:
            problems.append(error)
        if progress is not None:
            progress(done, len(subject.images))
    _refuse_unreadable(problems, len(subject))


def read_note(root: Path) -> str | None:
    """The note of a simulated subject: "note" of ``simulated.json``, or the first line of ``SIMULATED.txt``."""
    described, text = root / "simulated.json", root / "SIMULATED.txt"
    if described.is_file():
        value = read_json(described)
        note = value.get("note") if isinstance(value, dict) else None
        if not isinstance(note, str) or not note.strip():
            raise DataError(f'{described}: expected an object with a text "note", found none')
        return " ".join(note.split())
    if text.is_file():
        lines = read_text(text).split("\n")
        return next((" ".join(line.split()) for line in lines if line.strip()), "SIMULATED subject")
    return None


def read_groups(path: Path, known: set[str]) -> dict[str, str]:
    """Read ``stimuli.json``, {image file name: group}; an empty dict if there is no such file.

    Raises
    ------
    DataError
        If it is not an object of texts, or names a missing image: an image with a misspelt name would silently become
        a group of its own.
    """
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(group, str) and group for group in value.values()):
        raise DataError(f"{path}: expected an object {{image file name: group}}, found something else")
    unknown = sorted(set(value) - known)
    if unknown:
        raise DataError(f"{path}: expected names of image files, found {unknown[0]!r}, which does not exist")
    return value


def _refuse_unreadable(problems: Sequence[DataError], images: int) -> None:
    if problems:
        raise DataError(
            f"{problems[0]}; {len(problems):,} of {plural(images, 'image')} cannot be read: repair "
            f"{'it' if len(problems) == 1 else 'them'}, or train without {'it' if len(problems) == 1 else 'them'}: "
            "--skip-unreadable (in Python skip_unreadable=True)"
        )
