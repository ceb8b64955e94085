"""Σ of several native maps, upsampled, plus bias, activated: one kernel that reads each map and writes once.

Unfused, L maps cost L upsampled tensors written and read again: (2L + 1)·N·K·H·W elements moved; here N·K·H·W and the
native maps.

Its backward pass is Uᵀ, the transpose of upsampling, one axis at a time: rows first, while columns lie side by side in
memory. Each native pixel gathers the positions that read it (Taps.first … Taps.last) with the weights they read it
with: no atomics, so the same bits on every run. Rows and columns apart cost 2·s taps a native pixel at factor s, not
4·s².
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES, index_type, merged, operands, sampled_sum


@triton.jit
def upsample_sum_kernel(
    maps: tl.tuple, rows: tl.tuple, row_weights: tl.tuple, columns: tl.tuple, column_weights: tl.tuple,
    strides: tl.tuple, bias: tl.tensor, out: tl.tensor, out_n: tl.tensor, out_k: tl.tensor, out_y: tl.tensor,
    out_x: tl.tensor, K: tl.tensor, H: tl.tensor, W: tl.tensor, slope: tl.tensor,
    KINDS: tl.constexpr, HAS_BIAS: tl.constexpr, ACTIVATE: tl.constexpr, INDEX: tl.constexpr, ACC: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
) -> None:  # fmt: skip
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


Shifts = Sequence[tuple[int, int]]


class UpsampleSum(torch.autograd.Function):
    """Forward and backward; `shifts` read map i at (row, column) + shift_i and 0 outside, for convolutions."""

    @staticmethod
    def forward(
        ctx: Any,
        size: tuple[int, int],
        mode: str,
        slope: float | None,
        shifts: Shifts | None,
        bias: Tensor | None,
        *maps: Tensor,
    ) -> Tensor:
        """→ [N,K,H,W]."""
        y = _forward(maps, size, mode, slope, shifts, bias)
        ctx.mode, ctx.slope, ctx.shifts = mode, slope, shifts
        ctx.natives = [tuple(x.shape[2:]) for x in maps]
        ctx.dtypes = (maps[0].dtype, None if bias is None else bias.dtype)
        ctx.save_for_backward(*(() if slope is None else (y,)))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
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


def shifted_sum(maps: Sequence[Tensor], shifts: Shifts, size: tuple[int, int], mode: str) -> Tensor:
    """Σ U(a_i) read at p + shift_i, 0 outside the image: maps [N,K,h,w] → [N,K,H,W]."""
    launch.check_maps(maps, size, mode, same_channels=True)
    return UpsampleSum.apply(tuple(size), mode, None, tuple(shifts), None, *maps)


def _forward(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mode: str,
    slope: float | None,
    shifts: Shifts | None,
    bias: Tensor | None,
) -> Tensor:
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


@triton.jit
def adjoint_axis_kernel(
    y: tl.tensor, y_n: tl.tensor, y_k: tl.tensor, y_a: tl.tensor, y_o: tl.tensor, out: tl.tensor, out_n: tl.tensor,
    out_k: tl.tensor, out_a: tl.tensor, out_o: tl.tensor, index: tl.tensor, weight: tl.tensor, first: tl.tensor,
    last: tl.tensor, FULL: tl.tensor, NATIVE: tl.tensor, OTHER: tl.tensor, WINDOW: tl.tensor,
    INDEX: tl.constexpr, ACC: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_O: tl.constexpr,
) -> None:  # fmt: skip
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
    def forward(ctx: Any, y: Tensor, native: tuple[int, int], mode: str) -> Tensor:
        """y [N,K,H,W] → [N,K,h,w]."""
        ctx.size, ctx.mode = tuple(y.shape[2:]), mode
        return adjoint(y, native, mode)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """g [N,K,h,w] → [N,K,H,W]."""
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
            y, *strides[0], out, *strides[1], table.source, table.weight, table.first, table.last,
            full, native, carried, table.window,
            INDEX=index_type(y, out), ACC=TYPES[launch.accumulator(y.dtype)], BLOCK_A=block_a, BLOCK_O=block_o,
            **launch.OPTIONS,
        )  # fmt: skip
    return out
