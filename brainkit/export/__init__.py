"""A trained model as one file, ONNX or torch's own, checked against torch before it is kept.

The network, its normalisation and the bottlenecks go through ``torch.onnx.export`` and end in ``tokens``. The readout
is appended node by node: vertices that read the same four grid cells form a group, and each group is one small
matrix product, so nothing of size (B, V, D) ever exists. Its arrays are initializers with documented names, so that
other programs can score a subset of vertices from ``tokens`` (``docs/encoder-file.md``). ``torch_forms`` makes the same
in plain torch operators.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import encoder_file
from brainkit.cortex.surface import RoiTable, Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.graph_check import check_graph
from brainkit.errors import BrainkitError, UsageError, require
from brainkit.export.onnx_graph import build_onnx
from brainkit.export.onnx_readout import FORMS, Readout, pad_readout, sort_readout
from brainkit.export.parity import BOUND, parity, relative_difference
from brainkit.export.storage import Compact, check_storage, drift_of, in_words
from brainkit.export.token_module import evaluating, exportable, torch_predictions
from brainkit.export.torch_forms import RUNTIMES, save_torch, torch_parity, torch_program
from brainkit.export.vertex_subset import Subset, choose_subset, subset_of
from brainkit.images import Preprocessing
from brainkit.utils.files import write_beside

if TYPE_CHECKING:
    from torch import nn

    from brainkit.model.ensemble import Ensemble
    from brainkit.model.factor_topy import FactorTopy, Folded


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
        :func:`brainkit.export.storage.drift`.
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
    terms: dict[str, str] | None = None,
    citation: str = "",
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
        terms=terms or {},
        citation=citation,
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
    target: str = "cpu",
    subset: Subset | None = None,
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
    target : {"cpu", "gpu"}
        The form of the readout: a product for each group of vertices that read the same cells, which is quick on a
        CPU, or groups padded to one size and one product of all, which is few operations for a GPU to start.
    subset : Subset, optional
        Export these vertices alone, see :func:`brainkit.export.vertex_subset.choose_subset`; `info` describes all.
    storage : {"float32", "float16", "int8"}
        How large constants are kept, see :class:`brainkit.export.storage.Compact`. The graph that is compared with
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
    check_storage(storage)
    folded, info, readouts = _prepared(model, info, images, target, subset)
    with evaluating(model, backbone):
        expected = _expected(model, backbone, images, info, subset)
        with exportable(backbone):
            proto = build_onnx(folded, readouts, backbone, info, storage=storage)
        with write_beside(path) as beside, Compact(storage, proto, beside, Path(path)) as compact:
            del proto
            certificate = _judged(parity(expected, compact.plain, images), "ONNX Runtime", backbone, path, enforce)
            info = compact.finish(dataclasses.replace(info, certificate=certificate), images)
            encoder_file.seal(beside, info)
            check_graph(beside)  # what scoring would refuse is not written
    return Exported(Path(path), Path(path).stat().st_size, info.certificate or {}, drift_of(info))


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
    subset: Subset | None = None,
) -> Exported:
    """Write an encoder file that loads with torch alone, and prove that it predicts what the model predicts.

    Parameters
    ----------
    form : {"torchscript", "pt2"}
        ``torch.jit.load`` opens the one, ``torch.export.load`` the other.

    Others as for :func:`export_onnx`.

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
    folded, info, readouts = _prepared(model, info, images, target, subset)
    if len(readouts) > 1:
        raise UsageError(f"the form must be onnx for an ensemble, got {form}")
    with evaluating(model, backbone):
        expected = _expected(model, backbone, images, info, subset)
        with exportable(backbone):
            program = torch_program(folded, readouts[0], backbone, info, form)
        with write_beside(path) as beside, tempfile.TemporaryFile(dir=beside.parent) as saved:
            save_torch(program, form, saved)
            del program
            # Both times the same entries are copied; only the JSON is another.
            encoder_file.write_archive(beside, saved, info)
            certificate = _judged(torch_parity(expected, beside, images, form), RUNTIMES[form], backbone, path, enforce)
            encoder_file.write_archive(beside, saved, dataclasses.replace(info, certificate=certificate))
    return Exported(Path(path), Path(path).stat().st_size, certificate)


def _prepared(
    model: FactorTopy | Ensemble, info: EncoderInfo, images: np.ndarray, target: str, subset: Subset | None
) -> tuple[Folded, EncoderInfo, list[Readout]]:
    """The model's constants, its description and its members' readouts, checked and cut down to what is asked for."""
    if target not in FORMS:
        raise UsageError(f"target must be one of {', '.join(FORMS)}, got {target!r}")
    folded = model.folded()
    info = dataclasses.replace(info, grid=(folded.grid[0], folded.grid[1]), bottleneck=folded.weight.shape[1])
    _check_request(folded, info, images)
    if subset is not None:
        folded, info = subset_of(folded, info, subset)
    readouts = [sort_readout(member) for member in getattr(folded, "members", (folded,))]
    if FORMS[target] == "padded":
        readouts = [pad_readout(readout) for readout in readouts]
    return folded, dataclasses.replace(info, form=readouts[0].form), readouts


def _expected(
    model: FactorTopy | Ensemble, backbone: nn.Module, images: np.ndarray, info: EncoderInfo, subset: Subset | None
) -> np.ndarray:
    predictions = torch_predictions(model, backbone, images, info.preprocessing)
    return predictions if subset is None else predictions[:, subset.positions]


def _judged(
    certificate: dict[str, Any],
    runtime: str,
    backbone: nn.Module,
    path: str | os.PathLike[str],
    enforce: bool | None,
) -> dict[str, Any]:
    """The certificate with ``enforced``, unless the difference is too large for the file to be kept."""
    if enforce is None:
        enforce = bool(getattr(backbone, "pretrained", False))
    if enforce and certificate["largest"] > BOUND:
        raise BrainkitError(
            f"{path}: not written: {runtime} differs from torch by {certificate['largest']:.1e} of a "
            f"vertex's s.d.; at most {BOUND:.0e} is allowed"
        )
    return {**certificate, "enforced": enforce}


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
