"""Training steps in chunks, without the host: on CUDA each step is one replay of a captured graph.

Everything that changes from step to step (learning rates, the regulariser's weight, which images) is read from tensors
on the device. So one captured step serves them all, and without a capture the same code gives the same result anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from brainkit.config import TrainConfig
from brainkit.errors import TrainingError, UsageError
from brainkit.ops import available_backends
from brainkit.training import schedule
from brainkit.training.datamodule import EncodingData
from brainkit.training.lightning_internals import count_steps
from brainkit.training.memory_budget import find_out_of_memory
from brainkit.training.module import EncodingModule
from brainkit.utils.progress import Say
from brainkit.utils.text import first_line

STEPS_PER_CHUNK = 32  # steps that are replayed before the host checks anything
WARM_UP = 3  # steps before the capture, in which kernels are compiled and memory is allocated


def check_cuda_graph(config: TrainConfig, *, backend: str, device: str, subjects: int) -> str:
    """The reason why steps are not captured in a CUDA graph; empty if they are.

    Parameters
    ----------
    config : TrainConfig
        ``cuda_graph`` is off, on or auto.
    backend : str
        The operator's, as the model has it.
    device : str
        cpu, cuda or mps.
    subjects : int
        How many are trained together.

    Raises
    ------
    UsageError
        If ``cuda_graph`` is on but not possible.
    """
    reason = ""
    if config.cuda_graph == "off":
        return "as asked"
    if device != "cuda":
        reason = f"a CUDA graph needs an NVIDIA GPU, and this is {device}"
    elif config.devices * config.num_nodes > 1:
        reason = "several processes exchange gradients in every step"
    elif subjects > 1:
        reason = "several subjects take part in every step"
    elif backend not in ("auto", "triton") or available_backends()["triton"] is not None:
        reason = "only the triton backend never waits for the host"
    if reason and config.cuda_graph == "on":
        raise UsageError(f"train.cuda_graph 'on' is not possible: {reason}; use train.cuda_graph=auto")
    return reason


def choose_steps_per_chunk(module: EncodingModule, device: str, say: Say) -> int:
    """How many steps to make at a time; 0 to let the trainer make each. Calls `say` with the choice."""
    config, models = module.config, module.models()
    backend, precision = models[0].backend, models[0].precision
    reason = check_cuda_graph(config, backend=backend, device=device, subjects=len(models))
    if not reason:
        say(f"steps: {precision}, {STEPS_PER_CHUNK} at a time, as replays of a CUDA graph")
        return STEPS_PER_CHUNK
    asked = device == "cuda" or config.cuda_graph == "off"  # elsewhere nobody expects a graph
    say(f"steps: {precision}, one by one{f' ({reason})' if asked else ''}")
    return 0


class ChunkStepper:
    """Makes the optimiser's steps in place of the trainer.

    Parameters
    ----------
    module : EncodingModule
        Its optimisation becomes manual.
    data : EncodingData
        With a source; it gives chunks of staged batches from now on.
    chunk : int
        Steps of a chunk.
    mode : {"auto", "on"}
        If the capture fails: ``auto`` continues step by step, ``on`` raises.
    say : callable
        Called with a line if the capture fails.
    """

    def __init__(self, module: EncodingModule, data: EncodingData, chunk: int, *, mode: str, say: Say) -> None:
        assert data.source is not None
        module.automatic_optimization = False
        data.chunk = chunk
        self.module, self.source, self.batch_size = module, data.source, data.batch_size
        self.mode, self.say = mode, say
        self.regulariser: Tensor | None = None
        self.optimizer: Any = None
        self.steps = 0
        self.warm_up_steps = 0
        self.graphs: dict[bool, Any] = {}  # with the regulariser, and without it once it has decayed
        self.static: tuple[Tensor, ...] = ()  # the staged batch that a graph reads

    def run(self, staged_batches: Iterable[tuple[Tensor, ...]]) -> None:
        """Make a step for each batch that the source has staged."""
        if self.optimizer is None:
            self._prepare()
        before = self.steps
        for staged in staged_batches:
            self._step(staged)
            self.steps += 1
        count_steps(self.module.trainer, self.steps - before)

    def complete_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put into a checkpoint what it would hold if the trainer had made the steps."""
        done = self.module.global_step
        factor = self._rate(done)
        for optimizer, scheduler in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
            for group in optimizer["param_groups"]:
                group.update(lr=group["initial_lr"] * factor, capturable=False)
            rates = [group["lr"] for group in optimizer["param_groups"]]
            scheduler.update(last_epoch=done, _step_count=done + 1, _last_lr=rates)

    def _prepare(self) -> None:
        """Runs once the optimiser has its state, perhaps a checkpoint's."""
        device, planned = self.module.device, self.module.planned_steps
        self.steps = self.module.global_step
        self.capturing = device.type == "cuda"
        self.optimizer = self.module.optimizers(use_pl_optimizer=False)
        # AdamW takes a learning rate as float32 on CUDA; on the CPU it is a double, as the trainer's is.
        options: dict[str, Any] = {"dtype": torch.float64 if device.type == "cpu" else torch.float32, "device": device}
        self.rates = torch.tensor([self._rate(step) for step in range(planned + 1)], **options)
        self.weights = torch.tensor([self._weight(step) for step in range(planned + 1)], device=device)
        self.step_index = torch.tensor([self.steps], device=device)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.zeros((), **options)
            group["capturable"] = self.capturing

    def _step(self, staged: tuple[Tensor, ...]) -> None:
        regularised = self._weight(self.steps) > 0
        if not self.capturing or len(staged[-1]) != self.batch_size:
            self._make_step(staged, regularised)
            return
        if self.warm_up_steps < WARM_UP:
            self.warm_up_steps += 1
            side, current = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self._make_step(staged, regularised)
            current.wait_stream(side)
            return
        if regularised not in self.graphs and not self._capture(staged, regularised):
            self._make_step(staged, regularised)
            return
        for static, value in zip(self.static, staged, strict=True):
            static.copy_(value)
        self.graphs[regularised].replay()

    def _make_step(self, staged: tuple[Tensor, ...], regularised: bool) -> None:
        """One step. Nothing here may wait for the device, or depend on a Python number that changes between steps."""
        module = self.module
        now = self.step_index.clamp(max=len(self.rates) - 1)
        rate = self.rates.index_select(0, now)[0]
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate * group["initial_lr"])
        self.regulariser = self.weights.index_select(0, now)[0] if regularised else None
        loss = module.step_loss(self.source.finish(staged))
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        if module.config.clip:
            # In the optimiser's order, as the trainer does it: the norm's last bit depends on it.
            parameters = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, module.config.clip)
        self.optimizer.step()
        module.watch.add(loss.misfit.detach(), len(staged[-1]))
        self.step_index += 1

    def _capture(self, staged: tuple[Tensor, ...], regularised: bool) -> bool:
        """Capture the step as a graph; False if that fails and is not required."""
        self.static = self.static or tuple(part.clone() for part in staged)
        self.optimizer.zero_grad(set_to_none=True)  # the graph's gradients are its own
        self.graphs.clear()  # the one with the regulariser has served; its memory is needed
        graph = torch.cuda.CUDAGraph()
        try:
            # The thread that reads the next batches may continue meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._make_step(self.static, regularised)
        except RuntimeError as error:
            if find_out_of_memory(error) is not None:
                raise
            reason = first_line(error)
            if self.mode == "on":
                raise TrainingError(f"train.cuda_graph 'on': the step cannot be captured: {reason}") from error
            self.say(f"steps: one by one, because they cannot be captured in a CUDA graph ({reason})")
            self.optimizer.zero_grad(set_to_none=True)
            self.capturing = False
            return False
        self.graphs[regularised] = graph
        return True

    def _rate(self, step: int) -> float:
        return schedule.learning_rate_factor(self.module.config, step, self.module.planned_steps)

    def _weight(self, step: int) -> float:
        return schedule.regulariser_weight(self.module.config, step, self.module.planned_steps)
