"""Groups of vertices that read the same channels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from brainkit.errors import UsageError

_FIRST = 200  # clusters of k-means
_DRAWN = 20_000  # vertices that k-means is fitted to, at most
_ITERATIONS = 30


@dataclass(frozen=True, eq=False)
class ChannelClusters:
    """K clusters of V vertices by their readout weights.

    Parameters
    ----------
    labels : array of shape (V,), int32
        0 .. K-1; -1 for vertices without weights. Clusters next to each other in the tree have near numbers.
    centroids : array of shape (K, D)
        Mean direction of the weights of each cluster's vertices, of length 1.
    embedding : array of shape (K, 3)
        Positions such that near clusters are near: the first three principal coordinates of the centroids, each
        within [-1, 1] by one common factor.
    """

    labels: np.ndarray
    centroids: np.ndarray
    embedding: np.ndarray

    def __len__(self) -> int:
        return len(self.centroids)


def cluster_channels(weights: np.ndarray, clusters: int = 20, *, seed: int = 0) -> ChannelClusters:
    """Cluster vertices by the direction of their readout weights.

    k-means into up to 200 small clusters, whose centroids are then joined by Ward's method, as in *Brain Decodes Deep
    Nets* (arXiv 2312.01280). The same weights and seed give the same clusters.

    Parameters
    ----------
    weights : array of shape (V, D)
        Each row is divided by its length. Rows of zeros or with NaN belong to no cluster.
    clusters : int
        At most this many: fewer if there are fewer different rows.
    seed : int
        Of the starting points of k-means.

    Raises
    ------
    UsageError
        If the weights are not (V, D), none is known, or `clusters` is below 1.
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.cluster.vq import kmeans2, vq

    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or clusters < 1:
        raise UsageError(f"expected weights (V, D) and at least one cluster, got {weights.shape} and {clusters}")
    lengths = np.linalg.norm(weights, axis=1)
    known = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    if not len(known):
        raise UsageError("weights: no vertex has any, so there is nothing to cluster")
    rows = weights[known] / lengths[known, None]
    random = np.random.default_rng(seed)
    drawn = rows if len(rows) <= _DRAWN else rows[random.choice(len(rows), _DRAWN, replace=False)]
    different = len(np.unique(drawn, axis=0))
    first = min(_FIRST, max(clusters, different // 5), different)
    start = _spread_out(drawn, first, random)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # those are left out below
        centres, _ = kmeans2(drawn, start, iter=_ITERATIONS, minit="matrix")
    of_row = vq(rows, centres)[0]
    used, of_row = np.unique(of_row, return_inverse=True)
    if len(used) > 1:
        tree = linkage(centres[used], "ward", optimal_ordering=True)
        group = fcluster(tree, clusters, "maxclust")
        in_order = list(dict.fromkeys(group[leaves_list(tree)].tolist()))
        group = np.array([in_order.index(each) for each in group.tolist()])
    else:
        group = np.zeros(1, np.int64)
    labels = np.full(len(weights), -1, np.int32)
    labels[known] = group[of_row]
    means = np.stack([rows[group[of_row] == cluster].mean(axis=0) for cluster in range(group.max() + 1)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return ChannelClusters(labels, means, _embedding(means))


def _spread_out(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Starting points by k-means++ (Arthur and Vassilvitskii 2007): different, far apart. SciPy's takes minutes."""
    chosen = [rows[random.integers(len(rows))]]
    nearest = ((rows - chosen[0]) ** 2).sum(axis=1)
    for _ in range(count - 1):
        nearest[nearest < 1e-24] = 0
        chosen.append(rows[random.choice(len(rows), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((rows - chosen[-1]) ** 2).sum(axis=1))
    return np.stack(chosen)


def _embedding(points: np.ndarray) -> np.ndarray:
    """Principal coordinates, with signs that do not depend on the solver. (K, 3)."""
    left, sizes, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    found = np.zeros((len(points), 3))
    width = min(3, len(sizes))
    found[:, :width] = (left * sizes)[:, :width]
    return found / max(np.abs(found).max(), 1e-12)
