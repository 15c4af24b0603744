"""How the constants of an ONNX file are stored, and how much smaller storage changes the predictions."""

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
from brainkit.export.half_storage import stored_bytes, to_float16
from brainkit.export.int8 import to_int8
from brainkit.export.onnx_graph import check_size, serialise
from brainkit.export.parity import BATCHES
from brainkit.predict.session import open_session
from brainkit.utils.text import first_line

if TYPE_CHECKING:
    import onnx

STORAGES = ("float32", "float16", "int8")


def check_storage(storage: str) -> None:
    """Raise UsageError unless `storage` is one of ``STORAGES``."""
    if storage not in STORAGES:
        raise UsageError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")


class GraphFiles:
    """The files of one export: the float32 graph, which is compared with torch, and the file that is kept.

    ``float32``: the two are one file. ``float16``: large constants are stored as float16 and computed with in float32,
    see :mod:`.half_storage`. ``int8``: the backbone's matrix products are computed in int8, see :mod:`.int8`.

    Parameters
    ----------
    storage : {"float32", "float16", "int8"}
    proto : ModelProto
        The float32 graph; not to be used afterwards. For ``float16`` it may be larger than protobuf allows.
    kept : Path
        The file to write.
    path : Path
        Its final path, for errors.

    Attributes
    ----------
    float32 : Path
        The float32 graph; in a temporary folder unless it is the file that is kept.
    """

    def __init__(self, storage: str, proto: onnx.ModelProto, kept: Path, path: Path) -> None:
        self.storage, self.kept, self.path = storage, kept, path
        self._not_float16: tuple[str, ...] = ()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.float32 = kept
        if storage == "float32":
            kept.write_bytes(serialise(proto, path))
            return
        # In the output's folder, which has room for it; hidden, like every unfinished file.
        self._folder = tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{path.stem}.")
        self.float32 = Path(self._folder.name) / "float32.onnx"
        try:
            if storage == "float16":
                half, self._not_float16 = to_float16(proto)
                check_size(stored_bytes(half), storage)
                kept.write_bytes(serialise(half, path))
                del half
            _write_float32(proto, self.float32, path)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> GraphFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def complete(self, info: EncoderInfo, images: np.ndarray) -> EncoderInfo:
        """Write the file that is kept, if it is not written yet, and compare it with the float32 graph.

        Parameters
        ----------
        info : EncoderInfo
            With the certificate.
        images : array of shape (n, S, S, 3), uint8

        Returns
        -------
        EncoderInfo
            With how it is stored and the drift: ``storage`` and ``certificate["drift"]``, or ``quantised``.
        """
        if self.storage == "float32":
            return info
        (reference,) = _predictions(self.float32, images, (max(BATCHES),))
        if self.storage == "float16":
            measured = drift(reference, _predictions(self.kept, images, BATCHES))
            certificate = {**(info.certificate or {}), "drift": measured, "kept_float32": list(self._not_float16)}
            return dataclasses.replace(info, storage="float16", certificate=certificate)
        name = info.backbone.get("name", "without a name")
        model, products = to_int8(self.float32, self.float32.with_name("int8.onnx"), name)
        self.kept.write_bytes(serialise(model, self.path))
        del model
        how = {"weights": "int8, one scale per output channel", "activations": "uint8, one range per batch"}
        measured = drift(reference, _predictions(self.kept, images, BATCHES))
        return dataclasses.replace(info, quantised={"products": products, **how, "drift": measured})


def drift(reference: np.ndarray, found: list[np.ndarray]) -> dict[str, Any]:
    """Difference between a smaller file's predictions and the float32 graph's, in units of their s.d. across images.

    Parameters
    ----------
    reference : array of shape (n, V), float32
        Predictions of the float32 graph.
    found : list of arrays of shape (n, V), float32
        Predictions of the smaller file, for each batch size of ``BATCHES``.

    Returns
    -------
    dict
        ``rms``: rms difference over the pooled s.d.; ``median`` and ``largest``: over vertices, the vertex's rms
        difference over its s.d. (at least 1e-3 of the predictions' rms); ``difference``: the largest single
        difference, in the same unit; ``images``, ``batches``.
    """
    exact = reference.astype(np.float64)
    difference = np.stack(found).astype(np.float64) - exact  # (batches, n, V)
    spread = exact.std(0)
    tiny = np.finfo(np.float64).tiny
    scale = np.maximum(spread, max(1e-3 * np.sqrt(np.mean(exact**2)), tiny))
    per_vertex = np.sqrt(np.mean(difference**2, axis=(0, 1))) / scale
    return {
        "rms": float(np.sqrt(np.mean(difference**2)) / max(np.sqrt(np.mean(spread**2)), tiny)),
        "median": float(np.median(per_vertex)),
        "largest": float(per_vertex.max()),
        "difference": float((np.abs(difference) / scale).max()),
        "images": len(exact),
        "batches": list(BATCHES),
    }


def stored_drift(info: EncoderInfo) -> dict[str, Any] | None:
    """The drift in a file's metadata; None if it holds the float32 graph."""
    section = info.quantised or info.certificate or {}
    return section.get("drift")


def drift_text(measured: dict[str, Any]) -> str:
    """A drift in one line."""
    return (
        f"predictions differ from those of the float32 graph by {measured['median']:.1e} of a vertex's s.d. "
        f"(rms over {measured['images']} images, median vertex; {measured['largest']:.1e} at the worst vertex)"
    )


def _predictions(path: Path, images: np.ndarray, batches: tuple[int, ...]) -> list[np.ndarray]:
    """Predictions (n, V) of a file, once for each batch size."""
    session = open_session(path, device="cpu", size=images.shape[1])
    starts = {batch: range(0, len(images), batch) for batch in batches}
    try:
        return [
            np.concatenate([session.run(["fmri"], images[i : i + batch])[0] for i in starts[batch]])
            for batch in batches
        ]
    except Exception as error:  # ONNX Runtime's own classes
        raise BrainkitError(f"the stored network fails in ONNX Runtime: {first_line(error)}") from error


def _write_float32(proto: onnx.ModelProto, target: Path, path: str | os.PathLike[str]) -> None:
    """Write the float32 graph; one that is too large for protobuf gets a second file, and `proto` is emptied."""
    import onnx

    if stored_bytes(proto) + encoder_file.MAX_METADATA <= encoder_file.MAX_FILE:
        target.write_bytes(serialise(proto, path))
    else:
        onnx.save_model(proto, target, save_as_external_data=True, location="constants.bin", size_threshold=1024)
