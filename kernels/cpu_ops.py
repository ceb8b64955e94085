"""Backend "cpu": sums of upsampled maps in strips of rows (cpu_strips.py), everything else as in torch_ops.py.

The strips have no gradients. Where gradients are asked for, projections and convolutions are torch's matrix products
at native size, and the sum, which has a gradient of its own here, is still made in strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gansegctl.kernels import cpu_strips, torch_ops
from gansegctl.kernels.interpolation import upsample_adjoint
from gansegctl.kernels.reference import Layers, Maps, Size
from gansegctl.kernels.torch_ops import (
    conv_upsampled as conv_upsampled,
)
from gansegctl.kernels.torch_ops import (
    filter_activate as filter_activate,
)
from gansegctl.kernels.torch_ops import (
    gather_points as gather_points,
)
from gansegctl.kernels.torch_ops import (
    pixel_head as pixel_head,
)
from gansegctl.kernels.torch_ops import (
    segment_pool as segment_pool,
)
from gansegctl.kernels.torch_ops import (
    segment_pool_labels as segment_pool_labels,
)
from gansegctl.kernels.torch_ops import (
    squared_norm as squared_norm,
)
from gansegctl.kernels.torch_ops import (
    upsample_concat as upsample_concat,
)


def upsample_sum(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", bias: Tensor | None = None
) -> Tensor:
    """Σ U(a_i) + bias: maps [N,K,h_i,w_i] → [N,K,H,W], with gradients."""
    total: Tensor = _UpsampleSum.apply(tuple(size), mode, *maps)
    return total if bias is None else total + bias.view(1, -1, 1, 1)


class _UpsampleSum(torch.autograd.Function):
    """Σ U(a_i) in strips; the gradient of each map is Uᵀ of the sum's, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, size: tuple[int, int], mode: str, *maps: Tensor) -> Tensor:
        """→ [N,K,H,W]."""
        ctx.mode, ctx.natives = mode, [(x.shape[-2], x.shape[-1]) for x in maps]
        return cpu_strips.upsample_sum(maps, size, mode)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Maps of one size share one gradient."""
        adjoint = {native: upsample_adjoint(grad, native, ctx.mode) for native in set(ctx.natives)}
        return None, None, *(adjoint[native] for native in ctx.natives)


def project(
    levels: Sequence[Tensor], weight: Tensor, size: tuple[int, int], mode: str, bias: Tensor | None = None
) -> Tensor:
    """weight [K,ΣC], bias [K] → [N,K,H,W]."""
    if _tracked(*levels, weight, bias):
        return torch_ops.project(levels, weight, size, mode, bias, upsample_sum)
    return cpu_strips.project(levels, weight, size, mode, bias)


def conv(levels: Maps, weight: Tensor, size: Size, mode: str, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """weight [K,ΣC,k,k], bias [K] → [N,K,H,W]."""
    made_by = torch_ops.conv if _tracked(*levels, weight, bias) else cpu_strips.conv
    return made_by(levels, weight, size, mode, bias, dilation)


def perceptron(levels: Sequence[Tensor], layers: Layers, size: tuple[int, int], mode: str, slope: float) -> Tensor:
    """layers (weight [K_out,K_in], bias [K_out]) → logits [N,K,H,W]."""
    if _tracked(*levels, *(t for layer in layers for t in layer)):
        return torch_ops.perceptron(levels, layers, size, mode, slope, project)
    return cpu_strips.perceptron(levels, layers, size, mode, slope)


def classify(
    levels: Sequence[Tensor], heads: Sequence[Layers], size: tuple[int, int], mode: str, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Heads of layers (weight, bias) → labels uint8, confidence uint8, uncertainty float32, [N,H,W] each."""
    return cpu_strips.classify(levels, heads, size, mode, slope)


def _tracked(*tensors: Tensor | None) -> bool:
    """Whether a gradient is asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
