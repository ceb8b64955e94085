"""What the kernels that end in labels mean, in plain torch: `pixel_head` and `segment_pool_labels`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels import reference

Layers = Sequence[tuple[Tensor, Tensor]]
_CLASSES_AT_ONCE = 32


def check_head(maps: Sequence[Tensor], layers: Layers, heads: int, bias: Tensor | None) -> int:
    """The number of classes. ValueError when the shapes of a head do not follow one another."""
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    channels = maps[0].shape[1]
    if heads < 1 or channels % heads or (bias is not None and tuple(bias.shape) != (channels,)):
        wanted = f"[heads·K_0] each, heads = {heads}"
        raise ValueError(f"got {channels} channels and bias {None if bias is None else list(bias.shape)}; {wanted}")
    width = channels // heads
    for weight, offset in layers:
        if weight.ndim != 3 or weight.shape[0] != heads or weight.shape[2] != width:
            raise ValueError(f"got layer weight {list(weight.shape)}; wanted [{heads}, K, {width}]")
        width = weight.shape[1]
        if tuple(offset.shape) != (heads, width):
            raise ValueError(f"got layer bias {list(offset.shape)}; wanted [{heads}, {width}]")
    if not 1 <= width <= 255:
        raise ValueError(f"got {width} classes; wanted 1 … 255, so that labels fit uint8")
    return width


def pixel_head(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    layers: Layers,
    heads: int,
    mode: str,
    bias: Tensor | None,
    slope: float,
    per_pixel: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(labels, confidence, score) of `kernels.pixel_head`; one head's maps exist at a time. Softmax in ≥ float32.

    One head's label is the argmax of its logits; several heads' the argmax of their mean probability.
    """
    classes = check_head(maps, layers, heads, bias)
    width = maps[0].shape[1] // heads
    mean, mean_entropy = 0.0, 0.0
    for e in range(heads):
        own = slice(e * width, (e + 1) * width)
        x = reference.upsample_sum([m[:, own] for m in maps], size, mode, None if bias is None else bias[own])
        for weight, offset in layers:
            x = F.conv2d(F.leaky_relu(x, slope), weight[e, :, :, None, None], offset[e])  # [N, K_j, H, W]
        log_p = F.log_softmax(x.double() if x.dtype == torch.float64 else x.float(), dim=1)
        p = log_p.exp()
        mean = mean + p / heads
        mean_entropy = mean_entropy - (p * log_p).sum(dim=1) / heads
    if heads == 1:
        labels, spread = x.argmax(dim=1), mean_entropy
    else:
        labels = mean.argmax(dim=1)
        spread = (-torch.special.xlogy(mean, mean).sum(dim=1) - mean_entropy).clamp(min=0)
    spread = (spread / math.log(max(classes, 2))).float()
    confidence = (mean.amax(dim=1) * 255).round().to(torch.uint8)
    return labels.to(torch.uint8), confidence, spread if per_pixel else spread.mean(dim=(1, 2))


def fold_batch_norm(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """A layer that acts on x as `weight`, `bias` act on the batch norm of x: weight [..,K,C], bias [..,K], rest [..,C].

    W(γ(x − μ)/√(σ² + ε) + β) + b is one affine map, so a trained head's batch norms cost nothing.
    """
    gain = scale / (variance + eps).sqrt()
    return weight * gain.unsqueeze(-2), bias + (weight @ (shift - mean * gain).unsqueeze(-1)).squeeze(-1)


def segment_pool_labels(labels: Tensor, x: Tensor, classes: int, mode: str) -> Tensor:
    """Σ over the pixels of each label of U(x): labels [N,H,W], x [N,C,h,w] → [classes,C], 32 one-hot maps at a time."""
    ids = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    maps = (labels.long()[:, None] == part for part in ids.split(_CLASSES_AT_ONCE, dim=1))
    return torch.cat([reference.segment_pool(one_hot, x, mode) for one_hot in maps])
