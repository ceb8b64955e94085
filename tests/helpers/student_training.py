"""A task that a student learns in seconds: a disc or a bar on a noisy ground."""

from __future__ import annotations

import torch

from gansegctl.labels import LabelMap
from gansegctl.students.augment import AugmentSettings
from gansegctl.students.pairs import Pairs
from gansegctl.students.training import StudentSettings

LABELS = LabelMap(("background", "disc", "bar"))
STILL = AugmentSettings(rotation=0, shift=0, scale=1.0, mirror=0, light=0, blur=0, grain=0)


def shapes(n: int, size: int = 16, channels: int = 3, seed: int = 0) -> Pairs:
    """A disc or a bar on a noisy ground of the same mean colour range."""
    stream = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = torch.zeros(n, size, size, dtype=torch.uint8)
    for i in range(n):
        cy, cx = torch.randint(5, size - 5, (2,), generator=stream).tolist()
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= 12
        mask[i] = torch.where(disc, 1, torch.where((x == (cx + 6) % size) & ~disc, 2, 0)).to(torch.uint8)
    noise = torch.randint(0, 60, (n, size, size, channels), generator=stream, dtype=torch.uint8)
    colour = torch.tensor([20, 150, 90], dtype=torch.uint8)[mask.long()].unsqueeze(-1)
    return Pairs((noise + colour).to(torch.uint8), mask)


def settings(**changes) -> StudentSettings:
    base = {"widths": (8, 12), "epochs": 1, "steps": 12, "batch_size": 8, "augment": AugmentSettings()}
    return StudentSettings(**base | changes)
