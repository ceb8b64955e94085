"""Uᵀ, the transpose of upsampling, one axis at a time: rows first, while columns lie side by side in memory.

Each native pixel gathers the positions that read it (Taps.first … Taps.last) with the weights they read it with: no
atomics, so the same bits on every run. Rows and columns apart cost 2·s taps a native pixel at factor s, not 4·s².
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES, index_type


@triton.jit
def adjoint_axis_kernel(
    y, y_n, y_k, y_a, y_o, out, out_n, out_k, out_a, out_o,
    index, weight, first, last,
    FULL, NATIVE, OTHER, WINDOW,
    INDEX: tl.constexpr, ACC: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Positions of axis a (FULL of them) → native pixels (NATIVE); axis o (OTHER) is carried along."""
    tiles = tl.cdiv(NATIVE, BLOCK_A) * tl.cdiv(OTHER, BLOCK_O)
    tile = tl.program_id(0) % tiles
    n = (tl.program_id(0) // tiles).to(tl.int64)
    k = tl.program_id(1).to(tl.int64)
    others = tl.cdiv(OTHER, BLOCK_O)
    a = (tile // others) * BLOCK_A + tl.arange(0, BLOCK_A)
    o = ((tile % others) * BLOCK_O + tl.arange(0, BLOCK_O))[None, :]
    low = tl.load(first + a, mask=a < NATIVE, other=0)
    high = tl.load(last + a, mask=a < NATIVE, other=0)
    line = y + n * y_n + k * y_k + o.to(INDEX) * y_o
    total = tl.zeros([BLOCK_A, BLOCK_O], ACC)
    for j in range(0, WINDOW):
        p = low + j
        reads = p < high
        share = tl.where(tl.load(index + p, mask=reads, other=-1) == a, tl.load(weight + p, mask=reads, other=0.0), 0.0)
        second = tl.load(index + FULL + p, mask=reads, other=-1) == a
        share += tl.where(second, tl.load(weight + FULL + p, mask=reads, other=0.0), 0.0)
        value = tl.load(line + (p.to(INDEX) * y_a)[:, None], mask=reads[:, None] & (o < OTHER), other=0.0)
        total += share[:, None].to(ACC) * value.to(ACC)
    at = n * out_n + k * out_k + a.to(INDEX)[:, None] * out_a + o.to(INDEX) * out_o
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(a < NATIVE)[:, None] & (o < OTHER))


class Adjoint(torch.autograd.Function):
    """Uᵀ with its own backward, which is U."""

    @staticmethod
    def forward(ctx, y, native, mode):
        """y [N,K,H,W] → [N,K,h,w]."""
        ctx.size, ctx.mode = tuple(y.shape[2:]), mode
        return adjoint(y, native, mode)

    @staticmethod
    def backward(ctx, g):
        """g [N,K,h,w] → [N,K,H,W]."""
        from gansegctl.kernels.upsample_sum_triton import upsample_sum

        return upsample_sum([g], ctx.size, ctx.mode), None, None


def adjoint(
    y: Tensor,
    native: tuple[int, int],
    mode: str,
    shift: tuple[int, int] = (0, 0),
    dtype: torch.dtype | None = None,
) -> Tensor:
    """y [N,K,H,W] → Uᵀ(y) [N,K,h,w] in `dtype` (default: y's); the shift is that of `shifted_sum`."""
    dtype = dtype or y.dtype
    middle = launch.accumulator(y.dtype)
    size = (y.shape[2], y.shape[3])
    rows = native[0] != size[0] or shift[0] != 0
    columns = native[1] != size[1] or shift[1] != 0
    if rows:
        y = _along(y, 2, native[0], mode, shift[0], middle if columns else dtype)
    if columns:
        y = _along(y, 3, native[1], mode, shift[1], dtype)
    return y.to(dtype)


def _along(y: Tensor, axis: int, native: int, mode: str, shift: int, dtype: torch.dtype) -> Tensor:
    other = 5 - axis  # the axis that is carried along
    n, k, full, carried = y.shape[0], y.shape[1], y.shape[axis], y.shape[other]
    shape = (n, k, native, carried) if axis == 2 else (n, k, carried, native)
    out = launch.empty(shape, dtype, y.device)
    if out.numel() == 0:
        return out
    table = launch.taps(native, full, mode, y.device, launch.accumulator(y.dtype), shift)
    block_a, block_o = (4, 128) if axis == 2 else (32, 16)
    block_a, block_o = launch.power_of_two(native, 1, block_a), launch.power_of_two(carried, 1, block_o)
    grid = (n * triton.cdiv(native, block_a) * triton.cdiv(carried, block_o), k)
    strides = [(t.stride(0), t.stride(1), t.stride(axis), t.stride(other)) for t in (y, out)]
    with launch.on(y.device):
        adjoint_axis_kernel[grid](
            y, *strides[0], out, *strides[1], table.index, table.weight, table.first, table.last,
            full, native, carried, table.window,
            INDEX=index_type(y, out), ACC=TYPES[launch.accumulator(y.dtype)], BLOCK_A=block_a, BLOCK_O=block_o,
            **launch.OPTIONS,
        )  # fmt: skip
    return out
