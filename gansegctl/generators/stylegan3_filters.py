"""The low-pass filters of StyleGAN3 and their application: Kaiser, radial jinc, resampling, filtered leaky ReLU.

Source: Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3.2 and appendix C. Kaiser's formulas:
Oppenheim and Schafer, "Discrete-Time Signal Processing", section 7.6 (7.5 in later editions).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.generators.layers import SQRT2

_BLOCK = 64
"""Columns of a banded matrix that one product covers: narrow enough to skip its zeros, wide enough for the product."""
_AT_ONCE = {"cpu": 2**22}
"""Values of the oversampled map that exist at a time: all of it is 4 to 16 times the layer's input."""
_AT_ONCE_ELSEWHERE = 2**26


def lowpass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """A low-pass of sum 1: float32 [taps], or [taps, taps] when radial; None, the identity, for one tap.

    cutoff, width of the transition band and sampling rate in cycles per image width.
    """
    if taps == 1:
        return None
    place = np.arange(taps) - (taps - 1) / 2
    window = np.kaiser(taps, _kaiser_beta(taps, width / (rate / 2)))
    if radial:
        r = np.hypot(*np.meshgrid(place, place)) / rate
        kernel = _jinc(r, cutoff) * np.outer(window, window)
    else:
        kernel = np.sinc(2 * cutoff / rate * place) * window
    return torch.from_numpy(kernel / kernel.sum()).float()


def _kaiser_beta(taps: int, width: float) -> float:
    """The window's shape for a transition of `width`, a share of half the sampling rate."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # decibels
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def _jinc(r: np.ndarray, cutoff: float) -> np.ndarray:
    """J1(2π·cutoff·r) / (πr): the impulse response of a disc of that radius. Its limit at r = 0 is the cutoff."""
    safe = np.where(r == 0, 1.0, r)
    return np.where(r == 0, cutoff, _bessel_j1(2 * math.pi * cutoff * safe) / (math.pi * safe))


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    """J1(x) = mean of cos(t − x·sin t) over a period; equal steps converge faster than any power of their number."""
    steps = 64 + 2 * int(np.abs(x).max())
    t = 2 * math.pi * np.arange(steps) / steps
    return np.cos(t - x[..., None] * np.sin(t)).mean(axis=-1)


def resample_axis(x: Tensor, kernel: Tensor, axis: int, up: int, down: int, low: int, size: int) -> Tensor:
    """Along axis -1 or -2: zeros between pixels, `low` zeros before them, FIR, every down-th kept.

    x [...,h,w], kernel [n] → the same with `size` on that axis. As a banded matrix, multiplied block by block: neither
    the zeros nor the padding come into being.
    """
    width, taps = x.shape[axis], kernel.shape[0]
    rows = torch.arange(size, device=x.device).view(-1, 1)
    columns = torch.arange(width, device=x.device).view(1, -1)
    place = columns * up - rows * down + low
    band = torch.where((place >= 0) & (place < taps), kernel.flip(0)[place.clamp(0, taps - 1)], 0.0)  # [size, width]
    step, parts = max(_BLOCK * up // down, 1), []
    for start in range(0, size, step):
        stop = min(start + step, size)
        first = min(max(-((low - start * down) // up), 0), width)
        last = min(max((((stop - 1) * down - low + taps - 1) // up) + 1, first), width)
        block = band[start:stop, first:last].to(x.dtype)
        source = x.narrow(axis, first, last - first)
        parts.append(source @ block.T if axis == -1 else block @ source)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def filtered_leaky_relu(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    filters: tuple[Tensor | None, Tensor | None],
    factors: tuple[int, int],
    padding: tuple[int, int],
    clamp: float | None,
) -> Tensor:
    """x [N,C,h,w]·scale [N,C] + bias [C]: up by a FIR, leaky ReLU·√2, clamp, down by a FIR → [N,C,h',w'].

    filters: up [n], down [n] or [n,n]; factors: up, down; padding (low, high) of the oversampled map, negative to crop.
    A few channels at a time, so that no oversampled map of all of them exists.
    """
    n, c, h, w = x.shape
    grown = (h * factors[0] + sum(padding)) * (w * factors[0] + sum(padding))
    together = max((_AT_ONCE.get(x.device.type, _AT_ONCE_ELSEWHERE)) // grown, 1)
    maps, parts = x.reshape(n * c, h, w), []
    scale, bias = scale.reshape(-1, 1, 1), bias.repeat(n).view(-1, 1, 1)
    for a in range(0, n * c, together):
        some = slice(a, a + together)
        y = _upsample(maps[some] * scale[some] + bias[some], filters[0], factors[0], padding)
        y = F.leaky_relu(y, 0.2) * SQRT2
        y = y if clamp is None else y.clamp(-clamp, clamp)
        parts.append(_downsample(y, filters[1], factors[1]))
    x = parts[0] if len(parts) == 1 else torch.cat(parts)
    return x.view(n, c, *x.shape[1:])


def _upsample(x: Tensor, kernel: Tensor | None, up: int, padding: tuple[int, int]) -> Tensor:
    low, high = padding
    if kernel is None:
        return F.pad(x, (low, high, low, high))
    kernel = kernel * up  # the zeros between the pixels take that much away along each axis
    for axis in (-1, -2):  # the rows first, while there are few of them
        size = x.shape[axis] * up + low + high - kernel.shape[0] + 1
        x = resample_axis(x, kernel, axis, up, 1, low, size)
    return x


def _downsample(x: Tensor, kernel: Tensor | None, down: int) -> Tensor:
    if kernel is None:
        return x[..., ::down, ::down]
    if kernel.ndim == 2:
        weight = kernel.flip((0, 1)).to(x.dtype).expand(x.shape[0], 1, -1, -1)
        return F.conv2d(x[None], weight, stride=down, groups=x.shape[0])[0]
    for axis in (-2, -1):
        x = resample_axis(x, kernel, axis, 1, down, 0, (x.shape[axis] - kernel.shape[0]) // down + 1)
    return x
