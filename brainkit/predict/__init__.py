"""Predicting fMRI from images with an encoder file: ONNX Runtime and NumPy, no torch.

Images are decoded and resized in threads, ahead of the network; results are written as they come, and the list of
images lies on disk, so that a million images take no more memory than ten. What is interrupted is gone on with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict.batch_size import choose_batch_size
from brainkit.predict.encoder import DEVICES, Encoder, load
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource, as_path
from brainkit.predict.inputs.sources import Images, list_images
from brainkit.predict.outputs.csv import as_names, chosen_columns, regions_with_vertices
from brainkit.predict.outputs.formats import (
    check_output,
    description_path,
    spread_path,
    suffix_of,
    write_description,
)
from brainkit.predict.outputs.output_set import Form
from brainkit.predict.outputs.upload import parcel_for
from brainkit.predict.pipeline import Block, local_blocks
from brainkit.predict.ray import ray_blocks
from brainkit.predict.resume import Unfinished, was_complete
from brainkit.predict.top_images.writer import check_sheets
from brainkit.utils.text import as_text

__all__ = [
    "DEVICES",
    "ENGINES",
    "Block",
    "Encoder",
    "ImageList",
    "PredictResult",
    "description_path",
    "list_images",
    "load",
    "local_blocks",
    "predict_to_file",
]

ENGINES = ("local", "ray")
Progress = Callable[[int, int], None]
Blocks = Callable[..., Generator[Block, None, None]]


@dataclass(frozen=True)
class PredictResult:
    """What :func:`predict_to_file` did.

    Parameters
    ----------
    path : Path or str
        The predictions, or their address; what the rows and columns are is said in the ``.json`` beside it.
    n : int
        Rows written.
    skipped : sequence of (Path, str)
        Images that could not be read, with the reason.
    seconds : float
        From the first image to the last byte.
    images : sequence of Path
        The image of each row; of images elsewhere the address, a str. The names in the ``.json`` are the same, but
        escaped where they are not UTF-8. Both sequences are read from disk when they are looked at.
    sources : sequence of ImageSource
        The same images, to be opened wherever they are: in tar shards and elsewhere too.
    sheets : tuple of Path or str
        Contact sheets drawn, one a region.
    files : tuple of Path or str
        The predictions as they lie there: `path`, or a file for each hemisphere; then those of the spread.
    """

    path: Path | str
    n: int
    skipped: Sequence[tuple[Path | str, str]]
    seconds: float
    images: Sequence[Path | str] = field(default=(), repr=False)
    sheets: tuple[Path | str, ...] = ()
    sources: Sequence[ImageSource] = field(default=(), repr=False)
    files: tuple[Path | str, ...] = ()


def predict_to_file(
    images: Images,
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    *,
    device: str = "auto",
    rois: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    hemispheres: bool = False,
    top: int | None = None,
    spread: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PredictResult:
    """Predict the response to images and write it as it comes, with a ``.json`` beside that says what is what.

    If it is interrupted, however that is, the same call goes on where it was and gives the same bytes.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files, folders, patterns, lists, tar shards and addresses, as :func:`list_images` takes them. Unreadable images
        are skipped, and reported.
    out : path-like
        Its suffix is the format: ``.npy``, float32 (n, V), row i the i-th readable image of the list; ``.npz``;
        ``.csv``, means by region; ``.zarr``; ``.func.gii`` and ``.mgz``, a file a hemisphere; ``.nii.gz``. An address
        (``s3://bucket/fmri.npy``) is sent to when all is done.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    rois : str or iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order; with ``.csv`` these regions are the columns,
        all of the encoder by default.
    batch_size : int, optional
        Images at once; chosen by the input's size and the free memory when not given.
    overwrite : bool
        Replace `out` and what goes beside it where they exist, once the new ones are complete; start over where
        something else was begun.
    hemispheres : bool
        With ``.npy``: two files, ``lh_`` and ``rh_`` before the name, as the Algonauts challenge takes them.
    top : int, optional
        For each of `rois` draw the images that drive it most, and least: so many of each.
    spread : bool
        Of an ensemble, also write the s.d. over its members, beside: ``fmri-sd.npy``.
    engine : {"local", "ray"}
        Where the network runs: in this process, or on the workers of a Ray cluster
        (:func:`brainkit.predict.ray.ray_blocks`). The output is the same.
    workers : int, optional
        Processes of the cluster that score, see there.
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
        If `out` exists and may not be replaced, its format does not suit the encoder, or a region is unknown; if an
        unfinished output of something else is there, or another process writes it; if the engine is unknown.
    DataError
        If the folder of `out` does not exist, or an address cannot be written to.
    BrainkitError
        If not one image could be read, and then nothing is written; if the disk is full, and then what is done is kept.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if workers is not None and engine == "local":
        raise UsageError("workers are of the engine ray; the engine local has none")
    scored = functools.partial(
        _predict,
        images,
        encoder=encoder,
        device=device,
        named=as_names(rois),
        batch_size=batch_size,
        hemispheres=hemispheres,
        top=top,
        spread=spread,
        blocks=local_blocks if engine == "local" else functools.partial(ray_blocks, workers=workers),
        progress=progress or (lambda done, total: None),
        say=say or (lambda line: None),
    )
    with parcel_for(out, overwrite) as parcel:
        if parcel is None:
            return scored(Path(out), overwrite=overwrite)
        result = scored(parcel.path, overwrite=True)
        sent = {place.rsplit("/", 1)[1]: place for place in parcel.send()}
    sheets, files = (tuple(sent[Path(path).name] for path in paths) for paths in (result.sheets, result.files))
    return replace(result, path=parcel.address, sheets=sheets, files=files)


def _predict(
    images: Images,
    out: Path,
    *,
    encoder: Encoder | str | os.PathLike[str],
    device: str,
    named: tuple[str, ...] | None,
    batch_size: int | None,
    overwrite: bool,
    hemispheres: bool,
    top: int | None,
    spread: bool,
    blocks: Blocks,
    progress: Progress,
    say: Callable[[str], None],
) -> PredictResult:
    """`predict_to_file`, onto this machine's disk."""
    check_output(out, overwrite or was_complete(out), hemispheres)
    if spread:
        check_output(spread_path(out), overwrite or was_complete(out), hemispheres)
    if top is not None:
        check_sheets(out, named, top, overwrite or was_complete(out))
    listed = list_images(images)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    if suffix_of(out) == ".csv" and not named:
        named = regions_with_vertices(encoder.rois)
    columns, regions = chosen_columns(encoder.rois, named)
    form = Form(out, encoder.info, columns, regions, hemispheres, top, spread)
    if batch_size is not None:
        encoder.batch_size_for(batch_size)
    started = time.perf_counter()
    identity = {
        "images": listed.digest,
        "encoder": str(encoder.info.digest),
        "device": encoder.device,
        "columns": "all" if columns is None else hashlib.sha256(columns.astype("<i8").tobytes()).hexdigest(),
        "layout": form.digest,
    }
    done = 0
    try:
        with Unfinished(out, identity, batch_size, overwrite=overwrite) as unfinished:
            # Somebody else may just have finished it.
            beside = check_output(out, overwrite or unfinished.complete, hemispheres)
            if done := unfinished.done:
                listed.skip(unfinished.skipped())
                say(f"{out}: goes on after {done:,} of {len(listed):,} images")
            if not unfinished.complete:
                try:
                    _score(encoder, listed, unfinished, form, blocks, progress)
                except BaseException:
                    if done := unfinished.done:
                        say(f"{out}: {done:,} of {len(listed):,} images are kept; the same command goes on from there")
                    raise
                more = form.facts() | form.draw_sheets(unfinished, listed)
                write_description(
                    unfinished.description_path,
                    out,
                    encoder,
                    listed,
                    unfinished.rows,
                    columns,
                    regions,
                    hemispheres=hemispheres,
                    more=more,
                )
            unfinished.put_in_place([*form.moves(unfinished.rows_path), (unfinished.description_path, beside)])
    except OSError as error:
        raise BrainkitError(f"{out}: cannot be written: {error.strerror or error}") from error
    rows = unfinished.rows
    return PredictResult(
        out,
        rows,
        _OnDisk(lambda: ((as_path(name), reason) for name, reason in listed.skipped()), listed.skipped_count()),
        time.perf_counter() - started,
        _OnDisk(lambda: map(as_path, listed.readable()), rows),
        form.sheet_paths,
        _OnDisk(listed.readable_sources, rows),
        form.file_paths,
    )


def _score(
    encoder: Encoder,
    listed: ImageList,
    unfinished: Unfinished,
    form: Form,
    blocks: Blocks,
    progress: Progress,
) -> None:
    """Write the rows of all images from where the unfinished output ends."""
    if unfinished.batch_size is None:
        unfinished.batch_size = choose_batch_size(encoder, None, len(listed))
    rows, start = unfinished.rows, unfinished.done
    try:
        writer = form.writer(unfinished.rows_path, rows)
    except DataError as error:
        raise DataError(f"{error}; remove the folder {unfinished.folder} to start over") from None
    try:
        made = blocks(
            encoder,
            listed,
            start=start,
            batch_size=unfinished.batch_size,
            columns=form.columns,
            spread=form.spread is not None,
        )
        with contextlib.closing(made):
            for block in made:
                if len(block.fmri):
                    writer.append(block.fmri, block.names)
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
        writer.finish(_OnDisk(lambda: map(as_text, listed.readable()), rows))
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
