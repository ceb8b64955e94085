"""squared_norm, segment_pool and gather_points in Triton against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import interpolation, launch, reference, torch_ops
from gansegctl.kernels.interpolation import upsample

SIZE = (11, 13)
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
MODES = pytest.mark.parametrize("mode", interpolation.MODES)


@pytest.fixture()
def points(draw):
    """23 pixels of two images, some of them twice."""
    place = (draw(20, 3).abs() * 7).long() % torch.tensor([2, *SIZE], device=draw(1).device)
    return torch.cat([place, place[:3]])


@MODES
@pytest.mark.parametrize("native", [(3, 4), (11, 13), (1, 17)])
def test_squared_norms(mode, native, draw):
    x = draw(2, 5, *native)
    ours = kernels.squared_norm(x, SIZE, mode, backend="triton")
    assert torch.allclose(ours, upsample(x, SIZE, mode).square().sum(dim=1), atol=1e-10)


@BOTH
def test_squared_norms_are_no_worse_than_torchs_and_are_summed_in_float32(dtype, draw, no_worse):
    x = draw(1, 70, 4, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    ours = kernels.squared_norm(x, SIZE, backend="triton")
    exact = upsample(x.double(), SIZE).square().sum(dim=1)
    assert ours.dtype == torch.float32
    no_worse(ours, torch_ops.squared_norm(x, SIZE), exact)


def test_squared_norms_refuse_gradients_they_cannot_give(draw):
    x = draw(1, 2, 3, 3).requires_grad_()
    with pytest.raises(ValueError, match="no backward"):
        kernels.squared_norm(x, SIZE, backend="triton")
    with torch.no_grad():
        kernels.squared_norm(x, SIZE, backend="triton")
    assert kernels.squared_norm(x, SIZE).requires_grad  # auto: plain torch has them


@MODES
@BOTH
def test_sums_over_weights(mode, dtype, draw, no_worse):
    x, weights = draw(2, 4, 3, 5).to(dtype), draw(2, 3, *SIZE).to(dtype)
    ours = kernels.segment_pool(weights, [x], mode, backend="triton")
    exact = torch.einsum("nkhw,nchw->kc", weights.double(), upsample(x.double(), SIZE, mode))
    assert ours.dtype == torch.float32
    no_worse(ours, torch_ops.segment_pool(weights, [x], mode), exact)


@MODES
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_sums_over_labels_without_one_hot_maps(mode, kind, draw):
    x = draw(2, 4, 5, 3)
    labels = (draw(2, SIZE[1], SIZE[0]).abs() * 2).long().clamp(max=3).to(kind).transpose(1, 2)  # not contiguous
    labels[0, :2] = 255
    ours = kernels.segment_pool_labels(labels, [x], 3, mode, backend="triton")
    up = upsample(x, SIZE, mode)
    exact = torch.stack([(up * (labels == k)[:, None]).sum(dim=(0, 2, 3)) for k in range(3)])
    assert torch.allclose(ours, exact, atol=1e-10)
    for name in ("reference", "torch"):
        assert torch.allclose(kernels.segment_pool_labels(labels, [x], 3, mode, backend=name), exact, atol=1e-10)


def test_more_classes_than_are_one_hot_at_once(draw):
    x, labels = draw(1, 2, 3, 3), torch.arange(144).view(1, 12, 12)
    sums = kernels.segment_pool_labels(labels, [x.cpu()], 100, backend="torch")
    assert torch.allclose(sums, upsample(x.cpu(), (12, 12)).flatten(2)[0].T[:100], atol=1e-12)


def test_gradients_of_pooled_sums(draw):
    x, weights = draw(1, 2, 3, 2).requires_grad_(), draw(1, 2, 5, 4).requires_grad_()

    def run(weights, x):
        return kernels.segment_pool(weights, [x], backend="triton")

    assert torch.autograd.gradcheck(run, (weights, x), fast_mode=True)
    wanted = torch.autograd.grad(reference.segment_pool(weights, [x]).square().sum(), (weights, x))
    for a, b in zip(torch.autograd.grad(run(weights, x).square().sum(), (weights, x)), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_wrong_segments_are_refused(device):
    x = torch.ones(2, 3, 4, 4, device=device)
    with pytest.raises(ValueError, match="wanted integers"):
        kernels.segment_pool_labels(torch.zeros(2, 8, 8, device=device), [x], 3, backend="triton")
    with pytest.raises(ValueError, match="wanted integers"):
        kernels.segment_pool_labels(torch.zeros(1, 8, 8, dtype=torch.uint8), [x.cpu()], 3)
    with pytest.raises(ValueError, match=r"\[2,K,H,W\]"):
        kernels.segment_pool(torch.zeros(1, 3, 8, 8, device=device), [x], backend="triton")


@MODES
@BOTH
def test_points_and_their_gradients_are_no_worse_than_torchs(mode, dtype, draw, points, no_worse):
    x = draw(2, 20, 3, 5).to(dtype).requires_grad_()
    double = x.detach().double().requires_grad_()
    ours = kernels.gather_points(x, points, SIZE, mode, backend="triton")
    torchs = torch_ops.gather_points(x, points, SIZE, mode)
    n, row, column = points.unbind(1)
    exact = upsample(double, SIZE, mode)[n, :, row, column]
    no_worse(ours, torchs, exact)
    g = draw(*exact.shape).to(dtype)
    grads = [torch.autograd.grad(y, x, g)[0] for y in (ours, torchs)]
    no_worse(*grads, torch.autograd.grad(exact, double, g.double())[0])


def test_points_read_any_strides_and_64_bit_offsets(draw, device, points):
    x = draw(2, 6, 4, 3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        kernels.gather_points(x, points, SIZE, backend="triton"), torch_ops.gather_points(x, points, SIZE)
    )
    far = 2**31 + 6
    wide = torch.empty(far + 8, dtype=torch.float16, device=device).as_strided((1, 2, 2, 2), (1, far, 2, 1))
    wide.copy_(torch.arange(8.0).view(1, 2, 2, 2))
    assert launch.is_wide(wide)
    place = torch.tensor([[0, 2, 4], [0, 0, 0]], device=device)
    got = kernels.gather_points(wide, place, (3, 5), "nearest", backend="triton")
    assert got.tolist() == [[3.0, 7.0], [0.0, 4.0]]


def test_no_points_and_points_outside(draw, device):
    x = draw(2, 3, 4, 4).requires_grad_()
    none = torch.zeros(0, 3, dtype=torch.int64, device=device)
    empty = kernels.gather_points(x, none, SIZE, backend="triton")
    assert empty.shape == (0, 3)
    assert torch.autograd.grad(empty.sum(), x)[0].abs().sum() == 0
    for point in ([2, 0, 0], [0, 11, 0], [0, 0, -1]):
        with pytest.raises(ValueError, match="outside"):
            kernels.gather_points(x, torch.tensor([point], device=device), SIZE, backend="triton")
    with pytest.raises(ValueError, match="int64"):
        kernels.gather_points(x, none.int(), SIZE, backend="triton")


def test_labels_are_pooled_like_one_hot_maps():
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 3, 3, generator=stream)
    labels = torch.randint(0, 3, (1, 6, 6), generator=stream)
    one_hot = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2)
    for ops in (reference, torch_ops):
        sums = ops.segment_pool_labels(labels, [x], 3, "bilinear")
        assert torch.allclose(sums, torch_ops.segment_pool(one_hot, [x]), atol=1e-6)
