"""Weight files: read without running code, and converted to the network's own keys and shapes."""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from brainkit.errors import DataError
from brainkit.utils.text import first_line

State = dict[str, torch.Tensor]

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
# Keys under which training code stores the state dict.
_CONTAINERS = (
    "state_dict",
    "model",
    "teacher",
    "model_state_dict",
    "state_dict_ema",
    "encoder",
    "target_encoder",
    "module",
)
# Prefixes that training code adds to the keys of a state dict.
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
# Parts that a backbone does not use: classifiers, decoders, projection heads, mask tokens.
_HEADS = re.compile(
    r"^(head|heads|head_dist|fc|classifier|last_linear|fc_norm|decoder|predictor|projector|mask_token)\b|^decoder_"
)
# What training code saves next to the weights and is safe to unpickle: options and single numbers.
_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "b1")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_state_dict(path: str | Path) -> State:
    """Read a flat state dict, without running code that a pickle may contain.

    Parameters
    ----------
    path : path-like
        A .safetensors file, or one written by ``torch.save``. The state dict may be under "state_dict", "model",
        "teacher" and the like.

    Returns
    -------
    dict of str to tensor
        On the CPU, in the file's order.

    Raises
    ------
    DataError
        If the file is missing, damaged, has other objects than tensors and plain values, or has no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: weight file not found")
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                content = load_file(path)
            except SafetensorError as error:
                raise DataError(f"{path}: not a readable safetensors file ({first_line(error)})") from None
        else:
            # Memory-mapped if the format allows it: I-JEPA's file has 10 GB, a quarter of it the encoder.
            with torch.serialization.safe_globals(_SAFE), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what is then raised as an error
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: expected a state dict of tensors, found a damaged file or one that runs code when loaded; "
            "save it again with torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a weight file ({', '.join(SUFFIXES)}): {first_line(error)}") from None
    return _unwrap(content, path)


def load_weights_file(model: nn.Module, path: str | Path, *, label: str, allow_unexpected: bool = False) -> None:
    """Load weights from a local file, which must have every parameter of the model.

    Parameters
    ----------
    model : nn.Module
        A timm or torchvision model.
    path : path-like
        See :func:`read_state_dict`. Prefixes of wrappers ("module.", "backbone." ...) are removed, formats of the
        original authors are converted if timm can convert them, classifier heads are left out.
    label : str
        The network's name in messages.
    allow_unexpected : bool
        Leave out what the model does not have: published files contain parts for the authors' own tasks.

    Raises
    ------
    DataError
        If parameters are missing, unexpected or of another shape: one line with the counts and an example each.
    """
    own = model.state_dict()
    best: State | None = None
    best_faults: tuple[list[str], list[str], list[str]] = ([], [], [])
    for candidate in _conversions(read_state_dict(path), model):
        candidate = {k: v for k, v in candidate.items() if k in own or not (allow_unexpected or _HEADS.match(k))}
        faults = _faults(own, candidate)
        if best is None or sum(map(len, faults)) < sum(map(len, best_faults)):
            best, best_faults = candidate, faults
        if not any(faults):
            break
    missing, unexpected, misshapen = best_faults
    if missing or unexpected or misshapen:
        parts = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
            if keys
        ]
        raise DataError(f"{path}: does not fit {label} ({len(own)} tensors): {', '.join(parts)}")
    assert best is not None
    model.load_state_dict(best)


def load_weights_by_order(model: nn.Module, path: Path) -> None:
    """Load a file whose tensors have other names than the model's, but come in the same order.

    Raises
    ------
    DataError
        If the number of tensors or any shape differs.
    """
    given, own = read_state_dict(path), model.state_dict()
    if len(given) != len(own):
        raise DataError(f"{path}: expected {len(own)} tensors, found {len(given)}")
    for (own_key, parameter), (key, value) in zip(own.items(), given.items(), strict=True):
        if parameter.shape != value.shape:
            raise DataError(
                f"{path}: {key}: expected shape {tuple(parameter.shape)} ({own_key}), found {tuple(value.shape)}"
            )
    model.load_state_dict(dict(zip(own, given.values(), strict=True)))


def set_sincos_positions(model: Any) -> None:
    """Set MoCo v3's fixed position embedding: 2-D sine and cosine, zero for the class token."""
    height, width = model.patch_embed.grid_size
    channels = model.pos_embed.shape[-1]
    frequency = 10000.0 ** -(torch.arange(channels // 4) / (channels // 4))  # (C/4,)
    # MoCo v3 numbers the columns by the row index and the rows by the column index; on a square grid, a transpose.
    columns, rows = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="ij")
    waves = [axis.flatten()[:, None] * frequency for axis in (columns, rows)]  # (P, C/4)
    table = torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=1)
    with torch.no_grad():
        model.pos_embed.copy_(torch.cat([torch.zeros(1, channels), table])[None])


def _unwrap(content: object, path: Path) -> State:
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if tensors and (inner is None or len(tensors) > len(inner)):
            return tensors
        content = inner
    raise DataError(f"{path}: expected a state dict of tensors, found none")


def _faults(own: State, given: State) -> tuple[list[str], list[str], list[str]]:
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    misshapen = [key for key in own if key in given and own[key].shape != given[key].shape]
    return missing, unexpected, misshapen


def _conversions(given: State, model: nn.Module) -> Iterator[State]:
    """State dicts that may fit the model, the simplest first.

    Without a wrapper's prefix; then converted by timm's own filter for this architecture, which also resamples position
    embeddings; then with what timm does not convert.
    """
    candidates = []
    for prefix in _PREFIXES:
        state = {key[len(prefix) :]: value for key, value in given.items() if key.startswith(prefix)}
        if state:
            candidates.append(state)
    yield from candidates
    for state in candidates:
        for converted in _converted_by_timm(state, model):
            yield converted
            yield _renamed_and_resized(converted, model)
        yield _renamed_and_resized(state, model)


def _converted_by_timm(given: State, model: nn.Module) -> Iterator[State]:
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return
    # Twice, because the position embeddings of some layouts are only resampled once their keys are renamed.
    for _ in range(2):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each bias of DINOv3 that it drops
                converted = convert(dict(given), model)
        except (KeyError, IndexError, RuntimeError, ValueError, AttributeError, AssertionError, TypeError):
            # timm's filters mistake other layouts for theirs; the next candidate may fit.
            return
        given = {key: value for key, value in converted.items() if isinstance(value, torch.Tensor)}
        yield given


def _renamed_and_resized(given: State, model: nn.Module) -> State:
    own = model.state_dict()
    state = {_own_key(key, own): value for key, value in given.items()}
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            if key == "pos_embed" and value.ndim == 4:  # (1, H, W, C): SAM
                state[key] = _resize_position_map(value, own[key].shape[1:3])
            elif key.endswith((".rel_pos_h", ".rel_pos_w")) and value.ndim == 2:
                state[key] = _resize_relative_positions(value, len(own[key]))
            elif key == "encoder.pos_embedding" and value.ndim == 3:  # (1, 1 + P, C): torchvision
                state[key] = _resize_position_sequence(value, own[key].shape[1])
    return state


def _own_key(key: str, own: State) -> str:
    """The model's key for a key of the file; the same key if it has none."""
    # torchvision's transformers before 0.13, including the published vit_b_16-c867db91.pth.
    renamed = key.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")
    if renamed in own:
        return renamed
    # The name of the last norm depends on the pooling, which differs between training and use; tokens do not use it.
    first, _, rest = key.partition(".")
    other = {"norm": "fc_norm", "fc_norm": "norm"}.get(first)
    return f"{other}.{rest}" if other and key not in own and f"{other}.{rest}" in own else key


def _resize_position_map(value: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """(1, H, W, C) to another H and W, as timm does when SAM runs."""
    channels_first = rearrange(value.float(), "1 h w c -> 1 c h w")
    resized = nn.functional.interpolate(channels_first, size=tuple(size), mode="bicubic", antialias=True)
    return rearrange(resized, "1 c h w -> 1 h w c").to(value.dtype)


def _resize_relative_positions(value: torch.Tensor, length: int) -> torch.Tensor:
    """Relative positions (2 N - 1, C) of another grid, as SAM does when it runs."""
    resized = nn.functional.interpolate(rearrange(value.float(), "n c -> 1 c n"), size=length, mode="linear")
    return rearrange(resized, "1 c n -> n c").to(value.dtype)


def _resize_position_sequence(value: torch.Tensor, length: int) -> torch.Tensor:
    """(1, 1 + P, C) with a class token to another square grid, as torchvision does; unchanged if P is not square."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    side = round((length - 1) ** 0.5)
    try:
        return interpolate_embeddings(side, 1, {"encoder.pos_embedding": value})["encoder.pos_embedding"]
    except ValueError:
        return value
