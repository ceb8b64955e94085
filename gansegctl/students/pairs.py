"""The pairs that a student learns from: columns of images and targets, in memory or read as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gansegctl.errors import UsageError


class Column(Protocol):
    """A Tensor [N,…], or anything of its shape that gives rows [n,…] when it is indexed with int64 [n]."""

    @property
    def shape(self) -> torch.Size:
        """[N,…]"""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass
class Pairs:
    """image uint8 [N,H,W,c]; target uint8 [N,H,W] (hard; 255 = ignored) or float16 [N,K,H,W] (soft, probabilities).

    Errors: UsageError for no pairs, and for images and targets of different numbers or sizes.
    """

    image: Column
    target: Column

    def __post_init__(self) -> None:
        if not len(self.image):
            raise UsageError("got no pairs to train on", wanted="at least one image with its mask")
        if len(self.image) != len(self.target) or self.image.shape[1:3] != self.target.shape[-2:]:
            raise UsageError(f"got images {list(self.image.shape)}, masks {list(self.target.shape)}", wanted="pairs")

    def __len__(self) -> int:
        return len(self.image)
