"""What a training needs before its first step: data, network, tokens, and the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainkit.config import Config, DataConfig
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.runs.folder import RunLog
from brainkit.utils.progress import progress_bar

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.data.splits import Split
    from brainkit.data.subject import Subject
    from brainkit.features.cache import TokenCache

Say = Callable[[str], None]

# What lies in the folder of a run of several subjects beside their own folders.
_OWN_NAMES = ("checkpoints", "config.yaml", "log.txt", "maps", "metrics.csv", "run.json", "split.json", "tensorboard")


@dataclass(frozen=True)
class Trainee:
    """A subject that is trained on.

    Attributes
    ----------
    name : str
        In a run of several, of its folder.
    subject : Subject
    settings : Config
        As of a run on this subject alone.
    folder : Path
        Of its results.
    split : Split
    truth : dict, optional
        What was planted in a simulated subject.
    """

    name: str
    subject: Subject
    settings: Config
    folder: Path
    split: Split
    truth: dict[str, np.ndarray] | None

    @property
    def image_names(self) -> list[str]:
        """What the split knows the images by."""
        return [path.name for path in self.subject.images]


def check_data(settings: Config) -> None:
    """See that the data named are there: before a folder is made, and before a sample subject is."""
    for place in (settings.data.path, *settings.data.paths):
        given = Path(place)
        if place and not given.is_dir():
            raise DataError(f"{given}: expected a data folder, found {'a file' if given.exists() else 'nothing'}")


def open_subjects(settings: Config, given: Sequence[Subject], say: Say) -> tuple[list[Subject], Config]:
    """The subjects that were given or that the settings name; and the settings with their places."""
    from brainkit.data import open_subject

    if given:
        return list(given), settings
    if settings.data.paths:
        return [open_subject(place) for place in settings.data.paths], settings
    subject, settings = _subject(settings, say)
    return [subject], settings


def trainees(subjects: Sequence[Subject], settings: Config, folder: Path) -> list[Trainee]:
    """Each subject with its split, its own settings and the folder of its results."""
    from brainkit.data import make_split
    from brainkit.data.joint_splits import make_joint_splits
    from brainkit.evaluation import scores as evaluation

    fractions = (settings.data.validation, settings.data.test)
    split_seed = settings.seed if settings.data.split_seed < 0 else settings.data.split_seed
    image_names = [[path.name for path in subject.images] for subject in subjects]
    folders, names = [folder], [subjects[0].name]
    if len(subjects) == 1:
        (only,) = subjects
        splits = [make_split(only.groups, only.official_test, split_seed, fractions, names=image_names[0])]
        own = [settings]
    else:
        names = folder_names([subject.name for subject in subjects])
        splits = make_joint_splits(
            [subject.groups for subject in subjects],
            [subject.official_test for subject in subjects],
            split_seed,
            fractions,
            names=image_names,
            subjects=names,
        )
        folders = [folder / name for name in names]
        places = [replace(settings.data, path=str(subject.root.resolve()), paths=()) for subject in subjects]
        own = [replace(settings, data=place) for place in places]
    truths = [subject.root / "truth.npz" for subject in subjects]
    return [
        Trainee(name, subject, alone, place, split, evaluation.read_truth(truth) if truth.is_file() else None)
        for name, subject, alone, place, split, truth in zip(names, subjects, own, folders, splits, truths, strict=True)
    ]


def folder_names(names: Sequence[str]) -> list[str]:
    """Different names for the subjects' folders, on disks that do not tell large letters from small ones too."""
    taken, found = set(_OWN_NAMES), []
    for name in names:
        unique, k = name, 2
        while unique.lower() in taken:
            unique, k = f"{name}-{k}", k + 1
        taken.add(unique.lower())
        found.append(unique)
    return found


def check_backend(settings: Config, device: str) -> str:
    """What training multiplies, once it is known that the device and the backend can; before anything is made."""
    from brainkit.ops import available_backends

    if reason := available_backends().get(settings.model.backend):
        raise BrainkitError(f"model.backend {settings.model.backend!r} cannot run here: {reason}")
    if settings.model.backend == "triton" and device != "cuda":
        raise UsageError(f"train.device must be cuda for model.backend 'triton', got {device}")
    return _precision(settings, device)


def identity(people: Sequence[Trainee], network: Backbone) -> dict[str, str]:
    """What a run is trained on, by the words in which a difference is told."""
    parts = [(person.split.train, [-1], person.split.validation, [-1], person.split.test) for person in people]
    sides = np.concatenate([side for part in parts for side in part])
    data = [person.subject.data_hash for person in people]
    return {
        "images or responses": data[0] if len(data) == 1 else hashlib.sha256("".join(data).encode()).hexdigest(),
        "backbone weights": network.weights_hash,
        "backbone layers": ", ".join(network.layer_names),
        "preprocessing": json.dumps(network.preprocessing.to_json(), sort_keys=True),
        "split": hashlib.sha256(sides.astype("<i8").tobytes()).hexdigest(),
    }


def same_split(folder: Path, made: Split, names: list[str]) -> None:
    """See that a run that is gone on with divides its images as it did."""
    from brainkit.data.splits import Split

    held = Split.read(folder / "split.json", names=names)
    for side in ("train", "validation", "test"):
        if not np.array_equal(getattr(held, side), getattr(made, side)):
            raise DataError(f"{folder / 'split.json'}: the data has changed since the run began; train anew")


@contextlib.contextmanager
def made(folder: Path, resume: bool) -> Iterator[None]:
    """Make the run folder; where the work inside fails, one that was made here goes again, with its settings."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=resume)
    except FileExistsError:  # made by somebody else since it was looked for
        raise UsageError(f"{folder}: exists already; go on with it by --resume, or name another --out") from None
    except OSError as error:
        raise BrainkitError(f"{folder}: the run folder cannot be made: {error.strerror}") from None
    try:
        yield
    except Exception:
        if new:
            with contextlib.suppress(OSError):
                (folder / "config.yaml").unlink(missing_ok=True)
                folder.rmdir()
        raise


def chosen_backbone(settings: Config, given: str | nn.Module | None = None) -> Backbone:
    """The network that was given, as the settings would have it shown, or else the one that they name."""
    from brainkit.backbones import Backbone, load_backbone, wrap_network

    c = settings.backbone
    if isinstance(given, Backbone):
        return given
    if given is not None and not isinstance(given, str):
        preset = settings.data.preset or None
        return wrap_network(given, layers=c.layers or None, size=c.size or None, preset=preset)
    return load_backbone(
        c.name,
        weights=c.weights or None,
        random_weights=c.random_weights,
        layers=c.layers or None,
        size=c.size or None,
        fit=settings.data.fit,  # type: ignore[arg-type]
        preset=settings.data.preset or None,
        seed=settings.seed,
    )


def tokens_of(
    network: Backbone, subject: Subject, grid: tuple[int, int], device: str, settings: Config, log: RunLog
) -> tuple[TokenCache, float | None]:
    """The tokens, and the images a second that made them; None where they were found."""
    from brainkit.features import extract as features

    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        advance: Callable[..., None] | None = None

        def progress(done: int) -> None:
            nonlocal advance
            if advance is None:  # what is said before would disturb the bar
                advance = stack.enter_context(progress_bar("tokens", "images"))
            advance(done, len(subject))

        tokens = features.extract_tokens(
            network,
            subject.images,
            grid=grid,
            device=device,
            dtype=settings.data.token_dtype,
            say=log,
            progress=progress,
        )
    network.cpu()
    if not tokens.extracted:
        return tokens, None
    rate = round(tokens.extracted / (time.monotonic() - started), 1)
    log(f"tokens of {tokens.extracted} images extracted: {rate:.1f} images/s on {device}")
    return tokens, rate


def response_scale(subject: Subject, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. (V,) of the training responses, streamed in two passes."""
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    mean = sum(subject.responses.rows(block).sum(0, dtype=np.float64) for block in blocks) / len(rows)
    square = sum(np.square(subject.responses.rows(block) - mean).sum(0) for block in blocks)
    return np.asarray(mean), np.sqrt(np.asarray(square) / len(rows))


def _subject(settings: Config, say: Say) -> tuple[Subject, Config]:
    """Open the data that was named, or the one that stands in, saying which; its path is kept absolute."""
    from brainkit.data import open_subject

    path = settings.data.path or os.environ.get("BRAINKIT_DATA", "")
    if settings.data.path == "":
        if path:
            say(f"data: {path} ($BRAINKIT_DATA)")
        else:
            from brainkit.sample import default_sample

            path = str(default_sample(say))
            say(f"data: none given, so the simulated sample subject ({path})")
    data: DataConfig = replace(settings.data, path=str(Path(path).resolve()))
    return open_subject(Path(path)), replace(settings, data=data)


def _precision(settings: Config, device: str) -> str:
    """What training multiplies, if the device and the backend can."""
    from brainkit.ops import available_backends, cpu

    precision, backend = settings.model.precision, settings.model.backend
    if precision == "auto":
        kernels = device == "cuda" and backend in ("auto", "triton") and available_backends()["triton"] is None
        return "tf32" if kernels else "float32"
    if precision == "float32":
        return precision
    wanted, kernels_of = ("cpu", "cpu") if precision == "bf16x3" else ("cuda", "triton")
    if device != wanted:
        raise UsageError(f"train.device must be {wanted} for model.precision {precision!r}, got {device}")
    if backend not in ("auto", kernels_of):
        raise UsageError(
            f"model.backend must be auto or {kernels_of} for model.precision {precision!r}, got {backend!r}"
        )
    reason = available_backends()[kernels_of]
    if precision == "bf16x3":
        reason = reason or cpu.why_no_bf16x3()
    if reason:
        raise BrainkitError(f"model.precision {precision!r} cannot run here: {reason}")
    return precision
