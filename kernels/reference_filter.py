"""What follows a generator's convolution, in plain torch: low-pass filter, scale, noise, bias, non-linearity, clamp.

Without gradients the steps after the filter are made in place: a large activation is then written over instead of
being written anew four times, which on a CPU (fresh pages) is most of their cost.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def fir_filter2d(x: Tensor, kernel: Tensor, padding: tuple[int, int], gain: float = 1.0, stride: int = 1) -> Tensor:
    """x [N,C,H,W] correlated with the flipped kernel [n,n] (or [n], along both axes), zero-padded (low, high)."""
    c, (low, high) = x.shape[1], padding
    if low == high and low >= 0:
        pad = low  # the convolution's own padding spares a copy of x
    else:
        x, pad = F.pad(x, (low, high, low, high)), 0
    if kernel.ndim == 1:  # long filters are applied along one axis at a time: 2n taps instead of n²
        k = (kernel * math.sqrt(gain)).to(x.dtype).flip(-1)
        x = F.conv2d(x, k.view(1, 1, -1, 1).expand(c, 1, -1, 1), stride=(stride, 1), padding=(pad, 0), groups=c)
        return F.conv2d(x, k.view(1, 1, 1, -1).expand(c, 1, 1, -1), stride=(1, stride), padding=(0, pad), groups=c)
    k = (kernel * gain).to(x.dtype).flip(-1).flip(-2).expand(c, 1, *kernel.shape).contiguous()
    return F.conv2d(x, k, stride=stride, padding=pad, groups=c)


def filter_activate(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    fir: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
    slope: float = 0.2,
    clamp: float | None = None,
) -> Tensor:
    """Definition of `kernels.filter_activate`: gain is positive, so it may be taken through the leaky ReLU."""
    if fir is not None:
        x = fir_filter2d(x, fir, padding)
    steps = [(scale * gain)[:, :, None, None], (bias * gain).view(1, -1, 1, 1)]
    if noise is not None:
        steps.insert(1, noise * gain)
    factor, *terms = (t.to(x.dtype) for t in steps)
    if torch.is_grad_enabled():
        x = x * factor
        for term in terms:
            x = x + term
        x = F.leaky_relu(x, slope)
        return x if clamp is None else x.clamp(-clamp, clamp)
    x = x.mul_(factor)
    for term in terms:
        x = x.add_(term)
    x = F.leaky_relu_(x, slope)
    return x if clamp is None else x.clamp_(-clamp, clamp)
