"""The encoder as one torch file that loads with torch alone: TorchScript, or a program of torch.export (.pt2).

Both compute the same as the ONNX form, in plain torch operators: uint8 images (B, S, S, 3) -> fmri (B, V) and tokens
(B, L, D, P + 1). With a custom operator the file would not load without brainkit.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.archive import ENTRY
from brainkit.errors import BrainkitError
from brainkit.export.onnx_graph import quiet
from brainkit.export.onnx_readout import Readout
from brainkit.export.parity import certificate
from brainkit.export.token_module import token_map_sizes, token_module
from brainkit.utils.text import root_cause

if TYPE_CHECKING:
    import torch
    from torch import nn

    from brainkit.model.factor_topy import Folded

RUNTIMES = {"torchscript": "TorchScript", "pt2": "torch.export"}


def trace_encoder(folded: Folded, readout: Readout, backbone: Any, info: EncoderInfo, form: str) -> Any:
    """The whole encoder on the CPU: a frozen ``ScriptModule``, or an ``ExportedProgram``.

    Raises
    ------
    BrainkitError
        If torch cannot trace or export the backbone.
    """
    import torch

    size = info.preprocessing.size
    name = info.backbone.get("name", type(backbone).__name__)
    # A copy on the CPU, since devices of constants are part of a trace; without gradients, or the file has them too.
    if any(value.is_cuda or value.requires_grad for value in backbone.parameters()):
        backbone = copy.deepcopy(backbone).cpu().requires_grad_(False)
    module = encoder_module(folded, readout, backbone, info)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    how = {"torchscript": "torch.jit.trace", "pt2": "torch.export"}[form]
    try:
        with quiet(), torch.no_grad():
            return _torchscript(module, example) if form == "torchscript" else _exported(module, example)
    except Exception as error:  # the exporters raise errors of any class
        raise BrainkitError(f"backbone {name}: {how} cannot export it: {root_cause(error)}") from error


def encoder_module(folded: Folded, readout: Readout, backbone: Any, info: EncoderInfo) -> nn.Module:
    """uint8 images (B, S, S, 3) -> (fmri (B, V), tokens (B, L, D, P + 1)) as one module of constants."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = token_module(folded, backbone, info.preprocessing, token_map_sizes(folded, backbone, info))
            self.readout = readout_module(readout)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            tokens = self.network(images)
            return self.readout(tokens), tokens

    return Encoder().eval()


def readout_module(readout: Readout) -> nn.Module:
    """Tokens (B, L, D, P + 1) -> fmri (B, V), for any B; its buffers are the readout's arrays, with the same names."""
    import torch
    from torch import nn

    counts = [int(count) for count in readout.counts]
    width = readout.coefficients.shape[1]

    class SortedReadout(nn.Module):
        weight: torch.Tensor
        coefficients: torch.Tensor
        cells: torch.Tensor
        order: torch.Tensor
        bias: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            for key in ("weight", "coefficients", "cells", "counts", "order", "bias"):
                self.register_buffer(key, torch.from_numpy(np.ascontiguousarray(getattr(readout, key))))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            taps = tokens.permute(3, 2, 0, 1)[self.cells]  # (G, 5, D, B, L)
            return self.at_once(taps) if readout.form == "padded" else self.one_by_one(taps)

        def one_by_one(self, taps: torch.Tensor) -> torch.Tensor:
            taps = taps.permute(0, 2, 3, 1, 4).reshape(len(counts), self.weight.shape[1], -1)  # (G, D, B * 5L)
            rows = []
            groups = zip(self.weight.split(counts), self.coefficients.split(counts), taps.unbind(0), strict=True)
            for weight, coefficients, tap in groups:
                products = torch.matmul(weight, tap).reshape(weight.shape[0], -1, width)  # (n, B, 5L)
                rows.append((products * coefficients.unsqueeze(1)).sum(-1))
            return torch.cat(rows)[self.order].t() + self.bias

        def at_once(self, taps: torch.Tensor) -> torch.Tensor:
            # The batch is in the middle of each product: if it is last, torch 2.11 fixes the number of images.
            G, n, D = len(counts), counts[0], self.weight.shape[1]
            taps = taps.permute(0, 3, 1, 4, 2).reshape(G, -1, D)  # (G, B * 5L, D)
            products = torch.bmm(taps, self.weight.reshape(G, n, D).transpose(1, 2)).reshape(G, -1, width, n)
            coefficients = self.coefficients.reshape(G, 1, n, width).transpose(2, 3)
            rows = (products * coefficients).sum(2)  # (G, B, n)
            return rows.permute(1, 0, 2).reshape(-1, G * n)[:, self.order] + self.bias

    return SortedReadout()


def torch_certificate(expected: np.ndarray, path: Path, images: np.ndarray, form: str) -> dict[str, Any]:
    """The certificate of a torch file, loaded as a user loads it; see :func:`brainkit.export.parity.certificate`.

    Raises
    ------
    BrainkitError
        If torch cannot load or run the file, or a prediction is not finite.
    """
    try:
        predict = open_torch(path, form)
    except Exception as error:  # the loaders raise errors of any class
        raise BrainkitError(f"{path}: not written: torch cannot load it: {root_cause(error)}") from error
    return certificate(expected, images, predict, runtime=RUNTIMES[form], versions={})


def open_torch(path: str | os.PathLike[str], form: str) -> Callable[[np.ndarray], np.ndarray]:
    """Load a torch file as a user does, without warnings: images (B, S, S, 3) uint8 -> fmri (B, V) on the CPU."""
    import torch

    with quiet():
        run = torch.jit.load(path) if form == "torchscript" else torch.export.load(path).module()

    def predict(images: np.ndarray) -> np.ndarray:
        with quiet(), torch.no_grad():
            fmri: np.ndarray = run(torch.from_numpy(np.ascontiguousarray(images)))[0].numpy()
        return fmri

    return predict


def save_program(program: Any, form: str, stream: BinaryIO) -> None:
    """Save what `trace_encoder` gave, with an empty extra file ``brainkit.json``."""
    import torch

    guarded: Any = _GuardedStream(stream)
    with quiet():
        if form == "torchscript":
            torch.jit.save(program, guarded, _extra_files={ENTRY: "{}"})
        else:
            torch.export.save(program, guarded, extra_files={ENTRY: "{}"})
    if guarded.error is not None:
        raise guarded.error
    stream.seek(0)


class _GuardedStream(io.RawIOBase):
    """Keeps the first error of a write instead of raising it, which in torch's writer would abort the process."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._stream.write(data)
                self._stream.flush()
            except OSError as error:
                self.error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def writable(self) -> bool:
        return True


def _torchscript(module: nn.Module, example: torch.Tensor) -> Any:
    import torch

    return torch.jit.freeze(torch.jit.trace(module, (example,), check_trace=False).eval())


def _exported(module: nn.Module, example: torch.Tensor) -> Any:
    """An ExportedProgram for any number of images, without unused parameters and paths of this machine."""
    import torch

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    unused = [node for node in program.graph.nodes if node.op == "placeholder" and not node.users]
    names = {node.name for node in unused}
    specs = program.graph_signature.input_specs
    for spec in [spec for spec in specs if getattr(spec.arg, "name", None) in names]:
        specs.remove(spec)
        program.state_dict.pop(spec.target, None)
        program.constants.pop(spec.target, None)
    for node in unused:
        program.graph.erase_node(node)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.graph_module.recompile()
    return program
