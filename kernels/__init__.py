"""The feature path's operations, one function each; `backend` chooses who computes them. Definitions: reference.py.

Every function takes backend="auto" | "reference" | "cpu" | "torch" | "triton" | "cuda". "auto" is cpu for tensors on
the CPU, triton where they lie on a CUDA device and it can do the call, else torch. A backend asked for by name computes
it or raises ValueError with the reason; it is never replaced. Levels are activations at native size [N,C_i,h_i,w_i];
their hypercolumn [N,ΣC_i,H,W] is what they are upsampled and concatenated. A Triton kernel lies in OP_triton.py, its
CUDA twin in OP.cu. Gradients flow through all but `pixel_head` and `classify`; of `squared_norm` and `filter_activate`
not in Triton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "classify",
    "conv",
    "conv_upsampled",
    "filter_activate",
    "gather_points",
    "perceptron",
    "pixel_head",
    "project",
    "segment_pool",
    "segment_pool_labels",
    "squared_norm",
    "upsample_concat",
    "upsample_sum",
]

_CUDA_HAS = "it has upsample_concat alone"


def upsample_concat(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """The dense hypercolumn: maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W], written once."""
    return _module(backend, maps, cuda=_no_gradients(*maps)).upsample_concat(maps, size, mode)


def upsample_sum(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    backend: str = "auto",
    slope: float | None = None,
) -> Tensor:
    """Σ U(a_i) + bias, then leaky ReLU of `slope` (0: ReLU; None: none): maps [N,K,h_i,w_i], bias [K] → [N,K,H,W]."""
    from gansegctl.kernels.interpolation import check_mode

    name = _pick(backend, [*maps, bias])
    check_mode(mode)
    if not maps:
        raise ValueError("got no maps; wanted at least one [N,K,h,w]")
    if slope is not None and not 0 <= slope <= 1:
        raise ValueError(f"got slope {slope}; wanted 0 … 1, or None for no activation")
    if name == "triton":
        return _load(name).upsample_sum(maps, size, mode, bias, slope)
    total = _load(name).upsample_sum(maps, size, mode, bias)
    if slope is None:
        return total
    from torch.nn.functional import leaky_relu

    return leaky_relu(total, slope)


def project(
    levels: Sequence[Tensor],
    weight: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """W·x + b at every pixel of the hypercolumn x: weight [K,ΣC], bias [K] → [N,K,H,W]."""
    return _module(backend, [*levels, weight, bias]).project(levels, weight, size, mode, bias)


def conv(
    levels: Sequence[Tensor],
    weight: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    dilation: int = 1,
    backend: str = "auto",
) -> Tensor:
    """k×k convolution of the hypercolumn, k odd, 0 outside: weight [K,ΣC,k,k], bias [K] → [N,K,H,W]."""
    return _module(backend, [*levels, weight, bias]).conv(levels, weight, size, mode, bias, dilation)


def conv_upsampled(
    x: Tensor, weight: Tensor, size: tuple[int, int], mode: str = "bilinear", dilation: int = 1, backend: str = "auto"
) -> Tensor:
    """conv2d of an upsampled map without the upsampled map: x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W].

    k odd, zero padding. In Triton the k² native products are torch's matrix product; shifting, upsampling and summing
    them is one kernel, that of `upsample_sum`.
    """
    return _module(backend, (x, weight)).conv_upsampled(x, weight, size, mode, dilation)


def perceptron(
    levels: Sequence[Tensor],
    layers: Sequence[tuple[Tensor, Tensor]],
    size: tuple[int, int],
    mode: str = "bilinear",
    slope: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """A per-pixel head on the hypercolumn: layers (weight [K_out,K_in], bias [K_out]) → logits [N,K,H,W].

    Leaky ReLU of `slope` between the layers. The first layer is `project`; its maps never exist whole where no
    gradients are asked for (cpu: a strip of rows; torch and triton: some units at a time, see torch_ops.perceptron).
    """
    tensors = [*levels, *(t for pair in layers for t in pair)]
    return _module(backend, tensors).perceptron(levels, layers, size, mode, slope)


def classify(
    levels: Sequence[Tensor],
    heads: Sequence[Sequence[tuple[Tensor, Tensor]]],
    size: tuple[int, int],
    mode: str = "bilinear",
    slope: float = 0.0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """The vote of one or more `perceptron`s of one shape: labels uint8, confidence uint8, uncertainty float32, [N,H,W].

    p is the mean over heads of their probabilities: label argmax p, confidence round(255·max p). Uncertainty, in
    0…1: of one head H(p)/log K; of several the Jensen-Shannon divergence (H(mean p) − mean H(p))/log K. No gradients.
    """
    from torch import no_grad

    tensors = [*levels, *(t for layers in heads for pair in layers for t in pair)]
    reason = _no_head_in_triton([weight.shape[0] for weight, _ in heads[0][1:]], len(heads[0][0][0]), tensors)
    with no_grad():
        return _module(backend, tensors, triton=reason).classify(levels, heads, size, mode, slope)


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_c U(x)_c²: x [N,C,h,w] → [N,H,W], float32 for half precision."""
    return _module(backend, (x,), triton=_no_gradients(x)).squared_norm(x, size, mode)


def segment_pool(weights: Tensor, levels: Sequence[Tensor], mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_p weight_k(p)·x(p) of the hypercolumn x: weights [N,K,H,W] → [K,ΣC], float32 for half precision."""
    return _module(backend, (weights, *levels)).segment_pool(weights, levels, mode)


def segment_pool_labels(
    labels: Tensor, levels: Sequence[Tensor], classes: int, mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """`segment_pool` over the segments of a label map: labels integer [N,H,W] → [classes,ΣC].

    A label outside 0 … classes − 1, such as 255 for ignored, counts nowhere. Triton never makes the one-hot maps.
    """
    module = _module(backend, (labels, *levels))
    if labels.ndim != 3 or labels.is_floating_point() or labels.shape[0] != levels[0].shape[0]:
        raise ValueError(f"got labels {labels.dtype} {list(labels.shape)}; wanted integers [{levels[0].shape[0]},H,W]")
    return module.segment_pool_labels(labels, levels, classes, mode)


def gather_points(
    x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """U(x) at points int64 [P,3] (sample, row, column): x [N,C,h,w] → [P,C]. ValueError for a point outside."""
    from gansegctl.kernels.launch import check_points

    module = _module(backend, (x, points))
    check_points(points, len(x), size)
    return module.gather_points(x, points, size, mode)


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
    its mean. The Triton kernel takes up to two layers, 256 units between them, 128 classes.
    """
    from gansegctl.kernels.launch import check_head

    check_head(maps, layers, heads, bias)
    tensors = [*maps, *(t for pair in layers for t in pair), bias]
    reason = _no_head_in_triton([weight.shape[1] for weight, _ in layers], maps[0].shape[1] // heads, tensors)
    module = _module(backend, tensors, triton=reason)
    return module.pixel_head(maps, size, layers, heads, mode, bias, slope, per_pixel)


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
    """Steps after a modulated convolution (StyleGAN2, section 2.2): clamp(gain · leaky(FIR(x)·scale + noise + bias)).

    x [N,C,h,w], scale [N,C], bias [C], noise [1|N,1,H,W] or None, fir [n,n] or [n] (along both axes) with zero padding
    (low, high) or None → [N,C,H,W], H = h + low + high − n + 1. gain > 0; clamp bounds the result, None: not at all.
    Without gradients x may be overwritten: give it up. Triton: filters [n,n], and no gradients.
    """
    from gansegctl.kernels.reference import Activation

    if x.ndim != 4 or scale.shape != x.shape[:2] or bias.shape != x.shape[1:2]:
        raise ValueError(
            f"got x {list(x.shape)}, scale {list(scale.shape)}, bias {list(bias.shape)}; wanted [N,C,h,w], [N,C], [C]"
        )
    if gain <= 0:
        raise ValueError(f"got gain {gain}; wanted a positive number")
    given = [t for t in (x, scale, bias, noise, fir) if t is not None]
    reason = "it takes filters [n,n] only" if fir is not None and fir.ndim != 2 else _no_gradients(*given)
    module = _module(backend, given, triton=reason)
    return module.filter_activate(x, scale, bias, noise, fir, padding, Activation(gain, slope, clamp))


def _pick(
    backend: str,
    tensors: Iterable[Tensor | None],
    triton: str | None = None,
    cuda: str | None = _CUDA_HAS,
) -> str:
    """The backend that runs on `tensors`; triton, cuda: why those cannot do this call."""
    from gansegctl.kernels import backend as backends

    reasons = {"triton": triton, "cuda": cuda}
    there = [t for t in tensors if t is not None]
    return backends.pick(backend, there, {name: why for name, why in reasons.items() if why})


def _module(
    backend: str,
    tensors: Iterable[Tensor | None],
    triton: str | None = None,
    cuda: str | None = _CUDA_HAS,
) -> ModuleType:
    return _load(_pick(backend, tensors, triton, cuda))


def _load(name: str) -> ModuleType:
    """By import statements: torch.compile follows those and breaks its graph at import_module."""
    if name == "reference":
        from gansegctl.kernels import reference

        return reference
    if name == "cpu":
        from gansegctl.kernels import cpu_ops

        return cpu_ops
    if name == "torch":
        from gansegctl.kernels import torch_ops

        return torch_ops
    if name == "triton":
        from gansegctl.kernels import triton_ops

        return triton_ops
    from gansegctl.kernels import upsample_concat_cuda

    return upsample_concat_cuda


def _no_head_in_triton(widths: Sequence[int], first: int, tensors: Iterable[Tensor | None]) -> str | None:
    """Why the Triton kernel cannot run a head of layers of these widths after a first one, if it cannot."""
    classes = widths[-1] if widths else first
    if any(str(t.dtype) == "torch.float64" for t in tensors if t is not None):
        return "this kernel takes no float64"
    small = len(widths) <= 2 and classes <= 128 and (len(widths) < 2 or widths[0] <= 256)
    return None if small else "this head is too deep or too wide for it"


def _no_gradients(*tensors: Tensor) -> str | None:
    from torch import is_grad_enabled

    needed = is_grad_enabled() and any(t.requires_grad for t in tensors)
    return "it has no backward pass for this op, and a tensor requires gradients" if needed else None
