"""The same scoring on many machines, over Ray Data: it hands out stretches of the list and brings blocks back in order.

Batches are those of a single machine, so the rows are too. A worker that dies is replaced by Ray, and its stretch is
done again. Ray is imported when it is asked for.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import encoder_file
from brainkit.errors import BrainkitError, DataError, UsageError, require
from brainkit.predict.batch_size import choose_batch_size
from brainkit.predict.encoder import Encoder, load
from brainkit.predict.inputs import remote
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.pipeline import Block, local_blocks

if TYPE_CHECKING:
    from brainkit.predict.inputs.image_list import ImageList

_BATCHES = 8  # of a stretch: enough for decoding to run ahead of the network, little to do again
_CORES = 4  # of a worker, where nobody says otherwise


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
    """Predict the images of a list on the workers of a Ray cluster, from a position on.

    Ray runs where ``RAY_ADDRESS`` says; without it, a cluster of this machine is started and ended. The encoder file
    is sent along; images must be where every worker can read them: on a shared disk, or at an address (``s3://...``).

    Parameters
    ----------
    encoder, sources, start, batch_size, columns, spread
        As for :func:`brainkit.predict.pipeline.local_blocks`.
    workers : int, optional
        Processes that score; by default one for every four cores of the cluster, or for every GPU.

    Yields
    ------
    Block
        The same as `local_blocks` gives, in the same order.

    Raises
    ------
    MissingDependency
        If Ray is not installed.
    UsageError
        If there are more workers than cores.
    BrainkitError
        If the work fails on a worker, or one cannot read what this process can.
    """
    size = choose_batch_size(encoder, batch_size, len(sources) - start)
    with _connected() as ray:
        pool = _pool(ray, encoder.device, workers)
        dataset = ray.data.from_arrow_refs(list(_sent(ray, sources, start, size * _BATCHES)))
        # The dataset's own: whoever uses Ray for other things too keeps their settings.
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        file = ray.put(np.fromfile(encoder.path, np.uint8))
        found = dataset.map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            # In a list, the file stays a reference: a worker takes it from the object store only if it has to.
            fn_constructor_args=([file], str(encoder.path), encoder.info.digest, encoder.device, pool),
            fn_constructor_kwargs={"batch_size": size, "columns": columns, "spread": spread},
            compute=ray.data.ActorPoolStrategy(size=pool["workers"]),
            num_cpus=pool["cores"],
            num_gpus=pool["gpus"],
        )
        try:
            for row in found.iter_rows():
                block: Block = pickle.loads(row["block"])  # made by this very code
                _check_seen(block, sources, row["node"])
                yield block
        except ray.exceptions.RayError as error:
            raise BrainkitError(f"Ray: {_cause(error)}") from error


class _Worker:
    """Scores stretches of the list; one for each worker process."""

    def __init__(
        self,
        file: list[Any],
        path: str,
        digest: str,
        device: str,
        pool: dict[str, Any],
        **options: Any,
    ) -> None:
        self._options = options
        # Ray ends its workers with no chance to tidy up: nothing of the file is needed, or left, after this.
        with tempfile.TemporaryDirectory(prefix="brainkit-") as folder:
            self._encoder = load(self._own_file(file, path, digest, folder), device, threads=pool["cores"])
            if options.get("columns") is not None:
                self._encoder.read_rows_of(options["columns"])

    def _own_file(self, file: list[Any], path: str, digest: str, folder: str) -> Path:
        """The encoder file: where it lies for the others too, or else what was sent along."""
        with contextlib.suppress(BrainkitError):
            if encoder_file.read_text(path)[1] == digest:
                return Path(path)
        import ray

        own = Path(folder, "encoder.onnx")
        ray.get(file[0]).tofile(own)
        return own

    def __call__(self, stretches: Any) -> Iterator[dict[str, list[Any]]]:
        for first, entries in zip(*(stretches[name].to_pylist() for name in ("first", "entries")), strict=True):
            images: Any = _Stretch(pickle.loads(entries))
            for block in local_blocks(self._encoder, images, **self._options):
                moved = dataclasses.replace(
                    block, done=first + block.done, skipped_at=[first + at for at in block.skipped_at]
                )
                yield {"block": [pickle.dumps(moved)], "node": [platform.node()]}


class _Stretch:
    """Some images that follow each other in the list."""

    def __init__(self, entries: Sequence[ImageSource]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self, start: int, stop: int) -> Sequence[ImageSource]:
        return self._entries[start:stop]


def _sent(ray: Any, sources: ImageList, start: int, length: int) -> Iterator[Any]:
    """The list as tables in the object store, which may be larger than memory; each is a stretch."""
    arrow = require("pyarrow", extra="ray", purpose="scoring over Ray")
    for first in range(start, len(sources), length):
        entries = pickle.dumps(sources.entries(first, min(first + length, len(sources))))
        yield ray.put(arrow.table({"first": [first], "entries": arrow.array([entries], arrow.large_binary())}))


def _pool(ray: Any, device: str, workers: int | None) -> dict[str, Any]:
    """How many workers, and what each of them gets; a worker that fits on no machine would be waited for for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        machines = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    kind, what = ("GPU", "GPUs") if device == "cuda" else ("CPU", "cores")
    most = sum(int(machine.get(kind, 0)) for machine in machines)
    if most < 1:
        raise BrainkitError(f"Ray: the cluster has no {what} to score with")
    if workers is not None and workers > most:
        raise UsageError(f"workers must be at most the cluster's {most} {what}, got {workers}")

    def fitting(cores: int) -> int:
        """Workers of so many cores for which there is room."""
        return sum(
            min(int(machine.get("CPU", 0)) // cores, int(machine[kind]) if kind == "GPU" else most)
            for machine in machines
        )

    wanted = workers or (most if device == "cuda" else 1)
    cores = next((count for count in range(_CORES, 0, -1) if fitting(count) >= wanted), 1)
    count = workers or fitting(cores)
    return {"workers": count, "cores": cores, "gpus": int(device == "cuda")}


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected: to the cluster that is there, or one of this machine alone for the while."""
    # Whoever scores does not want to be counted.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", extra="ray", purpose="scoring over Ray")
    require("ray.data", extra="ray", purpose="scoring over Ray")
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise BrainkitError(f"Ray: cannot be started or reached: {_last_line(error)}") from error
    said = logging.getLogger("ray.data")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        said.setLevel(level)
        if started:
            ray.shutdown()


def _check_seen(block: Block, sources: ImageList, node: str) -> None:
    """A worker that does not see the disk would report every image as missing."""
    for at, (name, reason) in zip(block.skipped_at, block.skipped, strict=True):
        (entry,) = sources.entries(at, at + 1)
        if "file not found" in reason and not remote.is_address(entry.place) and Path(entry.place).is_file():
            raise DataError(
                f"{name}: is here, but not on the worker {node}; put the images on a disk that all workers share, or "
                "give their address (s3://...)"
            )


def _cause(error: BaseException) -> str:
    """What went wrong at the bottom, on one line."""
    inner = getattr(error, "cause", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) and inner is not error else _last_line(error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
