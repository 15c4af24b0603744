"""The ways to read a published state dict as that of the network at hand."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

State = dict[str, torch.Tensor]

# What training code puts in front of the keys.
_PREFIXES = (
    "",
    "module.",
    "model.",
    "backbone.",
    "encoder.",
    "visual.",
    "_orig_mod.",
    "base_encoder.",
    "target_encoder.",
    "image_encoder.",
    "network.model.",
    "module.backbone.",
    "module.base_encoder.",
    "model.backbone.",
    "teacher.backbone.",
)


def readings(given: State, model: nn.Module) -> Iterator[State]:
    """State dicts in which `given` may fit `model`, the plainest first.

    Parameters
    ----------
    given : dict of str to tensor
        As the file has it; it is not changed.
    model : nn.Module
        A timm or torchvision model.

    Yields
    ------
    dict of str to tensor
        With a wrapper's prefix stripped; then converted by timm's own filter of this architecture, which also resamples
        position embeddings; then by what timm leaves out.
    """
    stripped = []
    for prefix in _PREFIXES:
        found = {key[len(prefix) :]: value for key, value in given.items() if key.startswith(prefix)}
        if found:
            stripped.append(found)
    yield from stripped
    for found in stripped:
        for converted in _by_timm(found, model):
            yield converted
            yield _by_us(converted, model)
        yield _by_us(found, model)


def set_sincos_positions(model: Any) -> None:
    """MoCo v3's fixed position embedding: 2-D sine and cosine, zero for the class token."""
    height, width = model.patch_embed.grid_size
    channels = model.pos_embed.shape[-1]
    frequency = 10000.0 ** -(torch.arange(channels // 4) / (channels // 4))  # (C/4,)
    # MoCo v3 numbers the columns by the row index and the other way round; with a square grid it is a transpose.
    across, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="ij")
    waves = [axis.flatten()[:, None] * frequency for axis in (across, down)]  # (P, C/4)
    table = torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=1)
    with torch.no_grad():
        model.pos_embed.copy_(torch.cat([torch.zeros(1, channels), table])[None])


def _by_timm(given: State, model: nn.Module) -> Iterator[State]:
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return
    # Twice, because some of the layouts that it renames leave before their position embedding is resampled.
    for _ in range(2):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each bias of DINOv3 that it drops
                converted = convert(dict(given), model)
        except (KeyError, IndexError, RuntimeError, ValueError, AttributeError, AssertionError, TypeError):
            # timm's converters take a foreign layout for one of theirs; the next reading may fit.
            return
        given = {key: value for key, value in converted.items() if isinstance(value, torch.Tensor)}
        yield given


def _by_us(given: State, model: nn.Module) -> State:
    own = model.state_dict()
    state = {_renamed(key, own): value for key, value in given.items()}
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            if key == "pos_embed" and value.ndim == 4:  # (1, H, W, C): SAM
                state[key] = _resize_map(value, own[key].shape[1:3], antialias=True)
            elif key.endswith((".rel_pos_h", ".rel_pos_w")) and value.ndim == 2:
                state[key] = _resize_line(value, len(own[key]))
            elif key == "encoder.pos_embedding" and value.ndim == 3:  # (1, 1 + P, C): torchvision
                state[key] = _resize_sequence(value, own[key].shape[1])
    return state


def _renamed(key: str, own: State) -> str:
    """The model's key for one of a file's, or the same again."""
    # torchvision's transformers before 0.13, among them the published vit_b_16-c867db91.pth.
    theirs = key.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")
    if theirs in own:
        return theirs
    # The last norm is called by where pooling comes, which differs between training and use; tokens never meet it.
    first, _, rest = key.partition(".")
    other = {"norm": "fc_norm", "fc_norm": "norm"}.get(first)
    return f"{other}.{rest}" if other and key not in own and f"{other}.{rest}" in own else key


def _resize_map(value: torch.Tensor, size: torch.Size, *, antialias: bool) -> torch.Tensor:
    """(1, H, W, C) to another H and W, as timm does while SAM runs."""
    channels_first = value.float().permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(channels_first, size=tuple(size), mode="bicubic", antialias=antialias)
    return resized.permute(0, 2, 3, 1).to(value.dtype)


def _resize_line(value: torch.Tensor, length: int) -> torch.Tensor:
    """Relative positions (2 N - 1, C) of another grid, as SAM does while it runs."""
    resized = nn.functional.interpolate(value.float().T[None], size=length, mode="linear")
    return resized[0].T.to(value.dtype)


def _resize_sequence(value: torch.Tensor, length: int) -> torch.Tensor:
    """(1, 1 + P, C) with a class token to another square grid, as torchvision does; unchanged if it is no square."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    side = round((length - 1) ** 0.5)
    try:
        return interpolate_embeddings(side, 1, {"encoder.pos_embedding": value})["encoder.pos_embedding"]
    except ValueError:
        return value
