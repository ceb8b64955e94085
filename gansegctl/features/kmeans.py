"""k-means on every pixel of many hypercolumns, none of which is built.

A round of Lloyd (1982) is `assign`, one projection, and `pool`, one adjoint: equal to Lloyd on the dense tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gansegctl.features.kmeans_points import plus_plus
from gansegctl.features.pyramid import FeaturePyramid

_SHUFFLED = 1 << 22  # pixels, up to which a sample is drawn without repetition


@dataclass(frozen=True)
class KMeansResult:
    """centroids [K,ΣC]; counts int64 [K], the pixels nearest to each; inertia, the sum over all pixels of ‖x − c‖² to
    the nearest of these centroids; iterations, how often they were moved."""

    centroids: Tensor
    counts: Tensor
    inertia: float
    iterations: int


def kmeans(
    pyramids: Sequence[FeaturePyramid],
    k: int,
    iterations: int = 100,
    seed: int = 0,
    tol: float = 1e-4,
    start: Tensor | None = None,
) -> KMeansResult:
    """Clusters of all pixels of all samples of `pyramids`, which have ΣC channels in common.

    Stops after `iterations` rounds, or when a round lowers the inertia by no more than `tol` of it. Starts from `start`
    [K,ΣC], else from k-means++ (Arthur & Vassilvitskii 2007) on sampled pixels. A cluster that loses all its pixels
    moves to the sampled pixel farthest from every centroid; it stays empty only where the sample has no such pixel.
    Half-precision features are clustered in float32. Deterministic for one seed on one machine.
    Errors: ValueError for k beyond the number of pixels, unequal channels, or a `start` of another shape.
    """
    pixels = sum(p.batch * p.size[0] * p.size[1] for p in pyramids)
    if not 1 <= k <= pixels:
        raise ValueError(f"got {k} clusters for {pixels} pixels; wanted between 1 and one a pixel")
    if iterations < 0:
        raise ValueError(f"got {iterations} iterations; wanted 0 or more")
    widths = {p.channels for p in pyramids}
    if len(widths) > 1:
        raise ValueError(f"got pyramids of {sorted(widths)} channels; wanted the same for all")
    if start is not None and tuple(start.shape) != (k, *widths):
        raise ValueError(f"got start {list(start.shape)}; wanted {[k, *widths]}")

    stream = torch.Generator().manual_seed(seed)
    sample = _sample(pyramids, min(pixels, min(max(32 * k, 512), max(16384, k))), stream)  # [S, ΣC]
    centroids = plus_plus(sample, k, stream) if start is None else start.detach().to(sample)
    power = sum(float(one.sqnorm().double().sum()) for one in _samples(pyramids))  # Σ‖x‖²

    previous, moved = float("inf"), 0
    while True:
        sums, counts = _round(pyramids, centroids)
        wide = centroids.double()
        # Σ‖x−c‖² = Σ‖x‖² − 2 Σ_k c_k·s_k + Σ_k n_k‖c_k‖², with s_k, n_k the sum and the number of a cluster's pixels
        inertia = power - 2 * float((wide * sums).sum()) + float((counts * wide.square().sum(dim=1)).sum())
        inertia = max(inertia, 0.0)
        if moved == iterations or previous - inertia <= tol * previous < float("inf"):
            return KMeansResult(centroids, counts, inertia, moved)
        filled = (counts > 0)[:, None]
        centroids = torch.where(filled, sums / counts.clamp(min=1)[:, None], wide).to(centroids.dtype)
        if not bool(filled.all()):
            centroids = _reseed(centroids, counts, sample)
        previous, moved = inertia, moved + 1


def _samples(pyramids: Sequence[FeaturePyramid]) -> Iterator[FeaturePyramid]:
    """One image at a time, so that K score maps exist for one image only."""
    for pyramid in pyramids:
        for i in range(pyramid.batch):
            yield pyramid[i : i + 1].map(
                lambda x: x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
            )


def _round(pyramids: Sequence[FeaturePyramid], centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Sums float64 [K,ΣC] and counts int64 [K] of the pixels nearest to each centroid."""
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=centroids.device)
    counts = torch.zeros(len(centroids), dtype=torch.int64, device=centroids.device)
    for one in _samples(pyramids):
        part, n = one.pool_labels(one.assign(centroids), len(centroids))
        sums += part
        counts += n
    return sums, counts


def _sample(pyramids: Sequence[FeaturePyramid], size: int, stream: torch.Generator) -> Tensor:
    """Hypercolumns of `size` pixels, none likelier than another, no pixel twice where they are few: [S,ΣC]."""
    areas = [p.size[0] * p.size[1] for p in pyramids for _ in range(p.batch)]
    total = sum(areas)
    if total > _SHUFFLED:  # a permutation of all pixels would outweigh the features; a pixel drawn twice is harmless
        places = torch.randint(total, (size,), generator=stream)
    else:
        places = torch.randperm(total, generator=stream)[:size]
    rows, first = [], 0
    for one, area in zip(_samples(pyramids), areas, strict=True):
        here = places[(places >= first) & (places < first + area)] - first
        width = one.size[1]
        points = torch.stack([torch.zeros_like(here), here // width, here % width], dim=1)
        rows.append(one.at(points.to(one.levels[0].device)))
        first += area
    return torch.cat(rows)


def _reseed(centroids: Tensor, counts: Tensor, sample: Tensor) -> Tensor:
    """Empty clusters move, one after another, to the sampled pixel farthest from all centroids that have pixels."""
    centroids = centroids.clone()
    distance = torch.cdist(sample, centroids[counts > 0]).amin(dim=1)
    for i in (counts == 0).nonzero().flatten().tolist():
        farthest = int(distance.argmax())
        if not bool(distance[farthest] > 0):
            break
        centroids[i] = sample[farthest]
        distance = torch.minimum(distance, (sample - sample[farthest]).square().sum(dim=1).sqrt())
    return centroids
