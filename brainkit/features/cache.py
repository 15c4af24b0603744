"""Tokens of a set of images, each image's numbers one record, as half-precision numbers about an offset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainkit.errors import UsageError
from brainkit.features.store import Layout, Shard, TokenStore

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

Tokens = tuple[dict[str, Tensor], dict[str, Tensor]]


class TokenCache:
    """Tokens of n images on the common grid: memory-mapped where they lie on disk, so that n costs no memory.

    Channels may have a mean far larger than what varies in them; about an offset of each channel, half precision keeps
    what varies. Made by :func:`brainkit.features.extract.extract_tokens`, `of_store` or `of_arrays`.

    Parameters
    ----------
    layout : Layout
        Layers, their channels, and the grid.
    dtype : torch.dtype
        Of the records: float16 or bfloat16.
    offsets : float32 array of shape (2 * channels,)
        The local ones of all layers, then the global ones.
    sources : sequence of Shard or of int16 arrays (count, record)
        What holds the records.
    where : int array of shape (n, 2)
        For each image its source, and its row there.
    images : sequence of bytes
        For each image a name of its content; images of the same name have the same tokens.
    folder : Path, optional
        Of the store, where there is one.

    Attributes
    ----------
    layers : tuple of str
        In order of depth.
    extracted : int
        Images that had to pass the backbone for this cache to be made.
    store : TokenStore or None
        Where they lie on disk; while it is open it is not pruned.
    """

    def __init__(
        self,
        layout: Layout,
        dtype: torch.dtype,
        offsets: np.ndarray,
        sources: Sequence[Shard] | Sequence[np.ndarray],
        where: np.ndarray,
        images: Sequence[bytes],
        folder: Path | None = None,
    ) -> None:
        self.layout, self.dtype, self.offsets, self.folder = layout, dtype, offsets, folder
        self.layers = tuple(layer for layer, _ in layout.widths)
        self.extracted = 0
        self._sources, self._where = sources, where
        self.images = list(images)
        self.store: TokenStore | None = None
        self._on: dict[torch.device, Any] = {}

    @classmethod
    def of_store(cls, store: TokenStore, images: Sequence[bytes]) -> TokenCache:
        """The tokens of images that a store holds, in this order; while they are in use, the store is not pruned."""
        shards, where = store.places(images)
        cache = cls(store.layout, DTYPES[store.kind.dtype], store.offsets, shards, where, images, store.folder)
        cache.store = store
        return cache

    @classmethod
    def of_arrays(
        cls, local: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float16
    ) -> TokenCache:
        """Tokens that lie in memory.

        Parameters
        ----------
        local : mapping of str to array of shape (n, C, H, W)
        whole : mapping of str to array of shape (n, C)
            The global tokens of the same layers.
        dtype : torch.dtype
            What they are rounded to.
        """
        first = next(iter(local.values()))
        layout = Layout(tuple((layer, value.shape[1]) for layer, value in local.items()), first.shape[2:])
        parts = [value.reshape(len(first), -1) for value in (*local.values(), *(whole[layer] for layer in local))]
        records = torch.from_numpy(np.concatenate(parts, 1, dtype=np.float32)).to(dtype)
        offsets = np.zeros(2 * layout.channels, np.float32)
        source = records.view(torch.int16).numpy()
        names = [hashlib.sha256(record.data).digest() for record in source]
        rows = np.arange(len(first), dtype=np.int32)
        return cls(layout, dtype, offsets, [source], np.stack([np.zeros_like(rows), rows], 1), names)

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
        """Numbers of one image: each layer's local tokens (C, H, W), then all layers' global ones (C)."""
        return self.layout.record

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return 2 * len(self) * self.record

    def __len__(self) -> int:
        return len(self._where)

    def records(self, rows: np.ndarray, out: Tensor | None = None) -> Tensor:
        """Read the records of some images, as they are kept: about the offsets.

        Parameters
        ----------
        rows : int array of shape (k,)
        out : tensor of shape (k or more, record), of `dtype`, optional
            On the CPU, contiguous; may be pinned.

        Returns
        -------
        tensor of shape (k, record)
            The first rows of `out`, where that is given.
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
        for k, (source, row) in enumerate(self._where[rows].tolist()):
            target[k] = self._source(source)[row]
        return out

    def expand(self, records: Tensor) -> Tokens:
        """Tokens out of records, float32, on the records' device.

        Parameters
        ----------
        records : tensor of shape (b, record)
            Of `dtype`, on any device.

        Returns
        -------
        local : dict of str to tensor of shape (b, C, H, W)
        whole : dict of str to tensor of shape (b, C)
        """
        device = records.device
        if device not in self._on:
            self._on[device] = self._offsets_on(device)
        if device.type == "cpu":
            return self._expand_apart(records, self._on[device])
        return self._expand_together(records, self._on[device])

    def batch(self, rows: np.ndarray) -> Tokens:
        """Local (b, C, H, W) and global (b, C) tokens of some images, float32 on the CPU: ``expand(records(rows))``."""
        local, whole = {}, {}
        for layer in self.layers:  # one after another, because what was just read is still in the processor's cache
            local[layer], whole[layer] = self.layer(layer, rows)
        return local, whole

    def layer(self, layer: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Local (k, C, H, W) and global (k, C) tokens of one layer, float32 on the CPU; nothing else is read."""
        where = [(self._source(source), row) for source, row in self._where[rows].tolist()]
        found = []
        for place, offset in zip(self.layout.places[layer], self.layout.offsets_of(self.offsets)[layer], strict=True):
            bits = np.empty((len(where), place.stop - place.start), np.int16)
            for target, (source, row) in zip(bits, where, strict=True):
                target[:] = source[row, place]
            values = torch.from_numpy(bits).view(self.dtype).float().view(len(where), len(offset), -1)
            found.append(values.add_(torch.from_numpy(offset)[:, None]))
        return found[0].unflatten(2, self.grid), found[1][:, :, 0]

    def _source(self, number: int) -> np.ndarray:
        source = self._sources[number]
        return source.records if isinstance(source, Shard) else source

    def _offsets_on(self, device: torch.device) -> Any:
        if device.type != "cpu":
            return self._offsets_as_record().to(device)
        return {
            layer: (torch.from_numpy(local)[:, None, None], torch.from_numpy(whole))
            for layer, (local, whole) in self.layout.offsets_of(self.offsets).items()
        }

    def _offsets_as_record(self) -> Tensor:
        """The offset of each number of a record: (record,)."""
        apart, cells = self.layout.offsets_of(self.offsets).values(), self.grid[0] * self.grid[1]
        each = [np.repeat(local, cells) for local, _ in apart] + [whole for _, whole in apart]
        return torch.from_numpy(np.concatenate(each))

    def _expand_apart(self, records: Tensor, offsets: Any) -> Tokens:
        """Layer by layer into contiguous tensors, which oneDNN would otherwise copy."""
        local, whole = {}, {}
        for layer, width in self.layout.widths:
            ours, alls = self.layout.places[layer]
            # Converted, then added to in place: numbers of two types would be added by way of a third tensor.
            local[layer] = records[:, ours].float().view(-1, width, *self.grid).add_(offsets[layer][0])
            whole[layer] = records[:, alls].float().add_(offsets[layer][1])
        return local, whole

    def _expand_together(self, records: Tensor, offsets: Tensor) -> Tokens:
        """One kernel for all layers, which are then views of its result."""
        numbers = records + offsets
        local, whole = {}, {}
        for layer, width in self.layout.widths:
            ours, alls = self.layout.places[layer]
            local[layer], whole[layer] = numbers[:, ours].view(-1, width, *self.grid), numbers[:, alls]
        return local, whole

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the files itself, and puts its own offsets on its devices.
        return {**self.__dict__, "store": None, "_on": {}}
