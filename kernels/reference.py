"""The meaning of every operation, in plain torch: each begins with the dense hypercolumn or the upsampled maps.

All other backends are held to these lines; none of them makes what these begin with. Any device, any dtype, gradients
throughout; memory and time are no concern here. Arguments as in `gansegctl.kernels`, which checks them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels.interpolation import upsample, widened

Maps = Sequence[Tensor]
Size = tuple[int, int]
Layers = Sequence[tuple[Tensor, Tensor]]
"""A per-pixel head: (weight [K_out,K_in], bias [K_out]) a layer, the first with K_in = ΣC."""


class Activation(NamedTuple):
    """The end of `filter_activate`: leaky ReLU of `slope`, times `gain` > 0, bounded to ±`clamp` (None: not at all)."""

    gain: float = 1.0
    slope: float = 0.2
    clamp: float | None = None


def upsample_concat(maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """The dense hypercolumn: maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W]."""
    return torch.cat([upsample(x, size, mode) for x in maps], dim=1)


def upsample_sum(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", bias: Tensor | None = None
) -> Tensor:
    """Σ U(a_i) + bias: maps [N,K,h_i,w_i] → [N,K,H,W]."""
    total = upsample(maps[0], size, mode)
    for x in maps[1:]:
        total = total + upsample(x, size, mode)
    return total if bias is None else total + bias.view(1, -1, 1, 1)


def project(
    levels: Sequence[Tensor], weight: Tensor, size: tuple[int, int], mode: str, bias: Tensor | None = None
) -> Tensor:
    """W·x(p) + b at every pixel p of the hypercolumn x: weight [K,ΣC] → [N,K,H,W]."""
    return F.conv2d(upsample_concat(levels, size, mode), weight[:, :, None, None], bias)


def conv(levels: Maps, weight: Tensor, size: Size, mode: str, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """k×k convolution of the hypercolumn, 0 outside: weight [K,ΣC,k,k] → [N,K,H,W]."""
    padding = dilation * (weight.shape[2] // 2)
    return F.conv2d(upsample_concat(levels, size, mode), weight, bias, padding=padding, dilation=dilation)


def conv_upsampled(x: Tensor, weight: Tensor, size: tuple[int, int], mode: str, dilation: int) -> Tensor:
    """`conv` of one level: x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W]."""
    return conv([x], weight, size, mode, None, dilation)


def perceptron(levels: Sequence[Tensor], layers: Layers, size: tuple[int, int], mode: str, slope: float) -> Tensor:
    """Layers (weight [K_out,K_in], bias [K_out]) at every pixel, leaky ReLU between → logits [N,K,H,W]."""
    return _after(project(levels, layers[0][0], size, mode, layers[0][1]), layers[1:], slope)


def classify(
    levels: Sequence[Tensor], heads: Sequence[Layers], size: tuple[int, int], mode: str, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The vote of one head or several on every pixel: labels, confidence, uncertainty [N,H,W]."""
    return votes([perceptron(levels, layers, size, mode, slope) for layers in heads])


def pixel_head(
    maps: Maps, size: Size, layers: Layers, heads: int, mode: str, bias: Tensor | None, slope: float, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`classify` from the first layer's products at native size; without `per_pixel` the mean uncertainty [N]."""
    first = upsample_sum(maps, size, mode, bias).chunk(heads, dim=1)
    labels, confidence, spread = votes(
        [_after(x, [(w[e], b[e]) for w, b in layers], slope) for e, x in enumerate(first)]
    )
    return labels, confidence, spread if per_pixel else spread.mean(dim=(1, 2))


def votes(logits: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Heads' logits [N,K,H,W] → labels uint8, confidence uint8, uncertainty float32 in 0…1, each [N,H,W].

    p is the mean of their probabilities. Label argmax p, confidence round(255·max p). Uncertainty of one head H(p), of
    several the Jensen-Shannon divergence H(p) − mean H(p_e) (Melville et al. 2005), over log K. Softmax in ≥ float32.
    """
    log_p = torch.stack([widened(x).log_softmax(dim=1) for x in logits])  # [heads, N, K, H, W]
    p = log_p.exp().mean(dim=0)
    own = -(log_p.exp() * log_p).sum(dim=2).mean(dim=0)
    spread = own if len(logits) == 1 else (torch.special.entr(p).sum(dim=1) - own).clamp(min=0)
    labels = logits[0].argmax(dim=1) if len(logits) == 1 else p.argmax(dim=1)
    confidence = (p.amax(dim=1) * 255).round().to(torch.uint8)
    return labels.to(torch.uint8), confidence, (spread / math.log(max(p.shape[1], 2))).float()


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Σ_c U(x)_c²: x [N,C,h,w] → [N,H,W], float32 for half precision."""
    return upsample(widened(x), size, mode).square().sum(dim=1)


def segment_pool(weights: Tensor, levels: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """Σ_p weight_k(p)·x(p) of the hypercolumn x: weights [N,K,H,W] → [K,ΣC], float32 for half precision."""
    dense = upsample_concat([widened(x) for x in levels], (weights.shape[2], weights.shape[3]), mode)
    return torch.einsum("nkhw,nchw->kc", weights.to(dense.dtype), dense)


def segment_pool_labels(labels: Tensor, levels: Sequence[Tensor], classes: int, mode: str = "bilinear") -> Tensor:
    """`segment_pool` with weight 1 where labels [N,H,W] are k, else 0 → [classes,ΣC]."""
    one_hot = labels.long()[:, None] == torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return segment_pool(one_hot, levels, mode)


def gather_points(x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """U(x) at points int64 [P,3] as (sample, row, column): x [N,C,h,w] → [P,C]."""
    n, row, column = points.unbind(dim=1)
    return upsample(x, size, mode)[n, :, row, column]


def filter_activate(
    x: Tensor, scale: Tensor, bias: Tensor, noise: Tensor | None, fir: Tensor | None, padding: Size, then: Activation
) -> Tensor:
    """clamp(gain · leaky(FIR(x)·scale + noise + bias)); the filter is correlated flipped, with zero padding."""
    if fir is not None:
        kernel = (torch.outer(fir, fir) if fir.ndim == 1 else fir).flip(0, 1).to(x.dtype)
        channels = x.shape[1]
        x = F.conv2d(F.pad(x, padding * 2), kernel.expand(channels, 1, *kernel.shape), groups=channels)
    x = x * scale.to(x.dtype)[:, :, None, None]
    if noise is not None:
        x = x + noise.to(x.dtype)
    x = F.leaky_relu(x + bias.to(x.dtype).view(1, -1, 1, 1), then.slope) * then.gain
    return x if then.clamp is None else x.clamp(-then.clamp, then.clamp)


def _after(x: Tensor, layers: Layers, slope: float) -> Tensor:
    """The layers that follow a first one at every pixel: x [N,K_0,H,W] → [N,K,H,W]."""
    for weight, bias in layers:
        x = F.conv2d(F.leaky_relu(x, slope), weight[:, :, None, None], bias)
    return x
