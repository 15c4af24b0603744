"""Filling a token store: decoding ahead of the network, writing behind it, sharing the work between processes."""

from __future__ import annotations

import collections
import contextlib
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brainkit.errors import BrainkitError
from brainkit.features.forward import Flight, TokenPass
from brainkit.features.shard import ShardWriter
from brainkit.features.store import TokenStore, chunks
from brainkit.images import Preprocessing, decode, normalise, prepare
from brainkit.utils.locks import FileLock
from brainkit.utils.system import cores

# A shard is complete at this size or after this time: what a killed extraction loses at most.
SHARD_BYTES = 160_000_000
SHARD_SECONDS = 15.0


@dataclass
class _Job:
    """A batch of images of one piece of the work, being decoded."""

    chunk: str
    claim: FileLock
    images: list[bytes]
    prepared: list[Future[np.ndarray]]
    left: int  # of the piece's images, these included


class Filling:
    """Fills a store with the images it lacks, together with whoever else is at it.

    The images are cut into pieces, and each piece belongs to the process that claims it. Images are decoded ahead of
    the network in threads, and a shard is written while the network works on.

    Parameters
    ----------
    store : TokenStore
    network : TokenPass
    paths : mapping of bytes to Path
        Hash of the content -> file, of all images, in their order.
    wanted : int
        Images to be counted to; more than `paths` has where some come twice.
    progress : callable, optional
        Called with the number of images that are there so far.
    """

    def __init__(
        self,
        store: TokenStore,
        network: TokenPass,
        paths: Mapping[bytes, Path],
        wanted: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.store, self.network, self.paths, self.wanted, self.progress = store, network, paths, wanted, progress
        # A multiple of every usual batch size: so the batches, and with them the last bits of the tokens, do not
        # depend on where an earlier extraction was interrupted.
        self.piece = max(64, SHARD_BYTES // (2 * store.layout.record) // 64 * 64)
        self.waiting = set(store.missing(paths))
        self.writer: ShardWriter | None = None
        self.since = 0.0
        self.claims: list[FileLock] = []
        self.sums = ThreadPoolExecutor(min(4, cores()))

    def run(self) -> None:
        """Run until no image is missing."""
        self._show()
        pieces = list(chunks(list(self.paths), self.piece))
        try:
            while pieces:
                elsewhere: list[tuple[str, list[bytes]]] = []
                with contextlib.ExitStack() as stack:
                    self._fill(pieces, elsewhere, stack)
                for chunk, _ in elsewhere:
                    self.store.wait_for(chunk)
                self.store.refresh()
                self.waiting.intersection_update(self.store.missing(self.waiting))
                pieces = elsewhere
        except OSError as error:
            if self.writer is not None:
                self.writer.abandon()
                self.writer = None
            self.store.refresh()
            there = self.wanted - len(self.store.missing(self.paths))
            raise BrainkitError(
                f"{self.store.folder}: cannot be written: {error.strerror or error}; the tokens of {there} of "
                f"{self.wanted} images are there and stay: make room and run again, or set BRAINKIT_CACHE to a folder "
                "on another disk"
            ) from error
        finally:
            if self.writer is not None:  # interrupted: what is done is kept
                with contextlib.suppress(OSError):
                    self.writer.finish()
            for claim in self.claims:
                claim.release(remove=True)
            self.sums.shutdown()

    def _fill(
        self,
        pieces: list[tuple[str, list[bytes]]],
        elsewhere: list[tuple[str, list[bytes]]],
        stack: contextlib.ExitStack,
    ) -> None:
        """Do what nobody else is doing; `elsewhere` takes the rest."""
        pool = ThreadPoolExecutor(cores())
        stack.callback(pool.shutdown, cancel_futures=True)
        on_cuda = self.network.device.type == "cuda"
        flying: collections.deque = collections.deque()
        for job in _ahead(self._jobs(pieces, elsewhere, pool), 2 + 2 * cores() // self.network.batch_size):
            decoded = [future.result() for future in job.prepared]
            images = torch.empty((len(decoded), *decoded[0].shape), pin_memory=on_cuda)
            np.stack(decoded, out=images.numpy())
            flying.append((job, self.network.launch(images, self.store.offsets)))
            if len(flying) > on_cuda:  # on a GPU the next batch is computed while this one is written
                self._keep(*flying.popleft())
        while flying:
            self._keep(*flying.popleft())

    def _jobs(
        self,
        pieces: list[tuple[str, list[bytes]]],
        elsewhere: list[tuple[str, list[bytes]]],
        pool: ThreadPoolExecutor,
    ) -> Iterator[_Job]:
        preprocessing = self.network.backbone.preprocessing
        size = self.network.batch_size
        for chunk, images in pieces:
            if self.waiting.isdisjoint(images):
                continue
            claim = self.store.claim(chunk)
            if claim is None:
                elsewhere.append((chunk, images))
                continue
            self.claims.append(claim)
            self.store.refresh()
            missing = self.store.missing(images)
            self.waiting.difference_update(set(images).difference(missing))
            for start in range(0, len(missing), size):
                batch = missing[start : start + size]
                futures = [pool.submit(prepared, self.paths[image], preprocessing) for image in batch]
                yield _Job(chunk, claim, batch, futures, len(missing) - start)
            if not missing:
                self._done(claim)

    def _keep(self, job: _Job, flight: Flight) -> None:
        records = self.network.land(flight, self.store.offsets)
        if self.writer is None:
            self.writer = ShardWriter(self.store.folder, job.chunk, self.store.layout.record, job.left)
            self.since = time.monotonic()
        checksums = list(self.sums.map(lambda record: zlib.crc32(record.data), records))
        self.writer.add(job.images, records, checksums)
        self.waiting.difference_update(job.images)
        last = job.left == len(job.images)
        if last or self.writer.nbytes >= SHARD_BYTES or time.monotonic() - self.since >= SHARD_SECONDS:
            self.writer.finish()
            self.writer = None
        if last:
            self._done(job.claim)
        self._show()

    def _done(self, claim: FileLock) -> None:
        self.claims.remove(claim)
        claim.release(remove=True)

    def _show(self) -> None:
        if self.progress is not None:
            self.progress(self.wanted - len(self.waiting))


def prepared(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """An image as the network takes it: (3, S, S), float32."""
    return normalise(prepare(decode(path), preprocessing)[None], preprocessing)[0]


def _ahead(jobs: Iterator[_Job], count: int) -> Iterator[_Job]:
    """The same, `count` of them begun before the first is asked for."""
    begun = collections.deque(itertools.islice(jobs, count))
    while begun:
        yield begun.popleft()
        begun.extend(itertools.islice(jobs, 1))
