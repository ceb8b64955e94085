"""Backend "triton": each OP_triton.py under its name, and the operations on levels composed of them.

Matrix products are left to torch, whose kernels are the vendor's; what is upsampled, shifted, summed, activated or
classified is one kernel. Importing this imports Triton.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels import segment_pool_triton, torch_ops
from gansegctl.kernels.filter_activate_triton import filter_activate as filter_activate
from gansegctl.kernels.gather_points_triton import gather_points as gather_points
from gansegctl.kernels.pixel_head_triton import pixel_head as pixel_head
from gansegctl.kernels.reference import Layers, Maps, Size
from gansegctl.kernels.squared_norm_triton import squared_norm as squared_norm
from gansegctl.kernels.upsample_concat_triton import upsample_concat as upsample_concat
from gansegctl.kernels.upsample_sum_triton import shifted_sum
from gansegctl.kernels.upsample_sum_triton import upsample_sum as upsample_sum


def project(
    levels: Sequence[Tensor], weight: Tensor, size: tuple[int, int], mode: str, bias: Tensor | None = None
) -> Tensor:
    """weight [K,ΣC], bias [K] → [N,K,H,W]."""
    return torch_ops.project(levels, weight, size, mode, bias, upsample_sum)


def conv(levels: Maps, weight: Tensor, size: Size, mode: str, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """weight [K,ΣC,k,k], bias [K] → [N,K,H,W]."""
    return torch_ops.conv(levels, weight, size, mode, bias, dilation, conv_upsampled)


def conv_upsampled(x: Tensor, weight: Tensor, size: tuple[int, int], mode: str, dilation: int) -> Tensor:
    """conv2d(U(x), weight, dilation, zero padding): x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W].

    The k² taps are k²·K native maps; each is read upsampled and shifted, and they are summed, in one kernel.
    """
    outputs, _, k, _ = weight.shape
    if tuple(x.shape[2:]) == tuple(size):
        return F.conv2d(x, weight, padding=dilation * (k // 2), dilation=dilation)
    kernel = weight.permute(2, 3, 0, 1).reshape(k * k * outputs, -1, 1, 1)  # order: tap row, tap column, output
    native = F.conv2d(x, kernel)  # [N, k·k·K, h, w]
    steps = [dilation * (i - k // 2) for i in range(k)]
    return shifted_sum(native.split(outputs, dim=1), [(dy, dx) for dy in steps for dx in steps], size, mode)


def perceptron(levels: Sequence[Tensor], layers: Layers, size: tuple[int, int], mode: str, slope: float) -> Tensor:
    """layers (weight [K_out,K_in], bias [K_out]) → logits [N,K,H,W]."""
    return torch_ops.perceptron(levels, layers, size, mode, slope, project)


def classify(
    levels: Sequence[Tensor], heads: Sequence[Layers], size: tuple[int, int], mode: str, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Heads of layers (weight, bias) → labels uint8, confidence uint8, uncertainty float32, [N,H,W] each."""
    return torch_ops.classify(levels, heads, size, mode, slope, pixel_head)


def segment_pool(weights: Tensor, levels: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """weights [N,K,H,W] → [K,ΣC]."""
    return torch.cat([segment_pool_triton.segment_pool(weights, x, mode) for x in levels], dim=1)


def segment_pool_labels(labels: Tensor, levels: Sequence[Tensor], classes: int, mode: str = "bilinear") -> Tensor:
    """labels integer [N,H,W] → [classes,ΣC]."""
    return torch.cat([segment_pool_triton.segment_pool_labels(labels, x, classes, mode) for x in levels], dim=1)
