"""The Natural Scenes Dataset as it is released: single-trial responses on surfaces and in volumes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainkit.data.dataset import NSD, NSD_PAPER, Dataset
from brainkit.data.layouts.nsd_algonauts import algonauts_from_trials
from brainkit.data.layouts.nsd_betas import Betas, open_betas
from brainkit.data.layouts.nsd_design import IMAGES, named_splits, read_design
from brainkit.data.layouts.nsd_rois import HEMISPHERES
from brainkit.data.layouts.nsd_spaces import SPACES, SURFACES, Space, open_space
from brainkit.data.layouts.nsd_stimuli import Brick, read_images
from brainkit.data.layouts.nsd_synthetic import SYNTHETIC_DATASET, synthetic_images, synthetic_order
from brainkit.data.subject import read_note
from brainkit.data.trials.images import StimulusImages
from brainkit.data.trials.prepare import missing_sessions
from brainkit.data.trials.trials import Session, Trials
from brainkit.errors import DataError, UsageError
from brainkit.utils.text import nearest_name

DATASET = Dataset(name="Natural Scenes Dataset", citation=(NSD_PAPER,))
NSD_CORE, SYNTHETIC, ALGONAUTS = "nsd", "synthetic", "algonauts"
# The releases of the responses, the best first.
VERSIONS = {
    NSD_CORE: {"b3": "betas_fithrf_GLMdenoise_RR", "b2": "betas_fithrf", "b1": "betas_assumehrf"},
    SYNTHETIC: {"b3": "nsdsyntheticbetas_fithrf_GLMdenoise_RR", "b2": "nsdsyntheticbetas_fithrf"},
}
STIMULI = Path("nsddata_stimuli") / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
_FILES = {NSD_CORE: r"betas_session(\d+)", SYNTHETIC: r"betas_(nsdsynthetic)"}
_SUFFIXES = {"fsaverage": ("mgh",), "nativesurface": ("hdf5",)}  # of volumes: the first that is there
_VOLUME_SUFFIXES = ("hdf5", "nii.gz", "nii")
_LATE = 3  # last sessions of each subject, which were released later

Splits = dict[str, dict[str, Sequence[str]]]
Files = dict[int, dict[str, Path]]  # session -> hemisphere, or "" for a volume -> file


@dataclass(frozen=True)
class Source:
    """Which responses are meant: those of a subject and an experiment, in a space and a version."""

    root: Path
    subject: int
    experiment: str
    space: str
    version: str

    @property
    def folder(self) -> Path:
        return _space_folder(self.root, self.subject, self.space) / self.version


def nsd(
    path: Path,
    *,
    subject: str = "",
    betas: str = "",
    space: str = "",
    experiment: str = NSD_CORE,
    allow_missing_sessions: bool = False,
) -> Trials:
    """Describe the trials of a subject of the Natural Scenes Dataset, or of NSD-synthetic.

    Parameters
    ----------
    path : Path
        The folder with ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    subject : str
        ``1``, ``01`` or ``subj01``; may be left out if there is one.
    betas : str
        ``b1``, ``b2``, ``b3`` or the name of a folder; by default the best that is there.
    space : str
        ``fsaverage``, ``func1pt8mm``, ``func1mm`` or ``nativesurface``; by default the first of these that is there.
        Columns are the vertices of the left hemisphere, then of the right; or the voxels of the brain mask, the first
        axis being the fastest.
    experiment : str
        ``nsd``; ``synthetic`` for NSD-synthetic, a test set; ``algonauts`` for the data of that challenge, see
        `brainkit.data.layouts.nsd_algonauts.algonauts_from_trials`.
    allow_missing_sessions : bool
        Use the sessions that are there.

    Raises
    ------
    DataError
        If a file is missing, damaged, or contradicts another.
    UsageError
        If something is chosen that is not there.

    References
    ----------
    Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence.
    Gifford et al. (2026), A 7T fMRI dataset of synthetic images for out-of-distribution modeling of vision.
    """
    if experiment == ALGONAUTS:
        return algonauts_from_trials(nsd(path, subject=subject, betas=betas, space=space or "fsaverage"))
    if experiment not in VERSIONS:
        known = ", ".join((*VERSIONS, ALGONAUTS))
        raise UsageError(f"{path}: expected the experiment {known}, found {experiment!r}")
    source = _choose(path, _subject(path, subject), experiment, space, betas)
    files = _session_files(source.folder, source.space, experiment)
    opened = {number: _open(of_session, source) for number, of_session in sorted(files.items())}
    first = next(iter(opened.values()))
    stems = [f"session{number:02d}" if experiment == NSD_CORE else "nsdsynthetic" for number in opened]
    described = open_space(path, source.subject, source.space, [file.shape[0] for file in first], stems)
    n_trials = _check_trials(opened, described)
    splits: Splits
    notes: tuple[str, ...]
    if experiment == SYNTHETIC:
        shown, images = _synthetic(source, n_trials)
        splits = {"nsd-synthetic": {"test": images.names}}
        notes = ("NSD-synthetic: a test set, of one session",)
    else:
        shown, images, splits, notes = _core(source, list(opened), n_trials, bool(allow_missing_sessions))
    return Trials(
        name=f"subj{source.subject:02d}",
        layout=f"{'NSD-synthetic' if experiment == SYNTHETIC else 'NSD'}, {source.space}, {source.version}",
        root=path,
        sessions=tuple(_session(number, of, described, shown[number]) for number, of in opened.items()),
        images=images,
        vertices=described.vertices,
        rois=described.rois,
        coordinates=described.coordinates,
        volume=described.volume,
        ncsnr=described.read_ncsnr(source.folder),
        splits=splits,
        dataset=SYNTHETIC_DATASET if experiment == SYNTHETIC else DATASET,
        kind=NSD,
        note=read_note(path),
        notes=(*notes, *described.notes),
        extra_files=tuple(
            file for file in (path / "simulated.json", path / "truth" / source.space / "truth.npz") if file.is_file()
        ),
        reads_columns=all(file.by_column for of_session in opened.values() for file in of_session),
    )


def _core(
    source: Source, sessions: list[int], n_trials: int, allow: bool
) -> tuple[dict[int, npt.NDArray[np.int64]], StimulusImages, Splits, tuple[str, ...]]:
    """Rows of the images that the trials of each session showed, the images, the splits, and notes."""
    simulated = read_note(source.root) is not None
    design = read_design(source.root, source.subject, n_trials, simulated)
    if beyond := [number for number in sessions if not 1 <= number <= design.n_sessions]:
        raise DataError(
            f"{source.folder}: expected sessions 1 to {design.n_sessions} of this subject, found {beyond[0]}"
        )
    notes = missing_sessions(
        sessions, design.n_sessions, allow, str(source.folder), _about_missing(source, sessions, design.n_sessions)
    )
    ids = {number: design.session(number) for number in sessions}
    numbers = np.unique(np.concatenate(list(ids.values())))
    names = [f"nsd-{number:05d}" for number in numbers.tolist()]
    named = dict(zip(numbers.tolist(), (f"{name}.png" for name in names), strict=True))
    images = read_images([Brick(source.root / STIMULI, numbers, IMAGES)], names)
    splits: Splits = {
        split: {side: [named[number] for number in members] for side, members in sides.items()}
        for split, sides in named_splits(design, ids).items()
    }
    return {number: np.searchsorted(numbers, shown) for number, shown in ids.items()}, images, splits, notes


def _synthetic(source: Source, n_trials: int) -> tuple[dict[int, npt.NDArray[np.int64]], StimulusImages]:
    order = synthetic_order(source.root, n_trials, simulated=read_note(source.root) is not None)
    numbers = np.unique(order)
    return {1: np.searchsorted(numbers, order)}, synthetic_images(source.root, source.subject, numbers)


def _session(number: int, betas: Sequence[Betas], space: Space, images: npt.NDArray[np.int64]) -> Session:
    files = tuple(file.path for file in betas)
    return Session(f"session {number:02d}", files, images, functools.partial(space.read, betas))


def _subject(path: Path, subject: str) -> int:
    found = [p for p in (path / "nsddata_betas" / "ppdata").glob("subj*") if re.fullmatch(r"subj0[1-8]", p.name)]
    there = sorted(int(folder.name[4:]) for folder in found)
    if not there:
        raise DataError(f"{path}: expected subjects such as subj01 in nsddata_betas/ppdata, found none")
    shown = ", ".join(map(str, there))
    if not subject:
        if len(there) > 1:
            raise UsageError(f"{path}: expected one subject, found {shown}; choose one: --subject {there[0]}")
        return there[0]
    digits = subject.removeprefix("subj")
    if not digits.isdecimal() or int(digits) not in there:
        raise UsageError(f"{path}: expected the subject {shown}, found {subject!r}")
    return int(digits)


def _space_folder(root: Path, subject: int, space: str) -> Path:
    return root / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / space


def _choose(root: Path, subject: int, experiment: str, space: str, betas: str) -> Source:
    """The first space and version that have files, of those that are wanted."""
    versions = VERSIONS[experiment]
    if space and space not in SPACES:
        raise UsageError(
            f"{root}: expected the space {', '.join(SPACES)}, found {space!r}{nearest_name(space, SPACES)}"
        )
    there = {
        (name, version)
        for name in SPACES
        for version in {*versions.values(), versions.get(betas, betas)} - {""}
        if _session_files(_space_folder(root, subject, name) / version, name, experiment)
    }
    for name in [space] if space else SPACES:
        for version in [versions.get(betas, betas)] if betas else versions.values():
            if (name, version) in there:
                return Source(root, subject, experiment, name, version)
    wanted = " of ".join(filter(None, (versions.get(betas, betas), space))) or f"responses such as {versions['b3']}"
    found = ", ".join(sorted(f"{version} in {name}" for name, version in there)) or "none"
    error = UsageError if there and (space or betas) else DataError
    raise error(f"{root}: expected {wanted} of subject {subject}, found {found}")


def _session_files(folder: Path, space: str, experiment: str) -> Files:
    """Files of the responses by session; a session of NSD-synthetic is number 1."""
    surface = space in SURFACES
    suffixes = _SUFFIXES.get(space, _VOLUME_SUFFIXES)
    side = r"(lh|rh)\." if surface else "()"
    shape = re.compile(rf"{side}{_FILES[experiment]}\.({'|'.join(map(re.escape, suffixes))})")
    found: dict[int, dict[str, dict[str, Path]]] = {}
    for path in sorted(folder.glob("*betas_*")):
        if match := shape.fullmatch(path.name):
            number = int(match[2]) if match[2].isdecimal() else 1
            found.setdefault(number, {}).setdefault(match[1], {})[match[3]] = path
    files: Files = {
        number: {part: next(kinds[suffix] for suffix in suffixes if suffix in kinds) for part, kinds in parts.items()}
        for number, parts in found.items()
    }
    for parts in files.values():
        if surface and len(parts) < len(HEMISPHERES):
            (there,) = parts.values()
            other = ("rh" if there.name.startswith("lh") else "lh") + there.name[2:]
            raise DataError(f"{folder / other}: file not found; expected both hemispheres, found {there.name}")
    return files


def _open(files: Mapping[str, Path], source: Source) -> list[Betas]:
    parts = HEMISPHERES if source.space in SURFACES else ("",)
    return [open_betas(files[part]) for part in parts]


def _check_trials(opened: Mapping[int, Sequence[Betas]], space: Space) -> int:
    """The number of trials, which all files share."""
    first = next(iter(opened.values()))[0]
    for of_session in opened.values():
        for part, file in zip(space.parts, of_session, strict=True):
            part.check(file)
            if file.n_trials != first.n_trials:
                raise DataError(
                    f"{file.path}: expected {first.n_trials} trials, as in {first.path.name}, found {file.n_trials}"
                )
    return first.n_trials


def _about_missing(source: Source, sessions: Sequence[int], expected: int) -> str:
    """What is known of the sessions that are missing, in words."""
    missing = set(range(1, expected + 1)) - set(sessions)
    if missing and missing == set(range(expected - _LATE + 1, expected + 1)):
        return "the last three sessions were released in August 2023, older copies lack them"
    for version in VERSIONS[source.experiment].values():
        others = set(_session_files(source.folder.parent / version, source.space, source.experiment))
        if version != source.version and missing & others:
            return f"{version} has some of them, but versions are not mixed: another --betas, or download the rest"
    return ""
