"""k-means on a list of points: several runs side by side."""

from __future__ import annotations

import torch
from torch import Tensor

_SEEDING = 2048  # pixels among which k-means++ draws


def parallel_kmeans(
    x: Tensor,
    keep: Tensor,
    k: int,
    iterations: int,
    stream: torch.Generator,
    start: Tensor | None = None,
    sample: int | None = None,
) -> Tensor:
    """R runs of Lloyd's k-means on the rows of x [P,D], run r with the columns keep [R,D] only: labels int64 [R,P].

    All runs share two matrix products a round. A run starts from k-means++ on sampled rows, or from the means of the
    clusters `start` [P]. sample: rows that the centroids are fitted on (None = all). A cluster that loses all its rows
    keeps its centroid.
    """
    runs, (rows, width) = len(keep), x.shape
    mask = keep.to(x.dtype)[:, None]  # [R, 1, D]
    if start is None:
        some = x[torch.randperm(rows, generator=stream)[:_SEEDING].to(x.device)]
        centroids = torch.stack([plus_plus(some * m, k, stream) for m in mask])  # [R, K, D]
    else:
        onehot = torch.nn.functional.one_hot(start, k).to(x.dtype)
        means = (onehot.T @ x) / onehot.sum(dim=0).clamp(min=1)[:, None]
        centroids = means * mask
    fitted = x if sample is None or sample >= rows else x[torch.randperm(rows, generator=stream)[:sample].to(x.device)]
    before = None
    for _ in range(iterations):
        labels = _nearest(fitted, centroids)  # [R, P]
        if before is not None and torch.equal(labels, before):
            break
        onehot = torch.nn.functional.one_hot(labels, k).to(x.dtype)  # [R, P, K]
        counts = onehot.sum(dim=1)  # [R, K]
        sums = (onehot.permute(0, 2, 1).reshape(runs * k, -1) @ fitted).view(runs, k, width) * mask
        means = sums / counts.clamp(min=1)[:, :, None]
        centroids = torch.where((counts > 0)[:, :, None], means, centroids)
        before = labels
    return _nearest(x, centroids)


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Columns that a run leaves out are 0 in its centroids, and so in c·x − ½‖c‖²."""
    runs, k, width = centroids.shape
    scores = x @ centroids.view(runs * k, width).T - 0.5 * centroids.square().sum(dim=2).flatten()
    return scores.view(-1, runs, k).argmax(dim=2).T


def plus_plus(x: Tensor, k: int, stream: torch.Generator) -> Tensor:
    """k of the rows of x [P,D] to start from (k-means++, Arthur & Vassilvitskii 2007): [k,D].

    Each next row is drawn with probability ∝ squared distance to those before; uniformly when all are 0.
    """
    chosen = [int(torch.randint(len(x), (1,), generator=stream))]
    distance = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k:
        odds = distance.double().cpu()
        odds = odds if bool(odds.sum() > 0) else torch.ones_like(odds)
        chosen.append(int(torch.multinomial(odds, 1, generator=stream)))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return x[chosen]
