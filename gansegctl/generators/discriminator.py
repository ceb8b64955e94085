"""StyleGAN2's residual discriminator (Karras et al. 2020), conditional by projection, for training and as a critic."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.generators.layers import Conv, FullyConnected
from gansegctl.generators.mapping import class_vector
from gansegctl.generators.stylegan2_config import StyleGAN2Config

FADING = "before."
"""Prefix in a state dict of the tensors that are there only while a block fades in."""


class DiscriminatorBlock(nn.Module):
    """Two 3×3 convolutions, the second halving the size, beside a 1×1 skip; each branch scaled by √½."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv0 = Conv(channels_in, channels_in, 3)
        self.conv1 = Conv(channels_in, channels_out, 3, down=True)
        self.skip = Conv(channels_in, channels_out, 1, down=True, activate=False, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x, gain=math.sqrt(0.5)) + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class Discriminator(nn.Module):
    """image [N,c,H,W] in [-1,1] → logits [N,1], high for images that look real."""

    share: Tensor

    def __init__(self, config: StyleGAN2Config, group: int = 4) -> None:
        super().__init__()
        self.group, self.c_dim = group, config.c_dim
        self.channels, self.resolution = config.image_channels, config.resolution
        sizes = config.resolutions[::-1]
        self.fromrgb = Conv(config.image_channels, config.channels(sizes[0]), 1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(config.channels(r), config.channels(r // 2)) for r in sizes[:-1])
        channels = config.channels(4)
        self.conv = Conv(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * 16, channels, activate=True)
        self.out = FullyConnected(channels, config.w_dim if config.c_dim else 1)
        self.embed = FullyConnected(config.c_dim, config.w_dim) if config.c_dim else None
        self.before: Conv | None = None
        self.register_buffer("share", torch.ones(()), persistent=False)

    def fade_in(self, before: Conv | None, share: float) -> None:
        """From here on the first block counts `share`, and `before`, of the image at half the size, the rest.

        before: `fromrgb` of the network of half the size that this one has grown from (Karras et al. 2018, figure 2);
        None ends it. It does not learn.
        """
        self.before = before
        self.share.fill_(share)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.fromrgb(image)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.before is not None and i == 0:
                x = torch.lerp(self.before(F.avg_pool2d(image, 2)).to(x.dtype), x, self.share.to(x))
        x = self.conv(minibatch_deviation(x, self.group))
        x = self.out(self.fc(x.flatten(1)))
        if self.embed is not None:
            x = (x * self.embed(class_vector(c))).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])
        return x


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """x [N,C,H,W] → [N,C+1,H,W]: the mean standard deviation over groups of samples as one more channel."""
    n, c, h, w = x.shape
    g = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    y = x.reshape(g, n // g, c, h, w).float()
    y = (y - y.mean(dim=0)).square().mean(dim=0).add(1e-8).sqrt().mean(dim=(1, 2, 3))  # [N/g]
    y = y.repeat(g).view(n, 1, 1, 1).expand(-1, -1, h, w).to(x.dtype)
    return torch.cat([x, y], dim=1)
