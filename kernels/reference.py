"""What every kernel means, in plain torch: the definition that other backends are held to.

On a CPU sums of upsampled maps are made in strips (strips.py), with the gradient that follows from the definition.
Upsampling and its modes: axes.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels import cpu_strips as strips
from gansegctl.kernels.interpolation import MODES, axis_matrix, axis_taps, check_mode

__all__ = [
    "MODES",
    "axis_matrix",
    "axis_taps",
    "check_mode",
    "conv_upsampled",
    "gather_points",
    "native_project",
    "segment_pool",
    "segment_sums",
    "squared_norm",
    "sum_of_upsampled",
    "upsample",
    "upsample_adjoint",
    "upsample_concat",
    "upsample_sum",
]


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
    check_mode(mode)
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    if maps[0].device.type != "cpu":
        return sum_of_upsampled(maps, size, mode, bias)
    total = _UpsampleSum.apply(tuple(size), mode, *maps)
    return total if bias is None else total + bias.view(1, -1, 1, 1)


def sum_of_upsampled(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", bias: Tensor | None = None
) -> Tensor:
    """`upsample_sum` by its definition, on any device: every size upsampled whole, then added."""
    by_size: dict[tuple[int, int], Tensor] = {}
    for x in maps:
        native = (x.shape[-2], x.shape[-1])
        by_size[native] = by_size[native] + x if native in by_size else x
    total = None
    for x in by_size.values():
        up = upsample(x, size, mode)
        total = up if total is None else total + up
    return total if bias is None else total + bias.view(1, -1, 1, 1)


class _UpsampleSum(torch.autograd.Function):
    """Σ U(a_i) in strips; the gradient of each map is Uᵀ of the sum's, itself differentiable."""

    @staticmethod
    def forward(ctx, size: tuple[int, int], mode: str, *maps: Tensor) -> Tensor:
        ctx.mode, ctx.natives = mode, [(x.shape[-2], x.shape[-1]) for x in maps]
        return strips.upsample_sum(maps, size, mode)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Maps of one size share one gradient."""
        adjoint = {native: upsample_adjoint(grad, native, ctx.mode) for native in set(ctx.natives)}
        return None, None, *(adjoint[native] for native in ctx.natives)


def native_project(levels: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Σ W_i a_i of the levels of each size: levels [N,C_i,h_i,w_i], weights [K,C_i] → one [N,K,h,w] a size.

    Matrix products on pixels, channels-last in memory; the sum over levels of one size is made in the product.
    """
    by_size: dict[tuple[int, int], Tensor] = {}
    for x, weight in zip(levels, weights, strict=True):
        native = (x.shape[2], x.shape[3])
        pixels, w = x.flatten(2).transpose(1, 2), weight.T.expand(x.shape[0], -1, -1)  # [N, h·w, C], [N, C, K]
        by_size[native] = torch.baddbmm(by_size[native], pixels, w) if native in by_size else pixels @ w
    return [y.unflatten(1, native).permute(0, 3, 1, 2) for native, y in by_size.items()]


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
    return segment_sums(weights, [x], mode)[0]


def segment_sums(weights: Tensor, maps: Sequence[Tensor], mode: str = "bilinear") -> list[Tensor]:
    """`segment_pool` of several maps [N,C_i,h_i,w_i] → [K,C_i] each; the adjoint is taken once a size."""
    adjoint: dict[tuple[int, int, torch.dtype], Tensor] = {}
    sums = []
    for x in maps:
        x = _wide(x)
        key = (x.shape[2], x.shape[3], x.dtype)
        if key not in adjoint:
            adjoint[key] = upsample_adjoint(weights.to(x.dtype), key[:2], mode)
        native = adjoint[key].flatten(2)  # [N, K, h·w]
        sums.append((native @ x.flatten(2).transpose(1, 2)).sum(dim=0))
    return sums


def gather_points(x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """U(x) at sampled pixels: x [N,C,h,w], points int64 [P,3] as (sample, row, column) → [P,C]."""
    limits = torch.tensor([x.shape[0], *size], device=points.device)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype != torch.int64:
        raise ValueError(f"got points {points.dtype} {list(points.shape)}; wanted int64 [P,3]")
    if bool(((points < 0) | (points >= limits)).any()):
        raise ValueError(f"got points outside the images; wanted (sample, row, column) below {limits.tolist()}")
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
