"""LAION-fMRI: single-trial betas of five subjects at 7T, in volumes, read from the files directly."""

from __future__ import annotations

import functools
import importlib.util
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.dataset import Dataset
from brainkit.data.layouts.hdf5 import open_hdf5
from brainkit.data.layouts.nifti import Grid, check_trials, open_nifti, read_trials
from brainkit.data.layouts.published_ceilings import ncsnr_of_ceiling
from brainkit.data.layouts.subject_files import choose_subject
from brainkit.data.layouts.tables import read_table, whole_numbers
from brainkit.data.subject import read_note
from brainkit.data.trials.images import Picture, StimulusImages
from brainkit.data.trials.prepare import missing_sessions
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError
from brainkit.images import content_hash
from brainkit.utils.files import read_json
from brainkit.utils.text import one_line, plural

SESSIONS = 30
DATASET = Dataset(
    name="LAION-fMRI",
    licence="fMRI: CC0; stimuli: data use agreement of LAION-fMRI (non-commercial, no redistribution, no training of "
    "general-purpose AI models)",
    citation=("LAION-fMRI, ViCCo Group, https://laion-fmri.hebartlab.com",),
)
_GLM = Path("derivatives") / "glmsingle-tedana"
# What a file is -> its names in the stored versions of the data set.
_BETAS = ("*_stat-effect_desc-SingletrialBetas_statmap.nii*", "*_desc-singletrial_stat-effect_statmap.nii*")
_TRIALS = ("*_desc-SingletrialBetas_trials.tsv", "*_desc-GLMsingle_events.tsv")
_MASKS = ("*_stat-rsquare_desc-R2mean_statmap.nii*", "*_desc-meanR2gt15mask_mask.nii*")
_CEILINGS = (("*_desc-Noiseceiling12rep_statmap.nii*", 12), ("*_desc-Noiseceiling4rep_statmap.nii*", 4))
_HASH = 12  # hexadecimal digits: the content of splits has changed between versions
_GREY = 128  # behind images that are partly transparent


def laion_fmri(path: Path, *, subject: str = "", allow_missing_sessions: bool = False) -> Trials:
    """Describe the trials of a subject of LAION-fMRI.

    Columns are the voxels of the brain mask, in C order of the volume's axes. Betas are in units of a ridge regression,
    and are standardised within sessions.

    Parameters
    ----------
    path : Path
        Of the data set: the folder with ``derivatives`` and ``stimuli``.
    subject : str
        ``3``, ``03`` or ``sub-03``; may be left out if there is one.
    allow_missing_sessions : bool
        Use the sessions that are there.

    Raises
    ------
    DataError
        If a file is missing or does not fit the others.
    UsageError
        If the subject is not there, or several are and none was chosen.
    """
    there = sorted(folder.name for folder in (path / _GLM).glob("sub-*") if folder.is_dir())
    name = choose_subject(path, there, subject, "; the pNN in names of images is another numbering")
    glm = path / _GLM / name
    files = {number: folder for folder in sorted(glm.glob("ses-*")) if (number := _number(folder)) is not None}
    notes = missing_sessions(sorted(files), SESSIONS, bool(allow_missing_sessions), str(glm))
    mask_file, mask_note = _mask_file(glm)
    betas = {number: _one_of(folder / "func", _BETAS, "single-trial betas") for number, folder in files.items()}
    if not betas:
        raise DataError(f"{glm}: expected sessions such as ses-01, found none")
    grid = Grid(next(iter(betas.values())))
    mask = grid.read(mask_file) > 0
    voxels = np.argwhere(mask).astype(np.int32)
    if not len(voxels):
        raise DataError(f"{mask_file}: expected voxels above 0, found none")
    labels = {number: _trial_labels(folder / "func", number) for number, folder in files.items()}
    names = tuple(sorted(set().union(*labels.values())))
    images = _images(path / "stimuli", names, name)
    rows = {image: row for row, image in enumerate(names)}
    sessions = [
        _session(number, betas[number], grid, voxels, np.array([rows[label] for label in labels[number]], np.int64))
        for number in files
    ]
    splits, split_notes = _splits(path, name, set(names))
    ncsnr, ceiling_note = _ncsnr(glm, grid, mask)
    position = np.full(grid.shape, -1)
    position[mask] = np.arange(len(voxels))
    return Trials(
        name=name,
        layout="LAION-fMRI, single-trial betas in the subject's own volume (T1w)",
        root=path,
        sessions=tuple(sessions),
        images=images,
        vertices=Vertices.custom(len(voxels)),
        rois={roi: _columns(position, grid.read(file)) for roi, file in _roi_files(path, name).items()},
        coordinates=(voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]).astype(np.float32),
        volume=Volume(grid.shape, grid.affine, voxels),
        ncsnr=ncsnr,
        splits=splits,
        units="z-scored betas",
        dataset=DATASET,
        note=read_note(path),
        notes=(*notes, *mask_note, *ceiling_note, *split_notes),
        extra_files=tuple(file for file in (path / "simulated.json", path / "truth.npz") if file.is_file()),
        reads_columns=False,
    )


def _number(folder: Path) -> int | None:
    match = re.fullmatch(r"ses-(\d+)", folder.name)
    return int(match[1]) if match and (folder / "func").is_dir() else None


def _one_of(folder: Path, patterns: Sequence[str], what: str) -> Path:
    """The only file that has one of these names.

    Raises
    ------
    DataError
        If there is none, or more than one: two versions of the data set in one folder.
    """
    found = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    if not found:
        raise DataError(f"{folder}: expected {what}, such as {patterns[0]}, found none")
    if len(found) > 1:
        raise DataError(
            f"{folder}: expected one file of {what}, found {found[0].name} and {found[1].name}; two versions of the "
            "data set are mixed: keep one"
        )
    return found[0]


def _mask_file(glm: Path) -> tuple[Path, tuple[str, ...]]:
    """The map whose voxels above 0 are the brain; of two, the wider one (a note says so)."""
    found = [file for pattern in _MASKS for file in sorted(glm.glob(pattern))]
    if not found:
        raise DataError(f"{glm}: expected a brain mask, such as {_MASKS[0]}, found none")
    others = ", ".join(file.name for file in found[1:])
    return found[0], (f"brain mask: {found[0].name} above 0, not {others}",) if others else ()


def _trial_labels(folder: Path, session: int) -> list[str]:
    """The image of each volume of a session."""
    path = _one_of(folder, _TRIALS, "trials")
    table = read_table(path, ("beta_index", "label"))
    for text in table.get("session", ()):  # ses-07, 07 or 7
        if (digits := re.search(r"\d+$", text.strip())) and int(digits[0]) != session:
            raise DataError(f"{path}: expected the trials of session {session}, found {text!r:.40}")
    index = whole_numbers(path, table, "beta_index")
    if sorted(index) != list(range(len(index))):
        counted = "; it seems to count from 1" if sorted(index) == list(range(1, len(index) + 1)) else ""
        raise DataError(f"{path}: expected each beta_index from 0 to {len(index) - 1} once, found others{counted}")
    labels = [""] * len(index)
    for volume, label in zip(index, table["label"], strict=True):
        labels[volume] = label
    if not labels or not all(labels):
        raise DataError(f"{path}: expected the label of each trial, found {'an empty one' if labels else 'no trials'}")
    return labels


def _session(
    number: int, path: Path, grid: Grid, voxels: npt.NDArray[np.int32], images: npt.NDArray[np.int64]
) -> Session:
    check_trials(path, open_nifti(path), grid, len(images))
    return Session(
        f"session {number:02d}", (path,), images, lambda columns: read_trials(path, grid, voxels[columns], len(images))
    )


def _columns(position: npt.NDArray[np.int64], region: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    columns = position[region > 0]
    return columns[columns >= 0]


def _roi_files(path: Path, subject: str) -> dict[str, Path]:
    """ROI -> its mask on the grid of the betas.

    Raises
    ------
    DataError
        If there are masks of two versions of the data set.
    """
    by_category = sorted((path / "derivatives" / "rois" / subject).glob("*/*_res-1pt8_label-*_mask.nii*"))
    plain = sorted((path / "derivatives" / "atlases" / subject / "rois").glob("*.nii*"))
    if by_category and plain:
        raise DataError(
            f"{path / 'derivatives'}: expected ROIs in rois or in atlases, found both for {subject}; two versions of "
            "the data set are mixed: keep one"
        )
    found: dict[str, Path] = {}
    for file in (*by_category, *plain):
        label = re.search(r"_label-([^_]+)_mask\.nii", file.name)
        roi = label[1] if label else file.name.partition(".nii")[0]
        if roi in found:
            raise DataError(f"{file}: expected one mask of {roi}, found {found[roi]} too")
        found[roi] = file
    return found


def _images(folder: Path, names: tuple[str, ...], subject: str) -> StimulusImages:
    encoded, files = folder / "task-images_stimuli.h5", folder / "images"
    if encoded.exists() and files.exists():
        raise DataError(
            f"{folder}: expected {encoded.name} or a folder images, found both; two versions of the data set are "
            "mixed: keep one"
        )
    if not encoded.exists() and not files.exists():
        raise DataError(
            f"{folder}: expected {encoded.name} with the images, found none; they are given out on request: "
            "https://laion-fmri.hebartlab.com/request"
        )
    if files.exists():
        missing = [name for name in names if not (files / name).is_file()]
        if missing:
            raise DataError(f"{files}: expected the images of all trials, found {len(missing)} missing: {missing[0]}")
        return StimulusImages(
            names,
            lambda row: _opaque(files / names[row], str(files / names[row])),
            names,
            tuple(files / n for n in names),
        )
    metadata = folder / "task-images_metadata.csv"
    table = read_table(metadata, ("image_name", "participant"))
    index = {name: row for row, name in enumerate(table["image_name"])}
    if len(index) < len(table["image_name"]):
        twice = next(name for name in index if table["image_name"].count(name) > 1)
        raise DataError(f"{metadata}: expected each image_name once, found {twice!r:.80} twice")
    if missing := [name for name in names if name not in index]:
        raise DataError(f"{metadata}: expected the images of all trials, found {len(missing)} missing: {missing[0]}")
    _check_participant(metadata, [table["participant"][index[name]] for name in names], names, subject)
    with open_hdf5(encoded) as file:
        rows = len(file["images"]) if "images" in file else 0
    if rows != len(index):
        raise DataError(f"{encoded}: expected {len(index)} images, as many as rows of {metadata.name}, found {rows}")
    get = functools.partial(_encoded_image, encoded, [index[name] for name in names])
    return StimulusImages(names, get, names, (encoded, metadata))


def _check_participant(path: Path, participants: Iterable[str], names: Iterable[str], subject: str) -> None:
    """Images of one subject alone belong to the same participant, who is this subject if the table says so."""
    whose = {one for one, name in zip(participants, names, strict=True) if name.startswith("unique_")}
    wrong = [one for one in whose if one.startswith("sub-") and one != subject]
    if len(whose) > 1 or wrong:
        found = ", ".join(sorted(whose))
        raise DataError(f"{path}: expected the images that only {subject} saw to be of one participant, found {found}")


def _encoded_image(path: Path, rows: Sequence[int], row: int) -> Picture:
    with open_hdf5(path) as file:
        content = bytes(np.asarray(file["images"][rows[row]], np.uint8))
    return _opaque(content, f"{path}, row {rows[row]}")


def _opaque(picture: Path | bytes, where: str) -> Picture:
    """A file or its bytes as they are; the pixels on grey, if parts are transparent."""
    try:
        with Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture)) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return picture
            background = Image.new("RGBA", image.size, (_GREY, _GREY, _GREY, 255))
            return np.asarray(Image.alpha_composite(background, image.convert("RGBA")).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: expected an image, which cannot be read: {one_line(error)}") from None


def _ncsnr(
    glm: Path, grid: Grid, mask: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
    """Ratio of signal to noise from the published ceiling of averages of n trials."""
    for pattern, times in _CEILINGS:
        if found := sorted(glm.glob(pattern)):
            ceiling = grid.read(found[0])[mask]
            known = ceiling[np.isfinite(ceiling)]
            if len(known) and (known.min() < -1e-6 or known.max() > 101):
                raise DataError(
                    f"{found[0]}: expected noise ceilings up to 100, found {known.min():g}..{known.max():g}"
                )
            # The documents say percent, examples use fractions.
            unit, scale = ("fractions", 1.0) if known.max(initial=0.0) <= 1.0 else ("percent", 100.0)
            note = f"published noise ceilings: {found[0].name}, read as {unit} of averages of {times} trials"
            return ncsnr_of_ceiling(ceiling / scale, times), (note,)
    return None, ()


def _splits(
    path: Path, subject: str, shown: set[str]
) -> tuple[Mapping[str, Mapping[str, Sequence[str]]], tuple[str, ...]]:
    """The named splits that are there: ``laion-tau`` of the subject's images, ``laion-shared-tau`` of shared ones."""
    splits: dict[str, Mapping[str, Sequence[str]]] = {}
    notes: list[str] = []
    hashes: list[str] = []
    folder = _splits_folder(path, subject)
    for pool, prefix in ((subject, "laion"), ("shared", "laion-shared")):
        for file in sorted((folder / pool).glob("*.json")) if folder else ():
            variants, unseen = _read_split(file, shown)
            for number, sides in enumerate(variants):
                splits[f"{prefix}-{file.stem}" + (f"-{number}" if len(variants) > 1 else "")] = sides
            hashes.append(f"{prefix}-{file.stem} {content_hash(file)[:_HASH]}")
            if unseen:
                notes.append(f"split {prefix}-{file.stem}: without {plural(unseen, 'image')} that no trial shows")
    return splits, (*([f"splits, by SHA-256 of their files: {', '.join(hashes)}"] if hashes else []), *notes)


def _splits_folder(path: Path, subject: str) -> Path | None:
    """In the data, else in the package laion_fmri, which is not imported."""
    package = importlib.util.find_spec("laion_fmri")
    roots = [path / "splits" / "data", path / "splits"]
    roots += [Path(package.origin).parent / "splits" / "data"] if package and package.origin else []
    return next((root for root in roots if (root / subject).is_dir() or (root / "shared").is_dir()), None)


def _read_split(path: Path, shown: set[str]) -> tuple[list[Mapping[str, Sequence[str]]], int]:
    """Sides of each variant of a split, and how many of its images no trial shows."""
    value = read_json(path)
    variants = value.get("variants") if isinstance(value, dict) else None
    if not isinstance(variants, list) or not variants:
        raise DataError(f"{path}: expected a split of LAION-fMRI, with variants, found something else")
    found: list[Mapping[str, Sequence[str]]] = []
    unseen: set[str] = set()
    for variant in variants:
        sides = {}
        for side in ("train", "test"):
            names = variant.get(f"{side}_ids") if isinstance(variant, dict) else None
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise DataError(f"{path}: expected train_ids and test_ids, lists of names of images, found others")
            sides[side] = sorted(shown & set(names))
            unseen |= set(names) - shown
            if not sides[side]:
                raise DataError(f"{path}: expected images of {plural(len(shown), 'shown image')} in {side}, found none")
        if both := set(sides["train"]) & set(sides["test"]):
            raise DataError(f"{path}: expected sides without a common image, found {plural(len(both), 'image')}")
        found.append(sides)
    return found, len(unseen)
