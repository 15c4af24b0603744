"""Mean, s.d. and correlation of every layer's tokens over the training images, in one pass over the token cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy

# Enough for the correlations of a layer's channels.
IMAGES_FOR_MOMENTS = 2000
# Numbers read at a time.
_BLOCK = 2**25

Part = tuple[TokenCache, np.ndarray]


def fit_statistics(
    model: FactorTopy,
    tokens: TokenCache | Sequence[Part],
    rows: np.ndarray | None = None,
    *,
    device: str | torch.device = "cpu",
) -> None:
    """Set the model's mean, s.d. and correlation of every layer's tokens to those of the training images.

    An image counts once, however often and in however many caches it is.

    Parameters
    ----------
    model : FactorTopy
        Its ``local_statistics`` and ``global_statistics`` are changed in place.
    tokens : TokenCache or sequence of (TokenCache, rows)
        Tokens of all images; of several subjects, each with its own training images.
    rows : int array, optional
        The training images, where `tokens` is one cache; by default all.
    device : str or torch.device
        Where the sums are computed.
    """
    if isinstance(tokens, TokenCache):
        tokens = [(tokens, np.arange(len(tokens)) if rows is None else np.asarray(rows))]
    parts = list(_distinct(tokens))
    first = parts[0][0]
    total = sum(len(chosen) for _, chosen in parts)
    for_moments = np.zeros(total, bool)
    for_moments[np.linspace(0, total - 1, min(total, IMAGES_FOR_MOMENTS)).astype(int)] = True
    sums = {
        (layer, kind): _Sums(width, torch.device(device)) for layer, width in first.widths.items() for kind in (0, 1)
    }
    done = 0
    for cache, records in _blocks(parts, torch.device(device)):
        chosen = torch.from_numpy(np.flatnonzero(for_moments[done : done + len(records)])).to(records.device)
        done += len(records)
        offsets = cache.layout.by_layer(cache.offsets)
        for layer, width in cache.layout.widths:
            for kind, columns in enumerate(cache.layout.slices[layer]):
                values = records[:, columns].view(len(records), width, -1)
                sums[layer, kind].add(values, offsets[layer][kind], chosen)
    for (layer, kind), summed in sums.items():
        statistics = (model.local_statistics, model.global_statistics)[kind][layer.replace(".", "_")]
        statistics.set(*summed.result())  # type: ignore[operator]


class _Sums:
    """Sums over the tokens of one kind and layer, about a centre near their mean, so that float32 is enough."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.centre: np.ndarray | None = None
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if device.type == "mps" else device
        self.count, self.count_chosen = 0, 0
        self.total, self.square, self.total_chosen = torch.zeros(3, width, dtype=torch.float64, device=device)
        self.products = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, values: Tensor, offset: np.ndarray, chosen: Tensor) -> None:
        """Add tokens (k, C, P), in half precision about `offset` (C,); products are of the images `chosen` alone."""
        images, width, cells = values.shape
        block = torch.empty(width, images, cells, device=values.device)
        block.copy_(rearrange(values, "b c p -> c b p"))
        if self.centre is None:
            self.centre = offset + block.mean((1, 2)).cpu().numpy().astype(np.float64)
        block += torch.from_numpy((offset - self.centre).astype(np.float32)).to(block.device)[:, None, None]
        part = block if len(chosen) == images else block[:, chosen]
        rows, part = rearrange(block, "c b p -> c (b p)"), rearrange(part, "c b p -> c (b p)")
        device = self.total.device
        self.total += rows.sum(1).to(device)
        self.square += (rows * rows).sum(1).to(device)
        self.total_chosen += part.sum(1).to(device)
        self.products += _products(part).to(device)
        self.count += rows.shape[1]
        self.count_chosen += part.shape[1]

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (C,), s.d. (C,) and correlation matrix (C, C), over images and grid cells."""
        assert self.centre is not None
        shift = (self.total / self.count).cpu().numpy()  # of the mean from the centre
        mean = self.centre + shift
        std = np.sqrt(np.maximum((self.square / self.count).cpu().numpy() - shift**2, 0))
        # A channel that does not vary, up to rounding, has s.d. 0: the model leaves it out.
        std[std <= 1e-6 * np.sqrt(mean**2 + std**2)] = 0.0
        inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
        across = np.outer((self.total_chosen / self.count_chosen).cpu().numpy(), shift)
        moment = (self.products / self.count_chosen).cpu().numpy() - across - across.T + np.outer(shift, shift)
        return mean, std, moment * np.outer(inverse, inverse)


def _products(rows: Tensor) -> Tensor:
    """rows (C, N) @ rows.T; on a CPU by oneDNN, which takes half of MKL's time on AMD's processors."""
    if rows.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return rows @ rows.T
    packed = rows.to_mkldnn()
    return torch.nn.functional.linear(packed, packed).to_dense()


def _distinct(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts without the rows whose image is in an earlier row."""
    seen: set[bytes] = set()
    for cache, rows in parts:
        new = []
        for row in rows.tolist():
            if cache.images[row] not in seen:
                seen.add(cache.images[row])
                new.append(row)
        if new:
            yield cache, np.array(new)


def _blocks(parts: Sequence[Part], device: torch.device) -> Iterator[tuple[TokenCache, Tensor]]:
    """Records on the device; the next ones are read while these are worked on."""
    jobs = [
        (cache, rows[start : start + size])
        for cache, rows in parts
        for size in [max(1, _BLOCK // cache.record)]
        for start in range(0, len(rows), size)
    ]
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(jobs[0][0].records, jobs[0][1])
        for k, (cache, _) in enumerate(jobs):
            records = waiting.result()
            if k + 1 < len(jobs):
                following, rows = jobs[k + 1]
                waiting = reader.submit(following.records, rows)
            yield cache, records.to(device)
