"""`fit` trains an encoding module: from its data to the checkpoints in a run folder, on any number of processes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as lightning
import torch

from brainkit.config import TrainConfig
from brainkit.errors import StoppedTraining, UsageError
from brainkit.training import distributed
from brainkit.training.batch_source import DeviceSource, choose_sources
from brainkit.training.calibration import finish_checkpoint
from brainkit.training.checkpoint import AtomicCheckpoints, RunCheckpoints, Stopped, read_position
from brainkit.training.cuda_graph import ChunkStepper, choose_steps_per_chunk
from brainkit.training.datamodule import EncodingData
from brainkit.training.launcher import run_processes
from brainkit.training.lightning_internals import quiet_lightning, restored_determinism
from brainkit.training.memory_budget import explain_out_of_memory
from brainkit.training.module import EncodingModule
from brainkit.training.signals import StopSignals
from brainkit.training.snapshots import SelectorSnapshots
from brainkit.training.threads import limit_threads
from brainkit.training.worker import Report
from brainkit.utils.progress import Say

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment


@dataclass(frozen=True)
class Fitted:
    """What a training was, as facts.

    Attributes
    ----------
    best : Path
        The best checkpoint by validation score.
    epochs, steps : int
        Trained in all, including those before a resumption.
    stopped_early : bool
        Whether early stopping ended it before the last planned epoch.
    tokens_on : tuple of str
        For each subject, where tokens and responses were: ``"device"``, or ``"host"`` (on the disk, streamed).
    steps_per_chunk : int
        Steps made without the host (on CUDA, as replays of a captured graph); 0 where the trainer made each.
    threads : int
        Of torch, in each process.
    cpu_seconds : float or None
        Of one process; None if it resumed what another one began.
    """

    best: Path
    epochs: int
    steps: int
    stopped_early: bool
    tokens_on: tuple[str, ...]
    steps_per_chunk: int
    threads: int
    cpu_seconds: float | None


class Listeners(NamedTuple):
    """What `fit` calls while it trains."""

    on_epoch: Callable[[dict[str, float]], None]
    on_step: Callable[[int], None]
    say: Say


def fit(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    identity: Mapping[str, str] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    say: Say | None = None,
    steps_per_chunk: int | None = None,
    snapshots: Sequence[Path] = (),
) -> Fitted:
    """Train, leaving ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` and ``metrics.csv`` in `folder`.

    Everything else is in ``module.config``: epochs, where tokens are kept, CUDA graphs, the number of processes
    (``devices`` on each of ``num_nodes`` machines). Unless torchrun or SLURM started the processes, they are started
    here, and then `module` itself stays as it is: the trained weights are in the checkpoints.

    Parameters
    ----------
    module : EncodingModule
        Trained in place.
    data : EncodingData
        Where batches come from. A ``source`` that is set is kept; otherwise one is chosen while training.
    folder : Path
        The run folder.
    device : str
        cpu, cuda or mps.
    resume : bool
        Resume from ``last.ckpt`` if there is one.
    identity : mapping of str to str, optional
        What is trained on, kept in the checkpoints, see :func:`brainkit.training.checkpoint.check_identity`.
    on_epoch : callable, optional
        Called after each validation with ``epoch``, ``step``, ``train_loss``, ``val_r``, ``seconds``; of several
        processes, by the first.
    on_step : callable, optional
        Called with the number of optimiser steps so far, after each step or chunk of steps.
    say : callable, optional
        Called with each line of progress.
    steps_per_chunk : int, optional
        How many steps to make at a time without the host, 0 to let the trainer make each; by default chosen by
        ``module.config.cuda_graph``. `data` must have a source for it.
    snapshots : sequence of Path, optional
        For each of the module's models, a folder for what its vertices select in the course of training.

    Returns
    -------
    Fitted

    Raises
    ------
    TrainingError
        If the loss is no longer finite; names the step and the last good checkpoint. If memory runs out; says what to
        lower. If it is stopped by SIGTERM; ``last.ckpt`` holds the current step.
    KeyboardInterrupt
        If it is stopped by Ctrl-C; ``last.ckpt`` holds the current step. A second Ctrl-C does not wait for the step.
    """
    started, resumed = time.process_time(), resume and (folder / "checkpoints" / "last.ckpt").is_file()
    listeners = Listeners(on_epoch or _ignore, on_step or _ignore, say or _ignore)
    processes = module.config.devices * module.config.num_nodes
    environment = distributed.cluster_environment() if processes > 1 else None
    first = environment is None or environment.global_rank() == 0
    if first:
        (folder / "checkpoints").mkdir(exist_ok=True)
        _remove_unfinished(folder)
    options = {"device": device, "resume": resume, "identity": identity, "steps_per_chunk": steps_per_chunk}
    options["snapshots"] = snapshots
    if processes > 1 and environment is None:
        return _fit_in_processes(module, data, folder, options, listeners)

    if environment is not None:
        distributed.select_gpu(environment, device)
        data.divide(environment.global_rank(), processes)
        module.all_reduce = distributed.sum_over_processes
    if processes > 1 or len(module.parts(data)) > 1:
        module.shares = data
    with (
        _batch_sources(module, data, device, listeners.say) as tokens_on,
        _stepper(module, data, device, steps_per_chunk, listeners.say) as steps_per_chunk,
        StopSignals() as stop,
        quiet_lightning(),
        restored_determinism(),
    ):
        checkpoints = RunCheckpoints(
            folder / "checkpoints",
            folder / "metrics.csv",
            listeners.on_epoch,
            listeners.on_step,
            save_minutes=module.config.save_minutes,
            identity=identity or {},
            stop=stop,
            writes=first,
        )
        callbacks: list[lightning.Callback] = [checkpoints]
        if snapshots and first:
            callbacks.insert(0, SelectorSnapshots(snapshots, module.planned_steps))
        trainer = _trainer(module.config, callbacks, folder, device, environment, clip=not steps_per_chunk)
        with explain_out_of_memory("training", _what_to_lower(module, data.batch_size)):
            _run(trainer, checkpoints, module, data, resume)
        steps = trainer.global_step  # of the trainer or the stepper, while the module knows which
    best = folder / "checkpoints" / "best.ckpt"
    if first:
        with explain_out_of_memory("refitting the readouts", "free memory and resume, or lower model.bottleneck"):
            finish_checkpoint(module, best, data, device)
    stopped_early = checkpoints.epochs < module.config.epochs
    return Fitted(
        best,
        checkpoints.epochs,
        steps,
        stopped_early,
        tokens_on,
        steps_per_chunk,
        threads=torch.get_num_threads(),
        cpu_seconds=None if resumed else round(time.process_time() - started, 2),
    )


def choose_device(wanted: str) -> str:
    """Resolve ``auto``: CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError
        If the device that is asked for is not available.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if here[device])
    if not here.get(wanted, False):
        found = ", ".join(device for device, available in here.items() if available)
        raise UsageError(f"device {wanted!r} is not available; found: {found}")
    return wanted


def _fit_in_processes(
    module: EncodingModule, data: EncodingData, folder: Path, options: dict[str, Any], listeners: Listeners
) -> Fitted:
    """`fit` in processes that are started here; what the first one reports is passed on."""
    found: list[Fitted] = []
    handlers: dict[str, Callable[[Any], None]] = {
        "epoch": listeners.on_epoch,
        "step": listeners.on_step,
        "say": listeners.say,
        "fitted": found.append,
    }
    run_processes(functools.partial(_work, module, data, folder, options), module.config.devices, handlers)
    return found[0]


def _work(module: EncodingModule, data: EncodingData, folder: Path, options: dict[str, Any], report: Report) -> None:
    """What each of the processes does that `fit` starts."""
    first, reported = int(os.environ["RANK"]) == 0, 0.0

    def on_step(step: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > 0.1:
            reported = time.monotonic()
            report("step", step)

    def say(line: str) -> None:
        if first:
            report("say", line)

    with limit_threads(module.config.threads):
        fitted = fit(
            module, data, folder, on_epoch=lambda row: report("epoch", row), on_step=on_step, say=say, **options
        )
    if first:
        report("fitted", fitted)


@contextlib.contextmanager
def _batch_sources(module: EncodingModule, data: EncodingData, device: str, say: Say) -> Iterator[tuple[str, ...]]:
    """Choose where batches come from while training, and free what was on the device afterwards."""
    parts = module.parts(data)
    before = [part.source for _, part in parts]
    try:
        choose_sources(parts, wanted=module.config.residency, device=device, say=say)
        yield tuple("device" if isinstance(part.source, DeviceSource) else "host" for _, part in parts)
    finally:
        for (_, part), source in zip(parts, before, strict=True):
            part.source = source


@contextlib.contextmanager
def _stepper(
    module: EncodingModule, data: EncodingData, device: str, steps_per_chunk: int | None, say: Say
) -> Iterator[int]:
    """Let the module make its steps in chunks, if that is chosen; afterwards it is as before, for another trainer."""
    if steps_per_chunk is None:
        steps_per_chunk = choose_steps_per_chunk(module, device, say)
    if steps_per_chunk and _watches_steps(module):
        steps_per_chunk = 1
    try:
        if steps_per_chunk:
            module.stepper = ChunkStepper(module, data, steps_per_chunk, mode=module.config.cuda_graph, say=say)
        yield steps_per_chunk
    finally:
        module.stepper, module.automatic_optimization, data.chunk = None, True, 0


def _trainer(
    config: TrainConfig,
    callbacks: list[lightning.Callback],
    folder: Path,
    device: str,
    environment: ClusterEnvironment | None,
    *,
    clip: bool,
) -> lightning.Trainer:
    several: dict[str, Any] = {"devices": 1}
    if environment is not None:
        several = distributed.strategy(environment, config.devices, config.num_nodes)
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        max_epochs=config.epochs,
        gradient_clip_val=config.clip or None if clip else None,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        deterministic=True,
        reload_dataloaders_every_n_epochs=1,  # the rest of a resumed epoch is shorter than the others
        **several,
    )


def _watches_steps(module: EncodingModule) -> bool:
    """Whether one of the module's callbacks must see every step."""
    own = lightning.Callback.on_train_batch_end
    return any(type(callback).on_train_batch_end is not own for callback in module.configure_callbacks())


def _run(
    trainer: lightning.Trainer,
    checkpoints: RunCheckpoints,
    module: EncodingModule,
    data: EncodingData,
    resume: bool,
) -> None:
    """Run the trainer; a stop is a KeyboardInterrupt or StoppedTraining, where Lightning raises SystemExit."""
    last, stop = checkpoints.last, checkpoints.stop
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if resume and last.is_file() else None)
        if stop.received is None:
            return
    except Stopped:
        pass
    except SystemExit:
        if not checkpoints.interrupted:
            raise
    name = "SIGTERM" if stop.received == signal.SIGTERM else "Ctrl-C"
    line = f"stopped by {name} before the first step was saved"
    if last.is_file():
        line = f"stopped by {name}; step {read_position(last).steps} of {module.planned_steps} is saved in {last}"
    raise StoppedTraining(line) if stop.received == signal.SIGTERM else KeyboardInterrupt(line)


def _remove_unfinished(folder: Path) -> None:
    """Remove the half-written files of a run that was killed."""
    for pattern in ("checkpoints/.*.ckpt", ".metrics.*.csv"):
        for unfinished in folder.glob(pattern):
            unfinished.unlink(missing_ok=True)


def _what_to_lower(module: EncodingModule, batch_size: int) -> str:
    model = module.models()[0]
    height, width = model.grid
    return (
        f"lower train.batch_size (now {batch_size}), model.bottleneck ({model.weight.shape[1]}) or model.grid "
        f"({max(height, width)}), or on a GPU set train.residency=host"
    )


def _ignore(value: Any) -> None:
    pass
