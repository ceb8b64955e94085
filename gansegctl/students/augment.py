"""Augmentation of image and mask together, one random draw an image, vectorised over the batch.

Rotation, shift, scale and mirror as in auto-shot (Tritrong et al. 2021); light, blur and grain so that a student of
generated images does not lean on how the generator renders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.labels import IGNORE


@dataclass(frozen=True)
class AugmentSettings:
    """Ranges: degrees, share of the image, factor (scale in 1/scale..scale), and strengths of 0..1."""

    rotation: float = 10.0
    shift: float = 0.1
    scale: float = 1.2
    mirror: float = 0.5
    light: float = 0.2
    blur: float = 0.25
    grain: float = 0.08


STILL = {"rotation": 0.0, "shift": 0.0, "scale": 1.0}
PRESETS = {
    "full": AugmentSettings(),
    "light": AugmentSettings(**STILL),
    "none": AugmentSettings(**STILL, mirror=0.0, light=0.0, blur=0.0, grain=0.0),
}
"""full: for a student of generated images. light: where there is plenty of exact truth and pose varies enough in it;
no pixel is moved off its own label. none: the images as they are."""


class _Draws:
    """Numbers for each image of a batch of `total`, of which rows `first` to `first + n` are wanted.

    They are drawn for all, so that the stream goes on as in a process that works on the whole batch.
    """

    def __init__(self, n: int, stream: torch.Generator, share: tuple[int, int] | None) -> None:
        self.stream = stream
        first, self.total = share or (0, n)
        self.rows = slice(first, first + n)

    def unit(self) -> Tensor:
        """[n] in 0 to 1."""
        return torch.rand(self.total, generator=self.stream)[self.rows]

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        """[n * channels], image by image."""
        drawn = low + (high - low) * torch.rand(self.total * channels, generator=self.stream)
        return drawn.view(self.total, channels)[self.rows].flatten()

    def normal(self, *shape: int) -> Tensor:
        """[n, *shape]"""
        return torch.randn((self.total, *shape), generator=self.stream)[self.rows]


def augment(
    x: Tensor, target: Tensor, settings: AugmentSettings, stream: torch.Generator, share: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """x [N,c,H,W] in [-1,1]; target uint8/int64 [N,H,W] or probabilities [N,K,H,W] → both, warped alike.

    What comes in from outside the image is IGNORE in a hard target and all-zero in a soft one. share: (first, total)
    when these N are the rows from `first` of a batch of `total`; each image is varied as it would be in that batch.
    """
    n = x.shape[0]
    draws = _Draws(n, stream, share)
    grid = F.affine_grid(_warp(draws, settings).to(x.device), [n, 1, *x.shape[2:]], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if target.ndim == 4:
        target = F.grid_sample(target.float(), grid, align_corners=False)
    else:
        moved = F.grid_sample(target[:, None].float() + 1, grid, mode="nearest", align_corners=False)[:, 0]
        target = torch.where(moved == 0, torch.full_like(moved, IGNORE), moved - 1).to(target.dtype)
    return _photometric(x, settings, draws), target


def _warp(draws: _Draws, s: AugmentSettings) -> Tensor:
    angle = draws.uniform(-1, 1) * math.radians(s.rotation)
    zoom = (draws.uniform(-1, 1) * math.log(s.scale)).exp()
    flip = torch.where(draws.unit() < s.mirror, -1.0, 1.0)
    dx, dy = (draws.uniform(-2 * s.shift, 2 * s.shift) for _ in range(2))
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    return torch.stack([torch.stack([cos * flip, -sin, dx], 1), torch.stack([sin * flip, cos, dy], 1)], 1)  # [N, 2, 3]


def _photometric(x: Tensor, s: AugmentSettings, draws: _Draws) -> Tensor:
    n, c = x.shape[:2]

    def draw(channels: int, low: float, high: float) -> Tensor:
        return draws.uniform(low, high, channels).view(n, channels, 1, 1).to(x.device)

    if s.light:
        x = x * (1 + s.light * draw(1, -1, 1)) + s.light * draw(1, -1, 1) + 0.5 * s.light * draw(c, -1, 1)
    if s.blur:
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.lerp(x, soft, (draw(1, 0, 1) < s.blur).float() * draw(1, 0, 0.7))
    if s.grain:
        grain = draws.normal(*x.shape[1:]).to(x.device)
        x = x + grain * draw(1, 0, s.grain)
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)
