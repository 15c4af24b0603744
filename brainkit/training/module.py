"""Fitting the model: a Lightning module that only trains, and the trainer around it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from brainkit.config import TrainConfig
from brainkit.errors import StoppedTraining, UsageError
from brainkit.model.checkpoint import read_checkpoint
from brainkit.model.factor_topy import FactorTopy
from brainkit.training import distributed
from brainkit.training import launcher as processes
from brainkit.training import loss as objective
from brainkit.training.averaging import WeightAverage
from brainkit.training.calibration import calibrate_checkpoint
from brainkit.training.checkpoint import AtomicCheckpoints, Keeper, Stopped, read_position
from brainkit.training.cuda_graph import StepChunks
from brainkit.training.datamodule import Batch, EncodingData
from brainkit.training.memory_budget import says_what_to_lower
from brainkit.training.running_stats import DeviceScore, LossWatch
from brainkit.training.shares import Share
from brainkit.training.signals import StopSignals
from brainkit.training.stopping import Patience

_FUSED = ("cpu", "cuda")  # where torch has AdamW in one pass

# place(module, data, device, say): decides where the tokens lie, and how many steps are made at a time.
Place = Callable[["EncodingModule", EncodingData, str, Callable[[str], None]], int]


class EncodingModule(lightning.LightningModule):
    """Trains a :class:`FactorTopy`; usable with any ``Trainer``.

    Parameters
    ----------
    model : FactorTopy
        Its token statistics and response scale are set already.
    config : TrainConfig
        Loss, learning rates, regulariser.
    planned_steps : int
        All optimiser steps of the run: the schedule and the regulariser's decay are shares of it.
    """

    def __init__(self, model: FactorTopy, config: TrainConfig, planned_steps: int) -> None:
        super().__init__()
        self.model, self.config, self.planned_steps = model, config, planned_steps
        self.watch = LossWatch(torch.device("cpu"))
        self.validation: DeviceScore | None = None
        # Where steps are made in chunks, and perhaps captured: see `brainkit.training.cuda_graph`.
        self.chunks: StepChunks | None = None
        # Where several processes divide every batch: knows who does what.
        self.divided: EncodingData | None = None

    def setup(self, stage: str) -> None:
        """Begin to count losses, before a checkpoint may say how many there were."""
        self.watch = LossWatch(self.device)

    def training_step(self, batch: Any, batch_index: int) -> Tensor | None:
        """Loss on responses in units of their own s.d., plus the decaying regulariser."""
        if self.chunks is not None:
            self.chunks.run(batch)
            return None
        share = self._share("train", batch_index, batch)
        misfit, regulariser = self.losses(batch, share)
        self.watch.add(misfit.detach(), share.images)
        misfit = self.weighted(misfit, share)
        return misfit if regulariser is None else misfit + regulariser

    def weighted(self, misfit: Tensor, share: Share) -> Tensor:
        """The misfit of a process's share of a batch, by as much as it counts."""
        everywhere = self.config.loss == "pearson" and self.divided is not None  # it has looked at all shares already
        return misfit if everywhere or share.weight == 1 else misfit * share.weight

    def models(self) -> list[FactorTopy]:
        """What is trained: one model, or of several subjects one each."""
        return [self.model]

    def parts(self, data: EncodingData) -> list[tuple[FactorTopy, EncodingData]]:
        """Each of the models with its data."""
        return [(self.model, data)]

    def _share(self, side: str, batch_index: int, batch: Batch) -> Share:
        return Share(1.0, len(batch[2])) if self.divided is None else self.divided.share(side, batch_index)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Log the mean loss of the epoch once, with its last batch: until then it stays on the device."""
        if self.trainer.is_last_batch:
            self.log(
                "train_loss", distributed.merged_losses(self.watch).mean(), on_step=False, on_epoch=True, batch_size=1
            )

    def on_train_epoch_end(self) -> None:
        """The next epoch's losses are a mean of their own."""
        self.watch.next_epoch()

    def losses(
        self, batch: Batch, share: Share | None = None, model: FactorTopy | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What a step minimises: the misfit, a scalar, and the regulariser's share, None once it has decayed."""
        model = self.model if model is None else model
        local, whole, response = batch
        selectors = model.selectors()
        prediction = model.standardised(local, whole, selectors)
        target = (response - model.response_mean) / model.response_std
        if self.divided is not None and share is not None and self.config.loss == "pearson":
            misfit = distributed.pearson_misfit(prediction, target, share)
        else:
            misfit = objective.misfit(self.config, prediction, target)
        weight = self.regulariser_weight()
        if weight is None:
            return misfit, None
        c = self.config
        return misfit, weight * selectors.regularity(entropy=c.regulariser_entropy, middle=c.regulariser_scale)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """The average of the weights and early stopping, if asked for: any Trainer takes them up."""
        chosen: list[lightning.Callback] = [WeightAverage(self.config.ema)] if self.config.ema else []
        return chosen + ([Patience(self.config.patience)] if self.config.patience else [])

    def regulariser_weight(self) -> float | Tensor | None:
        """Weight of the regulariser in this step; None once it has decayed. A tensor where the step is captured."""
        if self.chunks is not None:
            return self.chunks.regulariser
        return objective.regulariser_weight(self.config, self.global_step, self.planned_steps) or None

    def on_validation_epoch_start(self) -> None:
        """Start the streamed score anew."""
        self.validation = DeviceScore(len(self.model.weight), self.device)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the streamed score."""
        local, whole, response = batch
        assert self.validation is not None
        if self._share("validation", batch_index, batch).images:
            self.validation.update(self.model(local, whole), response)

    def on_validation_epoch_end(self) -> None:
        """Log the mean correlation over vertices; a vertex that never varied counts as 0."""
        assert self.validation is not None
        self.validation = distributed.merged_scores(self.validation)
        self.log("val_r", self.validation.r.nan_to_num(0.0).mean().float())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what of an epoch's losses is known, and rates as plain numbers, whoever makes the steps."""
        checkpoint["losses"] = distributed.merged_losses(self.watch).state_dict()
        if self.chunks is not None:
            self.chunks.plain(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from these losses; the optimiser is fused where it can be here, wherever the checkpoint was made."""
        if "losses" in checkpoint:
            self.watch.load_state_dict(distributed.own_losses(checkpoint["losses"]))
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                group["fused"] = self.device.type in _FUSED

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a learning rate for each part, linear warm-up and the schedule."""
        groups: dict[str, list[Tensor]] = {"selectors": [], "weight": [], "bottleneck": [], "bias": []}
        seen: set[int] = set()
        for model in self.models():
            for name, parameter in model.named_parameters():
                if id(parameter) in seen:
                    continue  # what several share is trained once
                seen.add(id(parameter))
                if "_bottleneck." in name:
                    groups["bottleneck"].append(parameter)
                else:
                    groups[name if name in ("weight", "bias") else "selectors"].append(parameter)
        c = self.config
        selectors = c.lr_selectors if self.models()[0].free_selectors is None else c.lr_free_selectors
        rates = {
            "selectors": (selectors, c.weight_decay_selectors),
            "weight": (c.lr_weight, c.weight_decay),
            "bottleneck": (c.lr_bottleneck, c.weight_decay),
            "bias": (c.lr_bottleneck, 0.0),
        }
        optimizer = torch.optim.AdamW(
            [{"params": groups[part], "lr": lr, "weight_decay": decay} for part, (lr, decay) in rates.items()],
            fused=self.device.type in _FUSED,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler={"scheduler": schedule, "interval": "step"})

    def _rate(self, step: int) -> float:
        return objective.rate(self.config, step, self.planned_steps)


def fit(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    devices: int = 1,
    num_nodes: int = 1,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    identity: Mapping[str, str] | None = None,
    chunk: int = 0,
    place: Place | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Train, leaving ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` and ``metrics.csv`` in `folder`.

    Parameters
    ----------
    module : EncodingModule
        What is trained, in place.
    data : EncodingData
        Where batches come from.
    folder : Path
        The run folder.
    device : str
        cpu, cuda or mps.
    resume : bool
        Go on from ``last.ckpt`` if there is one.
    devices, num_nodes : int
        Processes of one machine, and machines. Unless torchrun or SLURM started them, they are started here, and then
        `module` itself stays as it is: what was learnt is in the checkpoints.
    on_epoch : callable, optional
        Called after each validation with ``epoch``, ``train_loss``, ``val_r``, ``seconds``. Of several processes the
        first one calls.
    on_step : callable, optional
        Called with the number of optimiser steps so far, after each or after a chunk of them.
    identity : mapping of str to str, optional
        What is trained on, kept in the checkpoints, see :func:`brainkit.training.checkpoint.check_identity`.
    chunk : int
        0: Lightning makes the steps. Otherwise so many are made at a time, on CUDA as replays of a captured graph;
        `data` must have a source.
    place : callable, optional
        Called with `module`, `data`, `device` and `say` where the training is done; it may set ``data.source``, and
        gives the `chunk`.
    say : callable, optional
        Takes lines.

    Returns
    -------
    Path
        The best checkpoint by validation score.

    Raises
    ------
    TrainingError
        If the loss is no longer finite; names the step and the last good checkpoint. If memory runs out; says what to
        lower. If it is stopped by SIGTERM; ``last.ckpt`` holds the very step.
    KeyboardInterrupt
        If it is stopped by Ctrl-C; ``last.ckpt`` holds the very step. A second Ctrl-C does not wait for the step.
    """
    checkpoints, config = folder / "checkpoints", module.config
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    environment = distributed.surroundings() if devices * num_nodes > 1 else None
    first = environment is None or environment.global_rank() == 0
    if first:
        checkpoints.mkdir(exist_ok=True)
        _sweep(checkpoints, folder)
    if devices * num_nodes > 1 and environment is None:
        options = {"device": device, "resume": resume, "devices": devices, "identity": identity, "place": place}
        work = functools.partial(_work, module, data, folder, options)
        hear = {"epoch": on_epoch or _nothing, "step": on_step or _nothing, "say": say or _nothing}
        processes.run_processes(work, devices, hear)
        return best
    strategy: dict[str, Any] = {"devices": 1}
    if environment is not None:
        strategy = distributed.strategy(environment, device, devices, num_nodes)
        data.divide(environment.global_rank(), devices * num_nodes)
        module.divided = data
    if place is not None:
        chunk = place(module, data, device, say or _nothing)
    if chunk:
        own = lightning.Callback.on_train_batch_end
        callbacks = module.configure_callbacks()
        if any(type(callback).on_train_batch_end is not own for callback in callbacks):
            chunk = 1  # somebody wants to see every step
        module.chunks = StepChunks(module, data, chunk, mode=config.cuda_graph, say=say or _nothing)
    with StopSignals() as stop, _quiet_lightning(), _own_determinism():
        keeper = Keeper(
            checkpoints,
            folder / "metrics.csv",
            on_epoch,
            on_step,
            save_minutes=config.save_minutes,
            identity=identity or {},
            stop=stop,
            writes=first,
        )
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            max_epochs=config.epochs,
            gradient_clip_val=None if chunk else config.clip or None,
            callbacks=[keeper],
            plugins=[AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            deterministic=True,
            reload_dataloaders_every_n_epochs=1,  # an epoch that is gone on with is shorter than the others
            **strategy,
        )
        start = str(last) if resume and last.is_file() else None
        try:
            with says_what_to_lower("training", _what_to_lower(module, data.batch_size)):
                _fit_or_interrupt(trainer, module, data, start, stop, last)
        finally:
            # Another trainer may have them next.
            module.chunks, module.automatic_optimization, data.chunk = None, True, 0
    if config.loss == "pearson" and first:
        calibrate_checkpoint(module, best, data)
    return best


def _work(
    module: EncodingModule,
    data: EncodingData,
    folder: Path,
    options: dict[str, Any],
    report: Callable[[str, Any], None],
) -> None:
    """What each of the processes does that `fit` starts: the same."""
    told = 0.0

    def on_step(step: int) -> None:
        nonlocal told
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            report("step", step)

    say = functools.partial(report, "say") if int(os.environ["RANK"]) == 0 else None
    fit(module, data, folder, on_epoch=functools.partial(report, "epoch"), on_step=on_step, say=say, **options)


def _nothing(value: Any) -> None:
    pass


def load_best(module: EncodingModule, checkpoint: Path) -> None:
    """Bring the module to the weights of a checkpoint, read with ``weights_only=True``."""
    module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])


def choose_device(wanted: str) -> str:
    """Resolve ``auto``: CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError
        If a device is asked for that is not here.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if here[device])
    if not here.get(wanted, False):
        raise UsageError(f"device {wanted!r} is not here; found: {', '.join(d for d, ok in here.items() if ok)}")
    return wanted


@contextlib.contextmanager
def _own_determinism() -> Iterator[None]:
    """Put torch's deterministic mode back after a trainer, which turns it on for the whole process.

    Memory that is written before it is read need not be filled first, as that mode would.
    """
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _fit_or_interrupt(
    trainer: lightning.Trainer,
    module: EncodingModule,
    data: EncodingData,
    checkpoint: str | None,
    stop: StopSignals,
    last: Path,
) -> None:
    """Run the trainer; Ctrl-C comes out as KeyboardInterrupt, where Lightning leaves by SystemExit."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        if stop.received is None:
            return
    except Stopped:
        pass
    except SystemExit:
        if not trainer.interrupted:
            raise
    name = "SIGTERM" if stop.received == signal.SIGTERM else "Ctrl-C"
    line = f"stopped by {name} before the first step was kept"
    if last.is_file():
        line = f"stopped by {name}; step {read_position(last).steps} of {module.planned_steps} is kept in {last}"
    raise StoppedTraining(line) if stop.received == signal.SIGTERM else KeyboardInterrupt(line)


def _sweep(checkpoints: Path, folder: Path) -> None:
    """Remove what a run that was killed had half-written."""
    for place, pattern in ((checkpoints, ".*.ckpt"), (folder, ".metrics.*.csv")):
        for left in place.glob(pattern):
            left.unlink(missing_ok=True)


def _what_to_lower(module: EncodingModule, batch_size: int) -> str:
    model = module.models()[0]
    height, width = model.grid
    return (
        f"lower train.batch_size (now {batch_size}), model.bottleneck ({model.weight.shape[1]}) or model.grid "
        f"({max(height, width)}), or on a GPU set train.residency=host"
    )


class _quiet_lightning:
    """Silence the trainer's notices about hardware, loaders and tips, and put the loggers back after."""

    names = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch")

    def __enter__(self) -> None:
        import logging
        import warnings

        self.levels = {name: logging.getLogger(name).level for name in self.names}
        for name in self.names:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning")
        os.environ.setdefault("PL_DISABLE_FORK", "1")

    def __exit__(self, *error: Any) -> None:
        import logging

        self.warnings.__exit__(None, None, None)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
