"""A network tried on synthetic images, before anything is extracted: what it returns, and whether it repeats itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from brainkit.backbones.user_code import file_of, reported
from brainkit.errors import BrainkitError
from brainkit.images import Preprocessing, normalise

TokenPair = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Local tokens (B, C, H, W) and global tokens (B, C) by layer."""

PROBES = 8
"""Images on which the offsets of every token store are measured."""

# Tokens of an image may differ between two calls by rounding, which depends on the batch size: by this share of the
# layer's root mean square, or of the difference between two images. Dropout and batch statistics change far more.
ROUNDING = {"float32": 1e-4, "TF32": 2e-3, "float16 autocast": 2e-2}
_SAME = 0.02
# Calls after which a network that draws random numbers has shown a rare effect, such as stochastic depth, and after
# which noise has differed: two draws may lie close together.
_REPEATS = 16


def probe_network(network: nn.Module, preprocessing: Preprocessing, *, name: str) -> dict[str, tuple[int, int, int]]:
    """Widths and grids of every layer, from forward passes over one image, and over two with that image again.

    Parameters
    ----------
    network : nn.Module
        Has ``get_tokens``, and is in evaluation mode.
    preprocessing : Preprocessing
        How an image becomes its input.
    name : str
        The network's name in messages.

    Returns
    -------
    dict of str to (C, H, W)
        In the order in which the network returns its layers.

    Raises
    ------
    BrainkitError
        If ``get_tokens`` fails; if it does not return two dicts with the same layers, of finite numbers and shapes
        (B, C, H, W) and (B, C); if it computes in other numbers than float32; or if it does not repeat itself: the
        image must have the same tokens again, alone and in a batch.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    pixels = probe_images(preprocessing, 2)
    pixels[0] //= 2  # darker, so that the statistics of the batch are not those of one image
    images = torch.from_numpy(normalise(pixels, preprocessing)).to(device)
    file = file_of(network)

    def run(batch: Tensor) -> Any:
        doing = f"{name}: get_tokens failed on {len(batch)} synthetic {preprocessing.size} px image"
        with torch.no_grad(), reported(doing + "s" * (len(batch) > 1), file):
            return network.get_tokens(batch.clone())  # type: ignore[operator]  # it may work in place

    with _Arithmetic() as arithmetic, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # lazy layers draw their weights at the first call
        alone = run(images[1:])
    shapes = _check_tokens(alone, 1, name)
    arithmetic.check(name)
    if images.is_meta:  # a network without weights, of which only the shapes are asked
        return shapes
    buffers = _stored_buffers(network)
    random_state = _random_state(device)
    pair = run(images)
    if _check_tokens(pair, 2, name) != shapes:
        raise BrainkitError(f"{name}: get_tokens must return maps of the same size for any number of images")
    if all(torch.equal(values[0], values[1]) for part in pair for values in part.values()):
        raise BrainkitError(f"{name}: get_tokens gives the same tokens for different images; check what it returns")
    draws = random_state != _random_state(device)
    _check_repeats(run, network, images[1:], alone, pair, buffers, draws=draws, name=name)
    return shapes


def find_difference(one: TokenPair, two: TokenPair, other: TokenPair, rounding: float) -> tuple[str, float] | None:
    """The first layer in which two results for an image differ by more than rounding.

    Parameters
    ----------
    one, two : pair of dict of str to tensor of shape (1, ...)
        Tokens of the image, computed twice.
    other : pair of dict of str to tensor of shape (1, ...)
        Tokens of another image, computed with `two`.
    rounding : float
        Share of the layer's root mean square that does not count, see `ROUNDING`.

    Returns
    -------
    (str, float) or None
        The layer, and the difference in units of the difference between the two images.
    """
    for layer in one[0]:
        for part in (0, 1):
            a, b, c = (tokens[part][layer].double() for tokens in (one, two, other))
            difference, spread = _rms(a - b), _rms(b - c)
            if difference > max(rounding * max(_rms(a), _rms(b)), _SAME * spread):
                return layer, difference / spread if spread else float("inf")
    return None


def row_of(tokens: TokenPair, row: int) -> TokenPair:
    """The tokens of one image of a batch, as a batch of one."""
    local, global_ = ({layer: values[row : row + 1] for layer, values in part.items()} for part in tokens)
    return local, global_


def not_repeatable(name: str, found: tuple[str, float], when: str, cause: str) -> BrainkitError:
    """The error about a difference that `find_difference` has found."""
    layer, size = found
    return BrainkitError(
        f"{name}: the same image has other tokens {when}: layer {layer!r} differs by {size:.2g} times the difference "
        f"between two images; a frozen network must repeat itself: {cause}"
    )


def probe_images(preprocessing: Preprocessing, count: int = PROBES) -> np.ndarray:
    """Coloured noise with the spectrum of photographs, the same every time: (count, S, S, 3), uint8."""
    rng = np.random.default_rng(0)
    size = preprocessing.size
    images = np.zeros((count, size, size, 3), np.float32)
    for side in (2**k for k in range(1, 8)):
        coarse = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        for image, noise in zip(images, coarse, strict=True):
            image += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR), np.float32)
    images -= images.mean((1, 2, 3), keepdims=True)
    images *= 55 / images.std((1, 2, 3), keepdims=True)
    return np.clip(images + 118, 0, 255).astype(np.uint8)


def _check_repeats(
    run: Callable[[Tensor], TokenPair],
    network: nn.Module,
    image: Tensor,
    alone: TokenPair,
    pair: TokenPair,
    buffers: dict[str, Tensor],
    *,
    draws: bool,
    name: str,
) -> None:
    """Check that the image has the same tokens alone, with another image before it, and again; else say why not."""
    rounding = ROUNDING["TF32" if image.is_cuda else "float32"]
    other = row_of(pair, 0)
    found = find_difference(alone, row_of(pair, 1), other, rounding)
    changed = first_change(buffers, _stored_buffers(network))
    again = None
    for _ in range(_REPEATS if found or draws else 1):
        again = again or find_difference(alone, run(image), other, rounding)
    if found or again:
        when = "the second time" if again else "alone than in a batch"
        if any(module.training for module in network.modules()):
            cause = f"get_tokens switches it to training mode{_layers_of_training(network)}; remove self.train()"
        elif changed:
            cause = f"each call changes {changed!r}"
        elif draws:
            cause = "get_tokens draws random numbers: dropout with training=True, or noise"
        elif again:
            cause = "it keeps something from one call to the next, or draws random numbers of its own"
        else:
            cause = "get_tokens mixes the images of a batch: batch statistics, or a mean over the first dimension"
        raise not_repeatable(name, again or found, when, cause)  # type: ignore[arg-type]
    if changed:
        raise BrainkitError(
            f"{name}: each call of get_tokens changes {changed!r}, which is stored with its weights; a frozen "
            "network must stay as it is: leave it alone in evaluation mode, or register it with persistent=False"
        )


class _Arithmetic(TorchDispatchMode):
    """Notes in which numbers the operations inside the block compute that ONNX Runtime does not have in them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket.__name__
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and (
                (value.dtype in (torch.float16, torch.bfloat16) and kind != "_to_copy")
                or (value.dtype == torch.float64 and "convolution" in kind)
            ):
                self.found.add(value.dtype)
        return result

    def check(self, name: str) -> None:
        """Raise BrainkitError if there was one."""
        if numbers := " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in self.found)):
            raise BrainkitError(
                f"{name}: get_tokens computes in {numbers}, and an encoder file computes in float32: remove autocast "
                f"and conversions to {numbers} from get_tokens"
            )


def _check_tokens(tokens: Any, count: int, name: str) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of each layer, for the tokens of `count` images."""
    label = f"{name}: get_tokens"
    is_pair = isinstance(tokens, tuple | list) and len(tokens) == 2
    if not is_pair or not all(isinstance(part, dict) for part in tokens):
        found = " and ".join(map(_describe, tokens)) if is_pair else _describe(tokens)
        raise BrainkitError(f"{label} must return two dicts (local tokens, global tokens), got {found}")
    local, global_ = tokens
    if not local or set(local) != set(global_):
        raise BrainkitError(
            f"{label} must return the same layers in both dicts, got local {sorted(map(str, local))} "
            f"and global {sorted(map(str, global_))}"
        )
    shapes = {layer: _token_shape(label, layer, local[layer], global_[layer], count) for layer in local}
    for layer in local:
        for values in (local[layer], global_[layer]):
            if values.is_complex():
                raise BrainkitError(f"{label}, layer {layer!r}: tokens must be real numbers, got {values.dtype}")
            if not values.is_meta and not values.isfinite().all():
                kind = "NaN" if values.isnan().any() else "infinite"
                raise BrainkitError(
                    f"{label}, layer {layer!r}: the network itself gives {kind} tokens for a synthetic image; "
                    "check its weights, and divisions and logarithms in get_tokens"
                )
    return shapes


def _token_shape(label: str, layer: object, local: object, global_: object, count: int) -> tuple[int, int, int]:
    """(C, H, W) of a layer's tokens."""
    if not isinstance(layer, str):
        raise BrainkitError(f"{label} must name its layers with strings, got {layer!r}")
    images = "one image" if count == 1 else f"{count} images"
    if not (isinstance(local, Tensor) and local.ndim == 4 and local.shape[0] == count):
        raise BrainkitError(
            f"{label}, layer {layer!r}: local tokens must have shape ({count}, C, H, W) for {images}, "
            f"got {_describe(local)}"
        )
    _, width, height, columns = (int(side) for side in local.shape)
    if not (isinstance(global_, Tensor) and tuple(global_.shape) == (count, width)):
        raise BrainkitError(
            f"{label}, layer {layer!r}: global tokens must have shape ({count}, {width}), since the local tokens have "
            f"{width} channels, got {_describe(global_)}"
        )
    return width, height, columns


def _describe(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def stored_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and what is stored with them, sorted by name."""
    tensors = {key: value for key, value in network.state_dict().items() if isinstance(value, Tensor)}
    return {key: value for key, value in sorted(tensors.items()) if not is_lazy(value)}


def other_numbers(network: nn.Module) -> list[str]:
    """The types of its weights other than float32, ``bfloat16`` for example."""
    tensors = (*network.parameters(), *network.buffers())
    return sorted(
        {str(each.dtype).removeprefix("torch.") for each in tensors if each.is_floating_point()} - {"float32"}
    )


def bytes_of(value: Tensor) -> Tensor:
    """A tensor's bytes, on the CPU."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def first_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """The first name under which two sets of tensors differ in a byte."""
    for key in before.keys() | after.keys():
        if key not in before or key not in after or not torch.equal(bytes_of(before[key]), bytes_of(after[key])):
            return key
    return None


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _layers_of_training(network: nn.Module) -> str:
    """`` (BatchNorm2d 'norm')``: the first layer that computes something else in training mode."""
    kinds = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd
    found = (
        f" ({type(layer).__name__} {path!r})" for path, layer in network.named_modules() if isinstance(layer, kinds)
    )
    return next(found, "")


def _stored_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Copies of what is stored with the parameters, such as running means."""
    parameters = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    return {key: value.clone() for key, value in stored_tensors(network).items() if key not in parameters}


def _random_state(device: torch.device) -> tuple[object, ...]:
    """The state of all generators that a network may draw from."""
    on_gpu = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().numpy().tobytes(),
        on_gpu,
        numpy_state[1].tobytes(),
        numpy_state[2:],  # with the second of a pair of Gaussian numbers
        random.getstate(),
    )
