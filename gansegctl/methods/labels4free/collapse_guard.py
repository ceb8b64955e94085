"""A watch over masks that nobody labelled: does the foreground still have a plausible size, and does it still change?

Adversarial training of a mask collapses silently: every pixel foreground, or none. The guard looks at the same held-out
images again and again; an area is the mean of alpha over an image. The written mask is the part of an
image where alpha exceeds a threshold, and that may be nothing although the area is a plausible one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gansegctl.errors import GansegError

BINS = 10


@dataclass
class Look:
    """One look at the held-out images: share of them in each tenth of area, mean area, and how undecided alpha is
    (mean of 2·min(A, 1 − A): 0 for hard masks, 1 for alpha = ½ everywhere).

    written: share of pixels above the threshold. kind: "foreground" or "background" where a fit that ended here would
    keep such masks alone, by area or as written; else "".
    """

    iteration: int
    histogram: list[float]
    area: float
    undecided: float
    written: float = 0.0
    kind: str = ""


@dataclass
class CollapseGuard:
    """Judges every look; raises on collapse, and says when masks have settled.

    Collapse: `share` of the images or more have area beyond 1 − margin (all foreground) or below margin (all
    background), in `patience` looks in a row, or in the last look: what is kept would be such masks. In the last look
    the share of an image where alpha exceeds `threshold` counts in the same way; before, alpha may still be on its
    way there. Settled: over `patience` looks in a row the mean area moved by less than `tolerance` a look, masks are
    decided (undecided below `decided`), and neither area nor what would be written is collapsed.
    """

    margin: float = 0.03
    share: float = 0.9
    patience: int = 3
    tolerance: float = 0.01
    decided: float = 0.1
    threshold: float = 0.5
    looks: list[Look] = field(default_factory=list)
    _collapsed: list[str] = field(default_factory=list)
    _calm: int = 0

    def look(self, alpha: Iterable[Tensor], iteration: int, last: bool = False) -> bool:
        """alpha [N,1,H,W] in [0,1], or its images one by one → whether masks have settled. last: no look follows.

        Error: GansegError that names the collapse.
        """
        images = [
            torch.stack([a.mean(), 2 * torch.minimum(a, 1 - a).mean(), (a > self.threshold).float().mean()])
            for a in alpha
        ]
        areas, undecided, written = torch.stack(images).unbind(dim=1)  # [N] each
        kind = self._kind(areas)
        as_written = kind or self._kind(written)
        facts = area_histogram(areas), float(areas.mean()), float(undecided.mean()), float(written.mean())
        seen = Look(iteration, *facts, as_written)
        moved = abs(seen.area - self.looks[-1].area) if self.looks else 1.0
        self.looks.append(seen)
        self._collapsed = [*self._collapsed, kind] if kind and set(self._collapsed) <= {kind} else [kind] * bool(kind)
        if len(self._collapsed) >= self.patience or (last and as_written):
            self._raise(by_area=bool(kind))
        calm = not as_written and moved < self.tolerance and seen.undecided < self.decided
        self._calm = self._calm + 1 if calm else 0
        return self._calm >= self.patience

    def healthy(self) -> int | None:
        """The iteration of the last look at which neither the mean area nor most images were collapsed; None when
        there is none."""
        good = [s.iteration for s in self.looks if not s.kind and self.margin < s.area < 1 - self.margin]
        return good[-1] if good else None

    def _kind(self, areas: Tensor) -> str:
        if float((areas > 1 - self.margin).float().mean()) >= self.share:
            return "foreground"
        return "background" if float((areas < self.margin).float().mean()) >= self.share else ""

    def _raise(self, by_area: bool) -> None:
        last = self.looks[-1]
        good = self.healthy()
        remedy = f"raise {'bg_weight and bg_share' if last.kind == 'foreground' else 'mult'}"
        if not by_area:
            other = "raise" if last.kind == "foreground" else "lower"
            remedy = f"raise mult or iterations, which decide alpha, or {other} threshold"
        stop = "" if good is None else f", or stop at iterations = {good}, the last healthy look"
        raise GansegError(
            f"got all-{last.kind} masks at iteration {last.iteration}: mean area {last.area:.3f}, "
            f"share with alpha above {self.threshold:g} {last.written:.3f}, "
            f"areas by tenths {' '.join(f'{x:.2f}' for x in last.histogram)}",
            wanted="a foreground that is neither everything nor nothing",
            remedy=remedy + stop,
        )


def area_histogram(areas: Tensor | Sequence[float]) -> list[float]:
    """Share of the areas [N] in each tenth of [0,1]."""
    areas = torch.as_tensor(areas, dtype=torch.float32)
    counts = torch.bincount((areas * BINS).long().clamp(0, BINS - 1).cpu(), minlength=BINS)
    return [round(float(x), 4) for x in counts / max(len(areas), 1)]
