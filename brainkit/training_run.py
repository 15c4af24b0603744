"""One training run, from the data to the results in the run folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.config import Config, DataConfig
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.progress import progress_bar
from brainkit.run_folder import PhaseClock, RunLog, model_shape
from brainkit.run_results import write_parity, write_results

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.data.splits import Split
    from brainkit.data.subject import Subject
    from brainkit.features import TokenCache

Say = Callable[[str], None]


def run_training(
    settings: Config,
    backbone: str | nn.Module,
    folder: Path,
    *,
    resume: bool,
    log: RunLog,
    clock: PhaseClock,
    subject: Subject | None = None,
) -> None:
    """Train in `folder`, score the best checkpoint on the test images, and write the results, ``run.json`` last.

    Parameters
    ----------
    settings : Config
        Of the run, complete but for the data's place.
    backbone : str or Module
        A loaded network, or a name: then the one that `settings` name.
    folder : Path
        The run folder; made here.
    resume : bool
        Go on from the last checkpoint in it.
    log : RunLog
        Takes lines; from here on they are kept in the folder.
    clock : PhaseClock
        Takes the time of each phase.
    subject : Subject, optional
        The data; by default those that `settings` name.
    """
    # cuBLAS reads it once, at its first product, and without it refuses to train deterministically.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from brainkit import evaluation, features, training
    from brainkit.data import make_split
    from brainkit.data.module import EncodingData
    from brainkit.epoch_board import check_board
    from brainkit.final_report import work_facts
    from brainkit.model import FactorTopy
    from brainkit.ops import available_backends, fastest_backend

    device = training.choose_device(settings.train.device)
    check_board(settings.train)
    # What can be wrong with the request is found out before a folder is made, and before a sample subject is.
    given = Path(settings.data.path)
    if settings.data.path and not given.is_dir():
        raise DataError(f"{given}: expected a data folder, found {'a file' if given.exists() else 'nothing'}")
    network = chosen_backbone(settings, backbone)
    if subject is None:
        subject, settings = _subject(settings, log)
    log(subject.describe())
    if not network.pretrained:
        log(f"{network.name}: RANDOM weights, a control: its maps say nothing about a trained network")
    fractions = (settings.data.validation, settings.data.test)
    names = [path.name for path in subject.images]
    split = make_split(subject.groups, subject.official_test, settings.seed, fractions, names=names)
    coordinates = subject.coordinates
    truth_file = subject.root / "truth.npz"
    truth = evaluation.read_truth(truth_file) if truth_file.is_file() else None
    if reason := available_backends().get(settings.model.backend):
        raise BrainkitError(f"model.backend {settings.model.backend!r} cannot run here: {reason}")
    if settings.model.backend == "triton" and device != "cuda":
        raise UsageError(f"train.device must be cuda for model.backend 'triton', got {device}")
    if settings.model.precision != "float32":
        _check_precision(settings, device)

    grid = (settings.model.grid, settings.model.grid)
    with _made(folder):
        tokens, rate = _tokens(network, subject, grid, device, log)
        settings.write(folder / "config.yaml")
    clock.lap("tokens")
    log.into(folder / "log.txt")
    if resume and (folder / "checkpoints" / "last.ckpt").is_file():
        _same_split(folder, split, names)
    else:
        split.write(folder / "split.json")
    log(f"split: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test images")
    for note in split.notes:
        log(f"split: {note}")

    torch.manual_seed(settings.seed)
    model = FactorTopy(
        tokens.widths,
        coordinates,
        **model_shape(settings.model),
        backend=settings.model.backend,
        precision=settings.model.precision,
    )
    features.fit_statistics(model, tokens, split.train)
    if not settings.model.standardise:
        model.leave_tokens_raw()
    model.set_response_scale(*_response_scale(subject, split.train))
    data = EncodingData(tokens, subject.responses, split, batch_size=settings.train.batch_size, seed=settings.seed)
    steps = len(data.train_dataloader().sampler) * settings.train.epochs  # type: ignore[arg-type]
    module = training.EncodingModule(model, settings.train, steps)
    clock.facts = work_facts(
        device=device,
        backend=fastest_backend(device) if model.backend == "auto" else model.backend,
        precision=model.precision,
        tokens=tokens,
        rate=rate,
        residency="streamed from the disk",
    )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    best = _fit(module, data, folder, device, resume, settings.train.epochs, log)
    clock.lap("training")

    training.load_best(module, best)
    model.cpu()
    if model.backend == "triton":
        model.backend = "auto"
    scores = evaluation.score(model, tokens, subject.responses, split.test, subject.noise_ceiling)
    clock.lap("evaluation")
    write_parity(folder, model, network, subject, split, tokens)
    write_results(folder, settings, subject, network, model, scores, truth, split, clock, log)


def _check_precision(settings: Config, device: str) -> None:
    """Before anything is made: whether the device and the backend can train in the precision asked for."""
    from brainkit.ops import available_backends, cpu

    precision, backend = settings.model.precision, settings.model.backend
    wanted, kernels = ("cpu", "cpu") if precision == "bf16x3" else ("cuda", "triton")
    if device != wanted:
        raise UsageError(f"train.device must be {wanted} for model.precision {precision!r}, got {device}")
    if backend not in ("auto", kernels):
        raise UsageError(f"model.backend must be auto or {kernels} for model.precision {precision!r}, got {backend!r}")
    reason = available_backends()[kernels]
    if precision == "bf16x3":
        reason = reason or cpu.why_no_bf16x3()
    if reason:
        raise BrainkitError(f"model.precision {precision!r} cannot run here: {reason}")


def _same_split(folder: Path, made: Split, names: list[str]) -> None:
    from brainkit.data.splits import Split

    held = Split.read(folder / "split.json", names=names)
    for side in ("train", "validation", "test"):
        if not np.array_equal(getattr(held, side), getattr(made, side)):
            raise DataError(f"{folder / 'split.json'}: the data has changed since the run began; train anew")


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the run folder; where the work inside fails, one that was made here and is empty goes again."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrainkitError(f"{folder}: the run folder cannot be made: {error.strerror}") from None
    try:
        yield
    except Exception:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


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


def _tokens(
    network: Backbone, subject: Subject, grid: tuple[int, int], device: str, log: RunLog
) -> tuple[TokenCache, float | None]:
    """The tokens, and the images a second that made them; None where they were found."""
    from brainkit import features

    if features.tokens_in_cache(network, subject.images, grid):
        log(f"tokens of {len(subject)} images: found in the cache")
        return features.extract_tokens(network, subject.images, grid=grid, device=device), None
    started = time.monotonic()
    with progress_bar("tokens", "images") as advance:
        tokens = features.extract_tokens(
            network,
            subject.images,
            grid=grid,
            device=device,
            progress=lambda done: advance(done, len(subject)),
        )
    network.cpu()
    rate = round(len(subject) / (time.monotonic() - started), 1)
    log(f"tokens of {len(subject)} images: {rate:.1f} images/s on {device}")
    return tokens, rate


def _response_scale(subject: Subject, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. (V,) of the training responses, streamed in two passes."""
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    mean = sum(subject.responses.rows(block).sum(0, dtype=np.float64) for block in blocks) / len(rows)
    square = sum(np.square(subject.responses.rows(block) - mean).sum(0) for block in blocks)
    return np.asarray(mean), np.sqrt(np.asarray(square) / len(rows))


def _fit(module: Any, data: Any, folder: Path, device: str, resume: bool, epochs: int, log: RunLog) -> Path:
    from brainkit import training
    from brainkit.epoch_board import open_board

    steps = module.planned_steps
    started = time.monotonic()
    with (
        progress_bar("training", "steps") as advance,
        open_board(folder / "tensorboard", module.config, steps) as board,
    ):

        def epoch_done(row: dict[str, float]) -> None:
            board(row)
            advance(row["step"], steps, f"loss {row['train_loss']:.3f}, validation r {row['val_r']:.3f}")
            log.write(
                f"epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.4f}, validation r {row['val_r']:.4f}, "
                f"{row['seconds']:.1f} s"
            )

        best = training.fit(
            module,
            data,
            folder,
            device=device,
            resume=resume,
            on_epoch=epoch_done,
            on_step=lambda step: advance(step, steps),
        )
    if (last := len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1) < epochs:
        log(
            f"stopped early, after epoch {last} of {epochs}: validation r no better for {module.config.patience} epochs"
        )
        epochs, steps = last, steps * last // epochs
    log(f"trained {epochs} epochs, {steps} steps, in {time.monotonic() - started:.1f} s on {device}")
    return best
