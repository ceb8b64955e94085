"""Which pictures to annotate: the most typical first, then the least like those already chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from gansegctl.features.pyramid import FeaturePyramid


def descriptors(pyramid: FeaturePyramid) -> Tensor:
    """A whole picture as one vector: the mean of every native map, [N,ΣC]."""
    return torch.cat([x.mean(dim=(2, 3)) for x in pyramid.levels], dim=1)


def choose(vectors: Tensor, count: int) -> list[int]:
    """Places of `count` of the vectors [N,D]: nearest to the mean, then k-centre greedy (Gonzalez 1985).

    Columns are standardised first. Error: ValueError when there are fewer vectors than asked for.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"got {count} of {len(vectors)} vectors; wanted between 1 and all")
    x = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0, correction=0).clamp(min=1e-8)
    chosen = [int(x.square().sum(dim=1).argmin())]
    distance = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < count:
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return chosen
