"""The processes that train one model together: which one this is, and how they wait for each other.

torchrun, SLURM or anything that sets the same variables starts them; on one machine brainkit can do it, see
`brainkit.training.launcher`. Each trains with Lightning's DDP strategy.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from brainkit.config import TrainConfig
from brainkit.errors import FailedElsewhere, StoppedTraining, TrainingError, UsageError
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.training.running_stats import LossWatch
from brainkit.utils.system import available_cores
from brainkit.utils.text import one_line

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment

T = TypeVar("T")

# What torchrun sets in every process it starts.
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE")
# The first process may run the backbone for hours while the others wait.
_TIMEOUT = datetime.timedelta(days=7)


class World:
    """The processes of a run that torchrun or SLURM started, and which of them this one is; or this one alone.

    Attributes
    ----------
    rank : int
        0 for the process that writes and reports.
    size : int
        How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def once(self, work: Callable[[], T]) -> T:
        """Do `work` in the first process and return its result in all; the others wait, and end if it fails."""
        if self.size == 1:
            return work()
        message: list[Any] = [None]
        if self.first:
            try:
                message = [(work(),)]
            finally:
                torch.distributed.broadcast_object_list(message, 0, group=self._group, device=torch.device("cpu"))
        else:
            torch.distributed.broadcast_object_list(message, 0, group=self._group, device=torch.device("cpu"))
            if message[0] is None:
                raise FailedElsewhere("the first process failed")
        result: T = message[0][0]
        return result

    def in_turn(self, first: Callable[[], T], others: Callable[[], T] | None = None) -> T:
        """Do `first` in the first process, then `others` in the others, which find the files it has written.

        Each returns its own result. By default all do the same.
        """
        own: list[T] = []
        self.once(lambda: own.append(first()))
        return own[0] if own else (others or first)()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around the work of a run: when one process fails, all end, and only those that know why report it."""
        try:
            yield
        except FailedElsewhere:
            raise SystemExit(1) from None
        except (KeyboardInterrupt, StoppedTraining) as error:
            if self.first:
                raise
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        except RuntimeError as error:
            if self.size == 1 or not is_peer_lost(error):
                raise
            if not self.first:
                raise SystemExit(1) from None
            raise TrainingError(peer_lost_message(self.size)) from error
        if self.size > 1:
            torch.distributed.destroy_process_group()


def join(config: TrainConfig, choose_device: Callable[[], str]) -> World:
    """Join the other processes of the run, if torchrun or SLURM started several; otherwise this one is alone.

    The device is chosen only if there are several.

    Raises
    ------
    UsageError
        If there are not so many devices, or the number of processes is not ``devices * num_nodes``.
    """
    total = config.devices * config.num_nodes
    started = _started()
    if total == 1:
        if started > 1:
            raise UsageError(
                f"{started} processes were started, expected 1; give --devices (for each machine) and --num-nodes"
            )
        return World()
    device = choose_device()
    _check_devices(config, device)
    environment = cluster_environment()
    if environment is None:
        if config.num_nodes > 1:
            raise UsageError(
                f"train.num_nodes must be 1 if brainkit starts the processes, got {config.num_nodes}; on several "
                "machines start brainkit with torchrun or SLURM's srun"
            )
        return World()
    if started != total:
        raise UsageError(
            f"train.devices * train.num_nodes must be the number of processes that were started, {started}, got "
            f"{config.devices} * {config.num_nodes}"
        )
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    rank, backend = environment.global_rank(), "nccl" if device == "cuda" else "gloo"
    select_gpu(environment, device)
    torch.distributed.init_process_group(backend, rank=rank, world_size=total)
    return World(rank, total, torch.distributed.new_group(backend="gloo", timeout=_TIMEOUT))


def cluster_environment() -> ClusterEnvironment | None:
    """Lightning's view of what started this process as one of several, or None if nothing did."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if all(name in os.environ for name in _VARIABLES):
        return TorchElasticEnvironment()
    if "SLURM_STEP_ID" in os.environ and _started() > 1:
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise UsageError(f"SLURM: {one_line(error)}") from None
    return None


def select_gpu(environment: ClusterEnvironment, device: str) -> None:
    """Let ``cuda`` mean this process's own GPU."""
    if device == "cuda":
        torch.cuda.set_device(environment.local_rank())


def strategy(environment: ClusterEnvironment, devices: int, num_nodes: int) -> dict[str, Any]:
    """A trainer's options for several processes: each has the model, and the mean of all gradients."""
    from pytorch_lightning.strategies import DDPStrategy

    return {
        "devices": devices,
        "num_nodes": num_nodes,
        # Buffers are constants; gradients need not be kept twice to be sent.
        "strategy": DDPStrategy(cluster_environment=environment, broadcast_buffers=False, gradient_as_bucket_view=True),
        "use_distributed_sampler": False,  # the data divides its batches itself
    }


def merged_correlation(own: StreamingCorrelation) -> StreamingCorrelation:
    """The correlation over the images of all processes that train together: the same in each, bit for bit."""
    if not _several():
        return own
    state = own.to_array()
    merged = StreamingCorrelation(state.shape[1], torch.zeros_like(state[0]))
    states = [torch.empty_like(state) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(states, state)
    for each in states:
        merged.merge_array(each)
    return merged


def merged_losses(own: LossWatch) -> LossWatch:
    """The losses of all processes that train together."""
    if not _several():
        return own
    merged = LossWatch(own.total.device)
    merged.load_state_dict(own.state_dict())
    for value in (merged.total, merged.images):
        torch.distributed.all_reduce(value)
    return merged


def own_losses(merged: dict[str, Any]) -> dict[str, Any]:
    """What each process resumes of the losses that a checkpoint holds for all: the first one, all of them."""
    if not _several() or torch.distributed.get_rank() == 0:
        return merged
    return merged | {"total": 0.0, "images": 0}


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes that train together; gradients pass through."""
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value)  # type: ignore[no-any-return]


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error only means that another process of the run is gone.

    The only place that reads error messages for this: torch has types for the errors of NCCL and of its store, but Gloo
    raises RuntimeError, whose message begins with the path of a file of Gloo's.
    """
    if isinstance(error, getattr(torch.distributed, "DistError", ())):  # not in builds without it
        return True
    signs = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe", "socket closed")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def peer_lost_message(processes: int) -> str:
    """The line to report if no process knows better."""
    return f"another of the run's {processes} processes has ended; brainkit train --resume continues the run"


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _started() -> int:
    """How many processes torchrun or SLURM started for this run; 1 if neither did."""
    if all(name in os.environ for name in _VARIABLES):
        name = "WORLD_SIZE"
    elif "SLURM_STEP_ID" in os.environ:  # only within srun: the batch script itself is one process
        name = "SLURM_NTASKS"
    else:
        return 1
    try:
        return int(os.environ.get(name, "1"))
    except ValueError:
        raise UsageError(f"${name} must be a number of processes, got {os.environ[name]!r}") from None


def _check_devices(config: TrainConfig, device: str) -> None:
    if device == "mps":
        raise UsageError(f"train.devices must be 1 on mps, got {config.devices}")
    if device == "cuda":
        available, what = torch.cuda.device_count(), "GPUs of this machine"
    else:
        # Two are always allowed: on one core they are slow but correct.
        available, what = max(2, available_cores()), "processor cores of this machine"
    if config.devices > available:
        raise UsageError(f"train.devices must be at most {available}, the {what}, got {config.devices}")
