"""The readout of every vertex, refitted after training: exact ridge regression on what its selectors read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops.grouped import group_vertices, mixed_tokens
from brainkit.training.datamodule import ResponseSource, TokenSource
from brainkit.training.running_stats import sum_dtype

# Penalties that are tried, relative to the mean eigenvalue of a vertex's second moments.
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-3, 3, 25))
NEIGHBOURS = 8  # nearest vertices whose mean weights a vertex is shrunk to
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a target that are tried, besides none
ROUNDS = 2  # of refits with neighbours, after one without
SLAB_BYTES = 1_000_000_000  # of second moments (v, D, D) at a time; of more than one slab, each round sums them anew
PART_BYTES = 50_000_000  # of second moments that are decomposed at a time, in float64

Fit = tuple[Tensor, Tensor]  # weights (V, D) and offsets (V,), in float64


@torch.no_grad()
def refit(
    model: FactorTopy,
    tokens: TokenSource,
    responses: ResponseSource,
    rows: np.ndarray,
    validation: np.ndarray | None = None,
    *,
    prior: Tensor | None = None,
    batch_size: int = 64,
) -> None:
    """Replace ``weight`` and ``bias`` by the ridge regression of every vertex on the mixed tokens that it reads.

    Every vertex has the penalty that maximises its marginal likelihood (MacKay 1992, Bayesian interpolation): its
    noise is estimated with it, so a noisy vertex is shrunk more, and no image has to be held out. With topography,
    weights are shrunk to a share of the mean weights of the 8 nearest vertices instead of to zero; the share, from 0
    to 1, maximises the likelihood too. That takes the noise of neighbours for independent. Where they share it, their
    mean weights have fitted the vertex's own noise. So validation images decide whether neighbours are used at all.

    Where there is a prior, from another subject, a vertex may instead be shrunk to a share of it, or of its mean with
    the neighbours' weights: likelihood decides for each vertex, and validation images decide whether the prior is used.

    Parameters
    ----------
    model : FactorTopy
        Changed in place; put in evaluation mode. Selectors and bottlenecks stay as they are.
    tokens, responses
        See :class:`brainkit.training.datamodule.EncodingData`.
    rows : int array
        The training images.
    validation : int array, optional
        Images on which the mean r must be higher with neighbours than without them, and higher with the prior than
        with neighbours alone; by default they are used.
    prior : Tensor of shape (V, D), optional
        The model's ``weight`` according to another subject.
    batch_size : int
        Images that are read at a time.
    """
    model.eval()
    n_vertices, n_channels = model.weight.shape
    slabs = torch.arange(n_vertices).split(max(1, SLAB_BYTES // (4 * n_channels**2)))
    held = _sums(model, tokens, responses, rows, slabs[0], batch_size).decomposed() if len(slabs) == 1 else None
    neighbours = _nearest(model)
    others = None if prior is None else prior.cpu().double() / n_channels

    def fitted(before: Tensor | None, others: Tensor | None) -> Fit:
        """Weights and offsets, shrunk to neighbours' weights `before`, to others, or to both."""
        weight = torch.zeros(n_vertices, n_channels, dtype=torch.float64)
        offset = torch.zeros(n_vertices, dtype=torch.float64)
        for slab in slabs:
            moments = held or _sums(model, tokens, responses, rows, slab, batch_size).decomposed()
            for part in torch.arange(len(slab)).split(_part(n_channels)):
                vertices = slab[part]
                targets = [] if neighbours is None or before is None else [before[neighbours[vertices]].mean(1)]
                if others is not None:
                    targets += [(others[vertices] + near) / 2 for near in targets] + [others[vertices]]
                weight[vertices], offset[vertices] = ridge(moments.of(part), targets)
            del moments  # before those of the next slab are made
        return weight, offset

    alone = fitted(None, None)

    def shrunk(others: Tensor | None) -> Fit:
        found = alone
        for _ in range(1 if neighbours is None else ROUNDS):
            found = fitted(found[0], others)
        return found

    plans = [alone]
    plans += [] if neighbours is None else [shrunk(None)]
    plans += [] if others is None else [shrunk(others)]
    scores: list[float] = []
    if validation is not None and len(validation) > 1 and len(plans) > 1:
        for plan in plans:
            _put(model, *plan)
            scores.append(mean_r(model, tokens, responses, validation, batch_size))
    _put(model, *plans[int(np.argmax(scores)) if scores else -1])


@torch.no_grad()
def mean_r(
    model: FactorTopy, tokens: TokenSource, responses: ResponseSource, rows: np.ndarray, batch_size: int = 64
) -> float:
    """The mean over vertices of the correlation on some images; a vertex that has none counts as 0."""
    device, selectors = model.weight.device, model.selectors()
    streamed = StreamingCorrelation(len(model.weight))
    for start in range(0, len(rows), batch_size):
        batch = np.sort(rows[start : start + batch_size])
        local, whole = ({layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(batch))
        streamed.update(model.standardised(local, whole, selectors).cpu().numpy(), responses.rows(batch))
    return float(np.nan_to_num(streamed.r).mean())


def _put(model: FactorTopy, weight: Tensor, offset: Tensor) -> None:
    model.weight.copy_(weight.shape[1] * weight)
    model.bias.copy_(offset)


def _nearest(model: FactorTopy) -> Tensor | None:
    """The nearest other vertices of every vertex (V, k); None without topography, or of one vertex."""
    from scipy.spatial import cKDTree

    count = min(NEIGHBOURS, len(model.weight) - 1)
    if not count or model.free_selectors is not None:
        return None
    coordinates = model.coordinates.cpu().double().numpy()
    nearest = cKDTree(coordinates).query(coordinates, k=count + 1)[1]
    itself = nearest == np.arange(len(nearest))[:, None]
    itself[~itself.any(1), -1] = True  # where more vertices than these have the same coordinates
    return torch.from_numpy(nearest[~itself].reshape(-1, count))


@dataclass(frozen=True)
class Sums:
    """Sums over n images of the mixed tokens z and the z-scored responses y of v vertices; float64 but for `zz`.

    z is relative to an origin near its mean: of a z that varies little about a large mean, float32 sums of squares
    would lose the variance.
    """

    n: int
    origin: Tensor  # (v, D)
    z: Tensor  # (v, D)
    zz: Tensor  # (v, D, D)
    zy: Tensor  # (v, D)
    y: Tensor  # (v,)
    yy: Tensor  # (v,)

    def decomposed(self) -> Moments:
        """The moments about the mean; their eigenvectors overwrite `zz`, so that they need no memory of their own."""
        mean, mean_y = self.z / self.n, self.y / self.n
        covariance = self.zy - self.z * mean_y[:, None]
        values, along = torch.empty_like(covariance), torch.empty_like(covariance)
        for part in torch.arange(len(mean)).split(_part(mean.shape[1])):
            moments = self.zz[part].double().baddbmm(self.z[part, :, None], mean[part, None, :], alpha=-1)
            values[part], vectors = torch.linalg.eigh(moments)
            along[part] = torch.bmm(covariance[part, None], vectors)[:, 0]
            self.zz[part] = vectors.to(self.zz)
        power = (self.yy - self.y * mean_y).clamp(min=0)
        return Moments(self.n, self.origin + mean, mean_y, values.clamp(min=0), self.zz, along, power)


@dataclass(frozen=True)
class Moments:
    """What ridge regression needs of v vertices, of features Z and responses y that are centred over n images."""

    n: int
    mean: Tensor  # (v, D), of the features
    mean_y: Tensor  # (v,)
    values: Tensor  # (v, D), the eigenvalues of Z^T Z
    vectors: Tensor  # (v, D, D), its eigenvectors, in columns
    along: Tensor  # (v, D), Z^T y along them
    power: Tensor  # (v,), y^T y

    def of(self, vertices: Tensor) -> Moments:
        """Those of some vertices, by position (n,)."""
        parts = (self.mean, self.mean_y, self.values, self.vectors, self.along, self.power)
        return Moments(self.n, *(each[vertices] for each in parts))


def ridge(moments: Moments, targets: Sequence[Tensor] = ()) -> Fit:
    """Weights (v, D) and offset (v,) with the penalty, target and share of it of the largest marginal likelihood.

    With centred features Z, responses y and weights that are normal about c t with variance s / p, where t is one of
    the targets (v, D) or zero, y ~ N(c Z t, s (I + Z Z^T / p)); s is at its maximum for each p, t and c. Then -2 log
    likelihood is (n - 1) log(d^T (I + Z Z^T / p)^-1 d) + log det(I + Z Z^T / p), up to a constant, with d = y - c Z t;
    all follow from the eigenvalues and eigenvectors of Z^T Z. n - 1, because the offset is fitted: with n, the smallest
    penalty would win wherever there are no more images than channels.
    """
    values, along, power, vectors = moments.values, moments.along, moments.power, moments.vectors.double()
    unit = values.mean(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)

    smallest = torch.full_like(power, torch.inf)
    penalty, chosen = unit.clone(), torch.zeros_like(along)
    for target, share in [(None, 0.0), *itertools.product(targets, SHARES)]:
        towards = torch.zeros_like(along) if target is None else share * torch.bmm(target[:, None], vectors)[:, 0]
        left = along - values * towards  # Z^T d
        left_power = power - ((2 * along - values * towards) * towards).sum(1)
        for relative in PENALTIES:
            tried = relative * unit
            rest = (left_power - (left.square() / (values + tried)).sum(1)).clamp(min=1e-12)
            surprise = (moments.n - 1) * rest.log() + (values / tried).log1p().sum(1)
            better = surprise < smallest
            smallest = torch.where(better, surprise, smallest)
            penalty = torch.where(better[:, None], tried, penalty)
            chosen = torch.where(better[:, None], towards, chosen)
    weight = torch.bmm(vectors, (chosen + (along - values * chosen) / (values + penalty))[:, :, None])[..., 0]
    return weight, moments.mean_y - (weight * moments.mean).sum(1)


def _part(n_channels: int) -> int:
    """Vertices whose second moments are decomposed at a time."""
    return max(1, PART_BYTES // (8 * n_channels**2))


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
    z = zz.new_zeros(len(slab), channels, dtype=sum_dtype(device))
    zy, y = torch.zeros_like(z), z.new_zeros(len(slab))
    origin, yy = torch.zeros_like(zz[:, 0]), torch.zeros_like(y)
    for start in range(0, len(rows), batch_size):
        batch = np.sort(rows[start : start + batch_size])
        parts = ({layer: value.to(device) for layer, value in part.items()} for part in tokens.batch(batch))
        response = torch.from_numpy(np.ascontiguousarray(responses.rows(batch))).to(device)
        target = ((response - model.response_mean) / model.response_std)[:, slab]
        y += target.sum(0)
        yy += target.square().sum(0)
        local, whole = model.bottlenecked(*parts)
        for vertices, mixed in mixed_tokens(local, whole, groups, chosen.layer_weights, chosen.scale):
            if not start:
                origin[vertices] = mixed.mean(1)
            mixed -= origin[vertices, None]
            zz[vertices] += torch.bmm(mixed.mT, mixed)
            z[vertices] += mixed.sum(1)
            zy[vertices] += torch.bmm(target.t()[vertices, None], mixed)[:, 0]
    origin, z, zy, y, yy = (each.cpu().double() for each in (origin, z, zy, y, yy))
    return Sums(len(rows), origin, z, zz.cpu(), zy, y, yy)
