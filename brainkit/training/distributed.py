"""The processes that train one model together: which of them this is, and how they wait for each other.

torchrun, SLURM or anything that sets the same variables starts them; on one machine brainkit does it by itself, see
`brainkit.training.launcher`. The strategy in each is Lightning's.
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
from brainkit.errors import SaidElsewhere, StoppedTraining, TrainingError, UsageError
from brainkit.training.running_stats import DeviceScore, LossWatch
from brainkit.utils.system import cores

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment

T = TypeVar("T")

# What torchrun sets in every process that it starts.
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE")
# The first process may take hours to bring the images through the backbone while the others wait.
_PATIENCE = datetime.timedelta(days=7)
# How Gloo and NCCL say that a process at the other end is gone; their errors have no class of their own everywhere.
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "socket closed", "nccl", "gloo")


class World:
    """The processes of a run that were started from outside, and which of them this one is; or this one alone.

    Attributes
    ----------
    rank : int
        0 for the one that writes and speaks.
    size : int
        How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def once(self, work: Callable[[], T]) -> T:
        """Do `work` in the first process and give what it returns to all; the others wait, and end where it fails."""
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
                raise SaidElsewhere("the first process failed")
        result: T = message[0][0]
        return result

    def in_turn(self, first: Callable[[], T], others: Callable[[], T] | None = None) -> T:
        """Do `first` in the first process, then `others` in the others, who find done what it has made.

        What it returns need not travel: each process has its own. By default all do the same.
        """
        own: list[T] = []
        self.once(lambda: own.append(first()))
        return own[0] if own else (others or first)()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around the work of a run: when one process fails, all end, and those that have nothing to add say nothing."""
        try:
            yield
        except SaidElsewhere:
            raise SystemExit(1) from None
        except (KeyboardInterrupt, StoppedTraining) as error:
            if self.first:
                raise
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        except RuntimeError as error:
            if self.size == 1 or not lost_another(error):
                raise
            if not self.first:
                raise SystemExit(1) from None
            raise TrainingError(gone(self.size)) from error
        if self.size > 1:
            torch.distributed.destroy_process_group()


def join(config: TrainConfig, choose_device: Callable[[], str]) -> World:
    """Meet the other processes of the run, where torchrun or SLURM started several; else this one is alone.

    The device is chosen only where there are several.

    Raises
    ------
    UsageError
        If the devices are not there, or the number of processes is not ``devices * num_nodes``.
    """
    total = config.devices * config.num_nodes
    started = _started()
    if total == 1:
        if started > 1:
            raise UsageError(
                f"{started} processes were started for a run of one; give --devices (for each machine) and --num-nodes"
            )
        return World()
    device = choose_device()
    _check_devices(config, device)
    environment = surroundings()
    if environment is None:
        if config.num_nodes > 1:
            raise UsageError(
                f"train.num_nodes must be 1 where brainkit starts the processes, got {config.num_nodes}; on several "
                "machines start brainkit by torchrun or SLURM's srun"
            )
        return World()
    if started != total:
        raise UsageError(
            f"train.devices * train.num_nodes must be the number of processes that were started, {started}, got "
            f"{config.devices} * {config.num_nodes}"
        )
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    rank, backend = environment.global_rank(), "gloo"
    if device == "cuda":
        torch.cuda.set_device(environment.local_rank())
        backend = "nccl"
    torch.distributed.init_process_group(backend, rank=rank, world_size=total)
    return World(rank, total, torch.distributed.new_group(backend="gloo", timeout=_PATIENCE))


def surroundings() -> ClusterEnvironment | None:
    """Lightning's view of what started this process as one of several, or None where nothing did."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if all(name in os.environ for name in _VARIABLES):
        return TorchElasticEnvironment()
    if "SLURM_STEP_ID" in os.environ and _started() > 1:
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise UsageError(f"SLURM: {' '.join(str(error).split())}") from None
    return None


def strategy(environment: ClusterEnvironment, device: str, devices: int, num_nodes: int) -> dict[str, Any]:
    """How the processes work together, as options of a trainer: each has the model, and the mean of all gradients."""
    from pytorch_lightning.strategies import DDPStrategy

    if device == "cuda":
        torch.cuda.set_device(environment.local_rank())
    return {
        "devices": devices,
        "num_nodes": num_nodes,
        # The buffers are constants; the gradients that are sent need not be kept twice.
        "strategy": DDPStrategy(cluster_environment=environment, broadcast_buffers=False, gradient_as_bucket_view=True),
        "use_distributed_sampler": False,  # the batches are divided already
    }


def merged_scores(own: DeviceScore) -> DeviceScore:
    """The score over the images of all processes that train together; each gets the same, bit for bit."""
    if not _several():
        return own
    held = own.to_tensor()
    every = [torch.empty_like(held) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, held)
    merged = DeviceScore(held.shape[1], held.device)
    for one in every:
        merged.merge(one)
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


def own_losses(held: dict[str, Any]) -> dict[str, Any]:
    """What each process takes of the losses that a checkpoint holds for all: the first one, all of them."""
    if not _several() or torch.distributed.get_rank() == 0:
        return held
    return held | {"total": 0.0, "images": 0}


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes that train together; gradients pass through."""
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value)  # type: ignore[no-any-return]


def lost_another(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _LOST)


def gone(processes: int) -> str:
    """The line where nobody knows better."""
    return f"another of the run's {processes} processes has ended; brainkit train --resume goes on from the last epoch"


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _started() -> int:
    """How many processes were started for this run from outside; 1 if it is this one alone."""
    if all(name in os.environ for name in _VARIABLES):
        name = "WORLD_SIZE"
    elif "SLURM_STEP_ID" in os.environ:  # only within srun: a batch script itself is one process
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
        here, what = torch.cuda.device_count(), "GPUs of this machine"
    else:
        # Two are allowed anywhere: on one core they are slow, and right.
        here, what = max(2, cores()), "processor cores of this machine"
    if config.devices > here:
        raise UsageError(f"train.devices must be at most {here}, the {what}, got {config.devices}")
