"""Parts that every launch shares on the host: tap tables, checks, fresh memory, the device. No Triton here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gansegctl.kernels.interpolation import axis_taps, check_mode

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COPY, NEAREST, LINEAR = 0, 1, 2
"""How a native map is read: as it is, one tap a pixel, or four."""

OPTIONS = {"enable_fp_fusion": True}
"""Given to every Triton launch: multiply-adds are fused, whatever the default of the Triton at hand."""


class Taps(NamedTuple):
    """Upsampling along one axis, as every kernel reads it: position p is Σ_j weight[j,p]·native[source[j,p]], j = 0, 1.

    source int32 [2,full]; weight [2,full], 0 where a shift leads outside; first, last int32 [native]: the
    half-open range of positions that read native pixel q, for the adjoint; window: the longest such range.
    """

    source: Tensor
    weight: Tensor
    first: Tensor
    last: Tensor
    window: int


@lru_cache(maxsize=512)
def taps(native: int, full: int, mode: str, device: torch.device, dtype: torch.dtype, shift: int = 0) -> Taps:
    """The table of one axis; `shift` reads position p + shift and 0 outside. Computed in float64, kept per device."""
    first, second, weight = axis_taps(native, full, mode)
    place = torch.arange(full) + shift
    inside = (place >= 0) & (place < full)
    place = place.clamp(0, full - 1)
    index = torch.stack([first[place], second[place]])
    weights = torch.stack([1 - weight[place], weight[place]]) * inside
    positions = torch.arange(full).expand(2, full)[:, inside].reshape(-1)
    read = index[:, inside].reshape(-1)
    low = torch.full((native,), full).scatter_reduce_(0, read, positions, "amin")
    high = torch.zeros(native, dtype=torch.long).scatter_reduce_(0, read, positions + 1, "amax")
    low = torch.minimum(low, high)  # a pixel that nobody reads has an empty range
    window = int((high - low).max())
    source, low, high = (t.to(device, torch.int32) for t in (index, low, high))
    return Taps(source, weights.to(device, dtype), low, high, window)


def kind(native: tuple[int, int], size: tuple[int, int], mode: str, shift: tuple[int, int] = (0, 0)) -> int:
    """COPY, NEAREST or LINEAR."""
    if tuple(native) == tuple(size) and shift == (0, 0):
        return COPY
    return NEAREST if mode == "nearest" or tuple(native) == tuple(size) else LINEAR


def empty(
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Uninitialised memory for a kernel to fill. The only place where the kernels take any: tests poison it."""
    return torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=format)


def check_maps(maps: Sequence[Tensor], size: tuple[int, int], mode: str, same_channels: bool) -> None:
    """ValueError unless maps are [N,C_i,h_i,w_i] of one N, dtype and device, and of one C where that is asked."""
    check_mode(mode)
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    if min(size) < 1:
        raise ValueError(f"got size {tuple(size)}; wanted (H, W) of 1 pixel or more")
    shapes = [tuple(x.shape) for x in maps]
    lead = slice(0, 2 if same_channels else 1)
    if any(len(s) != 4 or s[lead] != shapes[0][lead] or min(s[2:]) < 1 for s in shapes):
        raise ValueError(f"got maps {shapes}; wanted [N,C,h,w] of one N{' and one C' if same_channels else ''}")
    kinds = {(x.dtype, x.device) for x in maps}
    if len(kinds) > 1 or maps[0].dtype not in FLOATS:
        raise ValueError(f"got maps of {sorted(map(str, kinds))}; wanted one floating dtype on one device")


def check_head(
    maps: Sequence[Tensor], layers: Sequence[tuple[Tensor, Tensor]], heads: int, bias: Tensor | None
) -> None:
    """ValueError when the shapes of a head do not follow one another."""
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    channels = maps[0].shape[1]
    if heads < 1 or channels % heads or (bias is not None and tuple(bias.shape) != (channels,)):
        wanted = f"[heads·K_0] each, heads = {heads}"
        raise ValueError(f"got {channels} channels and bias {None if bias is None else list(bias.shape)}; {wanted}")
    width = channels // heads
    for weight, offset in layers:
        if weight.ndim != 3 or weight.shape[0] != heads or weight.shape[2] != width:
            raise ValueError(f"got layer weight {list(weight.shape)}; wanted [{heads}, K, {width}]")
        width = weight.shape[1]
        if tuple(offset.shape) != (heads, width):
            raise ValueError(f"got layer bias {list(offset.shape)}; wanted [{heads}, {width}]")
    if not 1 <= width <= 255:
        raise ValueError(f"got {width} classes; wanted 1 … 255, so that labels fit uint8")


def check_points(points: Tensor, samples: int, size: tuple[int, int]) -> None:
    """ValueError unless points are int64 [P,3], each a (sample, row, column) inside `samples` images of `size`."""
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype != torch.int64:
        raise ValueError(f"got points {points.dtype} {list(points.shape)}; wanted int64 [P,3]")
    limits = torch.tensor([samples, *size], device=points.device)
    if bool(((points < 0) | (points >= limits)).any()):
        raise ValueError(f"got points outside the images; wanted (sample, row, column) below {limits.tolist()}")


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Sums run in float32, of float64 inputs in float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_wide(*tensors: Tensor) -> bool:
    """Whether offsets inside one sample (or a tensor without samples) can pass 2³¹ elements."""
    return any(
        sum((s - 1) * abs(t) for s, t in zip(x.shape[1:], x.stride()[1:], strict=True) if s) >= 2**31 for x in tensors
    )


def channels_last(x: Tensor) -> bool:
    """Whether the channels of x [N,C,h,w] lie side by side in memory, and it has more than one."""
    return x.shape[1] > 1 and x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)


def memory_format(maps: Sequence[Tensor]) -> torch.memory_format:
    """channels_last when every map is."""
    return torch.channels_last if all(map(channels_last, maps)) else torch.contiguous_format


def on(device: torch.device) -> contextlib.AbstractContextManager:
    """Makes a CUDA device the current one for a launch; nothing for the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def power_of_two(n: int, low: int, high: int) -> int:
    """The smallest power of two that is ≥ n, kept in low … high."""
    return min(high, max(low, 1 << max(n - 1, 0).bit_length()))
