"""Whether confidence is what it says: of pixels labelled with confidence p, a share p should be right."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from gansegctl.evaluate import confusion as c
from gansegctl.labels import IGNORE

BINS = 15
"""Of equal width from 0 to 1, as Guo et al. 2017 take them."""


class Reliability:
    """Counts pixels by their confidence, and how many of them are right; memory does not grow with the images."""

    def __init__(self) -> None:
        self.pixels = np.zeros(256, np.int64)
        self.right = np.zeros(256, np.int64)

    def add(self, confidence: np.ndarray | Tensor, predicted: Tensor, truth: Tensor) -> None:
        """confidence uint8 [n,H,W], 255 = sure, of the masks predicted and true [n,H,W]; ignored pixels not counted."""
        sure = c.tensor(confidence).to(truth.device)
        counted = (truth != IGNORE) & (predicted.to(truth.device) != IGNORE)
        right = counted & (predicted.to(truth.device) == truth)
        self.pixels += sure[counted].long().bincount(minlength=256).cpu().numpy()
        self.right += sure[right].long().bincount(minlength=256).cpu().numpy()

    def bins(self) -> list[tuple[float, float, float]]:
        """(mean confidence, share of right pixels, share of all pixels) of each bin that is not empty."""
        values = np.arange(256) / 255
        which = np.minimum((values * BINS).astype(int), BINS - 1)
        rows = []
        for k in range(BINS):
            n = self.pixels[which == k]
            if n.sum():
                mean = float((values[which == k] * n).sum() / n.sum())
                rows.append((mean, float(self.right[which == k].sum() / n.sum()), float(n.sum() / self.pixels.sum())))
        return rows

    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, eq. 3): mean distance of the two; nan without a pixel."""
        rows = self.bins()
        return sum(share * abs(sure - right) for sure, right, share in rows) if rows else float("nan")
