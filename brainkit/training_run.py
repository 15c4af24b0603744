"""One training run, from the data to the results in the run folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
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
    from brainkit.data.module import EncodingData
    from brainkit.data.splits import Split
    from brainkit.data.subject import Subject
    from brainkit.distributed import World
    from brainkit.features import TokenCache
    from brainkit.model import FactorTopy
    from brainkit.training import EncodingModule

CHUNK = 32  # steps that are replayed before the host looks at anything

Say = Callable[[str], None]


def run_training(
    settings: Config,
    backbone: str | nn.Module,
    folder: Path,
    *,
    resume: bool,
    log: RunLog,
    clock: PhaseClock,
    world: World,
    subject: Subject | None = None,
) -> None:
    """Train in `folder`, score the best checkpoint on the test images, and write the results, ``run.json`` last.

    Of several processes that were started from outside, the first one alone writes; the others train with it.

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
    world : World
        The processes of the run.
    subject : Subject, optional
        The data; by default those that `settings` name.
    """
    # cuBLAS reads it once, at its first product, and without it refuses to train deterministically.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from brainkit import evaluation, features, training
    from brainkit.checkpoints import check_identity
    from brainkit.data import make_split
    from brainkit.data.module import EncodingData
    from brainkit.epoch_board import check_board
    from brainkit.final_report import work_facts
    from brainkit.memory import refuse_too_large, says_what_to_lower
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
        # The first process makes what is not there yet: a sample subject, the tokens, the run folder.
        subject, settings = world.in_turn(lambda: _subject(settings, log))
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
    precision = _precision(settings, device)
    if settings.train.cuda_graph == "on" and (why := _why_no_graph(settings, device)):
        raise UsageError(f"train.cuda_graph 'on' cannot be had: {why}")
    refuse_too_large(
        network.widths,
        len(subject.vertices),
        bottleneck=settings.model.bottleneck,
        hidden=settings.model.selector_width if settings.model.topography else 0,
        device=device,
    )
    identity = _identity(subject, network, split)
    last = folder / "checkpoints" / "last.ckpt"
    going_on = resume and last.is_file()
    if going_on:
        at = check_identity(last, identity)
        log(f"going on after step {at.steps}: {at.epochs} epochs and {at.batches} steps of the next are done")

    grid = (settings.model.grid, settings.model.grid)
    lower = "choose a smaller backbone.size or backbone, or give it a machine of its own"

    def prepare() -> tuple[TokenCache, float | None]:
        with _made(folder, resume), says_what_to_lower("running the backbone", lower):
            made = _tokens(network, subject, grid, device, settings, log)
            settings.write(folder / "config.yaml")
        clock.lap("tokens")
        log.into(folder / "log.txt")
        if going_on:
            _same_split(folder, split, names)
        else:
            split.write(folder / "split.json")
        return made

    tokens, rate = world.in_turn(prepare, lambda: _tokens(network, subject, grid, device, settings, log))
    log(f"split: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test images")
    for note in split.notes:
        log(f"split: {note}")

    torch.manual_seed(settings.seed)
    with says_what_to_lower("making the model", "lower model.bottleneck or model.selector_width"):
        model = FactorTopy(
            tokens.widths,
            coordinates,
            **model_shape(settings.model),
            backend=settings.model.backend,
            precision=precision,
        )

    def measure() -> dict[str, Any]:
        features.fit_statistics(model, tokens, split.train, device=device)
        if not settings.model.standardise:
            model.leave_tokens_raw()
        model.set_response_scale(*_response_scale(subject, split.train))
        return model.state_dict()

    measured = world.once(measure)
    if not world.first:
        model.load_state_dict(measured)
    data = EncodingData(tokens, subject.responses, split, batch_size=settings.train.batch_size, seed=settings.seed)
    module = training.EncodingModule(model, settings.train, data.steps * settings.train.epochs)
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
    best = _fit(
        module,
        data,
        folder,
        device,
        resume,
        log,
        world,
        identity=identity,
        place=functools.partial(place, settings),
        placed=clock.facts["tokens"],
    )
    data.source = None  # what was on the device is free again
    clock.lap("training")

    def finish() -> None:
        training.load_best(module, best)
        model.cpu()
        if model.backend == "triton":
            model.backend = "auto"
        scores = evaluation.score(model, tokens, subject.responses, split.test, subject.noise_ceiling)
        clock.lap("evaluation")
        write_parity(folder, model, network, subject, split, tokens)
        write_results(folder, settings, subject, network, model, scores, truth, split, clock, log)

    world.once(finish)


def _precision(settings: Config, device: str) -> str:
    """What training multiplies, once it is known that the device and the backend can; before anything is made."""
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


def _identity(subject: Subject, network: Backbone, split: Split) -> dict[str, str]:
    """What a run is trained on, by the words in which a difference is told."""
    sides = np.concatenate([split.train, [-1], split.validation, [-1], split.test])
    return {
        "images or responses": subject.data_hash,
        "backbone weights": network.weights_hash,
        "backbone layers": ", ".join(network.layer_names),
        "preprocessing": json.dumps(network.preprocessing.to_json(), sort_keys=True),
        "split": hashlib.sha256(sides.astype("<i8").tobytes()).hexdigest(),
    }


def place(settings: Config, model: FactorTopy, data: EncodingData, device: str, say: Say) -> int:
    """Decide where tokens lie and who makes the steps, say both, and give the number of steps of a chunk."""
    from brainkit.memory import needed
    from brainkit.residency import choose_source

    rows = np.concatenate([data.split.train, data.split.validation])
    need = needed(model, len(rows), data.batch_size, device)
    data.source, line = choose_source(
        data.tokens, data.responses, rows, wanted=settings.train.residency, device=device, need=need
    )
    say(line)
    if why := _why_no_graph(settings, device):
        say(f"steps: {model.precision}, one by one ({why})")
        return 0
    say(f"steps: {model.precision}, {CHUNK} at a time as replays of a CUDA graph")
    return CHUNK


def _why_no_graph(settings: Config, device: str) -> str | None:
    """What stands in the way of steps that are captured; None if nothing does."""
    from brainkit.ops import available_backends

    if settings.train.cuda_graph == "off":
        return "as asked"
    if device != "cuda":
        return f"a CUDA graph needs a GPU of NVIDIA, and this is {device}"
    if settings.train.devices * settings.train.num_nodes > 1:
        return "several processes exchange gradients in every step"
    if settings.model.backend not in ("auto", "triton") or available_backends()["triton"] is not None:
        return "only the triton backend never waits for the host"
    return None


def _same_split(folder: Path, made: Split, names: list[str]) -> None:
    from brainkit.data.splits import Split

    held = Split.read(folder / "split.json", names=names)
    for side in ("train", "validation", "test"):
        if not np.array_equal(getattr(held, side), getattr(made, side)):
            raise DataError(f"{folder / 'split.json'}: the data has changed since the run began; train anew")


@contextlib.contextmanager
def _made(folder: Path, resume: bool) -> Iterator[None]:
    """Make the run folder; where the work inside fails, one that was made here and is empty goes again."""
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
    network: Backbone, subject: Subject, grid: tuple[int, int], device: str, settings: Config, log: RunLog
) -> tuple[TokenCache, float | None]:
    """The tokens, and the images a second that made them; None where they were found."""
    from brainkit import features

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


def _response_scale(subject: Subject, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. (V,) of the training responses, streamed in two passes."""
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    mean = sum(subject.responses.rows(block).sum(0, dtype=np.float64) for block in blocks) / len(rows)
    square = sum(np.square(subject.responses.rows(block) - mean).sum(0) for block in blocks)
    return np.asarray(mean), np.sqrt(np.asarray(square) / len(rows))


def _fit(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    device: str,
    resume: bool,
    log: RunLog,
    world: World,
    *,
    placed: dict[str, Any],
    **options: Any,
) -> Path:
    """Train, showing how far it is; what is said of where the tokens lie is noted in `placed` too."""
    from brainkit import training
    from brainkit.epoch_board import open_board

    config, steps = module.config, module.planned_steps
    together = functools.partial(
        training.fit,
        module,
        data,
        folder,
        device=device,
        resume=resume,
        devices=config.devices,
        num_nodes=config.num_nodes,
        **options,
    )
    if not world.first:
        return together()
    started = time.monotonic()
    with (
        progress_bar("training", "steps") as advance,
        open_board(folder / "tensorboard", module.config, steps) as board,
    ):

        def epoch_done(row: dict[str, float]) -> None:
            board(row)
            advance(row["step"], steps, f"loss {row['train_loss']:.3f}, validation r {row['val_r']:.3f}")
            log.write(
                f"epoch {row['epoch']:.0f}/{config.epochs}: loss {row['train_loss']:.4f}, "
                f"validation r {row['val_r']:.4f}, {row['seconds']:.1f} s"
            )

        def say(line: str) -> None:
            log(line)
            if line.startswith("memory: ") and "stay on the disk" not in line:
                placed["residency"] = f"on {device}"

        best = together(on_epoch=epoch_done, on_step=lambda step: advance(step, steps), say=say)
    epochs = config.epochs
    if (last := len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1) < epochs:
        log(f"stopped early, after epoch {last} of {epochs}: validation r no better for {config.patience} epochs")
        epochs, steps = last, steps * last // epochs
    processes = config.devices * config.num_nodes
    where = device if processes == 1 else f"{device}, {processes} processes"
    log(f"trained {epochs} epochs, {steps} steps, in {time.monotonic() - started:.1f} s on {where}")
    return best
