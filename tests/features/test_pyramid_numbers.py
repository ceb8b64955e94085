"""Where the identities are tried hardest: sizes that round badly, offsets, half precision, labels, wrong arguments."""

from __future__ import annotations

import pytest
import torch

from gansegctl.features import FeaturePyramid


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_pixel(p: FeaturePyramid) -> torch.Tensor:
    """Points of all pixels in the order of a flattened [N,H,W]."""
    return torch.cartesian_prod(*(torch.arange(s) for s in (p.batch, *p.size)))


def flat(p: FeaturePyramid) -> torch.Tensor:
    """The hypercolumn as [N·H·W, ΣC]."""
    return p.dense().permute(0, 2, 3, 1).reshape(-1, p.channels)


@pytest.mark.parametrize("full", [82, 94, 110])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_agrees_with_itself_where_torch_rounds_the_index(full, dtype):
    """From 2 pixels to these sizes, torch's index is not ⌊p·native/full⌋ everywhere in float32."""
    p = FeaturePyramid([random(1, 2, 2, 2).to(dtype)], (full, full), "nearest")
    dense, mask = p.dense(), random(1, 3, full, full, seed=1).to(dtype)
    assert torch.equal(p.at(every_pixel(p)), flat(p))
    assert torch.allclose(p.sqnorm(), dense.square().sum(dim=1))
    assert torch.allclose(p.pool(mask), torch.einsum("nkhw,nchw->kc", mask, dense), rtol=1e-4)
    w = random(2, 2, 3, 3, seed=2).to(dtype)
    assert torch.allclose(p.conv(w), torch.nn.functional.conv2d(dense, w, padding=1), atol=1e-5)


def test_float32_moments_survive_a_large_mean():
    p = FeaturePyramid([1000 + random(2, 3, 8, 8)], (32, 24))
    mean, variance = p.to(torch.float32).moments()
    dense = p.dense()
    assert torch.allclose(mean.double(), dense.mean(dim=(0, 2, 3)), rtol=1e-6)
    assert torch.allclose(variance.double(), dense.var(dim=(0, 2, 3), correction=0), rtol=1e-3)


def test_float32_assign_survives_what_centroids_have_in_common():
    p, centroids = FeaturePyramid([1000 + random(1, 4, 8, 8)], (16, 16)), 1000 + random(6, 4, seed=1)
    wanted = torch.cdist(flat(p), centroids).argmin(dim=1)
    assert torch.equal(p.to(torch.float32).assign(centroids.float()).flatten(), wanted)


def test_half_precision_sums_do_not_overflow():
    p = FeaturePyramid([torch.full((1, 512, 8, 8), 30.0)], (256, 256)).to(torch.float16)
    assert torch.allclose(p.sqnorm(), torch.tensor(512 * 900.0), rtol=1e-6)
    assert p.pool(torch.ones(1, 1, 256, 256)).unique().tolist() == [256 * 256 * 30.0]
    mean, variance = p.moments()
    assert mean.dtype == torch.float32
    assert mean.unique().tolist() == [30.0]
    assert variance.abs().max() < 1e-3


def test_a_norm_is_never_negative():
    """Opposite neighbours cancel half-way between them, where float32 can leave less than nothing."""
    for seed in range(20):  # without the clamp some of them end at -1e-6
        x = random(1, 16, 1, 1, seed=seed).float()
        norm = FeaturePyramid([torch.cat([x, -x], dim=3)], (1, 5)).sqnorm()
        assert norm.min() >= 0
        assert norm.max() > 1


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bilinear-corners"])
@pytest.mark.parametrize("native", [(1, 1), (1, 5), (6, 1)])
def test_levels_of_one_row_or_column(mode, native):
    p = FeaturePyramid([random(2, 3, *native)], (6, 5), mode)
    assert torch.allclose(p.sqnorm(), p.dense().square().sum(dim=1))
    assert torch.allclose(p.at(every_pixel(p)), flat(p))


def test_labels_pool_like_their_one_hot_maps_and_ignored_ones_not_at_all():
    p = FeaturePyramid([random(2, 3, 3, 4), random(2, 2, 9, 7)], (9, 7))
    stream = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 70, (2, 9, 7), generator=stream, dtype=torch.uint8)  # more classes than one chunk holds
    labels[0, :2] = 255
    sums, counts = p.pool_labels(labels, 70)
    onehot = torch.stack([labels == k for k in range(70)], dim=1).double()
    assert torch.allclose(sums, torch.einsum("nkhw,nchw->kc", onehot, p.dense()))
    assert counts.tolist() == onehot.sum(dim=(0, 2, 3)).tolist()
    assert counts.sum() == 2 * 9 * 7 - 2 * 7


def test_to_and_detach():
    p = FeaturePyramid([random(1, 2, 3, 3).requires_grad_()], (6, 6))
    assert p.to(torch.float32).levels[0].dtype == torch.float32
    assert p.project(random(1, 2)).requires_grad
    assert not p.detach().project(random(1, 2)).requires_grad


@pytest.mark.parametrize(
    "points",
    [[[0, -1, 0]], [[0, 0, 6]], [[1, 0, 0]], [[0.0, 1.0, 1.0]], [[0, 1]]],
    ids=["above", "right of it", "no such sample", "fractions", "two coordinates"],
)
def test_points_outside_are_refused_not_wrapped(points):
    p = FeaturePyramid([random(1, 2, 3, 3)], (6, 6))
    with pytest.raises(ValueError, match="points"):
        p.at(torch.tensor(points))


def test_arguments_that_mean_nothing_are_refused():
    p = FeaturePyramid([random(1, 2, 3, 3)], (6, 6))
    with pytest.raises(ValueError, match="dilation"):
        p.conv(random(1, 2, 3, 3), dilation=0)
    with pytest.raises(ValueError, match="size"):
        FeaturePyramid(p.levels, (0, 6))
    with pytest.raises(ValueError, match="no pyramids"):
        FeaturePyramid.cat([])
    with pytest.raises(ValueError, match="one size"):
        FeaturePyramid.cat([p, p.with_mode("nearest")])
    with pytest.raises(ValueError, match="labels"):
        p.pool_labels(torch.zeros(1, 5, 6), 2)
    with pytest.raises(ValueError, match="2 channels"):
        p.assign(random(3, 5))
    with pytest.raises(ValueError, match="cannot run here"):
        FeaturePyramid(p.levels, (6, 6), backend="cuda").project(random(1, 2))
