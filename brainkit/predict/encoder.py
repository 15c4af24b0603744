"""An encoder file, open for predicting."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit import encoder_file
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.graph_check import check_graph
from brainkit.encoder_file.steady import seen, steady
from brainkit.errors import BrainkitError, DataError, EncoderFileError, UsageError
from brainkit.predict.inputs.decode import reason_without_name, sources_of
from brainkit.predict.outputs.csv import as_names, check_regions, chosen_columns, region_means, regions_with_vertices
from brainkit.predict.pipeline import batches
from brainkit.predict.readout import SubsetReadout
from brainkit.predict.session import import_runtime, open_session
from brainkit.predict.top_images.ranking import Ranked, TopImages
from brainkit.utils.text import as_text, first_line

DEVICES = ("auto", "cpu", "cuda")
Images = str | os.PathLike[str] | np.ndarray | Sequence[Any]


class Encoder:
    """An encoder file, open for predicting. Made by :func:`load`.

    Attributes
    ----------
    path : Path
    info : EncoderInfo
        All that the file says about itself.
    device : str
        ``"cpu"`` or ``"cuda"``: where it runs.

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

    def __init__(self, path: Path, info: EncoderInfo, session: Any, device: str) -> None:
        self.path, self.info, self.device = path, info, device
        self._session = session
        self._checked: tuple[int, ...] | None = None  # the file as it was when it was checked
        self._running: dict[int, Any] = {}  # by thread: several may predict at once
        self._subset: tuple[bytes, SubsetReadout] | None = None

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
        images: Images,
        batch_size: int | None = None,
        *,
        rois: str | Iterable[str] | None = None,
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
        rois : str or iterable of str, optional
            Only the columns of these regions, each vertex once, in the encoder's order.
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
            If `images` is nothing of the kind, or a region is unknown.

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
        columns, _ = chosen_columns(self.rois, as_names(rois))
        parts = list(self._rows(images, batch_size, prepared, lambda batch: self.run(batch, columns)))
        width = len(self.vertices) if columns is None else len(columns)
        return np.concatenate(parts) if parts else np.empty((0, width), np.float32)

    def predict_with_spread(
        self,
        images: str | os.PathLike[str] | np.ndarray | Sequence[Any],
        batch_size: int | None = None,
        *,
        prepared: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict the response to each image with an ensemble, and how far its members are apart.

        Parameters
        ----------
        images, batch_size, prepared
            As for :meth:`predict`.

        Returns
        -------
        mean : array of shape (n, V), float32
            What :meth:`predict` gives.
        sd : array of shape (n, V), float32
            Standard deviation over the members (ddof 1), in the same units.

        Raises
        ------
        UsageError
            If the file holds one model: it has no spread. And as :meth:`predict`.
        DataError
            As :meth:`predict`.
        """
        empty = np.empty((0, 2, len(self.vertices)), np.float32)
        parts = np.concatenate([empty, *self._rows(images, batch_size, prepared, self.run_with_spread)])
        return np.ascontiguousarray(parts[:, 0]), np.ascontiguousarray(parts[:, 1])

    def roi_means(
        self, images: Images, rois: str | Iterable[str] | None = None, batch_size: int | None = None
    ) -> dict[str, np.ndarray]:
        """Predict the mean response of regions to each image; nothing else is kept, so millions of images fit.

        Parameters
        ----------
        images, batch_size
            As for :meth:`predict`.
        rois : str or iterable of str, optional
            All regions of the encoder that have vertices, by default.

        Returns
        -------
        dict of str to array of shape (n,), float32

        Raises
        ------
        DataError
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
        names = as_names(rois) if rois is not None else regions_with_vertices(self.rois)
        columns, regions = chosen_columns(self.rois, names)
        check_regions(regions)
        rows = self._rows(images, batch_size, False, lambda batch: self.run(batch, columns))
        parts = [region_means(fmri, regions) for fmri in rows]
        means = np.concatenate(parts) if parts else np.empty((0, len(regions)), np.float32)
        return {name: means[:, column].copy() for column, name in enumerate(regions)}

    def top(self, images: Images, roi: str, k: int = 10, batch_size: int | None = None) -> tuple[Ranked, ...]:
        """Find the images that drive a region most.

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

        Raises
        ------
        DataError
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
        columns, regions = chosen_columns(self.rois, (roi,))
        ranking = TopImages(regions, k)
        sources = sources_of(images)
        for fmri in self._rows_of(sources, batch_size, lambda batch: self.run(batch, columns)):
            ranking.add(region_means(fmri, regions))
        return ranking.finish(lambda row: (_name_of(sources[row], row), sources[row]))[roi].highest

    def _rows(
        self, images: Any, batch_size: int | None, prepared: bool, run: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """What `run` makes of the images, a batch (b, S, S, 3) at a time; one that cannot be read ends the work."""
        if not prepared:
            yield from self._rows_of(sources_of(images), batch_size, run)
            return
        chosen, size = self.batch_size_for(batch_size), self.info.preprocessing.size
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise UsageError(f"prepared images must be a uint8 array of shape (n, {size}, {size}, 3)")
        yield from (run(images[start : start + chosen]) for start in range(0, len(images), chosen))

    def _rows_of(
        self, sources: Any, batch_size: int | None, run: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        chosen = self.batch_size_for(batch_size)
        taken = batches(self, lambda start, stop: sources[start:stop], range(len(sources)), chosen, run)
        with contextlib.closing(taken):  # so that decoding ends with an error
            for batch in taken:
                if batch.failed:
                    index, error = batch.failed[0]
                    source = sources[index]
                    name = source if isinstance(source, str | os.PathLike) else f"images[{index}]"
                    raise DataError(f"{name}: {reason_without_name(error, name)}")
                if batch.fmri is not None:
                    yield batch.fmri

    def run(self, batch: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Predict one batch of prepared images (B, S, S, 3) uint8 -> (B, V) float32.

        Parameters
        ----------
        batch : array of shape (B, S, S, 3), uint8
        columns : array of shape (n,), int, optional
            Positions of some vertices in 0..V-1: only those are computed, from the network's tokens, and come in
            this order. The same numbers up to the rounding of float32.

        Returns
        -------
        array of shape (B, V) or (B, n), float32

        Raises
        ------
        BrainkitError
            If ONNX Runtime fails, for want of memory for example.
        """
        if columns is None:
            return self._fetch(["fmri"], batch)[0]
        return self.read_rows_of(columns)(self.tokens(batch))

    def run_with_spread(self, batch: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Predict one batch with an ensemble: (B, 2, V) or (B, 2, n) float32, the mean and the s.d. over the members.

        Parameters
        ----------
        batch, columns
            As for :meth:`run`.

        Raises
        ------
        UsageError
            If the file holds one model: it has no spread.
        BrainkitError
            If ONNX Runtime fails.
        """
        if self.info.ensemble is None:
            raise UsageError(
                f"{self.path}: must be an ensemble to have a spread, got a single model; brainkit export --ensemble "
                "makes one"
            )
        if columns is None:
            return np.stack(self._fetch(["fmri", "fmri_sd"], batch), 1)
        members = self.read_rows_of(columns).members(self.tokens(batch))
        return np.stack([members.mean(0), members.std(0, ddof=1)], 1)

    def read_rows_of(self, columns: np.ndarray) -> SubsetReadout:
        """The readout of some vertices, read from the file the first time; held until others are asked for."""
        key = np.ascontiguousarray(columns, np.int64).tobytes()
        held = self._subset  # another thread may put another in its place
        if held is not None and held[0] == key:
            return held[1]
        subset = SubsetReadout(self.path, self.info, columns)
        if self._checked is not None and seen(self.path) != self._checked:
            raise EncoderFileError(f"{self.path}: changed since it was opened")
        self._subset = key, subset
        return subset

    def tokens(self, batch: np.ndarray) -> np.ndarray:
        """What the vertices choose from, for prepared images (B, S, S, 3) uint8 -> (B, L, D, H*W + 1) float32."""
        return self._fetch(["tokens"], batch)[0]

    def break_off(self, thread: int | None) -> None:
        """End the run that is under way in the thread of that identifier; it raises a BrainkitError there."""
        if (options := self._running.get(thread or 0)) is not None:
            options.terminate = True

    def _fetch(self, outputs: Sequence[str], batch: np.ndarray) -> list[np.ndarray]:
        options = self._running[threading.get_ident()] = import_runtime().RunOptions()
        try:
            # Otherwise the runtime computes what nobody asked for, too.
            options.only_execute_path_to_fetches = True
            found: list[np.ndarray] = self._session.run(outputs, {"images": np.ascontiguousarray(batch)}, options)
        except Exception as error:  # ONNX Runtime's own classes have no common base
            raise BrainkitError(f"{self.path}: ONNX Runtime failed: {first_line(error)}") from error
        finally:
            del self._running[threading.get_ident()]
        # What a graph declares is checked when it is opened; what it gives is known only now.
        for name, result in zip(outputs, found, strict=True):
            if len(result) != len(batch):
                raise EncoderFileError(f"{self.path}: gives {len(result)} rows of {name} for {len(batch)} images")
        return found

    def batch_size_for(self, asked: int | None) -> int:
        if asked is not None:
            if asked < 1:
                raise UsageError(f"batch size must be at least 1, got {asked}")
            return asked
        # Activations grow with the input's area: 8 images of 224 x 224 at once, 32 where a GPU has to be kept busy.
        at_224 = 32 if self.device == "cuda" else 8
        return max(1, min(4 * at_224, int(at_224 * (224 / self.info.preprocessing.size) ** 2)))


def _name_of(source: Any, index: int) -> str:
    return as_text(Path(source)) if isinstance(source, str | os.PathLike) else f"images[{index}]"


def load(path: str | os.PathLike[str], device: str = "auto", *, threads: int | None = None) -> Encoder:
    """Open an encoder file; its digest and its graph are checked before ONNX Runtime sees it.

    Parameters
    ----------
    path : path-like
        The file.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU where there is one that ONNX Runtime can use.
    threads : int, optional
        Of the network on a CPU; by default one for each core this process may use.

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
    with steady(path):
        info = encoder_file.read(path)
        if info.container != "onnx":
            raise _wrong_form(Path(path), info)
        check_graph(path)
        session, found = open_session(path, device=device, size=info.preprocessing.size, threads=threads)
        checked = seen(path)
    _check_signature(session, info, path)
    encoder = Encoder(Path(path), info, session, found)
    encoder._checked = checked
    return encoder


def _wrong_form(path: Path, info: EncoderInfo) -> UsageError:
    run = shlex.quote(str(path.parent)) if (path.parent / "run.json").is_file() else "RUN"
    return UsageError(
        f"{path}: holds the {info.container} form, and scoring takes the ONNX form: brainkit export {run} --onnx"
    )


def _check_signature(session: Any, info: EncoderInfo, path: str | os.PathLike[str]) -> None:
    """The graph must take and give what the metadata says."""
    size, V = info.preprocessing.size, len(info.vertices)
    tokens = [len(info.layers), info.bottleneck, info.grid[0] * info.grid[1] + 1]
    expected = {
        "images": ("tensor(uint8)", [size, size, 3]),
        "fmri": ("tensor(float)", [V]),
        "tokens": ("tensor(float)", tokens),
    }
    if info.ensemble is not None:
        expected["fmri_sd"] = ("tensor(float)", [V])
    values = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    if len(session.get_inputs()) != 1 or "images" not in {value.name for value in session.get_inputs()}:
        raise EncoderFileError(f"{path}: its graph must take 'images' alone, found {len(session.get_inputs())} inputs")
    for name, (kind, shape) in expected.items():
        value = values.get(name)
        found = "none" if value is None else f"{value.type} {value.shape}"
        if value is None or value.type != kind or list(value.shape[1:]) != shape:
            raise EncoderFileError(f"{path}: its graph must have {name}: {kind} [batch, {shape}], found {found}")
