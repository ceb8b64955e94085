"""U(x) at sampled pixels: four taps a point, read where they lie.

Backward: the points that read a native pixel are sorted together, and one program sums them in that order, so the
gradient is the same on every run, and pixels that no point reads cost nothing but a zero.
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


@triton.jit
def gather_kernel(
    x: tl.tensor, x_n: tl.tensor, x_c: tl.tensor, x_y: tl.tensor, x_x: tl.tensor, points: tl.tensor, rows: tl.tensor,
    row_weights: tl.tensor, columns: tl.tensor, column_weights: tl.tensor, out: tl.tensor, P: tl.tensor, C: tl.tensor,
    H: tl.tensor, W: tl.tensor,
    LINEAR: tl.constexpr, INDEX: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
) -> None:  # fmt: skip
    """BLOCK_P points of BLOCK_C channels."""
    p = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    there = p < P
    n = tl.load(points + p.to(tl.int64) * 3, mask=there, other=0)
    y = tl.load(points + p.to(tl.int64) * 3 + 1, mask=there, other=0)
    column = tl.load(points + p.to(tl.int64) * 3 + 2, mask=there, other=0)
    mask = there & (c < C)
    plane = x + n.to(tl.int64) * x_n + c.to(INDEX) * x_c
    top = tl.load(rows + y, mask=there, other=0).to(INDEX) * x_y
    left = tl.load(columns + column, mask=there, other=0).to(INDEX) * x_x
    value = tl.load(plane + top + left, mask=mask, other=0.0).to(ACC)
    if LINEAR:
        bottom = tl.load(rows + H + y, mask=there, other=0).to(INDEX) * x_y
        right = tl.load(columns + W + column, mask=there, other=0).to(INDEX) * x_x
        fy = tl.load(row_weights + H + y, mask=there, other=0.0)
        fx = tl.load(column_weights + W + column, mask=there, other=0.0)
        upper = value * (1 - fx) + tl.load(plane + top + right, mask=mask, other=0.0).to(ACC) * fx
        lower = tl.load(plane + bottom + left, mask=mask, other=0.0).to(ACC) * (1 - fx)
        lower += tl.load(plane + bottom + right, mask=mask, other=0.0).to(ACC) * fx
        value = upper * (1 - fy) + lower * fy
    tl.store(out + p.to(tl.int64) * C + c, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def sum_runs_kernel(
    g: tl.tensor, points: tl.tensor, weights: tl.tensor, starts: tl.tensor, pixels: tl.tensor, out: tl.tensor,
    C: tl.tensor, SIZE: tl.tensor,
    ACC: tl.constexpr, BLOCK_C: tl.constexpr,
) -> None:  # fmt: skip
    """Run r: out[sample, :, pixel] = Σ_j weights[j]·g[points[j], :] over starts[r] … starts[r+1]."""
    r = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], ACC)
    for j in range(tl.load(starts + r), tl.load(starts + r + 1)):
        row = tl.load(points + j)
        total += tl.load(weights + j) * tl.load(g + row * C + c, mask=c < C, other=0.0).to(ACC)
    pixel = tl.load(pixels + r)
    at = (pixel // SIZE) * SIZE * C + c.to(tl.int64) * SIZE + pixel % SIZE
    tl.store(out + at, total.to(out.dtype.element_ty), mask=c < C)


class GatherPoints(torch.autograd.Function):
    """Forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, points: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        """→ [P,C]."""
        ctx.save_for_backward(points)
        ctx.shape, ctx.size, ctx.mode, ctx.dtype = tuple(x.shape), size, mode, x.dtype
        row, column = _tables(x.shape, size, mode, x.device, x.dtype)
        out = launch.empty((len(points), x.shape[1]), x.dtype, x.device)
        if out.numel() == 0:
            return out
        block_c = launch.power_of_two(x.shape[1], 16, 128)
        with launch.on(x.device):
            gather_kernel[(triton.cdiv(len(points), 16), triton.cdiv(x.shape[1], block_c))](
                x, *x.stride(), points, row.source, row.weight, column.source, column.weight, out,
                len(points), x.shape[1], *size,
                LINEAR=launch.kind((x.shape[2], x.shape[3]), size, mode) == launch.LINEAR, INDEX=index_type(x),
                ACC=TYPES[launch.accumulator(x.dtype)], BLOCK_P=16, BLOCK_C=block_c,
                **launch.OPTIONS,
            )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        """g [P,C] → [N,C,h,w]."""
        (points,) = ctx.saved_tensors
        _, c, h, w = ctx.shape
        grad = torch.zeros(ctx.shape, dtype=ctx.dtype, device=g.device)
        if g.numel() == 0:
            return grad, None, None, None
        row, column = _tables(ctx.shape, ctx.size, ctx.mode, g.device, ctx.dtype)
        sample, y, x = points.unbind(dim=1)
        pixel = (sample * h + row.source[:, None, y]) * w + column.source[None, :, x]  # [2, 2, P]
        share = row.weight[:, None, y] * column.weight[None, :, x]
        pixel, order = pixel.reshape(-1).sort(stable=True)
        pixels, counts = pixel.unique_consecutive(return_counts=True)
        starts = _starts(counts)
        block = launch.power_of_two(c, 16, 128)
        with launch.on(g.device):
            sum_runs_kernel[(len(pixels), triton.cdiv(c, block))](
                g.contiguous(), order % len(points), share.reshape(-1)[order], starts, pixels, grad, c, h * w,
                ACC=TYPES[launch.accumulator(ctx.dtype)], BLOCK_C=block,
                **launch.OPTIONS,
            )  # fmt: skip
        return grad, None, None, None


def _starts(counts: Tensor) -> Tensor:
    """Counts of runs [R] → where each begins, and the end of the last [R+1]."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def gather_points(x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """x [N,C,h,w], points int64 [P,3] as (sample, row, column), inside → [P,C]."""
    launch.check_maps([x], size, mode, same_channels=False)
    return GatherPoints.apply(x, points.contiguous(), tuple(size), mode)


def _tables(
    shape: Sequence[int], size: tuple[int, int], mode: str, device: torch.device, dtype: torch.dtype
) -> tuple[launch.Taps, launch.Taps]:
    dtype = launch.accumulator(dtype)
    return launch.taps(shape[2], size[0], mode, device, dtype), launch.taps(shape[3], size[1], mode, device, dtype)
