"""A trained model as one ONNX file, checked against torch before it is kept.

The network, its normalisation and the bottlenecks go through ``torch.onnx.export`` and end in ``tokens``. The readout
is appended node by node: vertices that read the same four grid cells form a group, and each group is one small
matrix product, so nothing of size (B, V, D) ever exists. Its arrays are initializers with documented names, so that
other programs can score a subset of vertices from ``tokens`` (``docs/encoder-file.md``).
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import encoder_file
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError, require
from brainkit.export.compact import Compact, check_storage, drift_of, in_words
from brainkit.export.network import evaluating, torch_predictions
from brainkit.export.onnx_graph import build_onnx
from brainkit.export.parity import BOUND, parity, relative_difference
from brainkit.files import write_beside
from brainkit.images import Preprocessing
from brainkit.surface import RoiTable, Vertices

if TYPE_CHECKING:
    from torch import nn

    from brainkit.ensemble import Ensemble
    from brainkit.model import FactorTopy, Folded


@dataclass(frozen=True)
class Exported:
    """An encoder file that was written.

    Parameters
    ----------
    path : Path
    bytes : int
        Its size.
    certificate : dict
        largest, median, images, batches, bound, enforced, where, versions; see :func:`parity`.
    drift : dict or None
        How far predictions moved from the float32 graph's, where the file is smaller than that; see
        :func:`brainkit.export.compact.drift`.
    """

    path: Path
    bytes: int
    certificate: dict[str, Any]
    drift: dict[str, Any] | None = None


def describe(
    folded: Folded,
    *,
    vertices: Vertices,
    rois: RoiTable,
    preprocessing: Preprocessing,
    backbone: dict[str, Any],
    r: np.ndarray | None = None,
    R2: np.ndarray | None = None,
    noise_ceiling: np.ndarray | None = None,
    units: str = "",
    gauge: str = "unit",
    note: str | None = None,
    licence: str = "",
    provenance: dict[str, Any] | None = None,
) -> EncoderInfo:
    """What an encoder file will say, from a folded model and the pieces of its run.

    Parameters
    ----------
    folded : Folded
        ``model.folded()``: gives layers, grid, channels and selectors.
    r, R2, noise_ceiling : array of shape (V,) or None
        On the test images; None is written as NaN, not known.

    Others as in :class:`brainkit.encoder_file.EncoderInfo`.
    """
    unknown = np.full(len(folded.scale), np.nan, np.float32)
    return EncoderInfo(
        vertices=vertices,
        rois=rois,
        preprocessing=preprocessing,
        layers=tuple(folded.layers),
        grid=(int(folded.grid[0]), int(folded.grid[1])),
        bottleneck=int(folded.weight.shape[1]),
        layer_weights=np.asarray(folded.layer_weights, np.float32),
        locations=np.asarray(folded.locations, np.float32),
        scale=np.asarray(folded.scale, np.float32),
        r=unknown if r is None else np.asarray(r, np.float32),
        R2=unknown if R2 is None else np.asarray(R2, np.float32),
        noise_ceiling=unknown if noise_ceiling is None else np.asarray(noise_ceiling, np.float32),
        units=units,
        gauge=gauge,
        note=note,
        licence=licence,
        backbone=backbone,
        provenance=provenance or {},
    )


def export_onnx(
    model: FactorTopy | Ensemble,
    backbone: nn.Module,
    path: str | os.PathLike[str],
    *,
    info: EncoderInfo,
    images: np.ndarray,
    enforce: bool | None = None,
    storage: str = "float32",
) -> Exported:
    """Write an encoder file and prove that it predicts what torch predicts.

    Parameters
    ----------
    model : FactorTopy or Ensemble
        Trained; it is left as it was. Of an ensemble the file predicts the mean and the spread.
    backbone : Module
        ``get_tokens(images (B, 3, S, S)) -> (local, global)`` dicts, as :class:`brainkit.backbones.Backbone`.
    path : path-like
        The file; written beside and renamed once all checks have passed.
    info : EncoderInfo
        What the file says about itself, as :func:`describe` makes it; the certificate is added here.
    images : array of shape (n, S, S, 3), uint8
        At least three prepared images for the parity check; real ones, since noise hides what matters.
    enforce : bool, optional
        Fail when torch and ONNX Runtime differ by over 1e-4. The default is whether the backbone is pretrained:
        with random weights tokens hardly vary across images, and the difference means little.
    storage : {"float32", "float16", "int8"}
        How large constants are kept, see :class:`brainkit.export.compact.Compact`. The graph that is compared with
        torch is float32 in any case.

    Returns
    -------
    Exported

    Raises
    ------
    UsageError
        If `images` or `info` do not fit the model, or there is no such `storage`.
    BrainkitError
        If the backbone cannot be exported, the file would pass 2 GB, or parity fails; no file is left.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="train", purpose="brainkit export")
    folded = model.folded()
    info = dataclasses.replace(info, grid=(folded.grid[0], folded.grid[1]), bottleneck=folded.weight.shape[1])
    _check_request(folded, info, images)
    check_storage(storage)
    with evaluating(model, backbone):
        proto = build_onnx(folded, backbone, info, images.shape[1], storage=storage)
        expected = torch_predictions(model, backbone, images, info.preprocessing)
        with write_beside(path) as beside, Compact(storage, proto, beside, Path(path)) as compact:
            del proto
            certificate = parity(expected, compact.plain, images)
            if enforce is None:
                enforce = bool(getattr(backbone, "pretrained", False))
            certificate["enforced"] = enforce
            if enforce and certificate["largest"] > BOUND:
                raise BrainkitError(
                    f"{path}: not written: ONNX Runtime differs from torch by {certificate['largest']:.1e} of a "
                    f"vertex's s.d.; at most {BOUND:.0e} is allowed"
                )
            info = compact.finish(dataclasses.replace(info, certificate=certificate), images)
            encoder_file.seal(beside, info)
    return Exported(Path(path), Path(path).stat().st_size, info.certificate or {}, drift_of(info))


def _check_request(folded: Folded, info: EncoderInfo, images: np.ndarray) -> None:
    size = info.preprocessing.size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3) or len(images) < 3:
        raise UsageError(
            f"images must be uint8 of shape (n, {size}, {size}, 3) with n at least 3, "
            f"got {images.dtype} of shape {images.shape}"
        )
    V = len(folded.weight)
    if len(info.vertices) != V or tuple(info.layers) != tuple(folded.layers):
        raise UsageError(
            f"info must describe the model's {V} vertices and layers {', '.join(folded.layers)}, "
            f"got {len(info.vertices)} and {', '.join(info.layers)}"
        )
    for name in ("layer_weights", "locations", "scale", "weight", "bias"):
        bad = ~np.isfinite(np.asarray(getattr(folded, name))).reshape(V, -1).all(1)
        if bad.any():
            raise BrainkitError(
                f"the model cannot be exported: {name} is not finite at {int(bad.sum())} of {V} vertices, "
                f"the first is {int(np.flatnonzero(bad)[0])}"
            )
