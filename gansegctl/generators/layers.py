"""The building blocks that StyleGAN2's generator and discriminator share: equalised layers and FIR resampling.

Formulas: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"; weights are stored unscaled and
multiplied by their gain at run time (equalised learning rate, Karras et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.kernels.torch_ops import fir_filter2d as filter2d

SQRT2 = math.sqrt(2.0)
Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network, device: torch.device | str = "cpu") -> Network:
    """The network on a device, its kernels laid out as convolutions read them fastest."""
    network.to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network


def fir_filter(taps: Sequence[float] = (1, 3, 3, 1)) -> Tensor:
    """The separable low-pass of sum 1: a [n,n] kernel, or from 8 taps on [n], to be applied along each axis."""
    f = torch.tensor(list(taps), dtype=torch.float32)
    f = f / f.sum()
    return f if len(f) >= 8 else torch.outer(f, f)


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """x [N,C,h,w] → [N,C,2h,2w]: zeros between the pixels, then the FIR times 4 (padding 2, 1 for 4 taps)."""
    n, c, h, w = x.shape
    taps = kernel.shape[-1]
    y = x.new_zeros(n, c, h, 2, w, 2)
    y[:, :, :, 0, :, 0] = x
    return filter2d(y.view(n, c, 2 * h, 2 * w), kernel, ((taps + 1) // 2, (taps - 2) // 2), gain=4.0)


def leaky(x: Tensor, gain: float = SQRT2, clamp: float | None = None) -> Tensor:
    """Leaky ReLU with slope 0.2, times gain, clamped to ±clamp·gain/√2 where the network was trained so."""
    x = F.leaky_relu(x, 0.2) * gain
    return x if clamp is None else x.clamp(-clamp * gain / SQRT2, clamp * gain / SQRT2)


class FullyConnected(nn.Module):
    """Equalised linear layer: x @ (weight·lr/√in)ᵀ + bias·lr."""

    def __init__(
        self, features_in: int, features_out: int, lr_multiplier: float = 1.0, bias: float = 0.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features_out, features_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((features_out,), float(bias)))
        self.weight_gain = lr_multiplier / math.sqrt(features_in)
        self.bias_gain = lr_multiplier
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return leaky(x) if self.activate else x


class Conv(nn.Module):
    """Equalised convolution of the discriminator: optional FIR + stride 2, optional leaky ReLU."""

    resample_filter: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        down: bool = False,
        activate: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.weight_gain = 1.0 / math.sqrt(channels_in * kernel * kernel)
        self.down, self.activate = down, activate
        self.clamp: float | None = None  # of the result before gain, where the network was trained so
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """x [N,C_in,H,W] → [N,C_out,H,W], halved when `down`."""
        k = self.weight.shape[-1]
        w = self.weight * self.weight_gain
        if not self.down:
            x = F.conv2d(x, w, padding=k // 2)
        elif k == 1:  # a 1×1 convolution commutes with the stride: filter at half the size only
            x = F.conv2d(filter2d(x, self.resample_filter, (1, 1), stride=2), w)
        else:
            x = F.conv2d(filter2d(x, self.resample_filter, (2, 2)), w, stride=2)
        if self.bias is not None:
            x = x + self.bias.view(1, -1, 1, 1)
        return leaky(x, SQRT2 * gain, self.clamp) if self.activate else x * gain
