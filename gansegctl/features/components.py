"""Few numbers a pixel in place of a whole hypercolumn: principal components, or random directions. None is built.

Every level of a pyramid counts equally: its channels are scaled to a total variance of 1. Else the coarse levels,
which have most channels, hold nearly all variance, and components say where a pixel lies instead of what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gansegctl.features.pyramid import FeaturePyramid

_TINY = 1e-12  # variance of a level below which it holds nothing


@dataclass(frozen=True)
class PixelStatistics:
    """Mean [ΣC] and covariance [ΣC,ΣC], float64, of the pixels of hypercolumns whose levels have `widths` channels."""

    widths: tuple[int, ...]
    mean: Tensor
    covariance: Tensor

    @property
    def scale(self) -> Tensor:
        """The factors that give every level a total variance of 1, [ΣC]."""
        parts = self.covariance.diag().split(list(self.widths))
        return torch.cat([v.sum().clamp(min=_TINY).rsqrt().expand(len(v)) for v in parts])


@dataclass(frozen=True)
class Projection:
    """K numbers of every pixel x of a hypercolumn: weight·(x − mean); mean float32 [ΣC], weight float32 [K,ΣC].

    explained: of principal components the share of the variance that each holds, float32 [K]; None of others.
    """

    mean: Tensor
    weight: Tensor
    explained: Tensor | None = None

    def of(self, pyramid: FeaturePyramid) -> Tensor:
        """[N,K,H,W], in the pyramid's dtype and on its device."""
        like = pyramid.levels[0]
        bias = -(self.weight.double() @ self.mean.double())
        return pyramid.project(self.weight.to(like), bias.to(like))

    def first(self, count: int) -> Projection:
        """The first `count` directions alone."""
        return Projection(self.mean, self.weight[:count], None if self.explained is None else self.explained[:count])


def pixel_statistics(pyramids: Iterable[FeaturePyramid]) -> PixelStatistics:
    """Over every pixel of every sample, exactly; the pyramids are read once, one at a time. ValueError for none."""
    pixels, widths = 0, list[int]()
    mean = covariance = torch.zeros((), dtype=torch.float64)
    for pyramid in pyramids:
        more = pyramid.batch * pyramid.size[0] * pyramid.size[1]
        centre, around = (t.cpu() for t in pyramid.covariance())
        share = more / (pixels + more)
        apart = centre - mean if pixels else torch.zeros_like(centre)
        covariance = (1 - share) * covariance + share * around + share * (1 - share) * torch.outer(apart, apart)
        mean = mean + share * apart if pixels else centre
        pixels, widths = pixels + more, pyramid.widths
    if not pixels:
        raise ValueError("got no pyramids; wanted at least one")
    return PixelStatistics(tuple(widths), mean, covariance)


def principal_components(statistics: PixelStatistics, count: int) -> Projection:
    """The `count` directions in which the scaled pixels vary most, the strongest first.

    Signs are chosen so that the largest entry of a direction is positive. ValueError for more directions than channels.
    """
    if not 1 <= count <= len(statistics.mean):
        raise ValueError(f"got {count} components of {len(statistics.mean)} channels; wanted between 1 and all")
    scale = statistics.scale
    values, vectors = torch.linalg.eigh(statistics.covariance * torch.outer(scale, scale))
    values, weight = values.clamp(min=0).flip(0), vectors.T.flip(0)[:count]
    largest = weight.gather(1, weight.abs().argmax(dim=1, keepdim=True))
    explained = values[:count] / values.sum().clamp(min=_TINY)
    return Projection(statistics.mean.float(), (weight * largest.sign() * scale).float(), explained.float())


def random_projection(statistics: PixelStatistics, count: int, seed: int = 0) -> Projection:
    """`count` directions of normal numbers over √count: distances of scaled pixels keep their size on average.

    (Johnson & Lindenstrauss 1984; Dasgupta & Gupta 2003.) The same directions for one seed.
    """
    stream = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, len(statistics.mean), generator=stream) / count**0.5
    return Projection(statistics.mean.float(), (drawn * statistics.scale).float())
