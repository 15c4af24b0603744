"""A run's epochs for TensorBoard, in the folder ``tensorboard`` of the run."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from brainkit.config import TrainConfig
from brainkit.errors import require
from brainkit.training import loss as objective

Row = dict[str, float]


def check_board(config: TrainConfig) -> None:
    """Find out before the work whether TensorBoard is there, if it is asked for.

    Raises
    ------
    MissingDependency
        If ``train.tensorboard`` is on, and it is not installed.
    """
    if config.tensorboard == "on":
        require("tensorboard", extra="log", purpose="train.tensorboard=on")


@contextlib.contextmanager
def open_board(folder: Path, config: TrainConfig, planned_steps: int) -> Iterator[Callable[[Row], None]]:
    """Write each epoch's loss, validation r, learning rates and seconds as it ends.

    Parameters
    ----------
    folder : Path
        Of the event files; made here. A resumed run adds one to it.
    config : TrainConfig
        Says whether to write at all, and the learning rates.
    planned_steps : int
        All steps of the run.

    Yields
    ------
    callable
        To be called with a row of ``metrics.csv``.
    """
    wanted = config.tensorboard == "on" or (
        config.tensorboard == "auto" and importlib.util.find_spec("tensorboard") is not None
    )
    if not wanted:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def write(row: Row) -> None:
            step = int(row["step"])
            share = objective.rate(config, step - 1, planned_steps)  # of the epoch's last step
            scalars = {
                "train_loss": row["train_loss"],
                "val_r": row["val_r"],
                "seconds": row["seconds"],
                "learning_rate/weight": share * config.lr_weight,
                "learning_rate/bottleneck": share * config.lr_bottleneck,
                "learning_rate/selectors": share * config.lr_selectors,
            }
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()  # so that it can be watched

        yield write
