"""Tokens of a set of images, computed once and kept on disk: each image passes the backbone a single time."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainkit.backbones import Backbone
from brainkit.errors import BrainkitError
from brainkit.files import cache_folder, read_json, write_beside, write_json
from brainkit.images import Preprocessing, content_hash, decode, normalise, prepare
from brainkit.model import FactorTopy, to_grid

# More images than this say nothing new about the correlation of a layer's channels.
IMAGES_FOR_MOMENTS = 2000
# A cache is believed when its first images come out the same: within this share of a channel's s.d.
AGREEMENT = 0.02
_VERSION = 2
_STALE = 24 * 3600  # seconds after which an extraction that left its folder unfinished is taken for dead


class CentredArray:
    """Tokens of n images as float16 about an offset of each channel; rows come out as float32.

    Channels may have a mean far larger than what varies in them; about the offset, float16 keeps what varies.

    Parameters
    ----------
    values : array of shape (n, C, ...), float16
        May be memory-mapped.
    offset : array of shape (C,), float32
    """

    def __init__(self, values: np.ndarray, offset: np.ndarray) -> None:
        self.values, self.offset = values, offset

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, ...)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows as float32, (k, C, ...); `rows` is an index array or a slice."""
        block = self.values[rows].astype(np.float32)
        block += self.offset.reshape(-1, *(1,) * (block.ndim - 2))
        return block


@dataclass(frozen=True)
class TokenCache:
    """Tokens of n images on the common grid, memory-mapped.

    Attributes
    ----------
    folder : Path
        Where they lie.
    layers : tuple of str
        In order of depth.
    local : dict of str to CentredArray of shape (n, C, H, W)
    whole : dict of str to CentredArray of shape (n, C)
        The global tokens.
    """

    folder: Path
    layers: tuple[str, ...]
    local: dict[str, CentredArray]
    whole: dict[str, CentredArray]

    @property
    def widths(self) -> dict[str, int]:
        """Channels of each layer."""
        return {layer: self.local[layer].shape[1] for layer in self.layers}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        height, width = self.local[self.layers[0]].shape[2:]
        return height, width

    @property
    def nbytes(self) -> int:
        """Their size on disk."""
        return sum(held[layer].values.nbytes for held in (self.local, self.whole) for layer in self.layers)

    def __len__(self) -> int:
        return len(self.whole[self.layers[0]])

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Local (b, C, H, W) and global (b, C) tokens of some images, float32 on the CPU."""

        def gather(arrays: dict[str, CentredArray]) -> dict[str, Tensor]:
            return {layer: torch.from_numpy(arrays[layer][rows]) for layer in self.layers}

        return gather(self.local), gather(self.whole)


def extract_tokens(
    backbone: Backbone,
    images: Sequence[Path],
    *,
    grid: tuple[int, int] = (8, 8),
    device: str = "cpu",
    batch_size: int = 16,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Run images through a backbone, or find that it was done before.

    What is found is believed only if the first images come out the same again: a network's code may have changed
    with its name and weights the same.

    Parameters
    ----------
    backbone : Backbone
        The frozen network.
    images : sequence of Path
        Image files, in the order of the rows of the responses.
    grid : (int, int)
        Rows and columns that every layer's token map is brought to.
    device : str
        Where the backbone runs.
    batch_size : int
        Images of one pass.
    cache : Path, optional
        Folder of all token caches; by default under the user's cache folder.
    progress : callable, optional
        Called with the number of images done so far.

    Returns
    -------
    TokenCache

    Raises
    ------
    DataError
        If an image cannot be read; names it.
    BrainkitError
        If the disk cannot hold the tokens, or a token is too large for float16.
    """
    home = cache if cache is not None else cache_folder() / "tokens"
    key = _key(backbone, images, grid)
    folder = home / key
    if folder.is_dir() and not _agrees(_open(folder), backbone, images[:2], device):
        shutil.rmtree(folder)
    if not folder.is_dir():
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrainkitError(
                f"{home}: the token cache cannot be made there: {error.strerror}; set BRAINKIT_CACHE to another folder"
            ) from None
        _sweep(home)
        _check_space(backbone, len(images), grid, home)
        try:
            with write_beside(folder) as beside:
                _extract(backbone, images, grid, device, batch_size, beside, progress)
        except BrainkitError:
            if not folder.is_dir():  # else another process has just put the same tokens there
                raise
    return _open(folder)


def tokens_in_cache(backbone: Backbone, images: Sequence[Path], grid: tuple[int, int]) -> bool:
    """Whether `extract_tokens` would find its work done."""
    return (cache_folder() / "tokens" / _key(backbone, images, grid)).is_dir()


def fit_statistics(model: FactorTopy, tokens: TokenCache, rows: np.ndarray) -> None:
    """Give the model the mean, s.d. and correlation of every layer's tokens over the training images.

    Parameters
    ----------
    model : FactorTopy
        Its ``local_statistics`` and ``global_statistics`` are set.
    tokens : TokenCache
        Tokens of all images.
    rows : int array
        The training images.
    """
    for layer in tokens.layers:
        key = layer.replace(".", "_")
        for arrays, held in ((tokens.local, model.local_statistics), (tokens.whole, model.global_statistics)):
            mean, std, moment = _statistics(arrays[layer], rows)
            held[key].set(mean, std, moment)  # type: ignore[operator]


def _statistics(array: CentredArray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (C,), s.d. (C,) and the correlation matrix (C, C) of one layer's tokens, over images and places."""

    def blocks(chosen: np.ndarray, size: int = 128) -> Iterator[np.ndarray]:
        for start in range(0, len(chosen), size):
            block = array[chosen[start : start + size]]
            yield np.moveaxis(block, 1, -1).reshape(-1, array.shape[1])

    total, count = np.zeros(array.shape[1]), 0
    for block in blocks(rows):
        total += block.sum(0, dtype=np.float64)
        count += len(block)
    mean = total / count
    spread = np.zeros_like(mean)
    for block in blocks(rows):
        spread += np.square(block - mean.astype(np.float32), dtype=np.float64).sum(0)
    std = np.sqrt(spread / count)
    # What never varies, up to rounding, carries nothing: the model reads it as absent.
    std[std <= 1e-6 * np.sqrt(mean**2 + std**2)] = 0.0
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0).astype(np.float32)

    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), IMAGES_FOR_MOMENTS)).astype(int)]
    moment, count = np.zeros((len(mean), len(mean))), 0
    for block in blocks(chosen):
        block = (block - mean.astype(np.float32)) * inverse
        moment += block.T @ block
        count += len(block)
    return mean, std, moment / count


def _key(backbone: Backbone, images: Sequence[Path], grid: tuple[int, int]) -> str:
    """What the tokens depend on, and nothing else: where images or caches lie does not matter."""
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1))) as pool:
        hashes = list(pool.map(content_hash, images))
    parts = {
        "version": _VERSION,
        "weights": backbone.weights_hash,
        "architecture": backbone.name,
        "code": _code_hash(backbone.network),
        "layers": list(backbone.layer_names),
        "preprocessing": backbone.preprocessing.to_json(),
        "grid": list(grid),
        "images": hashes,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _code_hash(network: torch.nn.Module) -> str:
    """Hash of the file that defines the network's class: a plug-in may change with its weights the same."""
    try:
        file = inspect.getsourcefile(type(network))
    except TypeError:  # made at a prompt: it has no file
        return ""
    return content_hash(file) if file and os.path.isfile(file) else ""


def _check_space(backbone: Backbone, n_images: int, grid: tuple[int, int], home: Path) -> None:
    needed = 2 * n_images * (grid[0] * grid[1] + 1) * sum(backbone.widths.values())
    free = shutil.disk_usage(home).free
    if needed > 0.95 * free:
        raise BrainkitError(
            f"{home}: the tokens of {n_images} images need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
            "free some space, or set BRAINKIT_CACHE to a folder on another disk"
        )


def _extract(
    backbone: Backbone,
    images: Sequence[Path],
    grid: tuple[int, int],
    device: str,
    batch_size: int,
    folder: Path,
    progress: Callable[[int], None] | None,
) -> None:
    folder.mkdir()
    n = len(images)
    local, whole, offsets = {}, {}, {}
    for layer, width in backbone.widths.items():
        local[layer] = _new_array(folder / f"{layer}.local.npy", (n, width, *grid))
        whole[layer] = _new_array(folder / f"{layer}.global.npy", (n, width))
    backbone.to(device)
    done = 0
    for batch in _batches(images, backbone.preprocessing, batch_size):
        with torch.inference_mode():
            local_tokens, global_tokens = backbone.get_tokens(torch.from_numpy(batch).to(device))
        stop = done + len(batch)
        for layer in backbone.layer_names:
            for kind, arrays, tokens in (
                ("local", local, to_grid(local_tokens[layer].float(), grid)),
                ("global", whole, global_tokens[layer].float()),
            ):
                name = f"{layer}.{kind}"
                if name not in offsets:
                    offsets[name] = tokens.transpose(0, 1).flatten(1).mean(1).cpu().numpy()
                arrays[layer][done:stop] = _half(tokens, offsets[name], layer)
        done = stop
        if progress is not None:
            progress(done)
    for array in (*local.values(), *whole.values()):
        array.flush()
    np.savez(folder / "offsets.npz", allow_pickle=False, **offsets)
    write_json(folder / "tokens.json", {"version": _VERSION, "layers": list(backbone.layer_names), "images": n})


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped float16 array whose place on the disk is taken at once.

    Otherwise a disk that fills up kills the process by SIGBUS, which no handler can turn into a message.
    """
    array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # A file system that cannot reserve: the check of the free space has to do.
    return array


def _batches(images: Sequence[Path], preprocessing: Preprocessing, size: int) -> Iterator[np.ndarray]:
    """Normalised float32 batches; the next ones are decoded while the backbone works."""

    def read(path: Path) -> np.ndarray:
        return prepare(decode(path), preprocessing)

    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1))) as pool:
        starts = list(range(0, len(images), size))
        waiting: list[list] = []
        for start in (*starts, None, None):
            if start is not None:
                waiting.append([pool.submit(read, path) for path in images[start : start + size]])
            if waiting and (start is None or len(waiting) > 2):
                yield normalise(np.stack([future.result() for future in waiting.pop(0)]), preprocessing)


def _half(tokens: Tensor, offset: np.ndarray, layer: str) -> np.ndarray:
    centre = torch.from_numpy(offset).to(tokens.device).reshape(-1, *(1,) * (tokens.ndim - 2))
    values = (tokens - centre).half()
    if not values.isfinite().all():
        largest = tokens.abs().max().item()
        raise BrainkitError(
            f"layer {layer}: its tokens reach {largest:.3g}, and float16 ends at 65504; choose other layers"
            if np.isfinite(largest)
            else f"layer {layer}: the backbone gave tokens that are not finite; check its weights"
        )
    return values.cpu().numpy()


def _open(folder: Path) -> TokenCache:
    index = read_json(folder / "tokens.json")
    layers = tuple(index["layers"])
    with np.load(folder / "offsets.npz") as offsets:

        def arrays(kind: str) -> dict[str, CentredArray]:
            return {
                layer: CentredArray(np.load(folder / f"{layer}.{kind}.npy", mmap_mode="r"), offsets[f"{layer}.{kind}"])
                for layer in layers
            }

        return TokenCache(folder, layers, arrays("local"), arrays("global"))


def _agrees(tokens: TokenCache, backbone: Backbone, images: Sequence[Path], device: str) -> bool:
    """Whether the backbone gives for the first images what the cache holds."""
    batch = normalise(
        np.stack([prepare(decode(path), backbone.preprocessing) for path in images]), backbone.preprocessing
    )
    backbone.to(device)
    with torch.inference_mode():
        local, whole = backbone.get_tokens(torch.from_numpy(batch).to(device))
    few = slice(0, 32)
    for layer in tokens.layers:
        for held, now in (
            (tokens.local[layer], to_grid(local[layer].float(), tokens.grid)),
            (tokens.whole[layer], whole[layer].float()),
        ):
            known = np.moveaxis(held[few], 1, -1)
            fresh = np.moveaxis(now.cpu().numpy(), 1, -1)
            # Rounding of another batch size or device is no change of the network.
            allowed = AGREEMENT * known.std(tuple(range(known.ndim - 1))) + 1e-5 * np.sqrt(np.square(known).mean())
            if not (np.abs(known[: len(images)] - fresh) <= allowed).all():
                return False
    return True


def _sweep(home: Path) -> None:
    """Remove what extractions that were killed left behind."""
    for place in home.glob(".*"):
        if place.is_dir() and time.time() - place.stat().st_mtime > _STALE:
            shutil.rmtree(place, ignore_errors=True)
