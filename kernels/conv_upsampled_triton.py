"""A k×k convolution of an upsampled map: torch's matrix product at native size, then one kernel.

The k² taps are k²·K native maps; each is read upsampled and shifted, and they are summed, by the kernel of
upsample_sum_triton.py with shifts. The products are left to torch, whose matrix kernels are the vendor's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels.upsample_sum_triton import shifted_sum


def conv_upsampled(x: Tensor, weight: Tensor, size: tuple[int, int], mode: str, dilation: int) -> Tensor:
    """conv2d(U(x), weight, dilation, zero padding): x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W]."""
    outputs, _, k, _ = weight.shape
    if tuple(x.shape[2:]) == tuple(size):
        return F.conv2d(x, weight, padding=dilation * (k // 2), dilation=dilation)
    kernel = weight.permute(2, 3, 0, 1).reshape(k * k * outputs, -1, 1, 1)  # order: tap row, tap column, output
    native = F.conv2d(x, kernel)  # [N, k·k·K, h, w]
    steps = [dilation * (i - k // 2) for i in range(k)]
    return shifted_sum(native.split(outputs, dim=1), [(dy, dx) for dy in steps for dx in steps], size, mode)
