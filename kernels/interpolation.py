"""Upsampling U: along one axis two native taps a position, or the same as a small matrix.

U is linear, acts on each channel alone and is separable: U(a) = R a Cᵀ with one such matrix an axis.
Modes: "bilinear" (half-pixel centres), "nearest" (pixel ⌊p·h/H⌋), "bilinear-corners" (corner pixels coincide).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("bilinear", "nearest", "bilinear-corners")


def check_mode(mode: str) -> None:
    """ValueError for an unknown upsampling mode."""
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}; wanted one of {', '.join(MODES)}")


def axis_taps(native: int, full: int, mode: str, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `full` positions its two native taps (int64 [full] each) and the weight of the second (float64)."""
    check_mode(mode)
    p = torch.arange(full, dtype=torch.float64, device=device)
    if native == full or mode == "nearest":
        first = torch.div(p.long() * native, full, rounding_mode="floor")
        return first, first, torch.zeros_like(p)
    if mode == "bilinear":
        at = ((p + 0.5) * (native / full) - 0.5).clamp(min=0)
    else:
        at = p * ((native - 1) / (full - 1) if full > 1 else 0.0)
    first = at.floor().long().clamp(max=native - 1)
    return first, (first + 1).clamp(max=native - 1), at - first


def axis_matrix(native: int, full: int, mode: str, like: Tensor, shift: int = 0) -> Tensor:
    """Upsampling along one axis as a matrix [full,native]; row p is that of position p + shift, 0 outside."""
    first, second, weight = axis_taps(native, full, mode, like.device)
    weight = weight.to(like.dtype)
    matrix = torch.zeros(full, native, dtype=like.dtype, device=like.device)
    rows = torch.arange(full, device=like.device)
    matrix.index_put_((rows, first), 1 - weight, accumulate=True)
    matrix.index_put_((rows, second), weight, accumulate=True)
    if shift:
        moved = torch.zeros_like(matrix)
        if abs(shift) < full:
            moved[max(-shift, 0) : full - max(shift, 0)] = matrix[max(shift, 0) : full - max(-shift, 0)]
        return moved
    return matrix


def upsample(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """U: x [N,C,h,w] → [N,C,H,W]."""
    check_mode(mode)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if mode == "nearest":
        if all(_doubles(native, full) for native, full in zip(x.shape[-2:], size, strict=True)):
            return F.interpolate(x, size=size, mode="nearest")
        rows = axis_taps(x.shape[-2], size[0], mode, x.device)[0]
        return x[..., rows, :][..., axis_taps(x.shape[-1], size[1], mode, x.device)[0]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=mode == "bilinear-corners")


def upsample_adjoint(y: Tensor, native: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Uᵀ, the transpose of `upsample`: y [N,K,H,W] → [N,K,h,w], so that ⟨U(a), y⟩ = ⟨a, Uᵀ(y)⟩."""
    if tuple(native) == tuple(y.shape[-2:]):
        return y
    rows = axis_matrix(native[0], y.shape[-2], mode, y)
    columns = axis_matrix(native[1], y.shape[-1], mode, y)
    return rows.T @ y @ columns


def widened(x: Tensor) -> Tensor:
    """x, in float32 where it has half precision: in it sums over many pixels or channels pass 65504."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _doubles(native: int, full: int) -> bool:
    """Whether full is native·2^j: there torch's nearest is the exact floor in every dtype, elsewhere it may miss it."""
    times, rest = divmod(full, native)
    return rest == 0 and times & (times - 1) == 0
