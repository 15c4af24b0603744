"""What training needs of a device's memory, what is free, and what to say when it did not suffice."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch

from brainkit.errors import TrainingError, UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import VALIDATION_BATCH
from brainkit.utils.system import free_memory as free_memory_of_host

# Allocators round up and leave holes; libraries keep workspaces, which on a GPU are hundreds of megabytes.
SLACK = 1.25
GPU_WORKSPACE = 300_000_000


@dataclass(frozen=True)
class Need:
    """Bytes that training takes on a device: tokens and responses of its images, the model's state, and one step."""

    tokens: int
    responses: int
    state: int
    step: int

    @property
    def work(self) -> int:
        """What is needed wherever the tokens lie."""
        return self.state + self.step

    @property
    def data(self) -> int:
        """What lies on the device if the tokens do."""
        return self.tokens + self.responses


def needed(model: FactorTopy, images: int, batch_size: int, device: str) -> Need:
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
    Need
        Tokens at two bytes a number, responses at four. The state is weights, gradients and AdamW's two moments, and
        the constants. A step is counted as if all of this were there at once: the batch's tokens in half and in single
        precision, and three times what the bottlenecks make of them; eight arrays (V, B) about the prediction; twelve
        (V, 5 L) of the operator's coefficients and the selectors' outputs, with their gradients; twelve (V, width) of
        the selector networks; for the `reference` backend also three arrays (B, V, D) a layer. Then a quarter more.
    """
    layers, (height, width) = len(model.layers), model.grid
    places = height * width + 1
    record = places * sum(model.widths.values())
    vertices, channels = model.weight.shape
    networks = model.free_selectors is None
    hidden = cast(torch.nn.Linear, model.space_selector_mlp[1]).out_features if networks else 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    constants = sum(buffer.numel() for buffer in model.buffers())
    step = 4 * (
        2 * batch_size * record
        + 3 * batch_size * layers * channels * places
        + 8 * vertices * batch_size
        + 12 * vertices * (5 * layers + hidden)
    )
    if model.backend == "reference":
        step += 12 * batch_size * vertices * channels * layers
    scoring = 4 * VALIDATION_BATCH * (2 * record + 3 * layers * channels * places + 12 * vertices)
    return Need(
        tokens=2 * images * record,
        responses=4 * images * vertices,
        state=4 * (4 * parameters + constants),
        step=int(SLACK * max(step, scoring)) + (GPU_WORKSPACE if device == "cuda" else 0),
    )


def refuse_too_large(widths: Mapping[str, int], vertices: int, *, bottleneck: int, hidden: int, device: str) -> None:
    """Refuse a model whose weights alone, with gradients and AdamW's two moments, are more than there is.

    A system that promises more memory than it has would end the process without a word.

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
            f"a model of {bottleneck} bottleneck channels and {vertices} vertices needs more than {least / 1e9:.1f} GB "
            f"to be trained, {free / 1e9:.1f} GB are free on {device}; lower model.bottleneck or model.selector_width"
        )


def free_memory(device: str) -> int:
    """Bytes that a process may still take on a device."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        # What torch has taken from the driver and does not use is free for us.
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return free_memory_of_host()


@contextlib.contextmanager
def says_what_to_lower(doing: str, lower: str) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one line.

    Parameters
    ----------
    doing : str
        What failed, for example ``"training"``.
    lower : str
        What takes less memory, for example ``"a smaller train.batch_size (now 32)"``.

    Raises
    ------
    TrainingError
        Where the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        found = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)|allocate (\d+ bytes)", str(error))
        asked = f" (asked for {found[1] or found[2]})" if found else ""
        place = " of the GPU" if isinstance(error, torch.OutOfMemoryError) or "MPS" in str(error) else ""
        raise TrainingError(f"{doing} ran out of memory{place}{asked}; {lower}") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: torch has a class of its own for CUDA's alone."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
