"""Images through the network: decoded in threads ahead of it, run in a thread of its own; in order, memory bounded."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.errors import BrainkitError
from brainkit.predict.batch_size import choose_batch_size
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.decode import prepare_into, reason_without_name
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.utils.system import cores
from brainkit.utils.text import as_text

if TYPE_CHECKING:
    from brainkit.predict.encoder import Encoder
    from brainkit.predict.inputs.image_list import ImageList

_REMOTE_AT_ONCE = 16  # images that are fetched at once: there it is the network that one waits for
_END_WITHIN = 5.0  # seconds that a run gets to notice that it is not wanted any more


@dataclass(frozen=True)
class Block:
    """What one batch gave, in the order of the images.

    Attributes
    ----------
    done : int
        Images of the list finished after this block.
    names : list of str
        Of the rows, as text: the paths as given; ``shard.tar/member.jpg`` in tar shards.
    fmri : array of shape (b, columns), float32
    skipped : list of (str, str)
        Name and reason of the images that could not be read.
    skipped_at : list of int
        Their positions in the list.
    """

    done: int
    names: list[str]
    fmri: np.ndarray
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)


def local_blocks(
    encoder: Encoder,
    sources: ImageList,
    *,
    start: int = 0,
    batch_size: int | None = None,
    columns: np.ndarray | None = None,
    spread: bool = False,
) -> Generator[Block, None, None]:
    """Predict the images of a list, from a position on.

    A batch is `batch_size` images that follow each other in the list, less those that cannot be read: so the same
    batches come as in a run from the beginning, if `start` is a multiple of `batch_size`.

    Parameters
    ----------
    encoder : Encoder
    sources : ImageList
        Anything with a length and ``entries(start, stop)``, which gives images.
    start : int
        Position of the first image.
    batch_size : int, optional
        Images at once; chosen by the input's size and the free memory when not given.
    columns : array of shape (n,), int, optional
        Columns to keep.
    spread : bool
        Of an ensemble, rows (b, 2, columns): the mean and the s.d. over its members.

    Yields
    ------
    Block
    """
    total = len(sources)
    size = choose_batch_size(encoder, batch_size, total - start)
    taken: collections.deque[list[ImageSource]] = collections.deque()

    def take(first: int, stop: int) -> list[ImageSource]:
        taken.append(sources.entries(first, stop))
        return taken[-1]

    def run(batch: np.ndarray) -> np.ndarray:
        return encoder.run_with_spread(batch, columns) if spread else encoder.run(batch, columns)

    width = len(encoder.vertices) if columns is None else len(columns)
    with contextlib.closing(batches(encoder, take, range(start, total), size, run)) as made:
        for batch in made:
            entries = taken.popleft()
            bad = dict(batch.failed)
            first = batch.stop - len(entries)
            yield Block(
                batch.stop,
                [as_text(entry.name) for position, entry in enumerate(entries, first) if position not in bad],
                np.empty((0, width), np.float32) if batch.fmri is None else batch.fmri,
                [
                    (as_text(entries[at - first].name), reason_without_name(error, entries[at - first].name))
                    for at, error in batch.failed
                ],
                list(bad),
            )


@dataclass(frozen=True)
class Batch:
    """Of the images before `stop` one batch: rows of those that could be read (None: of none), and why others not."""

    stop: int
    fmri: np.ndarray | None
    failed: list[tuple[int, BrainkitError]]


def batches(
    encoder: Encoder,
    take: Callable[[int, int], Sequence[Any]],
    positions: range,
    size: int,
    run: Callable[[np.ndarray], np.ndarray],
) -> Generator[Batch, None, None]:
    """Run the images at some positions, `size` at once.

    Decoding goes into buffers that are used again and again; there are enough of them for the network not to wait, and
    no more.

    Parameters
    ----------
    encoder : Encoder
    take : callable
        The images from one position to another: whatever `brainkit.predict.inputs.decode.prepare_into` takes.
    positions : range
    size : int
    run : callable
        Prepared images (b, S, S, 3) uint8 -> rows (b, ...), float32.
    """
    preprocessing = encoder.info.preprocessing
    side = preprocessing.size
    # One batch in the network, one ready for it, and as many images in the making as there are threads.
    depth = 2 + -(-cores() // size)
    free = [np.empty((size, side, side, 3), np.uint8) for _ in range(min(depth, -(-len(positions) // size)))]
    waiting: collections.deque[tuple[np.ndarray, Future[Batch]]] = collections.deque()
    decoders: ThreadPoolExecutor | None = None
    network = _Network()
    try:
        upcoming = iter(range(positions.start, positions.stop, size))
        while True:
            while free and (first := next(upcoming, None)) is not None:
                sources = take(first, min(first + size, positions.stop))
                decoders = decoders or _decoders(sources)
                buffer = free.pop()
                images = [
                    decoders.submit(prepare_into, place, source, preprocessing)
                    for place, source in zip(buffer, sources, strict=False)
                ]
                waiting.append((buffer, network.submit(_finish, first, buffer, images, run)))
            if not waiting:
                break
            buffer, future = waiting.popleft()
            batch = future.result()
            free.append(buffer)
            yield batch
    finally:
        if decoders is not None:
            decoders.shutdown(wait=False, cancel_futures=True)  # the network may be waiting for what is dropped now
        network.end(encoder)
        if decoders is not None:
            decoders.shutdown(wait=True)


def _finish(
    first: int,
    buffer: np.ndarray,
    images: list[Future[BrainkitError | None]],
    run: Callable[[np.ndarray], np.ndarray],
) -> Batch:
    """Wait for a batch's images, close the gaps of those that could not be read, and run the rest."""
    failed, kept = [], 0
    for index, image in enumerate(images):
        if (error := image.result()) is not None:
            failed.append((first + index, error))
            continue
        if kept < index:
            buffer[kept] = buffer[index]
        kept += 1
    return Batch(first + len(images), run(buffer[:kept]) if kept else None, failed)


def _decoders(sources: Sequence[Any]) -> ThreadPoolExecutor:
    away = any(isinstance(source, ImageSource) and remote.is_address(source.place) for source in sources)
    threads = max(cores(), _REMOTE_AT_ONCE) if away else cores()
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


class _Network:
    """A thread that does one thing after the other. It does not hold up the end of the process."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._work = queue.SimpleQueue()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="network", daemon=True)
        self._thread.start()

    def submit(self, do: Callable[..., Batch], *given: Any) -> Future[Batch]:
        future: Future[Batch] = Future()
        self._work.put((future, do, given))
        return future

    def end(self, encoder: Encoder) -> None:
        """Drop what waits, and break off what runs."""
        self._ended = True
        self._work.put(None)
        encoder.break_off(self._thread.ident)
        self._thread.join(_END_WITHIN)

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            future, do, given = job
            if self._ended:
                future.cancel()
                continue
            try:
                future.set_result(do(*given))
            except BaseException as error:  # it is raised where the result is waited for
                future.set_exception(error)
