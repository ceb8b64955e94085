"""An image's semantic parts: k-means over its hypercolumn, for people to click on.

Clustering a generator's activations pixel by pixel gives parts that follow what is shown (Collins et al., Editing in
Style, CVPR 2020, section 3.1). Here the levels weigh the same: left as they are, the coarse maps with their many
channels would decide alone, and parts would be blocks. Level i is scaled by 1/√(Σ_c var_c), the image itself is one
more level, and so is the place of a pixel at half that weight, which keeps parts in one piece.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Generator
from gansegctl.features.kmeans import kmeans
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.features.select import farthest_first

DETAIL = (16, 48, 144)
"""Clusters at the three levels of detail."""

LARGEST = 256
"""Side in pixels up to which parts are found; on larger images they are found at this size and magnified."""

SPLIT = 4
"""Pieces that a part is split into, at most."""

_COARSEST = 4  # levels of less than a fourth of the side hold the layout, not the outlines
_PLACE = 0.5
_ROUNDS = 20


@torch.no_grad()
def part_features(generator: Generator, ws: Tensor, seed: int, noise: str) -> FeaturePyramid:
    """The pyramid that parts are clustered on: ws [1,num_ws,w] → one image's levels, evenly weighted."""
    side = generator.spec.resolution
    size = min(side, LARGEST)
    finest = max(t.resolution for t in generator.spec.taps)
    taps = [t.name for t in generator.spec.taps if t.resolution * _COARSEST >= min(size, finest)]
    made = generator.synthesize(ws, noise, taps, [seed])
    rows = torch.linspace(-1, 1, size, device=ws.device)
    place = torch.stack(torch.meshgrid(rows, rows, indexing="ij"))[None]  # [1, 2, H, W]
    levels = [*(x.float() for x in made.pyramid.levels), made.image.float()]
    return FeaturePyramid([*(_even(x) for x in levels), _even(place) * _PLACE], (size, size))


def find_parts(features: FeaturePyramid, level: int, side: int) -> np.ndarray:
    """Parts at one of the three levels of detail, numbered from 0 without gaps: int32 [side,side]."""
    count = min(DETAIL[level], features.size[0] * features.size[1])
    found = kmeans([features], count, iterations=_ROUNDS)
    parts = features.assign(found.centroids)[0].cpu().numpy()
    return _magnified(np.unique(parts, return_inverse=True)[1].reshape(parts.shape), side)


def split_part(features: FeaturePyramid, inside: np.ndarray) -> np.ndarray:
    """k-means over the pixels of one part alone: inside bool [H,W] → int32 [H,W], pieces from 0, −1 outside.

    One piece only when its pixels are too few or all alike.
    """
    side, size = inside.shape[0], features.size[0]
    small = np.ascontiguousarray(inside[:: side // size, :: side // size]) if side > size else inside
    places = torch.from_numpy(np.argwhere(small))
    pieces = np.full(small.shape, -1, np.int32)
    if len(places):
        points = torch.cat([torch.zeros(len(places), 1, dtype=places.dtype), places], dim=1)
        x = features.at(points.to(features.levels[0].device)).cpu()  # [P, ΣC]
        pieces[small] = _lloyd(x, min(SPLIT, len(x))).numpy()
    pieces = _magnified(pieces, side)
    return np.where(inside, np.maximum(pieces, 0), -1).astype(np.int32)


def _even(level: Tensor) -> Tensor:
    centred = level - level.mean(dim=(2, 3), keepdim=True)
    return centred / centred.square().mean(dim=(2, 3)).sum().sqrt().clamp(min=1e-8)


def _magnified(parts: np.ndarray, side: int) -> np.ndarray:
    factor = side // parts.shape[0]
    return np.kron(parts, np.ones((factor, factor), parts.dtype)).astype(np.int32) if factor > 1 else parts.astype("i4")


def _lloyd(x: Tensor, count: int) -> Tensor:
    """Farthest-first start, then k-means on the rows of x [P,C]; labels int64 [P] from 0 without gaps."""
    extreme = int((x - x.mean(dim=0)).square().sum(dim=1).argmax())
    centroids = x[farthest_first(x, count, extreme, distinct=True)]
    labels = torch.cdist(x, centroids).argmin(dim=1)
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        counts = torch.bincount(labels, minlength=len(centroids))
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        moved = torch.cdist(x, centroids).argmin(dim=1)
        if bool((moved == labels).all()):
            break
        labels = moved
    return torch.unique(labels, return_inverse=True)[1]
