"""Images through the network, in order and in bounded memory: decoded in threads ahead, run in a thread of its own."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from brainkit.errors import ImageError
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.decode import Prepared, prepare_into
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.network import Network
from brainkit.utils.system import PeakMemory, cores, free_memory, memory_now
from brainkit.utils.text import as_text

_REMOTE_THREADS = 16  # images fetched at once from remote storage, which mostly means waiting
_BREAK_OFF_SECONDS = 5.0  # time that a run gets to end after it is aborted
_MEMORY_SHARE = 0.5  # of the free memory: other processes need some too, and so does decoding
_AMPLE = 1_000_000_000  # bytes per image, more than any network of these input sizes takes


class Entries(Protocol):
    """What the pipeline uses of a `brainkit.predict.inputs.image_list.ImageList`."""

    def __len__(self) -> int: ...

    def entries(self, start: int, stop: int) -> Sequence[ImageSource]: ...


@dataclass(frozen=True)
class Block:
    """The results of one batch, in the order of the images.

    Attributes
    ----------
    done : int
        Images of the list processed after this block.
    names : list of str
        Names of the rows' images: paths as given; ``shard.tar/member.jpg`` in tar shards.
    fmri : array of shape (b, columns), float32
    skipped : list of (str, str)
        Name and reason of the images that could not be read.
    skipped_at : list of int
        Their positions in the list.
    missing : list of int
        Positions of those whose file does not exist.
    of_several : list of int
        Positions of images that are the first of several in their file (an animation, pages).
    """

    done: int
    names: list[str]
    fmri: np.ndarray
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    of_several: list[int] = field(default_factory=list)


def local_blocks(
    encoder: Network,
    sources: Entries,
    *,
    start: int = 0,
    batch_size: int | None = None,
    columns: np.ndarray | None = None,
    spread: bool = False,
    watch: Callable[[np.ndarray], None] | None = None,
) -> Generator[Block, None, None]:
    """Predict the images of a list, from a position on.

    A batch is `batch_size` consecutive images of the list, less those that cannot be read: so if `start` is a multiple
    of `batch_size`, the batches are those of a run from the beginning.

    Parameters
    ----------
    encoder : Encoder
    sources : ImageList
        Or anything with a length and ``entries(start, stop)``, which returns images.
    start : int
        Position of the first image.
    batch_size : int, optional
        Images at once; chosen by the input's size and the free memory by default.
    columns : array of shape (n,), int, optional
        Columns to keep.
    spread : bool
        For an ensemble: rows (b, 2, columns), the mean and the s.d. over its members.
    watch : callable, optional
        Called with each batch of prepared images (b, S, S, 3), uint8, before it is predicted; its memory is reused.

    Yields
    ------
    Block
    """
    total = len(sources)
    size = choose_batch_size(encoder, batch_size, total - start)
    pending: collections.deque[Sequence[ImageSource]] = collections.deque()

    def chunks() -> Iterator[Sequence[ImageSource]]:
        for first in range(start, total, size):
            pending.append(sources.entries(first, min(first + size, total)))
            yield pending[-1]

    def run(batch: np.ndarray) -> np.ndarray:
        if watch is not None:
            watch(batch)
        return encoder.run_with_spread(batch, columns) if spread else encoder.run(batch, columns)

    width = len(encoder.info.vertices) if columns is None else len(columns)
    with contextlib.closing(batches(encoder, chunks(), size, run, first=start)) as results:
        for batch in results:
            entries = pending.popleft()
            failed = dict(batch.failed)
            first = batch.stop - len(entries)
            yield Block(
                batch.stop,
                [as_text(entry.name) for position, entry in enumerate(entries, first) if position not in failed],
                np.empty((0, width), np.float32) if batch.fmri is None else batch.fmri,
                [(as_text(entries[at - first].name), as_text(error.reason)) for at, error in failed.items()],
                list(failed),
                [at for at, error in failed.items() if error.missing],
                batch.of_several,
            )


def choose_batch_size(encoder: Network, requested: int | None, images: int) -> int:
    """How many images are run at once.

    Parameters
    ----------
    encoder : Encoder
    requested : int, optional
        What the user asks for, taken as it is.
    images : int
        How many there are.

    Returns
    -------
    int
        `Encoder.batch_size_for` the input's size; less if memory is short: then one image is run to measure what it
        takes. On a GPU, which has memory of its own, no image is run.

    Raises
    ------
    UsageError
        If `requested` is less than 1.
    """
    size = encoder.batch_size_for(requested)
    if requested is not None:
        return size
    size = max(1, min(size, images))
    if size == 1 or encoder.device != "cpu":
        return size
    budget = int(free_memory() * _MEMORY_SHARE)
    if budget >= size * _AMPLE:
        return size
    return max(1, min(size, budget // max(1, _bytes_per_image(encoder))))


def _bytes_per_image(encoder: Network) -> int:
    """By how much the process grows when it runs one image; 0 where the system does not say.

    An encoder that has run before already holds its memory, and grows no more.
    """
    side = encoder.info.preprocessing.size
    with PeakMemory() as peak:
        before = memory_now()["anonymous"]
        encoder.run(np.zeros((1, side, side, 3), np.uint8))
        after = peak.lap()["anonymous"]
    return 0 if before is None or after is None else max(0, after - before)


@dataclass(frozen=True)
class Batch:
    """One batch, of the images before `stop`: the rows of the readable ones (None if none is), and the errors.

    `of_several`: positions of images that are the first of several in their file.
    """

    stop: int
    fmri: np.ndarray | None
    failed: list[tuple[int, ImageError]]
    of_several: list[int]


def batches(
    encoder: Network,
    chunks: Iterable[Sequence[Any]],
    size: int,
    run: Callable[[np.ndarray], np.ndarray],
    *,
    first: int = 0,
) -> Generator[Batch, None, None]:
    """Run images, `size` at once.

    Images are decoded into buffers that are reused; there are just enough of them for the network not to wait.

    Parameters
    ----------
    encoder : Encoder
        Its preprocessing is applied, and `break_off` called if the consumer stops early.
    chunks : iterable of sequences
        The images, `size` in each: anything `brainkit.predict.inputs.decode.prepare_into` takes. A chunk is asked for
        when a buffer is free.
    size : int
    run : callable
        Prepared images (b, S, S, 3) uint8 -> rows (b, ...), float32.
    first : int
        Position of the first image.
    """
    preprocessing = encoder.info.preprocessing
    side = preprocessing.size
    # One batch in the network, one ready for it, and as many images being decoded as there are threads.
    threads = encoder.threads or cores()
    unused = 2 + -(-threads // size)
    free: list[np.ndarray] = []
    waiting: collections.deque[tuple[np.ndarray, Future[Batch]]] = collections.deque()
    decoders: ThreadPoolExecutor | None = None
    network = _NetworkThread()
    try:
        upcoming = iter(chunks)
        while True:
            while (free or unused) and (sources := next(upcoming, None)) is not None:
                decoders = decoders or _decoders(sources, threads)
                if not free:
                    free.append(np.empty((size, side, side, 3), np.uint8))
                    unused -= 1
                buffer = free.pop()
                images = [
                    decoders.submit(prepare_into, row, source, preprocessing)
                    for row, source in zip(buffer, sources, strict=False)
                ]
                waiting.append((buffer, network.submit(_run_batch, first, buffer, images, run)))
                first += len(sources)
            if not waiting:
                break
            buffer, future = waiting.popleft()
            batch = future.result()
            free.append(buffer)
            yield batch
    finally:
        if decoders is not None:
            decoders.shutdown(wait=False, cancel_futures=True)  # the network may be waiting for cancelled images
        network.end(encoder)
        if decoders is not None:
            decoders.shutdown(wait=True)


def _run_batch(
    first: int,
    buffer: np.ndarray,
    images: list[Future[Prepared]],
    run: Callable[[np.ndarray], np.ndarray],
) -> Batch:
    """Wait for a batch's images, close the gaps of those that could not be read, and run the rest."""
    failed, of_several, kept = [], [], 0
    for index, image in enumerate(images):
        prepared = image.result()
        if prepared.error is not None:
            failed.append((first + index, prepared.error))
            continue
        if prepared.of_several:
            of_several.append(first + index)
        if kept < index:
            buffer[kept] = buffer[index]
        kept += 1
    return Batch(first + len(images), run(buffer[:kept]) if kept else None, failed, of_several)


def _decoders(sources: Sequence[Any], threads: int) -> ThreadPoolExecutor:
    is_remote = any(isinstance(source, ImageSource) and remote.is_url(source.file) for source in sources)
    return ThreadPoolExecutor(max(threads, _REMOTE_THREADS) if is_remote else threads, thread_name_prefix="decode")


class _NetworkThread:
    """A thread that runs one job after another. It does not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = queue.SimpleQueue()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="network", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Batch], *arguments: Any) -> Future[Batch]:
        future: Future[Batch] = Future()
        self._jobs.put((future, function, arguments))
        return future

    def end(self, encoder: Network) -> None:
        """Cancel what is queued, and abort what runs."""
        self._ended = True
        self._jobs.put(None)
        encoder.break_off(self._thread.ident)
        self._thread.join(_BREAK_OFF_SECONDS)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            if self._ended:
                future.cancel()
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # raised where the result is waited for
                future.set_exception(error)
