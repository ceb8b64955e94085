"""The feature path's operations, one function each; `backend` chooses who computes them. Definitions: reference.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["conv_upsampled", "gather_points", "segment_pool", "squared_norm", "upsample_concat", "upsample_sum"]


def upsample_concat(
    maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """The dense hypercolumn: maps [N,C_i,h_i,w_i] → [N,ΣC_i,H,W]."""
    return _module(backend).upsample_concat(maps, size, mode)


def upsample_sum(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mode: str = "bilinear",
    bias: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Σ U(a_i) + bias: maps [N,K,h_i,w_i], bias [K] → [N,K,H,W]."""
    return _module(backend).upsample_sum(maps, size, mode, bias)


def conv_upsampled(
    x: Tensor, weight: Tensor, size: tuple[int, int], mode: str = "bilinear", dilation: int = 1, backend: str = "auto"
) -> Tensor:
    """conv2d of an upsampled map without the upsampled map: x [N,C,h,w], weight [K,C,k,k] → [N,K,H,W]."""
    return _module(backend).conv_upsampled(x, weight, size, mode, dilation)


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_c U(x)_c²: x [N,C,h,w] → [N,H,W]."""
    return _module(backend).squared_norm(x, size, mode)


def segment_pool(weights: Tensor, x: Tensor, mode: str = "bilinear", backend: str = "auto") -> Tensor:
    """Σ_p weight_k(p)·U(x)(p): weights [N,K,H,W], x [N,C,h,w] → [K,C]."""
    return _module(backend).segment_pool(weights, x, mode)


def gather_points(
    x: Tensor, points: Tensor, size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
) -> Tensor:
    """U(x) at points int64 [P,3] (sample, row, column): x [N,C,h,w] → [P,C]."""
    return _module(backend).gather_points(x, points, size, mode)


def _module(backend: str):
    from gansegctl.kernels import backend as backends
    from gansegctl.kernels import reference

    return {"reference": reference}[backends.pick(backend)]
