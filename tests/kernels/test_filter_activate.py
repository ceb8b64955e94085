"""filter_activate: the backends in torch against its formula, in place and not, and Triton against the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gansegctl import kernels
from gansegctl.kernels import torch_ops

FIR = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4] * 2)


def given(draw, dtype, noise="one"):
    """x, scale, bias and noise of a [2,5,9,14] activation; the result is [2,5,8,13] with a filter."""
    maps = {"one": draw(1, 1, 8, 13), "each": draw(2, 1, 8, 13), "none": None}[noise]
    return [t if t is None else t.to(dtype) for t in (draw(2, 5, 9, 14), draw(2, 5).abs(), draw(5), maps)]


def by_formula(x, scale, bias, noise, fir, gain, clamp):
    """With explicit zero padding and a loop over the taps."""
    if fir is not None:
        padded, size = F.pad(x, (1, 1, 1, 1)), fir.shape[0]
        h, w = x.shape[2] + 2 - size + 1, x.shape[3] + 2 - size + 1
        x = sum(
            fir[size - 1 - i, size - 1 - j] * padded[:, :, i : i + h, j : j + w]
            for i in range(size)
            for j in range(size)
        )
    y = x * scale[:, :, None, None] + bias.view(1, -1, 1, 1)
    y = y if noise is None else y + noise
    y = torch.where(y > 0, y, 0.2 * y) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
@pytest.mark.parametrize("noise", ["one", "each", "none"])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_it_is_its_formula(backend, noise, clamp, draw, device):
    x, scale, bias, maps = given(draw, torch.float64, noise)
    skewed = FIR.to(device) + torch.arange(16.0, device=device).view(4, 4) / 50  # shows a flip and a transposition
    for fir in (skewed, None):
        noise_map = maps if fir is not None or maps is None else F.pad(maps, (0, 1, 0, 1))
        wanted = by_formula(x, scale, bias, noise_map, fir, 1.3, clamp)
        with torch.no_grad():
            ours = kernels.filter_activate(
                x.clone(), scale, bias, noise_map, fir, (1, 1), 1.3, 0.2, clamp, backend=backend
            )
        torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_is_no_worse_than_torch(dtype, draw, no_worse):
    x, scale, bias, noise = given(draw, dtype)
    fir = FIR.to(x)
    exact = by_formula(*(t.double() for t in (x, scale, bias, noise, fir)), 1.4, 0.9)
    torchs = by_formula(x, scale, bias, noise, fir, 1.4, 0.9)
    with torch.no_grad():
        ours = kernels.filter_activate(x, scale, bias, noise, fir, (1, 1), 1.4, 0.2, 0.9, backend="triton")
    assert ours.dtype == dtype
    no_worse(ours, torchs, exact)


def test_channels_last_and_other_strides_are_read_and_channels_last_is_kept(draw):
    x, scale, bias, noise = given(draw, torch.float64)
    fir = FIR.to(x)
    wanted = by_formula(x, scale, bias, noise, fir, 1.0, None)
    last = x.contiguous(memory_format=torch.channels_last)
    odd = x.flip(1).transpose(2, 3).contiguous().transpose(2, 3).flip(1)
    for strided in (last, odd):
        ours = kernels.filter_activate(strided, scale, bias, noise, fir, (1, 1), backend="triton")
        torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=1e-12)
        assert strided is odd or ours.is_contiguous(memory_format=torch.channels_last)


def test_without_gradients_it_writes_in_place_and_with_them_it_does_not(draw):
    x, scale, bias, noise = given(draw, torch.float64)
    noise = F.pad(noise, (0, 1, 0, 1))
    kept = x.clone()
    tracked = kernels.filter_activate(x.requires_grad_(), scale, bias, noise, backend="torch")
    assert torch.equal(x.detach(), kept)
    with torch.no_grad():
        given_up = x.detach().clone()
        ours = kernels.filter_activate(given_up, scale, bias, noise, backend="torch")
    assert ours.data_ptr() == given_up.data_ptr() and torch.equal(ours, tracked.detach())


def test_the_reference_has_gradients_and_triton_says_that_it_has_none(draw):
    x, scale, bias, noise = given(draw, torch.float64)
    inputs = [t.requires_grad_() for t in (x, scale, bias, noise)]
    fir = FIR.to(x.device)
    for name in ("reference", "torch"):
        assert torch.autograd.gradcheck(
            lambda *t, name=name: kernels.filter_activate(*t, fir, (1, 1), 1.4, 0.2, 2.0, backend=name), inputs
        )
    with pytest.raises(ValueError, match="no backward"):
        kernels.filter_activate(*inputs, fir, (1, 1), backend="triton")


@pytest.mark.parametrize("padding", [(1, 1), (2, 1), (0, 3)])
def test_a_long_filter_along_both_axes_is_its_outer_product(padding, draw):
    taps = draw(8)
    x = draw(1, 3, 10, 11)
    along = torch_ops.fir_filter2d(x, taps, padding, gain=4.0)
    torch.testing.assert_close(along, torch_ops.fir_filter2d(x, torch.outer(taps, taps), padding, gain=4.0))


def test_wrong_arguments_say_what_was_wanted(draw):
    x, scale, bias, noise = given(draw, torch.float64)
    with pytest.raises(ValueError, match=r"wanted \[N,C,h,w\]"):
        kernels.filter_activate(x, scale[:, :3], bias)
    with pytest.raises(ValueError, match="positive"):
        kernels.filter_activate(x, scale, bias, gain=0.0)
    with pytest.raises(ValueError, match=r"\[n,n\]"), torch.no_grad():
        kernels.filter_activate(x, scale, bias, noise, FIR.to(x)[0], (1, 1), backend="triton")
