"""Which images to annotate: those that stand for the others (k-medoids), or the most typical and then the least like
those already chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gansegctl.features.pyramid import FeaturePyramid


def descriptors(pyramid: FeaturePyramid) -> Tensor:
    """A whole image as one vector: the mean of every native map, [N,ΣC]."""
    return torch.cat([x.mean(dim=(2, 3)) for x in pyramid.levels], dim=1)


def choose(vectors: Tensor, count: int) -> list[int]:
    """Places of `count` of the vectors [N,D]: the most typical, then farthest first. Columns are standardised before.

    Errors: ValueError when there are fewer vectors than asked for, or when one is not finite.
    """
    x = standardised(vectors)
    return farthest_first(x, count, most_typical(x))


def standardised(vectors: Tensor) -> Tensor:
    """Every column of [N,D] with mean 0 and deviation 1, in float64. ValueError for a value that is not finite."""
    if not bool(vectors.isfinite().all()):
        raise ValueError("got descriptors with nan or infinity; wanted finite ones")
    vectors = vectors.double()
    return (vectors - vectors.mean(dim=0)) / vectors.std(dim=0, correction=0).clamp(min=1e-8)


def k_medoids(vectors: Tensor, count: int) -> tuple[list[int], list[int]]:
    """Places of the `count` vectors of [N,D] that lie nearest to all others, and how many of the N each stands for.

    Partitioning around medoids (Kaufman and Rousseeuw 1990): the sum of the distances to the nearest medoid, built up
    greedily, then lowered by the best exchange of a medoid until none helps. The largest group comes first. N up to a
    few thousand. Error: ValueError when there are fewer vectors than asked for.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"got {count} of {len(vectors)} vectors; wanted between 1 and all")
    distance = torch.cdist(vectors.double(), vectors.double(), compute_mode="donot_use_mm_for_euclid_dist")  # [N,N]
    distance.fill_diagonal_(0.0)
    chosen: list[int] = []
    nearest = torch.full((len(vectors),), torch.inf, dtype=torch.float64, device=vectors.device)
    for _ in range(count):
        cost = torch.minimum(distance, nearest[None]).sum(dim=1)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
    total = float(nearest.sum())
    while True:
        best = (total * (1 - 1e-9), -1, -1)
        for i in range(count):
            others = distance[[c for j, c in enumerate(chosen) if j != i]]
            kept = others.min(dim=0).values if count > 1 else torch.full_like(nearest, torch.inf)
            cost = torch.minimum(distance, kept[None]).sum(dim=1)
            cost[chosen] = torch.inf
            place = int(cost.argmin())
            best = min(best, (float(cost[place]), i, place))
        if best[1] < 0:
            break
        total, chosen[best[1]] = best[0], best[2]
    group = distance[chosen].argmin(dim=0)
    sizes = torch.bincount(group, minlength=count).tolist()
    order = sorted(range(count), key=lambda i: (-sizes[i], chosen[i]))
    return [chosen[i] for i in order], [sizes[i] for i in order]


def most_typical(vectors: Tensor) -> int:
    """The place of the one of the vectors [N,D] that is nearest to their mean."""
    return int((vectors - vectors.mean(dim=0)).square().sum(dim=1).argmin())


def farthest_first(vectors: Tensor, count: int, first: int = 0, distinct: bool = False) -> list[int]:
    """Places of `count` of the vectors [N,D], none twice: `first`, then always the farthest from all before.

    k-centre greedy: no vector is left farther from its nearest chosen one than twice the best possible (Gonzalez 1985).
    distinct: no vector equal to one before is chosen, so there may be fewer than `count`. Error: ValueError when there
    are fewer vectors than asked for.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"got {count} of {len(vectors)} vectors; wanted between 1 and all")
    chosen = [first]
    distance = (vectors - vectors[first]).square().sum(dim=1)
    while len(chosen) < count and (not distinct or bool(distance.max() > 0)):
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (vectors - vectors[chosen[-1]]).square().sum(dim=1))
    return chosen
