"""Tokens of a set of images, computed once and stored on disk: the backbone processes each image a single time."""

from __future__ import annotations

import datetime
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
from brainkit.features.code_hash import code_hash
from brainkit.features.fill import StoreFiller, read_input
from brainkit.features.forward import TokenExtractor
from brainkit.features.store import OtherVersion, TokenSpec, TokenStore, read_description, remove_folder
from brainkit.images import content_hash
from brainkit.utils.files import cache_folder
from brainkit.utils.progress import Say
from brainkit.utils.system import cores
from brainkit.utils.text import format_bytes, plural

__all__ = ["TokenCache", "extract_tokens"]

# A store is used if its first images give the same tokens again: within this share of a channel's s.d., plus rounding
# in half precision (_ROUNDING) and by another batch size or device (_FLOOR, relative to the layer's root mean square).
# Autocast rounds a few numbers more, hence _MOST; in a network that has changed, nearly all numbers differ.
TOLERANCE = 0.02
_ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_FLOOR = {"float32": 1e-5, "float16 autocast": 2e-3}
_MOST = {"float32": 0.999, "float16 autocast": 0.95}


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
    """Open the tokens of some images, and first extract those that the cache lacks.

    Images are identified by their content, so that runs and subjects share them. Several processes may extract at the
    same time: they share the work. Records found in the cache are checked against their checksums, and used only if
    the backbone gives the same tokens for the first images again: its code may change while its name and weights stay
    the same.

    Parameters
    ----------
    backbone : Backbone
        The frozen network.
    images : sequence of Path
        Image files, in the order of the rows of the responses.
    grid : (int, int)
        Rows and columns to which every layer's token map is resized.
    device : str
        Where the backbone runs: under float16 autocast on CUDA, in float32 elsewhere.
    batch_size : int, optional
        By default it suits the device.
    cache : Path, optional
        Folder of all token stores; by default in the user's cache folder.
    dtype : {"float16", "bfloat16"}
        Of the records: ten bits of each number's difference from its channel's offset, or seven with float32's range.
    say : callable, optional
        Called with lines about what is in the cache, the space needed and free, and damage.
    progress : callable, optional
        Called with the number of images in the cache so far.

    Returns
    -------
    TokenCache
        ``extracted`` is the number of images that the backbone processed.

    Raises
    ------
    DataError
        If an image cannot be read; names it. The tokens of the images before it are kept.
    BrainkitError
        If the disk is too small, the cache cannot be written, or a token is too large for `dtype`.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not images:
        raise UsageError("images must have at least one image, got none")
    say = say or (lambda line: None)
    home = cache if cache is not None else cache_folder() / "tokens"
    with ThreadPoolExecutor(cores()) as pool:
        hashes = [bytes.fromhex(value) for value in pool.map(content_hash, images)]
    paths = dict(zip(hashes, images, strict=True))
    extractor = TokenExtractor(backbone, grid, dtype=dtype, device=device, batch_size=batch_size)
    spec = TokenSpec(
        backbone=backbone.name,
        weights=backbone.weights_hash,
        code=code_hash(backbone.network),
        layers=extractor.layout.widths,
        grid=grid,
        preprocessing=backbone.preprocessing.to_json(),
        dtype=dtype,
        arithmetic=extractor.arithmetic,
    )
    store = _open_store(home / spec.key, extractor, paths, say)
    missing = list(paths) if store is None else store.missing(paths)
    if missing:
        _check_space(home, len(images), len(missing), spec, say)
        if store is None:
            store = _create_store(home, spec, extractor, say)
        StoreFiller(store, extractor, paths, len(images), progress).run()
    else:
        say(f"tokens of {plural(len(images), 'image')}: all in the cache already, so the network need not run")
    assert store is not None
    tokens = TokenCache.of_store(store, hashes)
    tokens.extracted = len(missing)
    return tokens


def _open_store(folder: Path, extractor: TokenExtractor, paths: Mapping[bytes, Path], say: Say) -> TokenStore | None:
    """Open the store if it exists and holds what the network gives now; else remove it."""
    if not folder.is_dir():
        return None
    try:
        store = TokenStore(folder, say)
    except DataError as error:
        say(f"{folder}: {error}; it is rebuilt")
        remove_folder(folder)
        return None
    store.check(paths)
    if _same_tokens(store, extractor, paths):
        return store
    say(f"{folder}: {extractor.backbone.name} gives different tokens than before; the store is rebuilt")
    store.remove()
    return None


def _same_tokens(store: TokenStore, extractor: TokenExtractor, paths: Mapping[bytes, Path]) -> bool:
    """Whether the network gives the stored tokens for two of these images, or the offsets if none is stored."""
    missing = set(store.missing(paths))
    stored = [image for image in paths if image not in missing][:2]
    floor, most = _FLOOR[extractor.arithmetic], _MOST[extractor.arithmetic]
    if not stored:
        mean, _ = extractor.channel_statistics()
        allowed = TOLERANCE * store.std + floor * np.sqrt(np.square(mean).mean())
        return bool((np.abs(mean - store.offsets) <= allowed).mean() >= most)
    inputs = np.stack([read_input(paths[image], extractor.backbone.preprocessing) for image in stored])
    before = TokenCache.of_store(store, stored).batch(np.arange(len(stored)))
    now = extractor.tokens(torch.from_numpy(inputs))
    offsets, stds = store.layout.by_layer(store.offsets), store.layout.by_layer(store.std)
    for layer in extractor.backbone.layer_names:
        for part, offset, std in zip((0, 1), offsets[layer], stds[layer], strict=True):
            old, new = (
                tokens[part][layer].cpu().numpy().reshape(len(stored), len(offset), -1) for tokens in (before, now)
            )
            allowed = TOLERANCE * std[:, None] + floor * np.sqrt(np.square(old).mean())
            allowed = allowed + _ROUNDING[store.spec.dtype] * np.abs(old - offset[:, None])
            if (np.abs(old - new) <= allowed).mean() < most:
                return False
    return True


def _check_space(home: Path, n_images: int, n_missing: int, spec: TokenSpec, say: Say) -> None:
    """Report how much will be written, and refuse what the disk cannot hold."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home).free
        other_versions = sum(_has_other_version(folder) for folder in home.iterdir() if folder.is_dir())
    except OSError as error:
        raise BrainkitError(
            f"{home}: the token cache cannot be created: {error.strerror}; set BRAINKIT_CACHE to another folder"
        ) from None
    needed = 2 * n_missing * spec.layout.record
    size = f"{format_bytes(needed)} as {spec.dtype}"
    if needed > 0.95 * free:
        raise BrainkitError(
            f"{home}: the tokens of {plural(n_missing, 'image')} need {size}, {format_bytes(free)} are free; "
            "free some space, or set BRAINKIT_CACHE to a folder on another disk"
        )
    if other_versions:
        say(f"{home}: stores of another version, which are not used: {other_versions}; see brainkit cache list")
    found = f"{n_images - n_missing:,} in the cache, {n_missing:,} to extract"
    say(f"tokens of {plural(n_images, 'image')}: {found}, {size}; {format_bytes(free)} free")


def _has_other_version(folder: Path) -> bool:
    try:
        read_description(folder)
    except OtherVersion:
        return True
    except DataError:
        pass
    return False


def _create_store(home: Path, spec: TokenSpec, extractor: TokenExtractor, say: Say) -> TokenStore:
    provenance = {
        "made_by": f"brainkit {__version__}",
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "pretrained": extractor.backbone.pretrained,
        "source": extractor.backbone.source,
    }
    channels = extractor.channel_statistics()
    try:
        return TokenStore.create(home, spec, channels, say, provenance)
    except BrainkitError as error:
        raise BrainkitError(f"{error}; set BRAINKIT_CACHE to another folder") from None
