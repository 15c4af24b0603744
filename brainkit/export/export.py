"""A trained model as one encoder file, ONNX or torch's own, checked against torch before it is kept.

The network, its normalisation and the bottlenecks end in ``tokens``; the readout follows. Vertices that read the same
four grid cells form a group, and each group is one small matrix product, so nothing of size (B, V, D) ever exists. The
readout's arrays have documented names, so that other programs can score a subset of vertices from ``tokens``
(``docs/encoder-file.md``). README.md says which file builds which part.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import encoder_file
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.graph_check import check_graph
from brainkit.errors import BrainkitError, UsageError, require
from brainkit.export.onnx_graph import build_onnx
from brainkit.export.onnx_readout import FORMS, Readout, pad_readout, sort_readout
from brainkit.export.parity import BOUND, onnx_certificate
from brainkit.export.storage import GraphFiles, check_storage, stored_drift
from brainkit.export.token_module import evaluation_mode, export_mode, torch_predictions
from brainkit.export.torch_forms import RUNTIMES, save_program, torch_certificate, trace_encoder
from brainkit.export.vertex_subset import VertexSubset, select_vertices
from brainkit.images import Preprocessing
from brainkit.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import nn

    from brainkit.model.ensemble import Ensemble
    from brainkit.model.factor_topy import FactorTopy, Folded


@dataclass(frozen=True)
class Exported:
    """An encoder file that was written.

    Attributes
    ----------
    path : Path
    bytes : int
        Size of the file.
    certificate : dict
        largest, median, images, batches, bound, enforced, where, versions; see
        :func:`brainkit.export.parity.certificate`.
    drift : dict or None
        Difference between the predictions of a smaller file and those of the float32 graph, see
        :func:`brainkit.export.storage.drift`; None for float32.
    """

    path: Path
    bytes: int
    certificate: dict[str, Any] = field(repr=False)
    drift: dict[str, Any] | None = field(default=None, repr=False)


def export_onnx(
    model: FactorTopy | Ensemble,
    backbone: nn.Module,
    path: str | os.PathLike[str],
    *,
    info: EncoderInfo,
    images: np.ndarray,
    enforce: bool | None = None,
    target: str = "cpu",
    subset: VertexSubset | None = None,
    storage: str = "float32",
) -> Exported:
    """Write an ONNX encoder file and check that it predicts what torch predicts.

    Parameters
    ----------
    model : FactorTopy or Ensemble
        Trained; it is not changed. The file of an ensemble predicts the mean and the s.d. over its members.
    backbone : Module
        ``get_tokens(images (B, 3, S, S)) -> (local, global)`` dicts, as :class:`brainkit.backbones.Backbone`.
    path : path-like
        The file; it appears once all checks have passed.
    info : EncoderInfo
        The file's metadata, as :func:`describe` gives it; the certificate is added here.
    images : array of shape (n, S, S, 3), uint8
        At least three prepared images for the parity check; photographs, since noise hides differences.
    enforce : bool, optional
        Fail if torch and ONNX Runtime differ by more than 1e-4. By default, unless the backbone has random weights:
        then tokens hardly vary across images, and the difference means little.
    target : {"cpu", "gpu"}
        Form of the readout: one product per group of vertices that read the same cells, which is fast on a CPU, or
        groups padded to one size and a single product, which is fewer kernels for a GPU to launch.
    subset : VertexSubset, optional
        Export only these vertices, see :func:`brainkit.export.vertex_subset.choose_subset`; `info` describes all.
    storage : {"float32", "float16", "int8"}
        How large constants are stored, see :class:`brainkit.export.storage.GraphFiles`. The graph that is compared
        with torch is always float32.

    Returns
    -------
    Exported

    Raises
    ------
    UsageError
        If `images` or `info` do not fit the model, or there is no such `storage`.
    BrainkitError
        If the backbone cannot be exported, the file would exceed 2 GB, or parity fails; no file is left.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="train", purpose="brainkit export")
    check_storage(storage)
    folded, info, readouts = _prepare(model, info, images, target, subset)
    with evaluation_mode(model, backbone):
        expected = _expected_predictions(model, backbone, images, info, subset)
        with export_mode(backbone):
            proto = build_onnx(folded, readouts, backbone, info, storage=storage)
        with atomic_write(path) as temporary, GraphFiles(storage, proto, temporary, Path(path)) as files:
            del proto
            certificate = onnx_certificate(expected, files.float32, images)
            certificate = _enforced(certificate, "ONNX Runtime", backbone, path, enforce)
            info = files.complete(dataclasses.replace(info, certificate=certificate), images)
            encoder_file.seal(temporary, info)
            check_graph(temporary)  # a file that prediction would refuse is not kept
    return Exported(Path(path), Path(path).stat().st_size, info.certificate or {}, stored_drift(info))


def export_torch(
    model: FactorTopy,
    backbone: nn.Module,
    path: str | os.PathLike[str],
    *,
    form: str,
    info: EncoderInfo,
    images: np.ndarray,
    enforce: bool | None = None,
    target: str = "cpu",
    subset: VertexSubset | None = None,
) -> Exported:
    """Write an encoder file that loads with torch alone, and check that it predicts what the model predicts.

    Parameters
    ----------
    form : {"torchscript", "pt2"}
        Opened by ``torch.jit.load`` and ``torch.export.load``.

    The others are those of :func:`export_onnx`.

    Returns
    -------
    Exported

    Raises
    ------
    UsageError
        If `images`, `info` or `form` do not fit.
    BrainkitError
        If torch cannot trace the backbone, or parity fails; no file is left.
    """
    if form not in RUNTIMES:
        raise UsageError(f"form must be one of {', '.join(RUNTIMES)}, got {form!r}")
    folded, info, readouts = _prepare(model, info, images, target, subset)
    if len(readouts) > 1:
        raise UsageError(f"form must be onnx for an ensemble, got {form}")
    with evaluation_mode(model, backbone):
        expected = _expected_predictions(model, backbone, images, info, subset)
        with export_mode(backbone):
            program = trace_encoder(folded, readouts[0], backbone, info, form)
        with atomic_write(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as saved:
            save_program(program, form, saved)
            del program
            # Written twice with the same entries: the certificate is about a file that loads.
            encoder_file.write_archive(temporary, saved, info)
            certificate = torch_certificate(expected, temporary, images, form)
            certificate = _enforced(certificate, RUNTIMES[form], backbone, path, enforce)
            encoder_file.write_archive(temporary, saved, dataclasses.replace(info, certificate=certificate))
    return Exported(Path(path), Path(path).stat().st_size, certificate)


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
    terms: dict[str, str] | None = None,
    citation: str = "",
    provenance: dict[str, Any] | None = None,
) -> EncoderInfo:
    """The metadata of an encoder file, from a folded model and the parts of its run.

    Parameters
    ----------
    folded : Folded
        ``model.folded()``: layers, grid, channels and selectors.
    r, R2, noise_ceiling : array of shape (V,) or None
        On the test images; None is written as NaN, not known.

    The others are those of :class:`brainkit.encoder_file.EncoderInfo`.
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
        terms=terms or {},
        citation=citation,
        backbone=backbone,
        provenance=provenance or {},
    )


def _prepare(
    model: FactorTopy | Ensemble, info: EncoderInfo, images: np.ndarray, target: str, subset: VertexSubset | None
) -> tuple[Folded, EncoderInfo, list[Readout]]:
    """The model's constants, the metadata and one readout per member, checked and reduced to the subset."""
    if target not in FORMS:
        raise UsageError(f"target must be one of {', '.join(FORMS)}, got {target!r}")
    folded = model.folded()
    info = dataclasses.replace(info, grid=(folded.grid[0], folded.grid[1]), bottleneck=folded.weight.shape[1])
    _check_request(folded, info, images)
    if subset is not None:
        folded, info = select_vertices(folded, info, subset)
    readouts = [sort_readout(member) for member in getattr(folded, "members", (folded,))]
    if FORMS[target] == "padded":
        readouts = [pad_readout(readout) for readout in readouts]
    return folded, dataclasses.replace(info, form=readouts[0].form), readouts


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


def _expected_predictions(
    model: FactorTopy | Ensemble,
    backbone: nn.Module,
    images: np.ndarray,
    info: EncoderInfo,
    subset: VertexSubset | None,
) -> np.ndarray:
    predictions = torch_predictions(model, backbone, images, info.preprocessing)
    return predictions if subset is None else predictions[:, subset.positions]


def _enforced(
    certificate: dict[str, Any], runtime: str, backbone: nn.Module, path: str | os.PathLike[str], enforce: bool | None
) -> dict[str, Any]:
    """The certificate with ``enforced``.

    Raises
    ------
    BrainkitError
        If the bound is enforced and exceeded.
    """
    if enforce is None:
        enforce = getattr(backbone, "pretrained", False) is not False
    if enforce and certificate["largest"] > BOUND:
        raise BrainkitError(
            f"{path}: not written: {runtime} differs from torch by {certificate['largest']:.1e} of a "
            f"vertex's s.d.; at most {BOUND:.0e} is allowed"
        )
    return {**certificate, "enforced": enforce}
