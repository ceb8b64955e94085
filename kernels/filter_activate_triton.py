"""A generator's low-pass filter and everything after it in one kernel: each activation is read and written once.

Unfused, filter, scale, noise, bias, leaky ReLU, gain and clamp each read and write the whole activation. Taps of the
filter that neighbouring pixels share come from the cache. No gradients: training runs in torch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.reference import Activation, Size
from gansegctl.kernels.sampling_triton import TYPES, index_type


@triton.jit
def filter_activate_kernel(
    x: tl.tensor, x_n: tl.tensor, x_c: tl.tensor, x_y: tl.tensor, x_x: tl.tensor, scale: tl.tensor, bias: tl.tensor,
    noise: tl.tensor, noise_n: tl.tensor, noise_y: tl.tensor, noise_x: tl.tensor, fir: tl.tensor, out: tl.tensor,
    out_n: tl.tensor, out_c: tl.tensor, out_y: tl.tensor, out_x: tl.tensor, C: tl.tensor, H: tl.tensor, W: tl.tensor,
    IN_H: tl.tensor, IN_W: tl.tensor, low: tl.tensor, constants: tl.tensor,
    TAPS: tl.constexpr, HAS_NOISE: tl.constexpr, CLAMPED: tl.constexpr, INDEX: tl.constexpr, ACC: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
) -> None:  # fmt: skip
    """One tile [BLOCK_C, BLOCK_Y·BLOCK_X] of the output. TAPS 0: no filter."""
    across = tl.cdiv(W, BLOCK_X)
    tiles = across * tl.cdiv(H, BLOCK_Y)
    tile = tl.program_id(0) % tiles
    n = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.arange(0, BLOCK_Y * BLOCK_X)
    row = ((tile // across) * BLOCK_Y + pixel // BLOCK_X)[None, :]
    column = ((tile % across) * BLOCK_X + pixel % BLOCK_X)[None, :]
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    inside = (c < C) & (row < H) & (column < W)
    here = x + n * x_n + c.to(INDEX) * x_c
    if TAPS == 0:
        at = row.to(INDEX) * x_y + column.to(INDEX) * x_x
        total = tl.load(here + at, mask=inside, other=0.0).to(ACC)
    else:
        total = tl.zeros((BLOCK_C, BLOCK_Y * BLOCK_X), dtype=ACC)
        for i in tl.static_range(TAPS):
            y = row + i - low
            for j in tl.static_range(TAPS):
                z = column + j - low
                there = inside & (y >= 0) & (y < IN_H) & (z >= 0) & (z < IN_W)
                value = tl.load(here + y.to(INDEX) * x_y + z.to(INDEX) * x_x, mask=there, other=0.0).to(ACC)
                # The convolution is with the flipped kernel, as in the definition.
                total += value * tl.load(fir + (TAPS - 1 - i) * TAPS + (TAPS - 1 - j)).to(ACC)
    total *= tl.load(scale + n * C + c, mask=c < C, other=0.0).to(ACC)
    if HAS_NOISE:
        at = n * noise_n + row.to(INDEX) * noise_y + column.to(INDEX) * noise_x
        total += tl.load(noise + at, mask=(row < H) & (column < W), other=0.0).to(ACC)
    total += tl.load(bias + c, mask=c < C, other=0.0).to(ACC)
    gain, slope, clamp = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    total = tl.where(total > 0, total, total * slope) * gain
    if CLAMPED:
        total = tl.minimum(tl.maximum(total, -clamp), clamp)
    at = n * out_n + c.to(INDEX) * out_c + row.to(INDEX) * out_y + column.to(INDEX) * out_x
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@torch.no_grad()
def filter_activate(
    x: Tensor, scale: Tensor, bias: Tensor, noise: Tensor | None, fir: Tensor | None, padding: Size, then: Activation
) -> Tensor:
    """See `kernels.filter_activate`."""
    gain, slope, clamp = then
    n, channels, height, width = x.shape
    grown = 0 if fir is None else sum(padding) - (fir.shape[0] - 1)
    shape = (n, channels, height + grown, width + grown)
    format = launch.memory_format([x])
    accumulator = launch.accumulator(x.dtype)
    out = launch.empty(shape, x.dtype, x.device, format)
    if out.numel() == 0:
        return out
    widest, pixels, block_c = (8, 32, 32) if format == torch.channels_last else (64, 128, 8)
    block_c, block_x = launch.power_of_two(channels, 1, block_c), launch.power_of_two(shape[3], 1, widest)
    block_y = pixels // block_x
    grid = (n * triton.cdiv(shape[2], block_y) * triton.cdiv(shape[3], block_x), triton.cdiv(channels, block_c))
    strides = (0, 0, 0) if noise is None else (0 if len(noise) == 1 else noise.stride(0), *noise.stride()[2:])
    with launch.on(out.device):
        filter_activate_kernel[grid](
            x, *x.stride(), scale.contiguous(), bias.contiguous(), out if noise is None else noise, *strides,
            out if fir is None else fir.contiguous(), out, *out.stride(),
            channels, *shape[2:], height, width, padding[0],
            _constants(gain, slope, 0.0 if clamp is None else clamp, out.device, accumulator),
            TAPS=0 if fir is None else fir.shape[0], HAS_NOISE=noise is not None, CLAMPED=clamp is not None,
            INDEX=index_type(out, x), ACC=TYPES[accumulator],
            BLOCK_C=block_c, BLOCK_Y=block_y, BLOCK_X=block_x, **launch.OPTIONS,
        )  # fmt: skip
    return out


@lru_cache(maxsize=256)
def _constants(gain: float, slope: float, clamp: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[gain, slope, clamp] in the dtype of the sums: a launch hands a Python float on as float32, also to float64."""
    return torch.tensor([gain, slope, clamp], device=device, dtype=dtype)
