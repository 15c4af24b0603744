"""A trained model as one ONNX file, checked against torch before it is kept.

The network, its normalisation and the bottlenecks go through ``torch.onnx.export`` and end in ``tokens``. The readout
is appended node by node: vertices that read the same four grid cells form a group, and each group is one small
matrix product, so nothing of size (B, V, D) ever exists. Its arrays are initializers with documented names, so that
other programs can score a subset of vertices from ``tokens`` (``docs/encoder-file.md``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainkit import __version__, encoder_file
from brainkit.encoder_file import EncoderInfo
from brainkit.errors import BrainkitError, UsageError, require
from brainkit.files import write_beside
from brainkit.images import Preprocessing, normalise
from brainkit.onnx_readout import append_readout, sort_readout
from brainkit.runtime import import_runtime, open_session
from brainkit.surface import RoiTable, Vertices

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from brainkit.model import FactorTopy, Folded

OPSET = 20
IR_VERSION = 10  # the newest that ONNX Runtime 1.19 reads; opset 20 needs 9
BOUND = 1e-4
BATCHES = (1, 3)


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
    """

    path: Path
    bytes: int
    certificate: dict[str, Any]


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
    model: FactorTopy,
    backbone: nn.Module,
    path: str | os.PathLike[str],
    *,
    info: EncoderInfo,
    images: np.ndarray,
    enforce: bool | None = None,
) -> Exported:
    """Write an encoder file and prove that it predicts what torch predicts.

    Parameters
    ----------
    model : FactorTopy
        Trained; it is left as it was.
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

    Returns
    -------
    Exported

    Raises
    ------
    UsageError
        If `images` or `info` do not fit the model.
    BrainkitError
        If the backbone cannot be exported, the file would pass 2 GB, or parity fails; no file is left.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="train", purpose="brainkit export")
    folded = model.folded()
    info = dataclasses.replace(info, grid=(folded.grid[0], folded.grid[1]), bottleneck=folded.weight.shape[1])
    _check_request(folded, info, images)
    with _evaluating(model, backbone):
        proto = _build(folded, backbone, info, images.shape[1])
        expected = torch_predictions(model, backbone, images, info.preprocessing)
        with write_beside(path) as beside:
            beside.write_bytes(_serialised(proto, path))
            del proto
            certificate = parity(expected, beside, images)
            if enforce is None:
                enforce = bool(getattr(backbone, "pretrained", False))
            certificate["enforced"] = enforce
            if enforce and certificate["largest"] > BOUND:
                raise BrainkitError(
                    f"{path}: not written: ONNX Runtime differs from torch by {certificate['largest']:.1e} of a "
                    f"vertex's s.d.; at most {BOUND:.0e} is allowed"
                )
            encoder_file.seal(beside, dataclasses.replace(info, certificate=certificate))
    return Exported(Path(path), Path(path).stat().st_size, certificate)


def parity(expected: np.ndarray, path: str | os.PathLike[str], images: np.ndarray) -> dict[str, Any]:
    """Compare an ONNX file on the CPU with torch's predictions, in batches of one and of three.

    The difference at each image and vertex is divided by max(that vertex's s.d. across the images, the pooled s.d.,
    1e-3 of the rms): a vertex that hardly varies is judged on the scale of the others.

    Parameters
    ----------
    expected : array of shape (n, V), float32
        Torch's predictions.
    path : path-like
        The ONNX file.
    images : array of shape (n, S, S, 3), uint8

    Returns
    -------
    dict
        The certificate, without ``enforced``.

    Raises
    ------
    BrainkitError
        If ONNX Runtime fails, or a prediction is not finite.
    """
    import torch

    session, _ = open_session(path, device="cpu", size=images.shape[1])
    errors = []
    for batch in BATCHES:
        try:
            parts = [
                session.run(["fmri"], {"images": images[start : start + batch]})[0]
                for start in range(0, len(images), batch)
            ]
        except Exception as error:  # the runtime's own kinds, which share no other class
            reason = " ".join(str(error).split())[:300]
            raise BrainkitError(
                f"the exported network fails in ONNX Runtime on {batch} images at a time: {reason}; a network "
                "whose code makes a number of the batch's size, as len(images) does, cannot be exported"
            ) from error
        errors.append(relative_difference(np.concatenate(parts), expected))
    if not np.isfinite(errors).all():
        raise BrainkitError("the model's predictions are not finite on the images given; it cannot be exported")
    return {
        "largest": float(np.max(errors)),
        "median": float(np.median(errors)),
        "images": len(images),
        "batches": list(BATCHES),
        "bound": BOUND,
        "where": f"ONNX Runtime on CPU, {platform.system()} {platform.machine()}",
        "versions": {
            "brainkit": __version__,
            "torch": torch.__version__,
            "onnxruntime": import_runtime().__version__,
        },
    }


def relative_difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Difference of predictions (n, V), each over max(that vertex's s.d., the pooled s.d., 1e-3 of the rms)."""
    reference = expected.astype(np.float64)
    spread = reference.std(0)
    floor = max(np.sqrt(np.mean(spread**2)), 1e-3 * np.sqrt(np.mean(reference**2)), np.finfo(np.float64).tiny)
    return np.asarray(np.abs(found - reference) / np.maximum(spread, floor))


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


# --- the torch part ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule's own mode is put back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def torch_predictions(model: FactorTopy, backbone: Any, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """What the model and its backbone predict in torch for prepared images (n, S, S, 3) uint8 -> (n, V) float32."""
    import torch

    def device_of(module: nn.Module) -> torch.device:
        return next((p.device for p in module.parameters()), torch.device("cpu"))

    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 4):
            batch = torch.from_numpy(normalise(images[start : start + 4], preprocessing)).to(device_of(backbone))
            local, whole = backbone.get_tokens(batch)
            target = device_of(model)
            fmri = model(
                {name: local[name].float().to(target) for name in model.layers},
                {name: whole[name].float().to(target) for name in model.layers},
            )
            parts.append(fmri.float().cpu().numpy())
    return np.concatenate(parts)


def _token_module(
    folded: Folded, backbone: Any, preprocessing: Preprocessing, sizes: list[tuple[int, int]]
) -> nn.Module:
    """uint8 images (B, S, S, 3) -> tokens (B, L, D, P + 1), all constants folded; `sizes` are those of token maps."""
    import torch
    from torch import nn

    from brainkit.model import grid_matrix

    def constant(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    class Tokens(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.register_buffer("mean", constant(np.asarray(preprocessing.mean)).reshape(1, 3, 1, 1))
            self.register_buffer("std", constant(np.asarray(preprocessing.std)).reshape(1, 3, 1, 1))
            for index, layer in enumerate(folded.layers):
                self.register_buffer(f"local_weight_{index}", constant(folded.local_weight[layer]))
                self.register_buffer(f"local_bias_{index}", constant(folded.local_bias[layer])[:, None])
                self.register_buffer(f"global_weight_{index}", constant(folded.global_weight[layer].T))
                self.register_buffer(f"global_bias_{index}", constant(folded.global_bias[layer]))
            for height, width in sizes:
                self.register_buffer(
                    f"grid_{height}x{width}", constant(grid_matrix(height, width, *folded.grid, folded.resize))
                )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # The same operations in the same order as images.normalise.
            normal = (images.permute(0, 3, 1, 2).to(torch.float32) / 255.0 - self.mean) / self.std
            local, whole = self.backbone.get_tokens(normal)
            tokens = []
            for index, layer in enumerate(folded.layers):
                grid = self.to_grid(local[layer].to(torch.float32))
                cells = torch.matmul(getattr(self, f"local_weight_{index}"), grid)
                cells = cells + getattr(self, f"local_bias_{index}")  # (B, D, P)
                token = torch.matmul(whole[layer].to(torch.float32), getattr(self, f"global_weight_{index}"))
                token = token + getattr(self, f"global_bias_{index}")  # (B, D)
                tokens.append(torch.cat([cells, token.unsqueeze(-1)], -1))
            return torch.stack(tokens, 1)

        def to_grid(self, tokens: torch.Tensor) -> torch.Tensor:
            """(B, C, H, W) -> (B, C, P). A constant matrix: ONNX's Resize is 1e-5 off on large maps."""
            height, width = tokens.shape[-2:]
            flat = tokens.flatten(2)
            if (height, width) == tuple(folded.grid):
                return flat
            return torch.matmul(flat, self.get_buffer(f"grid_{int(height)}x{int(width)}"))

    return Tokens().eval()


def _build(folded: Folded, backbone: Any, info: EncoderInfo, size: int) -> onnx.ModelProto:
    import torch

    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    with torch.no_grad():
        local = backbone.get_tokens(torch.zeros((2, 3, size, size), device=device))[0]
    sizes = sorted({(int(local[name].shape[-2]), int(local[name].shape[-1])) for name in folded.layers})
    module = _token_module(folded, backbone, info.preprocessing, sizes).to(device)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8, device=device)
    name = info.backbone.get("name", type(backbone).__name__)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["images"],
                output_names=["tokens"],
                external_data=False,
                verbose=False,
            )
            assert program is not None
            stored = sum(array.nbytes for v in program.model.graph.initializers.values() if (array := v.const_value))
            _check_size(stored + _readout_bytes(folded))
            proto = program.model_proto
    except BrainkitError:
        raise
    except Exception as error:  # the exporter raises whatever a backbone's code leads it to
        reason = _first_line(error)
        raise BrainkitError(f"backbone {name}: torch.onnx.export cannot export it: {reason}") from error
    _tidy(proto)
    append_readout(proto, sort_readout(folded), folded.grid, len(folded.layers))
    _check_operators(proto, name)
    return proto


def _first_line(error: Exception) -> str:
    """What went wrong at the bottom of a chain of errors, on one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300]}" if lines else type(cause).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns of its own deprecations; none of it helps a user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- the ONNX part ----------------------------------------------------------------------------------------------


def _tidy(proto: onnx.ModelProto) -> None:
    """Leave out what the exporter notes for its own use, such as stack traces with this machine's paths."""
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "brainkit", __version__
    proto.doc_string = ""
    proto.graph.name = "encoder"
    proto.graph.doc_string = ""
    for entries in (proto.metadata_props, proto.graph.metadata_props, proto.graph.value_info):
        del entries[:]
    for item in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def _check_operators(proto: onnx.ModelProto, name: str) -> None:
    foreign = sorted(
        {f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign or proto.functions:
        found = ", ".join(foreign) or f"{len(proto.functions)} functions"
        raise BrainkitError(f"backbone {name}: its ONNX form must use standard operators alone, found {found}")
    standard = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(standard)


def _readout_bytes(folded: Folded) -> int:
    V, D = folded.weight.shape
    return V * (D + 5 * len(folded.layers) + 3) * 4


def _check_size(size: int) -> None:
    if size + encoder_file.MAX_METADATA > encoder_file.MAX_FILE:
        raise BrainkitError(
            f"the encoder file would take {size / 1e9:.1f} GB, and ONNX files hold at most 2 GB; "
            "storing it in half precision (--fp16) will make it fit, which this version cannot do yet"
        )


def _serialised(proto: onnx.ModelProto, path: str | os.PathLike[str]) -> bytes:
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=False)
    except onnx.checker.ValidationError as error:
        raise BrainkitError(f"{path}: not written: the ONNX checker refuses the model: {_first_line(error)}") from error
    return bytes(proto.SerializeToString())
