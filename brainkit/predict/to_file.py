"""Predictions for any number of images, written to a file as they are made; an interrupted run is resumed.

Images are decoded and resized in threads, ahead of the network; rows are written as they come, and the list of images
lives on disk, so that a million images take no more memory than ten.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict.encoder import Encoder, load
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource, as_path
from brainkit.predict.inputs.sources import ImagePaths, list_images, without_file_scheme
from brainkit.predict.output_set import OutputSet
from brainkit.predict.outputs.description import write_description
from brainkit.predict.outputs.formats import check_output, description_path, format_of, sibling, spread_path
from brainkit.predict.outputs.upload import upload_for
from brainkit.predict.pipeline import Block, choose_batch_size, local_blocks
from brainkit.predict.ray import ray_blocks
from brainkit.predict.regions import as_names, names_with_vertices, select_columns
from brainkit.predict.resume import PartialOutput, was_complete
from brainkit.predict.top_images.writer import check_sheets
from brainkit.utils.own_figures import SHEET
from brainkit.utils.progress import Progress, Say
from brainkit.utils.system import surplus_threads
from brainkit.utils.text import as_text, plural, printable

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class PredictResult:
    """What :func:`predict_to_file` did.

    Parameters
    ----------
    path : Path or str
        The predictions, a str if they are at a URL. The ``.json`` next to them describes the rows and columns.
    n : int
        Rows written.
    skipped : sequence of (Path, str)
        Images that could not be read, with the reason.
    seconds : float
        From the first image to the last byte.
    images : sequence of Path
        The image of each row; a str for a remote image, its URL. The names in the ``.json`` are the same, but escaped
        if they are not UTF-8. Both sequences are read from disk when they are accessed.
    sources : sequence of ImageSource
        The same images, to be opened wherever they are: in tar shards and remote storage too.
    sheets : tuple of Path or str
        Contact sheets drawn, one per region.
    files : tuple of Path or str
        The files of the predictions: `path`, or one file for each hemisphere; then those of the spread.
    """

    path: Path | str
    n: int
    skipped: Sequence[tuple[Path | str, str]]
    seconds: float
    images: Sequence[Path | str] = field(default=(), repr=False)
    sheets: tuple[Path | str, ...] = ()
    sources: Sequence[ImageSource] = field(default=(), repr=False)
    files: tuple[Path | str, ...] = ()

    @property
    def description(self) -> Path | str:
        """The ``.json`` next to the predictions."""
        if isinstance(self.path, Path):
            return description_path(self.path)
        folder, _, name = self.path.rpartition("/")
        return f"{folder}/{description_path(Path(name))}"


def predict_to_file(
    images: ImagePaths,
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    rois: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    hemispheres: bool = False,
    top: int | None = None,
    spread: bool = False,
    space: str | None = None,
    engine: str = "local",
    workers: int | None = None,
    order: str = "given",
    progress: Progress | None = None,
    say: Say | None = None,
) -> PredictResult:
    """Predict the response to images, and write it as it comes, with a ``.json`` that describes the rows and columns.

    If it is interrupted, in whatever way, the same call resumes and produces the same bytes.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files, folders, patterns, lists, tar shards and URLs, as :func:`list_images` takes them. Unreadable images are
        skipped, and reported.
    out : path-like
        Its suffix chooses the format: ``.npy``, float32 (n, V), row i the i-th readable image of the list; ``.npz``;
        ``.csv``, means by region; ``.zarr``; ``.func.gii`` and ``.mgz``, one file per hemisphere; ``.nii.gz``. An
        output at a URL (``s3://bucket/fmri.npy``) is uploaded when it is complete.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        For opening `encoder`, if it is a path; see :func:`brainkit.load`.
    rois : str or iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order; for ``.csv`` these regions are the columns,
        by default all of the encoder's.
    batch_size : int, optional
        Images at once; chosen by the input's size and the free memory by default.
    overwrite : bool
        Replace existing outputs, once the new ones are complete; start over if something else is unfinished there.
    hemispheres : bool
        For ``.npy``: two files, with ``lh_`` and ``rh_`` before the name, as the Algonauts challenge takes them.
    top : int, optional
        For each of `rois`, draw so many of the images that drive it most, and least.
    spread : bool
        For an ensemble, also write the s.d. over its members, next to the predictions: ``fmri-sd.npy``.
    space : str, optional
        Write predictions at the vertices of another space: ``fsaverage5``, ``fsaverage6``, ``fsaverage`` or ``fsLR``.
        Each has the prediction of the nearest vertex, see :func:`brainkit.cortex.resampling.resample`.
    engine : {"local", "ray"}
        Where the network runs: in this process, or on the workers of a Ray cluster
        (:func:`brainkit.predict.ray.ray_blocks`). The output is the same.
    workers : int, optional
        Worker processes of the Ray cluster.
    order : {"given", "sorted"}
        Of the rows, if several things are given: as they are given, or as on the command line (:func:`list_images`).
    progress : callable, optional
        Called with (images done, images in all).
    say : callable, optional
        Called with a line of text about the images, and when a run is resumed, or interrupted.

    Returns
    -------
    PredictResult

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, its format does not suit the encoder, or a region is unknown; if an
        unfinished output of something else is there, or another process is writing it; if the engine is unknown.
    DataError
        If the folder of `out` does not exist, or a URL cannot be written to.
    BrainkitError
        If no image could be read, and then nothing is written; if the disk is full, and then the rows done are kept.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if workers is not None and engine == "local":
        raise UsageError("workers are for the engine ray; the engine local has none")
    request = _Request(
        images=images,
        encoder=encoder,
        device=device,
        threads=threads,
        rois=rois if rois is None or isinstance(rois, str) else tuple(rois),
        batch_size=batch_size,
        hemispheres=hemispheres,
        top=top,
        spread=spread,
        space=space,
        engine=engine,
        workers=workers,
        order=order,
        progress=progress or (lambda done, total: None),
        say=say or (lambda line: None),
    )
    out = without_file_scheme(os.fspath(out))
    with upload_for(out, overwrite) as upload:
        if upload is None:
            return _predict(request, Path(out), overwrite)
        result = _predict(request, upload.path, overwrite=True)
        urls = upload.send()
    sheets, files = (tuple(urls[Path(path).name] for path in paths) for paths in (result.sheets, result.files))
    return replace(result, path=upload.url, sheets=sheets, files=files)


@dataclass(frozen=True)
class _Request:
    """The arguments of `predict_to_file` but for the output."""

    images: ImagePaths
    encoder: Encoder | str | os.PathLike[str]
    device: str
    threads: int | None
    rois: str | tuple[str, ...] | None
    batch_size: int | None
    hemispheres: bool
    top: int | None
    spread: bool
    space: str | None
    engine: str
    workers: int | None
    order: str
    progress: Progress
    say: Say


def _predict(request: _Request, out: Path, overwrite: bool) -> PredictResult:
    """`predict_to_file`, onto this machine's disk."""
    _check_paths(request, out, overwrite or was_complete(out))
    images = list_images(request.images, order=request.order, own_sheets=sibling(out, SHEET))
    for remark in images.remarks():
        request.say(remark)
    encoder = request.encoder
    if not isinstance(encoder, Encoder):
        if note := surplus_threads(request.threads):
            request.say(note)
        encoder = load(encoder, request.device, threads=request.threads)
    if request.batch_size is not None:
        encoder.batch_size_for(request.batch_size)  # refuses one below 1
    names = as_names(request.rois, encoder.rois)
    if request.top is not None:
        known = [name for name, members in encoder.rois.items() if len(members)]
        check_sheets(out, names, request.top, overwrite or was_complete(out), known)
    if format_of(out).means and not names:
        names = names_with_vertices(encoder.rois)
    columns, regions = select_columns(encoder.rois, names)
    outputs = OutputSet(
        out, encoder.info, columns, regions, request.hemispheres, request.top, request.spread, request.space
    )

    started = time.perf_counter()
    try:
        with PartialOutput(
            out, _identity(images, encoder, outputs), request.batch_size, overwrite=overwrite
        ) as partial:
            # Again: another process may just have finished it.
            description = check_output(out, overwrite or partial.complete, request.hemispheres)
            images.skip(partial.skipped())
            images.mark_of_several(partial.of_several())
            if partial.done:
                request.say(f"{out}: resuming after {partial.done:,} of {plural(len(images), 'image')}")
            if not partial.complete:
                _write_rows(request, encoder, images, partial, outputs)
                write_description(
                    partial.description_path,
                    out,
                    outputs.layout,
                    images,
                    partial.rows,
                    encoder=_describe_encoder(encoder),
                    more=outputs.describe(partial, images),
                )
            for name, note in images.notes_of_reading():
                request.say(printable(f"{name}: {note}"))
            partial.move_to([*outputs.moves(partial.rows_path), (partial.description_path, description)])
    except OSError as error:
        raise BrainkitError(f"{out}: cannot be written: {error.strerror or error}") from error
    return PredictResult(
        out,
        partial.rows,
        _LazySequence(lambda: ((as_path(name), reason) for name, reason in images.skipped()), images.skipped_count()),
        time.perf_counter() - started,
        _LazySequence(lambda: map(as_path, images.readable()), partial.rows),
        outputs.sheet_paths,
        _LazySequence(images.readable_sources, partial.rows),
        outputs.file_paths,
    )


def _check_paths(request: _Request, out: Path, replaceable: bool) -> None:
    """Refuse what cannot be written, before any work is done."""
    check_output(out, replaceable, request.hemispheres)
    if request.spread:
        check_output(spread_path(out), replaceable, request.hemispheres)


def _identity(images: ImageList, encoder: Encoder, outputs: OutputSet) -> dict[str, str]:
    """What the bytes of the output depend on."""
    columns = outputs.layout.columns
    return {
        "images": images.digest,
        "encoder": str(encoder.info.digest),
        "device": encoder.device,
        "columns": "all" if columns is None else hashlib.sha256(columns.astype("<i8").tobytes()).hexdigest(),
        "layout": outputs.digest,
    }


def _describe_encoder(encoder: Encoder) -> dict[str, Any]:
    return {
        "file": as_text(encoder.path),
        "sha256": encoder.info.digest,
        "backbone": encoder.info.backbone.get("name"),
        "device": encoder.device,
    }


def _write_rows(
    request: _Request, encoder: Encoder, images: ImageList, partial: PartialOutput, outputs: OutputSet
) -> None:
    """Write the rows of all images from where the partial output ends; if interrupted, keep what is done."""
    if partial.batch_size is None:
        partial.batch_size = choose_batch_size(encoder, None, len(images))
    try:
        writer = outputs.open_writer(partial.rows_path, partial.rows)
    except DataError as error:
        raise DataError(f"{error}; remove the folder {partial.folder} to start over") from None
    rows = partial.rows
    try:
        with contextlib.closing(_blocks(request, encoder, images, partial, outputs)) as blocks:
            for block in blocks:
                if len(block.fmri):
                    writer.append(block.fmri, block.names)
                skipped = [(at, reason) for at, (_, reason) in zip(block.skipped_at, block.skipped, strict=True)]
                partial.record(skipped, block.of_several)
                images.skip(skipped)
                images.mark_of_several(block.of_several)
                rows += len(block.fmri)
                partial.mark(rows, block.done)
                if partial.is_due():
                    partial.save(writer.checkpoint())
                request.progress(block.done, len(images))
        if not rows:
            partial.discard()
            raise _nothing_readable(images)
        writer.finish(_LazySequence(lambda: map(as_text, images.readable()), rows))
        partial.save(rows)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.save(writer.checkpoint())
        if partial.done:
            done = f"{partial.done:,} of {plural(len(images), 'image')} are done"
            request.say(f"{outputs.out}: {done}; run the same command again to resume")
        raise
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _blocks(
    request: _Request, encoder: Encoder, images: ImageList, partial: PartialOutput, outputs: OutputSet
) -> Generator[Block, None, None]:
    """The blocks from where the partial output ends, by the engine that is asked for."""
    start, size, columns = partial.done, partial.batch_size, outputs.layout.columns
    if request.engine == "ray":
        return ray_blocks(
            encoder,
            images,
            start=start,
            batch_size=size,
            columns=columns,
            spread=request.spread,
            workers=request.workers,
        )
    return local_blocks(encoder, images, start=start, batch_size=size, columns=columns, spread=request.spread)


def _nothing_readable(images: ImageList) -> BrainkitError:
    name, reason = next(images.skipped())
    return BrainkitError(f"no image could be read; the first of {len(images):,}: {as_text(name)}: {reason}")


class _LazySequence(Sequence[Any]):
    """The items of an iterator that is started anew each time they are accessed; nothing is kept in memory."""

    def __init__(self, items: Callable[[], Iterator[Any]], count: int) -> None:
        self._items, self._count = items, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return self._items()

    def __repr__(self) -> str:
        return f"<{len(self):,} items>"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return tuple, (list(self),)  # a copy, or what another process gets, does not depend on the list of images

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            chosen = range(self._count)[index]
            if chosen.step < 0:
                return list(self)[index]
            return list(itertools.islice(self, chosen.start, chosen.stop, chosen.step))
        position = range(self._count)[index]
        return next(itertools.islice(self, position, None))
