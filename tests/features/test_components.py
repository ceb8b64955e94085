"""Principal components and random directions of pixels, against numpy on the dense hypercolumn, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from gansegctl.features.components import pixel_statistics, principal_components, random_projection
from gansegctl.features.pyramid import FeaturePyramid

SIZE = (9, 11)
SHAPES = [(3, 3, 4), (2, 3, 4), (4, 6, 7), (2, *SIZE), (1, 12, 10)]


def pyramid(seed: int, n: int = 1, mode: str = "bilinear") -> FeaturePyramid:
    """Levels of very different spread, with a mean far from 0."""
    stream = torch.Generator().manual_seed(seed)
    levels = [
        10**i * torch.randn(n, *s, generator=stream, dtype=torch.float64) + 5 for i, s in enumerate(SHAPES, start=-2)
    ]
    return FeaturePyramid(levels, SIZE, mode)


def pixels(pyramids: list[FeaturePyramid]) -> np.ndarray:
    """Every pixel of every sample, [P,ΣC]."""
    return torch.cat([p.dense().permute(0, 2, 3, 1).reshape(-1, p.channels) for p in pyramids]).numpy()


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bilinear-corners"])
def test_covariance_is_that_of_the_dense_tensor(mode):
    p = pyramid(0, 3, mode)
    mean, covariance = p.covariance()
    dense = pixels([p])
    assert np.abs(mean.numpy() - dense.mean(axis=0)).max() < 1e-10
    wanted = np.cov(dense, rowvar=False, bias=True)
    assert np.abs(covariance.numpy() - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_statistics_of_several_pyramids_are_those_of_all_their_pixels():
    parts = [pyramid(0, 2), pyramid(1), pyramid(2, 3)]
    found, dense = pixel_statistics(iter(parts)), pixels(parts)
    assert np.abs(found.mean.numpy() - dense.mean(axis=0)).max() < 1e-10
    wanted = np.cov(dense, rowvar=False, bias=True)
    assert np.abs(found.covariance.numpy() - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_components_are_those_of_the_pixels_with_levels_of_one_weight():
    parts = [pyramid(0, 2), pyramid(1)]
    fitted = principal_components(pixel_statistics(parts), 4)
    dense = pixels(parts)
    variance = dense.var(axis=0)
    ends = np.cumsum([0, *parts[0].widths])
    scale = np.concatenate([np.full(b - a, variance[a:b].sum() ** -0.5) for a, b in pairwise(ends)])
    x = (dense - dense.mean(axis=0)) * scale
    _, strength, directions = np.linalg.svd(x, full_matrices=False)
    ours = fitted.weight.double().numpy() / scale
    assert np.abs(np.abs((ours * directions[:4]).sum(axis=1)) - 1).max() < 1e-5
    assert np.allclose(fitted.explained.numpy(), strength[:4] ** 2 / (strength**2).sum(), atol=1e-6)
    assert all(row[np.abs(row).argmax()] > 0 for row in ours)
    values = torch.cat([fitted.of(p).permute(0, 2, 3, 1).reshape(-1, 4) for p in parts]).numpy()
    assert np.abs(values - x @ ours.T).max() < 1e-5
    assert np.abs(values.mean(axis=0)).max() < 1e-5


def test_the_first_components_alone():
    fitted = principal_components(pixel_statistics([pyramid(0)]), 4)
    assert torch.equal(fitted.first(2).weight, fitted.weight[:2])
    assert torch.equal(fitted.first(2).explained, fitted.explained[:2])


def test_random_directions_keep_distances_and_repeat():
    statistics = pixel_statistics([pyramid(0, 2)])
    drawn = random_projection(statistics, 512)
    assert torch.equal(drawn.weight, random_projection(statistics, 512).weight)
    assert not torch.equal(drawn.weight, random_projection(statistics, 512, seed=1).weight)
    x = torch.from_numpy(pixels([pyramid(0, 2)]))[:40] * statistics.scale
    kept = torch.from_numpy(pixels([pyramid(0, 2)]))[:40] @ drawn.weight.double().T
    apart, still = torch.pdist(x), torch.pdist(kept)
    assert ((still / apart - 1).abs() < 0.2).all()


def test_no_pixels_and_too_many_components_are_refused():
    with pytest.raises(ValueError, match="no pyramids"):
        pixel_statistics([])
    with pytest.raises(ValueError, match="13 components of 12 channels"):
        principal_components(pixel_statistics([pyramid(0)]), 13)
