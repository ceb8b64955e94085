"""Augmentation of picture and mask together, one random draw a picture, vectorised over the batch.

Rotation, shift, scale and mirror as in auto-shot (Tritrong et al. 2021); light, blur and grain so that a student of
generated pictures does not lean on how the generator renders.
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
    """Ranges: degrees, share of the picture, factor (scale in 1/scale..scale), and strengths of 0..1."""

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
"""full: for a student of generated pictures. light: where there is plenty of exact truth and pose varies enough in it;
no pixel is moved off its own label. none: the pictures as they are."""


def augment(x: Tensor, target: Tensor, settings: AugmentSettings, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [N,c,H,W] in [-1,1]; target uint8/int64 [N,H,W] or probabilities [N,K,H,W] → both, warped alike.

    What comes in from outside the picture is IGNORE in a hard target and all-zero in a soft one.
    """
    n = x.shape[0]
    grid = F.affine_grid(_warp(n, settings, stream).to(x.device), [n, 1, *x.shape[2:]], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if target.ndim == 4:
        target = F.grid_sample(target.float(), grid, align_corners=False)
    else:
        moved = F.grid_sample(target[:, None].float() + 1, grid, mode="nearest", align_corners=False)[:, 0]
        target = torch.where(moved == 0, torch.full_like(moved, IGNORE), moved - 1).to(target.dtype)
    return _photometric(x, settings, stream), target


def _uniform(n: int, low: float, high: float, stream: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=stream)


def _warp(n: int, s: AugmentSettings, stream: torch.Generator) -> Tensor:
    angle = _uniform(n, -1, 1, stream) * math.radians(s.rotation)
    zoom = (_uniform(n, -1, 1, stream) * math.log(s.scale)).exp()
    flip = torch.where(torch.rand(n, generator=stream) < s.mirror, -1.0, 1.0)
    dx, dy = (_uniform(n, -2 * s.shift, 2 * s.shift, stream) for _ in range(2))
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    return torch.stack([torch.stack([cos * flip, -sin, dx], 1), torch.stack([sin * flip, cos, dy], 1)], 1)  # [N, 2, 3]


def _photometric(x: Tensor, s: AugmentSettings, stream: torch.Generator) -> Tensor:
    n, c = x.shape[:2]

    def draw(channels: int, low: float, high: float) -> Tensor:
        return _uniform(n * channels, low, high, stream).view(n, channels, 1, 1).to(x.device)

    if s.light:
        x = x * (1 + s.light * draw(1, -1, 1)) + s.light * draw(1, -1, 1) + 0.5 * s.light * draw(c, -1, 1)
    if s.blur:
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.lerp(x, soft, (draw(1, 0, 1) < s.blur).float() * draw(1, 0, 0.7))
    if s.grain:
        grain = torch.randn(x.shape, generator=stream).to(x.device)
        x = x + grain * draw(1, 0, s.grain)
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)
