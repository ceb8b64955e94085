"""Balanced soft assignment of pixels to prototypes by Sinkhorn-Knopp, in the log domain so that it cannot overflow.

Cuturi: Sinkhorn Distances, NeurIPS 2013, eq. 2; as codes of a swapped prediction: Caron et al., SwAV, NeurIPS 2020,
section 3.1. exp(score/ε) of the plain form exceeds float32 as soon as score/ε > 88: at ε = 0.005 from a score of 0.44.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

AT_ONCE = 1 << 23
"""Numbers of a block of rows: 32 MB in float32."""
AT_ONCE_ON_CPU = 1 << 20
"""The same on a CPU, where 4 MB stay in cache, and leave no holes in the heap that larger ones would (0.4 GB)."""


def rows_at_once(columns: int, like: Tensor, most: int | None = None) -> int:
    """Rows of so many numbers in a block on the device of `like`. most: numbers, AT_ONCE unless given."""
    most = AT_ONCE if most is None else most
    return max((min(most, AT_ONCE_ON_CPU) if like.device.type == "cpu" else most) // columns, 1)


def potentials(
    logits: Tensor, rounds: int = 10, prototype_share: Tensor | None = None, pixel_share: Tensor | None = None
) -> Tensor:
    """logits [P,K] = scores/ε → a [K], the logarithms by which prototypes are scaled after `rounds` rounds.

    A round scales every prototype's column to its share (1/K, or prototype_share [K]) and then every pixel's row to
    its own (1/P, or pixel_share [P]); shares sum to 1. A pixel's scale in the last round does not matter,
    since `codes` normalises pixels: so `a` says it all. Rows are taken in blocks: nothing of the size of `logits` is
    made. With 0 rounds a = 0. Error: ValueError for negative rounds, or shares of another length.
    """
    pixels, prototypes = logits.shape
    if rounds < 0:
        raise ValueError(f"got {rounds} rounds; wanted 0 or more")
    log_k = _log_share(prototype_share, prototypes, logits)
    log_p = _log_share(pixel_share, pixels, logits)
    a, scale = torch.zeros_like(log_k), torch.zeros_like(log_p)
    block = rows_at_once(prototypes, logits)
    for turn in range(rounds):
        total = torch.full_like(a, -math.inf)
        for i in range(0, pixels, block):
            part = logits[i : i + block]
            if turn:
                scale[i : i + block] = log_p[i : i + block] - (part + a).logsumexp(dim=1)
            total = torch.logaddexp(total, (part + scale[i : i + block, None]).logsumexp(dim=0))
        a = log_k - total
    return a


def codes(logits: Tensor, a: Tensor) -> Tensor:
    """logits [P,K], a [K] → for every pixel its distribution over prototypes, [P,K]."""
    return (logits + a).softmax(dim=1)


def sinkhorn(scores: Tensor, epsilon: float, rounds: int = 10) -> Tensor:
    """scores [P,K] → codes [P,K]: uniform shares, regularisation `epsilon`."""
    logits = scores / epsilon
    return codes(logits, potentials(logits, rounds))


def _log_share(share: Tensor | None, count: int, like: Tensor) -> Tensor:
    if share is None:
        return torch.full((count,), -math.log(count), dtype=like.dtype, device=like.device)
    if share.shape != (count,):
        raise ValueError(f"got shares {list(share.shape)}; wanted [{count}]")
    return share.to(like).log()
