"""Tokens of a set of images, computed once and kept on disk: each image passes the backbone a single time."""

from __future__ import annotations

import datetime
import inspect
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from brainkit._version import __version__
from brainkit.backbones import Backbone
from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.features.cache import DTYPES, TokenCache
from brainkit.features.fill import Filling, prepared
from brainkit.features.forward import TokenPass
from brainkit.features.store import TokenKind, TokenStore, read_description, remove_folder
from brainkit.images import content_hash
from brainkit.utils.files import cache_folder
from brainkit.utils.system import cores

__all__ = ["TokenCache", "extract_tokens"]

# A store is believed when its first images come out the same: within this share of a channel's s.d., beside what half
# precision rounds (ROUNDING) and what a batch of another size or another device may round (FLOOR, of the layer's root
# mean square). Autocast rounds some numbers more; a network that has changed changes nearly all.
AGREEMENT = 0.02
_ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_FLOOR = {"float32": 1e-5, "float16 autocast": 2e-3}
_MOST = {"float32": 0.999, "float16 autocast": 0.95}

Say = Callable[[str], None]


def extract_tokens(
    backbone: Backbone,
    images: Sequence[Path],
    *,
    grid: tuple[int, int] = (8, 8),
    device: str = "cpu",
    batch_size: int | None = None,
    cache: Path | None = None,
    dtype: str = "float16",
    say: Say | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Run those images through a backbone that nobody has run through it before, and open the tokens of all.

    Images are known by their content, so whatever run or subject saw an image first did the work for all. Several
    processes may be at it at once: they share the work. What is found is read once, to compare its checksums, and
    believed only if the first images come out the same again: a network's code may have changed with its name and
    weights the same.

    Parameters
    ----------
    backbone : Backbone
        The frozen network.
    images : sequence of Path
        Image files, in the order of the rows of the responses.
    grid : (int, int)
        Rows and columns that every layer's token map is brought to.
    device : str
        Where the backbone runs: on CUDA under float16 autocast, elsewhere in float32.
    batch_size : int, optional
        Images of one pass; by default as many as suit the device.
    cache : Path, optional
        Folder of all token stores; by default under the user's cache folder.
    dtype : {"float16", "bfloat16"}
        What is kept: ten bits of each number's difference from its channel's offset, or seven with float32's range.
    say : callable, optional
        Takes lines: what is there, how much will be written and how much is free, what was found damaged.
    progress : callable, optional
        Called with the number of images that are there so far.

    Returns
    -------
    TokenCache
        Its ``extracted`` tells how many images passed the backbone.

    Raises
    ------
    DataError
        If an image cannot be read; names it. The tokens of those before it stay.
    BrainkitError
        If the disk cannot hold the tokens, the cache cannot be written, or a token is too large for `dtype`.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not images:
        raise UsageError("images must hold at least one image, got none")
    tell: Say = say or (lambda line: None)
    home = cache if cache is not None else cache_folder() / "tokens"
    with ThreadPoolExecutor(cores()) as pool:
        hashes = [bytes.fromhex(value) for value in pool.map(content_hash, images)]
    paths = dict(zip(hashes, images, strict=True))
    network = TokenPass(backbone, grid, dtype=dtype, device=device, batch_size=batch_size)
    kind = TokenKind(
        backbone=backbone.name,
        weights=backbone.weights_hash,
        code=_code_hash(backbone.network),
        layers=network.layout.widths,
        grid=grid,
        preprocessing=backbone.preprocessing.to_json(),
        dtype=dtype,
        arithmetic=network.arithmetic,
    )
    store = _believed(home / kind.key, network, paths, tell)
    missing = list(paths) if store is None else store.missing(paths)
    if not missing:
        tell(f"tokens of {len(images)} images: found in the cache")
    else:
        _check_space(home, len(images), len(missing), kind, tell)
        if store is None:
            store = _new_store(home, kind, network, backbone, tell)
        Filling(store, network, paths, len(images), progress).run()
    assert store is not None
    tokens = TokenCache.of_store(store, hashes)
    tokens.extracted = len(missing)
    return tokens


def _code_hash(network: torch.nn.Module) -> str:
    """Hash of the file that defines the network's class: a plug-in may change with its weights the same."""
    try:
        file = inspect.getsourcefile(type(network))
    except TypeError:  # made at a prompt: it has no file
        return ""
    return content_hash(file) if file and os.path.isfile(file) else ""


def _believed(folder: Path, network: TokenPass, paths: Mapping[bytes, Path], say: Say) -> TokenStore | None:
    """Open the store if it is there, and if what it holds is what the network gives."""
    if not folder.is_dir():
        return None
    try:
        store = TokenStore(folder, say)
    except DataError as error:
        say(f"{folder}: {error}; it is made anew")
        remove_folder(folder)
        return None
    store.check(paths)
    if _agrees(store, network, paths):
        return store
    say(f"{folder}: {network.backbone.name} gives other tokens than it did; the store is made anew")
    store.drop()
    return None


def _new_store(home: Path, kind: TokenKind, network: TokenPass, backbone: Backbone, say: Say) -> TokenStore:
    about = {
        "made_by": f"brainkit {__version__}",
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "pretrained": backbone.pretrained,
        "source": backbone.source,
    }
    try:
        return TokenStore.create(home, kind, network.measure(), say, about)
    except BrainkitError as error:
        raise BrainkitError(f"{error}; set BRAINKIT_CACHE to another folder") from None


def _check_space(home: Path, wanted: int, missing: int, kind: TokenKind, say: Say) -> None:
    """Say what will be written; refuse what the disk cannot hold."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home).free
        others = sum(_of_another_version(place) for place in home.iterdir() if place.is_dir())
    except OSError as error:
        raise BrainkitError(
            f"{home}: the token cache cannot be made there: {error.strerror}; set BRAINKIT_CACHE to another folder"
        ) from None
    needed = 2 * missing * kind.layout.record
    size = f"{needed / 1e9:.2f} GB as {kind.dtype}"
    if needed > 0.95 * free:
        raise BrainkitError(
            f"{home}: the tokens of {missing} images need {size}, {free / 1e9:.2f} GB are free; "
            "free some space, or set BRAINKIT_CACHE to a folder on another disk"
        )
    if others:
        say(f"{home}: {others} stores of another version are left alone; brainkit cache list shows them")
    held = f"{wanted - missing} in the cache, {missing} to extract"
    say(f"tokens of {wanted} images: {held}, {size}; {free / 1e9:.1f} GB free")


def _of_another_version(folder: Path) -> bool:
    try:
        read_description(folder)
    except DataError as error:
        return "version" in str(error)
    return False


def _agrees(store: TokenStore, network: TokenPass, paths: Mapping[bytes, Path]) -> bool:
    """Whether the network gives what the store holds: for its first two of these images, else for the probes."""
    missing = set(store.missing(paths))
    held = [image for image in paths if image not in missing][:2]
    floor, most = _FLOOR[network.arithmetic], _MOST[network.arithmetic]
    if not held:
        mean, _ = network.measure()
        allowed = AGREEMENT * store.spread + floor * np.sqrt(np.square(mean).mean())
        return bool((np.abs(mean - store.offsets) <= allowed).mean() >= most)
    images = np.stack([prepared(paths[image], network.backbone.preprocessing) for image in held])
    known = TokenCache.of_store(store, held).batch(np.arange(len(held)))
    fresh = network.tokens(torch.from_numpy(images))
    offsets, spreads = store.layout.offsets_of(store.offsets), store.layout.offsets_of(store.spread)
    for layer in network.backbone.layer_names:
        for part, offset, spread in zip((0, 1), offsets[layer], spreads[layer], strict=True):
            before, now = (
                tokens[part][layer].cpu().numpy().reshape(len(held), len(offset), -1) for tokens in (known, fresh)
            )
            allowed = AGREEMENT * spread[:, None] + floor * np.sqrt(np.square(before).mean())
            allowed = allowed + _ROUNDING[store.kind.dtype] * np.abs(before - offset[:, None])
            if (np.abs(before - now) <= allowed).mean() < most:
                return False
    return True
