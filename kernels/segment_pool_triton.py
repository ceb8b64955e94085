"""Sums of U(x) over segments, through the adjoint: Uᵀ of the segments at native size, then a matrix product.

From a label map the first stage compares labels as it gathers rows, so no one-hot map [N,K,H,W] is ever written: at 64
classes and 1024 px that is 64 bytes a pixel instead of 1. The product with x is torch's, in float32 for half precision.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES
from gansegctl.kernels.upsample_sum_triton import Adjoint, adjoint


@triton.jit
def label_rows_kernel(
    labels: tl.tensor, label_n: tl.tensor, label_y: tl.tensor, label_x: tl.tensor, out: tl.tensor, index: tl.tensor,
    weight: tl.tensor, first: tl.tensor, last: tl.tensor, K: tl.tensor, H: tl.tensor, W: tl.tensor, NATIVE: tl.tensor,
    ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_X: tl.constexpr,
) -> None:  # fmt: skip
    """out[n,k,q,x] = Σ_y R[y,q]·1(labels[n,y,x] = k) for one native row q; out is contiguous."""
    across = tl.cdiv(W, BLOCK_X)
    tile = tl.program_id(0) % (across * NATIVE)
    n = (tl.program_id(0) // (across * NATIVE)).to(tl.int64)
    q = tile // across
    x = (tile % across) * BLOCK_X + tl.arange(0, BLOCK_X)
    k = (tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K))[:, None]
    column = labels + n * label_n + x.to(tl.int64) * label_x
    total = tl.zeros([BLOCK_K, BLOCK_X], ACC)
    for step in range(tl.load(first + q), tl.load(last + q)):
        y = q * 0 + step  # the interpreter counts in Python's own integers
        share = tl.where(tl.load(index + y) == q, tl.load(weight + y), 0.0)
        share += tl.where(tl.load(index + H + y) == q, tl.load(weight + H + y), 0.0)
        label = tl.load(column + y.to(tl.int64) * label_y, mask=x < W, other=0).to(tl.int64)
        total += tl.where(label[None, :] == k, share, 0.0).to(ACC)
    at = ((n * K + k) * NATIVE + q) * W + x[None, :]
    tl.store(out + at, total, mask=(k < K) & (x < W)[None, :])


def segment_pool(weights: Tensor, x: Tensor, mode: str = "bilinear") -> Tensor:
    """weights [N,K,H,W], x [N,C,h,w] → [K,C]."""
    launch.check_maps([x], (1, 1), mode, same_channels=False)
    if weights.ndim != 4 or weights.shape[0] != x.shape[0]:
        raise ValueError(f"got weights {list(weights.shape)}; wanted [{x.shape[0]},K,H,W]")
    x = _wide(x)
    return _product(Adjoint.apply(weights.to(x.dtype), (x.shape[2], x.shape[3]), mode), x)


def segment_pool_labels(labels: Tensor, x: Tensor, classes: int, mode: str = "bilinear") -> Tensor:
    """labels integer [N,H,W], x [N,C,h,w] → [classes,C]."""
    launch.check_maps([x], (1, 1), mode, same_channels=False)
    x = _wide(x)
    n, h, w = labels.shape
    native_h, native_w = x.shape[2:]
    row = launch.taps(native_h, h, mode, x.device, x.dtype)
    rows = launch.empty((n, classes, native_h, w), x.dtype, x.device)
    if rows.numel():
        block_k, block_x = launch.power_of_two(classes, 1, 16), launch.power_of_two(w, 16, 128)
        with launch.on(x.device):
            label_rows_kernel[(n * native_h * triton.cdiv(w, block_x), triton.cdiv(classes, block_k))](
                labels, *labels.stride(), rows, row.source, row.weight, row.first, row.last,
                classes, h, w, native_h,
                ACC=TYPES[x.dtype], BLOCK_K=block_k, BLOCK_X=block_x,
                **launch.OPTIONS,
            )  # fmt: skip
    return _product(adjoint(rows, (native_h, native_w), mode), x)


def _product(native: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("nkhw,nchw->kc", native, x)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
