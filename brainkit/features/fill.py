"""Fills a token store: images are decoded ahead of the network, shards written behind it, work shared by processes."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brainkit.errors import BrainkitError
from brainkit.features.forward import PendingBatch, TokenExtractor
from brainkit.features.shard import ShardWriter
from brainkit.features.store import TokenStore
from brainkit.images import Preprocessing, decode, normalise, prepare
from brainkit.utils.locks import FileLock
from brainkit.utils.system import cores
from brainkit.utils.text import plural

# A shard is completed at this size or after this time: the most that a killed extraction can lose.
SHARD_BYTES = 160_000_000
SHARD_SECONDS = 15.0

Chunk = tuple[str, list[bytes]]  # a name, which follows from its images; and the images' hashes


@dataclass
class _Batch:
    """Images of a chunk that are being decoded."""

    chunk: str
    lock: FileLock
    images: list[bytes]
    inputs: list[Future[np.ndarray]]
    remaining: int  # of the chunk's images, these included


class StoreFiller:
    """Adds the images that a store lacks, together with any other process that does so.

    The images are divided into chunks, and each chunk is processed by the process that locks it. Images are decoded in
    threads ahead of the network, and a shard is written while the network computes.

    Parameters
    ----------
    store : TokenStore
    extractor : TokenExtractor
    paths : mapping of bytes to Path
        Hash of the content -> file, of all images in order.
    n_images : int
        Images to count up to; more than `paths` has if some are repeated.
    progress : callable, optional
        Called with the number of images in the store so far.
    """

    def __init__(
        self,
        store: TokenStore,
        extractor: TokenExtractor,
        paths: Mapping[bytes, Path],
        n_images: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.store, self.extractor, self.paths = store, extractor, paths
        self.n_images, self.progress = n_images, progress
        # A multiple of all common batch sizes, so that batches, and with them the last bits of the tokens, do not
        # depend on where an earlier extraction was interrupted.
        self.chunk_size = max(64, SHARD_BYTES // (2 * store.layout.record) // 64 * 64)
        self.missing = set(store.missing(paths))
        self.writer: ShardWriter | None = None
        self.shard_started = 0.0
        self.locks: list[FileLock] = []
        self.checksum_pool = ThreadPoolExecutor(min(4, cores()))

    def run(self) -> None:
        """Run until no image is missing.

        Raises
        ------
        BrainkitError
            If the store cannot be written. The tokens extracted so far are kept.
        """
        self._report()
        chunks = list(_split(list(self.paths), self.chunk_size))
        try:
            while chunks:
                locked_elsewhere: list[Chunk] = []
                with contextlib.ExitStack() as stack:
                    self._fill(chunks, locked_elsewhere, stack)
                for name, _ in locked_elsewhere:
                    self.store.wait_for_chunk(name)
                self.store.refresh()
                self.missing.intersection_update(self.store.missing(self.missing))
                chunks = locked_elsewhere
        except OSError as error:
            if self.writer is not None:
                self.writer.abandon()
                self.writer = None
            self.store.refresh()
            done = self.n_images - len(self.store.missing(self.paths))
            raise BrainkitError(
                f"{self.store.folder}: cannot be written: {error.strerror or error}; the tokens of {done} of "
                f"{plural(self.n_images, 'image')} are kept: free some space and run again, or set BRAINKIT_CACHE to a "
                "folder on another disk"
            ) from error
        finally:
            if self.writer is not None:  # interrupted: keep what is done
                with contextlib.suppress(OSError):
                    self.writer.finish()
            for lock in self.locks:
                lock.release(remove=True)
            self.checksum_pool.shutdown()

    def _fill(self, chunks: list[Chunk], locked_elsewhere: list[Chunk], stack: contextlib.ExitStack) -> None:
        """Process the chunks that no other process has locked; `locked_elsewhere` takes the rest."""
        pool = ThreadPoolExecutor(cores())
        stack.callback(pool.shutdown, cancel_futures=True)
        on_cuda = self.extractor.device.type == "cuda"
        pending: collections.deque[tuple[_Batch, PendingBatch]] = collections.deque()
        prefetch = 2 + 2 * cores() // self.extractor.batch_size
        for batch in _prefetched(self._batches(chunks, locked_elsewhere, pool), prefetch):
            decoded = [future.result() for future in batch.inputs]
            images = torch.empty((len(decoded), *decoded[0].shape), pin_memory=on_cuda)
            np.stack(decoded, out=images.numpy())
            paths = [self.paths[image] for image in batch.images]
            pending.append((batch, self.extractor.submit(images, self.store.offsets, paths)))
            if len(pending) > on_cuda:  # on a GPU the next batch is computed while this one is written
                self._write(*pending.popleft())
        while pending:
            self._write(*pending.popleft())

    def _batches(
        self, chunks: list[Chunk], locked_elsewhere: list[Chunk], pool: ThreadPoolExecutor
    ) -> Iterator[_Batch]:
        preprocessing = self.extractor.backbone.preprocessing
        size = self.extractor.batch_size
        for name, images in chunks:
            if self.missing.isdisjoint(images):
                continue
            lock = self.store.lock_chunk(name)
            if lock is None:
                locked_elsewhere.append((name, images))
                continue
            self.locks.append(lock)
            self.store.refresh()
            missing = self.store.missing(images)
            self.missing.difference_update(set(images).difference(missing))
            for start in range(0, len(missing), size):
                batch = missing[start : start + size]
                futures = [pool.submit(read_input, self.paths[image], preprocessing) for image in batch]
                yield _Batch(name, lock, batch, futures, len(missing) - start)
            if not missing:
                self._unlock(lock)

    def _write(self, batch: _Batch, pending: PendingBatch) -> None:
        records = self.extractor.result(pending, self.store.offsets)
        if self.writer is None:
            self.writer = ShardWriter(self.store.folder, batch.chunk, self.store.layout.record, batch.remaining)
            self.shard_started = time.monotonic()
        checksums = list(self.checksum_pool.map(lambda record: zlib.crc32(record.data), records))
        self.writer.add(batch.images, records, checksums)
        self.missing.difference_update(batch.images)
        chunk_done = batch.remaining == len(batch.images)
        too_old = time.monotonic() - self.shard_started >= SHARD_SECONDS
        if chunk_done or too_old or self.writer.nbytes >= SHARD_BYTES:
            self.writer.finish()
            self.writer = None
        if chunk_done:
            self._unlock(batch.lock)
        self._report()

    def _unlock(self, lock: FileLock) -> None:
        self.locks.remove(lock)
        lock.release(remove=True)

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self.n_images - len(self.missing))


def read_input(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read an image as the network's input: (3, S, S), float32."""
    return normalise(prepare(decode(path), preprocessing)[None], preprocessing)[0]


def _split(images: Sequence[bytes], size: int) -> Iterator[Chunk]:
    for start in range(0, len(images), size):
        chunk = list(images[start : start + size])
        yield hashlib.sha256(b"".join(chunk)).hexdigest()[:24], chunk


def _prefetched(batches: Iterator[_Batch], count: int) -> Iterator[_Batch]:
    """The same batches, with `count` of them started before the first is used."""
    started = collections.deque(itertools.islice(batches, count))
    while started:
        yield started.popleft()
        started.extend(itertools.islice(batches, 1))
