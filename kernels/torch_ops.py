"""Backend "torch": every operation without the upsampled maps it is defined on, in plain torch, on any device.

It takes what the Triton kernels cannot: gradients of a norm, float64 heads, a GPU without Triton. Equal to reference.py
but for rounding, by the identities that each function states. Half precision is pooled and squared in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gansegctl.kernels.interpolation import axis_matrix, axis_taps, upsample, upsample_adjoint, widened
from gansegctl.kernels.reference import Activation, Layers, Maps, Size
from gansegctl.kernels.reference import upsample_concat as upsample_concat

CHUNK = 256
"""Hidden units of a wide first layer that exist at one time, without gradients."""

HIDDEN = 256 << 20
"""Bytes of a perceptron's first hidden maps up to which training keeps them; else the backward pass makes them anew."""

AGAIN = 40 << 20
"""Bytes of those maps that are made anew at one time: the backward pass holds about eight times as much. Above
the 32 MB up to which glibc keeps what is freed, in pieces, in its heap: with 16 MB a fit took twice the memory."""

_CLASSES_AT_ONCE = 64


def upsample_sum(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", bias: Tensor | None = None
) -> Tensor:
    """Σ U(a_i) + bias: maps [N,K,h_i,w_i] → [N,K,H,W]. U is linear, so maps of one size are added before."""
    by_size: dict[tuple[int, int], Tensor] = {}
    for x in maps:
        native = (x.shape[-2], x.shape[-1])
        by_size[native] = by_size[native] + x if native in by_size else x
    first, *others = by_size.values()
    total = upsample(first, size, mode)
    for x in others:
        total = total + upsample(x, size, mode)
    return total if bias is None else total + bias.view(1, -1, 1, 1)


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


def project(
    levels: Sequence[Tensor],
    weight: Tensor,
    size: tuple[int, int],
    mode: str,
    bias: Tensor | None = None,
    upsample_sum: Callable[..., Tensor] = upsample_sum,
) -> Tensor:
    """W·concat U(a_i) + b = Σ U(W_i a_i) + b: weight [K,ΣC] → [N,K,H,W]. upsample_sum: a backend's own."""
    maps = native_project(levels, weight.split(_widths(levels), dim=1))
    return upsample_sum(maps, size, mode, bias)


def conv_upsampled(x: Tensor, weight: Tensor, size: tuple[int, int], mode: str, dilation: int) -> Tensor:
    """conv2d(U(x), weight, dilation, zero padding): x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W].

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


def conv(
    levels: Maps,
    weight: Tensor,
    size: Size,
    mode: str,
    bias: Tensor | None = None,
    dilation: int = 1,
    conv_upsampled: Callable[..., Tensor] = conv_upsampled,
) -> Tensor:
    """k×k convolution of the hypercolumn, 0 outside: weight [K,ΣC,k,k] → [N,K,H,W]; levels of one size are one.

    conv_upsampled: a backend's own.
    """
    by_size: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for x, w in zip(levels, weight.split(_widths(levels), dim=1), strict=True):
        by_size.setdefault((x.shape[2], x.shape[3]), []).append((x, w))
    parts = [
        conv_upsampled(_joined([x for x, _ in pairs]), _joined([w for _, w in pairs]), size, mode, dilation)
        for pairs in by_size.values()
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total if bias is None else total + bias.view(1, -1, 1, 1)


def perceptron(
    levels: Sequence[Tensor],
    layers: Layers,
    size: tuple[int, int],
    mode: str,
    slope: float,
    project: Callable[..., Tensor] = project,
) -> Tensor:
    """A per-pixel head, leaky ReLU of `slope` between its layers → logits [N,K,H,W]. project: a backend's own.

    The maps of the first layer exist for `CHUNK` of its units at a time. With gradients they are kept for the backward
    pass, once, while all of them take `HIDDEN` bytes or less; of wider layers (2000 units at 256 px: 524 MB) they are
    made again in it, `AGAIN` bytes at a time.
    """
    (first, bias), rest = layers[0], layers[1:]
    if not rest:
        return project(levels, first, size, mode, bias)

    def part(first: Tensor, bias: Tensor, second: Tensor) -> Tensor:
        # in place: both operations keep the same maps
        hidden = F.leaky_relu_(project(levels, first, size, mode, bias), slope)
        return F.conv2d(hidden, second[:, :, None, None])

    nbytes = first.element_size() * len(levels[0]) * len(first) * size[0] * size[1]
    again = torch.is_grad_enabled() and nbytes > HIDDEN
    x = rest[0][1].view(1, -1, 1, 1)
    units = max(1, min(CHUNK, AGAIN * len(first) // nbytes)) if again else CHUNK
    chunks = (t.split(units, dim=i) for i, t in ((0, first), (0, bias), (1, rest[0][0])))
    for chunk in zip(*chunks, strict=True):
        # nothing in a part is random, so no random state has to be kept
        made = checkpoint(part, *chunk, use_reentrant=False, preserve_rng_state=False) if again else part(*chunk)
        x = x + made
    for weight, bias in rest[1:]:
        x = F.conv2d(F.leaky_relu(x, slope), weight[:, :, None, None], bias)
    return x


def pixel_head(
    maps: Maps, size: Size, layers: Layers, heads: int, mode: str, bias: Tensor | None, slope: float, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(labels, confidence, score) of `kernels.pixel_head`; one head's maps exist at a time. Softmax in ≥ float32.

    One head's label is the argmax of its logits; several heads' the argmax of their mean probability.
    """
    width = maps[0].shape[1] // heads
    p = entropy = labels = torch.zeros(())
    for e in range(heads):
        own = slice(e * width, (e + 1) * width)
        x = upsample_sum([m[:, own] for m in maps], size, mode, None if bias is None else bias[own])
        for weight, offset in layers:
            x = F.conv2d(F.leaky_relu(x, slope), weight[e, :, :, None, None], offset[e])  # [N, K_j, H, W]
        log_p = widened(x).log_softmax(dim=1)
        p = p + log_p.exp() / heads
        entropy = entropy - (log_p.exp() * log_p).sum(dim=1) / heads
        labels = x.argmax(dim=1) if heads == 1 else p.argmax(dim=1)
    spread = entropy if heads == 1 else (torch.special.entr(p).sum(dim=1) - entropy).clamp(min=0)
    spread = (spread / math.log(max(p.shape[1], 2))).float()
    confidence = (p.amax(dim=1) * 255).round().to(torch.uint8)
    return labels.to(torch.uint8), confidence, spread if per_pixel else spread.mean(dim=(1, 2))


def classify(
    levels: Sequence[Tensor],
    heads: Sequence[Layers],
    size: tuple[int, int],
    mode: str,
    slope: float,
    pixel_head: Callable[..., tuple[Tensor, Tensor, Tensor]] = pixel_head,
) -> tuple[Tensor, Tensor, Tensor]:
    """`pixel_head` of heads that share their levels: all first layers are one product. pixel_head: a backend's own."""
    weight, bias = (torch.stack([layers[0][i] for layers in heads]) for i in (0, 1))
    rest = [
        (torch.stack([w for w, _ in same]), torch.stack([b for _, b in same]))
        for same in zip(*(layers[1:] for layers in heads), strict=True)
    ]
    maps = native_project(levels, weight.flatten(0, 1).split(_widths(levels), dim=1))
    return pixel_head(maps, size, rest, len(heads), mode, bias.flatten(), slope, per_pixel=True)


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """‖U(x)(p)‖² over channels: x [N,C,h,w] → [N,H,W], from inner products of neighbouring native pixels.

    With taps of weight a, b, c, d at q, q+x, q+y, q+xy it is a quadratic form of ⟨q,q⟩, ⟨q,q+x⟩, ⟨q,q+y⟩ and, because
    ad = bc, of ⟨q,q+xy⟩ + ⟨q+x,q+y⟩ as one map.
    """
    x = widened(x)
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


def segment_pool(weights: Tensor, levels: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """Σ_p w_k(p)·U(a)(p) = Σ_q (Uᵀw_k)(q)·a(q): weights [N,K,H,W] → [K,ΣC]. Uᵀ is taken once a native size."""
    adjoint: dict[tuple[int, int, torch.dtype], Tensor] = {}
    sums = []
    for x in map(widened, levels):
        key = (x.shape[2], x.shape[3], x.dtype)
        if key not in adjoint:
            adjoint[key] = upsample_adjoint(weights.to(x.dtype), key[:2], mode)
        native = adjoint[key].flatten(2)  # [N, K, h·w]
        sums.append((native @ x.flatten(2).transpose(1, 2)).sum(dim=0))
    return torch.cat(sums, dim=1)


def segment_pool_labels(labels: Tensor, levels: Sequence[Tensor], classes: int, mode: str = "bilinear") -> Tensor:
    """`segment_pool` over the pixels of each label: labels [N,H,W] → [classes,ΣC], 64 one-hot maps at a time."""
    ids = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    maps = (labels.long()[:, None] == part for part in ids.split(_CLASSES_AT_ONCE, dim=1))
    return torch.cat([segment_pool(one_hot, levels, mode) for one_hot in maps])


def gather_points(x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """U(x) at points int64 [P,3] as (sample, row, column), from four native taps each: x [N,C,h,w] → [P,C]."""
    n, row, column = points.unbind(dim=1)
    y0, y1, fy = axis_taps(x.shape[-2], size[0], mode, x.device)
    x0, x1, fx = axis_taps(x.shape[-1], size[1], mode, x.device)
    fy, fx = fy.to(x.dtype)[row, None], fx.to(x.dtype)[column, None]
    top = x[n, :, y0[row], x0[column]] * (1 - fx) + x[n, :, y0[row], x1[column]] * fx
    bottom = x[n, :, y1[row], x0[column]] * (1 - fx) + x[n, :, y1[row], x1[column]] * fx
    return top * (1 - fy) + bottom * fy


def fir_filter2d(x: Tensor, kernel: Tensor, padding: tuple[int, int], gain: float = 1.0, stride: int = 1) -> Tensor:
    """x [N,C,H,W] correlated with the flipped kernel [n,n] (or [n], along both axes), zero-padded (low, high)."""
    c, (low, high) = x.shape[1], padding
    if low == high and low >= 0:
        pad = low  # the convolution's own padding spares a copy of x
    else:
        x, pad = F.pad(x, (low, high, low, high)), 0
    if kernel.ndim == 1:  # long filters are applied along one axis at a time: 2n taps instead of n²
        k = (kernel * math.sqrt(gain)).to(x.dtype).flip(-1)
        x = F.conv2d(x, k.view(1, 1, -1, 1).expand(c, 1, -1, 1), stride=(stride, 1), padding=(pad, 0), groups=c)
        return F.conv2d(x, k.view(1, 1, 1, -1).expand(c, 1, 1, -1), stride=(1, stride), padding=(0, pad), groups=c)
    k = (kernel * gain).to(x.dtype).flip(-1).flip(-2).expand(c, 1, *kernel.shape).contiguous()
    return F.conv2d(x, k, stride=stride, padding=pad, groups=c)


def filter_activate(
    x: Tensor, scale: Tensor, bias: Tensor, noise: Tensor | None, fir: Tensor | None, padding: Size, then: Activation
) -> Tensor:
    """`kernels.filter_activate`: gain is positive, so it may be taken through the leaky ReLU.

    Without gradients the steps after the filter are made in place: a large activation is then written over instead of
    being written anew four times, which on a CPU (fresh pages) is most of their cost.
    """
    gain, slope, clamp = then
    if fir is not None:
        x = fir_filter2d(x, fir, padding)
    steps = [(scale * gain)[:, :, None, None], (bias * gain).view(1, -1, 1, 1)]
    if noise is not None:
        steps.insert(1, noise * gain)
    factor, *terms = (t.to(x.dtype) for t in steps)
    if torch.is_grad_enabled():
        x = x * factor
        for term in terms:
            x = x + term
        x = F.leaky_relu(x, slope)
        return x if clamp is None else x.clamp(-clamp, clamp)
    x = x.mul_(factor)
    for term in terms:
        x = x.add_(term)
    x = F.leaky_relu_(x, slope)
    return x if clamp is None else x.clamp_(-clamp, clamp)


def _widths(levels: Sequence[Tensor]) -> list[int]:
    return [x.shape[1] for x in levels]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along channels; torch.cat would copy a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=1)
