"""An encoder file, open for predicting."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.encoder_file.file import fingerprint, locate, read, unchanged_while
from brainkit.encoder_file.graph_check import check_graph
from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import EncoderFileError, ImageError, UsageError
from brainkit.predict.inputs.decode import as_iterable, as_sequence, in_chunks
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.network import Network, check_signature
from brainkit.predict.pipeline import batches
from brainkit.predict.regions import (
    as_names,
    check_have_vertices,
    names_with_vertices,
    region_means,
    select_columns,
)
from brainkit.predict.session import open_session
from brainkit.predict.top_images.ranking import Ranked, TopImages
from brainkit.utils.notebook import DPI, SIZE, card
from brainkit.utils.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES = ("auto", "cpu", "cuda")
Images = str | os.PathLike[str] | np.ndarray | Iterable[Any]


class Encoder(Network):
    """An encoder file, open for predicting. Made by :func:`load`.

    Attributes
    ----------
    path : Path
    info : EncoderInfo
        The file's metadata.
    device : str
        ``"cpu"`` or ``"cuda"``: where it runs.

    Notes
    -----
    Threads may share an encoder, and so may forked processes. Pickled (for joblib, a spawned process or a worker of
    torch's DataLoader) it is its file's absolute path: it is opened again there, with the same device and threads, if
    the file is still the same. Nothing in it changes with use, so ``copy.deepcopy`` returns the encoder itself.

    Examples
    --------
    >>> encoder = brainkit.load("encoder.onnx", "cpu")
    >>> encoder
    Encoder('encoder.onnx', backbone='pixels', vertices=20, device='cpu')
    >>> encoder.rois.names
    ('V1v', 'V1d', 'PPA', 'absent')
    >>> encoder.rois.members("V1")
    array([1, 3, 7], dtype=int32)
    >>> encoder.selectors["layer_weights"].shape
    (20, 1)
    >>> encoder.info.units, encoder.vertices.space
    ('z-scored percent signal change', 'fsaverage5')
    """

    def __repr__(self) -> str:
        name = self.info.backbone.get("name", "?")
        return f"Encoder({str(self.path)!r}, backbone={name!r}, vertices={len(self.vertices)}, device={self.device!r})"

    def _repr_html_(self) -> str:
        """Key figures and the map of the preferred layer, for notebooks."""
        known = self.info.r[np.isfinite(self.info.r)]
        facts = {
            "vertices": f"{len(self.vertices):,} of {self.vertices.space}",
            "regions": ", ".join(self.rois.names[:12]) + (" ..." if len(self.rois) > 12 else ""),
            "layers": f"{len(self.info.layers)}: {self.info.layers[0]} to {self.info.layers[-1]}",
            "median r": f"{np.median(known):.3f} on test images" if len(known) else "",
            "units": self.info.units,
            "runs on": self.device,
            "note": self.info.note,
        }
        title = f"Encoder {self.path.name}: {self.info.backbone.get('name', '?')}"
        return card(title, facts, lambda: self.plot("layer", size=SIZE, dpi=DPI))

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        return _open_again, (str(self.file), self.device, self.threads, self.info.digest)

    def __copy__(self) -> Encoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        return self

    @property
    def vertices(self) -> Vertices:
        """The vertices that the V columns are."""
        return self.info.vertices

    @property
    def rois(self) -> RoiTable:
        """Regions as indices into the V columns."""
        return self.info.rois

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2) in [-1, 1], ``scale`` (V,) in [0, 1]; float32."""
        return self.info.selectors

    def plot(self, values: np.ndarray | str, **options: Any) -> Figure:
        """Draw predictions, or a map of the encoder's own, on the cortex.

        Parameters
        ----------
        values : array of shape (V,) or (n, V), or str
            What :meth:`predict` returns, several rows as a grid; or ``"layer"``, ``"location"``, ``"scale"``,
            ``"accuracy"``, ``"explained"``.
        **options
            Of :func:`brainkit.plot`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        import brainkit  # maps are drawn by a folder that imports this one

        if not isinstance(values, str) and options.get("kind", "continuous") == "continuous":
            options = {"label": self.info.units, **options}
        return brainkit.plot(values, self, **options)

    def predict(
        self,
        images: Images,
        batch_size: int | None = None,
        *,
        rois: str | Iterable[str] | None = None,
        prepared: bool = False,
    ) -> np.ndarray:
        """Predict the response to each image.

        Parameters
        ----------
        images : path, paths, PIL images, or array of shape (n, H, W, 3), uint8
            A path names images as :func:`brainkit.predict.list_images` has it: a folder, whose images come sorted by
            path; a pattern; a list (``.txt``); a tar shard; a URL. A list of paths keeps its own order. An iterator is
            asked for a few images at a time, and each is copied before the next. A PIL image gives the same as its
            file: turned as its EXIF data say, over white where it is transparent.
        batch_size : int, optional
            Images at once; chosen by the input's size by default.
        rois : str or iterable of str, optional
            Only the columns of these regions, each vertex once, in the encoder's order.
        prepared : bool
            The array holds images that :func:`brainkit.images.prepare` has already resized: (n, S, S, 3).

        Returns
        -------
        array of shape (n, V), float32
            In the units of ``info.units``.

        Raises
        ------
        ImageError
            If an image cannot be read.
        UsageError
            If `images` is none of these, or a region is unknown.

        Examples
        --------
        >>> fmri = encoder.predict("photos")
        >>> fmri.shape
        (3, 20)
        >>> encoder.predict("photos", rois=["V1", "PPA"]).shape
        (3, 4)
        >>> encoder.predict(np.zeros((2, 64, 48, 3), np.uint8)).dtype
        dtype('float32')
        """
        columns, _ = select_columns(self.rois, as_names(rois, self.rois))
        blocks = list(self._rows(images, batch_size, prepared, lambda batch: self.run(batch, columns)))
        width = len(self.vertices) if columns is None else len(columns)
        return np.concatenate(blocks) if blocks else np.empty((0, width), np.float32)

    def predict_with_spread(
        self,
        images: Images,
        batch_size: int | None = None,
        *,
        prepared: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict the response to each image with an ensemble, and how much its members differ.

        Parameters
        ----------
        images, batch_size, prepared
            As for :meth:`predict`.

        Returns
        -------
        mean : array of shape (n, V), float32
            The same as :meth:`predict` returns.
        sd : array of shape (n, V), float32
            Standard deviation over the members (ddof 1), in the same units.

        Raises
        ------
        UsageError
            If the file holds a single model, which has no spread; and as :meth:`predict`.
        ImageError
            As :meth:`predict`.
        """
        empty = np.empty((0, 2, len(self.vertices)), np.float32)
        rows = np.concatenate([empty, *self._rows(images, batch_size, prepared, self.run_with_spread)])
        return np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1])

    def roi_means(
        self, images: Images, rois: str | Iterable[str] | None = None, batch_size: int | None = None
    ) -> dict[str, np.ndarray]:
        """Predict the mean response of regions to each image; only the means are kept, so millions of images fit.

        Parameters
        ----------
        images, batch_size
            As for :meth:`predict`.
        rois : str or iterable of str, optional
            By default all regions of the encoder that have vertices.

        Returns
        -------
        dict of str to array of shape (n,), float32

        Raises
        ------
        ImageError
            If an image cannot be read.
        UsageError
            If a region is unknown or has no vertices.

        Examples
        --------
        >>> means = encoder.roi_means("photos")
        >>> list(means), means["PPA"].shape
        (['V1v', 'V1d', 'PPA'], (3,))
        >>> list(encoder.roi_means("photos", ["V1"]))
        ['V1']
        """
        names = as_names(rois, self.rois) if rois is not None else names_with_vertices(self.rois)
        columns, regions = select_columns(self.rois, names)
        check_have_vertices(regions)
        rows = self._rows(images, batch_size, False, lambda batch: self.run(batch, columns))
        blocks = [region_means(fmri, regions) for fmri in rows]
        means = np.concatenate(blocks) if blocks else np.empty((0, len(regions)), np.float32)
        return {name: means[:, column].copy() for column, name in enumerate(regions)}

    def top(self, images: Images, roi: str, k: int = 10, batch_size: int | None = None) -> tuple[Ranked, ...]:
        """Find the images with the highest mean prediction over a region.

        Parameters
        ----------
        images, batch_size
            As for :meth:`predict`.
        roi : str
        k : int
            1 to 100.

        Returns
        -------
        tuple of Ranked
            From the highest mean prediction downwards: ``rank``, ``row``, ``name``, ``mean`` and ``image`` as given.
            An image that is given more than once is ranked once.

        Raises
        ------
        ImageError
            If an image cannot be read.
        UsageError
            If the region is unknown or has no vertices, or `k` is out of range.

        Examples
        --------
        >>> best = encoder.top("photos", "PPA", k=2)
        >>> [(one.rank, one.row, one.name) for one in best]
        [(1, 0, 'photos/a.png'), (2, 1, 'photos/b.png')]
        >>> bool(best[0].mean > best[1].mean)
        True
        """
        columns, regions = select_columns(self.rois, (roi,))
        top = TopImages(regions, k)
        sources = as_sequence(images)
        seen: set[Any] = set()
        for fmri in self._rows_of(sources, batch_size, lambda batch: self.run(batch, columns)):
            means, first = region_means(fmri, regions), top.rows
            for at in range(len(means)):
                if (identity := _identity(sources[first + at])) in seen:
                    means[at] = np.nan  # not ranked a second time
                seen.add(identity)
            top.add(means)
        return top.finish(lambda row: (as_text(_name(sources[row], row)), sources[row]))[roi].highest

    def _rows(
        self, images: Any, batch_size: int | None, prepared: bool, run: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """The rows that `run` returns, a batch (b, S, S, 3) at a time; an unreadable image is an error."""
        if not prepared:
            yield from self._rows_of(as_iterable(images), batch_size, run)
            return
        chosen, size = self.batch_size_for(batch_size), self.info.preprocessing.size
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise UsageError(f"prepared images must be a uint8 array of shape (n, {size}, {size}, 3)")
        yield from (run(images[start : start + chosen]) for start in range(0, len(images), chosen))

    def _rows_of(
        self, sources: Any, batch_size: int | None, run: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        chosen = self.batch_size_for(batch_size)
        pending: collections.deque[Sequence[Any]] = collections.deque()

        def chunks() -> Iterator[Sequence[Any]]:
            for given, detached in in_chunks(sources, chosen):
                pending.append(given)
                yield detached

        results, warned = batches(self, chunks(), chosen, run), False
        with contextlib.closing(results):  # an error ends decoding too
            for batch in results:
                given = pending.popleft()
                if batch.failed:
                    index, error = batch.failed[0]
                    name = _name(given[index - batch.stop], index)
                    raise ImageError(f"{name}: {error.reason}", reason=error.reason, missing=error.missing)
                if batch.of_several and not warned:
                    index, warned = batch.of_several[0], True
                    name = _name(given[index - batch.stop], index)
                    text = "an animation or a file with pages: only its first image is predicted"
                    warnings.warn(f"{name}: {text}", stacklevel=2)
                if batch.fmri is not None:
                    yield batch.fmri


def load(path: str | os.PathLike[str], device: str = "auto", *, threads: int | None = None) -> Encoder:
    """Open an encoder file; its digest and its graph are checked before ONNX Runtime sees it.

    Parameters
    ----------
    path : path-like
        The file, or the run folder that it is in.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU if there is one that ONNX Runtime can use.
    threads : int, optional
        Threads of the network on a CPU, and of decoding images; by default one for each core this process may use.

    Returns
    -------
    Encoder

    Raises
    ------
    EncoderFileError
        If the file cannot be trusted or understood.
    UsageError, BrainkitError
        If the device is unknown, or there are no threads; if the device is requested and does not work.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    path = locate(path)
    with unchanged_while(path):
        info = read(path)
        if info.container != "onnx":
            raise _wrong_container(path, info)
        check_graph(path)
        session = open_session(path, device=device, size=info.preprocessing.size, threads=threads)
        checked = fingerprint(path)
    check_signature(session, info, path)
    return Encoder(path, info, session, checked, threads)


@functools.lru_cache(maxsize=1)  # joblib sends the encoder along with every task
def _open_again(path: str, device: str, threads: int | None, digest: str) -> Encoder:
    """An encoder that was sent to this process."""
    encoder = load(path, device, threads=threads)
    if encoder.info.digest != digest:
        raise EncoderFileError(f"{path}: is another file than the encoder that was sent here; give each its own name")
    return encoder


def _name(source: Any, index: int) -> str:
    if isinstance(source, ImageSource):
        return source.name
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"images[{index}]"


def _identity(source: Any) -> Any:
    """The same for an image that is given twice."""
    if isinstance(source, ImageSource):
        return source.file, source.offset
    if isinstance(source, np.ndarray):
        return source.shape, hashlib.sha256(source.tobytes()).digest()
    return os.path.abspath(source) if isinstance(source, str | os.PathLike) else id(source)


def _wrong_container(path: Path, info: EncoderInfo) -> UsageError:
    run = shlex.quote(str(path.parent)) if (path.parent / "run.json").is_file() else "RUN"
    return UsageError(
        f"{path}: holds the {info.container} form, and predicting takes the ONNX form: brainkit export {run} --onnx"
    )
