"""Predicting fMRI from images with an encoder file: ONNX Runtime and NumPy, no torch.

Images are decoded and resized in threads, ahead of the network; results are written as they come, so that of each
image only its path stays in memory.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from brainkit import encoder_file
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, DataError, EncoderFileError, UsageError
from brainkit.files import write_beside, write_json
from brainkit.images import Preprocessing, decode, find_images, prepare
from brainkit.runtime import cores, one_line, open_session
from brainkit.surface import RoiTable, Vertices

DEVICES = ("auto", "cpu", "cuda")
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
    skipped : tuple of (Path, str)
        Images that could not be read, with the reason.
    seconds : float
        From the first image to the last byte.
    images : tuple of Path
        The image of each row. The names in the ``.json`` are the same, but escaped where they are not UTF-8.
    """

    path: Path
    n: int
    skipped: tuple[tuple[Path, str], ...]
    seconds: float
    images: tuple[Path, ...] = field(default=(), repr=False)


class Encoder:
    """An encoder file, open for predicting. Made by :func:`load`.

    Attributes
    ----------
    path : Path
    info : EncoderInfo
        All that the file says about itself.
    device : str
        ``"cpu"`` or ``"cuda"``: where it runs.
    """

    def __init__(self, path: Path, info: EncoderInfo, session: Any, device: str) -> None:
        self.path, self.info, self.device = path, info, device
        self._session = session

    def __repr__(self) -> str:
        name = self.info.backbone.get("name", "?")
        return f"Encoder({str(self.path)!r}, backbone={name!r}, vertices={len(self.vertices)}, device={self.device!r})"

    @property
    def vertices(self) -> Vertices:
        """What the V columns are."""
        return self.info.vertices

    @property
    def rois(self) -> RoiTable:
        """Regions as indices into the V columns."""
        return self.info.rois

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2) in [-1, 1], ``scale`` (V,) in [0, 1]; float32."""
        return self.info.selectors

    def predict(
        self,
        images: str | os.PathLike[str] | np.ndarray | Sequence[Any],
        batch_size: int | None = None,
        *,
        prepared: bool = False,
    ) -> np.ndarray:
        """Predict the response to each image.

        Parameters
        ----------
        images : path, list of paths, list of PIL images, or array of shape (n, H, W, 3), uint8
            A folder is searched as :func:`brainkit.images.find_images` does, and its images come in sorted order;
            a list keeps its own order.
        batch_size : int, optional
            Images at once; chosen by the input's size when not given.
        prepared : bool
            The array holds images that went through :func:`brainkit.images.prepare` already: (n, S, S, 3).

        Returns
        -------
        array of shape (n, V), float32
            In the units of ``info.units``.

        Raises
        ------
        DataError
            If an image cannot be read.
        UsageError
            If `images` is nothing of the kind.
        """
        chosen = self._batch_size(batch_size)
        if prepared:
            size = self.info.preprocessing.size
            if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
                raise UsageError(f"prepared images must be a uint8 array of shape (n, {size}, {size}, 3)")
            parts = [self.run(images[start : start + chosen]) for start in range(0, len(images), chosen)]
        else:
            parts = []
            sources = _sources(images)
            for _, (_, batch, failed) in _counted(_batches(sources, self.info.preprocessing, chosen)):
                if failed:
                    index, error = failed[0]
                    source = sources[index]
                    name = source if isinstance(source, str | os.PathLike) else f"images[{index}]"
                    raise DataError(f"{name}: {_reason(error, name)}")
                parts.append(self.run(batch))
        return np.concatenate(parts) if parts else np.empty((0, len(self.vertices)), np.float32)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Predict one batch of prepared images (B, S, S, 3) uint8 -> (B, V) float32.

        Raises
        ------
        BrainkitError
            If ONNX Runtime fails, for want of memory for example.
        """
        return self._fetch("fmri", batch)

    def tokens(self, batch: np.ndarray) -> np.ndarray:
        """What the vertices choose from, for prepared images (B, S, S, 3) uint8 -> (B, L, D, H*W + 1) float32."""
        return self._fetch("tokens", batch)

    def _fetch(self, output: str, batch: np.ndarray) -> np.ndarray:
        try:
            result: np.ndarray = self._session.run([output], {"images": np.ascontiguousarray(batch)})[0]
        except Exception as error:  # ONNX Runtime's own classes have no common base
            raise BrainkitError(f"{self.path}: ONNX Runtime failed: {one_line(error)}") from error
        return result

    def _batch_size(self, asked: int | None) -> int:
        if asked is not None:
            if asked < 1:
                raise UsageError(f"batch size must be at least 1, got {asked}")
            return asked
        # Activations grow with the input's area: 8 images of 224 x 224 at once, 32 where a GPU has to be kept busy.
        at_224 = 32 if self.device == "cuda" else 8
        return max(1, min(4 * at_224, int(at_224 * (224 / self.info.preprocessing.size) ** 2)))


def load(path: str | os.PathLike[str], device: str = "auto") -> Encoder:
    """Open an encoder file; its digest is checked before ONNX Runtime sees it.

    Parameters
    ----------
    path : path-like
        The file.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU where there is one that ONNX Runtime can use.

    Returns
    -------
    Encoder

    Raises
    ------
    EncoderFileError
        If the file cannot be trusted or understood.
    UsageError, BrainkitError
        If the device is unknown; if it was asked for and is not there.
    """
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    info = encoder_file.read(path)
    session, found = open_session(path, device=device, size=info.preprocessing.size)
    _check_signature(session, info, path)
    return Encoder(Path(path), info, session, found)


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
) -> PredictResult:
    """Predict the response to images and write it as it comes: ``fmri.npy``, with ``fmri.json`` beside it.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Files and folders. Unreadable images are skipped, and reported.
    out : path-like
        Ends in ``.npy``: float32 (n, V), row i the i-th readable image in sorted order.
    encoder : Encoder or path-like
    device : {"auto", "cpu", "cuda"}
        For opening `encoder`, where it is a path.
    rois : iterable of str, optional
        Keep only the vertices of these regions, in the encoder's order.
    batch_size : int, optional
    overwrite : bool
        Replace `out` and its JSON where they exist.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    PredictResult

    Raises
    ------
    UsageError
        If `out` exists and may not be replaced, or a region is unknown.
    DataError
        If the folder of `out` does not exist.
    BrainkitError
        If not one image could be read; nothing is written.
    """
    out = Path(out)
    beside = _check_output(out, overwrite)
    paths = find_images(images)
    if not isinstance(encoder, Encoder):
        encoder = load(encoder, device)
    columns, regions = _columns(encoder.rois, None if rois is None else tuple(rois))
    started = time.perf_counter()
    written: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    with write_beside(out) as unfinished:
        width = len(encoder.vertices) if columns is None else len(columns)
        with unfinished.open("wb") as stream, _NpyRows(stream, width) as rows:
            for done, (indices, batch, failed) in _counted(
                _batches(paths, encoder.info.preprocessing, encoder._batch_size(batch_size))
            ):
                if len(indices):
                    fmri = encoder.run(batch)
                    rows.append(fmri if columns is None else fmri[:, columns])
                written.extend(paths[index] for index in indices)
                skipped.extend((paths[index], _reason(error, paths[index])) for index, error in failed)
                if progress is not None:
                    progress(done, len(paths))
        if not written:
            count = f"none of the {len(paths)} images" if len(paths) > 1 else "not one image"
            raise BrainkitError(f"{count} could be read; the first: {_as_text(skipped[0][0])}: {skipped[0][1]}")
        _write_description(beside, out, encoder, written, skipped, columns, regions)
    return PredictResult(out, len(written), tuple(skipped), time.perf_counter() - started, tuple(written))


# --- opening ----------------------------------------------------------------------------------------------------


def _check_signature(session: Any, info: EncoderInfo, path: str | os.PathLike[str]) -> None:
    """The graph must take and give what the metadata says."""
    size, V = info.preprocessing.size, len(info.vertices)
    tokens = [len(info.layers), info.bottleneck, info.grid[0] * info.grid[1] + 1]
    expected = {
        "images": ("tensor(uint8)", [size, size, 3]),
        "fmri": ("tensor(float)", [V]),
        "tokens": ("tensor(float)", tokens),
    }
    values = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    if len(session.get_inputs()) != 1 or "images" not in {value.name for value in session.get_inputs()}:
        raise EncoderFileError(f"{path}: its graph must take 'images' alone, found {len(session.get_inputs())} inputs")
    for name, (kind, shape) in expected.items():
        value = values.get(name)
        found = "none" if value is None else f"{value.type} {value.shape}"
        if value is None or value.type != kind or list(value.shape[1:]) != shape:
            raise EncoderFileError(f"{path}: its graph must have {name}: {kind} [batch, {shape}], found {found}")


# --- images in --------------------------------------------------------------------------------------------------


def _sources(images: Any) -> Sequence[Any] | np.ndarray:
    """Whatever `Encoder.predict` takes, as a sequence of paths, PIL images or arrays (H, W, 3)."""
    if isinstance(images, str | os.PathLike):
        return find_images(images)
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise UsageError(
                f"images must be a uint8 array of shape (n, H, W, 3), got {images.dtype} of shape {images.shape}"
            )
        return images
    given = list(images)
    for index, image in enumerate(given):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UsageError(
                    f"images[{index}] must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
                )
        elif not isinstance(image, str | os.PathLike | Image.Image):
            raise UsageError(f"images[{index}] must be a path, a PIL image or an array, got {type(image).__name__}")
    return given


def _prepared(source: Any, preprocessing: Preprocessing) -> np.ndarray | BrainkitError:
    """One image ready for the network, or why not; errors are results here, since one image must not end the work."""
    try:
        if isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        else:
            image = source if isinstance(source, Image.Image) else decode(source)
        return prepare(image, preprocessing)
    except BrainkitError as error:
        return error
    except MemoryError:
        return DataError("not enough memory to decode it")


Batch = tuple[list[int], np.ndarray, list[tuple[int, BrainkitError]]]


def _batches(
    sources: Sequence[Any] | np.ndarray, preprocessing: Preprocessing, batch_size: int
) -> Generator[Batch, None, None]:
    """Prepared images in order: their indices, uint8 (b, S, S, 3), and the (index, error) of those unreadable.

    Decoding runs ahead by a bounded number of images. Unreadable ones leave no gap: a batch is full until the last.
    """
    ahead = 2 * batch_size + cores()
    indices: list[int] = []
    ready: list[np.ndarray] = []
    failed: list[tuple[int, BrainkitError]] = []
    pending: collections.deque[tuple[int, Future[np.ndarray | BrainkitError]]] = collections.deque()
    pool = ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="decode")
    try:
        upcoming = iter(range(len(sources)))
        while True:
            while len(pending) < ahead and (index := next(upcoming, None)) is not None:
                pending.append((index, pool.submit(_prepared, sources[index], preprocessing)))
            if not pending:
                break
            index, future = pending.popleft()
            result = future.result()
            if isinstance(result, BrainkitError):
                failed.append((index, result))
            else:
                indices.append(index)
                ready.append(result)
            if len(ready) == batch_size:
                yield indices, np.stack(ready), failed
                indices, ready, failed = [], [], []
        if ready or failed:
            size = preprocessing.size
            yield indices, np.stack(ready) if ready else np.empty((0, size, size, 3), np.uint8), failed
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _counted(batches: Generator[Batch, None, None]) -> Iterator[tuple[int, Batch]]:
    done = 0
    with contextlib.closing(batches):  # so that decoding ends with an error elsewhere
        for batch in batches:
            done += len(batch[0]) + len(batch[2])
            yield done, batch


# --- results out ------------------------------------------------------------------------------------------------


class _NpyRows:
    """A ``.npy`` file of float32 rows, whose number is known only at the end."""

    _HEADER = 128  # bytes: room for any number of rows, and the alignment the format asks for

    def __init__(self, stream: BinaryIO, columns: int) -> None:
        self._stream, self._columns, self._rows = stream, columns, 0

    def __enter__(self) -> _NpyRows:
        self._stream.write(self._header())
        return self

    def append(self, rows: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(rows, "<f4").data)
        self._rows += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.seek(0)
            self._stream.write(self._header())

    def _header(self) -> bytes:
        start = b"\x93NUMPY\x01\x00"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._columns}), }}".encode()
        length = self._HEADER - len(start) - 2
        return start + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


def _check_output(out: Path, overwrite: bool) -> Path:
    """Refuse what cannot be written before any work is done; the path of the JSON beside."""
    if out.suffix != ".npy":
        raise UsageError(f"{out}: the output must end in .npy")
    if not out.parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; make it first")
    beside = out.with_suffix(".json")
    for path in (out, beside):
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; the output must be a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; --overwrite replaces it")
    return beside


def _columns(table: RoiTable, names: tuple[str, ...] | None) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The columns to keep, ascending (None: all), and where each region lies among them."""
    if not names:
        return None, {}
    members = {name: table.members(name) for name in names}
    columns = np.unique(np.concatenate(list(members.values())))
    if not len(columns):
        raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    return columns, {name: np.searchsorted(columns, index) for name, index in members.items()}


def _write_description(
    path: Path,
    out: Path,
    encoder: Encoder,
    written: list[Path],
    skipped: list[tuple[Path, str]],
    columns: np.ndarray | None,
    regions: dict[str, np.ndarray],
) -> None:
    info = encoder.info
    ids = info.vertices.ids if columns is None else info.vertices.ids[columns]
    digest = hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest()
    vertices: dict[str, Any] = {"count": len(ids), "sha256": digest}
    if columns is None:
        vertices["where"] = "all vertices of the encoder file, in its order"
    else:
        vertices["ids"] = ids.tolist()
    description: dict[str, Any] = {
        "file": out.name,
        "shape": [len(written), len(ids)],
        "dtype": "float32",
        "rows": "images, in this order",
        "images": [_as_text(image) for image in written],
        "skipped": [{"path": _as_text(image), "reason": reason} for image, reason in skipped],
        "units": info.units,
        "space": info.vertices.space,
        "vertices": vertices,
        "encoder": {
            "file": _as_text(encoder.path),
            "sha256": info.digest,
            "backbone": info.backbone.get("name"),
            "device": encoder.device,
        },
        "note": info.note,
    }
    if regions:
        description["rois"] = {name: index.tolist() for name, index in regions.items()}
    write_json(path, description)


def _as_text(path: Path) -> str:
    """A path as text that any JSON reader takes, also where its name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _reason(error: BrainkitError, path: str | os.PathLike[str]) -> str:
    """Why an image could not be read, without its name."""
    return str(error).removeprefix(f"{path}: ").encode("utf-8", "backslashreplace").decode()
