"""Σ of several native maps, upsampled, plus bias, activated: one kernel that reads each map and writes once.

Unfused, L maps cost L upsampled tensors written and read again: (2L + 1)·N·K·H·W elements moved; here N·K·H·W and the
native maps. Backward is gathered, not scattered (upsample_adjoint_triton.py), so it is the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES, index_type, merged, operands, sampled_sum
from gansegctl.kernels.upsample_adjoint_triton import adjoint


@triton.jit
def upsample_sum_kernel(
    maps, rows, row_weights, columns, column_weights, strides, bias,
    out, out_n, out_k, out_y, out_x,
    K, H, W, slope,
    KINDS: tl.constexpr, HAS_BIAS: tl.constexpr, ACTIVATE: tl.constexpr,
    INDEX: tl.constexpr, ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """One tile [BLOCK_K, BLOCK_Y·BLOCK_X] of the output."""
    across = tl.cdiv(W, BLOCK_X)
    tiles = across * tl.cdiv(H, BLOCK_Y)
    tile = tl.program_id(0) % tiles
    n = tl.program_id(0) // tiles
    pixel = tl.arange(0, BLOCK_Y * BLOCK_X)
    y = ((tile // across) * BLOCK_Y + pixel // BLOCK_X)[None, :]
    x = ((tile % across) * BLOCK_X + pixel % BLOCK_X)[None, :]
    k = (tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K))[:, None]
    total = sampled_sum(
        maps, rows, row_weights, columns, column_weights, strides, n, k, k < K, y, y < H, x, x < W, H, W,
        KINDS, INDEX, ACC,
    )  # fmt: skip
    if HAS_BIAS:
        total += tl.load(bias + k, mask=k < K, other=0.0).to(ACC)
    if ACTIVATE:
        total = tl.where(total > 0, total, total * slope)
    at = n.to(tl.int64) * out_n + k.to(INDEX) * out_k + y.to(INDEX) * out_y + x.to(INDEX) * out_x
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(k < K) & (y < H) & (x < W))


class UpsampleSum(torch.autograd.Function):
    """Forward and backward; `shifts` read map i at (row, column) + shift_i and 0 outside, for convolutions."""

    @staticmethod
    def forward(ctx, size, mode, slope, shifts, bias, *maps):
        """→ [N,K,H,W]."""
        y = _forward(maps, size, mode, slope, shifts, bias)
        ctx.mode, ctx.slope, ctx.shifts = mode, slope, shifts
        ctx.natives = [tuple(x.shape[2:]) for x in maps]
        ctx.dtypes = (maps[0].dtype, None if bias is None else bias.dtype)
        ctx.save_for_backward(*(() if slope is None else (y,)))
        return y

    @staticmethod
    def backward(ctx, g):
        """g [N,K,H,W] → a gradient a map, and that of the bias."""
        if ctx.slope is not None:
            (y,) = ctx.saved_tensors  # sign(y) is that of the sum, since the slope is not negative
            g = torch.where(y > 0, g, g * ctx.slope)
        bias = g.sum(dim=(0, 2, 3), dtype=launch.accumulator(g.dtype)).to(ctx.dtypes[1]) if ctx.dtypes[1] else None
        shifts = ctx.shifts or [(0, 0)] * len(ctx.natives)
        wanted = ctx.needs_input_grad[5:]
        grads = [
            adjoint(g, native, ctx.mode, shift, ctx.dtypes[0]) if need else None
            for native, shift, need in zip(ctx.natives, shifts, wanted, strict=True)
        ]
        return None, None, None, None, bias, *grads


def upsample_sum(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """Σ U(a_i) + bias, leaky ReLU of `slope`: maps [N,K,h_i,w_i], bias [K] → [N,K,H,W]."""
    launch.check_maps(maps, size, mode, same_channels=True)
    return UpsampleSum.apply(tuple(size), mode, slope, None, bias, *merged(maps))


def shifted_sum(maps: Sequence[Tensor], shifts: Sequence[tuple[int, int]], size: tuple[int, int], mode: str) -> Tensor:
    """Σ U(a_i) read at p + shift_i, 0 outside the image: maps [N,K,h,w] → [N,K,H,W]."""
    launch.check_maps(maps, size, mode, same_channels=True)
    return UpsampleSum.apply(tuple(size), mode, None, tuple(shifts), None, *maps)


def _forward(maps, size, mode, slope, shifts, bias) -> Tensor:
    n, k = maps[0].shape[:2]
    h, w = size
    dtype = maps[0].dtype if bias is None else torch.promote_types(maps[0].dtype, bias.dtype)
    format = launch.memory_format(maps)
    out = launch.empty((n, k, h, w), dtype, maps[0].device, format)
    if out.numel() == 0:
        return out
    # Channels side by side: wide in channels, so that loads are; else wide along rows.
    widest, pixels, block_k = (8, 32, 32) if format == torch.channels_last else (64, 128, 8)
    block_k, block_x = launch.power_of_two(k, 1, block_k), launch.power_of_two(w, 1, widest)
    block_y = pixels // block_x
    arguments, kinds = operands(maps, size, mode, shifts)
    grid = (n * triton.cdiv(h, block_y) * triton.cdiv(w, block_x), triton.cdiv(k, block_k))
    with launch.on(out.device):
        upsample_sum_kernel[grid](
            *arguments, out if bias is None else bias.contiguous(), out, *out.stride(), k, h, w, slope or 0.0,
            KINDS=kinds, HAS_BIAS=bias is not None, ACTIVATE=slope is not None, INDEX=index_type(out, *maps),
            ACC=TYPES[launch.accumulator(dtype)], BLOCK_K=block_k, BLOCK_Y=block_y, BLOCK_X=block_x,
            **launch.OPTIONS,
        )  # fmt: skip
    return out
