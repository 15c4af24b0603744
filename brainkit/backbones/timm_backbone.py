"""Any timm network with ``forward_intermediates`` as a source of tokens."""

from __future__ import annotations

import bisect
import contextlib
import copy
import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from brainkit.backbones.base import dot_free, name_layers
from brainkit.backbones.probe import TokenPair
from brainkit.errors import UsageError
from brainkit.utils.text import nearest_names

_Result = TypeVar("_Result")
# Pairs of tokens, over images and heads, for which attention may be in memory at once: 1 GB in float32, three times.
MAX_ATTENTION_PAIRS = 2**28


class TimmNetwork(nn.Module):
    """Tokens of a timm network.

    The global token is prefix token 0 if the network has a class token (never a register), else the spatial mean.

    Parameters
    ----------
    model : nn.Module
        A timm model with ``forward_intermediates``.
    size : int
        Side of its input in pixels.
    layers : sequence of str, or None
        Standard names ("block1", "stage1"), or the dotted names of submodules whose output is used. None: every
        standard layer but the stem.
    name : str
        The network's name in messages.

    Attributes
    ----------
    layer_keys : tuple of str
        The layers returned, without dots, in the order requested.
    shapes : dict of str to (C, H, W)
        Their widths and grids.
    class_token : bool
        Whether the global token is the class token.
    """

    model: Any  # torch types every attribute of a module as a tensor or a module

    def __init__(self, model: Any, *, size: int, layers: Sequence[str] | None = None, name: str = "") -> None:
        super().__init__()
        self.model = model.eval()
        name = name or type(model).__name__
        if not callable(getattr(model, "forward_intermediates", None)):
            raise UsageError(
                f"{name}: timm has no intermediate features of this network; use a plug-in with get_tokens()"
            )
        self._limit_sam_attention(size)
        prefix_tokens = self._read_prefix_tokens()
        levels = self._levels(size)
        self.standard = self._standard_names(levels)
        names = [layer for layer in self.standard if layer != "stem"] if layers is None else list(layers)
        self._indices: dict[str, int] = {}  # standard layer -> its feature level
        self._taps: dict[str, str] = {}  # other layer -> the submodule whose output it is
        modules = {path for path, _ in model.named_modules() if path}
        for layer in names:
            if layer in self.standard:
                self._indices[layer] = self.standard.index(layer)
            else:
                self._taps[dot_free(layer)] = _find_module(layer, modules, self.standard, name)
        self.layer_keys = tuple(name_layers([dot_free(layer) for layer in names], owner=name))
        self._last_level: int | None = None
        self._layouts: dict[str, _Layout] = {}
        if self._taps:
            self._layouts = self._tap_layouts(size, prefix_tokens, name)
            self._last_level = self._level_after_taps(size)
        tapped = _dry_run(self, TimmNetwork.get_tokens, size)[0] if self._taps else {}
        self.shapes = {
            layer: levels[self._indices[layer]] if layer in self._indices else _shape(tapped[layer])
            for layer in self.layer_keys
        }

    def get_tokens(self, images: torch.Tensor) -> TokenPair:
        """See :meth:`brainkit.backbones.Backbone.get_tokens`."""
        # A graph must take any number of images; whoever runs it has to provide the memory.
        in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if in_graph or self._max_images is None or len(images) <= self._max_images:
            return self._tokens(images)
        parts = [self._tokens(part) for part in images.split(self._max_images)]
        local, global_ = (
            {layer: torch.cat([part[k][layer] for part in parts]) for layer in self.layer_keys} for k in (0, 1)
        )
        return local, global_

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Without SAM's fused attention, which ONNX does not have; the plain form computes the same."""
        self._fuse_attention(False)
        try:
            yield
        finally:
            self._fuse_attention(True)

    def _limit_sam_attention(self, size: int) -> None:
        """SAM's attention has a bias for every pair of tokens, so that the whole matrix is in memory."""
        self._max_images: int | None = None
        # Fused, attention takes a sixth less time on a CPU; see `exporting` for ONNX.
        self._fusable: list[Any] = []
        if "SAM" in type(self.model).__name__:
            self._fusable = [module for module in self.model.modules() if hasattr(module, "fused_attn")]
            self._fuse_attention(True)
            tokens = math.prod(-(-size // side) for side in self.model.patch_embed.patch_size)
            self._max_images = max(1, MAX_ATTENTION_PAIRS // (tokens**2 * self.model.blocks[0].attn.num_heads))

    def _fuse_attention(self, fused: bool) -> None:
        for module in self._fusable:
            module.fused_attn = fused

    def _read_prefix_tokens(self) -> int:
        """Number of prefix tokens; sets the options of ``forward_intermediates`` and `class_token` accordingly."""
        accepted = inspect.signature(self.model.forward_intermediates).parameters
        prefix_tokens = int(getattr(self.model, "num_prefix_tokens", 0))
        options = {"norm": False, "output_fmt": "NCHW", "extra_blocks": True}
        if prefix_tokens:  # some networks without any fail if asked for them
            options["return_prefix_tokens"] = True
        self._options = {key: value for key, value in options.items() if key in accepted}
        self._can_stop_early = "stop_early" in accepted
        registers = getattr(self.model, "reg_token", None)
        n_registers = int(getattr(self.model, "num_reg_tokens", 0) or (0 if registers is None else registers.shape[1]))
        self.class_token = prefix_tokens > n_registers
        return prefix_tokens

    def _tokens(self, images: torch.Tensor) -> TokenPair:
        intermediates, tapped = self._run(images)
        local: dict[str, torch.Tensor] = {}
        global_: dict[str, torch.Tensor] = {}
        for layer in self.layer_keys:
            if layer in self._indices:
                output = intermediates[layer]
                grid, prefix = output if isinstance(output, tuple | list) else (output, None)
            else:
                grid, prefix = self._layouts[layer].split(tapped[layer])
            local[layer] = grid
            global_[layer] = prefix[:, 0] if self.class_token and prefix is not None else grid.mean((2, 3))
        return local, global_

    def _run(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Intermediates by name, and the outputs of the tapped modules, from one forward pass."""
        indices = sorted({*self._indices.values(), *([] if self._last_level is None else [self._last_level])})
        tapped: dict[str, torch.Tensor] = {}
        handles = []
        for layer, path in self._taps.items():

            def store(module: nn.Module, inputs: object, output: object, layer: str = layer) -> None:
                tapped[layer] = output[0] if isinstance(output, tuple | list) else output  # type: ignore[assignment]

            handles.append(self.model.get_submodule(path).register_forward_hook(store))
        options = dict(self._options)
        # A tapped module may run after the last feature level: then the whole network runs.
        levels_only = not self._taps or self._last_level is not None
        if levels_only:
            options["intermediates_only"] = True
            if self._can_stop_early:
                options["stop_early"] = True
        try:
            output = self.model.forward_intermediates(images, indices=indices or None, **options)
        finally:
            for handle in handles:
                handle.remove()
        intermediates = output if levels_only else output[1]
        return {layer: intermediates[indices.index(level)] for layer, level in self._indices.items()}, tapped

    def _level_after_taps(self, size: int) -> int | None:
        """The first feature level by which all tapped modules have run, or None: nothing after it has to run."""
        if not self._can_stop_early:
            return None

        def includes_taps(level: int) -> bool:
            self._last_level = level
            return len(_dry_run(self, lambda network, images: network._run(images)[1], size)) == len(self._taps)

        lowest = max(self._indices.values(), default=0)
        level = bisect.bisect_left(range(len(self.standard)), True, lo=lowest, key=includes_taps)
        return level if level < len(self.standard) else None

    def _levels(self, size: int) -> list[tuple[int, int, int]]:
        """(C, H, W) of the network's own feature levels, in order of depth."""
        options = dict(self._options, intermediates_only=True)
        levels = _dry_run(self, lambda network, images: network.model.forward_intermediates(images, **options), size)
        return [_shape(level[0] if isinstance(level, tuple | list) else level) for level in levels]

    def _standard_names(self, shapes: Sequence[tuple[int, int, int]]) -> tuple[str, ...]:
        """brainkit's names of these levels."""
        if len(shapes) > 1 and len(set(shapes)) == 1:
            return tuple(f"block{i + 1}" for i in range(len(shapes)))
        if "extra_blocks" in self._options:
            has_stem = True
        else:
            roots = [str(info["module"]).split(".")[0].rstrip("0123456789") for info in _feature_info(self.model)]
            has_stem = len(roots) == len(shapes) > 1 and roots[0] != roots[-1]
        stages = tuple(f"stage{i + 1}" for i in range(len(shapes) - has_stem))
        return ("stem", *stages) if has_stem else stages

    def _tap_layouts(self, size: int, prefix_tokens: int, name: str) -> dict[str, _Layout]:
        """How each tapped output becomes a token map, determined from its shape for one image."""
        tapped = _dry_run(self, lambda network, images: network._run(images)[1], size)
        nhwc = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        layouts = {}
        for layer, path in self._taps.items():
            if layer not in tapped:
                raise UsageError(f"{name}: layer {path!r} exists but does not run when features are computed")
            layouts[layer] = _layout(tapped[layer], prefix_tokens, nhwc, f"{name}: layer {path!r}")
        return layouts


@dataclass(frozen=True)
class _Layout:
    """Layout of a tapped output: "NCHW", "NHWC", or "NLC" with this many prefix tokens on an (H, W) grid."""

    kind: str
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    def split(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token map (B, C, H, W) and prefix tokens (B, N, C), or None if there are none."""
        # In torch's own operations: einops would change the exported graph.
        if self.kind == "NCHW":
            return output, None
        if self.kind == "NHWC":
            return output.permute(0, 3, 1, 2).contiguous(), None
        local = output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid).contiguous()
        return local, output[:, : self.prefix] if self.prefix else None


def _layout(output: torch.Tensor, prefix_tokens: int, nhwc: bool, label: str) -> _Layout:
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    if len(shape) == 4 and shape[0] == 1:
        # Images are square, so the two equal sides are H and W.
        channels_last = shape[1] == shape[2] and (shape[2] != shape[3] or nhwc)
        if channels_last or shape[2] == shape[3]:
            return _Layout("NHWC" if channels_last else "NCHW")
    if len(shape) == 3 and shape[0] == 1:
        for prefix in dict.fromkeys((prefix_tokens, 0)):
            side = math.isqrt(max(shape[1] - prefix, 0))
            if side and side * side == shape[1] - prefix:
                return _Layout("NLC", prefix, (side, side))
    found = f"shape {shape}" if shape else type(output).__name__
    raise UsageError(f"{label}: expected a map of tokens (1, C, H, W), (1, H, W, C) or (1, N, C), found {found}")


def _shape(tokens: torch.Tensor) -> tuple[int, int, int]:
    """(C, H, W) of tokens (1, C, H, W)."""
    _, channels, height, width = tokens.shape
    return int(channels), int(height), int(width)


def _dry_run(network: TimmNetwork, call: Callable[[TimmNetwork, torch.Tensor], _Result], size: int) -> _Result:
    """Call with one blank image, computing shapes only: SAM at 1024 px would take seconds.

    The network is copied without its memory, because some (LeViT, TinyViT) keep tensors from their first call.
    """
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        fake_network = copy.deepcopy(network)
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True  # it prints a traceback of errors that we report in one line
    try:
        with mode, torch.no_grad():
            device = next(fake_network.parameters()).device
            return call(fake_network, torch.zeros(1, 3, size, size, device=device))
    finally:
        log.disabled = was_disabled


def _feature_info(model: nn.Module) -> list[dict]:
    info = getattr(model, "feature_info", None) or []
    return list(getattr(info, "info", info))


def _find_module(layer: str, modules: set[str], standard: Sequence[str], name: str) -> str:
    """The dotted path of a submodule, given with dots or with underscores instead."""
    if layer in modules:
        return layer
    matches = [path for path in modules if dot_free(path) == layer]
    if len(matches) == 1:
        return matches[0]
    near = nearest_names(layer, sorted(modules))
    hint = f" (nearest: {', '.join(near)})" if near else ""
    raise UsageError(
        f"{name} has no layer {layer!r}; available: {', '.join(standard)}, or a submodule by its dotted name{hint}"
    )
