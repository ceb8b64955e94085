"""Scores near class boundaries, where annotators differ: the trimap of a mask.

A pixel is in the band of width w when a pixel of another class lies within w pixels of it, measured as the Chebyshev
distance (the larger of the two coordinate differences). The band is thus w pixels wide on either side of a boundary.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.evaluate.confusion import per_image_confusion, tensor
from gansegctl.labels import IGNORE


def _window_max(values: Tensor, width: int) -> Tensor:
    """The largest value in the (2w+1)² window, by two passes of a line: [N, 1, H, W] → the same."""
    side = 2 * width + 1
    values = F.max_pool2d(values, (1, side), stride=1, padding=(0, width))
    return F.max_pool2d(values, (side, 1), stride=1, padding=(width, 0))


def band(truth: np.ndarray | Tensor, width: int = 3, ignore: int = IGNORE) -> Tensor:
    """The pixels within `width` px (Chebyshev) of another class: integer [..., H, W] → bool [..., H, W].

    A window holds two classes exactly when its largest and smallest label differ. Ignored pixels neither make a
    boundary nor lie in the band. Error: UsageError for a width below 1.
    """
    if width < 1:
        raise UsageError(f"got a trimap width of {width}", wanted="1 pixel or more")
    truth = tensor(truth)
    labels = truth.reshape(-1, 1, *truth.shape[-2:]).float()  # [N, 1, H, W]
    counted = labels != ignore
    nothing = torch.full_like(labels, -torch.inf)
    largest = _window_max(torch.where(counted, labels, nothing), width)
    smallest = -_window_max(torch.where(counted, -labels, nothing), width)
    return (counted & (largest != smallest)).reshape(truth.shape)


def per_image_trimap_confusion(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, classes: int, width: int = 3, ignore: int = IGNORE
) -> np.ndarray:
    """`per_image_confusion` of the pixels in the truth's band: integer [N, H, W] twice → int64 [N, K, K]."""
    truth = tensor(truth)
    near = torch.where(band(truth, width, ignore), truth, torch.full_like(truth, ignore))
    return per_image_confusion(predicted, near, classes, ignore)
