"""The dense hypercolumn in one pass: each level is interpolated straight into its channels of the output.

It is the operation of `gansegctl extract --dense`; methods never make this tensor. Unfused, torch writes the upsampled
levels, then reads and writes them all again to concatenate: 3·N·C·H·W elements moved. Here N·C·H·W are written and the
native maps read. A program walks down a strip of rows and keeps the two native rows it stands between, interpolated
across, so at factor s a pixel costs 2/s loads instead of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES, index_type
from gansegctl.kernels.upsample_sum_triton import adjoint

_STRIP = 32  # rows a program writes: two native rows of overlap with its neighbour, at most


@triton.jit
def upsample_strip_kernel(
    x: tl.tensor, x_n: tl.tensor, x_c: tl.tensor, x_y: tl.tensor, x_x: tl.tensor, rows: tl.tensor,
    row_weights: tl.tensor, columns: tl.tensor, column_weights: tl.tensor, out: tl.tensor, out_n: tl.tensor,
    out_c: tl.tensor, out_y: tl.tensor, out_x: tl.tensor, C: tl.tensor, H: tl.tensor, W: tl.tensor,
    KIND: tl.constexpr, INDEX: tl.constexpr, ACC: tl.constexpr, STRIP: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_X: tl.constexpr,
) -> None:  # fmt: skip
    """STRIP rows of BLOCK_X columns of BLOCK_C channels of one sample."""
    across = tl.cdiv(W, BLOCK_X)
    tiles = across * tl.cdiv(H, STRIP)
    tile = tl.program_id(0) % tiles
    n = (tl.program_id(0) // tiles).to(tl.int64)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    p = (tile % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    begin = (tile // across) * STRIP
    end = tl.minimum(begin + STRIP, H)
    inside = (c < C) & (p < W)
    plane = x + n * x_n + c.to(INDEX) * x_c
    target = out + n * out_n + c.to(INDEX) * out_c + p.to(INDEX) * out_x
    if KIND == 0:
        for step in range(begin, end):
            y = (begin * 0 + step).to(INDEX)  # the interpreter counts in Python's own integers
            line = tl.load(plane + (p.to(INDEX) * x_x + y * x_y), mask=inside, other=0.0)
            tl.store(target + y * out_y, line, mask=inside)
    else:
        left = tl.load(columns + p, mask=p < W, other=0).to(INDEX) * x_x
        right = tl.load(columns + W + p, mask=p < W, other=0).to(INDEX) * x_x
        wl = tl.load(column_weights + p, mask=p < W, other=0.0)
        wr = tl.load(column_weights + W + p, mask=p < W, other=0.0)
        above = begin * 0 - 1  # the native rows held in `top` and `bottom`: none yet
        below = begin * 0 - 1
        top = tl.zeros([BLOCK_C, BLOCK_X], ACC)
        bottom = tl.zeros([BLOCK_C, BLOCK_X], ACC)
        for step in range(begin, end):
            y = begin * 0 + step
            row = tl.load(rows + y)
            if row != above:
                if row == below:
                    top = bottom
                else:
                    line = plane + row.to(INDEX) * x_y
                    top = wl * tl.load(line + left, mask=inside, other=0.0).to(ACC)
                    if KIND == 2:
                        top += wr * tl.load(line + right, mask=inside, other=0.0).to(ACC)
                above = row
            value = top
            if KIND == 2:
                row = tl.load(rows + H + y)
                if row != below:
                    line = plane + row.to(INDEX) * x_y
                    bottom = wl * tl.load(line + left, mask=inside, other=0.0).to(ACC)
                    bottom += wr * tl.load(line + right, mask=inside, other=0.0).to(ACC)
                    below = row
                value = tl.load(row_weights + y) * top + tl.load(row_weights + H + y) * bottom
            tl.store(target + y.to(INDEX) * out_y, value.to(out.dtype.element_ty), mask=inside)


class UpsampleConcat(torch.autograd.Function):
    """Forward and backward."""

    @staticmethod
    def forward(ctx: Any, size: tuple[int, int], mode: str, *maps: Tensor) -> Tensor:
        """→ [N,ΣC,H,W]."""
        ctx.mode, ctx.shapes, ctx.dtype = mode, [tuple(x.shape) for x in maps], maps[0].dtype
        channels = sum(x.shape[1] for x in maps)
        out = launch.empty((maps[0].shape[0], channels, *size), ctx.dtype, maps[0].device, launch.memory_format(maps))
        begin = 0
        for x in maps:
            if x.numel():
                _write(x, out[:, begin : begin + x.shape[1]], mode)
            begin += x.shape[1]
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """g [N,ΣC,H,W] → a gradient a map."""
        grads, begin = [], 0
        for shape, need in zip(ctx.shapes, ctx.needs_input_grad[2:], strict=True):
            part = g[:, begin : begin + shape[1]]
            grads.append(adjoint(part, shape[2:], ctx.mode, dtype=ctx.dtype) if need else None)
            begin += shape[1]
        return None, None, *grads


def upsample_concat(maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W]."""
    launch.check_maps(maps, size, mode, same_channels=False)
    return UpsampleConcat.apply(tuple(size), mode, *maps)


def _write(x: Tensor, out: Tensor, mode: str) -> None:
    n, c, h, w = out.shape
    dtype = launch.accumulator(x.dtype)
    row = launch.taps(x.shape[2], h, mode, x.device, dtype)
    column = launch.taps(x.shape[3], w, mode, x.device, dtype)
    block_x = launch.power_of_two(w, 16, 16 if launch.channels_last(x) else 256)
    block_c = launch.power_of_two(c, 1, 1024 // block_x)
    grid = (n * triton.cdiv(w, block_x) * triton.cdiv(h, _STRIP), triton.cdiv(c, block_c))
    with launch.on(x.device):
        upsample_strip_kernel[grid](
            x, *x.stride(), row.source, row.weight, column.source, column.weight, out, *out.stride(), c, h, w,
            KIND=launch.kind((x.shape[2], x.shape[3]), (h, w), mode), INDEX=index_type(x, out), ACC=TYPES[dtype],
            STRIP=_STRIP, BLOCK_C=block_c, BLOCK_X=block_x,
            **launch.OPTIONS,
        )  # fmt: skip
