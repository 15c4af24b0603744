"""Tokens of a set of images, one record per image, in half precision relative to an offset per channel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from brainkit.errors import UsageError
from brainkit.features.shard import Layout, Shard
from brainkit.features.store import TokenStore
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from brainkit.backbones.probe import TokenPair

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class TokenCache:
    """Tokens of n images on the common grid. Those on disk are memory-mapped, so that n costs no memory.

    The mean of a channel may be far larger than its variation; relative to an offset per channel, half precision keeps
    the variation. :func:`brainkit.features.extract_tokens`, `of_store` and `of_arrays` create caches.

    Parameters
    ----------
    layout : Layout
        Layers, their channels, and the grid.
    dtype : torch.dtype
        Of the records: float16 or bfloat16.
    offsets : float32 array of shape (2 * channels,)
        Of the local tokens of all layers, then of the global ones.
    sources : sequence of Shard or of int16 arrays (count, record)
        The records.
    locations : int array of shape (n, 2)
        Each image's source (its index) and row.
    images : sequence of bytes
        A hash of each image's content; images with the same hash have the same tokens.
    folder : Path, optional
        Of the store, if the tokens are on disk.

    Attributes
    ----------
    layers : tuple of str
        In order of depth.
    extracted : int
        Images that the backbone had to process for this cache.
    store : TokenStore or None
        The store on disk; while it is open, it is not pruned.
    """

    def __init__(
        self,
        layout: Layout,
        dtype: torch.dtype,
        offsets: np.ndarray,
        sources: Sequence[Shard] | Sequence[np.ndarray],
        locations: np.ndarray,
        images: Sequence[bytes],
        folder: Path | None = None,
    ) -> None:
        self.layout, self.dtype, self.offsets, self.folder = layout, dtype, offsets, folder
        self.layers = tuple(layer for layer, _ in layout.widths)
        self.extracted = 0
        self._sources, self._locations = sources, locations
        self.images = list(images)
        self.store: TokenStore | None = None
        self._device_offsets: dict[torch.device, Any] = {}

    @classmethod
    def of_store(cls, store: TokenStore, images: Sequence[bytes]) -> TokenCache:
        """The tokens of images in a store, in this order; while the cache is in use, the store is not pruned."""
        shards, locations = store.locate(images)
        cache = cls(store.layout, DTYPES[store.spec.dtype], store.offsets, shards, locations, images, store.folder)
        cache.store = store
        return cache

    @classmethod
    def of_arrays(
        cls,
        local_tokens: Mapping[str, np.ndarray],
        global_tokens: Mapping[str, np.ndarray],
        dtype: torch.dtype = torch.float16,
    ) -> TokenCache:
        """A cache of tokens in memory.

        Parameters
        ----------
        local_tokens : mapping of str to array of shape (n, C, H, W)
        global_tokens : mapping of str to array of shape (n, C)
            Of the same layers.
        dtype : torch.dtype
            To which the tokens are rounded: float16 or bfloat16.

        Raises
        ------
        UsageError
            If a token is not finite, or too large for `dtype`.
        """
        first = next(iter(local_tokens.values()))
        layout = Layout(tuple((layer, value.shape[1]) for layer, value in local_tokens.items()), first.shape[2:])
        arrays = (*local_tokens.values(), *(global_tokens[layer] for layer in local_tokens))
        numbers = np.concatenate([value.reshape(len(first), -1) for value in arrays], 1, dtype=np.float32)
        rounded = torch.from_numpy(numbers).to(dtype)
        for layer, parts in layout.slices.items():
            if not all(rounded[:, part].isfinite().all() for part in parts):
                largest = np.abs(np.concatenate([numbers[:, part] for part in parts], 1)).max()
                advice = "; dtype=torch.bfloat16 can hold them" if np.isfinite(largest) else ""
                raise UsageError(f"layer {layer}: tokens must be finite in {dtype}, got up to {largest:.3g}{advice}")
        records = rounded.view(torch.int16).numpy()
        offsets = np.zeros(2 * layout.channels, np.float32)
        images = [hashlib.sha256(record.data).digest() for record in records]
        rows = np.arange(len(first), dtype=np.int32)
        return cls(layout, dtype, offsets, [records], np.stack([np.zeros_like(rows), rows], 1), images)

    def __repr__(self) -> str:
        rows, columns = self.grid
        return f"TokenCache({plural(len(self), 'image')}, {plural(len(self.layers), 'layer')}, grid {rows} x {columns})"

    @property
    def widths(self) -> dict[str, int]:
        """Channels of each layer."""
        return dict(self.layout.widths)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.layout.grid

    @property
    def record(self) -> int:
        """Numbers per image: the local tokens (C, H, W) of each layer, then the global tokens (C) of all layers."""
        return self.layout.record

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return 2 * len(self) * self.record

    def __len__(self) -> int:
        return len(self._locations)

    def records(self, rows: np.ndarray, out: Tensor | None = None) -> Tensor:
        """Read the records of some images as they are stored, relative to the offsets.

        Parameters
        ----------
        rows : int array of shape (k,)
        out : tensor of shape (k or more, record), of `dtype`, optional
            On the CPU, contiguous; may be pinned.

        Returns
        -------
        tensor of shape (k, record)
            The first k rows of `out`, if given.
        """
        if out is None:
            out = torch.empty((len(rows), self.record), dtype=self.dtype)
        elif out.dtype != self.dtype or out.shape[1:] != (self.record,) or len(out) < len(rows):
            raise UsageError(
                f"out must be {self.dtype} of shape ({len(rows)} or more, {self.record}), "
                f"got {out.dtype} of shape {tuple(out.shape)}"
            )
        out = out[: len(rows)]
        target = out.view(torch.int16).numpy()
        for k, (source, row) in enumerate(self._locations[rows].tolist()):
            target[k] = self._source(source)[row]
        return out

    def expand(self, records: Tensor) -> TokenPair:
        """Convert records to tokens, float32, on the records' device.

        Parameters
        ----------
        records : tensor of shape (b, record)
            Of `dtype`, on any device.

        Returns
        -------
        local_tokens : dict of str to tensor of shape (b, C, H, W)
        global_tokens : dict of str to tensor of shape (b, C)
        """
        device = records.device
        if device not in self._device_offsets:
            self._device_offsets[device] = self._offsets_on(device)
        if device.type == "cpu":
            return self._expand_by_layer(records, self._device_offsets[device])
        return self._expand_at_once(records, self._device_offsets[device])

    def batch(self, rows: np.ndarray) -> TokenPair:
        """Local (b, C, H, W) and global (b, C) tokens of some images, float32 on the CPU: ``expand(records(rows))``."""
        local_tokens, global_tokens = {}, {}
        for layer in self.layers:  # one after another, while what was just read is in the processor's cache
            local_tokens[layer], global_tokens[layer] = self.layer(layer, rows)
        return local_tokens, global_tokens

    def layer(self, layer: str, rows: np.ndarray, channels: slice | None = None) -> tuple[Tensor, Tensor]:
        """Local (k, C, H, W) and global (k, C) tokens of one layer, float32 on the CPU; reads nothing else.

        With `channels` only those, a contiguous slice: not all images' tokens of a layer fit into memory.
        """
        locations = [(self._source(source), row) for source, row in self._locations[rows].tolist()]
        tokens = []
        offsets = self.layout.by_layer(self.offsets)[layer]
        for part, offset in zip(self.layout.slices[layer], offsets, strict=True):
            if channels is not None:
                cells = (part.stop - part.start) // len(offset)
                first, last, _ = channels.indices(len(offset))
                part, offset = slice(part.start + first * cells, part.start + last * cells), offset[first:last]
            bits = np.empty((len(locations), part.stop - part.start), np.int16)
            for target, (source, row) in zip(bits, locations, strict=True):
                target[:] = source[row, part]
            values = torch.from_numpy(bits).view(self.dtype).float().view(len(locations), len(offset), -1)
            tokens.append(values.add_(torch.from_numpy(offset)[:, None]))
        return tokens[0].unflatten(2, self.grid), tokens[1][:, :, 0]

    def _source(self, number: int) -> np.ndarray:
        source = self._sources[number]
        return source.records if isinstance(source, Shard) else source

    def _offsets_on(self, device: torch.device) -> Any:
        if device.type != "cpu":
            return self._offsets_as_record().to(device)
        return {
            layer: (torch.from_numpy(local)[:, None, None], torch.from_numpy(global_))
            for layer, (local, global_) in self.layout.by_layer(self.offsets).items()
        }

    def _offsets_as_record(self) -> Tensor:
        """The offset of each number in a record: (record,)."""
        offsets, cells = self.layout.by_layer(self.offsets).values(), self.grid[0] * self.grid[1]
        parts = [np.repeat(local, cells) for local, _ in offsets] + [global_ for _, global_ in offsets]
        return torch.from_numpy(np.concatenate(parts))

    def _expand_by_layer(self, records: Tensor, offsets: Any) -> TokenPair:
        """Each layer as contiguous tensors, which oneDNN would otherwise copy."""
        local_tokens, global_tokens = {}, {}
        for layer, width in self.layout.widths:
            local, global_ = self.layout.slices[layer]
            # Converted first, then added in place: adding numbers of two types takes a third tensor.
            local_tokens[layer] = records[:, local].float().view(-1, width, *self.grid).add_(offsets[layer][0])
            global_tokens[layer] = records[:, global_].float().add_(offsets[layer][1])
        return local_tokens, global_tokens

    def _expand_at_once(self, records: Tensor, offsets: Tensor) -> TokenPair:
        """One kernel for all layers, which are then views of its result."""
        numbers = records + offsets
        local_tokens, global_tokens = {}, {}
        for layer, width in self.layout.widths:
            local, global_ = self.layout.slices[layer]
            local_tokens[layer] = numbers[:, local].view(-1, width, *self.grid)
            global_tokens[layer] = numbers[:, global_]
        return local_tokens, global_tokens

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the files itself, and moves the offsets to its own devices.
        return {**self.__dict__, "store": None, "_device_offsets": {}}
