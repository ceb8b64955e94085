"""How quality rises when the least certain samples are left out: whether an uncertainty is worth filtering by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gansegctl.errors import UsageError
from gansegctl.evaluate import confusion as c

SHARES = tuple(round(1 - 0.05 * i, 2) for i in range(19))
"""1.0, 0.95 … 0.1 of the samples."""


def coverage_curve(
    per_image: np.ndarray, uncertainty: np.ndarray, shares: Sequence[float] = SHARES
) -> list[tuple[float, float, float, float]]:
    """per_image confusion [N,K,K], uncertainty [N] → (share kept, mIoU, pixel accuracy, mIoU an oracle would reach).

    Kept are the samples of least uncertainty, all pooled; equal ones in their order. The oracle keeps those of the
    highest pixel accuracy: no score can leave out better samples by that measure. UsageError for other lengths.
    """
    if len(per_image) != len(uncertainty) or not len(per_image):
        raise UsageError(f"got {len(uncertainty)} scores of {len(per_image)} samples", wanted="one of each sample")
    order = np.argsort(np.nan_to_num(np.asarray(uncertainty, np.float64), nan=np.inf), kind="stable")
    right = np.nan_to_num(c.pixel_accuracy(per_image))
    best = np.argsort(-right, kind="stable")
    rows = []
    for share in shares:
        kept = max(1, round(share * len(order)))
        ours, oracle = (per_image[chosen[:kept]].sum(0, dtype=np.int64) for chosen in (order, best))
        scores = float(c.mean_iou(ours)), float(c.pixel_accuracy(ours)), float(c.mean_iou(oracle))
        rows.append((float(share), *scores))
    return rows


def gain(curve: Sequence[tuple[float, ...]], dropped: float = 0.1) -> float:
    """mIoU with the least certain `dropped` share left out, minus mIoU of all."""
    of = {share: miou for share, miou, *_ in curve}
    return of[round(1 - dropped, 2)] - of[1.0]
