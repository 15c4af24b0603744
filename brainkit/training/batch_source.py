"""Where training's batches come from: tokens on the device if they fit, else on the disk, read a few batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from brainkit.errors import BrainkitError, UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.datamodule import Batch, BatchSource, EncodingData, ResponseSource, TokenSource
from brainkit.training.memory_budget import MemoryEstimate, estimate_memory, free_memory
from brainkit.utils.progress import Say
from brainkit.utils.text import first_line, format_bytes

PREFETCH = 2  # batches that are read while a step is computed
BLOCK = 256  # rows that are brought to the device at a time
# Of the free memory; the rest is for what the estimate does not know.
USABLE = 0.9


class Records(Protocol):
    """Tokens with one record for each image, as the token cache keeps them."""

    record: int
    dtype: torch.dtype

    def records(self, rows: np.ndarray, out: Tensor | None = None) -> Tensor: ...

    def expand(self, records: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...


def choose_sources(parts: Sequence[tuple[FactorTopy, EncodingData]], *, wanted: str, device: str, say: Say) -> None:
    """Give each subject's data a batch source, unless it has one.

    Parameters
    ----------
    parts : sequence of (FactorTopy, EncodingData)
        Each subject's model and data; the ``source`` of the data is set.
    wanted : {"auto", "device", "host"}
        See `choose_source`.
    device : str
        cpu, cuda or mps.
    say : callable
        Called with a line for each choice.
    """
    rows = [np.concatenate([data.split.train, data.split.validation]) for _, data in parts]
    needs = [
        estimate_memory(model, len(r), data.batch_size, device) for (model, data), r in zip(parts, rows, strict=True)
    ]
    # All models are on the device, wherever the tokens of each are.
    state, step = sum(need.state for need in needs), sum(need.step for need in needs)
    for (_, data), chosen, need in zip(parts, rows, needs, strict=True):
        if data.source is None:
            total = replace(need, state=state, step=step)
            data.source, line = choose_source(
                data.tokens, data.responses, chosen, wanted=wanted, device=device, need=total
            )
            say(line)


def choose_source(
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    *,
    wanted: str,
    device: str,
    need: MemoryEstimate,
    free: int | None = None,
) -> tuple[BatchSource, str]:
    """Choose where the tokens are during training.

    Parameters
    ----------
    tokens : TokenSource
        With ``records`` and ``expand`` as the token cache has them; without, they stay on the disk.
    responses : ResponseSource
    rows : int array
        The images of training and validation.
    wanted : {"auto", "device", "host"}
        ``auto``: on the device if it is not the CPU and everything fits.
    device : str
        cpu, cuda or mps.
    need : MemoryEstimate
        See :func:`brainkit.training.memory_budget.estimate_memory`.
    free : int, optional
        Bytes free on the device; by default measured.

    Returns
    -------
    source : BatchSource
    line : str
        The choice and its reason, with sizes.

    Raises
    ------
    UsageError
        If they are wanted on the device and do not fit.
    """
    free = free_memory(device) if free is None else free
    fits = need.data + need.work <= USABLE * free
    sizes = f"tokens {format_bytes(need.tokens)} and responses {format_bytes(need.responses)} of {len(rows)} images"
    rest = f"everything else takes about {format_bytes(need.work)}, {format_bytes(free)} free on {device}"
    if wanted == "device" and not fits:
        raise UsageError(
            f"train.residency 'device' does not fit: {sizes}, {rest}; use train.residency=auto, or lower model.grid "
            "or the number of backbone.layers"
        )
    has_records = hasattr(tokens, "records")
    if wanted == "device" and not has_records:
        raise UsageError(
            f"train.residency 'device': expected tokens with one record for each image, found {type(tokens).__name__}; "
            "use train.residency=auto"
        )
    if wanted == "device" or (wanted == "auto" and device != "cpu" and fits and has_records):
        why = "as asked" if wanted == "device" else "they fit"
        return DeviceSource(tokens, responses, rows, device), f"memory: {sizes} on {device} ({why}); {rest}"  # type: ignore[arg-type]
    if wanted == "host":
        why = "as asked"
    elif device == "cpu":
        why = "the processor reads them from there"
    else:
        why = "they do not fit" if has_records else "they have no records"
    return StreamedSource(tokens, responses, device), f"memory: {sizes} stay on the disk, mapped ({why}); {rest}"


class DeviceSource:
    """Tokens and responses of some images on a device: one (n, record) tensor in half precision, one (n, V).

    Parameters
    ----------
    tokens : Records
    responses : ResponseSource
    rows : int array
        The images that batches will be made of.
    device : str

    Raises
    ------
    BrainkitError
        If the device turns out to be too small.
    """

    def __init__(self, tokens: Records, responses: ResponseSource, rows: np.ndarray, device: str) -> None:
        self.tokens, self.device = tokens, torch.device(device)
        self.index = np.full(int(rows.max()) + 1, -1)  # from an image's row to its row on the device
        self.index[rows] = np.arange(len(rows))
        first = tokens.records(rows[:1]), torch.from_numpy(responses.rows(rows[:1]))
        try:
            self.records, self.responses = (
                torch.empty(len(rows), *part.shape[1:], dtype=part.dtype, device=self.device) for part in first
            )
        except RuntimeError as error:
            raise BrainkitError(
                f"the tokens do not fit on {device}: {first_line(error)}; use train.residency=host"
            ) from None
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            self.records[start : start + len(block)].copy_(tokens.records(block))
            self.responses[start : start + len(block)].copy_(torch.from_numpy(responses.rows(block)))

    def stage(self, rows: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, ...]]:
        """Each batch's rows on the device, (B,) int64."""
        for batch in rows:
            yield (torch.from_numpy(self.index[batch]).to(self.device, non_blocking=True),)

    def finish(self, staged: tuple[Tensor, ...]) -> Batch:
        """Tokens, in single precision, and responses of these rows."""
        (rows,) = staged
        local, whole = self.tokens.expand(self.records.index_select(0, rows))
        return local, whole, self.responses.index_select(0, rows)


class StreamedSource:
    """Batches from the disk, read by a thread while the step before is computed.

    On CUDA they pass through pinned memory and a stream of their own; nothing waits for the host.

    Parameters
    ----------
    tokens : TokenSource
        With ``records`` and ``expand`` half the bytes are moved; ``batch`` alone is enough.
    responses : ResponseSource
    device : str
    """

    def __init__(self, tokens: TokenSource, responses: ResponseSource, device: str) -> None:
        self.tokens, self.responses, self.device = tokens, responses, torch.device(device)
        self.has_records = hasattr(tokens, "records")
        self.layers: tuple[str, ...] = ()
        self.thread = ThreadPoolExecutor(1, "batches")
        self.copies = torch.cuda.Stream() if self.device.type == "cuda" else None
        # Buffers for each batch under way, and for the one that the step before may still be copying.
        self.buffers = [_PinnedBuffers() for _ in range(PREFETCH + 2)]
        self.next_buffers = 0

    def stage(self, rows: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, ...]]:
        """Each batch's tensors on the device."""
        pending: deque[Future[_Staged]] = deque()
        try:
            for batch in rows:
                pending.append(self.thread.submit(self._fetch, batch))
                if len(pending) > PREFETCH:
                    yield self._arrived(pending.popleft().result())
            while pending:
                yield self._arrived(pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()

    def finish(self, staged: tuple[Tensor, ...]) -> Batch:
        """The batch, its tokens in single precision."""
        *tokens, response = staged
        if self.has_records:
            return *self.tokens.expand(tokens[0]), response  # type: ignore[attr-defined]
        n = len(self.layers)
        return (
            dict(zip(self.layers, tokens[:n], strict=True)),
            dict(zip(self.layers, tokens[n:], strict=True)),
            response,
        )

    def _fetch(self, rows: np.ndarray) -> _Staged:
        """Read a batch and start its copy to the device; runs in the thread."""
        response = torch.from_numpy(np.ascontiguousarray(self.responses.rows(rows)))
        if self.copies is None:
            return _Staged((*self._read(rows, None), response), None)
        buffers = self.buffers[self.next_buffers]
        self.next_buffers = (self.next_buffers + 1) % len(self.buffers)
        buffers.wait()
        pinned = (*self._read(rows, buffers), buffers.copy("response", response))
        with torch.cuda.stream(self.copies):
            moved = tuple(part.to(self.device, non_blocking=True) for part in pinned)
            buffers.copied = torch.cuda.Event()
            buffers.copied.record()
        return _Staged(moved, buffers.copied)

    def _read(self, rows: np.ndarray, buffers: _PinnedBuffers | None) -> tuple[Tensor, ...]:
        tokens: Any = self.tokens
        if self.has_records:
            out = buffers.get("records", (len(rows), tokens.record), tokens.dtype) if buffers else None
            return (tokens.records(rows, out),)
        local, whole = tokens.batch(rows)
        self.layers = tuple(local)
        parts = (*local.values(), *whole.values())
        return tuple(buffers.copy(str(k), part) for k, part in enumerate(parts)) if buffers else parts

    def _arrived(self, staged: _Staged) -> tuple[Tensor, ...]:
        """Make the work that follows wait for the copy, on the device."""
        if staged.copied is None:
            return tuple(part.to(self.device) for part in staged.tensors)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(staged.copied)
        for part in staged.tensors:
            part.record_stream(stream)  # allocated on the other stream, so the allocator must know
        return staged.tensors


class _Staged(NamedTuple):
    """Tensors of a batch, and the event after their copies to the device; None without a stream for copies."""

    tensors: tuple[Tensor, ...]
    copied: Any


class _PinnedBuffers:
    """Pinned memory for one batch, used again and again."""

    def __init__(self) -> None:
        self.copied: Any = None
        self.tensors: dict[str, Tensor] = {}

    def wait(self) -> None:
        """Wait, in the thread, until the batch before has been copied."""
        if self.copied is not None:
            self.copied.synchronize()

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A pinned tensor; batches of an epoch differ only in that the last may be smaller."""
        tensor = self.tensors.get(name)
        if tensor is None or len(tensor) < shape[0]:
            tensor = self.tensors[name] = torch.empty(shape, dtype=dtype, pin_memory=True)
        return tensor[: shape[0]]

    def copy(self, name: str, value: Tensor) -> Tensor:
        """A pinned copy."""
        return self.get(name, tuple(value.shape), value.dtype).copy_(value)
