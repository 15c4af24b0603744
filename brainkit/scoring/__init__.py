"""Predicting fMRI from images with an encoder file: ONNX Runtime and NumPy, no torch.

Images are decoded and resized in threads, ahead of the network; results are written as they come, and the list of
images lies on disk, so that a million images take no more memory than ten. What is interrupted is gone on with.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import BrainkitError, DataError
from brainkit.scoring.batch_size import choose_batch_size
from brainkit.scoring.decoding import as_text
from brainkit.scoring.encoder import DEVICES, Encoder, load
from brainkit.scoring.image_list import ImageList
from brainkit.scoring.image_source import as_path
from brainkit.scoring.outputs import check_output, chosen_columns, make_writer, write_description
from brainkit.scoring.pipeline import Block, local_blocks
from brainkit.scoring.resume import Unfinished, was_complete
from brainkit.scoring.sources import list_images

__all__ = [
    "DEVICES",
    "Block",
    "Encoder",
    "ImageList",
    "PredictResult",
    "list_images",
    "load",
    "local_blocks",
    "predict_to_file",
]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PredictResult:
    """What :func:`predict_to_file` did.

    Parameters
    ----------
    path : Path
        The predictions; what the rows and columns are is said in the ``.json`` beside it.
    n : int
        Rows written.
    skipped : sequence of (Path, str)
        Images that could not be read, with the reason.
    seconds : float
        From the first image to the last byte.
    images : sequence of Path
        The image of each row; of images elsewhere the address, a str. The names in the ``.json`` are the same, but
        escaped where they are not UTF-8. Both sequences are read from disk when they are looked at.
    """

    path: Path
    n: int
    skipped: Sequence[tuple[Path | str, str]]
    seconds: float
    images: Sequence[Path | str] = field(default=(), repr=False)


def predict_to_file(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    *,
    device: str = "auto",
    rois: Iterable[str] | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PredictResult:
    """Predict the response to images and write it as it comes: ``fmri.npy``, with ``fmri.json`` beside it.

    If it is interrupted, however that is, the same call goes on where it was and gives the same bytes.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files, folders, patterns, lists, tar shards and addresses, as :func:`list_images` takes them. Unreadable images
        are skipped, and reported.
    out : path-like
        Ends in ``.npy``: float32 (n, V), row i the i-th readable image of the list.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    rois : iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order.
    batch_size : int, optional
        Images at once; chosen by the input's size and the free memory when not given.
    overwrite : bool
        Replace `out` and its JSON where they exist, once the new ones are complete; start over where something else
        was begun.
    progress : callable, optional
        Called with (images done, images in all).
    say : callable, optional
        Takes a line where the work goes on from an earlier call, or is kept for a later one.

    Returns
    -------
    PredictResult

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, or a region is unknown; if an unfinished output of something else is
        there, or another process writes it.
    DataError
        If the folder of `out` does not exist.
    BrainkitError
        If not one image could be read, and then nothing is written; if the disk is full, and then what is done is kept.
    """
    out, say = Path(out), say or (lambda line: None)
    check_output(out, overwrite or was_complete(out))
    listed = list_images(images)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    columns, regions = chosen_columns(encoder.rois, None if rois is None else tuple(rois))
    if batch_size is not None:
        encoder.batch_size_for(batch_size)
    started = time.perf_counter()
    identity = {
        "images": listed.digest,
        "encoder": str(encoder.info.digest),
        "device": encoder.device,
        "columns": "all" if columns is None else hashlib.sha256(columns.astype("<i8").tobytes()).hexdigest(),
    }
    done = 0
    try:
        with Unfinished(out, identity, batch_size, overwrite=overwrite) as unfinished:
            beside = check_output(out, overwrite or unfinished.complete)  # somebody else may just have finished it
            if done := unfinished.done:
                listed.skip(unfinished.skipped())
                say(f"{out}: goes on after {done:,} of {len(listed):,} images")
            if not unfinished.complete:
                try:
                    _score(encoder, listed, unfinished, out, columns, progress or (lambda done, total: None))
                except BaseException:
                    if done := unfinished.done:
                        say(f"{out}: {done:,} of {len(listed):,} images are kept; the same command goes on from there")
                    raise
                rows = unfinished.rows
                write_description(unfinished.description_path, out, encoder, listed, rows, columns, regions)
            unfinished.put_in_place(beside)
    except OSError as error:
        raise BrainkitError(f"{out}: cannot be written: {error.strerror or error}") from error
    rows = unfinished.rows
    return PredictResult(
        out,
        rows,
        _OnDisk(lambda: ((as_path(name), reason) for name, reason in listed.skipped()), listed.skipped_count()),
        time.perf_counter() - started,
        _OnDisk(lambda: map(as_path, listed.readable()), rows),
    )


def _score(
    encoder: Encoder,
    listed: ImageList,
    unfinished: Unfinished,
    out: Path,
    columns: np.ndarray | None,
    progress: Progress,
) -> None:
    """Write the rows of all images from where the unfinished output ends."""
    if unfinished.batch_size is None:
        unfinished.batch_size = choose_batch_size(encoder, None, len(listed))
    rows, start = unfinished.rows, unfinished.done
    try:
        writer = make_writer(unfinished.rows_path, out, encoder.info, columns, resume_rows=rows)
    except DataError as error:
        raise DataError(f"{error}; remove the folder {unfinished.folder} to start over") from None
    try:
        blocks = local_blocks(encoder, listed, start=start, batch_size=unfinished.batch_size, columns=columns)
        with contextlib.closing(blocks):
            for block in blocks:
                if len(block.fmri):
                    writer.append(block.fmri)
                bad = [(at, reason) for at, (_, reason) in zip(block.skipped_at, block.skipped, strict=True)]
                unfinished.skip(bad)
                listed.skip(bad)
                rows += len(block.fmri)
                unfinished.mark(rows, block.done)
                if unfinished.is_due():
                    unfinished.save(writer.checkpoint())
                progress(block.done, len(listed))
        if not rows:
            unfinished.discard()
            count = f"none of the {len(listed)} images" if len(listed) > 1 else "not one image"
            name, reason = next(listed.skipped())
            raise BrainkitError(f"{count} could be read; the first: {as_text(name)}: {reason}")
        writer.finish()
        unfinished.save(rows)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.save(writer.checkpoint())
        raise
    finally:
        with contextlib.suppress(OSError):
            writer.close()


class _OnDisk(Sequence[Any]):
    """What an iterator gives, each time it is asked for; of this nothing is kept."""

    def __init__(self, items: Callable[[], Iterator[Any]], count: int) -> None:
        self._items, self._count = items, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return self._items()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            chosen = range(self._count)[index]
            if chosen.step < 0:
                return list(self)[index]
            return list(itertools.islice(self, chosen.start, chosen.stop, chosen.step))
        position = range(self._count)[index]
        return next(itertools.islice(self, position, None))
