"""Which pictures to annotate: the most typical first, then the least like those already chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from gansegctl.features.pyramid import FeaturePyramid


def descriptors(pyramid: FeaturePyramid) -> Tensor:
    """A whole picture as one vector: the mean of every native map, [N,ΣC]."""
    return torch.cat([x.mean(dim=(2, 3)) for x in pyramid.levels], dim=1)


def choose(vectors: Tensor, count: int) -> list[int]:
    """Places of `count` of the vectors [N,D]: the most typical, then farthest first. Columns are standardised before.

    Errors: ValueError when there are fewer vectors than asked for, or when one is not finite.
    """
    if not bool(vectors.isfinite().all()):
        raise ValueError("got descriptors with nan or infinity; wanted finite ones")
    vectors = vectors.double()
    x = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0, correction=0).clamp(min=1e-8)
    return farthest_first(x, count, most_typical(x))


def most_typical(vectors: Tensor) -> int:
    """The place of the one of the vectors [N,D] that is nearest to their mean."""
    return int((vectors - vectors.mean(dim=0)).square().sum(dim=1).argmin())


def farthest_first(vectors: Tensor, count: int, first: int = 0) -> list[int]:
    """Places of `count` of the vectors [N,D], none twice: `first`, then always the farthest from all before.

    k-centre greedy: no vector is left farther from its nearest chosen one than twice the best possible (Gonzalez 1985).
    Error: ValueError when there are fewer vectors than asked for.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"got {count} of {len(vectors)} vectors; wanted between 1 and all")
    chosen = [first]
    distance = (vectors - vectors[first]).square().sum(dim=1)
    while len(chosen) < count:
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (vectors - vectors[chosen[-1]]).square().sum(dim=1))
    return chosen
