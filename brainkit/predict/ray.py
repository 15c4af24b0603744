"""The same predictions on many machines, with Ray Data: it hands out chunks of the list, and returns blocks in order.

Batches are those of a single machine, so the rows are too. A worker that dies is replaced by Ray, and its chunk is
repeated. Ray is imported when it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import platform
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.encoder_file.file import read_text
from brainkit.errors import BrainkitError, DataError, UsageError, require
from brainkit.predict.encoder import Encoder, load
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.pipeline import Block, choose_batch_size, local_blocks
from brainkit.utils.text import as_text

if TYPE_CHECKING:
    from brainkit.predict.inputs.image_list import ImageList

_BATCHES = 8  # of a chunk: enough for decoding to run ahead of the network, and little to repeat
_CORES = 4  # of a worker, by default
_PURPOSE = "predicting over Ray"


def ray_blocks(
    encoder: Encoder,
    sources: ImageList,
    *,
    start: int = 0,
    batch_size: int | None = None,
    columns: np.ndarray | None = None,
    spread: bool = False,
    workers: int | None = None,
) -> Generator[Block, None, None]:
    """Predict the images of a list, from a position on, on the workers of a Ray cluster.

    The cluster is the one that ``RAY_ADDRESS`` names; without it, one is started on this machine, and stopped again.
    The encoder file is sent along; images must be where every worker can read them: on a shared disk, or at a URL
    (``s3://...``).

    Parameters
    ----------
    encoder, sources, start, batch_size, columns, spread
        As for :func:`brainkit.predict.pipeline.local_blocks`.
    workers : int, optional
        Worker processes; by default one for every four cores of the cluster, or for every GPU.

    Yields
    ------
    Block
        The same as from `local_blocks`, in the same order.

    Raises
    ------
    MissingDependency
        If Ray is not installed.
    UsageError
        If there are more workers than cores.
    BrainkitError
        If a worker fails, or cannot read what this process can.
    """
    size = choose_batch_size(encoder, batch_size, len(sources) - start)
    with _connected() as ray:
        pool = _pool(ray, encoder.device, workers)
        dataset = ray.data.from_arrow_refs(list(_chunks(ray, sources, start, size * _BATCHES)))
        # Settings of this dataset alone: the user's own uses of Ray keep theirs.
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        file = ray.put(np.fromfile(encoder.file, np.uint8))
        results = dataset.map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            # In a list the file stays a reference: a worker fetches it from the object store only if it has to.
            fn_constructor_args=([file], str(encoder.file), encoder.info.digest, encoder.device, pool.cores),
            fn_constructor_kwargs={"batch_size": size, "columns": columns, "spread": spread},
            compute=ray.data.ActorPoolStrategy(size=pool.workers),
            num_cpus=pool.cores,
            num_gpus=pool.gpus,
        )
        try:
            for row in results.iter_rows():
                block: Block = pickle.loads(row["block"])  # written by this very code
                _check_visible(block, sources, row["node"])
                yield block
        except ray.exceptions.RayError as error:
            raise BrainkitError(f"Ray: {_cause(error)}") from error


class _Worker:
    """Predicts chunks of the list; one in each worker process."""

    def __init__(self, file: list[Any], path: str, digest: str, device: str, cores: int, **options: Any) -> None:
        self._options = options
        # Ray kills its workers without cleaning up, so the file is needed only here, and nothing is left behind.
        with tempfile.TemporaryDirectory(prefix="brainkit-") as folder:
            self._encoder = load(self._encoder_file(file, path, digest, folder), device, threads=cores)
            if options.get("columns") is not None:
                self._encoder.readout_of(options["columns"])

    def _encoder_file(self, file: list[Any], path: str, digest: str, folder: str) -> Path:
        """The encoder file: at its path if this worker sees it there, otherwise the one that was sent along."""
        with contextlib.suppress(BrainkitError):
            if read_text(path)[1] == digest:
                return Path(path)
        import ray

        copy = Path(folder, "encoder.onnx")
        ray.get(file[0]).tofile(copy)
        return copy

    def __call__(self, chunks: Any) -> Iterator[dict[str, list[Any]]]:
        for first, entries in zip(*(chunks[name].to_pylist() for name in ("first", "entries")), strict=True):
            for block in local_blocks(self._encoder, _Chunk(pickle.loads(entries)), **self._options):
                shifted = dataclasses.replace(
                    block,
                    done=first + block.done,
                    skipped_at=[first + at for at in block.skipped_at],
                    missing=[first + at for at in block.missing],
                    of_several=[first + at for at in block.of_several],
                )
                yield {"block": [pickle.dumps(shifted)], "node": [platform.node()]}


class _Chunk:
    """Some consecutive images of the list."""

    def __init__(self, entries: Sequence[ImageSource]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self, start: int, stop: int) -> Sequence[ImageSource]:
        return self._entries[start:stop]


def _chunks(ray: Any, sources: ImageList, start: int, length: int) -> Iterator[Any]:
    """The list as tables in the object store, which may be larger than memory; one per chunk."""
    arrow = require("pyarrow", extra="ray", purpose=_PURPOSE)
    for first in range(start, len(sources), length):
        entries = pickle.dumps(sources.entries(first, min(first + length, len(sources))))
        yield ray.put(arrow.table({"first": [first], "entries": arrow.array([entries], arrow.large_binary())}))


@dataclass(frozen=True)
class _Pool:
    """How many workers there are, and what each of them gets."""

    workers: int
    cores: int
    gpus: int


def _pool(ray: Any, device: str, workers: int | None) -> _Pool:
    """Workers that fit the cluster's machines: Ray would wait forever for one that fits none."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        machines = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    kind, unit = ("GPU", "GPUs") if device == "cuda" else ("CPU", "cores")
    most = sum(int(machine.get(kind, 0)) for machine in machines)
    if most < 1:
        raise BrainkitError(f"Ray: the cluster has no {unit} to predict with")
    if workers is not None and workers > most:
        raise UsageError(f"workers must be at most the cluster's {most} {unit}, got {workers}")

    def fitting(cores: int) -> int:
        """How many workers of so many cores fit."""
        return sum(
            min(int(machine.get("CPU", 0)) // cores, int(machine[kind]) if kind == "GPU" else most)
            for machine in machines
        )

    wanted = workers or (most if device == "cuda" else 1)
    cores = next((count for count in range(_CORES, 0, -1) if fitting(count) >= wanted), 1)
    return _Pool(workers or fitting(cores), cores, int(device == "cuda"))


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected to the cluster that is there, or to one of this machine alone that lasts as long as the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what users predict is their own business
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")  # Ray would replace this process's print for good
    ray = require("ray", extra="ray", purpose=_PURPOSE)
    require("ray.data", extra="ray", purpose=_PURPOSE)
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise BrainkitError(f"Ray: cannot be started or reached: {_last_line(error)}") from error
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        log.setLevel(level)
        if started:
            ray.shutdown()


def _check_visible(block: Block, sources: ImageList, node: str) -> None:
    """A worker that does not see this machine's disk would report every image as missing."""
    for at in block.missing:
        (entry,) = sources.entries(at, at + 1)
        if not remote.is_url(entry.file) and Path(entry.file).is_file():
            raise DataError(
                f"{as_text(entry.name)}: exists here, but not on the worker {node}; put the images on a disk that all "
                "workers share, or give their URL (s3://...)"
            )


def _cause(error: BaseException) -> str:
    """What went wrong first, on one line."""
    inner = getattr(error, "cause", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) and inner is not error else _last_line(error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
