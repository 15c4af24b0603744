"""The readout of every vertex, refitted after training: exact ridge regression on what its selectors read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainkit.model.factor_topy import FactorTopy
from brainkit.ops.grouped import group_vertices, mixed_tokens
from brainkit.training.datamodule import ResponseSource, TokenSource

# Penalties that are tried, relative to the mean eigenvalue of a vertex's second moments.
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-3, 3, 25))
SLAB_BYTES = 256_000_000  # of second moments (v, D, D) at a time; for every slab the images are read once


@torch.no_grad()
def refit(
    model: FactorTopy, tokens: TokenSource, responses: ResponseSource, rows: np.ndarray, *, batch_size: int = 64
) -> None:
    """Replace ``weight`` and ``bias`` by the ridge regression of every vertex on the mixed tokens that it reads.

    Every vertex has the penalty that maximises its marginal likelihood (MacKay 1992, Bayesian interpolation): its
    noise is estimated with it, so a noisy vertex is shrunk more, and no image has to be held out.

    Parameters
    ----------
    model : FactorTopy
        Changed in place; put in evaluation mode. Selectors and bottlenecks stay as they are.
    tokens, responses
        See :class:`brainkit.training.datamodule.EncodingData`.
    rows : int array
        The training images.
    batch_size : int
        Images that are read at a time.
    """
    model.eval()
    n_vertices, n_channels = model.weight.shape
    for slab in torch.arange(n_vertices).split(max(1, SLAB_BYTES // (4 * n_channels**2))):
        sums = _sums(model, tokens, responses, rows, slab.to(model.weight.device), batch_size)
        weight, offset = ridge(sums)
        model.weight[slab] = (n_channels * weight).to(model.weight)
        model.bias[slab] = offset.to(model.bias)


@dataclass(frozen=True)
class Sums:
    """Sums over n images of the mixed tokens z and the z-scored responses y of v vertices; float64 but for `zz`."""

    n: int
    z: Tensor  # (v, D)
    zz: Tensor  # (v, D, D)
    zy: Tensor  # (v, D)
    y: Tensor  # (v,)
    yy: Tensor  # (v,)


def ridge(sums: Sums) -> tuple[Tensor, Tensor]:
    """Weights (v, D) and offset (v,) with the penalty of the largest marginal likelihood.

    With centred features Z and responses y, y ~ N(0, s (I + Z Z^T / p)); s is at its maximum for each p. Then -2 log
    likelihood is n log(y^T (I + Z Z^T / p)^-1 y) + log det(I + Z Z^T / p), up to a constant; both follow from the
    eigenvalues of Z^T Z.
    """
    mean, mean_y = sums.z / sums.n, sums.y / sums.n
    moments = sums.zz.double().baddbmm(sums.z[:, :, None], mean[:, None, :], alpha=-1)
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp(min=0)
    along = torch.bmm((sums.zy - sums.z * mean_y[:, None])[:, None], vectors)[:, 0]  # Z^T y, along the eigenvectors
    power = (sums.yy - sums.y * mean_y).clamp(min=0)
    unit = values.mean(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)

    smallest = torch.full_like(power, torch.inf)
    best = unit.clone()
    for relative in PENALTIES:
        penalty = relative * unit
        rest = (power - (along.square() / (values + penalty)).sum(1)).clamp(min=1e-12)
        surprise = sums.n * rest.log() + (values / penalty).log1p().sum(1)
        better = surprise < smallest
        smallest = torch.where(better, surprise, smallest)
        best = torch.where(better[:, None], penalty, best)
    weight = torch.bmm(vectors, (along / (values + best))[:, :, None])[..., 0]
    return weight, mean_y - (weight * mean).sum(1)


def _sums(
    model: FactorTopy,
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    slab: Tensor,
    batch_size: int,
) -> Sums:
    device, channels = model.weight.device, model.weight.shape[1]
    chosen = model.selectors().of(slab)
    groups = group_vertices(chosen.locations, *model.grid)
    zz = torch.zeros(len(slab), channels, channels, device=device)
    z = zz.new_zeros(len(slab), channels, dtype=torch.float64)
    zy, y = torch.zeros_like(z), z.new_zeros(len(slab))
    yy = torch.zeros_like(y)
    for start in range(0, len(rows), batch_size):
        batch = np.sort(rows[start : start + batch_size])
        parts = ({layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(batch))
        response = torch.from_numpy(np.ascontiguousarray(responses.rows(batch))).to(device)
        target = ((response - model.response_mean) / model.response_std)[:, slab]
        y += target.sum(0)
        yy += target.square().sum(0)
        local, whole = model.bottlenecked(*parts)
        for vertices, mixed in mixed_tokens(local, whole, groups, chosen.layer_weights, chosen.scale):
            zz[vertices] += torch.bmm(mixed.mT, mixed)
            z[vertices] += mixed.sum(1)
            zy[vertices] += torch.bmm(target.t()[vertices, None], mixed)[:, 0]
    return Sums(len(rows), z.cpu(), zz.cpu(), zy.cpu(), y.cpu(), yy.cpu())
