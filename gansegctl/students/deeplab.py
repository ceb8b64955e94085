"""DeepLabV3 on a ResNet-50, from scratch: the other student, as Feng et al. train in their table 3.

Sources: He et al. 2016 (bottleneck residual networks, the stride in the 3×3 convolution), Chen et al. 2017 (DeepLabV3:
the last two stages dilated instead of strided, atrous spatial pyramid pooling at rates 12, 24, 36).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
"""Of ResNet-50's four stages."""
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
RATES = (12, 24, 36)
POOLED = 256
"""Channels of every branch of the pyramid pooling, and behind it."""


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, bias=False)


def _unit(channels_in: int, channels_out: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    norm, activation = nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)
    return nn.Sequential(_conv(channels_in, channels_out, kernel, dilation=dilation), norm, activation)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with batch norms, added to the input (or its 1×1 projection where the shape changes)."""

    def __init__(self, channels_in: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1, self.norm1 = _conv(channels_in, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = _conv(width, width, 3, stride, dilation), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = _conv(width, out, 1), nn.BatchNorm2d(out)
        same = stride == 1 and channels_in == out
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(_conv(channels_in, out, 1, stride), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,h,w] → [N,4·width,h/stride,w/stride]."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x), inplace=True)


class StreamDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask comes from a random stream that the training keeps.

    nn.Dropout draws from the stream of the process, which no checkpoint holds and every rank has for itself.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._draws: tuple[torch.Generator, int, int] | None = None

    def draw_from(self, stream: torch.Generator, first: int, total: int) -> None:
        """For the next pass: its rows are those from `first` of a batch of `total`, and `stream`, on the CPU, moves on
        as for all of that batch."""
        self._draws = stream, first, total

    def forward(self, x: Tensor) -> Tensor:
        """x [n,...] → the same shape, scaled so that the mean stays; in evaluation x itself.

        A pass in training that nobody called `draw_from` for draws from the stream of the process.
        """
        if not self.training:
            return x
        if self._draws is None:
            return F.dropout(x, self.rate)
        (stream, first, total), self._draws = self._draws, None
        kept = torch.rand((total, *x.shape[1:]), generator=stream)[first : first + len(x)] >= self.rate
        return x * kept.to(x.device) / (1 - self.rate)


class PyramidPooling(nn.Module):
    """One 1×1 and three dilated 3×3 convolutions and the image's mean, side by side, then merged (ASPP)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rates = [_unit(channels, POOLED, 3, rate) for rate in RATES]
        self.branches = nn.ModuleList([_unit(channels, POOLED, 1), *rates])
        # A mean is one number an image: no batch norm, which a batch of one could not train.
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, POOLED, 1), nn.ReLU(inplace=True))
        self.merge = nn.Sequential(_unit(POOLED * (2 + len(RATES)), POOLED, 1), StreamDropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,h,w] → [N,256,h,w]."""
        parts = [branch(x) for branch in self.branches]
        return self.merge(torch.cat([*parts, self.mean(x).expand_as(parts[0])], dim=1))


class DeepLabV3(nn.Module):
    """in_channels → class logits; widths: of ResNet's four stages. 39.6 million parameters at the default widths.

    The features are at an eighth of the image's size; logits are upsampled bilinearly from there.
    """

    def __init__(self, in_channels: int, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        first = self.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, first, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        channels, stages = first, []
        for width, count, stride, dilations in zip(
            self.widths, BLOCKS, (1, 2, 1, 1), ((1, 1), (1, 1), (1, 2), (2, 4)), strict=True
        ):
            blocks = []
            for i in range(count):  # the first block of a dilated stage still reads at the dilation before it
                blocks.append(Bottleneck(channels, width, stride if i == 0 else 1, dilations[min(i, 1)]))
                channels = width * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.pooling = PyramidPooling(channels)
        self.head = nn.Sequential(_unit(POOLED, POOLED, 3), nn.Conv2d(POOLED, classes, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """x [N,c,H,W] → logits [N,K,H,W]."""
        size = x.shape[-2:]
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return F.interpolate(self.head(self.pooling(x)), size, mode="bilinear", align_corners=False)
