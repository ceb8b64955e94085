"""Layer-wise adaptive rate control: every tensor's step is a fixed share of its own size.

You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks, 2017 (LARS), eq. 6, without clipping to the
global rate. Plain torch; call it between `backward` and the optimiser's `step`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def larc_(parameters: Iterable[Tensor], trust: float = 0.01, eps: float = 1e-8) -> None:
    """Multiply each gradient by trust·‖p‖/(‖g‖ + eps), in place; tensors without size or gradient are left as they are.

    With SGD of rate lr and momentum m, T steps in one direction move a tensor by at most T·lr·trust/(1 − m) of itself.
    """
    for p in parameters:
        if p.grad is None:
            continue
        size, slope = p.norm(), p.grad.norm()
        if size > 0 and slope > 0:
            p.grad.mul_(trust * size / (slope + eps))
