"""Images through a frozen network, as token records: batched, in the device's arithmetic, within its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brainkit.backbones import Backbone
from brainkit.errors import BrainkitError
from brainkit.features.cache import DTYPES, Tokens
from brainkit.features.store import Layout
from brainkit.images import Preprocessing, normalise
from brainkit.ops.token_grid import to_grid

# Images that every store's offsets are measured on.
_PROBES = 8


@dataclass
class Flight:
    """A batch whose records may still be computed on a GPU."""

    images: Tensor
    records: Tensor  # on the CPU
    finite: Tensor
    arrived: torch.cuda.Event | None


class TokenPass:
    """A backbone on a device, giving the records of batches of images.

    On CUDA the network runs under float16 autocast: products in float16, sums, normalisation and softmax in float32.
    Elsewhere it runs in float32.

    Parameters
    ----------
    backbone : Backbone
        Moved to the device.
    grid : (int, int)
        Rows and columns that every layer's token map is brought to.
    dtype : str
        Of the records: float16 or bfloat16.
    device : str
        Where the backbone runs.
    batch_size : int, optional
        Images of one pass; by default as many as suit the device. It halves where the GPU's memory does not suffice.
    mixed : bool, optional
        Whether the network runs under autocast; by default on CUDA alone.
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
        self.batch_size = batch_size or _batch_size(self.device, backbone.preprocessing.size)
        self._largest = self.batch_size

    @property
    def arithmetic(self) -> str:
        """What the network computes in."""
        return "float16 autocast" if self.mixed else "float32"

    def tokens(self, images: Tensor) -> Tokens:
        """Local (b, C, H, W) and global (b, C) tokens on the grid, float32 on the device."""
        pieces = self._in_pieces(images, lambda piece: self._forward(piece, self.mixed))
        return (
            {layer: torch.cat([local[layer] for local, _ in pieces]) for layer in self.backbone.layer_names},
            {layer: torch.cat([whole[layer] for _, whole in pieces]) for layer in self.backbone.layer_names},
        )

    def measure(self) -> np.ndarray:
        """Mean and s.d. of each channel over images that are always the same: (2, 2 * channels), float32.

        They do not depend on which images a store happens to see first, so that the same image has the same record
        in every store of its kind.
        """
        preprocessing = self.backbone.preprocessing
        images = normalise(probe_images(preprocessing), preprocessing)
        local, whole = self.tokens(torch.from_numpy(images))
        values = [tokens.transpose(0, 1).flatten(1) for part in (local, whole) for tokens in part.values()]
        for layer, value in zip(2 * self.backbone.layer_names, values, strict=True):
            if not value.isfinite().all():
                raise BrainkitError(f"layer {layer}: the backbone gave tokens that are not finite; check its weights")
        mean = torch.cat([value.mean(1) for value in values])
        std = torch.cat([value.std(1, correction=0) for value in values])
        return torch.stack([mean, std]).cpu().numpy()

    def launch(self, images: Tensor, offsets: np.ndarray) -> Flight:
        """Start on a batch of normalised images (b, 3, S, S); on CUDA nothing is waited for."""
        records = self._records(images, offsets, self.mixed)
        finite = records.isfinite().all()
        if self.device.type != "cuda":
            return Flight(images, records.cpu(), finite, None)
        host = torch.empty(records.shape, dtype=records.dtype, pin_memory=True)
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(records, non_blocking=True)
        flag.copy_(finite, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))
        return Flight(images, host, flag, arrived)

    def land(self, flight: Flight, offsets: np.ndarray) -> np.ndarray:
        """The records of a batch: (b, record), int16 bits of half-precision numbers about the offsets.

        Raises
        ------
        BrainkitError
            If a token is not finite, or too large for the records.
        """
        if flight.arrived is not None:
            flight.arrived.synchronize()
        records = flight.records
        if not flight.finite:
            # Products in float16 may overflow where float32 does not.
            records = self._records(flight.images, offsets, mixed=False).cpu()
            if not records.isfinite().all():
                raise BrainkitError(self._what_is_wrong(flight.images, records))
        return records.view(torch.int16).numpy()

    def _records(self, images: Tensor, offsets: np.ndarray, mixed: bool) -> Tensor:
        about = {
            layer: (torch.from_numpy(local).to(self.device)[:, None, None], torch.from_numpy(whole).to(self.device))
            for layer, (local, whole) in self.layout.offsets_of(offsets).items()
        }

        def piece(part: Tensor) -> Tensor:
            local, whole = self._forward(part, mixed)
            numbers = [(local[layer] - about[layer][0]).to(self.dtype).flatten(1) for layer in about]
            numbers += [(whole[layer] - about[layer][1]).to(self.dtype) for layer in about]
            return torch.cat(numbers, 1)

        with torch.inference_mode():
            return torch.cat(self._in_pieces(images, piece))

    def _forward(self, images: Tensor, mixed: bool) -> Tokens:
        with torch.inference_mode():
            images = images.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.float16, enabled=mixed):
                local, whole = self.backbone.get_tokens(images)
            # Out of autocast's reach, for it would round the resizing too.
            names = self.backbone.layer_names
            on_grid = {layer: to_grid(local[layer].float(), self.grid) for layer in names}
            return on_grid, {layer: whole[layer].float() for layer in names}

    def _in_pieces(self, images: Tensor, run: Callable) -> list:
        """Run the batch in as many pieces as the device's memory asks for."""
        results: list = []
        start = 0
        while start < len(images):
            piece = images[start : start + self._largest]
            try:
                results.append(run(piece))
            except torch.OutOfMemoryError:
                if len(piece) == 1:
                    raise BrainkitError(
                        f"{self.backbone.name}: {self.device} has too little memory even for one image; end what else "
                        "runs there, or give a smaller backbone.size"
                    ) from None
                self._largest = len(piece) // 2
            else:
                start += len(piece)
                continue
            # Outside the handler, whose traceback keeps the tensors of the failed pass alive.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return results

    def _what_is_wrong(self, images: Tensor, records: Tensor) -> str:
        bad = records.isfinite().logical_not().any(0)
        layer = next(name for name, places in self.layout.places.items() if any(bad[place].any() for place in places))
        local, whole = self._forward(images, mixed=False)
        largest = max(local[layer].abs().max().item(), whole[layer].abs().max().item())
        if not np.isfinite(largest):
            return f"layer {layer}: the backbone gave tokens that are not finite; check its weights"
        return f"layer {layer}: its tokens reach {largest:.3g}, and {self.dtype} cannot hold that; choose other layers"


def probe_images(preprocessing: Preprocessing) -> np.ndarray:
    """Coloured noise with the spectrum of photographs, always the same: (8, S, S, 3), uint8."""
    draw = np.random.default_rng(0)
    size = preprocessing.size
    images = np.zeros((_PROBES, size, size, 3), np.float32)
    for side in (2**k for k in range(1, 8)):
        coarse = draw.integers(0, 256, (_PROBES, side, side, 3), dtype=np.uint8)
        for image, noise in zip(images, coarse, strict=True):
            image += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR), np.float32)
    images -= images.mean((1, 2, 3), keepdims=True)
    images *= 55 / images.std((1, 2, 3), keepdims=True)
    return np.clip(images + 118, 0, 255).astype(np.uint8)


def _batch_size(device: torch.device, size: int) -> int:
    """Images of about as many pixels in all: 16 of 256 x 256 on a CPU, 128 on CUDA."""
    most = 128 if device.type == "cuda" else 16
    return max(1, min(most, int(most * (256 / size) ** 2)))
