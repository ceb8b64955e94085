"""Differentiable augmentation of what the discriminator sees, so that a small set of images is not memorised.

Sources: Zhao et al. 2020 (differentiable augmentation), Karras et al. 2020b (adaptive probability). Real and generated
images pass through the same random operations, each applied to an image with probability p.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gansegctl.generators.geometry import moved


def augment(image: Tensor, p: float, stream: torch.Generator) -> Tensor:
    """image [N,c,H,W] in [-1,1] → the same shape; each of geometry, colour and cut-out with probability p."""
    if p <= 0:
        return image
    image = _geometry(image, p, stream)
    image = _colour(image, p, stream)
    return _cutout(image, p, stream)


def _uniform(
    n: int, low: float, high: float, p: float, neutral: float, image: Tensor, stream: torch.Generator
) -> Tensor:
    values = low + (high - low) * torch.rand(n, generator=stream)
    chosen = torch.rand(n, generator=stream) < p
    return torch.where(chosen, values, torch.full((n,), neutral)).to(image.device)


def _geometry(image: Tensor, p: float, stream: torch.Generator) -> Tensor:
    n = image.shape[0]
    angle = _uniform(n, -0.26, 0.26, p, 0.0, image, stream)
    scale = _uniform(n, -0.2, 0.2, p, 0.0, image, stream).exp()
    dx = _uniform(n, -0.25, 0.25, p, 0.0, image, stream)
    dy = _uniform(n, -0.25, 0.25, p, 0.0, image, stream)
    return moved(image, angle, scale, dx, dy)


def _colour(image: Tensor, p: float, stream: torch.Generator) -> Tensor:
    n = image.shape[0]
    brightness = _uniform(n, -0.4, 0.4, p, 0.0, image, stream).view(n, 1, 1, 1)
    contrast = _uniform(n, 0.6, 1.5, p, 1.0, image, stream).view(n, 1, 1, 1)
    saturation = _uniform(n, 0.0, 2.0, p, 1.0, image, stream).view(n, 1, 1, 1)
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * saturation
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * contrast + mean + brightness


def _cutout(image: Tensor, p: float, stream: torch.Generator) -> Tensor:
    n, _, h, w = image.shape
    y = _uniform(n, 0, 1, 1.0, 0.0, image, stream).view(n, 1, 1, 1) * h
    x = _uniform(n, 0, 1, 1.0, 0.0, image, stream).view(n, 1, 1, 1) * w
    half = _uniform(n, 0.25, 0.25, p / 2, 0.0, image, stream).view(n, 1, 1, 1)  # at half the probability: it costs most
    rows = torch.arange(h, device=image.device).view(1, 1, h, 1)
    columns = torch.arange(w, device=image.device).view(1, 1, 1, w)
    inside = ((rows - y).abs() < half * h) & ((columns - x).abs() < half * w)
    return image.masked_fill(inside, 0.0)
