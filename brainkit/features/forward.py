"""Runs images through a frozen network and returns token records: in batches that fit the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from brainkit.backbones.base import Backbone
from brainkit.backbones.probe import ROUNDING, TokenPair, find_difference, not_repeatable, probe_images, row_of
from brainkit.errors import BrainkitError
from brainkit.features.cache import DTYPES
from brainkit.features.shard import Layout
from brainkit.images import normalise
from brainkit.ops.token_grid import to_grid


@dataclass
class PendingBatch:
    """A batch whose records may still be computed on a GPU."""

    images: Tensor
    records: Tensor  # on the CPU
    finite: Tensor
    copied: torch.cuda.Event | None
    paths: Sequence[Path]


class TokenExtractor:
    """A backbone on a device that turns batches of images into records.

    On CUDA the network runs under float16 autocast: products in float16, sums, normalisation and softmax in float32.
    Elsewhere it runs in float32.

    Parameters
    ----------
    backbone : Backbone
        Moved to the device.
    grid : (int, int)
        Rows and columns to which every layer's token map is resized.
    dtype : str
        Of the records: float16 or bfloat16.
    device : str
        Where the backbone runs.
    batch_size : int, optional
        By default it suits the device. It is halved whenever the GPU runs out of memory.
    mixed : bool, optional
        Whether the network runs under autocast; by default only on CUDA.
    """

    def __init__(
        self,
        backbone: Backbone,
        grid: tuple[int, int],
        *,
        dtype: str = "float16",
        device: str = "cpu",
        batch_size: int | None = None,
        mixed: bool | None = None,
    ) -> None:
        self.backbone, self.grid, self.dtype = backbone.to(device), grid, DTYPES[dtype]
        self.device = torch.device(device)
        self.mixed = self.device.type == "cuda" if mixed is None else mixed
        self.layout = Layout(tuple(backbone.widths.items()), grid)
        self.batch_size = batch_size or _default_batch_size(self.device, backbone.preprocessing.size)
        self._fitting_size = self.batch_size  # the largest batch that has not run out of memory

    @property
    def arithmetic(self) -> str:
        """What the network computes in."""
        return "float16 autocast" if self.mixed else "float32"

    def tokens(self, images: Tensor) -> TokenPair:
        """Local (b, C, H, W) and global (b, C) tokens on the grid, float32 on the device."""
        parts = self._run_in_parts(images, lambda part: self._forward(part, self.mixed))
        return (
            {layer: torch.cat([local[layer] for local, _ in parts]) for layer in self.backbone.layer_names},
            {layer: torch.cat([global_[layer] for _, global_ in parts]) for layer in self.backbone.layer_names},
        )

    def channel_statistics(self) -> np.ndarray:
        """Mean and s.d. of each channel over a fixed set of images: (2, 2 * channels), float32.

        They do not depend on the images that a store happens to hold first, so that an image has the same record in
        every store with the same specification.

        Raises
        ------
        BrainkitError
            If a token is not finite, or an image alone has other tokens than among the others.
        """
        preprocessing = self.backbone.preprocessing
        images = torch.from_numpy(normalise(probe_images(preprocessing), preprocessing))
        image = images[3:4].clone()  # the network may work in place
        local, global_ = self.tokens(images)
        values = [rearrange(tokens, "b c ... -> c (b ...)") for part in (local, global_) for tokens in part.values()]
        for layer, value in zip(2 * self.backbone.layer_names, values, strict=True):
            if not value.isfinite().all():
                raise BrainkitError(
                    f"{self.backbone.name}: layer {layer}: the network itself gives tokens that are not finite, for "
                    "synthetic images; check its weights"
                )
        self._check_repeats(image, row_of((local, global_), 3), row_of((local, global_), 4))
        mean = torch.cat([value.mean(1) for value in values])
        std = torch.cat([value.std(1, correction=0) for value in values])
        return torch.stack([mean, std]).cpu().numpy()

    def _check_repeats(self, image: Tensor, in_batch: TokenPair, other: TokenPair) -> None:
        """Check that an image alone has the tokens that it has in a batch with another one."""
        on_cuda = "TF32" if self.device.type == "cuda" else "float32"
        rounding = ROUNDING["float16 autocast" if self.mixed else on_cuda]
        if found := find_difference(self.tokens(image), in_batch, other, rounding):
            cause = "dropout or batch statistics are on, or its images are mixed"
            raise not_repeatable(self.backbone.name, found, "alone than in a batch", cause)

    def submit(self, images: Tensor, offsets: np.ndarray, paths: Sequence[Path] = ()) -> PendingBatch:
        """Start computing the records of normalised images (b, 3, S, S); on CUDA, return without waiting.

        `paths` are the images' files, for errors.
        """
        records = self._records(images, offsets, self.mixed)
        finite = records.isfinite().all()
        if self.device.type != "cuda":
            return PendingBatch(images, records.cpu(), finite, None, paths)
        on_host = torch.empty(records.shape, dtype=records.dtype, pin_memory=True)
        finite_on_host = torch.empty((), dtype=torch.bool, pin_memory=True)
        on_host.copy_(records, non_blocking=True)
        finite_on_host.copy_(finite, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.device))
        return PendingBatch(images, on_host, finite_on_host, copied, paths)

    def result(self, batch: PendingBatch, offsets: np.ndarray) -> np.ndarray:
        """The records of a submitted batch: (b, record), int16 bits of half-precision numbers minus the offsets.

        Raises
        ------
        BrainkitError
            If a token is not finite, or too large for the records.
        """
        if batch.copied is not None:
            batch.copied.synchronize()
        records = batch.records
        if not batch.finite:
            # Products in float16 may overflow where float32 does not.
            records = self._records(batch.images, offsets, mixed=False).cpu()
            if not records.isfinite().all():
                raise self._overflow_error(batch, records)
        return records.view(torch.int16).numpy()

    def _records(self, images: Tensor, offsets: np.ndarray, mixed: bool) -> Tensor:
        by_layer = {
            layer: (torch.from_numpy(local).to(self.device)[:, None, None], torch.from_numpy(global_).to(self.device))
            for layer, (local, global_) in self.layout.by_layer(offsets).items()
        }

        def records_of(part: Tensor) -> Tensor:
            local, global_ = self._forward(part, mixed)
            numbers = [(local[layer] - by_layer[layer][0]).to(self.dtype).flatten(1) for layer in by_layer]
            numbers += [(global_[layer] - by_layer[layer][1]).to(self.dtype) for layer in by_layer]
            return torch.cat(numbers, 1)

        with torch.inference_mode():
            return torch.cat(self._run_in_parts(images, records_of))

    def _forward(self, images: Tensor, mixed: bool) -> TokenPair:
        with torch.inference_mode():
            images = images.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.float16, enabled=mixed):
                local, global_ = self.backbone.get_tokens(images)
            # Outside autocast, which would round the resizing too.
            names = self.backbone.layer_names
            on_grid = {layer: to_grid(local[layer].float(), self.grid) for layer in names}
            return on_grid, {layer: global_[layer].float() for layer in names}

    def _run_in_parts(self, images: Tensor, run: Callable) -> list:
        """Run the batch in as many parts as the device's memory requires."""
        results: list = []
        start = 0
        while start < len(images):
            part = images[start : start + self._fitting_size]
            try:
                results.append(run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise BrainkitError(
                        f"{self.backbone.name}: {self.device} has too little memory even for one image; end other "
                        "programs that use it, or set a smaller backbone.size"
                    ) from None
                self._fitting_size = len(part) // 2
            else:
                start += len(part)
                continue
            # Outside the handler, whose traceback keeps the tensors of the failed pass alive.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return results

    def _overflow_error(self, batch: PendingBatch, records: Tensor) -> BrainkitError:
        bad = records.isfinite().logical_not()
        row = int(bad.any(1).nonzero()[0])
        layer = next(name for name, parts in self.layout.slices.items() if any(bad[row, part].any() for part in parts))
        local, global_ = (part[layer] for part in self._forward(batch.images[row : row + 1], mixed=False))
        image = batch.paths[row] if batch.paths else f"image {row} of the batch"
        start = f"{self.backbone.name}: layer {layer}: {image}:"
        if not (local.isfinite().all() and global_.isfinite().all()):
            kind = "NaN" if local.isnan().any() or global_.isnan().any() else "infinite"
            return BrainkitError(
                f"{start} the network itself gives {kind} tokens for this image; check its weights, and divisions and "
                "logarithms in its code"
            )
        dtype = str(self.dtype).removeprefix("torch.")
        advice = "" if dtype == "bfloat16" else "set data.token_dtype=bfloat16, or "
        largest = max(local.abs().max().item(), global_.abs().max().item())
        return BrainkitError(f"{start} tokens reach {largest:.3g}, too large for {dtype}; {advice}choose other layers")


def _default_batch_size(device: torch.device, size: int) -> int:
    """A similar number of pixels for every input size: 16 images of 256 x 256 on a CPU, 128 on CUDA."""
    limit = 128 if device.type == "cuda" else 16
    return max(1, min(limit, int(limit * (256 / size) ** 2)))
