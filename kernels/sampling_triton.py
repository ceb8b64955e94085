"""Device function shared by the Triton kernels: the sum of several upsampled maps at a tile of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch

TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


@triton.jit
def sampled_sum(
    maps: tl.tuple, rows: tl.tuple, row_weights: tl.tuple, columns: tl.tuple, column_weights: tl.tuple,
    strides: tl.tuple, n: tl.tensor, k: tl.tensor, in_k: tl.tensor, y: tl.tensor, in_y: tl.tensor, x: tl.tensor,
    in_x: tl.tensor, H: tl.tensor, W: tl.tensor,
    KINDS: tl.constexpr, INDEX: tl.constexpr, ACC: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Σ_i U(a_i)[n, k, y, x] over broadcast k, y, x; `rows`, … are tuples of tap tables, strides 4 numbers a map."""
    inside = in_k & in_y & in_x
    total = tl.where(inside, 0.0, 0.0).to(ACC)
    sample, channel = n.to(tl.int64), k.to(INDEX)
    for i in tl.static_range(len(maps)):
        plane = maps[i] + sample * strides[4 * i] + channel * strides[4 * i + 1]
        if KINDS[i] == 0:
            at = y.to(INDEX) * strides[4 * i + 2] + x.to(INDEX) * strides[4 * i + 3]
            total += tl.load(plane + at, mask=inside, other=0.0).to(ACC)
        else:
            top = tl.load(rows[i] + y, mask=in_y, other=0).to(INDEX) * strides[4 * i + 2]
            left = tl.load(columns[i] + x, mask=in_x, other=0).to(INDEX) * strides[4 * i + 3]
            wt = tl.load(row_weights[i] + y, mask=in_y, other=0.0)
            wl = tl.load(column_weights[i] + x, mask=in_x, other=0.0)
            upper = wl * tl.load(plane + (top + left), mask=inside, other=0.0).to(ACC)
            if KINDS[i] == 1:
                total += wt * upper
            else:
                bottom = tl.load(rows[i] + H + y, mask=in_y, other=0).to(INDEX) * strides[4 * i + 2]
                right = tl.load(columns[i] + W + x, mask=in_x, other=0).to(INDEX) * strides[4 * i + 3]
                wb = tl.load(row_weights[i] + H + y, mask=in_y, other=0.0)
                wr = tl.load(column_weights[i] + W + x, mask=in_x, other=0.0)
                upper += wr * tl.load(plane + (top + right), mask=inside, other=0.0).to(ACC)
                lower = wl * tl.load(plane + (bottom + left), mask=inside, other=0.0).to(ACC)
                lower += wr * tl.load(plane + (bottom + right), mask=inside, other=0.0).to(ACC)
                total += wt * upper + wb * lower
    return total


def operands(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str, shifts: Sequence[tuple[int, int]] | None = None
) -> tuple[tuple[tuple, ...], tuple[int, ...]]:
    """The first six arguments of `sampled_sum`, and KINDS."""
    shifts = shifts or [(0, 0)] * len(maps)
    dtype = launch.accumulator(maps[0].dtype)
    row_taps, column_taps, kinds = [], [], []
    strides: list[int] = []
    for x, shift in zip(maps, shifts, strict=True):
        row_taps.append(launch.taps(x.shape[2], size[0], mode, x.device, dtype, shift[0]))
        column_taps.append(launch.taps(x.shape[3], size[1], mode, x.device, dtype, shift[1]))
        strides += x.stride()
        kinds.append(launch.kind((x.shape[2], x.shape[3]), size, mode, shift))
    tables = [tuple(t.source for t in row_taps), tuple(t.weight for t in row_taps)]
    tables += [tuple(t.source for t in column_taps), tuple(t.weight for t in column_taps)]
    return (tuple(maps), *tables, tuple(strides)), tuple(kinds)


def merged(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps of one size added: U is linear, so each size is read once."""
    by_size: dict[tuple[int, ...], Tensor] = {}
    for x in maps:
        native = tuple(x.shape[2:])
        by_size[native] = by_size[native] + x if native in by_size else x
    return list(by_size.values())


def index_type(*tensors: Tensor) -> tl.dtype:
    """int64 offsets where a sample passes 2³¹ elements, else int32. The sample itself is always an int64 offset."""
    return tl.int64 if launch.is_wide(*tensors) else tl.int32
