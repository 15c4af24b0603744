"""How much memory training takes on a device, how much is free, and what to lower when it runs out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch

from brainkit.errors import BrainkitError, TrainingError, UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import VALIDATION_BATCH
from brainkit.utils.system import free_memory as free_host_memory
from brainkit.utils.text import format_bytes

# Allocators round up and leave holes; libraries keep workspaces, which on a GPU are hundreds of megabytes.
SLACK = 1.25
GPU_WORKSPACE = 300_000_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes: tokens and responses of its images, the model's state, and one step."""

    tokens: int
    responses: int
    state: int
    step: int

    @property
    def work(self) -> int:
        """Bytes that are on the device in any case."""
        return self.state + self.step

    @property
    def data(self) -> int:
        """Bytes that are on the device if the tokens are."""
        return self.tokens + self.responses


def estimate_memory(model: FactorTopy, images: int, batch_size: int, device: str) -> MemoryEstimate:
    """Estimate what training takes.

    Parameters
    ----------
    model : FactorTopy
    images : int
        Of training and validation together.
    batch_size : int
        B, images of a step.
    device : str

    Returns
    -------
    MemoryEstimate
        Tokens at two bytes a number, responses at four. The state is weights, gradients and AdamW's two moments, and
        the constants. A step is counted as if all of this existed at once: the batch's tokens in half and in single
        precision, and three times the bottlenecks' output; eight arrays (V, B) for the prediction; twelve (V, 5 L) for
        the operator's coefficients and the selectors' outputs, with their gradients; twelve (V, width) for the
        selector networks; for the `reference` backend also three arrays (B, V, D) for each layer. Then a quarter more.
    """
    layers, (height, width) = len(model.layers), model.grid
    cells = height * width + 1  # of the grid, and the global token
    record = cells * sum(model.widths.values())
    vertices, channels = model.weight.shape
    networks = model.free_selectors is None
    hidden = cast(torch.nn.Linear, model.space_selector_mlp[1]).out_features if networks else 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    constants = sum(buffer.numel() for buffer in model.buffers())
    step = 4 * (
        2 * batch_size * record
        + 3 * batch_size * layers * channels * cells
        + 8 * vertices * batch_size
        + 12 * vertices * (5 * layers + hidden)
    )
    if model.backend == "reference":
        step += 12 * batch_size * vertices * channels * layers
    scoring = 4 * VALIDATION_BATCH * (2 * record + 3 * layers * channels * cells + 12 * vertices)
    return MemoryEstimate(
        tokens=2 * images * record,
        responses=4 * images * vertices,
        state=4 * (4 * parameters + constants),
        step=int(SLACK * max(step, scoring)) + (GPU_WORKSPACE if device == "cuda" else 0),
    )


def refuse_too_large(widths: Mapping[str, int], vertices: int, *, bottleneck: int, hidden: int, device: str) -> None:
    """Refuse a model whose weights alone, with gradients and AdamW's two moments, exceed the free memory.

    A system that overcommits memory would kill the process without a message.

    Parameters
    ----------
    widths : mapping of str to int
        Channels C of each layer.
    vertices : int
        V.
    bottleneck, hidden : int
        D, and the selector networks' hidden units.
    device : str
        cpu, cuda or mps.

    Raises
    ------
    UsageError
        Says what to lower.
    """
    least = 16 * (bottleneck * (vertices + 2 * sum(widths.values())) + 3 * hidden**2)
    if least > (free := free_memory(device)):
        raise UsageError(
            f"training a model of {bottleneck} bottleneck channels and {vertices} vertices takes more than "
            f"{format_bytes(least)}, found {format_bytes(free)} free on {device}; lower model.bottleneck or "
            "model.selector_width"
        )


def free_memory(device: str) -> int:
    """Bytes that this process may still take on a device."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        # What torch has reserved and does not use is free for us.
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return free_host_memory()


@contextlib.contextmanager
def explain_out_of_memory(doing: str, lower: str) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one line.

    Parameters
    ----------
    doing : str
        What failed, for example ``"training"``.
    lower : str
        What takes less memory, for example ``"lower train.batch_size (now 32)"``.

    Raises
    ------
    TrainingError
        If the block runs out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, BrainkitError) as error:
        # A network's own error comes as the cause of one that names the network.
        cause = error.__cause__ if isinstance(error, BrainkitError) else error
        found = None if cause is None else find_out_of_memory(cause)
        if found is None:
            raise
        where = " of the GPU" if found.on_gpu else ""
        asked = f" (asked for {found.asked})" if found.asked else ""
        raise TrainingError(f"{doing} ran out of memory{where}{asked}; {lower}") from None


class OutOfMemory(NamedTuple):
    """Where memory ran out, and how much was asked for, in the library's words; empty if it does not say."""

    on_gpu: bool
    asked: str


def find_out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Where memory ran out, or None for any other error.

    The only place that reads error messages for this: torch has a type for CUDA, ``torch.OutOfMemoryError``; the
    processor's allocator, Apple's and cuBLAS raise RuntimeError.
    """
    text = str(error)
    messages = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(part in text for part in messages):
        return None
    amount = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)|allocate (\d+ bytes)", text)
    on_gpu = isinstance(error, torch.OutOfMemoryError) or "MPS" in text or "CUBLAS" in text
    return OutOfMemory(on_gpu, (amount[1] or amount[2]) if amount else "")
