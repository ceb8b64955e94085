"""Generated pairs and real annotated images as one set, so that a student learns from both (--real of `distill`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE


@dataclass(frozen=True)
class Joined:
    """Two columns [N,…] and [M,…] as one: `column[int64 [n]]` gives those rows, from N on of the second."""

    first: Any
    second: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.first.shape[1:]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, indices: Tensor) -> Tensor:
        own = indices < len(self.first)
        second = self.second[indices[~own] - len(self.first)]
        if second.is_floating_point():  # kept as float16, in which a sum over pixels overflows
            second = second.float()
        if not own.any():
            return second
        first = self.first[indices[own]]
        rows = first.new_empty((len(indices), *first.shape[1:]))
        rows[own], rows[~own] = first, second.to(rows.dtype)
        return rows


def joined(first: Any, second: Any) -> tuple[Any, Any, Any]:
    """Columns image, target and confidence of Pairs `first` followed by the hard Pairs `second`, which is sure of all.

    Where the targets of `first` are probabilities, those of `second` become such: 1 for its class, 0 for all of an
    ignored pixel. Errors: UsageError for images of another size or number of channels, and for soft targets second.
    """
    if first.image.shape[1:] != second.image.shape[1:]:
        raise UsageError(f"got annotated images [H, W, c] {_told(second.image.shape)}", wanted=_told(first.image.shape))
    target = second.target
    if target.ndim != 3:
        raise UsageError("got probabilities for annotated images", wanted="masks")
    confidence = first.confidence
    if confidence is not None:
        confidence = Joined(confidence, torch.full(target.shape, 255, dtype=torch.uint8))
    if len(first.target.shape) == 4:
        target = one_hot(target, first.target.shape[1])
    return Joined(first.image, second.image), Joined(first.target, target), confidence


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """uint8 [N,H,W] → float16 [N,K,H,W]; all 0 where it is IGNORE."""
    known = mask != IGNORE
    hot = F.one_hot(mask.masked_fill(~known, 0).long(), classes).permute(0, 3, 1, 2)
    return (hot * known.unsqueeze(1)).half()


def _told(shape: Sequence[int]) -> str:
    return str(list(shape[1:]))
