"""The feature path's operations, one function each; `backend` chooses who computes them. Definitions: reference.py.

Every function takes backend="auto" | "reference" | "triton" | "cuda". "auto" is Triton where the tensors lie on a CUDA
device and it can do the call, else the reference in plain torch. A backend asked for by name computes it or raises
ValueError with the reason; it is never replaced. A Triton kernel lies in OP_triton.py, its CUDA twin in OP.cu.
Gradients flow through all but `pixel_head`, and through `squared_norm` in the reference only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "conv_upsampled",
    "filter_activate",
    "gather_points",
    "pixel_head",
    "segment_pool",
    "segment_pool_labels",
    "squared_norm",
    "upsample_concat",
    "upsample_sum",
]


def upsample_concat(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """The dense hypercolumn: maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W], written once."""
    name = _pick(backend, maps, cuda=_no_gradients(*maps))
    if name == "cuda":
        from gansegctl.kernels import upsample_concat_cuda

        return upsample_concat_cuda.upsample_concat(maps, size, mode)
    return _backend(name, "upsample_concat")(maps, size, mode)


def upsample_sum(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    backend: str = "auto",
    slope: float | None = None,
) -> Tensor:
    """Σ U(a_i) + bias, then leaky ReLU of `slope` (0: ReLU; None: none): maps [N,K,h_i,w_i], bias [K] → [N,K,H,W]."""
    name = _pick(backend, [*maps] if bias is None else [*maps, bias])
    if slope is not None and not 0 <= slope <= 1:
        raise ValueError(f"got slope {slope}; wanted 0 … 1, or None for no activation")
    if name == "triton":
        return _backend(name, "upsample_sum")(maps, size, mode, bias, slope)
    total = _backend(name, "upsample_sum")(maps, size, mode, bias)
    if slope is None:
        return total
    from torch.nn.functional import leaky_relu

    return leaky_relu(total, slope)


def conv_upsampled(
    x: Tensor, weight: Tensor, size: tuple[int, int], mode: str = "bilinear", dilation: int = 1, backend: str = "auto"
) -> Tensor:
    """conv2d of an upsampled map without the upsampled map: x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W].

    k odd, zero padding. In Triton the k² native products are torch's matrix product; shifting, upsampling and summing
    them is one kernel, that of `upsample_sum`.
    """
    return _backend(_pick(backend, (x, weight)), "conv_upsampled")(x, weight, size, mode, dilation)


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_c U(x)_c²: x [N,C,h,w] → [N,H,W], float32 for half precision. Gradients: the reference only."""
    name = _pick(backend, (x,), triton=_no_gradients(x))
    return _backend(name, "squared_norm")(x, size, mode)


def segment_pool(weights: Tensor, x: Tensor, mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_p weight_k(p)·U(x)(p): weights [N,K,H,W], x [N,C,h,w] → [K,C], float32 for half precision."""
    return _backend(_pick(backend, (weights, x)), "segment_pool")(weights, x, mode)


def segment_pool_labels(
    labels: Tensor, x: Tensor, classes: int, mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """`segment_pool` over the segments of a label map: labels integer [N,H,W], x [N,C,h,w] → [classes,C].

    A label outside 0 … classes − 1, such as 255 for ignored, counts nowhere. Triton never makes the one-hot maps.
    """
    name = _pick(backend, (labels, x))
    if labels.ndim != 3 or labels.is_floating_point() or labels.shape[0] != x.shape[0]:
        raise ValueError(f"got labels {labels.dtype} {list(labels.shape)}; wanted integers [{x.shape[0]},H,W]")
    if name == "reference":
        from gansegctl.kernels import reference_head

        return reference_head.segment_pool_labels(labels, x, classes, mode)
    return import_module("gansegctl.kernels.segment_pool_triton").segment_pool_labels(labels, x, classes, mode)


def gather_points(
    x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """U(x) at points int64 [P,3] (sample, row, column): x [N,C,h,w] → [P,C]. ValueError for a point outside."""
    return _backend(_pick(backend, (x, points)), "gather_points")(x, points, size, mode)


def pixel_head(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    layers: Sequence[tuple[Tensor, Tensor]] = (),
    heads: int = 1,
    mode: str = "bilinear",
    bias: Tensor | None = None,
    slope: float = 0.0,
    per_pixel: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of a per-pixel perceptron, or of an ensemble of them, on summed maps; nothing wide is written.

    maps [N,heads·K_0,h_i,w_i]: the first layer's products at native size, its bias [heads·K_0]; layers: (weight
    [heads,K_j,K_j−1], bias [heads,K_j]) each, leaky ReLU of `slope` before each; the last K is the classes (≤ 255).
    → labels uint8 [N,H,W] (argmax of the mean probability), confidence uint8 [N,H,W] (255 times that probability) and
    score float32 [N]: the mean over pixels of the entropy of one head, or of the Jensen-Shannon divergence of several
    (Melville et al. 2005; Zhang et al. 2021, section 3.2), over log K; `per_pixel` gives that map [N,H,W] instead of
    its mean. Batch norms go into the layers first:
    reference_head.fold_batch_norm. The Triton kernel takes up to two layers, 256 units between them, 128 classes.
    """
    tensors = [*maps, *(t for pair in layers for t in pair)] + ([] if bias is None else [bias])
    from gansegctl.kernels import reference_head

    classes = reference_head.check_head(maps, layers, heads, bias)
    widths = [weight.shape[1] for weight, _ in layers]
    small = len(layers) <= 2 and classes <= 128 and (len(layers) < 2 or widths[0] <= 256)
    reason = None if small else "this head is too deep or too wide for it"
    if any(str(t.dtype) == "torch.float64" for t in tensors):
        reason = "this kernel takes no float64"
    name = _pick(backend, tensors, triton=reason)
    if name == "reference":
        return reference_head.pixel_head(maps, size, layers, heads, mode, bias, slope, per_pixel)
    return _backend(name, "pixel_head")(maps, size, layers, heads, mode, bias, slope, per_pixel)


def filter_activate(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    fir: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
    slope: float = 0.2,
    clamp: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """What follows a modulated convolution (StyleGAN2, section 2.2): clamp(gain · leaky(FIR(x)·scale + noise + bias)).

    x [N,C,h,w], scale [N,C], bias [C], noise [1|N,1,H,W] or None, fir [n,n] or [n] (along both axes) with zero padding
    (low, high) or None → [N,C,H,W], H = h + low + high − n + 1. gain > 0; clamp bounds the result, None: not at all.
    Without gradients x may be overwritten: give it up. Triton: filters [n,n], and no gradients.
    """
    from gansegctl.kernels import reference_filter

    if x.ndim != 4 or scale.shape != x.shape[:2] or bias.shape != x.shape[1:2]:
        raise ValueError(
            f"got x {list(x.shape)}, scale {list(scale.shape)}, bias {list(bias.shape)}; wanted [N,C,h,w], [N,C], [C]"
        )
    if gain <= 0:
        raise ValueError(f"got gain {gain}; wanted a positive number")
    given = [t for t in (x, scale, bias, noise, fir) if t is not None]
    reason = "it takes filters [n,n] only" if fir is not None and fir.ndim != 2 else _no_gradients(*given)
    name = _pick(backend, given, triton=reason, cuda="it has upsample_concat alone")
    if name == "reference":
        return reference_filter.filter_activate(x, scale, bias, noise, fir, padding, gain, slope, clamp)
    return _backend(name, "filter_activate")(x, scale, bias, noise, fir, padding, gain, slope, clamp)


def _pick(backend: str, tensors, triton: str | None = None, cuda: str | None = "it has upsample_concat alone") -> str:
    from gansegctl.kernels import backend as backends

    reasons = {"triton": triton, "cuda": cuda}
    return backends.pick(backend, tensors, {name: why for name, why in reasons.items() if why})


def _backend(name: str, op: str):
    module = "reference" if name == "reference" else f"{op}_{name}"
    return getattr(import_module(f"gansegctl.kernels.{module}"), op)


def _no_gradients(*tensors: Tensor) -> str | None:
    from torch import is_grad_enabled

    needed = is_grad_enabled() and any(t.requires_grad for t in tensors)
    return "it has no backward pass for this op, and a tensor requires gradients" if needed else None
