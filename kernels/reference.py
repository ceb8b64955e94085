"""What every kernel means, in plain torch: the definition that other backends are held to, and the CPU path.

Upsampling U is linear, acts on each channel alone and is separable: U(a) = R a Cᵀ with one small matrix an axis.
Modes: "bilinear" (half-pixel centres), "nearest" (pixel ⌊p·h/H⌋), "bilinear-corners" (corner pixels coincide).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("bilinear", "nearest", "bilinear-corners")


def check_mode(mode: str) -> None:
    """ValueError for an unknown upsampling mode."""
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}; wanted one of {', '.join(MODES)}")


def upsample(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """x [N,C,h,w] → [N,C,H,W]."""
    check_mode(mode)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if mode == "nearest":
        if all(_doubles(native, full) for native, full in zip(x.shape[-2:], size, strict=True)):
            return F.interpolate(x, size=size, mode="nearest")
        rows = axis_taps(x.shape[-2], size[0], mode, x.device)[0]
        return x[..., rows, :][..., axis_taps(x.shape[-1], size[1], mode, x.device)[0]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=mode == "bilinear-corners")


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


def upsample_adjoint(y: Tensor, native: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """The transpose of `upsample`: y [N,K,H,W] → [N,K,h,w], so that ⟨U(a), y⟩ = ⟨a, Uᵀ(y)⟩."""
    if tuple(native) == tuple(y.shape[-2:]):
        return y
    rows = axis_matrix(native[0], y.shape[-2], mode, y)
    columns = axis_matrix(native[1], y.shape[-1], mode, y)
    return rows.T @ y @ columns


def upsample_sum(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", bias: Tensor | None = None
) -> Tensor:
    """Σ U(a_i) + bias: maps [N,K,h_i,w_i] → [N,K,H,W]. Maps of one size are added before they are upsampled."""
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    by_size: dict[tuple[int, int], Tensor] = {}
    for x in maps:
        native = (x.shape[-2], x.shape[-1])
        by_size[native] = by_size[native] + x if native in by_size else x
    total = None
    for x in by_size.values():
        up = upsample(x, size, mode)
        total = up if total is None else total + up
    return total if bias is None else total + bias.view(1, -1, 1, 1)


def upsample_concat(maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """The dense hypercolumn: maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W]."""
    return torch.cat([upsample(x, size, mode) for x in maps], dim=1)


def conv_upsampled(x: Tensor, weight: Tensor, size: tuple[int, int], mode: str, dilation: int) -> Tensor:
    """conv2d(U(x), weight, dilation, zero padding) without U(x): x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W].

    The k² taps are projected at native size; shifting and upsampling are one matrix an axis and tap, so the sum over
    taps is two matrix products.
    """
    k_out, _, k, _ = weight.shape
    n, _, h, w = x.shape
    if (h, w) == tuple(size):
        return F.conv2d(x, weight, padding=dilation * (k // 2), dilation=dilation)
    kernel = weight.permute(2, 0, 3, 1).reshape(k * k_out * k, -1, 1, 1)  # order: tap row, output, tap column
    native = F.conv2d(x, kernel).view(n, k, k_out, k, h, w)
    shifts = [dilation * (i - k // 2) for i in range(k)]
    columns = torch.cat([axis_matrix(w, size[1], mode, x, s).T for s in shifts])  # [k·w, W]
    rows = torch.cat([axis_matrix(h, size[0], mode, x, s) for s in shifts], dim=1)  # [H, k·h]
    across = native.permute(0, 2, 1, 4, 3, 5).reshape(n, k_out, k * h, k * w) @ columns  # [N, K, k·h, W]
    return rows @ across


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """‖U(x)(p)‖² over channels: x [N,C,h,w] → [N,H,W], from inner products of neighbouring native pixels.

    With taps of weight a, b, c, d at q, q+x, q+y, q+xy it is a quadratic form of ⟨q,q⟩, ⟨q,q+x⟩, ⟨q,q+y⟩ and, because
    ad = bc, of ⟨q,q+xy⟩ + ⟨q+x,q+y⟩ as one map. Half precision is summed in float32, and comes back as that.
    """
    x = _wide(x)
    y0, y1, fy = axis_taps(x.shape[-2], size[0], mode, x.device)
    x0, x1, fx = axis_taps(x.shape[-1], size[1], mode, x.device)
    fy, fx = fy.to(x.dtype).view(-1, 1), fx.to(x.dtype).view(1, -1)
    left, right, above, below = x[..., :-1], x[..., 1:], x[..., :-1, :], x[..., 1:, :]

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(dim=1)

    def take(m: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return m[:, rows][:, :, columns]  # [N, H, W]

    own = dot(x, x)  # [N, h, w]
    if mode == "nearest":
        return take(own, y0, x0)
    # A neighbour beyond the edge is the edge pixel itself, as in the taps: so the last column or row repeats.
    ahead = torch.cat([dot(left, right), own[..., -1:]], dim=2)
    down = torch.cat([dot(above, below), own[:, -1:]], dim=1)
    inner = dot(above[..., :-1], below[..., 1:]) + dot(above[..., 1:], below[..., :-1])
    diagonal = torch.cat([torch.cat([inner, 2 * down[:, :-1, -1:]], dim=2), 2 * ahead[:, -1:]], dim=1)

    a, b, c, d = (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx  # weights of q, q+x, q+y, q+xy
    total = a * a * take(own, y0, x0) + b * b * take(own, y0, x1)
    total = total + c * c * take(own, y1, x0) + d * d * take(own, y1, x1)
    total = total + 2 * (a * b * take(ahead, y0, x0) + c * d * take(ahead, y1, x0))
    total = total + 2 * (a * c * take(down, y0, x0) + b * d * take(down, y0, x1))
    total = total + 2 * a * d * take(diagonal, y0, x0)
    return total.clamp(min=0)  # rounding must not make a norm negative


def segment_pool(weights: Tensor, x: Tensor, mode: str = "bilinear") -> Tensor:
    """Σ_p weight_k(p)·U(x)(p): weights [N,K,H,W], x [N,C,h,w] → [K,C], through the adjoint at native size.

    Half precision is summed in float32, and comes back as that: 65504 is soon exceeded.
    """
    x = _wide(x)
    native = upsample_adjoint(weights.to(x.dtype), (x.shape[-2], x.shape[-1]), mode)
    return torch.einsum("nkhw,nchw->kc", native, x)


def gather_points(x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """U(x) at sampled pixels: x [N,C,h,w], points int64 [P,3] as (sample, row, column) → [P,C]."""
    limits = torch.tensor([x.shape[0], *size], device=points.device)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype != torch.int64:
        raise ValueError(f"got points {points.dtype} {list(points.shape)}; wanted int64 [P,3]")
    if bool(((points < 0) | (points >= limits)).any()):
        raise ValueError(f"got points outside the pictures; wanted (sample, row, column) below {limits.tolist()}")
    n, row, column = points.unbind(dim=1)
    y0, y1, fy = axis_taps(x.shape[-2], size[0], mode, x.device)
    x0, x1, fx = axis_taps(x.shape[-1], size[1], mode, x.device)
    fy, fx = fy.to(x.dtype)[row, None], fx.to(x.dtype)[column, None]
    top = x[n, :, y0[row], x0[column]] * (1 - fx) + x[n, :, y0[row], x1[column]] * fx
    bottom = x[n, :, y1[row], x0[column]] * (1 - fx) + x[n, :, y1[row], x1[column]] * fx
    return top * (1 - fy) + bottom * fy


def _doubles(native: int, full: int) -> bool:
    """Whether full is native·2^j: there torch's nearest is the exact floor in every dtype, elsewhere it may miss it."""
    times, rest = divmod(full, native)
    return rest == 0 and times & (times - 1) == 0


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
