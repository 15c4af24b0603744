"""Encoder files smaller than float32: what is stored, and how far its predictions move."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import encoder_file
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError
from brainkit.export.half_storage import halved, stored_bytes
from brainkit.export.int8 import quantised
from brainkit.export.onnx_graph import check_size, serialised
from brainkit.export.parity import BATCHES
from brainkit.predict.session import open_session
from brainkit.utils.text import first_line

if TYPE_CHECKING:
    import onnx

STORAGES = ("float32", "float16", "int8")


def check_storage(storage: str) -> None:
    """Refuse what is none of ``STORAGES``."""
    if storage not in STORAGES:
        raise UsageError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")


class Compact:
    """The files of one export: the float32 graph, which torch is compared with, and the smaller one that is kept.

    ``float16``: large constants are kept as float16 and computed with as float32, see :mod:`.half_storage`.
    ``int8``: the backbone's products are computed in bytes, see :mod:`.int8`.
    ``float32``: the graph is kept as it is.

    Parameters
    ----------
    storage : {"float32", "float16", "int8"}
    proto : ModelProto
        The float32 graph; no longer of use afterwards. With ``float16`` it may be too large for protobuf.
    beside : Path
        The file that will be kept.
    path : Path
        Its final name, for errors.

    Attributes
    ----------
    plain : Path
        The float32 graph, in a folder that goes with this object unless it is what is kept.
    """

    def __init__(self, storage: str, proto: onnx.ModelProto, beside: Path, path: Path) -> None:
        self.storage, self.beside, self.path = storage, beside, path
        self._kept: tuple[str, ...] = ()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.plain = beside
        if storage == "float32":
            beside.write_bytes(serialised(proto, path))
            return
        # Beside the result, where there is room for it; hidden, as all that is unfinished.
        self._folder = tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{path.stem}.")
        self.plain = Path(self._folder.name) / "float32.onnx"
        try:
            if storage == "float16":
                half, self._kept = halved(proto)
                check_size(stored_bytes(half), storage)
                beside.write_bytes(serialised(half, path))
                del half
            _write(proto, self.plain, path)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Compact:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def finish(self, info: EncoderInfo, images: np.ndarray) -> EncoderInfo:
        """Complete the file that is kept, and measure how far it is from the float32 graph.

        Parameters
        ----------
        info : EncoderInfo
            With the certificate.
        images : array of shape (n, S, S, 3), uint8

        Returns
        -------
        EncoderInfo
            With what is stored how, and the drift: ``storage`` and ``certificate["drift"]``, or ``quantised``.
        """
        if self.storage == "float32":
            return info
        (reference,) = _predictions(self.plain, images, (max(BATCHES),))
        if self.storage == "float16":
            moved = drift(reference, _predictions(self.beside, images, BATCHES))
            certificate = {**(info.certificate or {}), "drift": moved, "kept_float32": list(self._kept)}
            return dataclasses.replace(info, storage="float16", certificate=certificate)
        name = info.backbone.get("name", "without a name")
        model, products = quantised(self.plain, self.plain.with_name("int8.onnx"), name)
        self.beside.write_bytes(serialised(model, self.path))
        del model
        how = {"weights": "int8, one scale per output channel", "activations": "uint8, one range per batch"}
        moved = drift(reference, _predictions(self.beside, images, BATCHES))
        return dataclasses.replace(info, quantised={"products": products, **how, "drift": moved})


def drift(reference: np.ndarray, found: list[np.ndarray]) -> dict[str, Any]:
    """How far predictions are from the float32 graph's, in units of their s.d. across images.

    Parameters
    ----------
    reference : array of shape (n, V), float32
        The float32 graph's.
    found : list of arrays of shape (n, V), float32
        The smaller file's, for batches of each size of ``BATCHES``.

    Returns
    -------
    dict
        ``rms``: rms difference over the pooled s.d.; ``median`` and ``largest``: over vertices, the vertex's rms
        difference over its s.d. (at least 1e-3 of the predictions' rms); ``difference``: likewise, the largest of all
        differences; ``images``, ``batches``.
    """
    exact = reference.astype(np.float64)
    miss = np.stack(found).astype(np.float64) - exact  # (batches, n, V)
    spread = exact.std(0)
    tiny = np.finfo(np.float64).tiny
    scale = np.maximum(spread, max(1e-3 * np.sqrt(np.mean(exact**2)), tiny))
    of_vertices = np.sqrt(np.mean(miss**2, axis=(0, 1))) / scale
    return {
        "rms": float(np.sqrt(np.mean(miss**2)) / max(np.sqrt(np.mean(spread**2)), tiny)),
        "median": float(np.median(of_vertices)),
        "largest": float(of_vertices.max()),
        "difference": float((np.abs(miss) / scale).max()),
        "images": len(exact),
        "batches": list(BATCHES),
    }


def drift_of(info: EncoderInfo) -> dict[str, Any] | None:
    """The drift that a file tells of itself; None where it holds the float32 graph."""
    section = info.quantised or info.certificate or {}
    return section.get("drift")


def in_words(moved: dict[str, Any]) -> str:
    """A drift on one line."""
    return (
        f"predictions are {moved['median']:.1e} of a vertex's s.d. from those of the float32 graph "
        f"(rms over {moved['images']} images, median vertex; {moved['largest']:.1e} at the worst vertex)"
    )


def _predictions(path: Path, images: np.ndarray, batches: tuple[int, ...]) -> list[np.ndarray]:
    session = open_session(path, device="cpu", size=images.shape[1])
    starts = {batch: range(0, len(images), batch) for batch in batches}
    try:
        return [
            np.concatenate([session.run(["fmri"], images[at : at + batch])[0] for at in starts[batch]])
            for batch in batches
        ]
    except Exception as error:  # the runtime's own kinds, which share no other class
        raise BrainkitError(f"the smaller form of the network fails in ONNX Runtime: {first_line(error)}") from error


def _write(proto: onnx.ModelProto, place: Path, path: str | os.PathLike[str]) -> None:
    """Write the float32 graph: its constants in a second file where protobuf could not hold them, and `proto` empty."""
    import onnx

    if stored_bytes(proto) + encoder_file.MAX_METADATA <= encoder_file.MAX_FILE:
        place.write_bytes(serialised(proto, path))
    else:
        onnx.save_model(proto, place, save_as_external_data=True, location="constants.bin", size_threshold=1024)
