"""Every operation of the pyramid equals the same operation on the dense hypercolumn, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gansegctl import kernels
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.kernels.interpolation import MODES

SIZE = (13, 17)


def pyramid(mode: str, n: int = 2, requires_grad: bool = False) -> FeaturePyramid:
    """Odd sizes, other ratios on the two axes, two levels of one size, one at full size, one larger than it."""
    stream = torch.Generator().manual_seed(3)
    shapes = [(3, 3, 5), (2, 7, 4), (4, 3, 5), (1, 1, 1), (3, *SIZE), (2, 20, 19)]
    levels = [torch.randn(n, *s, generator=stream, dtype=torch.float64).requires_grad_(requires_grad) for s in shapes]
    return FeaturePyramid(levels, SIZE, mode)


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.fixture(params=MODES)
def mode(request) -> str:
    return request.param


@pytest.fixture
def no_dense(monkeypatch):
    """Whatever builds the hypercolumn fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("the hypercolumn was built")

    monkeypatch.setattr(kernels, "upsample_concat", refuse)
    for module in ("reference", "torch_ops", "cpu_ops"):
        monkeypatch.setattr(f"gansegctl.kernels.{module}.upsample_concat", refuse)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() < 1e-11


def test_dense_is_interpolation(mode):
    p = pyramid(mode)
    keywords = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": mode != "bilinear"}
    close(p.dense(), torch.cat([F.interpolate(x, SIZE, **keywords) for x in p.levels], dim=1))


def test_project(mode):
    p, w, b = pyramid(mode), weight(6, 15), weight(6)
    close(p.project(w, b), F.conv2d(p.dense(), w[:, :, None, None], b))


@pytest.mark.parametrize("dilation", [1, 2, 4, 30])
@pytest.mark.parametrize("k", [1, 3])
def test_conv(mode, k, dilation):
    p, w, b = pyramid(mode), weight(5, 15, k, k), weight(5)
    close(p.conv(w, b, dilation), F.conv2d(p.dense(), w, b, padding=dilation * (k // 2), dilation=dilation))


def test_conv_with_a_kernel_of_five(mode):
    p, w = pyramid(mode), weight(2, 15, 5, 5)
    close(p.conv(w), F.conv2d(p.dense(), w, padding=2))


def test_sqnorm(mode):
    p = pyramid(mode)
    close(p.sqnorm(), p.dense().square().sum(dim=1))


def test_assign(mode):
    p, c = pyramid(mode), weight(7, 15)
    dense = p.dense().permute(0, 2, 3, 1).reshape(-1, 15)
    assert torch.equal(p.assign(c).flatten(), torch.cdist(dense, c).argmin(dim=1))


def test_pool(mode):
    p = pyramid(mode)
    onehot = F.one_hot(p.assign(weight(7, 15)), 7).permute(0, 3, 1, 2)
    close(p.pool(onehot), torch.einsum("nkhw,nchw->kc", onehot.double(), p.dense()))


def test_at(mode):
    p = pyramid(mode)
    points = torch.tensor([[0, 0, 0], [1, 12, 16], [1, 5, 7], [0, 12, 0], [0, 6, 16]])
    close(p.at(points), p.dense()[points[:, 0], :, points[:, 1], points[:, 2]])


def test_moments(mode):
    p = pyramid(mode)
    mean, variance = p.moments()
    close(mean, p.dense().mean(dim=(0, 2, 3)))
    close(variance, p.dense().var(dim=(0, 2, 3), correction=0))


def test_an_affine_folds_into_the_weights(mode):
    p, w, scale, shift = pyramid(mode), weight(4, 15), weight(15), weight(15) + 1
    folded, bias = fold_affine(w, None, scale, shift)
    changed = p.dense() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    close(p.project(folded, bias), F.conv2d(changed, w[:, :, None, None]))


def test_nothing_but_dense_builds_the_hypercolumn(mode, no_dense):
    p = pyramid(mode)
    p.project(weight(2, 15))
    p.conv(weight(2, 15, 3, 3), dilation=2)
    p.sqnorm()
    p.pool(torch.ones(2, 1, *SIZE))
    p.assign(weight(3, 15))
    p.at(torch.zeros(1, 3, dtype=torch.int64))
    p.moments()
    with pytest.raises(AssertionError, match="hypercolumn"):
        p.dense()


@pytest.mark.parametrize("operation", ["project", "conv", "sqnorm", "at", "dense"])
def test_gradients(mode, operation):
    """Against finite differences, for the levels and, where there are any, the weights."""
    shapes = [(1, 2, 2, 3), (1, 1, 3, 4)]
    levels = [weight(*s).requires_grad_() for s in shapes]
    w = weight(2, 3, 3, 3) if operation == "conv" else weight(2, 3)

    def run(w, *levels):
        p = FeaturePyramid(levels, (3, 4), mode)
        points = torch.tensor([[0, 2, 3], [0, 1, 2]])
        return {
            "project": lambda: p.project(w),
            "conv": lambda: p.conv(w, dilation=2),
            "sqnorm": p.sqnorm,
            "at": lambda: p.at(points),
            "dense": p.dense,
        }[operation]()

    assert torch.autograd.gradcheck(run, (w.requires_grad_(operation in ("project", "conv")), *levels), fast_mode=True)


def test_float32_stays_within_rounding(mode):
    p = pyramid(mode)
    single = p.map(lambda x: x.float())
    w = weight(6, 15)
    error = (single.project(w.float()).double() - p.project(w)).abs().max() / p.project(w).abs().max()
    assert error < 1e-6


def test_samples_levels_and_joining():
    p = pyramid("bilinear", n=3)
    assert len(p) == 3
    assert p.channels == 15
    close(p[1:2].dense(), p.dense()[1:2])
    close(FeaturePyramid.cat([p[:1], p[1:]]).dense(), p.dense())
    assert p.hypercolumn_bytes == 3 * 15 * 13 * 17 * 8
    assert p.with_mode("nearest").mode == "nearest"


def test_it_says_what_it_holds_in_one_line():
    p = FeaturePyramid([torch.zeros(2, 8, 4, 4), torch.zeros(2, 6, 16, 8)], (16, 8), "nearest").to(torch.float16)
    assert repr(p) == "FeaturePyramid([2, 14, 16, 8] float16 on cpu, nearest, from 8×4×4, 6×16×8)"


def test_what_does_not_fit_is_refused():
    p = pyramid("bilinear")
    with pytest.raises(ValueError, match="mode"):
        FeaturePyramid(p.levels, SIZE, "cubic")
    with pytest.raises(ValueError, match="without levels"):
        FeaturePyramid([], SIZE)
    with pytest.raises(ValueError, match="one N"):
        FeaturePyramid([torch.zeros(1, 1, 2, 2), torch.zeros(2, 1, 2, 2)], SIZE)
    with pytest.raises(ValueError, match="15 channels"):
        p.project(weight(2, 14))
    with pytest.raises(ValueError, match="odd"):
        p.conv(weight(2, 15, 2, 2))
    with pytest.raises(ValueError, match="wanted"):
        p.pool(torch.ones(2, 1, 5, 5))
