"""Generated pairs and real annotated images as one set, so that a student learns from both (--real of `distill`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE
from gansegctl.students.pairs import Column, Pairs


@dataclass(frozen=True)
class MixedColumn:
    """Two columns [N,…] and [M,…] as one: `column[int64 [n]]` gives those rows, from N on of the second."""

    first: Column
    second: Column

    @property
    def shape(self) -> torch.Size:
        """[N+M,…]"""
        return torch.Size((len(self), *self.first.shape[1:]))

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, rows: Tensor) -> Tensor:
        own = rows < len(self.first)
        second = self.second[rows[~own] - len(self.first)]
        if second.is_floating_point():  # kept as float16, in which a sum over pixels overflows
            second = second.float()
        if not own.any():
            return second
        first = self.first[rows[own]]
        found = first.new_empty((len(rows), *first.shape[1:]))
        found[own], found[~own] = first, second.to(found.dtype)
        return found


def mixed_pairs(first: Pairs, second: Pairs) -> Pairs:
    """The pairs `first` followed by the hard pairs `second`.

    Where the targets of `first` are probabilities, those of `second` become such: 1 for its class, 0 for all of an
    ignored pixel. Errors: UsageError for images of another size or number of channels, and for soft targets second.
    """
    wanted, got = (list(pairs.image.shape[1:]) for pairs in (first, second))
    if got != wanted:
        raise UsageError(f"got annotated images [H, W, c] {got}", wanted=f"{wanted}")
    target = second.target
    if len(target.shape) != 3:
        raise UsageError("got probabilities for annotated images", wanted="masks")
    if len(first.target.shape) == 4:
        target = one_hot(target[torch.arange(len(second))], first.target.shape[1])
    return Pairs(MixedColumn(first.image, second.image), MixedColumn(first.target, target))


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """uint8 [N,H,W] → float16 [N,K,H,W]; all 0 where it is IGNORE."""
    known = mask != IGNORE
    hot = F.one_hot(mask.masked_fill(~known, 0).long(), classes).permute(0, 3, 1, 2)
    return (hot * known.unsqueeze(1)).half()
